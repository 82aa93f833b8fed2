"""Meta-trains a policy for 2-D navigation, and tests it on the 40 published goals.

    python benchmarks/rl/navigation.py runs/navigation --iterations 160
    python benchmarks/rl/navigation.py runs/navigation_promp --learner ProMP --iterations 300

A command, repeated, goes on from the last checkpoint. The test is the published one of MAML:
4,000 steps per policy-gradient step, whose size is 0.5 first and then 0.25 (for ProMP 0.1, then
0.05). MAML's policy is tested with σ raised to 0.4, or its second step overshoots; see
docs/algorithms.md. `log.jsonl` in the folder gets a line per test: iterations, CPU seconds, and the
returns after 0, 1, … steps with 95 % confidence intervals. `whole` are the returns if each step has
40 whole trajectories instead. `policy.keras` is the trained policy, `tested.keras` the tested one.
To test a policy again: `--start policy.keras --iterations 0`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmeta import rl

LEARNERS: dict[str, Any] = {"MAMLTRPO": rl.MAMLTRPO, "ProMP": rl.ProMP}

# The Fisher matrix is computed from few trajectories, for speed; the rest is as published.
OPTIONS: dict[str, dict[str, Any]] = {
    "MAMLTRPO": {"inner_learning_rate": 0.5, "fisher_trajectories": 5},
    "ProMP": {"inner_learning_rate": 0.1},
}
POLICIES: dict[str, dict[str, Any]] = {
    "MAMLTRPO": {"hidden_units": (100, 100), "activation": "relu"},
    "ProMP": {"hidden_units": (64, 64), "activation": "tanh"},
}
# The size of the first policy-gradient step in the test; later ones are half as large.
TEST_RATES = {"MAMLTRPO": 0.5, "ProMP": 0.1}
# What σ is raised to before the test; chosen on 40 other goals than the test's.
TEST_STDS = {"MAMLTRPO": 0.4, "ProMP": 0.0}


def make_learner(
    name: str, seed: int, start: Path | None, policy_options: dict[str, Any], **options: Any
) -> rl.PolicyLearner:
    """Returns a learner with a new policy or a saved one; what is given replaces the settings."""
    keras.utils.set_random_seed(seed)
    if start is None:
        policy = rl.gaussian_policy(2, 2, **{**POLICIES[name], **policy_options})
    else:
        policy = keras.models.load_model(start)
    learner: rl.PolicyLearner = LEARNERS[name](
        policy, rl.Navigation2D(), seed=seed, **{**OPTIONS[name], **options}
    )
    return learner


def raise_std(policy: keras.Model, trained: keras.Model, std: float) -> None:
    """Gives a policy the weights of a trained one, but σ of at least `std`."""
    policy.set_weights(trained.get_weights())
    log_std = policy.get_layer("std").log_std
    log_std.assign(np.log(np.maximum(np.exp(log_std.numpy()), std)))


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Returns those of the arguments that were given."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def with_interval(returns: np.ndarray) -> list[tuple[float, float]]:
    """Returns mean over tasks and half the 95 % interval, for each number of steps."""
    half = 1.96 * returns.std(axis=1, ddof=1) / np.sqrt(returns.shape[1])
    return [
        (round(float(m), 2), round(float(h), 2))
        for m, h in zip(returns.mean(axis=1), half, strict=True)
    ]


def cpu_seconds(log: Path) -> float:
    """Returns the CPU seconds that a run had taken when it was last tested."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return float(json.loads(lines[-1])["cpu_seconds"]) if lines else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--learner", choices=sorted(OPTIONS), default="MAMLTRPO")
    parser.add_argument("--start", type=Path, help="a policy to go on from, in a new folder")
    parser.add_argument("--iterations", type=int, default=160)
    parser.add_argument("--test-every", type=int, default=20)
    parser.add_argument("--inner-learning-rate", type=float)
    parser.add_argument("--test-rate", type=float)
    parser.add_argument("--test-std", type=float, help="what σ is raised to before the test")
    parser.add_argument("--min-std", type=float)
    parser.add_argument("--fisher-trajectories", type=int)
    parser.add_argument("--inner-surrogate", choices=("log_probability", "ratio"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    learner = make_learner(
        arguments.learner,
        arguments.seed,
        arguments.start,
        given(arguments, "min_std"),
        **given(arguments, "inner_learning_rate", "inner_surrogate", "fisher_trajectories"),
    )
    rate = TEST_RATES[arguments.learner] if arguments.test_rate is None else arguments.test_rate
    std = TEST_STDS[arguments.learner] if arguments.test_std is None else arguments.test_std
    tester = LEARNERS[arguments.learner](
        keras.models.clone_model(learner.policy), learner.environment, rate, seed=arguments.seed
    )
    goals = learner.environment.published_tasks()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    log = arguments.folder / "log.jsonl"
    before = cpu_seconds(log) - time.process_time()
    iteration = -1
    while iteration < arguments.iterations:
        # With a checkpoint, this goes on from it.
        learner.fit(
            max(iteration, len(learner.history)), folder=arguments.folder, save_every=5, verbose=0
        )
        iteration = min(
            arguments.iterations,
            (len(learner.history) // arguments.test_every + 1) * arguments.test_every,
        )
        learner.fit(iteration, folder=arguments.folder, save_every=5, verbose=2)
        used = before + time.process_time()
        raise_std(tester.policy, learner.policy, std)
        line = {
            "learner": arguments.learner,
            "iteration": iteration,
            "cpu_seconds": round(used, 1),
            "returns": with_interval(tester.evaluate(goals, inner_steps=3, n_steps=4000)),
            "whole": with_interval(tester.evaluate(goals, inner_steps=3)),
        }
        print(json.dumps(line), flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    learner.policy.save(arguments.folder / "policy.keras")
    tester.policy.save(arguments.folder / "tested.keras")


if __name__ == "__main__":
    main()
