"""An oracle for KerasTuner that starts from what was observed on past tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmeta.checks import check_integer, check_one_of
from tfmeta.tuning.deep_kernel import DeepKernel
from tfmeta.tuning.first_configurations import METHODS, first_configurations
from tfmeta.tuning.past_task import PastTask
from tfmeta.tuning.proposals import propose
from tfmeta.tuning.search_space import Range, SearchSpace

try:
    import keras_tuner
except ImportError as error:
    raise ImportError(
        "tfmeta.tuning.WarmStartOracle and tfmeta.tuning.tune need KerasTuner: pip install "
        '"tfmeta[tuning]".'
    ) from error

# Random trials before the first proposal, if there are no past tasks.
N_RANDOM = 3
# Candidates for a proposal: some from all over the space, some near the best ones.
N_CANDIDATES, N_NEAR, NEAR = 2000, 500, 0.1


class WarmStartOracle(keras_tuner.Oracle):
    """Chooses the trials of any tuner of KerasTuner, with a warm start.

    The first trials are those that serve the past tasks best. Then a `DeepKernel`, meta-learned on
    the past tasks, proposes configurations by their expected improvement. Without past tasks, three
    random trials come first, and then the proposals of a plain Gaussian process.

    It saves and reloads like other oracles, with the tuner; make it with the same arguments then.
    It needs `pip install tfmeta[tuning]`.

    Args:
        objective: str or keras_tuner.Objective. What to optimise, such as "val_accuracy".
        space: SearchSpace. The hyper-parameters. The function that builds the model gets their
            values by `hp.get(name)`.
        past: sequence of (configurations, values). For each past task, what was tried, as dicts,
            and the values of the objective. Defaults to none.
        max_trials: int ≥ 1. Trials in all. Defaults to 20.
        n_first: int ≥ 0. Trials from the past tasks. Defaults to 5.
        method: str. How those are chosen: `"portfolio"` or `"learned"`; see
            `first_configurations`. Defaults to "portfolio".
        meta_steps: int ≥ 1. Steps of `DeepKernel.meta_fit`. Defaults to 1500.
        seed: int. Of all that is random. Defaults to 0.
        **kwargs: Other arguments of `keras_tuner.Oracle`.

    Raises:
        ImportError: If KerasTuner is missing.
        ValueError: If an option or a past task does not fit.

    Example:

    >>> import tempfile, keras, keras_tuner
    >>> space = SearchSpace({"learning_rate": Range(0.001, 1.0, log=True), "units": [4, 8]})
    >>> past = [([{"learning_rate": 0.1, "units": 8}, {"learning_rate": 1.0, "units": 4}],
    ...          [0.9, 0.4])]
    >>> oracle = WarmStartOracle("val_accuracy", space, past=past, max_trials=5, meta_steps=5)
    >>> def build(hp):
    ...     layers = [keras.layers.Dense(hp.get("units"), "relu"), keras.layers.Dense(3)]
    ...     model = keras.Sequential([keras.Input((2,)), *layers])
    ...     model.compile(keras.optimizers.SGD(hp.get("learning_rate")), "mse", ["accuracy"])
    ...     return model
    >>> tuner = keras_tuner.Tuner(oracle, build, directory=tempfile.mkdtemp())
    """

    def __init__(
        self,
        objective: Any,
        space: SearchSpace,
        *,
        past: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[float]]] = (),
        max_trials: int = 20,
        n_first: int = 5,
        method: str = "portfolio",
        meta_steps: int = 1500,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_integer("max_trials", max_trials, 1)
        check_integer("n_first", n_first, 0)
        check_integer("meta_steps", meta_steps, 1)
        check_one_of("method", method, METHODS)
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=_hyperparameters(space),
            allow_new_entries=False,
            tune_new_entries=False,
            # KerasTuner takes 0 for no seed.
            seed=seed + 1,
            **kwargs,
        )
        self.space = space
        self.n_first = n_first
        self.method = method
        self.meta_steps = meta_steps
        self.start_seed = seed
        self.past = [
            PastTask(space.encode(configurations), self._signed(values))
            for configurations, values in past
        ]
        for task in self.past:
            task.check()
        self._model: DeepKernel | None = None
        self._first: np.ndarray | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Chooses the values of a trial; KerasTuner calls it.

        Args:
            trial_id: str. The trial.

        Returns:
            dict with `status` and `values`.
        """
        values = self._next_values()
        status = keras_tuner.engine.trial.TrialStatus
        if values is None:
            return {"status": status.STOPPED, "values": None}
        return {"status": status.RUNNING, "values": values}

    def _next_values(self) -> dict[str, Any] | None:
        """Returns what to try next; None if the space is exhausted."""
        if self.past:
            for values in self.space.decode(self._first_points()):
                if not self._duplicate(values):
                    return values
        observed = self._observed()
        n_least = 1 if self.past else N_RANDOM
        if observed is None or len(observed.scores) < n_least:
            return self._random_values()
        candidates = self._candidates(observed)
        if not candidates:
            return None
        points = self.space.encode(candidates)
        row = propose(self._fitted(observed).posterior_of(observed), observed, points)
        return candidates[row]

    def _first_points(self) -> np.ndarray:
        """Returns the points to begin with; learns them at the first call."""
        if self._first is None:
            self._first = np.empty((0, self.space.n_inputs))
            if self.n_first:
                self._first = first_configurations(
                    self._learned(),
                    self.past,
                    self.n_first,
                    method=self.method,
                    seed=self.start_seed,
                )
        return self._first

    def _learned(self) -> DeepKernel:
        """Returns the model of the past tasks; without any, that of a plain Gaussian process."""
        if self._model is None and self.past:
            self._model = DeepKernel(self.space.n_inputs, seed=self.start_seed)
            self._model.meta_fit(self.past, steps=self.meta_steps, seed=self.start_seed)
        elif self._model is None:
            self._model = DeepKernel(self.space.n_inputs, hidden_units=())
            self._model.log_scale.assign(0.0)
        return self._model

    def _fitted(self, observed: PastTask) -> DeepKernel:
        """Returns the model of the new task."""
        model = self._learned()
        if self.past:
            return model.fine_tuned(observed)
        model.unit.assign(float(np.std(observed.scores)) or 1.0)
        return model.fine_tuned(observed, learning_rate=0.05)

    def _observed(self) -> PastTask | None:
        """Returns the finished trials. Those that run or failed count as the worst."""
        trials = [self.trials[i] for i in self.start_order]
        scores = [trial.score if trial.status == "COMPLETED" else None for trial in trials]
        finite = [s for s in scores if s is not None and np.isfinite(s)]
        if not finite:
            return None
        signed = self._signed(finite)
        worst = float(signed.min())
        values = [{k: t.hyperparameters.values[k] for k in self.space.parameters} for t in trials]
        all_scores = [
            float(self._signed([s])[0]) if s is not None and np.isfinite(s) else worst
            for s in scores
        ]
        return PastTask(self.space.encode(values), np.array(all_scores))

    def _candidates(self, observed: PastTask) -> list[dict[str, Any]]:
        """Returns configurations that were not tried, all over the space and near the best."""
        generator = np.random.default_rng([self.start_seed, len(observed.scores)])
        best = observed.points[observed.scores.argsort()[-3:]]
        centres = best[generator.integers(len(best), size=N_NEAR)]
        near = self.space.decode(centres + NEAR * generator.normal(size=centres.shape))
        drawn = [*self.space.sample(N_CANDIDATES, generator), *near]
        return [values for values in drawn if not self._duplicate(values)]

    def _signed(self, values: Sequence[float]) -> np.ndarray:
        """Returns values of the objective as scores, of which higher ones are better."""
        sign = -1.0 if self.objective.direction == "min" else 1.0
        return sign * np.asarray(values, float)


def _hyperparameters(space: SearchSpace) -> Any:
    """Returns the space as KerasTuner knows it."""
    made = keras_tuner.HyperParameters()
    for name, allowed in space.parameters.items():
        if not isinstance(allowed, Range):
            made.Choice(name, list(allowed))
        else:
            make = made.Int if allowed.integer else made.Float
            make(name, allowed.low, allowed.high, sampling="log" if allowed.log else "linear")
    return made
