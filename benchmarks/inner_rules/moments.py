"""Reptile with Adam in the inner loop: moments that start anew, and moments that are carried.

python benchmarks/inner_rules/moments.py [--steps 2000] [--meta-batch-size 1] [--seed 0]
"""

from __future__ import annotations

import argparse

import keras

import tfmeta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--meta-batch-size", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.005, 0.01, 0.02])
    parser.add_argument("--episodes", type=int, default=500, help="test tasks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    data = tfmeta.data.load("sinusoid")
    test = data.episodes(n_shot=10, n_query=100, seed=2_000_000)
    print("| inner learning rate | carry_moments | MSE |\n| --- | --- | --- |")
    for rate in options.rates:
        for carry in (False, True):
            keras.utils.set_random_seed(options.seed)
            learner = tfmeta.Reptile(
                tfmeta.backbones.mlp(),
                inner_learning_rate=rate,
                inner_steps=10,
                test_inner_steps=20,
                inner_loss="mse",
                inner_rule="adam",
                carry_moments=carry,
            )
            learner.compile(keras.optimizers.SGD(0.1), "mse")
            episodes = data.episodes(
                n_shot=20, n_query=1, meta_batch_size=options.meta_batch_size, seed=options.seed
            )
            learner.fit(episodes, steps_per_epoch=options.steps, shuffle=False, verbose=0)
            mse = tfmeta.evaluate(learner, test, options.episodes).estimate
            print(f"| {rate} | {carry} | {mse.mean:.3f} ± {mse.ci95:.3f} |", flush=True)


if __name__ == "__main__":
    main()
