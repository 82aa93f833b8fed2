"""Trajectories until a number of steps has been taken, as the published code of MAML samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfmeta.rl.trajectories import Trajectories

# Trajectories of a task are filled up to a multiple, so that few shapes are compiled.
MULTIPLE = 40


def trajectories_of_steps(rollout: Callable[[int], Trajectories], n_steps: int) -> Trajectories:
    """Collects trajectories until those that have ended hold `n_steps` steps, in each task.

    Some places act side by side. A place whose trajectory has ended starts the next one. At the
    step at which the trajectories that have ended hold at least `n_steps` steps, all stops, and
    what has not ended is dropped. So a policy that soon reaches its goal is seen in many more
    trajectories, and short ones are more frequent than among the same number of whole ones: the
    mean return is a bit higher.

    Args:
        rollout: function from 0, 1, … to new Trajectories of T tasks at N places, each with other
            random numbers.
        n_steps: int ≥ 1. Steps of each task.

    Returns:
        Trajectories `[T, M, H]`. M is a multiple of 40; a task that has fewer trajectories is
        filled up with some of no steps, whose mask is 0.

    Reference:
        `VectorizedSampler` of https://github.com/cbfinn/maml_rl, which samples in the published
        test.
    """
    rounds: list[Trajectories] = []
    kept = None
    while kept is None:
        rounds.append(Trajectories(*(x.numpy() for x in rollout(len(rounds)))))
        lengths = np.stack([r.mask.sum(axis=2) for r in rounds]).astype(int)
        kept = _kept(lengths, n_steps)
    n_tasks = kept.shape[1]
    # Of each task, the numbers of the round and place of the trajectories that are kept.
    chosen = [np.nonzero(kept[:, task]) for task in range(n_tasks)]
    size = -(-max(len(places) for _, places in chosen) // MULTIPLE) * MULTIPLE

    def packed(name: str) -> tf.Tensor:
        arrays = np.stack([getattr(r, name) for r in rounds])
        result = np.zeros([n_tasks, size, *arrays.shape[3:]], arrays.dtype)
        for task, (numbers, places) in enumerate(chosen):
            result[task, : len(places)] = arrays[numbers, task, places]
        return tf.constant(result)

    return Trajectories(*(packed(name) for name in Trajectories._fields))


def _kept(lengths: np.ndarray, n_steps: int) -> np.ndarray | None:
    """Returns which trajectories have ended in time.

    Args:
        lengths: int array `[R, T, N]`. Steps of the trajectories of R rounds.
        n_steps: int. Steps of each task.

    Returns:
        bool array `[R, T, N]`; or None, if there are not yet enough rounds to tell.
    """
    ends = lengths.cumsum(axis=0)
    kept = np.zeros(lengths.shape, bool)
    for task in range(lengths.shape[1]):
        order = np.argsort(ends[:, task], axis=None, kind="stable")
        enough = lengths[:, task].ravel()[order].cumsum() >= n_steps
        if not enough.any():
            return None
        stop = ends[:, task].ravel()[order][enough.argmax()]
        if ends[-1, task].min() < stop:
            return None
        kept[:, task] = ends[:, task] <= stop
    return kept
