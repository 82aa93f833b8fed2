"""The surrogate that is meta-learned over tasks."""

import keras
import numpy as np
import pytest

from tfmeta.tuning import DeepKernel, PastTask, propose
from tfmeta.tuning.first_configurations import first_configurations
from tfmeta.tuning.past_losses import past_losses

RNG = np.random.default_rng(0)


def scores(points, best):
    """High on a ridge, where only the first coordinate counts."""
    return 0.9 - np.abs(points[:, 0] - best)


PAST = [
    PastTask(points, scores(points, best))
    for best in (0.3, 0.4, 0.5, 0.6)
    for points in [RNG.uniform(size=(40, 2))]
]
TRIED = np.array([[0.1, 0.9], [0.3, 0.5], [0.5, 0.1], [0.8, 0.2]])
NEW = PastTask(TRIED, scores(TRIED, 0.45))
GRID = RNG.uniform(size=(200, 2))


@pytest.fixture(scope="module")
def learned():
    model = DeepKernel(2, hidden_units=(16, 16))
    start = PAST[0].points, (PAST[0].scores - PAST[0].scores.mean()) / 0.5
    model.likelihood_before = float(model.log_likelihood(*start))
    model.meta_fit(PAST, steps=300, learning_rate=5e-3)
    model.likelihood_after = float(model.log_likelihood(*start))
    return model


def test_meta_learning_transfers(learned):
    assert learned.likelihood_after > learned.likelihood_before + 10
    truth = scores(GRID, 0.45)
    errors = {}
    for name, model in (("learned", learned), ("new", DeepKernel(2, hidden_units=()))):
        mean, _ = model.posterior_of(NEW)(GRID)
        errors[name] = float(np.abs(mean - truth).mean())
    assert errors["learned"] < 0.7 * errors["new"], errors


def test_a_proposal_is_new_and_the_learned_one_is_good(learned):
    observed, losses = NEW, past_losses(learned, PAST)
    for _ in range(3):
        row = propose(
            learned.posterior_of(observed),
            observed,
            GRID,
            losses=losses,
            unit=float(learned.unit),
        )
        assert tuple(GRID[row]) not in {tuple(point) for point in observed.points}
        observed = PastTask(
            np.vstack([observed.points, GRID[row]]),
            np.append(observed.scores, scores(GRID[row : row + 1], 0.45)),
        )
    assert observed.scores.max() > 0.87


def test_the_first_configurations_serve_the_past_tasks(learned):
    for method in ("portfolio", "learned"):
        points = first_configurations(learned, PAST, 2, method=method)
        best = np.max([scores(points, b)[:, None] for b in (0.3, 0.4, 0.5, 0.6)], axis=1)
        assert points.shape == (2, 2)
        assert best.mean() > 0.8, method


def test_it_is_saved_and_restored(learned, tmp_path):
    learned.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(
        learned.posterior_of(NEW)(GRID), restored.posterior_of(NEW)(GRID), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.large
def test_a_seed_fixes_the_result():
    def predicted(seed):
        model = DeepKernel(2, hidden_units=(4,), seed=seed)
        model.meta_fit(PAST, steps=3, seed=seed)
        return model.posterior_of(NEW)(GRID)[0].numpy()

    np.testing.assert_array_equal(predicted(1), predicted(1))


def test_fine_tuning_raises_the_likelihood_of_a_copy(learned):
    unit = float(learned.unit)
    centred = (NEW.scores - NEW.scores.mean()) / unit
    weights = learned.get_weights()
    before = float(learned.log_likelihood(NEW.points, centred))
    copy = learned.fine_tuned(NEW, steps=20)
    after = float(copy.log_likelihood(NEW.points, centred))
    assert after > before
    # Nothing of one task stays for the next.
    again = learned.fine_tuned(NEW, steps=20)
    assert float(again.log_likelihood(NEW.points, centred)) == after
    for weight, kept in zip(learned.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_tasks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one past task; got none"):
        DeepKernel(2).meta_fit([])
    with pytest.raises(ValueError, match="Points must have 3 coordinates; a task has 2"):
        DeepKernel(3).posterior_of(NEW)
    flat = PastTask(GRID, np.ones(len(GRID)))
    with pytest.raises(ValueError, match="nothing to learn"):
        DeepKernel(2).meta_fit([flat])
