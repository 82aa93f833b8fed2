"""Every learner through the one conformance harness, in every mode of batch norm."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import (
    DENSE,
    HEADS,
    MODES,
    N_WAY,
    Networks,
    dense_network_with_context,
    make_learner,
    most_are_large,
    plain_network,
)

import tfmeta
from tfmeta.testing import CHECKS, Case, checks, run
from tfmeta.testing.learner_runs import has_custom_training, is_transductive


def permute_outputs(learner, order):
    """Output units have n_way as their last axis: the head's weights, and their learning rates."""
    for variable in learner.variables:
        if tuple(variable.shape[-1:]) == (N_WAY,):
            variable.assign(variable.numpy()[..., order])


BY_UNIT = {"permute_outputs": permute_outputs}

# Of classifiers: three steps are enough for all but the Relation Network, which needs 15. Losses of
# regressors rise at first, so those take the default of `Case`.
TRAINING_STEPS = 6


def permute_draws(learner, order):
    """Permutes the output units and the random numbers of their weights."""
    permute_outputs(learner, order)
    draw = learner.draw

    def permuted(seed, n_samples):
        return [
            [tf.gather(e, order, axis=-1) if e.shape[-1] == N_WAY else e for e in sample]
            for sample in draw(seed, n_samples)
        ]

    learner.draw = permuted


# Each task of a training step has random numbers of its own.
DRAWS = {"random_training": True, "custom_training": True}
RANDOM = {**DRAWS, "permute_outputs": permute_draws}

# By the learner's name: its options here, and what its method promises.
CLASSIFIERS = {
    "maml": ({"inner_learning_rate": 0.3}, {**BY_UNIT}),
    "meta_sgd": ({"inner_learning_rate": 0.3}, {**BY_UNIT}),
    "maml_plus_plus": (
        {
            "inner_learning_rate": 0.3,
            "multi_step_loss_iterations": 2,
            "first_order_iterations": 1,
        },
        {**BY_UNIT, "custom_training": True},
    ),
    "meta_lstm": ({"inner_steps": 3}, {**BY_UNIT, "exact_gradient": False}),
    "meta_gan_maml": ({"inner_learning_rate": 0.3}, {**BY_UNIT, **DRAWS}),
    "meta_gan_relation_network": ({}, {**DRAWS, "training_steps": 30}),
    "reptile": (
        {"inner_steps": 4, "inner_batch_size": 4, "inner_rule": "adam"},
        {
            **BY_UNIT,
            "support_order_matters": True,
            "optimizer": lambda: keras.optimizers.SGD(1.0),
            "custom_training": True,
        },
    ),
    "anil": ({"inner_learning_rate": 0.3}, {**BY_UNIT}),
    "cavia": ({"inner_learning_rate": 1.0}, {}),
    "prototypical_network": ({}, {}),
    "matching_network": ({}, {}),
    "relation_network": ({}, {"training_steps": 30}),
    "leo": ({"inner_learning_rate": 2.0, "orthogonality_weight": 0.1, "l2_weight": 0.01}, {}),
    "logistic_head": ({}, {}),
    "cosine_prototypical_network": ({"initial_scale": 2.0}, {}),
    "fine_tuning": ({"initial_scale": 2.0}, {}),
    "simple_shot": ({}, {}),
    "baseline_plus_plus": ({}, {}),
    "mahalanobis_head": ({}, {}),
    "ridge_head": ({}, {}),
    "amortized_maml": (
        {"inner_learning_rate": 0.3, "kl_weight": 1e-3, "prior_weight": 1e-6},
        {**RANDOM, "training_steps": 15},
    ),
}

# Learners with options that are checked in one mode of batch norm.
VARIANTS = [
    Case(
        "MAML, learned momentum",
        lambda: make_learner("maml", DENSE, batch_norm="support", inner_rule="momentum"),
        transductive=False,
        custom_training=False,
        training_steps=TRAINING_STEPS,
        **BY_UNIT,
    ),
    Case(
        "Reptile, carried moments",
        lambda: make_learner(
            "reptile", DENSE, batch_norm="support", inner_rule="adam", carry_moments=True
        ),
        transductive=False,
        optimizer=lambda: keras.optimizers.SGD(1.0),
        custom_training=True,
        training_steps=TRAINING_STEPS,
        **BY_UNIT,
    ),
    Case(
        "Meta-LSTM, second order, in batches",
        lambda: tfmeta.MetaLSTM(
            plain_network(N_WAY),
            inner_steps=3,
            inner_batch_size=4,
            hidden_units=4,
            input_bias=(-1, 0),
            first_order=False,
        ),
        transductive=False,
        custom_training=False,
        training_steps=TRAINING_STEPS,
        support_order_matters=True,
        **BY_UNIT,
    ),
    Case(
        "Prototypical Network, cosine",
        lambda: make_learner(
            "prototypical_network", DENSE, distance="cosine", batch_norm="support"
        ),
        transductive=False,
        custom_training=False,
        training_steps=TRAINING_STEPS,
    ),
    Case(
        "Matching Network, full context",
        lambda: make_learner(
            "matching_network", DENSE, full_context=True, processing_steps=2, batch_norm="support"
        ),
        transductive=False,
        custom_training=False,
        training_steps=TRAINING_STEPS,
        support_order_matters=True,
    ),
]

# Without batch norm: ANIL and metric learners take `plain_network(6)` as an encoder.
REGRESSION = Networks(
    plain_network,
    lambda: plain_network(6),
    lambda: dense_network_with_context(1, batch_norm=False),
    n_way=1,
)
REGRESSORS = {
    "maml": ({"inner_loss": "mse"}, {}),
    "meta_sgd": ({"inner_loss": "mse"}, {}),
    "maml_plus_plus": ({"inner_loss": "mse"}, {"custom_training": True}),
    "anil": ({"inner_loss": "mse"}, {}),
    "cavia": ({"inner_loss": "mse", "inner_learning_rate": 0.2}, {}),
    "matching_network": ({}, {}),
    "meta_lstm": ({"input_bias": (-3, -2), "inner_loss": "mse"}, {"exact_gradient": False}),
    "relation_network": ({"n_targets": 1}, {"training_steps": 30}),
    "amortized_maml": (
        {"inner_loss": "mse", "prior_weight": 1e-6},
        {"custom_training": True, "random_training": True},
    ),
    "reptile": (
        {"inner_learning_rate": 0.05, "inner_steps": 5, "inner_loss": "mse"},
        {"custom_training": True, "optimizer": lambda: keras.optimizers.SGD(0.5)},
    ),
}

CASES = [
    *(
        Case(
            f"{name}, {mode}",
            lambda name=name, mode=mode: make_learner(
                name, DENSE, batch_norm=mode, **CLASSIFIERS[name][0]
            ),
            **{
                "transductive": mode == "transductive",
                "custom_training": False,
                "training_steps": TRAINING_STEPS,
                **promises,
            },
        )
        for name, (_, promises) in CLASSIFIERS.items()
        for mode in MODES
    ),
    *VARIANTS,
    *(
        Case(
            f"{name}, regression",
            lambda name=name: make_learner(name, REGRESSION, **REGRESSORS[name][0]),
            **{
                "n_way": None,
                "transductive": False,
                "custom_training": False,
                **promises,
            },
        )
        for name, (_, promises) in REGRESSORS.items()
    ),
]


LARGE = [pytest.mark.large]

# These checks run in one mode only. Most are of what no mode of batch norm affects. `task_order` is
# implied by `meta_batch_size`, which compares a step on all tasks with a mean, which has no order.
# Half precision, and that no variable changes outside of training, are checked in the mode that
# normalises by a batch, keeps its statistics and uses them.
IN_ONE_MODE = (
    "task_order",
    "support_order",
    "label_permutation",
    "call_changes_nothing",
    "keras_round_trip",
    "mixed_bfloat16",
    "learning",
    "bad_input",
)


def has_its_turn(case, check):
    return check not in IN_ONE_MODE or not case.name.endswith((", transductive", ", running"))


# These train, differentiate or trace a learner, which takes most of the time.
LONG = (
    "eager_equals_graph",
    "train_step_equals_default",
    "vectorized_equals_loop",
    "task_order",
    "meta_batch_size",
    "masking",
    "call_changes_nothing",
    "keras_round_trip",
    "adapted_model",
    "float64",
    "mixed_bfloat16",
    "learning",
)


# What the default tier checks of a head: of all, and of the one whose gradient is an implicit one.
OF_HEADS = {
    None: ("contract", "label_permutation"),
    "logistic_head": ("contract", "float64"),
    "ridge_head": ("contract", "masking"),
}

# Each step calls several networks, so the long checks take several times as long.
SEVERAL_NETWORKS = ("amortized_maml", "meta_gan_maml", "meta_gan_relation_network")


# The default tier's learners in the checks that trace most; test_task_mapping.py has more of one.
CHEAP = {
    "adapted_model": {
        ("anil", "running"),
        ("matching_network", "transductive"),
        ("maml", "support"),
    },
    "eager_equals_graph": {
        ("anil", "running"),
        ("matching_network", "transductive"),
        ("prototypical_network", "support"),
    },
    "masking": {
        ("anil", "running"),
        ("maml", "support"),
        ("prototypical_network", "transductive"),
        ("ridge_head", "support"),
    },
    "vectorized_equals_loop": {("anil", "running"), ("prototypical_network", "support")},
}


def tier(case, check):
    """Deals out the checks of a learner: the default tier has a share, the large one has the rest.

    Of a check, the default tier has one mode per learner; over the learners, it has all modes. Of a
    long check it has every third classifier, so that they are of different families; of a short
    check all classifiers, and every fourth of the other cases.
    """
    name, _, mode = case.name.partition(", ")
    if name in HEADS:  # Their equations have tests of their own.
        return [] if mode == "support" and check in OF_HEADS.get(name, OF_HEADS[None]) else LARGE
    if check in CHEAP:
        return [] if (name, mode) in CHEAP[check] else LARGE
    if name in SEVERAL_NETWORKS and check in LONG:
        return LARGE
    order = list(CHECKS).index(check)
    if mode not in MODES or name not in CLASSIFIERS:
        return LARGE if check in LONG or (CASES.index(case) + order) % 4 else []
    number = list(CLASSIFIERS).index(name)
    if check in LONG and (number + order) % 3:
        return LARGE
    its_mode = MODES[(number // 3 + order) % len(MODES)]
    return [] if check in IN_ONE_MODE or mode == its_mode else LARGE


@pytest.mark.parametrize(
    ("case", "check"),
    [
        pytest.param(c, check, id=f"{c.name}-{check}", marks=tier(c, check))
        for c in CASES
        for check in checks(c)
        if has_its_turn(c, check)
    ],
)
def test_learner_conforms(case, check):
    run(check, case)


@pytest.mark.parametrize(
    "name",
    most_are_large(list(CLASSIFIERS), {"anil", "maml", "prototypical_network", "relation_network"}),
)
def test_episodes_of_any_way_and_shot_are_what_they_are_without_padding(name):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(8), 6)
    x = (rng.normal(size=(8, 4))[y] + 0.3 * rng.normal(size=(48, 4))).astype("float32")
    episodes = tfmeta.data.load((x, y)).episodes(
        n_way=(2, N_WAY), n_shot=(1, 3), n_query=(1, 3), meta_batch_size=2, seed=3
    )
    keras.utils.set_random_seed(0)
    learner = make_learner(name, DENSE, batch_norm="transductive", **CLASSIFIERS[name][0])
    learner.compile("sgd", learner.default_loss(), run_eagerly=True)
    widths = set()
    for inputs, query_y, query_mask in episodes.take(4):
        padded = learner(inputs).numpy()
        for t in range(2):
            real, queries = (inputs[m][t].numpy() == 1 for m in ("support_mask", "query_mask"))
            n_way = int(np.max(inputs["support_y"][t][real])) + 1
            widths.add((n_way, real.sum()))
            episode = {
                "support_x": inputs["support_x"][t][real][None],
                "support_y": inputs["support_y"][t][real][None],
                "query_x": inputs["query_x"][t][queries][None],
            }
            alone = learner(episode).numpy()[0]
            np.testing.assert_allclose(
                padded[t][queries][:, :n_way], alone[:, :n_way], rtol=1e-4, atol=1e-5
            )
        assert np.isfinite(learner.train_on_batch(inputs, query_y, query_mask))
    assert len({n_way for n_way, _ in widths}) > 1
    assert len({size for _, size in widths}) > 2


def test_every_learner_is_here():
    assert set(CLASSIFIERS) == set(tfmeta.learners.BY_NAME)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_case_says_of_its_learner_is_true(case):
    # `transductive` may be said of a learner without batch norm, whose mode does nothing.
    looked_at = dataclasses.replace(case, transductive=None, custom_training=None)
    assert has_custom_training(looked_at) == case.custom_training
    assert is_transductive(looked_at) or not case.transductive


def test_collecting_the_checks_makes_no_learner(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a learner was made")

    monkeypatch.setattr(tfmeta.MetaLearner, "__init__", refuse)
    assert all(checks(dataclasses.replace(case)) for case in CASES)


def test_every_check_is_in_the_default_tier_in_every_mode():
    for check in set(CHECKS) - set(IN_ONE_MODE):
        modes = {
            case.name.partition(", ")[2]
            for case in CASES
            if check in checks(case) and case.name.endswith(MODES) and not tier(case, check)
        }
        assert modes >= {"support", "running"}, check
