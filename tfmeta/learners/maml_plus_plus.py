"""MAML++: MAML with learned rates per layer and step, and two annealed training schedules."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.checks import check_integer
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.inner_batches import Support
from tfmeta.learners.inner_loop import InnerLoopLearner, State
from tfmeta.learners.training_task import TaskUpdate, TrainingTask
from tfmeta.networks import BatchNorm, collecting_losses


@keras.saving.register_keras_serializable("tfmeta")
class MAMLPlusPlus(InnerLoopLearner):
    """MAML trained with a loss after every inner step, and by first-order gradients at first.

    Both schedules count iterations of the outer optimizer, so that an interrupted run resumes them:

    - multi-step loss: the outer loss is Σ_k v_k L(θ_k; query) over the inner steps k = 1 … K. All
      v_k start at 1/K, and go linearly to v_K = 1, the others 0, at `multi_step_loss_iterations`;
    - derivative-order annealing: until `first_order_iterations`, second derivatives are ignored.

    Deviations from the paper: no per-step batch-norm statistics, weights and biases, but tfmeta's
    modes of batch norm; the v_k of the first steps anneal to 0, while the paper's code keeps a
    floor of 0.03 / K until the end; cosine annealing of the outer rate is the optimizer's
    (`keras.optimizers.schedules.CosineDecay`); and those of `MAML`.

    Args:
        network: keras.Model. The base network; see `tfmeta.MAML`.
        inner_learning_rate: float > 0. The learned step sizes start here. Defaults to 0.1.
        inner_steps: int ≥ 1. Inner steps K in meta-training. Defaults to 5.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere; with learned rates per step no
            more than `inner_steps`. Defaults to None, `inner_steps`.
        multi_step_loss_iterations: int ≥ 0. Training steps until only the last inner step's loss
            counts. With 0, only it counts from the start. Defaults to 0.
        first_order_iterations: int ≥ 0. Training steps in first order. With 0, second order is
            used from the start. Defaults to 0.
        inner_loss: str, function or keras.losses.Loss. See `tfmeta.MAML`. Defaults to None, sparse
            categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        inner_rule: str, dict or InnerRule. How an inner step changes the weights; see
            `tfmeta.MAML`. Defaults to `"per_layer_per_step"`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Reference:
        Antoniou, Edwards, Storkey (2019), How to train your MAML,
        https://arxiv.org/abs/1810.09502, section 4, equation (4).

    Example:

    >>> import tfmeta
    >>> learner = MAMLPlusPlus(
    ...     tfmeta.backbones.mlp(), inner_learning_rate=0.01, inner_steps=2, inner_loss="mse",
    ...     multi_step_loss_iterations=100, first_order_iterations=50,
    ... )
    >>> learner.compile(optimizer="adam", loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=5, meta_batch_size=4, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    """

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 0.1,
        *,
        inner_steps: int = 5,
        test_inner_steps: int | None = None,
        multi_step_loss_iterations: int = 0,
        first_order_iterations: int = 0,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "per_layer_per_step",
        inner_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_integer("inner_steps", inner_steps, 1)
        check_integer("multi_step_loss_iterations", multi_step_loss_iterations, 0)
        check_integer("first_order_iterations", first_order_iterations, 0)
        super().__init__(
            network,
            kwargs,
            inner_learning_rate=inner_learning_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=False,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=inner_rule,
            inner_batch_size=inner_batch_size,
        )
        self.multi_step_loss_iterations = multi_step_loss_iterations
        self.first_order_iterations = first_order_iterations
        self.build_if_possible()

    def step_weights(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns the weights v_k of the inner steps' losses.

        Args:
            iteration: tf.Tensor, scalar. Training steps that the optimizer has taken.

        Returns:
            `[inner_steps]`, summing to 1.
        """
        end = tf.cast(self.multi_step_loss_iterations, self.variable_dtype)
        iteration = tf.cast(iteration, self.variable_dtype)
        progress = tf.where(iteration < end, tf.math.divide_no_nan(iteration, end), 1)
        last = tf.one_hot(self.inner_steps - 1, self.inner_steps, dtype=self.variable_dtype)
        return (1 - progress) / self.inner_steps + progress * last

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Takes the gradient of the annealed loss, of the order that the schedule gives."""
        iteration = self.optimizer.iterations.value

        def by_order(multi_step: bool) -> TaskUpdate:
            return _before(
                iteration,
                self.first_order_iterations,
                lambda first_order: self._gradients(task, iteration, multi_step, first_order),
            )

        return _before(iteration, self.multi_step_loss_iterations, by_order)

    def _gradients(
        self, task: TrainingTask, iteration: tf.Tensor, multi_step: bool, first_order: bool
    ) -> TaskUpdate:
        layer_losses: list[list[tf.Tensor]] = []

        def predict(state: State, support: Support, query_x: tf.Tensor, mask: Any) -> tf.Tensor:
            state = self.with_statistics(state, support, True)
            with collecting_losses() as losses:
                predictions = self.predict_task(state, query_x, mask, training=True)
            layer_losses.append(losses)
            return predictions

        def predictions_by_step() -> tf.Tensor:
            episode = task.episode
            support = Support(*(episode.get(f"support_{name}") for name in ("x", "y", "mask")))
            query = episode["query_x"], episode.get("query_mask")
            states = list(self.descend(support, self.inner_steps, True, first_order))
            predictions = [
                predict(state, support, *query)
                for state in (states[1:] if multi_step else states[-1:])
            ]
            return tf.cast(tf.stack(predictions), self.variable_dtype)

        with tf.GradientTape() as tape:
            by_step, assigned = self.run_task(predictions_by_step, task.index, training=True)
            losses = [
                self._task_loss(task, predictions, added)
                for predictions, added in zip(tf.unstack(by_step), layer_losses, strict=True)
            ]
            shares = self.step_weights(iteration) if multi_step else [1]
            shares = [tf.cast(share, losses[0][0].dtype) for share in tf.unstack(shares)]
            loss, scaled_loss = (
                tf.add_n([share * part for share, part in zip(shares, parts, strict=True)])
                for parts in zip(*losses, strict=True)
            )
        gradients = gradients_of(tape, scaled_loss, self.trainable_variables)
        return TaskUpdate(loss, gradients, by_step[-1], assigned)


def _before(iteration: tf.Tensor, end: int, run: Any) -> Any:
    """Returns `run(True)` before iteration `end`, `run(False)` from then on."""
    if end == 0:
        return run(False)
    return tf.cond(iteration < end, lambda: run(True), lambda: run(False))
