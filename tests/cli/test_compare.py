"""`tfmeta compare` and `tfmeta plot`: several runs beside each other."""

import json
import shutil

import numpy as np
from PIL import Image


def rows_of(out):
    head, *rows = (line.split("\t") for line in out.splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def with_result(run, folder, mean, **changes):
    """A copy of a run with another result, and other texts in its recipe."""
    shutil.copytree(run, folder)
    file = folder / "evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mean": mean, "ci95": 0.01}))
    recipe = (folder / "recipe.yaml").read_text()
    for old, new in changes.values():
        assert old in recipe
        recipe = recipe.replace(old, new)
    (folder / "recipe.yaml").write_text(recipe)
    return folder


def test_runs_and_presets_are_compared(succeeds, digits, tmp_path):
    low = with_result(digits, tmp_path / "low", 0.5)
    high = with_result(digits, tmp_path / "high", 0.6, seed=("seed: 0", "seed: 1"))
    other = with_result(digits, tmp_path / "other", 0.7, name=("name: digits\nd", "name: more\nd"))
    rows = rows_of(succeeds("compare", low, high, other, "maml_sinusoid"))
    assert [(row["recipe"], row["seed"]) for row in rows] == [
        *[("digits", "0"), ("digits", "1"), ("digits", "mean of 2"), ("more", "0")],
        ("maml_sinusoid", "0"),
    ]
    assert [row["2-way 2-shot"] for row in rows] == [
        *["50.00 ± 1.00 %", "60.00 ± 1.00 %", "55.00 ± 5.00 %", "70.00 ± 1.00 %", "–"],
    ]
    assert rows[-1]["10-shot"].startswith("MSE 0.")
    assert rows[-1]["5-shot"].startswith("MSE 0.")


def test_runs_whose_data_went_are_compared(succeeds, digits, tmp_path):
    gone = ("name: digits\nepisodes", "name: ./gone\nepisodes")
    run = with_result(digits, tmp_path / "run", 0.5, data=gone)
    (row,) = rows_of(succeeds("compare", run))
    assert row["2-way 2-shot"] == "50.00 ± 1.00 %"


def test_recipes_of_one_name_are_told_apart(succeeds, digits, tmp_path):
    one = with_result(digits, tmp_path / "one", 0.5)
    other = with_result(digits, tmp_path / "two", 0.6, epochs=("epochs: 1", "epochs: 9"))
    rows = rows_of(succeeds("compare", one, other))
    assert [row["recipe"] for row in rows] == [f"digits ({one})", f"digits ({other})"]


def test_a_run_that_was_not_tested_is_told(fails, digits, tmp_path):
    run = with_result(digits, tmp_path / "run", 0.5)
    (run / "evaluation.json").unlink()
    fails(["compare", run], str(run), "has no evaluation.json")


def test_fits_of_runs_are_plotted(succeeds, fails, waves, digits, tmp_path):
    succeeds("plot", waves, "--output", tmp_path / "fits.png")
    assert np.ptp(np.asarray(Image.open(tmp_path / "fits.png").convert("L"))) > 0
    fails(["plot", waves, digits, "--output", tmp_path / "x.png"], "regression")


def test_runs_of_one_recipe_are_all_plotted(succeeds, waves, tmp_path, monkeypatch):
    shutil.copytree(waves, tmp_path / "again")
    drawn = []
    monkeypatch.setattr(
        "tfmeta.plots.regression_fits", lambda learners, *_: drawn.append(list(learners))
    )
    succeeds("plot", waves, tmp_path / "again", "--output", tmp_path / "fits.png")
    assert drawn == [[f"waves ({waves})", f"waves ({tmp_path / 'again'})"]]
