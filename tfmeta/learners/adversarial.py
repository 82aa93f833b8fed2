"""The base class of learners that are trained against a generator which knows the task."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.checks import check_in_range
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.graph_checks import all_finite
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.real_or_fake import (
    log_odds_of_real,
    loss_as_fake,
    loss_as_real,
    pooled_mean,
)
from tfmeta.learners.training_task import TaskUpdate, TrainingTask
from tfmeta.learners.with_generator import WithGenerator
from tfmeta.networks import clone, collecting_losses, sum_of

# Constructor arguments that the class without a generator does not have.
OPTIONS = (
    *("generator", "example_encoder", "n_code", "n_noise", "adversarial_weight"),
    *("inner_adversarial_weight", "generator_learning_rate"),
)


class Adversarial(WithGenerator):
    """Base class: meta-trains a classifier as the discriminator of a task-conditioned generator.

    Put it behind the class that classifies: `class MyLearner(MAML, Adversarial)`. It changes
    meta-training alone; what adapts and predicts afterwards is the other class.

    Args:
        adversarial_weight: float ≥ 0. Weight of telling real from fake, in the outer loss.
        **kwargs: As in `WithGenerator`.
    """

    takes_unlabelled = True

    def __init__(self, *, adversarial_weight: float, **kwargs: Any) -> None:
        check_in_range("adversarial_weight", adversarial_weight, 0)
        super().__init__(**kwargs)
        self.adversarial_weight = adversarial_weight

    # === Meta-training ===

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Takes the gradients of both players' losses, each by the player's own variables.

        Both are of the weights before the step: no player sees the other's step first.
        """
        with tf.GradientTape(persistent=True) as tape:
            with collecting_losses() as losses:
                (predictions, of_learner, of_generator), assigned = self.run_task(
                    lambda: self._play(task), task.index, training=True
                )
            loss, _ = self._task_loss(task, predictions, losses)
            share = keras_internals.additional_loss(self, tf.cast(task.share, loss.dtype))
            weight = tf.cast(self.adversarial_weight, loss.dtype) * share
            loss += weight * tf.cast(of_learner, loss.dtype)
            scaled_loss = self.optimizer.scale_loss(loss)
            scaled_generator_loss = self.optimizer.scale_loss(share * of_generator)
        of_learner, of_generator = (
            gradients_of(tape, scaled, variables)
            for scaled, variables in (
                (scaled_loss, self.outer_variables),
                (scaled_generator_loss, self.generator_variables),
            )
        )
        del tape
        return TaskUpdate(loss, self._joined(of_learner, of_generator), predictions, assigned)

    def _play(self, task: TrainingTask) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns a task's predictions and what both players lose by them.

        The learner's part is −E[log p(real | x)] over queries and unlabelled examples
        − E[log p(fake | x)] over fake ones, the generator's −E[log p(real | x)] over fake ones.
        """
        episode = task.episode
        support_x, support_mask = episode["support_x"], episode.get("support_mask")
        query_x, query_mask = episode["query_x"], episode.get("query_mask")
        if not query_x.dtype.is_floating:
            raise ValueError(
                "A generator makes examples of floats, not of integers such as tokens or pixels: "
                f"cast the examples of episodes to float32; got {query_x.dtype.name}."
            )
        sizes = [tf.shape(x)[0] for x in ([support_x] if self.has_inner_fakes else []) + [query_x]]
        with collecting_losses() as losses:
            *inner, fakes = self._generate_sets(support_x, support_mask, sizes, training=True)
        # The inner steps learn from fakes as from data: the generator gets no gradient by them.
        inner_fakes = tf.stop_gradient(inner[0]) if inner else None
        state = self.adapt_against_generator(episode, inner_fakes, task.n_way)
        predictions = self.predict_task(state, query_x, query_mask, training=True)
        predictions = tf.cast(predictions, self.variable_dtype)
        log_odds, masks = [log_odds_of_real(predictions, self.output_kind)], [query_mask]
        if "unlabelled_x" in episode:
            masks.append(episode.get("unlabelled_mask"))
            log_odds.append(self._log_odds(state, episode["unlabelled_x"], masks[-1]))
        mask = mask_of_fakes(query_mask)
        of_fakes = self._log_odds(state, fakes, mask)
        of_learner = pooled_mean([loss_as_real(v) for v in log_odds], masks)
        of_learner += pooled_mean([loss_as_fake(of_fakes)], [mask])
        of_generator = pooled_mean([loss_as_real(of_fakes)], [mask])
        for network in self._networks():
            losses += network.losses  # Those of kernel_regularizer and its like.
        added = sum_of(losses, of_generator.dtype)
        return predictions, of_learner, of_generator if added is None else of_generator + added

    @property
    def has_inner_fakes(self) -> bool:
        """Whether adapting to a task in meta-training takes fake examples; no, by default."""
        return False

    def adapt_against_generator(
        self,
        episode: dict[str, tf.Tensor],
        fakes: tf.Tensor | None,
        n_way: tf.Tensor | None,
    ) -> Any:
        """Adapts to a task in meta-training: as elsewhere, unless a learner overrides it.

        Args:
            episode: dict. One task, with what is unlabelled.
            fakes: tf.Tensor `[S, *x]`, without a gradient, or None. As many fake examples as
                support examples, if it `has_inner_fakes`.
            n_way: tf.Tensor, scalar int32, or None. As in `adapt_task`.
        """
        support = episode["support_x"], episode["support_y"], episode.get("support_mask")
        return self.adapt_task(*support, training=True, n_way=n_way)

    def _log_odds(self, state: Any, x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Returns log p(real) − log p(fake) of examples without labels, which leave no trace.

        Batch norm normalises them by themselves, and they enter no moving average.
        """
        variables = self._task_variables(training=True)
        values = [(v, tf.convert_to_tensor(v.value)) for v in variables]
        with keras.StatelessScope(state_mapping=values) as scope, collecting_losses():
            predictions = self.predict_task(state, x, mask, training=True)
        for variable in variables:
            if keras_internals.is_seed_state(variable):  # So that the next call drops others.
                variable.assign(scope.get_current_value(variable))
        return log_odds_of_real(tf.cast(predictions, self.variable_dtype), self.output_kind)

    def _joined(self, of_learner: list[Any], of_generator: list[Any]) -> list[Any]:
        """Returns values of the learner's and the generator's variables by trainable_variables."""
        variables = [*self.outer_variables, *self.generator_variables]
        by_id = dict(zip(map(id, variables), [*of_learner, *of_generator], strict=True))
        return [by_id[id(v)] for v in self.trainable_variables]

    def _take_outer_step(
        self, loss: tf.Tensor, gradients: list[tf.Tensor], n_tasks: tf.Tensor
    ) -> None:
        by_id = dict(zip(map(id, self.trainable_variables), gradients, strict=True))
        scale = self.optimizer.scale_loss(tf.ones([], self.variable_dtype))
        of_generator = [by_id[id(v)] / scale for v in self.generator_variables]
        # An optimizer that scales losses skips a step that is not finite; so must the generator's.
        finite = all_finite(of_generator)
        of_generator = [tf.where(finite, g, tf.zeros_like(g)) for g in of_generator]
        super()._take_outer_step(loss, [by_id[id(v)] for v in self.outer_variables], n_tasks)
        if of_generator:
            # As the outer optimizer does, it counts no step that is not taken.
            with tf.control_dependencies(of_generator):
                self.generator_optimizer.apply_gradients(
                    zip(of_generator, self.generator_variables, strict=True)
                )

    # === Afterwards ===

    def plain_learner(self, learner_class: type[MetaLearner], **networks: keras.Model) -> Any:
        """Makes a learner of the other class, with a copy of this learner's weights.

        Args:
            learner_class: type. The class that classifies.
            **networks: keras.Model. Its networks, which are copied.

        Raises:
            ValueError: If this learner has no weights yet.
        """
        if not self.built:
            raise ValueError(
                f"This {type(self).__name__} has no weights yet: train it, adapt it or call it "
                "once before without_generator."
            )
        # Copies of networks keep which of their layers are frozen.
        dropped = {*OPTIONS, "trainable_layers"}
        config = {k: v for k, v in self.get_config().items() if k not in dropped}
        learner = learner_class.from_config({**config, **_copies(networks)})
        if not learner.built:
            shape = (1, 1, *(self.example_shape or ()))
            learner.build({"support_x": shape, "query_x": shape})
        of_generator = [v for network in self._networks() for v in network.variables]
        ids = {id(v) for v in [*of_generator, self.generator_seeds.state]}
        values = [v for v in self.variables if id(v) not in ids]
        for variable, value in zip(learner.variables, values, strict=True):
            variable.assign(value)
        return learner


def mask_of_fakes(mask: tf.Tensor | None) -> tf.Tensor | None:
    """Returns the mask of as many fake examples as are no padding by `mask`, wherever that lies."""
    if mask is None:
        return None
    n_examples = tf.reduce_sum(tf.cast(mask > 0, tf.int32))
    return tf.cast(tf.range(tf.shape(mask)[0]) < n_examples, mask.dtype)


def _copies(networks: dict[str, keras.Model]) -> dict[str, keras.Model]:
    return {name: clone(network) for name, network in networks.items()}
