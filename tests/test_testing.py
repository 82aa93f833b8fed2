"""The conformance harness passes right learners and catches wrong ones."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta import MetaLearner
from tfmeta.testing import CHECKS, Case, checks, run
from tfmeta.testing.episodes import make_episodes
from tfmeta.testing.learner_runs import first_predictions, first_trained_weights


def network(n_outputs=3, batch_norm=True):
    layers = [keras.Input((4,)), keras.layers.Dense(8)]
    layers += [keras.layers.BatchNormalization()] if batch_norm else []
    return keras.Sequential([*layers, keras.layers.ReLU(), keras.layers.Dense(n_outputs)])


def permute_last_layer(learner, order):
    for variable in learner.network.layers[-1].variables:
        variable.assign(variable.numpy()[..., order])


def maml(name, inner_steps=2, **options):
    return Case(
        name,
        lambda: tfmeta.MAML(network(), inner_learning_rate=0.5, inner_steps=inner_steps, **options),
        permute_outputs=permute_last_layer,
        exact_gradient=not options.get("first_order"),
        training_steps=60,
    )


@keras.saving.register_keras_serializable("test_testing")
class Prototypes(MetaLearner):
    """A user's own learner. It tells apart as many classes as the support set has."""

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder

    def embed(self, x, training):
        return tf.cast(self.encoder(x, training=training), self.variable_dtype)

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        labels = tf.cast(support_y, tf.int32)
        if n_way is None:
            n_way = tf.reduce_max(labels) + 1
        members = tf.one_hot(labels, n_way, axis=0, dtype=self.variable_dtype)
        if support_mask is not None:
            members *= tf.cast(support_mask, members.dtype)
        members /= tf.reduce_sum(members, axis=1, keepdims=True)
        return {"prototypes": members @ self.embed(support_x, training)}

    def predict_task(self, state, query_x, query_mask=None, training=False):
        difference = self.embed(query_x, training)[:, None] - state["prototypes"]
        return -tf.reduce_sum(difference**2, axis=-1)

    def get_config(self):
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def prototypes(learner=Prototypes, **options):
    return Case(learner.__name__, lambda: learner(network(6, batch_norm=False)), **options)


TRANSDUCTIVE = maml("transductive MAML")
REGRESSION = Case(
    "MAML for regression",
    lambda: tfmeta.MAML(
        network(1, batch_norm=False), inner_learning_rate=0.1, inner_steps=2, inner_loss="mse"
    ),
    n_way=None,
    transductive=False,
)
USERS = prototypes(training_steps=20, transductive=False, custom_training=False)


# All of our own learners are in learners/test_conformance.py, in the default tier for these checks.
LONG = (
    *("eager_equals_graph", "adapted_model", "task_order", "mixed_bfloat16", "learning"),
    *("train_step_equals_default", "keras_round_trip"),
)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check,
            marks=[pytest.mark.large] if check in LONG else [],
        )
        for check in checks(USERS)
    ],
)
def test_a_right_learner_of_a_user_passes(check):
    policy = keras.config.floatx(), keras.config.dtype_policy().name
    run(check, USERS)
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == policy


@pytest.mark.parametrize("check", ["contract", pytest.param("float64", marks=pytest.mark.large)])
def test_a_first_order_learner_that_says_so_passes(check):
    run(check, maml("first-order MAML", inner_steps=1, first_order=True, batch_norm="support"))


@pytest.mark.parametrize(
    "reduction", ["sum", pytest.param("mean_with_sample_weight", marks=pytest.mark.large)]
)
@pytest.mark.parametrize("check", ["meta_batch_size", "masking", "float64"])
def test_the_loss_may_be_reduced_otherwise(check, reduction):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    run(check, prototypes(loss=loss))


def test_the_checks_that_apply_are_those_of_the_method():
    every = set(CHECKS)
    assert every - set(checks(TRANSDUCTIVE)) == {"other_queries"}
    assert every - set(checks(REGRESSION)) == {"label_permutation"}
    assert every - set(checks(prototypes(support_order_matters=True))) == {"support_order"}
    assert every - set(checks(prototypes(HalfStep))) == {"train_step_equals_default"}
    # What a case says goes before what its learner is.
    assert every - set(checks(prototypes(transductive=True))) == {"other_queries"}
    assert every - set(checks(prototypes(custom_training=True))) == {"train_step_equals_default"}


@pytest.fixture
def counted():
    """A case, and a list that grows whenever it makes a learner."""
    made = []

    def make():
        made.append(1)
        return Prototypes(network(6, batch_norm=False))

    return Case("counted", make), made


def test_a_case_is_looked_at_once_and_only_if_it_does_not_say_what_it_is(counted):
    case, made = counted
    checks(dataclasses.replace(case, transductive=False, custom_training=False))
    assert len(made) == 0
    assert checks(case) == checks(case)
    assert len(made) == 1


def test_checks_share_results_of_the_same_precision_which_none_can_change(counted, float64):
    case, made = counted
    in_float64 = first_predictions(case)
    assert first_predictions(case) is in_float64
    (first, *_), n_made = first_trained_weights(case), len(made)
    first_trained_weights(case)
    assert len(made) == n_made == 2
    for array in (in_float64, first):
        with pytest.raises(ValueError, match="read-only"):
            array += 1
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    assert in_float64.dtype == "float64"
    assert first_predictions(case).dtype == "float32"
    assert first_predictions(dataclasses.replace(case)) is not first_predictions(case)


# === Wrong learners ===


def register(learner):
    return keras.saving.register_keras_serializable("test_testing")(learner)


@register
class IgnoresTheSupportSet(Prototypes):
    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        return {"prototypes": self.embed(tf.eye(3, 4), training)}


@register
class IgnoresTheLabels(Prototypes):
    """It guesses classes from the positions of examples, which must not betray them."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        labels = tf.cumsum(tf.ones_like(support_y)) % 3
        return super().adapt_task(support_x, labels, support_mask, training, n_way)


class Counting(Prototypes):
    def __init__(self, encoder, **kwargs):
        super().__init__(encoder, **kwargs)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)


@register
class CountsCalls(Counting):
    def call(self, inputs, training=False):
        self.count.assign_add(1.0)
        return super().call(inputs, training=training)


@register
class CountsAdaptations(Counting):
    """`call` discards what `adapt_task` assigns, but `adapt` does not."""

    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        self.count.assign_add(1.0)
        return super().adapt_task(support_x, support_y, support_mask, training, n_way)


@register
class PrefersTheFirst(Prototypes):
    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        state = super().adapt_task(support_x, support_y, support_mask, training, n_way)
        return {"prototypes": state["prototypes"] + 0.1 * self.embed(support_x[:1], training)}


@register
class IgnoresTheMask(Prototypes):
    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        return super().adapt_task(support_x, support_y, None, training, n_way)


@register
class TakesPaddingToBeLast(Prototypes):
    def adapt_task(self, support_x, support_y, support_mask=None, training=False, n_way=None):
        if support_mask is not None:
            support_mask = tf.sort(support_mask, direction="DESCENDING")
        return super().adapt_task(support_x, support_y, support_mask, training, n_way)


class Scaled(Prototypes):
    def __init__(self, encoder, scale=0.3, **kwargs):
        super().__init__(encoder, **kwargs)
        self.scale = scale


@register
class ForgetsAnOption(Scaled):
    """`scale` is not in its config."""

    def predict_task(self, state, query_x, query_mask=None, training=False):
        return self.scale * super().predict_task(state, query_x, query_mask, training)


@register
class ForgetsAnOptionOfTraining(Scaled):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        scale = self.scale if training else 1.0
        return scale * super().predict_task(state, query_x, query_mask, training)


@register
class MixesTasks(Prototypes):
    def call(self, inputs, training=False):
        predictions = super().call(inputs, training=training)
        return predictions + 0.1 * tf.reduce_mean(predictions, axis=0, keepdims=True)


@register
class PrefersTheFirstTask(Prototypes):
    def call(self, inputs, training=False):
        predictions = super().call(inputs, training=training)
        return predictions + 0.1 * predictions[:1]


@register
class NormalisesOverQueries(Prototypes):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        logits = super().predict_task(state, query_x, query_mask, training)
        return logits - tf.reduce_mean(logits, axis=0)


@register
class PrefersTheFirstQuery(Prototypes):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        logits = super().predict_task(state, query_x, query_mask, training)
        return logits + 0.1 * logits[:1]


@register
class PrefersAClass(Prototypes):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        logits = super().predict_task(state, query_x, query_mask, training)
        return logits + tf.constant([0.1, 0.0, 0.0], logits.dtype)


@register
class HalfStep(Prototypes):
    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        sample_weight = tf.ones(tf.shape(y)[:2]) if sample_weight is None else sample_weight
        return super().train_step((x, y, 0.5 * sample_weight))


@register
class Unlearns(Prototypes):
    def train_step(self, data):
        x, y = data
        return super().train_step((x, y, -tf.ones(tf.shape(y))))


@register
class SumsTasks(Prototypes):
    """It replaces a private hook, and neither `train_step` nor `task_gradients`."""

    def _task_weights(self, n_tasks, sample_weight):
        return tf.ones([n_tasks], keras.config.floatx())


@register
class StopsAGradient(Prototypes):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        state = tf.nest.map_structure(tf.stop_gradient, state)
        return super().predict_task(state, query_x, query_mask, training)


@register
class Float32Only(Prototypes):
    def embed(self, x, training):
        return tf.cast(self.encoder(x, training=training), tf.float32)


@register
class CannotMix(Prototypes):
    def embed(self, x, training):
        return self.encoder(x, training=training)


@register
class TraceTimeBranch(Prototypes):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        logits = super().predict_task(state, query_x, query_mask, training)
        return logits if tf.executing_eagerly() else 1.1 * logits


@register
class ProbabilitiesOfOne(Prototypes):
    def predict_task(self, state, query_x, query_mask=None, training=False):
        return super().predict_task(state, query_x, query_mask, training)[:, :1]


@register
class SharesItsEncoder(Prototypes):
    def variables_of_predict(self):
        return []


@register
class AdaptsToAnything(Prototypes):
    def adapt(self, support_x, support_y, class_names=None):
        return super().adapt(np.nan_to_num(support_x), support_y, class_names)


WRONG = [
    (IgnoresTheSupportSet, "learning", "does not tell the learner from one that ignores"),
    (IgnoresTheLabels, "learning", "does not tell the learner from one that ignores"),
    (Unlearns, "learning", "does not lower the loss"),
    (CountsCalls, "call_changes_nothing", "call changes"),
    (CountsAdaptations, "call_changes_nothing", "adapt changes"),
    (PrefersTheFirst, "support_order", "predictions depend on the order of the support set"),
    (IgnoresTheMask, "masking", "padding at the end changes predictions"),
    (TakesPaddingToBeLast, "masking", "padding in between changes predictions"),
    (ForgetsAnOption, "keras_round_trip", "the loaded learner predicts differently"),
    (ForgetsAnOptionOfTraining, "keras_round_trip", "the loaded learner trains on differently"),
    (MixesTasks, "meta_batch_size", "is predicted differently beside other tasks"),
    (PrefersTheFirstTask, "task_order", "predictions depend on the order of the tasks"),
    (NormalisesOverQueries, "other_queries", "depends on the queries beside it"),
    (NormalisesOverQueries, "adapted_model", "a query among a thousand"),
    (NormalisesOverQueries, "masking", "padding at the end changes predictions"),
    (PrefersTheFirstQuery, "query_order", "predictions depend on the order of the queries"),
    (PrefersAClass, "label_permutation", "logits are not permuted with the labels"),
    (HalfStep, "train_step_equals_default", "without sample weights"),
    (SumsTasks, "train_step_equals_default", "without sample weights"),
    (SumsTasks, "meta_batch_size", "is not the mean of single ones"),
    (StopsAGradient, "float64", "does not follow the gradient of the loss"),
    (Float32Only, "float64", "Error"),
    (CannotMix, "mixed_bfloat16", "Error"),
    (TraceTimeBranch, "eager_equals_graph", "call differs in a graph"),
    (ProbabilitiesOfOne, "contract", r"shape \(2, 9, 1\), not \(2, 9, 3\)"),
    (SharesItsEncoder, "adapted_model", "training the learner on changes the adapted model"),
    (AdaptsToAnything, "bad_input", "NaN: no error was raised"),
]


@pytest.mark.parametrize(
    ("learner", "check", "message"),
    [
        pytest.param(
            *wrong,
            id=f"{wrong[0].__name__}-{wrong[1]}",
            # The same message as for the labels, after longer training.
            marks=[pytest.mark.large] if wrong[0] is IgnoresTheSupportSet else [],
        )
        for wrong in WRONG
    ],
)
def test_wrong_learners_are_caught(learner, check, message):
    options = {"scale": 0.5} if issubclass(learner, Scaled) else {}
    case = Case(learner.__name__, lambda: learner(network(6, batch_norm=False), **options))
    with pytest.raises(AssertionError, match=f"(?s){learner.__name__} fails '{check}'.*{message}"):
        run(check, case)


def test_a_first_order_learner_does_not_pass_as_an_exact_one():
    first_order = maml("first order", first_order=True)
    claims_more = Case("claims more", first_order.make)
    with pytest.raises(AssertionError, match="does not follow the gradient of the loss"):
        run("float64", claims_more)


def test_output_units_must_be_permuted_with_the_labels():
    with pytest.raises(AssertionError, match="logits are not permuted"):
        run("label_permutation", Case("MAML", TRANSDUCTIVE.make))


def test_tasks_that_betray_their_labels_do_not_show_learning(monkeypatch):
    def betrayed(*args, **options):
        inputs, query_y = episodes(*args, **options)
        inputs["query_x"][..., :3] += 5 * np.eye(3, dtype="float32")[query_y]
        return inputs, query_y

    episodes = make_episodes
    for module in ("episodes", "learning"):
        monkeypatch.setattr(f"tfmeta.testing.{module}.make_episodes", betrayed)
    with pytest.raises(AssertionError, match="with unrelated support labels"):
        run("learning", prototypes(IgnoresTheSupportSet, training_steps=30))


# === Bad input ===


def test_an_unknown_check_and_a_wrong_case_are_refused():
    with pytest.raises(ValueError, match=r"check must be one of .*'contract'.*; got 'contrakt'"):
        run("contrakt", prototypes())
    with pytest.raises(ValueError, match="n_shot must be ≥ 1; got 0"):
        prototypes(n_shot=0)
    with pytest.raises(ValueError, match="n_way must be ≥ 2"):
        prototypes(n_way=1)
    with pytest.raises(TypeError, match="make must return a MetaLearner; got Sequential"):
        checks(Case("a network", network))
