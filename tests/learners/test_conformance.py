"""Every learner through the one conformance harness, in every mode of batch norm."""

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.testing import Case, checks, run

N_WAY = 3
MODES = ("transductive", "support", "running")


def network(n_outputs=N_WAY):
    return keras.Sequential([*encoder().layers, keras.layers.Dense(n_outputs)])


def encoder():
    return keras.Sequential(
        [
            keras.Input((4,)),
            # A bias would have no gradient but rounding, which Adam as inner rule blows up.
            keras.layers.Dense(8, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    )


def plain_network(n_outputs=1):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(n_outputs)]
    )


def network_with_context(n_outputs=N_WAY, batch_norm=True):
    """Its context is the weights of the last layer, so that it can solve any task there."""
    x, context = keras.Input((4,)), keras.Input((8 * n_outputs,))
    hidden = keras.layers.Dense(8, use_bias=False)(x)
    if batch_norm:
        hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Activation("tanh")(hidden)
    weights = keras.layers.Reshape((8, n_outputs))(context)
    return keras.Model([x, context], keras.layers.Dot(axes=1)([hidden, weights]))


def relation_module():
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def permute_outputs(learner, order):
    """The output units are what has n_way on its last axis: the head's weights, and their rates."""
    for variable in learner.variables:
        if tuple(variable.shape[-1:]) == (N_WAY,):
            variable.assign(variable.numpy()[..., order])


BY_UNIT = {"permute_outputs": permute_outputs}

# By name: what makes the learner with a mode of batch norm, and what the method promises.
CLASSIFIERS = {
    "maml": (lambda mode: tfmeta.MAML(network(), 0.3, 2, batch_norm=mode), BY_UNIT),
    "meta_sgd": (lambda mode: tfmeta.MetaSGD(network(), 0.3, 2, batch_norm=mode), BY_UNIT),
    "maml_plus_plus": (
        lambda mode: tfmeta.MAMLPlusPlus(
            network(),
            0.3,
            2,
            multi_step_loss_iterations=2,
            first_order_iterations=1,
            batch_norm=mode,
        ),
        BY_UNIT,
    ),
    "meta_lstm": (
        lambda mode: tfmeta.MetaLSTM(
            network(), 3, hidden_units=4, input_bias=(-1, 0), batch_norm=mode
        ),
        {**BY_UNIT, "exact_gradient": False},
    ),
    "reptile": (
        lambda mode: tfmeta.Reptile(
            network(), 0.1, 4, inner_batch_size=4, inner_rule="adam", batch_norm=mode
        ),
        {
            **BY_UNIT,
            "support_order_matters": True,
            "optimizer": lambda: keras.optimizers.SGD(1.0),
        },
    ),
    "anil": (lambda mode: tfmeta.ANIL(encoder(), N_WAY, 0.3, 2, batch_norm=mode), BY_UNIT),
    "cavia": (lambda mode: tfmeta.CAVIA(network_with_context(), 1.0, 2, batch_norm=mode), {}),
    "prototypical_network": (
        lambda mode: tfmeta.PrototypicalNetwork(encoder(), batch_norm=mode),
        {},
    ),
    "matching_network": (lambda mode: tfmeta.MatchingNetwork(encoder(), batch_norm=mode), {}),
    "relation_network": (
        lambda mode: tfmeta.RelationNetwork(encoder(), relation_module(), batch_norm=mode),
        {},
    ),
}

# Other ways of theirs, in one mode.
VARIANTS = [
    Case(
        "MAML, learned momentum",
        lambda: tfmeta.MAML(network(), 0.1, 2, batch_norm="support", inner_rule="momentum"),
        **BY_UNIT,
    ),
    Case(
        "Meta-LSTM, second order, in batches",
        lambda: tfmeta.MetaLSTM(
            plain_network(N_WAY),
            3,
            inner_batch_size=4,
            hidden_units=4,
            input_bias=(-1, 0),
            first_order=False,
        ),
        support_order_matters=True,
        **BY_UNIT,
    ),
    Case(
        "Prototypical Network, cosine",
        lambda: tfmeta.PrototypicalNetwork(encoder(), "cosine", batch_norm="support"),
    ),
    Case(
        "Matching Network, full context",
        lambda: tfmeta.MatchingNetwork(encoder(), True, 2, batch_norm="support"),
        support_order_matters=True,
    ),
]

REGRESSORS = {
    "MAML": lambda: tfmeta.MAML(plain_network(), 0.1, 2, inner_loss="mse"),
    "Meta-SGD": lambda: tfmeta.MetaSGD(plain_network(), 0.1, 2, inner_loss="mse"),
    "MAML++": lambda: tfmeta.MAMLPlusPlus(plain_network(), 0.1, 2, inner_loss="mse"),
    "ANIL": lambda: tfmeta.ANIL(plain_network(6), 1, 0.1, 2, inner_loss="mse"),
    "CAVIA": lambda: tfmeta.CAVIA(network_with_context(1, False), 0.2, 2, inner_loss="mse"),
    "Matching Network": lambda: tfmeta.MatchingNetwork(plain_network(6)),
    "Meta-LSTM": lambda: tfmeta.MetaLSTM(
        plain_network(), 2, hidden_units=4, input_bias=(-3, -2), inner_loss="mse"
    ),
    "Reptile": lambda: tfmeta.Reptile(plain_network(), 0.05, 5, inner_loss="mse"),
}

CASES = [
    *(
        Case(f"{name}, {mode}", lambda make=make, mode=mode: make(mode), **promises)
        for name, (make, promises) in CLASSIFIERS.items()
        for mode in MODES
    ),
    *VARIANTS,
    *(
        Case(
            f"{name}, regression",
            make,
            n_way=None,
            transductive=False,
            exact_gradient=name != "Meta-LSTM",
            optimizer=(lambda: keras.optimizers.SGD(0.5))
            if name == "Reptile"
            else (lambda: keras.optimizers.Adam(0.01)),
        )
        for name, make in REGRESSORS.items()
    ),
]


# What no mode of batch norm has a part in is checked in one of them. So is `task_order`, for
# `meta_batch_size` compares a step on all tasks with the mean of single ones, which has no order;
# and half precision, and that no variable changes outside of training, in the mode that normalises
# by a batch, keeps its statistics and uses them.
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


@pytest.mark.parametrize(
    ("case", "check"),
    [
        pytest.param(c, check, id=f"{c.name}-{check}")
        for c in CASES
        for check in checks(c)
        if has_its_turn(c, check)
    ],
)
def test_learner_conforms(case, check):
    run(check, case)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_episodes_of_any_way_and_shot_are_what_they_are_without_padding(name):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(8), 6)
    x = (rng.normal(size=(8, 4))[y] + 0.3 * rng.normal(size=(48, 4))).astype("float32")
    episodes = tfmeta.data.load((x, y)).episodes(
        n_way=(2, N_WAY), n_shot=(1, 3), n_query=(1, 3), meta_batch_size=2, seed=3
    )
    keras.utils.set_random_seed(0)
    learner = CLASSIFIERS[name][0]("transductive")
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
