"""MAML with TRPO, and ProMP: what an iteration does, files, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmeta import rl
from tfmeta.rl import surrogates
from tfmeta.rl.conjugate_gradient import flatten, unflatten
from tfmeta.rl.policies import call_policies

LEARNERS = {"MAMLTRPO": rl.MAMLTRPO, "ProMP": rl.ProMP}


def make(name, hidden_units=(4,), **options):
    keras.utils.set_random_seed(0)
    policy = rl.gaussian_policy(2, 2, hidden_units=hidden_units, activation="tanh")
    settings = {
        "n_trajectories": 3,
        "meta_batch_size": 4,
        "jit_compile": False,
        "inner_rule": "per_parameter",
    }
    if name == "MAMLTRPO":
        settings |= {"cg_iterations": 3}
    return LEARNERS[name](policy, rl.Navigation2D(horizon=6), 0.2, **{**settings, **options})


def values(learner):
    return [keras.ops.convert_to_numpy(v) for v in learner.variables]


@pytest.fixture(scope="module")
def pro_mp(tmp_path_factory):
    """A learner after three iterations, and the folder of its checkpoint after two."""
    folder = tmp_path_factory.mktemp("run")
    learner = make("ProMP")
    learner.fit(2, folder=folder, verbose=0)
    learner.fit(3, verbose=0)
    return learner, folder


@pytest.fixture(scope="module")
def maml():
    """A learner after two iterations."""
    learner = make("MAMLTRPO")
    learner.fit(2, verbose=0)
    return learner


@pytest.fixture
def learner(request):
    found = request.getfixturevalue(request.param)
    return found[0] if isinstance(found, tuple) else found


BOTH = pytest.mark.parametrize("learner", ["maml", "pro_mp"], indirect=True)


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(pro_mp):
    whole, folder = pro_mp
    resumed = make("ProMP")
    # Nothing is saved before the tenth iteration, unless it is the last: the file stays as it was.
    content = (folder / "checkpoint.npz").read_bytes()
    resumed.fit(3, folder=folder, verbose=0)
    (folder / "checkpoint.npz").write_bytes(content)
    assert resumed.history == whole.history
    assert len(whole.history) == 3
    for a, b in zip(values(whole), values(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


@BOTH
def test_an_iteration_gains_and_changes_all_that_is_learned(learner):
    start = values(make(type(learner).__name__))
    n_learned = len(learner.trainable_variables)
    assert n_learned == 10
    for before, after in zip(start[:n_learned], values(learner)[:n_learned], strict=True):
        assert (before != after).any()
    row = learner.history[-1]
    assert row["gain"] > 0
    assert row["kl"] <= 0.01 or isinstance(learner, rl.ProMP)


def test_adapting_evaluates_and_returns_a_policy(pro_mp):
    whole, _ = pro_mp
    goals = [[0.3, 0.2], [-0.1, 0.4], [0.0, -0.5], [0.1, 0.1]]
    returns = whole.evaluate(goals, n_trajectories=3)
    assert returns.shape == (3, 4)
    np.testing.assert_array_equal(returns, whole.evaluate(goals, n_trajectories=3))
    adapted = whole.adapt(goals[0], n_trajectories=3)
    assert isinstance(adapted, keras.Model)
    x = np.ones([1, 2], "float32")
    assert (adapted.predict(x, verbose=0) != whole.policy.predict(x, verbose=0)).any()


def test_a_checkpoint_of_another_learner_or_broken_is_refused(pro_mp, tmp_path):
    _, folder = pro_mp
    with pytest.raises(ValueError, match="of another learner: meta_batch_size 4, not 5"):
        make("ProMP", meta_batch_size=5).fit(4, folder=folder, verbose=0)
    with pytest.raises(ValueError, match="of another policy or inner rule"):
        make("ProMP", hidden_units=(5,)).fit(4, folder=folder, verbose=0)
    other = make("ProMP")
    other.history = [{"return_0": -1.0}]
    with pytest.raises(ValueError, match="of another run"):
        other.fit(4, folder=folder, verbose=0)
    content = (folder / "checkpoint.npz").read_bytes()
    (tmp_path / "checkpoint.npz").write_bytes(content[:-40])
    with pytest.raises(ValueError, match="truncated or altered"):
        make("ProMP").fit(4, folder=tmp_path, verbose=0)


def test_the_fisher_product_is_that_of_the_jacobian(maml):
    learner = maml
    collect = learner._collector(0)
    weights, memory = learner.start(4)
    batch = collect(weights, 0)
    after, _ = learner.inner_step(weights, memory, batch, 0)
    batches = [batch, collect(after, 1)]
    vector = tf.random.stateless_normal([sum(v.size for v in values(learner)[:10])], [0, 1])
    # F v = mean of Jᵀ M J v, with M = diag(1/σ², 2) of mean and log σ of each step, and J v by
    # differences.
    variables = learner.trainable_variables
    start = [tf.identity(v.value) for v in variables]

    def outputs_at(scale):
        for variable, value, part in zip(variables, start, unflatten(vector, start), strict=True):
            variable.assign(value + scale * part)
        adapted = learner.adapted(batches[:1])[-1]
        return call_policies(learner.policy, adapted, batches[1].trajectories.observations)

    along = (outputs_at(1e-2) - outputs_at(-1e-2)) / 2e-2
    with tf.GradientTape() as tape:
        outputs = outputs_at(0.0)
    precision = tf.exp(-2 * outputs[..., 2:])
    metric = tf.concat([precision, tf.fill(precision.shape, 2.0)], axis=-1)
    mask = batches[1].trajectories.mask
    weights = mask / tf.reduce_sum(mask, axis=[1, 2], keepdims=True) / mask.shape[0]
    expected = tape.gradient(
        outputs,
        [v.value for v in variables],
        output_gradients=weights[..., None] * metric * along,
    )
    expected = flatten(expected).numpy()
    found = learner._fisher_product(batches, vector)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.large
def test_all_tasks_at_once_and_one_by_one_give_the_same_gradient(maml):
    learner = maml
    collect = learner._collector(0)
    weights, memory = learner.start(4)
    batch = collect(weights, 0)
    after, _ = learner.inner_step_by_task(weights, memory, batch, 0, 1.0)
    together, _ = learner.inner_step(weights, memory, batch, 0)
    for a, b in zip(after, together, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    batches = [batch, collect(after, 1)]
    gain, gradient = learner._gain_and_gradient(batches)
    variables = [v.value for v in learner.trainable_variables]
    with tf.GradientTape() as tape:
        adapted = learner.adapted(batches[:1])[-1]
        outputs = call_policies(learner.policy, adapted, batches[1].trajectories.observations)
        expected = tf.reduce_mean(surrogates.ratio(outputs, *batches[1]))
    np.testing.assert_allclose(gain, expected, atol=1e-6)
    np.testing.assert_allclose(
        gradient, flatten(tape.gradient(expected, variables)), rtol=1e-3, atol=1e-5
    )


@pytest.mark.large
@pytest.mark.parametrize("name", list(LEARNERS))
def test_xla_changes_nothing(name):
    plain, compiled = make(name), make(name, jit_compile=True)
    for learner in (plain, compiled):
        learner.fit(1, verbose=0)
    for a, b in zip(values(plain), values(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_penalty_of_promp_follows_the_divergence(pro_mp):
    learner, _ = pro_mp
    assert learner._next_kl_weight(0.5, 1e3) == 0.5
    target = make("ProMP", target_kl=0.03)
    assert [target._next_kl_weight(0.5, kl) for kl in (0.019, 0.021, 0.044, 0.046)] == [
        *(0.25, 0.5, 0.5, 1.0),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_surrogate": "dice"}, "inner_surrogate must be one of ratio, log_probability"),
        ({"discount": 1.5}, r"discount must be in \[0, 1\]; got 1.5"),
        ({"inner_steps": 0}, "inner_steps must be an integer ≥ 1"),
        ({"max_kl": 0}, "max_kl must be > 0"),
        ({"fisher_trajectories": 0}, "fisher_trajectories must be an integer ≥ 1"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make("MAMLTRPO", **options)


def test_policies_and_environments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"from observations \[N, 2\].*is one from \(None, 3\)"):
        rl.ProMP(rl.gaussian_policy(3, 2), rl.Navigation2D())
    with pytest.raises(ValueError, match=r"must be a keras\.Model"):
        rl.ProMP(lambda x: x, rl.Navigation2D())
    with pytest.raises(ValueError, match=r"must be a tfmeta\.rl\.Environment; got str"):
        rl.ProMP(rl.gaussian_policy(2, 2), "navigation")
    normalised = keras.Sequential(
        [keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(4)]
    )
    with pytest.raises(ValueError, match="no batch normalisation"):
        rl.ProMP(normalised, rl.Navigation2D())


def test_a_divergence_is_told(pro_mp):
    learner, _ = pro_mp
    before = values(learner)
    for variable in learner.policy.trainable_variables:
        variable.assign(variable * np.nan)
    with pytest.raises(ValueError, match="Meta-training diverged"):
        learner.fit(4, verbose=0)
    assert len(learner.history) == 3
    for variable, value in zip(learner.variables, before, strict=True):
        variable.assign(value)


def test_policies_are_saved_and_loaded(tmp_path):
    policy = rl.gaussian_policy(3, 2, hidden_units=(4,), initial_std=0.5)
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    x = np.ones([5, 3], "float32")
    outputs = policy.predict(x, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), outputs)
    np.testing.assert_allclose(outputs[:, 2:], np.log(0.5), rtol=1e-6)
