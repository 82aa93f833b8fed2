"""The base class of learners with a generator that knows the task."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmeta import backbones
from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.networks import call_shared_network, check_network, output_shape

# Those of the generator's optimizer, Adam.
BETAS = (0.5, 0.9)


class WithGenerator(MetaLearner):
    """Base class: has a generator of fake examples of a task.

    Args:
        generator: keras.Model or None. From `[N, n_code + n_noise]` to examples `[N, *x]`.
        example_encoder: keras.Model or None. From examples `[N, *x]` to `[N, 2·n_code]`.
        n_code: int ≥ 1. Numbers in a task's code.
        n_noise: int ≥ 1. Random numbers from which a fake example is made.
        generator_learning_rate: float > 0. The generator's.
        **kwargs: As in `MetaLearner`.
    """

    def __init__(
        self,
        *,
        generator: keras.Model | None,
        example_encoder: keras.Model | None,
        n_code: int,
        n_noise: int,
        generator_learning_rate: float,
        **kwargs: Any,
    ) -> None:
        check_integer("n_code", n_code, 1)
        check_integer("n_noise", n_noise, 1)
        check_positive("generator_learning_rate", generator_learning_rate)
        for name, network in (("generator", generator), ("example_encoder", example_encoder)):
            if network is not None:
                check_network(name, network)
        super().__init__(**kwargs)
        self.n_code, self.n_noise = n_code, n_noise
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

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures meta-training; see `MetaLearner.compile`. The generator's optimizer is new."""
        super().compile(*args, **kwargs)
        self.generator_optimizer = keras.optimizers.Adam(self.generator_learning_rate, *BETAS)
        if self.built:
            self.generator_optimizer.build(self.generator_variables)

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


class _Given:
    """The networks that the constructor was given, out of Keras's sight."""

    def __init__(self, generator: keras.Model | None, encoder: keras.Model | None) -> None:
        self.generator, self.example_encoder = generator, encoder


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
