"""Reptile: moves the initialisation towards the weights that tasks arrive at."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.inner_batches import Support
from tfmeta.learners.inner_loop import InnerLoopLearner, State
from tfmeta.learners.training_task import TaskUpdate, TrainingTask
from tfmeta.networks import BatchNorm, collecting_losses


@keras.saving.register_keras_serializable("tfmeta")
class Reptile(InnerLoopLearner):
    """Trains on one task after another, and moves the initialisation some way to each result.

    The outer update follows no gradient of a loss: the optimizer gets φ − (mean of φ̃ over the tasks
    of a meta-batch) instead of a gradient. With `keras.optimizers.SGD(ε)` the update is the paper's
    φ ← φ + ε (mean φ̃ − φ); any other optimizer also works. The compiled loss and metrics are
    reported for the queries, as means over the tasks, but the learner is trained only on support
    sets. So meta-train with more shots than you test with, as the paper does.

    Batch norm's shift and scale adapt like all other weights, as in the paper's code.

    Deviations from the paper's code: mini-batches follow one fixed pseudo-random order of the
    support set, again and again; by default the inner optimizer's memory (Adam's moments) starts at
    zero in each task, while the code carries it from task to task: see `carry_moments`. There, all
    tasks of a meta-batch start from the same memory, and the mean of what they arrive at is kept;
    in the code they follow one another. With one task in a meta-batch it is the same. The network's
    regularisers of weights do not act in the inner loop, and so have no effect; those of
    activations do.

    Args:
        network: keras.Model. The base network; see `tfmeta.MAML`.
        inner_learning_rate: float > 0. Step size of the inner optimizer. Defaults to 0.001.
        inner_steps: int ≥ 0. Inner steps k in meta-training. Defaults to 5.
        test_inner_steps: int ≥ 0 or None. Inner steps elsewhere. Defaults to None, `inner_steps`.
        inner_batch_size: int ≥ 1 or None. Support examples per inner step. Defaults to None, all.
        inner_loss: str, function or keras.losses.Loss. See `tfmeta.MAML`. Defaults to None, sparse
            categorical cross-entropy from logits.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        inner_rule: str, dict or InnerRule. The inner optimizer: `"sgd"`, `"adam"`, or another rule
            without meta-parameters. Defaults to `"sgd"`.
        carry_moments: bool. Whether the inner optimizer's memory goes on from one meta-batch to the
            next, and is what a new task starts from, as in the paper's code. It needs a rule with
            memory, such as `"adam"`. Defaults to False.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.

    Raises:
        ValueError: Also if the inner rule has meta-parameters; or no memory, with `carry_moments`.

    Reference:
        Nichol, Achiam, Schulman (2018), On First-Order Meta-Learning Algorithms,
        https://arxiv.org/abs/1803.02999. Algorithm 2 (the batched version):
        φ ← φ + ε (1/n) Σ_tasks (φ̃_task − φ), where φ̃ = U^k(φ) after k steps of SGD or Adam.

    Example:

    >>> import tfmeta
    >>> learner = Reptile(
    ...     tfmeta.backbones.mlp(), inner_learning_rate=0.02, inner_steps=5, inner_loss="mse"
    ... )
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
        *,
        inner_steps: int = 5,
        test_inner_steps: int | None = None,
        inner_batch_size: int | None = None,
        inner_loss: Any = None,
        batch_norm: BatchNorm = "transductive",
        inner_rule: Any = "sgd",
        carry_moments: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            kwargs,
            inner_learning_rate=inner_learning_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=True,
            inner_loss=inner_loss,
            batch_norm=batch_norm,
            inner_rule=inner_rule,
            inner_batch_size=inner_batch_size,
        )
        self.carry_moments = carry_moments
        self.moments: list[keras.Variable] = []
        self.build_if_possible()

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.inner_rule.trainable_variables:
            raise ValueError(
                f"Reptile cannot learn the meta-parameters of {type(self.inner_rule).__name__}: "
                'its outer update only moves the initialisation. Use inner_rule="sgd" or "adam".'
            )
        if self.carry_moments and not self.moments:
            self._make_moments()

    def _make_moments(self) -> None:
        """Creates the variables that keep the inner rule's memory between meta-batches."""
        weights, _ = self.start_weights()
        with tf.init_scope():
            # The weights may have no values yet. The memory of an optimizer does not need them.
            memory = self.inner_rule.start([tf.zeros(w.shape, w.dtype) for w in weights])
        self._weights_of_moments = [id(w) for w in weights]
        values = keras.tree.flatten(memory)
        if not values:
            raise ValueError(
                f'carry_moments=True is for an inner rule with a memory, such as "adam"; '
                f"{type(self.inner_rule).__name__} has none."
            )
        self.moments = [
            self.add_weight(
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: value,
                dtype=value.dtype.name,
                trainable=False,
                name=f"moments_{i}",
            )
            for i, value in enumerate(values)
        ]

    def start(self) -> tuple[State, Any]:
        """Returns the state before the first step, and the memory, carried or new.

        Raises:
            ValueError: If layers were frozen or thawed since the carried memory was made.
        """
        state, memory = super().start()
        if not self.carry_moments:
            return state, memory
        if [id(w) for w in self.start_weights()[0]] != self._weights_of_moments:
            raise ValueError(
                f"Layers of {self.network.name!r} were frozen, thawed or replaced (trainable=) "
                "after this Reptile was made, whose moments belong to the weights of then: undo "
                "that, or make a new learner of the network as it is now."
            )
        carried = [tf.convert_to_tensor(moment.value) for moment in self.moments]
        return state, keras.tree.pack_sequence_as(memory, carried)

    def start_weights(self) -> tuple[list[keras.Variable], list[bool]]:
        """Returns the network's weights, all of which adapt."""
        weights = self.network.trainable_variables
        return weights, [True for _ in weights]

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> State:
        """Takes the inner steps; returns the task's weights. See `MetaLearner.adapt_task`.

        They are a loop of the graph, because no gradient goes through them. The paper tests with
        dozens of steps: unrolled, they would trace slowly and add tens of megabytes to a servable.
        """
        steps = self.inner_steps if training else self.test_inner_steps
        support = Support(support_x, support_y, support_mask)

        def next_step(step: tf.Tensor, state: State, memory: Any) -> tuple[tf.Tensor, State, Any]:
            return step + 1, *self.inner_step(state, memory, support, step, training, True)

        _, state, memory = tf.while_loop(
            lambda step, *_: step < steps,
            next_step,
            (tf.constant(0), *self.start()),
            maximum_iterations=steps,  # XLA needs it for a gradient.
        )
        if training and self.carry_moments:
            for moment, value in zip(self.moments, keras.tree.flatten(memory), strict=True):
                moment.assign(value)
        return self.with_statistics(state, support, training)

    def _task_weights(self, n_tasks: tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """Returns equal weights `[T]` for all tasks: the loss is only reported."""
        return tf.fill([n_tasks], 1 / tf.cast(n_tasks, keras.backend.floatx()))

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Returns the initialisation minus the task's weights as the gradient."""

        def run() -> tuple[State, tf.Tensor]:
            episode = task.episode
            mask = episode.get("support_mask")
            state = self.adapt_task(episode["support_x"], episode["support_y"], mask, training=True)
            predictions = self.predict_task(
                state, episode["query_x"], episode.get("query_mask"), training=True
            )
            return state, tf.cast(predictions, self.variable_dtype)

        with collecting_losses() as losses:
            (state, predictions), assigned = self.run_task(run, task.index, training=True)
        loss, _ = self._task_loss(task, predictions, losses)
        # An optimizer that scales losses divides gradients by the scale, and under a strategy it
        # sums them over the replicas.
        share = self.optimizer.scale_loss(task.weight)
        share /= tf.distribute.get_strategy().num_replicas_in_sync
        pairs = zip(self.trainable_variables, state["trainable"], strict=True)
        gradients = [(v - w) * tf.cast(share, w.dtype) for v, w in pairs]
        return TaskUpdate(loss, gradients, predictions, assigned)
