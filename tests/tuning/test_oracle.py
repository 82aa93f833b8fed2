"""KerasTuner with a warm start."""

import builtins
import sys

import keras
import numpy as np
import pytest

from tfmeta import tuning
from tfmeta.tuning import Range, SearchSpace

keras_tuner = pytest.importorskip("keras_tuner", reason="the extra tfmeta[tuning] is not installed")

SPACE = SearchSpace(
    {"rate": Range(1e-3, 1.0, log=True), "units": [2, 4, 8], "activation": ["relu", "tanh"]}
)
RNG = np.random.default_rng(0)
TRIED = SPACE.sample(12, RNG)
# On past tasks, a rate of 0.03 is best.
PAST = [
    (TRIED, [-abs(np.log10(values["rate"]) - best) for values in TRIED]) for best in (-1.5, -1.4)
]
X = RNG.normal(size=(16, 2))
Y = X.sum(axis=1, keepdims=True)


def build(hp):
    hidden = keras.layers.Dense(hp.get("units"), hp.get("activation"))
    model = keras.Sequential([keras.Input((2,)), hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.get("rate")), "mse")
    return model


def values_of(tuner):
    return [tuner.oracle.trials[i].hyperparameters.values for i in tuner.oracle.start_order]


def made(folder, max_trials, past=PAST):
    objective = keras_tuner.Objective("score", "max")
    oracle = tuning.WarmStartOracle(
        objective, SPACE, past=past, max_trials=max_trials, n_first=2, meta_steps=20
    )
    return Scored(oracle, directory=folder)


class Scored(keras_tuner.Tuner):
    def run_trial(self, trial, **_):
        return {"score": -abs(np.log10(trial.hyperparameters.get("rate")) + 1.5)}


def test_it_tunes_a_keras_model(tmp_path):
    oracle = tuning.WarmStartOracle(
        keras_tuner.Objective("val_loss", "min"), SPACE, max_trials=4, seed=1
    )
    tuner = keras_tuner.Tuner(oracle, build, directory=tmp_path)
    tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0)
    scores = [trial.score for trial in oracle.trials.values()]
    assert len(scores) == 4
    assert oracle.get_best_trials()[0].score == min(scores)
    assert len({str(values) for values in values_of(tuner)}) == 4


def test_the_first_trial_is_the_best_of_the_past(tmp_path):
    tuner = made(tmp_path, 1)
    tuner.search()
    best = int(np.sum([scores for _, scores in PAST], axis=0).argmax())
    assert values_of(tuner) == [TRIED[best]]


@pytest.mark.large
def test_a_search_resumes(tmp_path):
    whole = made(tmp_path / "whole", 4)
    whole.search()
    begun = made(tmp_path / "parts", 3)
    begun.search()
    resumed = made(tmp_path / "parts", 4)
    resumed.search()
    assert values_of(resumed) == values_of(whole)


def test_past_tasks_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has the names rate, units, activation; got rate"):
        made(tmp_path, 3, past=[([{"rate": 0.1}], [1.0])])


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    def without(name, *args, **kwargs):
        if name == "keras_tuner":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    imported = builtins.__import__
    monkeypatch.delitem(sys.modules, "tfmeta.tuning.oracle")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "tfmeta\[tuning\]"'):
        tuning.WarmStartOracle  # noqa: B018
