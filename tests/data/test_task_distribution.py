"""Invariants of the distributions of regression tasks, sinusoids and lines among them."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr, spearmanr

from tfmeta.data import TaskDistribution, load

# The seeds are fixed, so that a test of a distribution cannot flake: sound draws pass for ever,
# and it took a p-value below this to fail.
P = 1e-3
N_TASKS = 2000


def draw(name: str, n_meta_batches: int = 1, **options: Any) -> dict[str, np.ndarray]:
    """Tasks of a distribution, joined over meta-batches."""
    elements = []
    for inputs, query_y, *weights in load(name).episodes(**options).take(n_meta_batches):
        named = {"query_y": query_y, **({"weights": weights[0]} if weights else {})}
        elements.append({k: v.numpy() for k, v in {**inputs, **named}.items()})
    return {k: np.concatenate([e[k] for e in elements]) for k in elements[0]}


@pytest.fixture(scope="module")
def sinusoids() -> dict[str, np.ndarray]:
    return draw("sinusoid", n_shot=5, n_query=10, meta_batch_size=N_TASKS)


@pytest.fixture(scope="module")
def lines() -> dict[str, np.ndarray]:
    return draw("linear", n_shot=50, n_query=10, meta_batch_size=N_TASKS)


def assert_uniform(values: np.ndarray, low: float, high: float, rounding: float = 1e-4) -> None:
    """Uniform, from end to end: none of n draws is in the outermost 20 / n with p = e^-20."""
    margin = 20 / len(values) * (high - low)
    assert low - rounding <= values.min() < low + margin
    assert high - margin < values.max() <= high + rounding
    assert kstest(values, "uniform", (low, high - low)).pvalue > P


def fit(basis: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares per task: coefficients `[tasks, 2]` and residuals `[tasks, points]`."""
    design = np.stack([b[..., 0] for b in basis(x.astype(np.float64))], axis=-1)
    coefficients = np.stack(
        [np.linalg.lstsq(d, t[:, 0], rcond=None)[0] for d, t in zip(design, y, strict=True)]
    )
    return coefficients, y[..., 0] - (design @ coefficients[..., None])[..., 0]


def sine_basis(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sin(x), np.cos(x)


def line_basis(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x, np.ones_like(x)


def amplitude_and_phase(e: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits each task to its support and queries together; also returns the residuals."""
    x, y = (np.concatenate([e[f"support_{v}"], e[f"query_{v}"]], axis=1) for v in "xy")
    # A sin(x - p) = A cos(p) sin(x) - A sin(p) cos(x)
    coefficients, residuals = fit(sine_basis, x, y)
    return np.hypot(*coefficients.T), np.arctan2(-coefficients[:, 1], coefficients[:, 0]), residuals


# === Sinusoids ===


def test_support_and_queries_lie_on_one_sine(sinusoids: dict[str, np.ndarray]) -> None:
    *_, residuals = amplitude_and_phase(sinusoids)
    # Float32 gives 5 (1 + 5 + 5) 2^-24 = 3e-6 for the argument's and the product's rounding.
    assert np.abs(residuals).max() < 2e-5


def test_amplitudes_are_uniform_from_a_tenth_to_five(sinusoids: dict[str, np.ndarray]) -> None:
    amplitude, *_ = amplitude_and_phase(sinusoids)
    assert_uniform(amplitude, 0.1, 5)


def test_phases_are_uniform_from_zero_to_pi(sinusoids: dict[str, np.ndarray]) -> None:
    _, phase, _ = amplitude_and_phase(sinusoids)
    # Rounding: the residuals' bound over the smallest amplitude.
    assert_uniform(phase, 0, np.pi, rounding=2e-4)


def test_amplitude_and_phase_are_independent(sinusoids: dict[str, np.ndarray]) -> None:
    amplitude, phase, _ = amplitude_and_phase(sinusoids)
    assert spearmanr(amplitude, phase).pvalue > P
    assert spearmanr(amplitude[:-1], amplitude[1:]).pvalue > P, "nor do successive tasks depend"


def test_inputs_are_uniform_from_minus_five_to_five(
    sinusoids: dict[str, np.ndarray], lines: dict[str, np.ndarray]
) -> None:
    for e in (sinusoids, lines):
        for part in ("support_x", "query_x"):
            assert_uniform(e[part].ravel(), -5, 5, rounding=0)


def test_all_inputs_of_a_task_differ(sinusoids: dict[str, np.ndarray]) -> None:
    x = np.concatenate([sinusoids["support_x"], sinusoids["query_x"]], axis=1)[:100, :, 0]
    assert all(len(np.unique(task)) == 15 for task in x)


# === Lines ===


def test_queries_lie_exactly_on_a_line(lines: dict[str, np.ndarray]) -> None:
    coefficients, residuals = fit(line_basis, lines["query_x"], lines["query_y"])
    # Values reach 35; the product and the sum each round to half a unit of at most 2^-18.
    assert np.abs(residuals).max() < 2e-5
    slope, intercept = coefficients.T
    assert_uniform(slope, -5, 5)
    assert_uniform(intercept, -10, 10)
    assert spearmanr(slope, intercept).pvalue > P


def test_support_targets_carry_noise_of_three_tenths(lines: dict[str, np.ndarray]) -> None:
    coefficients, _ = fit(line_basis, lines["query_x"], lines["query_y"])
    slope, intercept = coefficients.T
    noise = lines["support_y"][..., 0] - (
        slope[:, None] * lines["support_x"][..., 0] + intercept[:, None]
    )
    # Three standard errors, s / sqrt(2 n) of the deviation and s / sqrt(n) of the mean.
    assert abs(noise.std() - 0.3) < 3 * 0.3 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 3 * 0.3 / np.sqrt(noise.size)
    assert kstest(noise.ravel(), "norm", (0, 0.3)).pvalue > P
    assert pearsonr(noise[:, 0], noise[:, 1]).pvalue > P, "each point has its own"


# === Shapes, ranges, options ===


@pytest.mark.parametrize("name", ["sinusoid", "linear"])
def test_shapes_and_types(name: str) -> None:
    e = draw(name, n_shot=3, n_query=4, meta_batch_size=2)
    assert {k: v.shape for k, v in e.items()} == {
        "support_x": (2, 3, 1),
        "support_y": (2, 3, 1),
        "query_x": (2, 4, 1),
        "query_y": (2, 4, 1),
    }
    assert {v.dtype for v in e.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["sinusoid", "linear"])
def test_ranged_tasks_are_masked(name: str) -> None:
    ranges = {"n_shot": (2, 4), "n_query": (1, 3), "meta_batch_size": 2}
    e = draw(name, 60, **ranges, seed=5)
    assert {k: v.shape[1:] for k, v in e.items()} == {
        "support_x": (4, 1),
        "support_y": (4, 1),
        "support_mask": (4,),
        "query_x": (3, 1),
        "query_y": (3, 1),
        "query_mask": (3,),
        "weights": (3,),
    }
    np.testing.assert_array_equal(e["weights"], e["query_mask"])
    for part, sizes in (("support", {2, 3, 4}), ("query", {1, 2, 3})):
        mask = e[f"{part}_mask"]
        assert set(np.unique(mask)) == {0, 1}
        assert (np.diff(mask, axis=1) <= 0).all(), "padding is at the end"
        assert set(mask.sum(axis=1)) == sizes, "all sizes occur"
        np.testing.assert_array_equal(mask[::2], mask[1::2], "one draw per meta-batch")
        for values in (e[f"{part}_x"], e[f"{part}_y"]):
            np.testing.assert_array_equal(values[..., 0] != 0, mask == 1)


def test_ranged_sinusoids_lie_on_a_sine() -> None:
    e = draw("sinusoid", 20, n_shot=(2, 4), n_query=(1, 3), meta_batch_size=1)
    # Padding fits any task: at x = 0 its row is (0, 1) and would say that y(0) = 0, so drop it.
    for i in range(20):
        x, y = (
            np.concatenate([e[f"{p}_{v}"][i][e[f"{p}_mask"][i] == 1] for p in ("support", "query")])
            for v in "xy"
        )
        _, residuals = fit(sine_basis, x[None], y[None])
        assert np.abs(residuals).max() < 2e-5


def test_distributions_say_what_they_are() -> None:
    data = load("sinusoid")
    assert isinstance(data, TaskDistribution)
    assert data.source == {"name": "sinusoid"}
    assert "sinusoid" in repr(data)


def test_distributions_have_no_options() -> None:
    with pytest.raises(ValueError, match=r"'linear' data takes the options none; got \['split'\]"):
        load("linear", split="test")
