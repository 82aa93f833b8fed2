"""MAML++: MAML with learned rates per layer and step, and two annealed training schedules."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.functional import BatchNorm, check_integer
from tfmeta.learners.maml import MAML
from tfmeta.learners.meta_learner import only_task


@keras.saving.register_keras_serializable("tfmeta")
class MAMLPlusPlus(MAML):
    """MAML trained with a loss after every inner step, and by first-order gradients at first.

    Both schedules count iterations of the outer optimizer, so that an interrupted run resumes them:

    - multi-step loss: the outer loss is Σ_k v_k L(θ_k; query) over the inner steps k = 1 … K. All
      v_k start at 1/K, and go linearly to v_K = 1, the others 0, at `multi_step_loss_iterations`;
    - derivative-order annealing: until `first_order_iterations`, second derivatives are ignored.

    Deviations from the paper: no per-step batch-norm statistics, weights and biases, but tfmeta's
    modes of batch norm; the v_k of the first steps anneal to 0, where the paper's code keeps a
    floor of 0.03 / K until the end; cosine annealing of the outer rate is the optimizer's
    (`keras.optimizers.schedules.CosineDecay`); and those of `MAML`.

    Args:
        network: The base network; see `tfmeta.MAML`.
        inner_learning_rate: What the step sizes start from, > 0.
        inner_steps: Inner steps K in meta-training.
        test_inner_steps: Inner steps elsewhere; defaults to `inner_steps`, and with learned rates
            per step cannot be more.
        multi_step_loss_iterations: Training steps until only the last inner step's loss counts;
            0 for that from the start.
        first_order_iterations: Training steps in first order; 0 for second order from the start.
        inner_loss: Any Keras loss; defaults to sparse categorical cross-entropy from logits.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`.
        inner_rule: How an inner step changes the weights; see `tfmeta.MAML`.
        **kwargs: As in `keras.Model`: `name`, `dtype`.

    Reference:
        Antoniou, Edwards, Storkey (2019), How to train your MAML,
        https://arxiv.org/abs/1810.09502, section 4, equation (4).

    Example:

    >>> import tfmeta
    >>> learner = MAMLPlusPlus(
    ...     tfmeta.backbones.mlp(), 0.01, inner_steps=2, inner_loss="mse",
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
        inner_steps: int = 5,
        test_inner_steps: int | None = None,
        multi_step_loss_iterations: int = 0,
        first_order_iterations: int = 0,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "per_layer_per_step",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            inner_learning_rate,
            inner_steps,
            test_inner_steps,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=inner_rule,
            **kwargs,
        )
        check_integer("inner_steps", inner_steps, 1)
        check_integer("multi_step_loss_iterations", multi_step_loss_iterations, 0)
        check_integer("first_order_iterations", first_order_iterations, 0)
        self.multi_step_loss_iterations = multi_step_loss_iterations
        self.first_order_iterations = first_order_iterations

    def step_weights(self, iteration: tf.Tensor) -> tf.Tensor:
        """The weights v_k of the inner steps' losses.

        Args:
            iteration: Scalar, how many training steps the optimizer has taken.

        Returns:
            `[inner_steps]`, summing to 1.
        """
        end = tf.cast(self.multi_step_loss_iterations, self.variable_dtype)
        iteration = tf.cast(iteration, self.variable_dtype)
        progress = tf.where(iteration < end, tf.math.divide_no_nan(iteration, end), 1)
        last = tf.one_hot(self.inner_steps - 1, self.inner_steps, dtype=self.variable_dtype)
        return (1 - progress) / self.inner_steps + progress * last

    def task_gradients(
        self,
        inputs: dict[str, tf.Tensor],
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
        weight: tf.Tensor,
        index: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, list[tf.Tensor]]:
        iteration = self.optimizer.iterations.value

        def run(multi_step: bool, first_order: bool) -> Any:
            def predictions_by_step(episode: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
                x, y, mask = (episode.get(f"support_{name}") for name in ("x", "y", "mask"))
                states = list(self._descend(x, y, mask, self.inner_steps, training, first_order))
                query = episode["query_x"], episode.get("query_mask")
                predictions = [
                    self.predict_task(
                        self._with_statistics(state, x, mask, training), *query, training
                    )
                    for state in (states[1:] if multi_step else states[-1:])
                ]
                return tf.cast(tf.stack(predictions), self.variable_dtype)

            with tf.GradientTape() as tape:
                by_step, updates = self._run_task(
                    only_task(inputs), index, True, predictions_by_step
                )
                losses = [
                    self._task_loss(inputs, y, sample_weight, weight, predictions)
                    for predictions in tf.unstack(by_step)
                ]
                shares = self.step_weights(iteration) if multi_step else [1]
                shares = [tf.cast(share, losses[0][0].dtype) for share in tf.unstack(shares)]
                loss, scaled_loss = (
                    tf.add_n([share * part for share, part in zip(shares, parts, strict=True)])
                    for parts in zip(*losses, strict=True)
                )
            gradients = tape.gradient(
                scaled_loss, self.trainable_variables, unconnected_gradients="zero"
            )
            return loss, gradients, by_step[-1], updates

        def by_order(multi_step: bool) -> Any:
            return _before(
                iteration, self.first_order_iterations, lambda first: run(multi_step, first)
            )

        return _before(iteration, self.multi_step_loss_iterations, by_order)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["first_order"]
        return {
            **config,
            "multi_step_loss_iterations": self.multi_step_loss_iterations,
            "first_order_iterations": self.first_order_iterations,
        }


def _before(iteration: tf.Tensor, end: int, run: Any) -> Any:
    """`run(True)` before the end, `run(False)` from there on."""
    if end == 0:
        return run(False)
    return tf.cond(iteration < end, lambda: run(True), lambda: run(False))
