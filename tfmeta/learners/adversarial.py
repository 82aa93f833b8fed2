"""The base class of learners that are trained against a generator which knows the task."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta import backbones, keras_internals
from tfmeta.checks import check_in_range, check_integer, check_positive
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
from tfmeta.networks import (
    call_shared_network,
    check_network,
    clone,
    collecting_losses,
    output_shape,
    sum_of,
)

# Those of the generator's optimizer, Adam.
BETAS = (0.5, 0.9)
# Constructor arguments that the class without a generator does not have.
OPTIONS = (
    *("generator", "example_encoder", "n_code", "n_noise", "adversarial_weight"),
    *("inner_adversarial_weight", "generator_learning_rate"),
)


class Adversarial(MetaLearner):
    """Base class: meta-trains a classifier as the discriminator of a task-conditioned generator.

    Put it behind the class that classifies: `class MyLearner(MAML, Adversarial)`. It changes
    meta-training alone; what adapts and predicts afterwards is the other class.

    Args:
        generator: keras.Model or None. From `[N, n_code + n_noise]` to examples `[N, *x]`.
        example_encoder: keras.Model or None. From examples `[N, *x]` to `[N, 2·n_code]`.
        n_code: int ≥ 1. Numbers in a task's code.
        n_noise: int ≥ 1. Random numbers from which a fake example is made.
        adversarial_weight: float ≥ 0. Weight of telling real from fake, in the outer loss.
        generator_learning_rate: float > 0. The generator's.
        **kwargs: As in `MetaLearner`.
    """

    takes_unlabelled = True

    def __init__(
        self,
        *,
        generator: keras.Model | None,
        example_encoder: keras.Model | None,
        n_code: int,
        n_noise: int,
        adversarial_weight: float,
        generator_learning_rate: float,
        **kwargs: Any,
    ) -> None:
        check_integer("n_code", n_code, 1)
        check_integer("n_noise", n_noise, 1)
        check_in_range("adversarial_weight", adversarial_weight, 0)
        check_positive("generator_learning_rate", generator_learning_rate)
        for name, network in (("generator", generator), ("example_encoder", example_encoder)):
            if network is not None:
                check_network(name, network)
        super().__init__(**kwargs)
        self.n_code, self.n_noise = n_code, n_noise
        self.adversarial_weight = adversarial_weight
        self.generator_learning_rate = generator_learning_rate
        # Keras keeps them once they are built, after the learner's own networks, so that weights
        # have the same order whether these were given or made.
        self._given = _Given(generator, example_encoder)
        self._generator: keras.Model | None = None
        self._example_encoder: keras.Model | None = None
        self.generator_seeds = keras.random.SeedGenerator()
        self.generator_optimizer = keras.optimizers.Adam(generator_learning_rate, *BETAS)

    # === The generator ===

    def build_generator(self) -> None:
        """Makes the networks that were not given, and builds the generator's optimizer.

        Raises:
            ValueError: If a network that was given does not fit.
        """
        if self.generator_optimizer.built:
            return
        shape = self.example_shape
        if shape is None:
            raise ValueError("The shape of an example must be known before the generator is made.")
        n_inputs, n_outputs = self.n_code + self.n_noise, 2 * self.n_code
        generator = self._given.generator or backbones.generator(n_inputs, shape)
        encoder = self._given.example_encoder or backbones.example_encoder(shape, n_outputs)
        _check("generator", generator, (n_inputs,), shape)
        _check("example_encoder", encoder, shape, (n_outputs,))
        self._generator, self._example_encoder = generator, encoder
        self.generator_optimizer.build(self.generator_variables)

    @property
    def generator(self) -> keras.Model | None:
        """The generator; None if it is still to make."""
        return self._generator or self._given.generator

    @property
    def example_encoder(self) -> keras.Model | None:
        """The encoder that tells the generator the task; None if it is still to make."""
        return self._example_encoder or self._given.example_encoder

    def _networks(self) -> list[keras.Model]:
        return [n for n in (self._generator, self._example_encoder) if n is not None]

    @property
    def generator_variables(self) -> list[keras.Variable]:
        """The trainable variables of the generator and of the encoder that tells it the task."""
        return [v for network in self._networks() for v in network.trainable_variables]

    @property
    def outer_variables(self) -> list[keras.Variable]:
        """The trainable variables but the generator's, which has an optimizer of its own."""
        ids = {id(v) for v in self.generator_variables}
        return [v for v in self.trainable_variables if id(v) not in ids]

    def generate(
        self,
        support_x: tf.Tensor,
        support_mask: tf.Tensor | None,
        n_examples: int | tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Draws fake examples of a task.

        Args:
            support_x: tf.Tensor `[S, *x]`. The task's support set.
            support_mask: tf.Tensor `[S]` or None. 0 for padding.
            n_examples: int or tf.Tensor. How many to draw.
            training: bool. Whether this is meta-training. Defaults to False.

        Returns:
            `[n_examples, *x]`. Further calls draw others.
        """
        (fakes,) = self._generate_sets(support_x, support_mask, [n_examples], training)
        return fakes

    def _generate_sets(
        self,
        support_x: tf.Tensor,
        support_mask: tf.Tensor | None,
        sizes: list[Any],
        training: bool,
    ) -> list[tf.Tensor]:
        """Draws several sets of fake examples of a task at once."""
        codes = self._call(self.example_encoder, support_x, support_mask, training)
        mask = tf.ones_like(codes[:, 0]) if support_mask is None else support_mask
        weights = tf.cast(mask, codes.dtype)[:, None]
        total = tf.reduce_sum(tf.where(weights > 0, codes, tf.zeros_like(codes)), axis=0)
        mean, log_sigma = tf.split(tf.math.divide_no_nan(total, tf.reduce_sum(weights)), 2)
        # Each set has draws of its own, so that padding of one changes none of another.
        draws = [(self._normal(n, self.n_code), self._normal(n, self.n_noise)) for n in sizes]
        inputs = [
            tf.concat([mean + tf.exp(log_sigma) * code, noise], axis=1) for code, noise in draws
        ]
        fakes = self._call(self.generator, tf.concat(inputs, axis=0), None, training)
        return tf.split(fakes, [tf.shape(x)[0] for x in inputs])

    def _normal(self, n_rows: int | tf.Tensor, n_columns: int) -> tf.Tensor:
        shape = (n_rows, n_columns)
        return keras.random.normal(shape, dtype=self.variable_dtype, seed=self.generator_seeds)

    def _call(
        self, network: keras.Model, x: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        outputs, _ = call_shared_network(
            network, x, part="queries", batch_norm="transductive", mask=mask, training=training
        )
        return tf.cast(outputs, self.variable_dtype)

    # === Meta-training ===

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures meta-training; see `MetaLearner.compile`. The generator's optimizer is new."""
        super().compile(*args, **kwargs)
        self.generator_optimizer = keras.optimizers.Adam(self.generator_learning_rate, *BETAS)
        if self.built:
            self.generator_optimizer.build(self.generator_variables)

    def task_gradients(self, task: TrainingTask) -> TaskUpdate:
        """Takes the gradients of both players' losses, each by the player's own variables.

        Both are of the weights before the step: no player sees the other's step first.
        """
        with tf.GradientTape(persistent=True) as tape:
            with collecting_losses() as losses:
                (predictions, of_learner, of_generator), assigned = self._run_task(
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


class _Given:
    """The networks that the constructor was given, out of Keras's sight."""

    def __init__(self, generator: keras.Model | None, encoder: keras.Model | None) -> None:
        self.generator, self.example_encoder = generator, encoder


def mask_of_fakes(mask: tf.Tensor | None) -> tf.Tensor | None:
    """Returns the mask of as many fake examples as are no padding by `mask`, wherever that lies."""
    if mask is None:
        return None
    n_examples = tf.reduce_sum(tf.cast(mask > 0, tf.int32))
    return tf.cast(tf.range(tf.shape(mask)[0]) < n_examples, mask.dtype)


def _copies(networks: dict[str, keras.Model]) -> dict[str, keras.Model]:
    return {name: clone(network) for name, network in networks.items()}


def _check(
    name: str, network: keras.Model, takes: tuple[int, ...], returns: tuple[int, ...]
) -> None:
    """Raises a ValueError unless a network takes and returns tensors of these shapes."""
    shape = output_shape(network, takes)
    inputs = getattr(network, "input_shape", (None, *takes))[1:]
    fits = len(inputs) == len(takes) and all(
        a in (None, b) for a, b in zip(inputs, takes, strict=True)
    )
    if not fits or shape != returns:
        raise ValueError(
            f"{name} must map [N, {', '.join(map(str, takes))}] to "
            f"[N, {', '.join(map(str, returns))}]; got one from {inputs} to {shape}."
        )
