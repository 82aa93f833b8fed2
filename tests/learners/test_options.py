"""Constructor options: attributes, config keys, by keyword only, and refused by name otherwise."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta


def network():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def with_context():
    x, context = keras.Input((4,)), keras.Input((2,))
    joined = keras.layers.Concatenate()([x, context])
    return keras.Model([x, context], keras.layers.Dense(3)(joined))


def relation_module():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])


NETWORKS = {
    "anil": lambda: (network(), 3),
    "cavia": lambda: (with_context(),),
    "relation_network": lambda: (network(), relation_module()),
}


def made(name, **options):
    return tfmeta.learners.get(name)(*NETWORKS.get(name, lambda: (network(),))(), **options)


ALL = sorted(tfmeta.learners.BY_NAME)


@pytest.mark.parametrize("name", ALL)
def test_every_constructor_argument_is_an_attribute_and_a_config_key(name):
    learner = made(name)
    config = learner.get_config()
    parameters = inspect.signature(type(learner)).parameters.values()
    arguments = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    assert set(arguments) == config.keys() - {"name", "trainable", "dtype"}
    for argument in arguments:
        assert hasattr(learner, argument)
    again = type(learner).from_config(config).get_config()
    assert again.keys() == config.keys()
    objects = {"network", "encoder", "head", "relation_module", "inner_rule"}
    for key in config.keys() - objects - {"generator", "example_encoder"}:
        assert again[key] == config[key], key


class PassesOn(tfmeta.MAML):
    def __init__(self, network, **kwargs):
        super().__init__(network, **kwargs)


class Sharper(tfmeta.PrototypicalNetwork):
    def __init__(self, encoder, *, sharpness=2.0, **kwargs):
        super().__init__(encoder, **kwargs)
        self.sharpness = sharpness


class NamesItsOwn(tfmeta.PrototypicalNetwork):
    def __init__(self, encoder, *, sharpness=2.0, **kwargs):
        super().__init__(encoder, **kwargs)
        self._sharpness = sharpness

    def get_config(self):
        return {**super().get_config(), "sharpness": self._sharpness}


class Forgets(tfmeta.PrototypicalNetwork):
    def __init__(self, encoder, *, sharpness=2.0, **kwargs):
        super().__init__(encoder, **kwargs)


def test_a_subclass_that_passes_options_on_keeps_them():
    learner = PassesOn(network(), inner_steps=5, inner_learning_rate=0.3, batch_norm="support")
    copy = PassesOn.from_config(learner.get_config())
    assert (copy.inner_steps, copy.inner_learning_rate, copy.batch_norm) == (5, 0.3, "support")
    assert learner.with_batch_norm("running").inner_steps == 5


@pytest.mark.parametrize("cls", [Sharper, NamesItsOwn])
def test_a_subclass_adds_options_of_its_own(cls):
    config = cls(network(), sharpness=3.0, distance="cosine", batch_norm="support").get_config()
    assert config["sharpness"] == 3.0
    assert (config["distance"], config["batch_norm"]) == ("cosine", "support")
    assert cls.from_config(config).get_config()["sharpness"] == 3.0


def test_an_argument_that_is_no_attribute_is_told_when_a_learner_is_saved():
    with pytest.raises(ValueError, match="Forgets does not keep its argument 'sharpness'"):
        Forgets(network()).get_config()


@pytest.mark.parametrize("name", ALL)
def test_options_are_keyword_only(name):
    parameters = inspect.signature(tfmeta.learners.get(name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    networks = {"network", "encoder", "head", "relation_module"}
    # As in the papers, and in tfmeta 0.1: MAML(network, 0.01).
    assert set(positional) <= networks | {"inner_learning_rate"}


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_option_is_refused_by_name(name):
    with pytest.raises((TypeError, ValueError), match="nonsense"):
        made(name, nonsense=1)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("maml_plus_plus", {"first_order": True}),
        ("reptile", {"first_order": False}),
        ("meta_lstm", {"inner_learning_rate": 123}),
        ("meta_lstm", {"inner_rule": "sgd"}),
        ("meta_sgd", {"inner_rule": "sgd"}),
        ("prototypical_network", {"inner_steps": 3}),
        ("maml", {"distance": "cosine"}),
        ("matching_network", {"distance": "cosine"}),
    ],
)
def test_an_option_of_another_learner_is_refused_by_name(name, option):
    with pytest.raises((TypeError, ValueError), match=next(iter(option))):
        made(name, **option)


@pytest.mark.parametrize("name", ALL)
def test_learners_say_what_they_take_and_whether_they_step(name):
    learner = made(name)
    first = next(iter(inspect.signature(type(learner)).parameters))
    assert learner.takes == first
    x, y = np.ones((1, 3, 4), "float32"), np.arange(3)[None]
    inputs = {"support_x": x, "support_y": y, "query_x": x}
    if learner.has_inner_steps:
        assert learner.predict_by_step(inputs, 2).shape == (3, 1, 3, 3)
    else:
        with pytest.raises(ValueError, match="no inner steps"):
            learner.predict_by_step(inputs, 2)


def test_the_head_of_anil_is_what_adapts():
    learner = made("anil")
    assert learner.head is learner.network


def test_a_learner_whose_steps_are_too_many_says_so_again():
    """The inner rule is made once; it is not taken for another learner's afterwards."""
    subclassed = keras.Sequential([keras.layers.Dense(3)])
    learner = tfmeta.MAMLPlusPlus(subclassed, inner_steps=1, test_inner_steps=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="defined for up to 1 inner steps"):
            learner.adapt(np.ones((3, 4), "float32"), np.arange(3))
    assert len(learner.inner_rule.variables) == 2


def test_with_batch_norm_of_a_learner_without_weights_says_what_to_do():
    encoder = keras.Sequential([keras.layers.Dense(3)])
    learner = tfmeta.MatchingNetwork(encoder, full_context=True)
    with pytest.raises(ValueError, match="has no weights yet"):
        learner.with_batch_norm("support")


def test_with_batch_norm_builds_a_learner_whose_encoder_tells_no_shape():
    encoder = keras.Sequential([keras.layers.Dense(3)])
    learner = tfmeta.MatchingNetwork(encoder, full_context=True, processing_steps=1)
    x, y = np.random.default_rng(0).normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    expected = learner.adapt(x, y).predict(x, verbose=0)
    other = learner.with_batch_norm("support")
    np.testing.assert_allclose(other.adapt(x, y).predict(x, verbose=0), expected, rtol=1e-5)


# === Functions that learners keep ===


def test_adapting_to_ever_other_sizes_keeps_a_bounded_number_of_functions():
    from tfmeta.learners.meta_learner import MOST_PREDICT_FUNCTIONS

    encoder = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    learner = tfmeta.MatchingNetwork(encoder)
    models, expected = [], []
    for n in range(2, MOST_PREDICT_FUNCTIONS + 5):
        x, y = np.arange(4 * n, dtype="float32").reshape(n, 4), np.arange(n) % 2
        models.append(learner.adapt(x, y))
        expected.append(models[-1](x[:2]).numpy())
    assert len(learner._predict_functions) == MOST_PREDICT_FUNCTIONS
    x = np.arange(8, dtype="float32").reshape(2, 4)
    np.testing.assert_array_equal(models[0](x).numpy(), expected[0])  # It is made again.


# === Tasks of different ways ===


@pytest.mark.parametrize(
    "name",
    [
        *("prototypical_network", "relation_network"),
        pytest.param("matching_network", marks=pytest.mark.large),
    ],
)
def test_tasks_of_different_ways_in_one_meta_batch_are_what_they_are_alone(name):
    learner = made(name)
    rng = np.random.default_rng(0)
    x, queries = (rng.normal(size=(2, 6, 4)).astype("float32") for _ in range(2))
    y = np.array([[0, 1, 0, 1, 0, 1], [0, 1, 2, 0, 1, 2]])
    together = learner({"support_x": x, "support_y": y, "query_x": queries}).numpy()
    assert together.shape == (2, 6, 3)
    for task, n_way in enumerate((2, 3)):
        alone = {"support_x": x[[task]], "support_y": y[[task]], "query_x": queries[[task]]}
        np.testing.assert_allclose(
            together[task, :, :n_way], learner(alone).numpy()[0], rtol=1e-5, atol=1e-6
        )
    assert (together[0].argmax(axis=-1) < 2).all()
    learner.compile("sgd", learner.default_loss())
    assert np.isfinite(
        learner.train_on_batch({"support_x": x, "support_y": y, "query_x": queries}, y)
    )


# === Masks ===


@pytest.mark.parametrize("mask", ["support_mask", "query_mask"])
@pytest.mark.parametrize("shape", [(2, 3, 1), (2,), (2, 3, 4)])
@pytest.mark.parametrize("name", ["maml", "prototypical_network"])
def test_a_mask_has_two_axes(name, shape, mask):
    x = np.ones((2, 3, 4), "float32")
    inputs = {"support_x": x, "support_y": np.tile(np.arange(3), (2, 1)), "query_x": x}
    with pytest.raises(ValueError, match=f"{mask} must have two axes"):
        made(name)({**inputs, mask: np.ones(shape, "float32")})


# === Half precision ===


@pytest.mark.parametrize("name", ["prototypical_network", "matching_network"])
def test_missing_classes_and_padding_are_no_nan_in_float16(name):
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        learner = made(name, dtype="float16")
        x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float16")
        y = np.array([[0, 1, 0, 1, 0, 1], [0, 1, 2, 0, 1, 2]])
        inputs = {"support_x": x, "support_y": y, "query_x": x}
        mask = tf.constant([[1, 1, 1, 1, 0, 0], [1] * 6], tf.float16)
        predictions = learner({**inputs, "support_mask": mask}).numpy()
        assert np.isfinite(predictions).all()
        assert (predictions[0].argmax(axis=-1) < 2).all()
    finally:
        keras.config.set_floatx(before)
