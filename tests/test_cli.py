"""The command line from end to end: what it prints, writes and returns."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

from tfmeta import cli, learners, presets, training

SCRIPT = Path(sys.executable).with_name("tfmeta")
# What TensorFlow and its libraries write to stderr if they are let.
CHATTER = ("oneDNN", "cuda", "absl", "CUDA", "WARNING", "cpu_feature_guard", "retracing")

SINUSOID: dict[str, Any] = {
    "name": "waves",
    "data": {"name": "sinusoid"},
    "episodes": {"n_shot": 4, "n_query": 5, "meta_batch_size": 3},
    "network": {"name": "mlp", "hidden_units": [8]},
    "learner": {"name": "maml", "inner_learning_rate": 0.01},
    "training": {"epochs": 1, "steps_per_epoch": 2, "optimizer": "adam"},
    "validation": {"n_episodes": 3},
    "evaluation": {"n_episodes": 6, "inner_steps": 2},
    "protocol": "a tiny one",
}
DIGITS: dict[str, Any] = {
    **SINUSOID,
    "name": "digits",
    "data": {"name": "digits"},
    "episodes": {"n_way": 2, "n_shot": 2, "n_query": 3, "meta_batch_size": 3},
    "network": {"name": "linear"},
    "learner": {"name": "maml", "inner_learning_rate": 0.5, "test_inner_steps": 6},
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tfmeta(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: exit code, stdout, stderr."""
    # TensorFlow has already started here, too late for threads.
    monkeypatch.setattr(cli, "configure_threads", lambda: None)

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


def script(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user does."""
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=200
    )


def check_error(result: tuple[int, str, str], *parts: str) -> None:
    """It failed with one line that has these parts."""
    code, _, stderr = result
    assert code == 1
    assert stderr.startswith("tfmeta: error: ")
    assert stderr.count("\n") == 1
    for part in parts:
        assert part in stderr
    for noise in ("Traceback", "user code", "{{", "function_node"):
        assert noise not in stderr


def trained(folder: Path, recipe: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "configure_threads", lambda: None)
        assert cli.main(["train", str(folder), "--output", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def waves(work: Path) -> Path:
    """A run on sinusoids, and the only one by the installed script; it is checked here."""
    folder = work / "waves"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SINUSOID))
    result = script("train", folder, "--output", folder / "run")
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if any(c in line for c in CHATTER)] == []
    assert "Test: mse " in result.stdout
    assert "(before adaptation)" in result.stdout
    assert "evaluation.json" in result.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def digits(work: Path) -> Path:
    return trained(work / "digits", DIGITS)


def draw(path: Path, kind: int, rng: np.random.Generator, size: int = 12) -> None:
    """A picture whose upper (kind 0) or lower (kind 1) half is dark."""
    pixels = rng.integers(150, 256, size=(size, size + 3), dtype=np.uint8)
    rows = slice(0, size // 2) if kind == 0 else slice(size // 2, size)
    pixels[rows] //= 5
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def pictures(work: Path) -> Path:
    """A run on a folder of images of ten classes."""
    rng = np.random.default_rng(0)
    for k in range(10):
        for i in range(5):
            draw(work / "classes" / f"class{k}" / f"{i}.png", k % 2, rng)
    recipe = copy.deepcopy(DIGITS)
    image_format = {"height": 8, "width": 8, "channels": 1, "invert": True}
    recipe["data"] = {"name": str(work / "classes"), "image_format": image_format}
    return trained(work / "pictures", recipe)


@pytest.fixture(scope="module")
def halves(work: Path) -> Path:
    """A support folder of two classes, named so that their order is not that of the kinds."""
    rng = np.random.default_rng(1)
    for i in range(4):
        draw(work / "halves" / "upper" / f"{i}.png", 0, rng)
        draw(work / "halves" / "lower" / f"{i}.png", 1, rng, size=20)
    return work / "halves"


# === Each command ===


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["--help"])
    assert error.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    for command in ("train", "evaluate", "adapt", "predict", "plot"):
        assert f"\n    {command} " in out


def test_training_writes_a_run(waves: Path, digits: Path, pictures: Path) -> None:
    for run in (waves, digits, pictures):
        for name in ("best.keras", "evaluation.json", "learning_curve.png"):
            assert (run / name).is_file()
    assert (pictures / "episodes.png").is_file()
    assert not (digits / "episodes.png").exists()


def test_training_takes_epochs_and_seed(tfmeta: Run, waves: Path, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "run", "--epochs", 2, "--seed", 7)
    code, _, _ = tfmeta("train", waves.parent, *options)
    assert code == 0
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["training"]
    assert (kept["epochs"], kept["seed"]) == (2, 7)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3
    check_error(tfmeta("train", waves.parent, "--output", tmp_path / "x", "--epochs", 0), "epochs")


def test_evaluating_gives_the_result_of_training(tfmeta: Run, waves: Path, tmp_path: Path) -> None:
    code, out, _ = tfmeta("evaluate", waves, "--output", tmp_path / "result.json")
    assert code == 0
    result = json.loads((tmp_path / "result.json").read_text())
    trained = json.loads((waves / "evaluation.json").read_text())
    # The run used one thread per operation: the last bits may differ.
    assert result["mean"] == pytest.approx(trained["mean"], rel=1e-4)
    assert result["n_episodes"] == 6
    assert (result["split"], result["seed"], result["protocol"]) == ("test", 0, "a tiny one")
    assert f"mse {result['mean']:.4f} ± {result['ci95']:.4f} (6 episodes)" in out


def test_evaluating_takes_episodes_steps_split_and_seed(
    tfmeta: Run, digits: Path, tmp_path: Path
) -> None:
    results = []
    for i, (split, seed) in enumerate((("test", 0), ("test", 5), ("train", 0), ("validation", 0))):
        path = tmp_path / f"{i}.json"
        options = ("--n-episodes", 40, "--inner-steps", 3, "--split", split, "--seed", seed)
        assert tfmeta("evaluate", digits, *options, "--output", path)[0] == 0
        result = json.loads(path.read_text())
        assert (result["n_episodes"], result["split"], result["seed"]) == (40, split, seed)
        assert len(result["by_inner_step"]) == 4
        assert result["inner_steps"] == DIGITS["learner"]["test_inner_steps"]
        results.append(result["by_inner_step"])
    assert all(a != b for i, a in enumerate(results) for b in results[:i])


def test_a_regression_task_is_learned_from_a_csv_file(
    tfmeta: Run, waves: Path, tmp_path: Path
) -> None:
    support = np.array([[-1.0, 0.5], [0.0, 1.0], [2.0, 0.25]], np.float32)
    queries = np.array([[0.5], [1.5]], np.float32)
    np.savetxt(tmp_path / "support.csv", support, delimiter=",")
    np.savetxt(tmp_path / "queries.csv", queries, delimiter=",")
    code, out, _ = tfmeta(
        "adapt", waves, "--support", tmp_path / "support.csv", "--output", tmp_path / "task"
    )
    assert code == 0
    assert "3 examples" in out
    code, out, _ = tfmeta("predict", tmp_path / "task", tmp_path / "queries.csv")
    assert code == 0
    learner = keras.models.load_model(waves / "best.keras")
    expected = learner(
        {
            "support_x": support[None, :, :1],
            "support_y": support[None, :, 1:],
            "query_x": queries[None],
        }
    )
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == [f"{tmp_path / 'queries.csv'}:{i}" for i in (1, 2)]
    np.testing.assert_allclose(
        [float(line[1]) for line in lines], np.ravel(expected), rtol=1e-4, atol=1e-5
    )


def test_classes_are_learned_from_a_csv_file(tfmeta: Run, digits: Path, tmp_path: Path) -> None:
    # Far apart, with labels that are neither in order nor from 0.
    x = np.repeat(np.eye(2).repeat(32, axis=1), 3, axis=0)
    np.savetxt(tmp_path / "support.csv", np.c_[x, [7, 7, 7, 4, 4, 4]], delimiter=",")
    np.savetxt(tmp_path / "queries.csv", x[[0, 3, 1]], delimiter=",")
    code, out, _ = tfmeta(
        "adapt", digits, "--support", tmp_path / "support.csv", "--output", tmp_path / "task"
    )
    assert code == 0
    assert "6 examples of the classes 4, 7" in out
    code, out, _ = tfmeta("predict", tmp_path / "task", tmp_path / "queries.csv")
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[1] for line in lines] == ["7", "4", "7"]
    assert all(0.5 < float(line[2]) <= 1 for line in lines)


def test_classes_are_learned_from_a_folder_of_images(
    tfmeta: Run, pictures: Path, halves: Path, tmp_path: Path
) -> None:
    code, out, _ = tfmeta("adapt", pictures, "--support", halves, "--output", tmp_path / "task")
    assert code == 0
    assert "8 examples of the classes lower, upper" in out
    rng = np.random.default_rng(2)
    for i, kind in enumerate((1, 0, 0)):
        draw(tmp_path / "new" / f"{i}.PNG", kind, rng, size=30)
    single = tmp_path / "single.png"
    draw(single, 1, rng)
    code, out, _ = tfmeta("predict", tmp_path / "task", tmp_path / "new", single)
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [Path(line[0]).name for line in lines] == ["0.PNG", "1.PNG", "2.PNG", "single.png"]
    assert [line[1] for line in lines] == ["lower", "upper", "upper", "lower"]


LEARNERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "anil": ({"name": "conv4", "filters": 4}, {}),
    "cavia": ({"name": "film_conv4", "filters": 4, "n_context": 3}, {}),
    "maml": ({"name": "conv4", "filters": 4}, {"inner_rule": {"name": "momentum"}}),
    "maml_plus_plus": ({"name": "conv4", "filters": 4}, {"inner_steps": 2}),
    "matching_network": ({"name": "conv4", "filters": 4}, {"full_context": True}),
    "meta_lstm": ({"name": "conv4", "filters": 4}, {"inner_steps": 2, "hidden_units": 3}),
    "meta_sgd": ({"name": "conv4", "filters": 4}, {}),
    "prototypical_network": ({"name": "conv4", "filters": 4}, {"distance": "cosine"}),
    "relation_network": ({"name": "relation_encoder", "filters": 4}, {}),
    "reptile": (
        {"name": "conv4", "filters": 4},
        {"inner_rule": "adam", "inner_batch_size": 2, "inner_steps": 2},
    ),
}


@pytest.mark.parametrize("name", learners.BY_NAME)
def test_every_learner_goes_from_a_recipe_to_predictions(
    tfmeta: Run, work: Path, pictures: Path, halves: Path, name: str
) -> None:
    network, options = LEARNERS[name]
    recipe = yaml.safe_load((pictures / "recipe.yaml").read_text())
    recipe["data"]["image_format"].update({"height": 28, "width": 28})
    recipe["evaluation"].pop("inner_steps")
    learner = {"name": name, "batch_norm": "support", **options}
    run = trained(work / name, {**recipe, "name": name, "network": network, "learner": learner})
    code, out, _ = tfmeta("evaluate", run, "--n-episodes", 4)
    assert code == 0
    assert "Test: accuracy " in out
    task = work / name / "task"
    assert tfmeta("adapt", run, "--support", halves, "--output", task)[0] == 0
    files = sorted(halves.rglob("*.png"))
    code, out, _ = tfmeta("predict", task, *files)
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert len(lines) == len(files)
    assert all(line[1] in ("lower", "upper") and 0 <= float(line[2]) <= 1 for line in lines)
    # A query alone is predicted as it is among others.
    _, label, p = tfmeta("predict", task, files[3])[1].split("\t")
    assert label == lines[3][1]
    assert float(p) == pytest.approx(float(lines[3][2]), abs=2e-4)


def test_fewer_classes_than_in_training_can_be_learned(
    tfmeta: Run, work: Path, tmp_path: Path
) -> None:
    # A network of four outputs learns two classes, and predicts none but them.
    wide = {**DIGITS, "episodes": {"n_way": 4, "n_shot": 1, "n_query": 2, "meta_batch_size": 3}}
    wide["validation"] = {"n_episodes": 3, "n_way": 2}
    run = trained(work / "wide", wide)
    rows = np.c_[np.random.default_rng(0).uniform(size=(4, 64)), [1, 2, 1, 2]]
    np.savetxt(tmp_path / "support.csv", rows, delimiter=",")
    np.savetxt(tmp_path / "queries.csv", -9 * rows[:, :-1], delimiter=",")
    task = tmp_path / "task"
    assert tfmeta("adapt", run, "--support", tmp_path / "support.csv", "--output", task)[0] == 0
    code, out, _ = tfmeta("predict", task, tmp_path / "queries.csv")
    assert code == 0
    assert {line.split("\t")[1] for line in out.splitlines()} <= {"1", "2"}


def test_fits_of_runs_are_plotted(tfmeta: Run, waves: Path, digits: Path, tmp_path: Path) -> None:
    code, _, _ = tfmeta("plot", waves, "--output", tmp_path / "fits.png")
    assert code == 0
    assert np.ptp(np.asarray(Image.open(tmp_path / "fits.png").convert("L"))) > 0
    check_error(tfmeta("plot", waves, digits, "--output", tmp_path / "x.png"), "regression")


# === What goes wrong ===


def test_the_script_reports_an_error_in_one_line(tmp_path: Path) -> None:
    result = script("train", tmp_path / "nothing", "--output", tmp_path / "run")
    check_error((result.returncode, result.stdout, result.stderr), "No recipe at", "nothing")
    assert result.stdout == ""


def test_debug_shows_the_traceback(tfmeta: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No recipe at"):
        tfmeta("train", tmp_path, "--output", tmp_path / "run", "--debug")


def test_wrong_arguments_are_refused(tfmeta: Run) -> None:
    for arguments in ([], ["trian"], ["train"], ["evaluate", "x", "--split", "tset"]):
        with pytest.raises(SystemExit) as error:
            tfmeta(*arguments)
        assert error.value.code == 2


def test_an_interrupt_returns_130(tfmeta: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Recipe, "load", interrupt)
    code, _, stderr = tfmeta("train", "x", "--output", "y")
    assert code == 130
    assert "interrupted" in stderr


def test_a_mistake_in_a_recipe_is_told(tfmeta: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({**SINUSOID, "network": {"name": "mlp", "hiden_units": [3]}})
    )
    result = tfmeta("train", tmp_path, "--output", tmp_path / "run")
    check_error(result, "hiden_units", "did you mean 'hidden_units'?")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["evaluate", "adapt", "plot"])
def test_a_missing_run_is_told(tfmeta: Run, tmp_path: Path, command: str) -> None:
    run = tmp_path / "no_run"
    extra = {"adapt": ["--support", tmp_path], "plot": [], "evaluate": []}[command]
    result = tfmeta(command, run, *extra, "--output", tmp_path / "out.png")
    check_error(result, str(run))
    assert not (tmp_path / "out.png").exists()


def test_a_missing_task_is_told(tfmeta: Run, tmp_path: Path) -> None:
    check_error(tfmeta("predict", tmp_path / "none", tmp_path), "no task folder", "tfmeta adapt")


def test_too_small_numbers_are_told(tfmeta: Run, waves: Path) -> None:
    check_error(tfmeta("evaluate", waves, "--n-episodes", 1), "n_episodes must be at least 2")
    check_error(tfmeta("evaluate", waves, "--inner-steps", -1), "inner_steps must be at least 0")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1,2,3\n", "an example has 2 numbers"),
        ("x,y\n1,2\n", "must be a CSV file of numbers without a header"),
        ("1,2\n1\n", "must be a CSV file of numbers"),
        ("", "has no examples"),
        ("# only a comment\n", "has no examples"),
        ("nan,2\n", "finite"),
        ("1,inf\n", "finite"),
    ],
)
def test_a_wrong_support_csv_is_told(
    tfmeta: Run, waves: Path, tmp_path: Path, text: str, part: str
) -> None:
    (tmp_path / "support.csv").write_text(text)
    result = tfmeta(
        "adapt", waves, "--support", tmp_path / "support.csv", "--output", tmp_path / "t"
    )
    check_error(result, part)
    assert not (tmp_path / "t").exists()


def test_a_wrong_support_is_told(
    tfmeta: Run, waves: Path, digits: Path, pictures: Path, halves: Path, tmp_path: Path
) -> None:
    def adapt(run: Path, support: Path) -> tuple[int, str, str]:
        return tfmeta("adapt", run, "--support", support, "--output", tmp_path / "task")

    check_error(adapt(digits, tmp_path / "none.csv"), "No such file or folder", "none.csv")
    check_error(adapt(waves, halves), "was not trained on image files", "CSV")
    check_error(adapt(pictures, halves / "upper"), "sub-folder")
    np.savetxt(tmp_path / "three.csv", np.c_[np.eye(3, 64), [0, 1, 2]], delimiter=",")
    check_error(adapt(digits, tmp_path / "three.csv"), "has 2 outputs")
    np.savetxt(tmp_path / "nan.csv", np.c_[np.eye(2, 64), [0, np.nan]], delimiter=",")
    check_error(adapt(digits, tmp_path / "nan.csv"), "finite")
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_a_broken_image_is_told_by_name(
    tfmeta: Run, pictures: Path, halves: Path, tmp_path: Path, kind: str
) -> None:
    whole = (halves / "upper" / "0.png").read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[kind]
    support = tmp_path / "support"
    for name in ("upper", "lower"):
        draw(support / name / "0.png", int(name == "lower"), np.random.default_rng(0))
    (support / "upper" / "broken.png").write_bytes(content)
    result = tfmeta("adapt", pictures, "--support", support, "--output", tmp_path / "task")
    check_error(result, "broken.png")
    assert not (tmp_path / "task").exists()

    task = tmp_path / "good_task"
    assert tfmeta("adapt", pictures, "--support", halves, "--output", task)[0] == 0
    check_error(tfmeta("predict", task, support), "broken.png")


def test_wrong_queries_are_told(
    tfmeta: Run, waves: Path, pictures: Path, halves: Path, tmp_path: Path
) -> None:
    (tmp_path / "support.csv").write_text("1,2\n3,4\n")
    (tmp_path / "wide.csv").write_text("1,2\n")
    (tmp_path / "narrow.csv").write_text("1\n")
    (tmp_path / "empty").mkdir()
    task = tmp_path / "task"
    assert tfmeta("adapt", waves, "--support", tmp_path / "support.csv", "--output", task)[0] == 0
    check_error(tfmeta("predict", task, tmp_path / "wide.csv"), "wide.csv", "has 2 numbers")
    mixed = tfmeta("predict", task, tmp_path / "narrow.csv", tmp_path / "wide.csv")
    check_error(mixed, "wide.csv", "has 2 numbers")
    check_error(tfmeta("predict", task, tmp_path / "none.csv"), "No such file or folder")
    check_error(tfmeta("predict", task, halves), "was not trained on image files", "CSV")
    task = tmp_path / "image_task"
    assert tfmeta("adapt", pictures, "--support", halves, "--output", task)[0] == 0
    check_error(tfmeta("predict", task, tmp_path / "none.png"), "No such file or folder")
    check_error(tfmeta("predict", task, tmp_path / "empty"), "has no images")


def test_export_and_check(pictures, waves, tfmeta, tmp_path):
    servables = tmp_path / "servables"
    for run, name, images in ((pictures, "pictures", True), (waves, "waves", False)):
        code, out, err = tfmeta("export", run, "--output", servables / name)
        assert code == 0, err
        assert "tensorflow_model_server --port=8500 --rest_api_port=8501" in out
        assert f"--model_config_file={servables}/models.config" in out
        assert f"docker run --rm -p 8500:8500 -p 8501:8501 -v {servables}:{servables}:ro" in out
        code, out, err = tfmeta("serving", "check", servables / name)
        assert code == 0, err
        assert "operations: " in out
        assert ("adapt_and_predict_images: 2 requests answered" in out) == images


def test_a_transductive_preset_is_exported_in_another_mode(halves, tfmeta, tmp_path):
    servable, task = tmp_path / "servables" / "characters", tmp_path / "task"
    check_error(
        tfmeta("export", "maml_glyphs_5w1s", "--output", servable),
        "--batch-norm support",
        "--allow-transductive",
    )
    support = ("--batch-norm", "support")
    # As a user does, who sees what TensorFlow writes.
    result = script("export", "maml_glyphs_5w1s", "--output", servable, *support)
    assert result.returncode == 0, result.stderr
    assert not any(part in result.stderr for part in CHATTER)
    assert (
        tfmeta("adapt", "maml_glyphs_5w1s", "--support", halves, "--output", task, *support)[0] == 0
    )
    check_error(tfmeta("export", task, "--output", servable, *support), "to `tfmeta adapt`")
    code, _, err = tfmeta("export", task, "--output", tmp_path / "servables" / "halves")
    assert code == 0, err


def test_serving_runs_the_servables_of_a_folder(waves, tfmeta, tmp_path, monkeypatch):
    servables, programs = tmp_path / "servables", tmp_path / "bin"
    assert tfmeta("export", waves, "--output", servables / "waves")[0] == 0
    (servables / "waves").rename(servables / "oceans")
    programs.mkdir()
    server = programs / "tensorflow_model_server"
    server.write_text("")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    started = []
    monkeypatch.setattr("os.execv", lambda program, arguments: started.append(arguments))
    assert tfmeta("serving", "run", servables)[0] == 0
    assert started[0][0] == str(server)
    assert f"--model_config_file={servables}/models.config" in started[0]
    assert 'name: "oceans"' in (servables / "models.config").read_text()
    for empty in (tmp_path, servables / "oceans", tmp_path / "none"):
        code, _, err = tfmeta("serving", "run", empty)
        assert code == 1
        assert "must be a folder that holds the folders of servables" in err


def test_serving_without_a_server_says_how_to_get_it(waves, tfmeta, tmp_path, monkeypatch):
    assert tfmeta("export", waves, "--output", tmp_path / "waves")[0] == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = tfmeta("serving", "run", tmp_path)
    assert code == 1
    assert "tensorflow/serving" in err


# === Presets ===


def test_a_run_becomes_a_preset_that_all_commands_take(waves, tfmeta, tmp_path):
    preset = tmp_path / "preset"
    assert tfmeta("publish", waves, "--output", preset)[0] == 0
    assert (preset / "servable" / "1" / "saved_model.pb").is_file()
    assert not (preset / "models.config").exists()
    results = []
    for source in (waves, preset):
        output = tmp_path / "evaluation.json"
        code, _, err = tfmeta("evaluate", source, "--output", output)
        assert code == 0, err
        results.append(json.loads(output.read_text()))
    assert results[0] == results[1]
    (tmp_path / "support.csv").write_text("1,2\n3,4\n")
    support = tmp_path / "support.csv"
    assert tfmeta("adapt", preset, "--support", support, "--output", tmp_path / "task")[0] == 0
    assert tfmeta("predict", tmp_path / "task", support)[0] == 1  # Two columns: no inputs.
    assert tfmeta("export", preset, "--output", tmp_path / "servables" / "waves")[0] == 0
    assert tfmeta("serving", "check", preset / "servable")[0] == 0
    check_error(tfmeta("publish", waves, "--output", preset), "holds a preset already")


def test_presets_are_listed_and_unknown_ones_told(tfmeta):
    code, out, _ = tfmeta("list")
    assert code == 0
    assert "maml_sinusoid" in out.split()
    check_error(tfmeta("evaluate", "maml_sinusoids"), "did you mean 'maml_sinusoid'?")


MODELS = Path(__file__).parents[1] / "models"


@pytest.mark.parametrize(
    ("name", "file"),
    [(path.parent.name, path.name) for path in sorted(MODELS.glob("*/evaluation_as_*.json"))]
    + [(name, "evaluation.json") for name in presets.list_presets()],
)
def test_evaluating_a_preset_gives_what_its_card_says(name, file, tfmeta, tmp_path, request):
    card = json.loads((MODELS / name / file).read_text(encoding="utf-8"))
    path = MODELS / card.get("as", name) / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings = [card, *card.get("also", [])]
    options: list[Any] = ["--output", tmp_path / "evaluation.json"]
    if len(settings) in (6, 12):
        # They take minutes: some of the further ones, which have all modes, ways and shots.
        every = {6: 2, 12: 5}[len(settings)]
        recipe["evaluation"]["also"] = recipe["evaluation"]["also"][::every]
        all_settings, settings = settings, [card, *settings[1::every]]
        for key in ("n_way", "n_shot"):
            assert {s["episodes"][key] for s in settings} == {
                s["episodes"][key] for s in all_settings
            }
        modes = [{s["batch_norm"] for s in some} for some in (settings, all_settings)]
        assert modes[0] == modes[1]
        text = yaml.safe_dump(recipe, sort_keys=False)
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        options += ["--recipe", tmp_path / "recipe.yaml"]
    if card["metric"] == "accuracy":
        folder = request.getfixturevalue(f"{card['data']['name']}_dir")
        # Of all episodes, which take minutes, the first ones.
        options += ["--data-dir", folder, "--n-episodes", 40]
        if "by_inner_step" in card:
            options += ["--inner-steps", 1]  # Ten of them take a minute to trace.
    code, out, err = tfmeta("evaluate", name, *options)
    assert code == 0, err
    again = json.loads((tmp_path / "evaluation.json").read_text())
    for setting, published in zip([again, *again.get("also", [])], settings, strict=True):
        assert setting["episodes"] == published["episodes"]
        assert setting["batch_norm"] == published["batch_norm"]
        of_all = setting["n_episodes"] == published["n_episodes"]
        by_step, of_card = (each.get("by_inner_step", []) for each in (setting, published))
        assert len(by_step) == (len(of_card) if of_all else min(len(of_card), 2))
        for one, other in zip(
            [setting, *by_step], [published, *of_card[: len(by_step)]], strict=True
        ):
            if other["mean"] is None or other["ci95"] > other["mean"]:
                continue  # A few tasks diverge, by rounding.
            # A few episodes may all be alike, or have the worst one among them.
            wider = (published["n_episodes"] / setting["n_episodes"]) ** 0.5
            of_few = 1.5 * max(one["ci95"], wider * other["ci95"])
            within = other["ci95"] / 10 if of_all else of_few
            # Where all episodes are alike, the interval is rounding, too.
            assert abs(one["mean"] - other["mean"]) < within + 1e-9
        assert f"{setting['mean']:.4f} ± {setting['ci95']:.4f}" in out
    for setting in recipe["evaluation"].get("also", []):
        assert "\n" + ", ".join(f"{key} {value}" for key, value in setting.items()) + ":\n" in out


def test_a_learner_is_tested_as_another_recipe_says(waves, tfmeta, tmp_path):
    other = {**SINUSOID, "evaluation": {"n_episodes": 3, "n_shot": 7, "inner_steps": 1}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    output = tmp_path / "evaluation.json"
    code, _, err = tfmeta(
        "evaluate", waves, "--recipe", tmp_path / "other.yaml", "--output", output
    )
    assert code == 0, err
    result = json.loads(output.read_text())
    assert (result["n_episodes"], result["episodes"]["n_shot"]) == (3, 7)
    # A preset's recipe; it has as many inner steps as that says.
    code, out, err = tfmeta("evaluate", waves, "--recipe", "maml_sinusoid", "--n-episodes", 25)
    assert code == 0, err
    assert "after 10 inner steps" in out
    # Without a recipe of its own, it is tested by the one that is given.
    preset = tmp_path / "without_a_recipe"
    training.load_learner(waves).save_to_preset(preset)
    check_error(tfmeta("evaluate", preset), "does not say by which recipe", "--recipe")
    code, _, err = tfmeta("evaluate", preset, "--recipe", tmp_path / "other.yaml")
    assert code == 0, err
    check_error(tfmeta("evaluate", waves, "--recipe", "nothing"), "no preset 'nothing'")
    check_error(tfmeta("evaluate", waves, "--recipe", "nothing.yaml"), "No such file: nothing.yaml")
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(DIGITS))
    check_error(
        tfmeta("evaluate", waves, "--recipe", tmp_path / "digits.yaml"),
        "trained on examples of shape [1]",
        "have the shape [8, 8, 1]",
    )


def test_a_learner_is_tested_as_one_of_another_kind_is(digits, tfmeta, tmp_path):
    more_ways = copy.deepcopy(DIGITS)
    more_ways["evaluation"]["also"] = [{"n_way": 4}]
    (tmp_path / "more_ways.yaml").write_text(yaml.safe_dump(more_ways))
    check_error(
        tfmeta("evaluate", digits, "--recipe", tmp_path / "more_ways.yaml"),
        "4 classes per episode, but this learner tells 2 apart",
    )
    prototypes = {
        **copy.deepcopy(DIGITS),
        "network": {"name": "conv4", "filters": 4},
        "learner": {"name": "prototypical_network"},
        "evaluation": {"n_episodes": 6},
    }
    run = trained(tmp_path / "prototypes", prototypes)
    # It tells any number apart, and has no inner steps, which the recipe would have counted.
    output = tmp_path / "evaluation.json"
    code, _, err = tfmeta(
        "evaluate", run, "--recipe", tmp_path / "more_ways.yaml", "--output", output
    )
    assert code == 0, err
    result = json.loads(output.read_text())
    assert not {"inner_steps", "by_inner_step"} & result.keys()
    assert [s["episodes"]["n_way"] for s in [result, *result["also"]]] == [2, 4]
    assert (result["as"], result["trained_on"]) == ("digits", {"name": "digits"})
    check_error(tfmeta("evaluate", run, "--inner-steps", 1), "has no inner steps")


def test_a_card_is_written_from_a_run(waves, tfmeta, tmp_path):
    folder = tmp_path / "waves"
    folder.mkdir()
    shutil.copy(waves / "recipe.yaml", folder)
    (folder / "README.md").write_text("# Waves\n")
    code, _, err = tfmeta("card", folder, waves)
    assert code == 0, err
    mean = json.loads((waves / "evaluation.json").read_text())["mean"]
    assert f"**{mean:.4f} ±" in (folder / "README.md").read_text()
    assert (folder / "learning_curve.png").is_file()
    other = (waves / "recipe.yaml").read_text().replace("n_shot: 4", "n_shot: 6")
    (folder / "recipe.yaml").write_text(other)
    check_error(tfmeta("card", folder, waves), "is no run of the recipe")
