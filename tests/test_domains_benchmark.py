"""The benchmark across domains, on made-up images, and the tables that it wrote."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.data import ClassDataset
from tfmeta.report import ci95

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "domains"
MODULES = ("drawings", "methods", "run", "summary", "tables")


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark's modules, which import each other by these names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
        for name in MODULES:
            sys.modules.pop(name, None)


def made_up(name, n_classes=20, n_examples=8):
    """Classes of noisy patterns, different in each domain."""
    rng = np.random.default_rng(len(name))
    patterns = rng.random((n_classes, 1, 28, 28, 1)) > 0.5
    x = 0.7 * patterns + 0.3 * rng.random((n_classes, n_examples, 28, 28, 1))
    x = x.reshape(-1, 28, 28, 1).astype("float32")
    return ClassDataset.from_arrays(x, np.repeat(np.arange(n_classes), n_examples))


# === Images ===


def test_colours_on_white_become_ink_on_0(benchmark):
    paper, red = np.ones((2, 28, 28, 3)), np.zeros((2, 28, 28, 3))
    red[..., 0] = 1
    data = ClassDataset.from_arrays(np.concatenate([paper, red]), np.array([0, 1, 0, 1]))
    ink = benchmark.drawings.as_ink(data, light_is_ink=False)
    assert ink.example_shape == (28, 28, 1)
    first, second = (ink.fetch(tf.constant(rows)).numpy() for rows in ink.rows)
    # Luma of red is 0.2989 of white (ITU-R BT.601).
    np.testing.assert_allclose(first[0], 0, atol=1e-3)
    np.testing.assert_allclose(second[1], 1 - 0.2989, atol=1e-3)


def test_digits_are_resized_and_all_ten_are_there(benchmark):
    pytest.importorskip("sklearn")
    digits = benchmark.drawings.load("digits", "test", None, None)
    assert (len(digits), digits.example_shape) == (10, (28, 28, 1))
    images = digits.fetch(tf.constant(np.concatenate(digits.rows))).numpy()
    assert images.min() == 0 and images.max() == 1
    # Ink, which is in the middle, is 1.
    assert images[:, 8:20, 8:20].mean() > 2 * images[:, :, :3].mean()
    with pytest.raises(ValueError, match="split"):
        benchmark.drawings.load("digits", "train", None, None)


# === Numbers ===


def test_means_intervals_and_ranks(benchmark):
    Method = benchmark.methods.Method
    methods = [
        Method("a", "maml", None, same_features="b"),
        Method("b", "maml", None),
        Method("c", "maml", None, "transductive"),
    ]
    values = np.random.default_rng(0).random((3, 2, 3, 1, 50))
    values[0, 0] = values[1, 0] + 0.01  # Better in each episode after training on the first domain.
    values[0, 1] = values[1, 1]  # The same after training on the second.
    result = benchmark.summary.summary(values, methods, "AB", "ABC", (5,))
    a, b, c = (row["by_shot"]["5"] for row in result["rows"])
    assert a["accuracy"]["B"][0]["mean"] == pytest.approx(values[0, 0, 1, 0].mean())
    assert a["accuracy"]["B"][0]["ci95"] == pytest.approx(ci95(values[0, 0, 1, 0]))
    # Of the pairs AA and BB, the first has ranks 1 and 2, the second a tie; a row alone is first.
    assert (a["rank_own"], b["rank_own"], c["rank_own"]) == (1.25, 1.75, 1)
    assert (a["rank_other"], b["rank_other"]) == (1.25, 1.75)
    own = [values[0, 0, 0, 0], values[0, 1, 1, 0]]
    assert a["own"]["mean"] == pytest.approx(np.mean(own))
    assert a["own"]["ci95"] == pytest.approx(np.hypot(*map(ci95, own)) / 2)
    # Both sources are tested on the same episodes of C.
    other = [values[0, 1, 0, 0], values[0, 0, 1, 0], values[0, :, 2, 0].sum(axis=0)]
    assert a["other"]["ci95"] == pytest.approx(np.sqrt(sum(ci95(o) ** 2 for o in other)) / 4)
    assert a["gain"]["sign"] == {target: [1, 0] for target in "ABC"}
    assert a["gain"]["own"]["mean"] == pytest.approx(0.005)
    assert "gain" not in b


# === Learners ===


def test_a_head_on_features_is_the_learner_in_the_mode_running(benchmark):
    methods = benchmark.methods
    data = made_up("glyphs")
    learner = tfmeta.RidgeHead(methods.encoder(), batch_norm="running")
    learner.log_regularization.assign(3.0)
    learner.encoder.get_layer("norm2").moving_mean.assign(np.linspace(-0.2, 0.2, 32))
    features = tfmeta.data.embed(data, learner.encoder, cache=False, verbose=0)
    head = methods.without_encoder(learner)
    inputs, _ = next(iter(data.episodes(5, 5, 3, meta_batch_size=2, seed=1)))
    of_features, _ = next(iter(features.episodes(5, 5, 3, meta_batch_size=2, seed=1)))
    np.testing.assert_allclose(head(of_features), learner(inputs), rtol=1e-3, atol=1e-4)


@pytest.fixture
def few_methods(benchmark, monkeypatch):
    """One training, and rows of each kind."""
    simple_shot = tfmeta.SimpleShot
    rows = (
        benchmark.methods.Method("ridge", "ridge_head", None, same_features="same"),
        benchmark.methods.Method("same", "ridge_head", simple_shot),
        benchmark.methods.Method("images", "ridge_head", simple_shot, "transductive"),
    )
    monkeypatch.setattr(benchmark.run, "METHODS", rows)
    monkeypatch.setattr(benchmark.drawings, "TARGETS", ("omniglot", "emoji"))
    monkeypatch.setattr(benchmark.methods, "encoder", small_encoder)


def small_encoder():
    layers = [keras.layers.AveragePooling2D(7), keras.layers.Flatten(name="flatten")]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Dense(8)])


@pytest.mark.large
@pytest.mark.usefixtures("few_methods")
def test_a_run_goes_on_where_it_stopped(benchmark, tmp_path, monkeypatch):
    settings = {"steps": {"ridge_head": 2}, "n_episodes": 4, "seed": 0}

    def run():
        return benchmark.run.Run(
            tmp_path, settings, lambda name, split: made_up(name + split), ("omniglot",)
        )

    results = benchmark.run.results_of(run(), benchmark.run.METHODS)
    text = benchmark.tables.markdown(results)
    assert "| ridge | episodes | `running` |" in text
    assert text.count("<details>") == 2
    ridge, same, *_ = results["rows"]
    for shot, entry in ridge["by_shot"].items():
        difference = entry["own"]["mean"] - same["by_shot"][shot]["own"]["mean"]
        assert entry["gain"]["own"]["mean"] == pytest.approx(difference, abs=1e-9)

    # A measurement that is missing is made again from the saved learner, with the same result.
    (tmp_path / "omniglot-ridge_running.accuracies.json").unlink()
    monkeypatch.setattr(benchmark.methods, "train", None)
    assert benchmark.run.results_of(run(), benchmark.run.METHODS) == results
    with pytest.raises(ValueError, match="must hold a run with the settings"):
        settings = {**settings, "seed": 1}
        run()


@pytest.mark.parametrize(
    "name",
    [
        "classification",
        pytest.param("prototypical_network", marks=pytest.mark.large),
        pytest.param("ridge_head", marks=pytest.mark.large),
        pytest.param("maml", marks=pytest.mark.large),
    ],
)
def test_every_training_changes_an_encoder(benchmark, monkeypatch, name):
    methods = benchmark.methods
    monkeypatch.setattr(methods, "encoder", small_encoder)
    monkeypatch.setattr(methods, "FILTERS", 4)
    trained, seconds = methods.train(name, made_up("glyphs"), 1, seed=0)
    assert seconds > 0
    keras.utils.set_random_seed(0)
    before = methods.META_LEARNERS[name]() if name in methods.META_LEARNERS else small_encoder()
    before, after = methods.encoder_of(before).weights[0], methods.encoder_of(trained).weights[0]
    assert before.shape == after.shape
    assert np.abs(before.numpy() - after.numpy()).max() > 1e-4


def test_the_encoder_of_maml_is_its_network_without_the_last_layer(benchmark):
    methods = benchmark.methods
    learner = methods.META_LEARNERS["maml"]()
    x = made_up("glyphs", n_classes=2).fetch(tf.range(3))
    encoder, last = methods.encoder_of(learner), learner.network.get_layer("logits")
    np.testing.assert_allclose(last(encoder(x)), learner.network(x), rtol=1e-4, atol=1e-5)
    assert encoder.output_shape == methods.encoder().output_shape
    assert set(methods.STEPS) == set(methods.RATES) == {*methods.META_LEARNERS, "classification"}


# === The page ===


def test_the_page_has_the_tables_of_the_results(benchmark):
    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    begin, end = benchmark.tables.MARKS
    written = text[text.index(begin) + len(begin) : text.index(end)].strip()
    assert written == benchmark.tables.markdown(results)
