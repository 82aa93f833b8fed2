"""Configurations and points."""

import json

import numpy as np
import pytest

from tfmeta.tuning import PastTask, Range, SearchSpace

SPACE = SearchSpace(
    {
        "rate": Range(0.01, 1.0, log=True),
        "share": Range(-1.0, 1.0),
        "steps": Range(1, 8, log=True, integer=True),
        "width": [64, 16, 256],
        "kind": ["a", "b", "c"],
        "flag": [True, False],
    }
)


def test_points_by_hand():
    values = {"rate": 0.1, "share": 0.5, "steps": 1, "width": 16, "kind": "b", "flag": True}
    # The integers from 1 to 8 share [0.5, 8.5], by their logarithm.
    steps = np.log(1 / 0.5) / np.log(8.5 / 0.5)
    point = [[0.5, 0.75, steps, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]]
    np.testing.assert_allclose(SPACE.encode([values]), point)
    assert SPACE.n_inputs == 9


def test_decoding_undoes_encoding_and_snaps():
    drawn = SPACE.sample(200, np.random.default_rng(0))
    assert {values["steps"] for values in drawn} == {*range(1, 9)}
    assert SPACE.decode(SPACE.encode(drawn)) == drawn
    restored = SearchSpace.from_config(json.loads(json.dumps(SPACE.get_config())))
    assert restored.decode(SPACE.encode(drawn)) == drawn
    (far,) = SPACE.decode(np.full((1, 9), 3.0))
    assert (far["rate"], far["steps"], far["width"]) == (1.0, 8, 256)


def test_a_grid_has_all_configurations():
    grid = SearchSpace({"a": [1, 2], "b": ["x", "y"]}).grid()
    assert grid == [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y")]
    with pytest.raises(ValueError, match="Only a space of lists has a grid, but rate has a range"):
        SPACE.grid()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 2.0}, r"rate must be a number from 0.01 to 1.0; got 2.0"),
        ({"steps": "3"}, r"steps must be a number from 1 to 8; got '3'"),
        ({"flag": 1}, r"flag must be one of \[True, False\]; got 1"),
        ({"size": 1}, r"has the names rate, share, .*; got rate, .*, size"),
    ],
)
def test_other_configurations_are_refused(changes, message):
    values = {"rate": 0.1, "share": 0.5, "steps": 1, "width": 16, "kind": "b", "flag": True}
    with pytest.raises(ValueError, match=message):
        SPACE.encode([{**values, **changes}])


@pytest.mark.parametrize("allowed", [Range(0.0, 1.0, log=True), Range(2, 1), [], [1, 1]])
def test_empty_spaces_are_refused(allowed):
    with pytest.raises(ValueError, match=r"x.* needs "):
        SearchSpace({"x": allowed})


def test_past_tasks_must_fit():
    with pytest.raises(ValueError, match=r"got the shapes \(2, 1\) and \(3,\)"):
        PastTask(np.zeros((2, 1)), np.zeros(3)).check()
    with pytest.raises(ValueError, match="leave out failures"):
        PastTask(np.zeros((2, 1)), np.array([0.0, np.nan])).check()
