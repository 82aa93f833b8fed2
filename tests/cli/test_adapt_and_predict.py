"""`tfmeta adapt` and `tfmeta predict`: from a user's files to predictions."""

import csv
import io
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from learners_made_small import HEADS

from tfmeta import learners
from tfmeta.cli.predictions import write


@pytest.fixture
def image_task(succeeds, pictures, halves, tmp_path):
    """A task folder with the two halves."""
    succeeds("adapt", pictures, "--support", halves, "--output", tmp_path / "image_task")
    return tmp_path / "image_task"


def split_lines(out):
    return [line.split("\t") for line in out.splitlines()]


def test_a_regression_task_is_learned_from_a_csv_file(succeeds, fails, waves, tmp_path):
    support = np.array([[-1.0, 0.5], [0.0, 1.0], [2.0, 0.25]], np.float32)
    queries = np.array([[0.5], [1.5]], np.float32)
    np.savetxt(tmp_path / "support.csv", support, delimiter=",")
    np.savetxt(tmp_path / "queries.csv", queries, delimiter=",")
    task, file = tmp_path / "task", tmp_path / "queries.csv"
    out = succeeds("adapt", waves, "--support", tmp_path / "support.csv", "--output", task)
    assert "3 examples" in out
    lines = split_lines(succeeds("predict", task, file))
    learner = keras.models.load_model(waves / "best.keras")
    expected = learner(
        {
            "support_x": support[None, :, :1],
            "support_y": support[None, :, 1:],
            "query_x": queries[None],
        }
    )
    assert [line[0] for line in lines] == [f"{file}:{i}" for i in (1, 2)]
    values = [float(line[1]) for line in lines]
    np.testing.assert_allclose(values, np.ravel(expected), rtol=1e-4, atol=1e-5)
    records = json.loads(succeeds("predict", task, file, "--format", "json"))
    assert records == [
        {"file": f"{file}:{i + 1}", "values": [value]} for i, value in enumerate(values)
    ]
    table = list(csv.DictReader(io.StringIO(succeeds("predict", task, file, "--format", "csv"))))
    assert [float(row["value"]) for row in table] == values
    fails(["predict", task, file, "--top-k", 2], "--top-k is for classes")


@pytest.mark.large
def test_classes_are_learned_from_a_csv_file(succeeds, digits, tmp_path):
    # Far apart, with labels that are neither in order nor from 0.
    x = np.repeat(np.eye(2).repeat(32, axis=1), 3, axis=0)
    np.savetxt(tmp_path / "support.csv", np.c_[x, [7, 7, 7, 4, 4, 4]], delimiter=",")
    np.savetxt(tmp_path / "queries.csv", x[[0, 3, 1]], delimiter=",")
    task = tmp_path / "task"
    out = succeeds("adapt", digits, "--support", tmp_path / "support.csv", "--output", task)
    assert "6 examples of the classes 4, 7" in out
    lines = split_lines(succeeds("predict", task, tmp_path / "queries.csv"))
    assert [line[1] for line in lines] == ["7", "4", "7"]
    assert all(0.5 < float(line[2]) <= 1 for line in lines)


def test_classes_are_learned_from_a_folder_of_images(succeeds, pictures, halves, draw, tmp_path):
    task = tmp_path / "task"
    out = succeeds("adapt", pictures, "--support", halves, "--output", task)
    assert "8 examples of the classes lower, upper" in out
    rng = np.random.default_rng(2)
    for i, kind in enumerate((1, 0, 0)):
        draw(tmp_path / "new" / f"{i}.PNG", kind, rng, size=30)
    single = tmp_path / "single.png"
    draw(single, 1, rng)
    lines = split_lines(succeeds("predict", task, tmp_path / "new", single))
    assert [Path(line[0]).name for line in lines] == ["0.PNG", "1.PNG", "2.PNG", "single.png"]
    assert [line[1] for line in lines] == ["lower", "upper", "upper", "lower"]


LEARNERS = {
    "anil": ({"name": "conv4", "filters": 2}, {}),
    **{name: ({"name": "conv4", "filters": 2}, {}) for name in HEADS},
    "cavia": ({"name": "film_conv4", "filters": 2, "n_context": 3}, {}),
    "maml": ({"name": "conv4", "filters": 2}, {"inner_rule": {"name": "momentum"}}),
    "maml_plus_plus": ({"name": "conv4", "filters": 2}, {"inner_steps": 2}),
    "matching_network": ({"name": "conv4", "filters": 2}, {"full_context": True}),
    "meta_lstm": ({"name": "conv4", "filters": 2}, {"inner_steps": 2, "hidden_units": 3}),
    "meta_sgd": ({"name": "conv4", "filters": 2}, {}),
    "prototypical_network": ({"name": "conv4", "filters": 2}, {"distance": "cosine"}),
    "relation_network": ({"name": "relation_encoder", "filters": 2}, {}),
    "reptile": (
        {"name": "conv4", "filters": 2},
        {"inner_rule": "adam", "inner_batch_size": 2, "inner_steps": 2},
    ),
}


@pytest.mark.large
@pytest.mark.parametrize("name", learners.BY_NAME)
def test_every_learner_goes_from_a_recipe_to_predictions(
    succeeds, trained, pictures, halves, tmp_path, name
):
    network, options = LEARNERS[name]
    recipe = yaml.safe_load((pictures / "recipe.yaml").read_text())
    # As small as the poolings allow.
    size = 28 if name == "relation_network" else 16
    recipe["data"]["image_format"].update({"height": size, "width": size})
    recipe["evaluation"].pop("inner_steps")
    learner = {"name": name, "batch_norm": "support", **options}
    recipe = {**recipe, "name": name, "network": network, "learner": learner}
    run = trained(tmp_path / name, recipe)
    assert "Test: accuracy " in succeeds("evaluate", run, "--n-episodes", 4)
    task = tmp_path / "task"
    succeeds("adapt", run, "--support", halves, "--output", task)
    files = sorted(halves.rglob("*.png"))
    lines = split_lines(succeeds("predict", task, *files))
    assert len(lines) == len(files)
    assert all(line[1] in ("lower", "upper") and 0 <= float(line[2]) <= 1 for line in lines)
    # A query alone is predicted as it is among others.
    _, label, p = succeeds("predict", task, files[3]).split("\t")
    assert label == lines[3][1]
    assert float(p) == pytest.approx(float(lines[3][2]), abs=2e-4)


@pytest.mark.large
def test_fewer_classes_than_in_training_can_be_learned(succeeds, trained, two_digits, tmp_path):
    # A network of four outputs learns two classes, and predicts none but them.
    episodes = {"n_way": 4, "n_shot": 1, "n_query": 2, "meta_batch_size": 3}
    wide = {**two_digits, "episodes": episodes, "validation": {"n_episodes": 3, "n_way": 2}}
    run = trained(tmp_path / "wide", wide)
    rows = np.c_[np.random.default_rng(0).uniform(size=(4, 64)), [1, 2, 1, 2]]
    np.savetxt(tmp_path / "support.csv", rows, delimiter=",")
    np.savetxt(tmp_path / "queries.csv", -9 * rows[:, :-1], delimiter=",")
    task = tmp_path / "task"
    succeeds("adapt", run, "--support", tmp_path / "support.csv", "--output", task)
    lines = split_lines(succeeds("predict", task, tmp_path / "queries.csv"))
    assert {line[1] for line in lines} <= {"1", "2"}


@pytest.mark.large
def test_a_transductive_learner_warns_and_says_the_way_out(tfmeta, transductive, halves, tmp_path):
    command = ["adapt", transductive, "--support", halves, "--output", tmp_path / "task"]
    code, _, err = tfmeta(*command)
    assert code == 0
    assert err.startswith("tfmeta: warning: ")
    assert "--batch-norm support" in err
    code, _, err = tfmeta(*command, "--batch-norm", "support")
    assert (code, err) == (0, "")


# === How predictions are printed ===


def test_the_most_probable_classes_are_printed(succeeds, image_task, halves):
    files = sorted(halves.rglob("*.png"))
    for line in split_lines(succeeds("predict", image_task, *files, "--top-k", 2)):
        assert {line[1], line[3]} == {"lower", "upper"}
        assert float(line[2]) >= float(line[4])
        assert float(line[2]) + float(line[4]) == pytest.approx(1, abs=2e-4)
    # There are no more than two.
    assert all(
        len(line) == 5
        for line in split_lines(succeeds("predict", image_task, *files, "--top-k", 9))
    )


def test_predictions_are_the_same_in_every_format(succeeds, image_task, halves):
    rows = split_lines(succeeds("predict", image_task, halves))
    table = list(
        csv.DictReader(io.StringIO(succeeds("predict", image_task, halves, "--format", "csv")))
    )
    assert [[r["file"], r["class"], r["probability"]] for r in table] == rows
    records = json.loads(succeeds("predict", image_task, halves, "--format", "json"))
    assert [[r["file"], r["class"], f"{r['probability']:.4f}"] for r in records] == rows
    both = json.loads(succeeds("predict", image_task, halves, "--format", "json", "--top-k", 2))
    assert [[r["file"], r["classes"][0]["class"]] for r in both] == [row[:2] for row in rows]
    assert all(len(r["classes"]) == 2 for r in both)


def test_scores_are_called_scores_and_what_is_not_finite_is_null(capsys):
    outputs = np.array([[0.25, 0.75, np.nan]])
    write([(["a,b.png"], outputs)], ["x", "y", "z"], "scores", "csv", 1)
    assert capsys.readouterr().out == 'file,class,score\n"a,b.png",y,0.7500\n'
    write([(["a"], outputs)], ["x", "y", "z"], "scores", "json", 3)
    (record,) = json.loads(capsys.readouterr().out)
    assert [c["class"] for c in record["classes"]] == ["y", "x", "z"]
    assert [c["score"] for c in record["classes"]] == [0.75, 0.25, None]


def test_the_accuracy_on_named_sub_folders_is_told(tfmeta, image_task, halves, draw, tmp_path):
    code, out, err = tfmeta("predict", image_task, halves)
    assert code == 0
    right = sum(Path(file).parent.name == label for file, label, _ in split_lines(out))
    assert (
        err
        == f"Accuracy {right / 8:.4f}: {right} of the 8 files in sub-folders named after classes.\n"
    )
    # Turned over: all that was right is wrong. Other files and folders do not count.
    for old, new in (("upper", "lower"), ("lower", "upper")):
        for file in (halves / old).iterdir():
            (tmp_path / "turned" / new).mkdir(parents=True, exist_ok=True)
            (tmp_path / "turned" / new / file.name).write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    draw(tmp_path / "turned" / "other" / "0.png", 0, rng)
    draw(tmp_path / "turned" / "0.png", 0, rng)
    _, out, err = tfmeta("predict", image_task, tmp_path / "turned")
    assert len(out.splitlines()) == 10
    assert f": {8 - right} of the 8 files" in err
    _, _, err = tfmeta("predict", image_task, halves / "upper")
    assert err == ""


def test_each_prediction_is_one_line_whatever_the_file_is_called(capsys):
    parts = [(["a\nb\t.png", os.fsdecode(b"caf\xe9.png")], np.array([[0.1, 0.9], [0.8, 0.2]]))]
    write(parts, ["x", "y\nz"], "logits", "tsv", 1)
    out = "a\\nb\\t.png\ty\\nz\t0.9000\ncaf\\xe9.png\tx\t0.8000\n"
    assert capsys.readouterr().out == out
    write(parts, ["x", "y\nz"], "logits", "csv", 1)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[1:] == [["a\nb\t.png", "y\nz", "0.9000"], ["caf\\xe9.png", "x", "0.8000"]]


@pytest.mark.parametrize("form", ["tsv", "csv", "json"])
def test_parts_are_printed_as_a_whole_would_be(capsys, form):
    outputs = np.random.default_rng(0).random((5, 3))
    names = [f"{i}.png" for i in range(5)]
    write([(names, outputs)], ["a", "b", "c"], "logits", form, 2)
    whole = capsys.readouterr().out
    write(
        [(names[i : i + 2], outputs[i : i + 2]) for i in (0, 2, 4)],
        ["a", "b", "c"],
        "logits",
        form,
        2,
    )
    assert capsys.readouterr().out == whole
    if form == "json":
        assert whole == json.dumps(json.loads(whole), indent=2) + "\n"


# === What goes wrong ===


def test_a_missing_task_is_told(fails, tmp_path):
    fails(["predict", tmp_path / "none", tmp_path], "no task folder", "tfmeta adapt")


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
def test_a_wrong_support_csv_is_told(fails, waves, tmp_path, text, part):
    (tmp_path / "support.csv").write_text(text)
    fails(["adapt", waves, "--support", tmp_path / "support.csv", "--output", tmp_path / "t"], part)
    assert not (tmp_path / "t").exists()


def test_a_wrong_support_is_told(fails, waves, digits, pictures, halves, tmp_path):
    def adapt(run, support, *parts):
        fails(["adapt", run, "--support", support, "--output", tmp_path / "task"], *parts)

    adapt(digits, tmp_path / "none.csv", "No such file or folder", "none.csv")
    adapt(waves, halves, "was not trained on image files", "CSV", "image_format=")
    adapt(pictures, halves / "upper", "sub-folder")
    np.savetxt(tmp_path / "three.csv", np.c_[np.eye(3, 64), [0, 1, 2]], delimiter=",")
    adapt(digits, tmp_path / "three.csv", "has 2 outputs")
    np.savetxt(tmp_path / "nan.csv", np.c_[np.eye(2, 64), [0, np.nan]], delimiter=",")
    adapt(digits, tmp_path / "nan.csv", "finite")
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_a_broken_image_is_told_by_name(fails, pictures, image_task, halves, draw, tmp_path, kind):
    whole = (halves / "upper" / "0.png").read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[kind]
    support = tmp_path / "support"
    for name in ("upper", "lower"):
        draw(support / name / "0.png", int(name == "lower"), np.random.default_rng(0))
    (support / "upper" / "broken.png").write_bytes(content)
    task = tmp_path / "task"
    fails(["adapt", pictures, "--support", support, "--output", task], "broken.png")
    assert not task.exists()
    fails(["predict", image_task, support], "broken.png")


def test_wrong_queries_are_told(succeeds, fails, waves, image_task, halves, tmp_path):
    (tmp_path / "support.csv").write_text("1,2\n3,4\n")
    (tmp_path / "wide.csv").write_text("1,2\n")
    (tmp_path / "narrow.csv").write_text("1\n")
    (tmp_path / "empty").mkdir()
    task = tmp_path / "task"
    succeeds("adapt", waves, "--support", tmp_path / "support.csv", "--output", task)
    fails(["predict", task, tmp_path / "wide.csv"], "wide.csv", "has 2 numbers")
    both = ["predict", task, tmp_path / "narrow.csv", tmp_path / "wide.csv"]
    fails(both, "wide.csv", "has 2 numbers")
    fails(["predict", task, tmp_path / "none.csv"], "No such file or folder")
    fails(["predict", task, halves], "was not trained on image files", "CSV")
    fails(["predict", image_task, tmp_path / "none.png"], "No such file or folder")
    fails(["predict", image_task, tmp_path / "empty"], "has no images")
    fails(["predict", image_task, halves, "--top-k", 0], "--top-k must be at least 1")
