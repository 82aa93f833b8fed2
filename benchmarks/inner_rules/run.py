"""What meta-learned hyper-parameters of inner steps are worth on sinusoids, and what they become.

python benchmarks/inner_rules/run.py [--steps 3000] [--rules sgd schedule] [--figure FILE.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras

import tfmeta
from tfmeta import plots

INNER_STEPS = 5
RULES: dict[str, Any] = {
    "sgd": "sgd",
    "momentum": {"name": "momentum", "momentum": 0.0},
    "per_layer_per_step": "per_layer_per_step",
    "schedule": "schedule",
    "schedule, from momentum 0.5": {"name": "schedule", "momentum": 0.5},
}


def meta_trained(rule: Any, steps: int) -> tfmeta.MAML:
    """Meta-trains MAML on sinusoids with an inner rule, each from the same start."""
    keras.utils.set_random_seed(0)
    learner = tfmeta.MAML(
        tfmeta.backbones.mlp(),
        inner_learning_rate=0.01,
        inner_steps=INNER_STEPS,
        inner_loss="mse",
        inner_rule=rule,
        task_mapping="vectorized",
    )
    learner.compile(keras.optimizers.Adam(1e-3), "mse")
    episodes = tfmeta.data.load("sinusoid").episodes(n_shot=10, n_query=10, seed=0)
    learner.fit(episodes, steps_per_epoch=steps, shuffle=False, verbose=2)
    return learner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 25 tasks")
    parser.add_argument("--episodes", type=int, default=1000, help="test tasks")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--figure", type=Path, help="the PNG file to write")
    options = parser.parse_args()

    test = tfmeta.data.load("sinusoid").episodes(n_shot=10, n_query=100, seed=2_000_000)
    learners, rows = {}, []
    for name in options.rules:
        try:
            learner = learners[name] = meta_trained(RULES[name], options.steps)
        except ValueError as error:  # It diverged, which is a result, too.
            rows.append(f"| {name} | {str(error).split(',')[0]} |")
            print(rows[-1], flush=True)
            continue
        result = tfmeta.evaluate(learner, test, options.episodes)
        mse = result.estimate
        rows.append(f"| {name} | {mse.mean:.4f} ± {mse.ci95:.4f} |")
        print(rows[-1], flush=True)
        if isinstance(learner.inner_rule, tfmeta.inner_rules.Schedule):
            for variable in learner.inner_rule.trainable_variables:
                print(f"  {variable.name}: {variable.numpy().round(4).tolist()}", flush=True)
    print("\n| inner rule | MSE after 5 steps |\n| --- | --- |")
    print("\n".join(rows))
    if options.figure:
        schedules = {name: learners[name] for name in learners if name.startswith("schedule")}
        plots.inner_schedules(schedules, options.figure)


if __name__ == "__main__":
    main()
