"""Reptile: moves the initialisation towards the weights that tasks arrive at."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.functional import BatchNorm
from tfmeta.learners.maml import MAML, State
from tfmeta.learners.meta_learner import only_task


@keras.saving.register_keras_serializable("tfmeta")
class Reptile(MAML):
    """Trains on one task after another, and moves the initialisation some way to each result.

    The outer update is no gradient of a loss: the optimizer gets φ − mean of φ̃ over the tasks of a
    meta-batch in a gradient's place. With `keras.optimizers.SGD(ε)` that is the paper's
    φ ← φ + ε (mean φ̃ − φ); any other optimizer does, too. The compiled loss and metrics are
    reported for the queries, as means over the tasks, but not trained on. Only the support set is:
    meta-train with more shots than you test with, as the paper does.

    Batch norm's shift and scale adapt like all other weights, as in the paper's code.

    Deviations from the paper's code: mini-batches follow one fixed pseudo-random order of the
    support set, again and again; the inner optimizer's memory (Adam's second moments) starts at
    zero in each task, where the code carries it from task to task. The network's regularisers do
    not act in the inner loop, and so not at all.

    Args:
        network: The base network; see `tfmeta.MAML`.
        inner_learning_rate: Step size of the inner optimizer, > 0.
        inner_steps: Inner steps k in meta-training.
        test_inner_steps: Inner steps elsewhere; defaults to `inner_steps`.
        inner_batch_size: Support examples per inner step; None for all of them.
        inner_loss: Any Keras loss; defaults to sparse categorical cross-entropy from logits.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`.
        inner_rule: The inner optimizer, `"sgd"` or `"adam"`, or another without meta-parameters.
        **kwargs: As in `keras.Model`: `name`, `dtype`.

    Reference:
        Nichol, Achiam, Schulman (2018), On First-Order Meta-Learning Algorithms,
        https://arxiv.org/abs/1803.02999. Algorithm 2 (the batched version):
        φ ← φ + ε (1/n) Σ_tasks (φ̃_task − φ), where φ̃ = U^k(φ) after k steps of SGD or Adam.

    Example:

    >>> import tfmeta
    >>> learner = Reptile(tfmeta.backbones.mlp(), 0.02, inner_steps=5, inner_loss="mse")
    >>> learner.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
    >>> tasks = tfmeta.data.load("sinusoid").episodes(n_shot=10, meta_batch_size=4, seed=0)
    >>> history = learner.fit(tasks, steps_per_epoch=2, shuffle=False, verbose=0)
    >>> learner.adapt([[0.0], [1.0]], [[0.0], [0.8]]).predict(tf.zeros([3, 1]), verbose=0).shape
    (3, 1)
    """

    def __init__(
        self,
        network: keras.Model,
        inner_learning_rate: float = 0.001,
        inner_steps: int = 5,
        test_inner_steps: int | None = None,
        inner_batch_size: int | None = None,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            inner_learning_rate,
            inner_steps,
            test_inner_steps,
            first_order=True,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=inner_rule,
            inner_batch_size=inner_batch_size,
            **kwargs,
        )

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.inner_rule.trainable_variables:
            raise ValueError(
                f"Reptile cannot learn the meta-parameters of {type(self.inner_rule).__name__}: "
                'its outer update only moves the initialisation. Use inner_rule="sgd" or "adam".'
            )

    def _weights(self) -> tuple[list[keras.Variable], list[bool]]:
        weights = self.network.trainable_variables
        return weights, [True for _ in weights]

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> State:
        """Takes the inner steps: the task's weights. See `MetaLearner.adapt_task`.

        They are a loop of the graph: no gradient goes through them, and the dozens of steps that
        the paper tests with would take longer to trace, and tens of megabytes in a servable.
        """
        steps = self.inner_steps if training else self.test_inner_steps
        support = support_x, support_y, support_mask

        def next_step(step: tf.Tensor, state: State, memory: Any) -> tuple[tf.Tensor, State, Any]:
            return step + 1, *self._step(state, memory, *support, step, training, self.first_order)

        _, state, _ = tf.while_loop(
            lambda step, *_: step < steps,
            next_step,
            (tf.constant(0), *self._start()),
            maximum_iterations=steps,  # XLA wants to know it for a gradient.
        )
        return self._with_statistics(state, support_x, support_mask, training)

    def _task_weights(self, n_tasks: tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """`[T]`: all tasks count alike, whatever the loss that is only reported."""
        return tf.fill([n_tasks], 1 / tf.cast(n_tasks, keras.backend.floatx()))

    def task_gradients(
        self,
        inputs: dict[str, tf.Tensor],
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
        weight: tf.Tensor,
        index: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, list[tf.Tensor]]:
        """The way from the task's weights back to the initialisation, in a gradient's place."""

        def run(episode: dict[str, tf.Tensor], training: bool) -> tuple[State, tf.Tensor]:
            mask = episode.get("support_mask")
            state = self.adapt_task(episode["support_x"], episode["support_y"], mask, training)
            predictions = self.predict_task(
                state, episode["query_x"], episode.get("query_mask"), training
            )
            return state, tf.cast(predictions, self.variable_dtype)

        (state, predictions), updates = self._run_task(only_task(inputs), index, True, run)
        loss, _ = self._task_loss(inputs, y, sample_weight, weight, predictions)
        # An optimizer that scales losses divides what it gets by the scale, and under a strategy it
        # sums over the replicas.
        share = self.optimizer.scale_loss(weight)
        share /= tf.distribute.get_strategy().num_replicas_in_sync
        pairs = zip(self.trainable_variables, state["trainable"], strict=True)
        return loss, [(v - w) * tf.cast(share, w.dtype) for v, w in pairs], predictions, updates

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["first_order"]
        return config
