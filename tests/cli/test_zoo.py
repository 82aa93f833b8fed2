"""`tfmeta list`, `info`, `publish` and `card`: from a run to a preset, and what is known of it."""

import json
import shutil
import sys

import pytest
import yaml

from tfmeta import presets

# === Publishing ===


def test_a_run_becomes_a_preset_that_all_commands_take(succeeds, tfmeta, fails, waves, tmp_path):
    preset = tmp_path / "preset"
    preset.mkdir()
    # What an earlier one left when it was killed.
    (tmp_path / ".preset.making-0123" / "preset").mkdir(parents=True)
    (tmp_path / ".preset.lock").touch()
    succeeds("publish", waves, "--output", preset)
    assert (preset / "servable" / "1" / "saved_model.pb").is_file()
    assert {path.name for path in preset.iterdir()} == {
        *("preset.json", "learner.keras", "servable", "evaluation.json"),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["preset"]
    results = []
    for source in (waves, preset):
        output = tmp_path / "evaluation.json"
        succeeds("evaluate", source, "--output", output)
        results.append(json.loads(output.read_text()))
    assert results[0] == results[1]
    (tmp_path / "support.csv").write_text("1,2\n3,4\n")
    support = tmp_path / "support.csv"
    succeeds("adapt", preset, "--support", support, "--output", tmp_path / "task")
    assert tfmeta("predict", tmp_path / "task", support)[0] == 1  # Two columns: no inputs.
    succeeds("export", preset, "--output", tmp_path / "servables" / "waves")
    path = succeeds("serving", "path", preset).strip()
    succeeds("serving", "check", path)
    fails(["publish", waves, "--output", preset], "holds a preset already")


@pytest.mark.large
def test_the_servable_of_a_transductive_learner_is_in_the_mode_for_servers(
    succeeds, transductive, tmp_path
):
    succeeds("publish", transductive, "--output", tmp_path / "preset")
    assert presets.from_preset(tmp_path / "preset").batch_norm == "transductive"
    # Refused if transductive.
    succeeds("serving", "check", tmp_path / "preset" / "servable")


@pytest.mark.large
def test_a_servable_is_transductive_if_that_is_asked_for(succeeds, fails, transductive, tmp_path):
    as_it_is = ("--output", tmp_path / "other", "--batch-norm", "transductive")
    succeeds("publish", transductive, *as_it_is)
    fails(["serving", "check", tmp_path / "other" / "servable"], "depend")


def test_a_publication_that_fails_leaves_nothing(tfmeta, waves, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("tfmeta.serving.export", full)
    code, _, err = tfmeta("publish", waves, "--output", tmp_path / "preset")
    assert (code, err) == (1, "tfmeta: error: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_a_preset_does_not_mix_with_other_files(fails, waves, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fails(["publish", waves, "--output", tmp_path], "is not an empty folder")
    fails(["publish", waves, "--output", tmp_path / "notes.txt"], "is not an empty folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    fails(["publish", tmp_path / "none", "--output", tmp_path / "preset"], "no run folder")


# === Lists ===


def test_names_are_listed_into_a_pipe(succeeds):
    assert succeeds("list").split() == presets.list_presets()


def test_a_table_is_shown_on_a_terminal(succeeds, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    out = succeeds("list")
    for name in presets.list_presets():
        assert name in out
    for word in ("learner", "MAML", "PrototypicalNetwork", "28×28×1", "any", " kB"):
        assert word in out


@pytest.mark.parametrize("name", presets.list_presets())
def test_the_evaluation_of_a_preset_is_that_of_its_card(name, succeeds):
    models = presets.find(name).resolve().parents[1] / "models"
    text = (presets.find(name) / "evaluation.json").read_text(encoding="utf-8")
    assert text == (models / name / "evaluation.json").read_text(encoding="utf-8")
    evaluation = json.loads(text)
    out = succeeds("info", name)
    scale = 100 if evaluation["metric"] == "accuracy" else 1
    assert f"{scale * evaluation['mean']:.2f}" in out or f"{evaluation['mean']:.4f}" in out


def test_a_preset_is_described(succeeds):
    out = succeeds("info", "prototypical_network_omniglot_20w1s")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    lines = {name.strip(): value.strip() for name, value in lines.items()}
    folder = presets.find("prototypical_network_omniglot_20w1s")
    preset = json.loads((folder / "preset.json").read_text(encoding="utf-8"))
    assert lines["learner"] == "PrototypicalNetwork"
    assert lines["folder"] == str(folder)
    assert lines["sha256"] == preset["sha256"]
    assert lines["servable"] == str(folder / "servable")
    assert lines["batch norm"] == presets.from_preset(folder).batch_norm
    assert (lines["ways"], lines["example"]) == ("any", "28×28×1")
    assert "name omniglot" in lines["data"]
    assert lines["tfmeta"] == preset["tfmeta"]


def test_a_run_is_described(succeeds, waves, pictures):
    out = succeeds("info", waves)
    mean = json.loads((waves / "evaluation.json").read_text())["mean"]
    assert f"MSE {mean:.4f}" in out
    assert "mlp" in out
    assert "servable" not in out
    out = succeeds("info", pictures)
    assert "height 8" in out
    assert "inner_learning_rate 0.5" in out
    classes = json.loads((pictures / "run.json").read_text())["classes"]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for split, names in classes.items():
        assert f"{split} classes {len(names)}: {', '.join(names)}" in lines
    assert sum(map(len, classes.values())) == 10


def test_a_run_of_many_classes_shows_the_first(succeeds, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    content = json.loads(file.read_text())
    content["classes"]["train"] = [f"c{k}" for k in range(1000)]
    file.write_text(json.dumps(content))
    out = succeeds("info", tmp_path / "run")
    assert "1000: c0, c1," in out
    assert "c39 … (all in run.json)" in out


@pytest.mark.parametrize("content", ["{", "[]", "{}", "3"])
@pytest.mark.parametrize("name", ["run.json", "evaluation.json", "recipe.yaml"])
def test_a_broken_file_of_a_run_is_named(fails, waves, tmp_path, name, content):
    shutil.copytree(waves, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    fails(["info", tmp_path / "run"], str(tmp_path / "run"))
    if name != "run.json":
        fails(["compare", tmp_path / "run"], str(tmp_path / "run"))


def test_a_broken_preset_is_told(fails, tmp_path):
    shutil.copytree(presets.find("maml_sinusoid"), tmp_path / "preset")
    (tmp_path / "preset" / "learner.keras").write_bytes(b"no archive")
    fails(["info", tmp_path / "preset"], "learner.keras is broken")
    (tmp_path / "preset" / "preset.json").write_text("[]")
    fails(["info", tmp_path / "preset"], "preset.json")
    (tmp_path / "preset" / "preset.json").write_text("{}")
    fails(["info", tmp_path / "preset"], "preset.json")


# === Cards ===


def test_a_card_is_written_from_a_run(succeeds, fails, waves, tmp_path):
    folder = tmp_path / "waves"
    folder.mkdir()
    shutil.copy(waves / "recipe.yaml", folder)
    (folder / "README.md").write_text("# Waves\n")
    succeeds("card", folder, waves)
    mean = json.loads((waves / "evaluation.json").read_text())["mean"]
    assert f"**{mean:.4f} ±" in (folder / "README.md").read_text()
    assert (folder / "learning_curve.png").is_file()
    other = yaml.safe_load((waves / "recipe.yaml").read_text())
    other["episodes"]["n_shot"] = 6
    (folder / "recipe.yaml").write_text(yaml.safe_dump(other))
    fails(["card", folder, waves], "is no run of the recipe")
