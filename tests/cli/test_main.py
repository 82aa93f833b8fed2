"""The command line as a whole: help, versions, exit codes, errors, and what it does not import."""

import gc
import io
import json
import os
import re
import subprocess
import sys
import warnings
from importlib import metadata
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from typer import Typer
from typer.main import get_command

import tfmeta as library
from tfmeta import backbones, learners, training
from tfmeta.cli import app, main, sources
from tfmeta.cli.command import add
from tfmeta.cli.options import BatchNorm
from tfmeta.cli.predictions import write
from tfmeta.cli.startup import start_tensorflow

# What TensorFlow and its libraries write to stderr if they are let.
CHATTER = ("oneDNN", "cuda", "absl", "CUDA", "WARNING", "cpu_feature_guard", "retracing")

COMMANDS = [
    *("train", "evaluate", "adapt", "predict", "export", "serving", "list", "info", "compare"),
    *("plot", "publish", "card", "zoo"),
]


def test_help_lists_the_commands(tfmeta):
    code, out, err = tfmeta("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f"│ {command} " in out
    code, out, err = tfmeta("serving", "--help")
    assert (code, err) == (0, "")
    for command in ("check", "run", "configure", "path"):
        assert f"│ {command} " in out


def test_without_a_command_help_is_shown(tfmeta):
    code, out, err = tfmeta()
    assert code == 2
    assert "Usage: tfmeta" in out + err


def test_the_versions_are_shown(tfmeta):
    code, out, _ = tfmeta("--version")
    assert code == 0
    version = metadata.version("tfmeta")
    assert out == f"tfmeta {version} (TensorFlow {tf.__version__}, Keras {keras.__version__})\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train"], "Missing argument"),
        (["train", "x"], "Missing option '--output'"),
        (["evaluate", "x", "--split", "tset"], "--split"),
        (["evaluate", "x", "--n-episodes", "many"], "--n-episodes"),
        (["adapt", "x", "--support", "y", "--output", "z", "--batch-norm", "suport"], "suport"),
        (["serving"], "Usage"),
        (["serving", "rn"], "No such command"),
    ],
)
def test_wrong_arguments_return_2(tfmeta, arguments, part):
    code, out, err = tfmeta(*arguments)
    assert code == 2
    assert part in out + err


def test_an_interrupt_returns_130(tfmeta, monkeypatch):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tfmeta.recipes.Recipe.load", interrupt)
    code, _, err = tfmeta("train", "x", "--output", "y")
    assert code == 130
    assert err == "tfmeta: interrupted.\n"


def test_debug_shows_the_traceback(tfmeta, tmp_path):
    with pytest.raises(ValueError, match="No recipe at"):
        tfmeta("train", tmp_path, "--output", tmp_path / "run", "--debug")


def test_an_error_of_the_system_is_told_without_its_number(fails, tmp_path):
    fails(["zoo", tmp_path, tmp_path / "page.md"], "No such file or directory: ", "published.yaml")


def test_the_script_reports_an_error_in_one_line(script, check_error, tmp_path):
    result = script("train", tmp_path / "nothing", "--output", tmp_path / "run")
    check_error((result.returncode, result.stdout, result.stderr), "No recipe at", "nothing")
    assert result.stdout == ""


@pytest.mark.large
def test_the_script_trains_without_chatter(script, sinusoid, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sinusoid))
    result = script("train", tmp_path, "--output", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if any(c in line for c in CHATTER)] == []
    for part in ("Test: mse ", "(before adaptation)", "evaluation.json"):
        assert part in result.stdout


def test_the_module_runs_the_command_line(tmp_path):
    command = [sys.executable, "-m", "tfmeta", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("tfmeta ")


def test_a_warning_is_one_line(capsys):
    def warned() -> None:
        """Warns."""
        warnings.warn("Skipped 2\nimages.", stacklevel=1)

    small = Typer()
    add(small, "warned", warned)
    with pytest.raises(SystemExit) as stop:
        get_command(small)([])
    assert stop.value.code == 0
    assert capsys.readouterr().err == "tfmeta: warning: Skipped 2 images.\n"


def test_a_reader_that_stops_early_is_no_error(capsys):
    def closed() -> None:
        """Writes into a closed pipe."""
        raise BrokenPipeError(32, "Broken pipe")

    small = Typer()
    add(small, "closed", closed)
    with pytest.raises(SystemExit):
        get_command(small)([])
    assert capsys.readouterr().err == ""


def test_every_command_and_option_explains_itself():
    def check(command: Any, name: str) -> None:
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"
        for sub_name, sub in getattr(command, "commands", {}).items():
            check(sub, f"{name} {sub_name}")

    check(get_command(app), "tfmeta")


def test_what_is_repeated_for_want_of_tensorflow_is_right():
    names = (sources.RUN_LEARNER, sources.RUN_RECIPE, sources.RUN_DETAILS, sources.EVALUATION)
    assert names == (training.BEST, training.RECIPE, training.DETAILS, training.EVALUATION)
    with pytest.raises(ValueError, match="batch_norm") as error:
        learners.PrototypicalNetwork(backbones.conv4(None, (28, 28, 1), 2), batch_norm="other")
    modes = set(re.findall(r"[\"'](\w+)[\"']", str(error.value))) - {"other"}
    assert modes == set(get_args(BatchNorm))


# === Without TensorFlow ===

# As the installed script does it, whose name tells `import tfmeta` what is coming.
WITHOUT = """
import contextlib, io, json, sys
sys.argv = ["tfmeta"]
from tfmeta.cli import main
done = {}
for arguments in json.loads(sys.stdin.read()):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(arguments)
    heavy = {"tensorflow", "keras", "matplotlib", "tensorflow_datasets", "scipy"}
    done[" ".join(arguments)] = [code, sorted(heavy & set(sys.modules)), out.getvalue()]
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """What commands return, import and print, in a process of their own."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "typo.yaml").write_text("name: x\ndata: {name: sinusoid}\ntrainin: {}\n")
    commands = [
        ["--help"],
        ["--version"],
        ["list"],
        ["trian"],
        *([command, "--help"] for command in COMMANDS),
        ["info", "maml_sinusoid"],
        ["serving", "path", "maml_sinusoid"],
        ["evaluate", "maml_sinusoids"],
        ["adapt", "maml_sinusoids", "--support", "x", "--output", "y"],
        ["train", str(folder / "typo.yaml"), "--output", str(folder / "run")],
        ["train", str(folder / "none"), "--output", str(folder / "run")],
    ]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_what_needs_no_tensorflow_does_not_import_it(without_tensorflow):
    assert {c: heavy for c, (_, heavy, _) in without_tensorflow.items() if heavy} == {}


def test_what_needs_no_tensorflow_answers(without_tensorflow):
    codes = {command: code for command, (code, _, _) in without_tensorflow.items()}
    (typo,) = [command for command in codes if "typo.yaml" in command]
    (none,) = [command for command in codes if command.startswith("train") and "none" in command]
    wrong = {"trian": 2, "evaluate maml_sinusoids": 1, typo: 1, none: 1}
    wrong["adapt maml_sinusoids --support x --output y"] = 1
    assert {command: code for command, code in codes.items() if code} == wrong
    assert "maml_sinusoid\n" in without_tensorflow["list"][2]
    assert "trainin" in without_tensorflow[typo][2]
    assert "did you mean 'maml_sinusoid'?" in without_tensorflow["evaluate maml_sinusoids"][2]


# === Starting TensorFlow ===


def test_a_preset_is_opened_without_what_trains(monkeypatch):
    # Recipes take half a second to import.
    monkeypatch.setitem(sys.modules, "tfmeta.training", None)
    monkeypatch.delattr(library, "training", raising=False)
    learner, about = sources.open_learner(sources.locate("maml_sinusoid"))
    assert isinstance(learner, learners.MAML)
    assert about.image_format is None


@pytest.mark.parametrize("collects", [True, False])
def test_starting_tensorflow_leaves_the_garbage_collector_as_it_was(collects, monkeypatch):
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        start_tensorflow()
        assert gc.isenabled() == collects
        # What was imported is not looked at again.
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()


# === Completion ===


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["tfmeta", "ev"], {"evaluate"}),
        (["tfmeta", "info", "maml_sin"], {"maml_sinusoid"}),
        (["tfmeta", "serving", "pa"], {"path"}),
    ],
)
def test_the_shell_completes_commands_and_presets(typed, expected, monkeypatch, capsys):
    monkeypatch.setenv("_TFMETA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(typed))
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    assert main([]) == 0
    assert set(capsys.readouterr().out.split()) == expected


def test_completion_can_be_installed(tfmeta, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    # Tests may run without a shell among the parents of their process.
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    code, _, err = tfmeta("--install-completion")
    assert code == 0, err
    written = [path for path in tmp_path.rglob("*tfmeta*") if path.is_file()]
    assert any("_TFMETA_COMPLETE" in path.read_text() for path in written)


def test_the_environment_is_left_alone(tfmeta):
    before = dict(os.environ)
    tfmeta("list")
    assert dict(os.environ) == before


def test_what_stdout_cannot_encode_is_printed_as_escapes(monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    assert main(["--version"]) == 0
    write([(["caf\udce9"], np.ones((1, 1)))], ["\u732b \u00b1"], "logits", "tsv", 1)
    sys.stdout.flush()
    assert b"\\u732b" in out.getvalue()


@pytest.mark.large
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_the_encoding_lacks_are_printed_as_escapes(encoding):
    """A table has a plus-minus sign, classes may have any name, and files what is no UTF-8."""
    code = (
        "import sys\nfrom tfmeta import cli\nfrom tfmeta.cli.predictions import write\n"
        "import numpy as np\ncli.main(['--version'])\n"
        "for form in ('tsv', 'json'):\n"
        "    write([(['caf\\udce9'], np.ones((1, 1)))], ['\\u732b \\u00b1'], 'logits', form, 1)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    out = run.stdout.decode(encoding)
    assert "\\u732b" in out
    answer = json.loads(out[out.index("[") :])
    assert answer[0]["class"] == "猫 ±"
