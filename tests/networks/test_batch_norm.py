"""Batch norm's modes: one table, which the guide prints; and what episodes refuse."""

from pathlib import Path

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.networks import MODES, call_network, normalization, values_of

X = np.random.default_rng(0).normal(loc=3, size=(6, 4)).astype("float32")


def network(**options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(**options)])
    model.layers[0].moving_mean.assign([1.0, 1.0, 1.0, 1.0])
    return model


def called(model, by, x=X, **options):
    return call_network(model, *values_of(model), x, normalization=by, **options)


def by_own(x=X):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3)


@pytest.mark.parametrize("by", ["batch", "update", "replace"])
def test_each_normalisation_but_the_moving_one_is_by_the_inputs_own_statistics(by):
    outputs, _ = called(network(), by)
    np.testing.assert_allclose(outputs, by_own(), rtol=1e-4, atol=1e-5)


def test_the_moving_normalisation_is_by_the_moving_averages():
    outputs, _ = called(network(), "moving")
    np.testing.assert_allclose(outputs, (X - 1) / np.sqrt(1 + 1e-3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("by", "share"), [("batch", 0.0), ("moving", 0.0), ("update", 0.01), ("replace", 1.0)]
)
def test_moving_averages_take_this_share_of_the_inputs_statistics(by, share):
    model = network()
    _, values = called(model, by)
    by_name = {
        v.name: np.asarray(a) for v, a in zip(model.non_trainable_variables, values, strict=True)
    }
    expected = (1 - share) * 1 + share * X.mean(axis=0)
    np.testing.assert_allclose(by_name["moving_mean"], expected, rtol=1e-4)
    expected = (1 - share) * 1 + share * X.var(axis=0)
    np.testing.assert_allclose(by_name["moving_variance"], expected, rtol=1e-4)
    np.testing.assert_array_equal(model.layers[0].moving_mean, np.ones(4))  # nothing is assigned


def test_the_table_says_what_the_modes_are_published_as():
    for training in (False, True):
        assert normalization("transductive", "queries", training) == "batch"
        assert normalization("support", "queries", training) == "moving"
        assert normalization("support", "support", training) == "replace"
    for part in ("inner steps", "support", "queries"):
        assert normalization("running", part, training=True) == "update"
        assert normalization("running", part, training=False) == "moving"


def test_the_guide_prints_the_table():
    words = {
        "batch": "its own statistics",
        "update": "its own statistics, which enter the moving averages",
        "replace": "its own statistics, which the queries then use",
        "moving": "the moving averages",
    }
    queries_of_support = "the support set's statistics"
    rows = [
        "| `batch_norm=` | called on | in meta-training | elsewhere |",
        "| --- | --- | --- | --- |",
    ]
    for mode, parts in MODES.items():
        for part, both in parts.items():
            cells = [
                queries_of_support if (mode, part) == ("support", "queries") else words[by]
                for by in both
            ]
            rows.append(f'| `"{mode}"` | {part} | {cells[0]} | {cells[1]} |')
    guide = Path(__file__).parents[2] / "docs" / "guide.md"
    assert "\n".join(rows) in guide.read_text(encoding="utf-8")


def test_a_frozen_layer_keeps_to_its_moving_averages():
    model = network()
    model.layers[0].trainable = False
    for by in ("batch", "update", "replace", "moving"):
        outputs, _ = called(model, by, training=True)
        np.testing.assert_allclose(outputs, (X - 1) / np.sqrt(1 + 1e-3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [tfmeta.MAML, tfmeta.PrototypicalNetwork])
def test_synchronised_statistics_are_refused_by_the_layers_name(make):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.BatchNormalization(synchronized=True, name="synced")]
    )
    with pytest.raises(ValueError, match="'synced' needs synchronized=False"):
        make(model)


def masked(axis=-1, shape=(3, 4)):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Masking(0.0),
            keras.layers.BatchNormalization(axis=axis, name="masked"),
        ]
    )


@pytest.mark.parametrize("rows", [None, [1, 1, 0, 1, 1]])
def test_what_a_keras_mask_excludes_enters_no_statistics(rows):
    """Plain Keras in training mode, of the rows that are no padding."""
    rng = np.random.default_rng(0)
    x = rng.normal(loc=2, size=(5, 3, 4)).astype("float32")
    x[rng.random((5, 3)) < 0.4] = 0
    some = x if rows is None else x[np.array(rows, bool)]
    expected = masked()(some, training=True)
    got, _ = called(masked(), "batch", x, mask=None if rows is None else np.array(rows, "float32"))
    got = got if rows is None else got[np.array(rows, bool)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_keras_mask_of_other_axes_is_refused_by_the_layers_name():
    with pytest.raises(ValueError, match="'masked' gets a Keras mask"):
        called(masked(axis=1), "batch", np.zeros((2, 3, 4), "float32"))
