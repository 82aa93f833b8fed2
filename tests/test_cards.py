"""Cards say what the evaluations say, and nobody's keyboard is in between."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from learners_made_small import HEADS

import tfmeta
from tfmeta import cards, preset_files, presets, zoo
from tfmeta.cards import BEGIN, END, measured, write_card
from tfmeta.recipes import Recipe
from tfmeta.report import Evaluation, Report
from tfmeta.training import EVALUATION, weights_sha256
from tfmeta.zoo_table import zoo_table

MODELS = Path(__file__).parent.parent / "models"
MEASURED = sorted(path.parent for path in MODELS.glob(f"*/{EVALUATION}"))
BESIDE_LEO = MODELS.parent / "benchmarks" / "leo" / "results.json"
ALGORITHMS = MODELS.parent / "docs" / "algorithms.md"


def cell(file):
    """The mean of an evaluation, as a card writes it."""
    own = Report.read(file).own
    return cards.cell(own.estimate, own.metric)


def result(mean, **others):
    episodes = {"n_way": 5, "n_shot": 1, "n_query": 15, **others.pop("episodes", {})}
    return {
        "metric": "accuracy",
        "mean": mean,
        "ci95": 0.00123,
        "n_episodes": 1000,
        "episodes": episodes,
        "batch_norm": "support",
        **others,
    }


@pytest.fixture
def folder(tmp_path):
    by_step = [{"inner_steps": i, "mean": 0.2 + i / 10, "ci95": 0.01} for i in range(3)]
    evaluation = result(
        0.98765,
        by_inner_step=by_step,
        protocol="by hand",
        seed=0,
        training_seconds=90.0,
        n_parameters=1234,
        machine="an abacus",
        versions={"python": "3.11", "tensorflow": "2.21", "keras": "3.15"},
        also=[result(0.5, episodes={"n_shot": 5}, by_inner_step=by_step[:2])],
    )
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    shutil.copy(MODELS / "maml_linear" / "recipe.yaml", tmp_path)
    (tmp_path / "README.md").write_text("# A model\n\nBy hand.\n")
    (tmp_path / "learning_curve.png").touch()
    return tmp_path


@pytest.mark.parametrize("folder", MEASURED, ids=[folder.name for folder in MEASURED])
def test_every_card_says_what_its_evaluations_say(folder):
    text = (folder / cards.CARD).read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == measured(folder)


def test_a_card_without_an_evaluation_says_that_it_was_not_trained_and_no_other():
    untrained = [
        recipe.parent
        for recipe in MODELS.glob("*/recipe.yaml")
        if not (recipe.parent / "evaluation.json").exists()
    ]
    for recipe in MODELS.glob("*/recipe.yaml"):
        text = (recipe.parent / cards.CARD).read_text(encoding="utf-8")
        is_untrained = recipe.parent in untrained
        assert ("**Not trained here**" in text) == is_untrained, recipe.parent.name
        if is_untrained:
            assert BEGIN not in text
            assert "## Measured" not in text
            assert not list(recipe.parent.glob("*.png"))
    assert untrained


def test_the_zoo_s_table_says_what_the_evaluations_say():
    text = (MODELS.parent / "docs" / "zoo.md").read_text(encoding="utf-8")
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert written == zoo_table(MODELS, "../models")


def rows_of_the_learners():
    """(learner, folder or recipe, iterations × tasks, accuracy) of the table of all learners."""
    for line in ALGORITHMS.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and "](../models/" in line:
            learner, recipe, budget, _, accuracy, _ = line.strip("| ").split(" | ")
            link = re.search(r"\]\(\.\./models/(.*?)/?\)", recipe).group(1)
            yield pytest.param(learner, MODELS / link, budget, accuracy, id=learner)


@pytest.mark.parametrize(("learner", "recipe", "budget", "accuracy"), rows_of_the_learners())
def test_the_table_of_the_learners_says_what_the_evaluations_say(learner, recipe, budget, accuracy):
    is_file = recipe.suffix == ".yaml"
    evaluation = recipe.with_suffix(".json") if is_file else recipe / EVALUATION
    assert cell(evaluation) == accuracy
    recipe = Recipe.load(recipe)
    n_iterations = recipe.training.epochs * recipe.training.steps_per_epoch
    assert budget == f"{n_iterations:,} × {recipe.episodes.meta_batch_size}"
    section = ALGORITHMS.read_text(encoding="utf-8").split(f"\n### {learner}")[1].split("\n### ")[0]
    assert f"\n**{accuracy} %**" in section


def test_the_table_of_the_learners_has_them_all():
    shown = [row.values[0].lower().replace("++", "_plus_plus") for row in rows_of_the_learners()]
    names = [re.sub("[ -]", "_", learner) for learner in shown]
    # The heads on features are no learners of ten minutes from random weights, Amortized MAML is
    # measured by its calibration, and MetaGAN with a tenth of the labels.
    others = {*HEADS, "amortized_maml", "meta_gan_maml", "meta_gan_relation_network"}
    assert sorted([*names, *others]) == sorted(tfmeta.learners.BY_NAME)


def test_cards_quote_their_runs_of_ten_minutes_and_the_papers():
    published = yaml.safe_load((MODELS / "published.yaml").read_text(encoding="utf-8"))
    for name, rows in published.items():
        text = (MODELS / name / cards.CARD).read_text(encoding="utf-8")
        # Without its line breaks.
        own = " ".join((text[: text.index(BEGIN)] + text[text.index(END) :]).split())
        ten_minutes = MODELS / name / "ten_minutes.json"
        if ten_minutes.exists():
            assert f"{cell(ten_minutes)} % (`ten_minutes.json`)" in own
        assert [row["paper"] for row in rows if str(row.get("paper", "")) not in own] == [], name


# What no JSON here has: papers' other numbers, and those of learners that were not kept and of
# kernel smoothers.
QUOTED = {
    "anil_omniglot_5w1s": {"96.2 ± 0.5"},
    "maml_digit_pairs": {"86.80 ± 0.85"},
    "maml_omniglot_5w5s": {"99.44 ± 0.07"},
    "matching_network_omniglot_5w1s": {"90.31 ± 0.57"},
    "meta_lstm_omniglot_5w1s": {"43.44 ± 0.77"},
    "relation_network_linear": {"3.5192 ± 0.4186", "3.5848 ± 0.4215"},
    "relation_network_sinusoid": {"1.5571 ± 0.1430", "1.5561 ± 0.1432"},
    "reptile_omniglot_5w1s": {"95.39 ± 0.09", "98.90 ± 0.10"},
}


@pytest.mark.parametrize("folder", MEASURED, ids=[folder.name for folder in MEASURED])
def test_intervals_in_a_card_s_own_words_are_those_of_an_evaluation_or_a_paper(folder):
    text = (folder / cards.CARD).read_text(encoding="utf-8")
    own = text[: text.index(BEGIN)] + text[text.index(END) :]
    published = yaml.safe_load((MODELS / "published.yaml").read_text(encoding="utf-8"))
    known = {str(row.get("paper")) for row in published.get(folder.name, [])}
    known |= QUOTED.get(folder.name, set())

    # Of its own, of the models that it names, and of the one that all learners are compared with.
    beside = MODELS / "maml_omniglot_5w1s" / "ten_minutes.json"
    for path in MODELS.glob("*/*.json"):
        names_it = re.search(rf"\b{path.parent.name}\b", own)
        if path.parent == folder or path == beside or names_it:
            for evaluation in Report.read(path).evaluations:
                estimates = (evaluation.estimate, *evaluation.steps)
                known |= {cards.cell(estimate, evaluation.metric) for estimate in estimates}
    of_leo = json.loads(BESIDE_LEO.read_text(encoding="utf-8")).get(folder.name, {})
    known |= {c.lstrip("−") for by in of_leo.values() for cells in by.values() for c in cells}
    assert set(re.findall(r"[\d.]+ ± [\d.]*\d", own)) <= known


def test_the_tables_of_leo_say_what_its_benchmark_says():
    results = json.loads(BESIDE_LEO.read_text(encoding="utf-8"))
    section = ALGORITHMS.read_text(encoding="utf-8").split("\n### LEO\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if "-shot | " in line]
    order = ("LEO", "SimpleShot", "RidgeHead", "CosinePrototypicalNetwork")
    shown = {"emoji": "leo_emoji_5w1s", "Omniglot": "leo_omniglot_5w1s"}
    assert len(rows) == 4
    for features, setting, *cells in rows:
        (name,) = (shown[key] for key in shown if key in features)
        assert cells == [results[name][setting][learner][0] for learner in order]
    for name, settings in results.items():
        card = (MODELS / name / cards.CARD).read_text(encoding="utf-8")
        for learner in order:
            cells = [cell.lstrip("−") for by in settings.values() for cell in by[learner]]
            (row,) = (line for line in card.splitlines() if line.startswith(f"| {learner} |"))
            numbers = re.findall(r"[\d.]+ ± [\d.]+", row)
            assert numbers == [cell for cell in cells if cell]


def test_the_sinusoids_card_says_what_joint_training_gave():
    folder = MODELS / "maml_sinusoid"
    maml, joint = (
        Report.read(folder / name).own.steps for name in (EVALUATION, "joint_evaluation.json")
    )
    text = (folder / cards.CARD).read_text(encoding="utf-8")
    for step, (ours, theirs) in enumerate(zip(maml, joint, strict=True)):
        cells = [cards.cell(estimate, "mse") for estimate in (ours, theirs)]
        assert f"| {step} | {cells[0]} | {cells[1]} | {theirs.mean / ours.mean:.1f} |" in text


def test_every_card_says_what_it_is_for_and_what_not():
    for name in presets.list_presets():
        assert "\n## Intended use, and limits\n" in (MODELS / name / cards.CARD).read_text("utf-8")


def test_every_preset_has_a_card_and_the_recipe_of_its_model():
    for name in presets.list_presets():
        assert MODELS / name in MEASURED
        recipe = yaml.safe_load((MODELS / name / "recipe.yaml").read_text(encoding="utf-8"))
        assert Recipe.from_dict(recipe).to_dict() == preset_files.read(presets.find(name)).recipe


@pytest.mark.parametrize("name", presets.list_presets())
def test_a_preset_has_the_weights_that_were_measured(name):
    digest = weights_sha256(presets.from_preset(name))
    reports = [
        Report.read(path)
        for pattern in (EVALUATION, cards.OF_ANOTHER.format("*"))
        for path in (MODELS / name).glob(pattern)
    ]
    assert reports
    assert {report.weights_sha256 for report in reports} == {digest}


def test_a_card_holds_the_numbers_of_the_evaluation(folder):
    text = measured(folder)
    assert "**98.77 ± 0.12 %** (5-way 1-shot, `support`; 1,000 episodes" in text
    assert "| inner steps | 5-way 1-shot, `support` | 5-way 5-shot, `support` |" in text
    assert "| 0 | 20.00 ± 1.00 | 20.00 ± 1.00 |" in text
    assert "| 2 | 40.00 ± 1.00 |  |" in text
    assert "1.5 minutes" in text
    assert "Parameters: 1,234." in text
    assert "[recipe.yaml](recipe.yaml), 2,000 iterations of 25 tasks." in text
    assert "![learning curve](learning_curve.png)" in text
    seed = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation_seed_1.json").write_text(json.dumps({**seed, "mean": 0.97, "seed": 1}))
    text = measured(folder)
    assert "0: 98.77 ± 0.12 %; 1: 97.00 ± 0.12 %" in text
    assert "1.77 percentage points" in text
    assert "The first seed is published, whichever is best." in text


def test_a_card_says_where_tasks_diverge(folder):
    evaluation = json.loads((folder / "evaluation.json").read_text())
    second, third = evaluation["by_inner_step"][1:]
    evaluation["metric"] = evaluation["also"][0]["metric"] = "mse"
    second["mean"], second["ci95"] = 553085.4, 647103.2
    third["mean"] = third["ci95"] = None
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    text = measured(folder)
    assert "| 1 | 5.5e+05 ± 6.5e+05 |" in text
    assert "| 2 | not finite |" in text


def test_a_card_shows_the_learner_s_own_steps_where_more_than_were_measured_one_by_one(folder):
    assert "| 50 |" not in measured(folder)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["inner_steps"] = 2
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    assert measured(folder).count("\n| 2 |") == 1
    evaluation["inner_steps"] = 50
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    assert "| 50 | 98.77 ± 0.12 | 50.00 ± 0.12 |" in measured(folder)


def test_what_was_tested_as_another_preset_says_so(folder):
    other = result(
        0.8,
        data={"name": "omniglot", "protocol": "lake"},
        trained_on={"name": "glyphs"},
        also=[result(0.9, episodes={"n_shot": 5})],
        **{"as": "maml_x"},
    )
    (folder / "evaluation_as_maml_x.json").write_text(json.dumps(other))
    text = measured(folder)
    assert "Tested as `maml_x` is, on omniglot (lake), after training on glyphs" in text
    assert f"`tfmeta evaluate {folder.name} --recipe maml_x`" in text
    assert "| 5-way 1-shot, `support` | 80.00 ± 0.12 |" in text
    assert "| 5-way 5-shot, `support` | 90.00 ± 0.12 |" in text


def test_a_row_of_the_zoo_shows_the_setting_that_it_asks_for(tmp_path, monkeypatch):
    evaluation = result(
        0.9,
        data={"name": "glyphs"},
        by_inner_step=[{"inner_steps": i, "mean": 0.1 + i / 10, "ci95": 0.01} for i in range(3)],
        also=[
            result(0.8, batch_norm="running", episodes={"n_shot": 5}),
            result(0.95, episodes={"n_shot": 5}),
        ],
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "evaluation.json").write_text(json.dumps(evaluation))
    other = result(0.7, data={"name": "omniglot"})
    (tmp_path / "mine" / "evaluation_as_maml_x.json").write_text(json.dumps(other))
    monkeypatch.setattr(zoo, "list_presets", lambda: ["mine"])
    rows = [
        {"paper": 98.7, "floor": 95, "note": "ours", "shortfall": "fewer steps"},
        {"step": 1, "floor": 20},
        {"episodes": {"n_shot": 5}},
        {"as": "maml_x"},
    ]
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": rows}))
    mine = "| [`mine`](models/mine) |"
    assert zoo_table(tmp_path, "models").splitlines()[2:] == [
        f"{mine} 5-way 1-shot, `support` | 90.00 ± 0.12 | 98.7 | 95 | ours; fewer steps |",
        f"{mine} 5-way 1-shot, `support`, 1 step | 20.00 ± 1.00 | – | 20 |  |",
        f"{mine} 5-way 5-shot, `support` | 95.00 ± 0.12 | – | – |  |",
        f"{mine} 5-way 1-shot, `support`, on omniglot | 70.00 ± 0.12 | – | – |  |",
    ]
    met_or_missed = "if and only if it misses"
    for row in (
        {"floor": 91},
        {"floor": 91, "note": "not why"},
        {"floor": 89, "shortfall": "none"},
        {"shortfall": "of nothing"},
    ):
        (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": [row]}))
        with pytest.raises(ValueError, match=f"has 90\\.00 ± 0\\.12: .*{met_or_missed}"):
            zoo_table(tmp_path, "models")
    (tmp_path / "published.yaml").write_text("mine: [{note: new, too}]")
    with pytest.raises(ValueError, match=r"mine: unknown \['too'\]; a row has \('paper', 'floor'"):
        zoo_table(tmp_path, "models")
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": [{"episodes": {"n_way": 9}}]}))
    with pytest.raises(ValueError, match="mine was not measured with"):
        zoo_table(tmp_path, "models")
    for rows in ({}, {"mine": [{}], "yours": [{}]}):
        (tmp_path / "published.yaml").write_text(yaml.safe_dump(rows))
        with pytest.raises(ValueError, match="must have rows for each preset and nothing else"):
            zoo_table(tmp_path, "models")


def test_an_error_above_its_floor_needs_a_reason_too(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    regression = {**result(0.6, data={"name": "lines"}), "metric": "mean_squared_error"}
    (tmp_path / "mine" / "evaluation.json").write_text(json.dumps(regression))
    monkeypatch.setattr(zoo, "list_presets", lambda: ["mine"])
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": [{"floor": 0.61}]}))
    assert "| 0.6000 ± 0.0012 | – | 0.61 |" in zoo_table(tmp_path, "models")
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": [{"floor": 0.59}]}))
    with pytest.raises(ValueError, match=r"expected to reach 0\.59"):
        zoo_table(tmp_path, "models")


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_a_result_that_is_not_finite_misses_its_floor(tmp_path, monkeypatch, metric):
    (tmp_path / "mine").mkdir()
    diverged = Evaluation.of(metric, np.array([0.9, np.inf]))
    diverged = dataclasses.replace(diverged, episodes={"n_shot": 1})
    Report((diverged,), data={"name": "lines"}).write(tmp_path / "mine" / "evaluation.json")
    monkeypatch.setattr(zoo, "list_presets", lambda: ["mine"])
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": [{"floor": 0.5}]}))
    with pytest.raises(ValueError, match=r"expected to reach 0\.5 .*has not finite"):
        zoo_table(tmp_path, "models")
    row = {"floor": 0.5, "shortfall": "some tasks diverge"}
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"mine": [row]}))
    assert "| not finite | – | 0.5 | some tasks diverge |" in zoo_table(tmp_path, "models")


def test_only_what_is_between_the_marks_is_written_anew(folder):
    write_card(folder)
    card = folder / cards.CARD
    text = card.read_text()
    assert text.startswith("# A model\n\nBy hand.\n")
    assert measured(folder) in text
    card.write_text(text.replace("98.77", "99.99") + "\nBelow.\n")
    write_card(folder)
    assert card.read_text() == text + "\nBelow.\n"


def test_without_an_evaluation_there_is_no_card(tmp_path):
    (tmp_path / "README.md").write_text("")
    with pytest.raises(ValueError, match=r"no evaluation\.json"):
        write_card(tmp_path)
