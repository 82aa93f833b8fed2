"""`tfmeta evaluate` of the shipped presets: it gives what their cards say."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tfmeta import learners, presets

MODELS = Path(__file__).parents[2] / "models"

# The large tier has the others, most of which are tested on images, also those that are tested by
# the recipe of another preset.
BY_DEFAULT = {("maml_sinusoid", "evaluation.json")}
ALL = [
    *((path.parent.name, path.name) for path in sorted(MODELS.glob("*/evaluation_as_*.json"))),
    *((name, "evaluation.json") for name in presets.list_presets()),
]


def recipe_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((MODELS / name / "recipe.yaml").read_text(encoding="utf-8"))


def test_both_families_of_learners_are_evaluated():
    assert set(ALL) >= BY_DEFAULT
    names = [recipe_of(name)["learner"]["name"] for name, _ in ALL]
    assert {learners.get(name).takes for name in names} == {"network", "encoder"}


@pytest.mark.parametrize(
    ("name", "file"),
    [pytest.param(*each, marks=[] if each in BY_DEFAULT else pytest.mark.large) for each in ALL],
)
def test_evaluating_a_preset_gives_what_its_card_says(name, file, succeeds, tmp_path, request):
    card = json.loads((MODELS / name / file).read_text(encoding="utf-8"))
    recipe = recipe_of(card.get("as", name))
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
        # The first episodes stand for all, which take minutes.
        options += ["--data-dir", folder, "--n-episodes", 40]
        if "by_inner_step" in card:
            options += ["--inner-steps", 1]
    out = succeeds("evaluate", name, *options)
    again = json.loads((tmp_path / "evaluation.json").read_text())
    for setting, published in zip([again, *again.get("also", [])], settings, strict=True):
        assert setting["episodes"] == published["episodes"]
        assert setting["batch_norm"] == published["batch_norm"]
        has_all = setting["n_episodes"] == published["n_episodes"]
        by_step, of_card = (each.get("by_inner_step", []) for each in (setting, published))
        assert len(by_step) == (len(of_card) if has_all else min(len(of_card), 2))
        # Fewer episodes have a wider interval.
        widening = (published["n_episodes"] / setting["n_episodes"]) ** 0.5
        for one, other in zip(
            [setting, *by_step], [published, *of_card[: len(by_step)]], strict=True
        ):
            check_close(one, other, has_all, widening)
        assert f"{setting['mean']:.4f} ± {setting['ci95']:.4f}" in out
    titles = [set(line.rstrip(":").split(", ")) for line in out.splitlines() if line[-1:] == ":"]
    for setting in recipe["evaluation"].get("also", []):
        assert {f"{key} {value}" for key, value in setting.items()} in titles


def check_close(one: dict, other: dict, has_all: bool, widening: float) -> None:
    """Checks a result against a published one."""
    if other["mean"] is None:
        # Its tasks diverge beyond what numbers can hold.
        assert one["mean"] is None or one["mean"] > 1e30
    elif other["ci95"] > other["mean"]:
        # A few tasks diverge, and rounding decides how far: only the magnitude is the same.
        assert math.log10(one["mean"]) == pytest.approx(math.log10(other["mean"]), rel=0.1, abs=0.5)
    else:
        # A few episodes may all have the same accuracy, or have the worst one among them.
        few = 1.5 * max(one["ci95"], widening * other["ci95"])
        # If all episodes have the same accuracy, the interval is rounding, too.
        within = (other["ci95"] / 10 if has_all else few) + 1e-9
        assert abs(one["mean"] - other["mean"]) < within
