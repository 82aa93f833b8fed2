"""How far the probabilities and variances of Amortized MAML can be trusted, beside MAML's.

python benchmarks/calibration/run.py waves FOLDER [--iterations 1000]
python benchmarks/calibration/run.py lines FOLDER [--iterations 1000]
python benchmarks/calibration/run.py digits FOLDER [--iterations 1000]
python benchmarks/calibration/run.py omniglot FOLDER --iterations 300 --seeds 0 1 2 --data-dir DIR

`waves` meta-trains both learners on the same sinusoids, 5 noisy support points each, and measures
likelihood and coverage of noisy queries, beside the exact posterior; `lines` does so on straight
lines, where the exact posterior is Bayesian linear regression. MAML has no variance: it gets the
one constant variance that is best on validation tasks. Learners that FOLDER has are not trained
again. `digits` meta-trains both on pairs of scikit-learn's digits, one shot each, with logistic
regression, and measures accuracy, likelihood and calibration error; also with the temperature that
is best on validation tasks. `omniglot` does the same with a Conv4 on characters, 5 ways and 1 shot,
for several seeds of weights and training tasks; the test tasks are the same. The results go to
results.json beside this file; `figure.py` draws them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import numpy as np
import tensorflow as tf
from tasks import LINE_NOISE, exact_lines, exact_waves, noisy_lines, noisy_waves

import tfmeta
from tfmeta import metrics

RESULTS = Path(__file__).with_name("results.json")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def trained(
    path: Path, make: Any, episodes: tf.data.Dataset, iterations: int, rate: float, seed: int = 0
) -> tuple[tfmeta.MetaLearner, float | None]:
    """The learner of a file, or one that is trained and written to it; and CPU minutes."""
    if path.exists():
        return keras.models.load_model(path), None
    keras.utils.set_random_seed(seed)
    learner = make()
    schedule = keras.optimizers.schedules.CosineDecay(rate, iterations)
    learner.compile(keras.optimizers.Adam(schedule, global_clipnorm=10.0))
    start = time.process_time()
    learner.fit(episodes, steps_per_epoch=iterations // 10, epochs=10, shuffle=False, verbose=2)
    minutes = (time.process_time() - start) / 60
    learner.save(path)
    return learner, minutes


def write(name: str, row: dict[str, Any]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {**results.get(name, {}), **row}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(name, json.dumps({k: v for k, v in row.items() if not isinstance(v, list | dict)}))


# === Regression ===


def waves(folder: Path, iterations: int, options: dict[str, Any]) -> None:
    # Of so small a network, all tasks at once are faster on a CPU, too.
    steps = {"inner_steps": 3, "inner_loss": "mse", "task_mapping": "vectorized"}
    makers = {
        "maml": lambda: tfmeta.MAML(tfmeta.backbones.mlp(), 0.01, **steps),
        "amortized_maml": lambda: tfmeta.AmortizedMAML(
            tfmeta.backbones.mlp(),
            **{
                # With noise of scale 1, −log p is half the squared error: MAML's step of the means.
                **{"inner_learning_rate": 0.02, "samples": 3, "test_samples": 10},
                **{"kl_weight": 0.1, "learn_noise_scale": True, **steps, **options},
            },
        ),
    }
    regression("waves", noisy_waves, exact_waves, makers, folder, iterations, 1e-3)


def lines(folder: Path, iterations: int, options: dict[str, Any]) -> None:
    steps = {"inner_steps": 10, "inner_loss": "mse", "task_mapping": "vectorized"}
    steps["inner_rule"] = "per_parameter"  # The steps of log σ need rates of their own.
    makers = {
        "maml": lambda: tfmeta.MAML(tfmeta.backbones.linear(1, (1,)), 0.1, **steps),
        "amortized_maml": lambda: tfmeta.AmortizedMAML(
            tfmeta.backbones.linear(1, (1,)),
            **{
                **{"inner_learning_rate": 0.05, "samples": 4, "test_samples": 30},
                **{"kl_weight": 1.0, "initial_log_sigma": (-1.0, -1.0), "prior_weight": 1e-4},
                **{"noise_scale": LINE_NOISE, **steps, **options},
            },
        ),
    }
    regression("lines", noisy_lines, exact_lines, makers, folder, iterations, 1e-2)


def regression(
    what: str,
    episodes: Any,
    exact: Any,
    makers: dict[str, Any],
    folder: Path,
    iterations: int,
    rate: float,
) -> None:
    train = episodes(5, 10, 16, seed=0)
    validation = list(episodes(5, 100, 50, seed=1).take(4))
    test = list(episodes(5, 100, 50, seed=2).take(20))
    targets = [np.asarray(y) for _, y in test]
    # How far queries are from the middle of the support points.
    far = [np.abs(x["query_x"] - np.mean(x["support_x"], axis=1, keepdims=True)) for x, _ in test]
    distances = np.concatenate(far)
    for name, make in makers.items():
        learner, minutes = trained(folder / f"{what}_{name}.keras", make, train, iterations, rate)
        predict = tf.function(
            learner.predict_distribution if name == "amortized_maml" else learner, autograph=False
        )
        if name == "maml":
            variance = float(np.mean([np.mean((predict(x) - y) ** 2) for x, y in validation]))
            predictions = [(p, np.full_like(p, variance)) for p in (predict(x) for x, _ in test)]
        else:
            predictions = [predict(x) for x, _ in test]
        row = measured(targets, predictions, distances)
        if minutes is not None:
            row["cpu_minutes"], row["iterations"] = minutes, iterations
        write(f"{what}_{name}", row)
        if what == "lines" and name == "amortized_maml":
            write("lines_small_steps", measured(targets, small_steps(learner, test), distances))
    predictions = []
    for x, _ in test:
        tasks = [
            exact(*(np.asarray(x[k][t], "float64") for k in ("support_x", "support_y", "query_x")))
            for t in range(len(x["query_x"]))
        ]
        predictions.append(tuple(np.stack([task[i] for task in tasks]) for i in (0, 1)))
    write(f"{what}_exact", measured(targets, predictions, distances))


def small_steps(learner: tfmeta.AmortizedMAML, test: list[Any]) -> list[Any]:
    """What the same prior predicts after four times as many steps, a quarter as large."""
    learner.test_inner_steps, learner.samples = 4 * learner.test_inner_steps, 8
    for rates in learner.inner_rule.trainable_variables:
        rates.assign(rates / 4)
    learner.task_mapping = "loop"
    predict = tf.function(learner.predict_distribution, autograph=False)
    return [predict(x) for x, _ in test]


def measured(
    targets: list[np.ndarray], predictions: list[Any], distances: np.ndarray
) -> dict[str, Any]:
    """Likelihood, error and coverage; ± is the 95 % confidence interval over tasks."""
    y = np.concatenate(targets)
    mean, variance = (np.concatenate([np.asarray(p[i]) for p in predictions]) for i in (0, 1))
    nll = (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance).mean(axis=(1, 2)) / 2
    row: dict[str, Any] = {"n_tasks": len(y), "mean_sigma": float(np.sqrt(variance).mean())}
    for name, values in (("nll", nll), ("mse", ((y - mean) ** 2).mean(axis=(1, 2)))):
        row[name] = float(values.mean())
        row[f"{name}_ci95"] = float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))
    row["coverage"] = {}
    for level in LEVELS:
        metric = metrics.IntervalCoverage(level)
        metric.update_state(y, (mean, variance))
        row["coverage"][str(level)] = float(metric.result())
    row["coverage_95"] = row["coverage"]["0.95"]
    # In five parts, by the distance from the support points.
    limits = np.quantile(distances, np.linspace(0, 1, 6))
    row["by_distance"] = []
    for low, high in itertools.pairwise(limits):
        part = (distances >= low) & (distances <= high)
        metric = metrics.IntervalCoverage()
        metric.update_state(y[part], (mean[part], variance[part]))
        row["by_distance"].append([float(distances[part].mean()), float(metric.result())])
    return row


# === Classification ===


def digits(folder: Path, iterations: int, options: dict[str, Any]) -> None:
    def episodes(split: str, n_query: int, n_tasks: int, seed: int) -> tf.data.Dataset:
        source = tfmeta.data.load("digits", split=split)
        return source.episodes(
            n_way=2, n_shot=1, n_query=n_query, meta_batch_size=n_tasks, seed=seed
        )

    steps = {"inner_steps": 5, "inner_learning_rate": 0.5, "task_mapping": "vectorized"}
    makers = {
        "maml": lambda: tfmeta.MAML(tfmeta.backbones.linear(2, (8, 8, 1)), **steps),
        "amortized_maml": lambda: tfmeta.AmortizedMAML(
            tfmeta.backbones.linear(2, (8, 8, 1)),
            **{
                **{"samples": 4, "test_samples": 30, "kl_weight": 0.001, "prior_weight": 1e-4},
                **steps,
                **options,
            },
        ),
    }
    train = episodes("train", 5, 16, seed=0)
    validation = list(episodes("validation", 15, 50, seed=1).take(4))
    test = list(episodes("test", 15, 50, seed=2).take(20))
    for name, make in makers.items():
        learner, minutes = trained(folder / f"digits_{name}.keras", make, train, iterations, 1e-2)
        row = measured_classes(learner, validation, test)
        if minutes is not None:
            row["cpu_minutes"], row["iterations"] = minutes, iterations
        write(f"digits_{name}", row)


def omniglot(
    folder: Path,
    iterations: int,
    options: dict[str, Any],
    seeds: list[int],
    names: list[str],
    data_dir: str | None,
) -> None:
    def episodes(split: str, n_query: int, n_tasks: int, seed: int) -> tf.data.Dataset:
        source = tfmeta.data.load("omniglot", protocol="random1200", split=split, data_dir=data_dir)
        return source.episodes(
            n_way=5, n_shot=1, n_query=n_query, meta_batch_size=n_tasks, seed=seed
        )

    def conv4() -> keras.Model:
        return tfmeta.backbones.conv4(5, (28, 28, 1), filters=32)

    steps = {"inner_steps": 1, "test_inner_steps": 3, "inner_learning_rate": 0.4}
    makers = {
        "maml": lambda seed: tfmeta.MAML(conv4(), **steps),
        "amortized_maml": lambda seed: tfmeta.AmortizedMAML(
            conv4(),
            **{
                **{"samples": 2, "test_samples": 10, "kl_weight": 1e-3, "prior_weight": 1e-5},
                **{"seed": seed, **steps, **options},
            },
        ),
    }
    validation = list(episodes("validation", 10, 20, seed=101).take(5))
    test = list(episodes("test", 10, 20, seed=102).take(10))
    for name, seed in itertools.product(names, seeds):
        learner, minutes = trained(
            folder / f"omniglot_{name}_{seed}.keras",
            lambda name=name, seed=seed: makers[name](seed),
            episodes("train", 5, 8, seed=seed),
            iterations,
            2e-3,
            seed,
        )
        row = measured_classes(learner, validation, test)
        if minutes is not None:
            row["cpu_minutes"], row["iterations"] = minutes, iterations
        write(f"omniglot_{name}_{seed}", row)


def measured_classes(
    learner: tfmeta.MetaLearner, validation: list[Any], test: list[Any]
) -> dict[str, Any]:
    """What the test's predictions are worth; also with the validation's best temperature."""
    learner.task_mapping = "loop"
    predict = tf.function(lambda x: learner(x, training=False), autograph=False)
    labels, labels_before = (np.concatenate([e[1] for e in part]) for part in (test, validation))
    logits, before = (
        np.concatenate([predict(e[0]) for e in part]).astype("float64")
        for part in (test, validation)
    )
    row = classified(labels, logits)
    factors = np.exp(np.linspace(-2, 2, 81))
    best = min(factors, key=lambda f: classified(labels_before, f * before)["nll"])
    row["factor"] = float(best)
    row["scaled"] = classified(labels, best * logits)
    of_validation = classified(labels_before, before)
    row["validation"] = {k: v for k, v in of_validation.items() if k != "bins"}
    return row


def classified(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    log_p = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    log_p -= logits.max(-1, keepdims=True)
    metric = metrics.ExpectedCalibrationError()
    metric.update_state(labels, logits)
    accuracy = (logits.argmax(-1) == labels).mean(axis=1)
    nll = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0].mean(axis=1)
    row: dict[str, Any] = {"ece": float(metric.result()), "n_tasks": len(labels)}
    for name, values in (("accuracy", accuracy), ("nll", nll)):
        row[name] = float(values.mean())
        row[f"{name}_ci95"] = float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))
    row["bins"] = [
        [float(v) for v in np.asarray(part)]
        for part in (metric.weights_of_bins, metric.confidences, metric.hits)
    ]
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["waves", "lines", "digits", "omniglot"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--options", type=json.loads, default={}, help="of AmortizedMAML, as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of omniglot")
    parser.add_argument(
        "--names", nargs="+", default=["maml", "amortized_maml"], help="of omniglot"
    )
    parser.add_argument("--data-dir", help="where TensorFlow Datasets has omniglot")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    RESULTS = arguments.results
    arguments.folder.mkdir(parents=True, exist_ok=True)
    given = arguments.folder, arguments.iterations, arguments.options
    if arguments.what == "omniglot":
        omniglot(*given, arguments.seeds, arguments.names, arguments.data_dir)
    else:
        {"waves": waves, "lines": lines, "digits": digits}[arguments.what](*given)
