"""Fine-tuning, the last stage of P>M>F: the encoder itself is tuned on a task's support set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive
from tfmeta.data.augmentation import ImageAugmentation
from tfmeta.inner_rules import Adam
from tfmeta.learners.comparisons import unit, without_missing
from tfmeta.learners.cosine_prototypical_network import CosinePrototypicalNetwork
from tfmeta.learners.feature_head import class_means
from tfmeta.learners.gradients import gradients_of
from tfmeta.learners.inner_batches import mean_loss
from tfmeta.learners.metric_learner import flat
from tfmeta.networks import (
    BatchNorm,
    call_network,
    clone,
    collecting_losses,
    constrained,
    copy_with_values,
    normalises_together,
    normalization,
    sum_of,
    values_of,
)

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LEARNING_RATES = (0.0, 1e-4, 1e-3, 1e-2)

Tensors = list[tf.Tensor]
Part = Literal["inner steps", "support", "queries"]


@keras.saving.register_keras_serializable("tfmeta")
class FineTuning(CosinePrototypicalNetwork):
    """Tunes the encoder on an augmented support set, then compares with the classes' means.

    `fit` trains it as a `CosinePrototypicalNetwork`, without tuning. Elsewhere each task takes
    `steps` steps of Adam: in each, the support set's images, augmented anew, are classified by the
    class means of the images as they are, and the gradient goes through both. The right step size
    depends on the data. It may even be 0: choose it with `with_best_learning_rate`.

    Weights that are frozen (`layer.trainable = False`) stay as they are. To tune a part of the
    encoder, freeze the rest. A task's state holds the tuned weights, so it is as large as these.

    Deviations from the authors' code: the images are augmented in all steps, not in nine of ten.
    Its augmentation shifts each image by up to an eighth, changes its brightness, saturation and
    contrast, and in every second step mirrors all images. The example's layers are two of these.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        learning_rate: float ≥ 0. Adam's step size. Defaults to 0.001, one of the candidates of
            `with_best_learning_rate`: no single value is right for all data.
        steps: int ≥ 0. How many steps a task takes. Defaults to 50, as in the authors' code. Its
            documentation takes 100 for Meta-Dataset.
        augment: keras.Layer or None. Augments each support image, as in `ClassDataset.episodes`.
            The random numbers depend on the step and on the image's place in the support set. None
            tunes on the images as they are. Defaults to None.
        initial_scale: float > 0. See `CosinePrototypicalNetwork`. Defaults to 10.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`. A pretrained encoder wants `"running"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Raises:
        ValueError: Also if `augment` is no pure function of images, or the encoder has no weights
            that could be tuned.

    Reference:
        Hu, Li, Stühmer, Kim, Hospedales (2022), Pushing the Limits of Simple Pipelines for Few-Shot
        Learning, https://arxiv.org/abs/2204.07305. Section 3.3 and Algorithm 1. Adam, with β₁ = 0.9
        and β₂ = 0.999 and without weight decay, the classifier and the step sizes to choose from
        are those of the authors' code, https://github.com/hushell/pmf_cvpr22.

    Example:

    >>> import numpy as np, tfmeta
    >>> layers = [keras.layers.RandomTranslation(0.125, 0.125, fill_mode="constant")]
    >>> layers += [keras.layers.RandomContrast(0.5, value_range=(0, 1))]
    >>> encoder = tfmeta.backbones.conv4(None, (28, 28, 1))
    >>> learner = FineTuning(encoder, steps=2, augment=keras.Sequential(layers))
    >>> x = np.random.rand(6, 28, 28, 1).astype("float32")
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        *,
        learning_rate: float = 0.001,
        steps: int = 50,
        augment: keras.Layer | None = None,
        initial_scale: float = 10.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        if learning_rate != 0:
            check_positive("learning_rate", learning_rate)
        check_integer("steps", steps, 0)
        self._augmentation = None
        if augment is not None:
            if not hasattr(encoder, "input_shape"):
                raise ValueError(
                    f"augment needs to know the shape of images, which {encoder!r} does not tell: "
                    "make the encoder with keras.Model(inputs, outputs)."
                )
            self._augmentation = ImageAugmentation(augment, tuple(encoder.input_shape[1:]))
        # Before the base class builds the learner, after which Keras takes no further layer.
        self.augment = augment
        self.learning_rate = learning_rate
        self.steps = steps
        super().__init__(encoder, initial_scale=initial_scale, batch_norm=batch_norm, **kwargs)

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        super().build_comparison(feature_shape)
        if self.steps and self.learning_rate and not self.encoder.trainable_variables:
            raise ValueError(
                f"FineTuning tunes the encoder, but all layers of {self.encoder.name!r} are frozen "
                "(trainable=False): thaw some, or use tfmeta.CosinePrototypicalNetwork."
            )

    # === The contract ===

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Tunes the encoder, and takes the class means. See `MetaLearner.adapt_task`."""
        if training:
            return super().adapt_task(support_x, support_y, support_mask, training, n_way)
        members = self.members(support_y, support_mask, n_way)
        weights, others = values_of(self.encoder)
        if self.steps and self.learning_rate:
            weights, others = self._tuned(support_x, support_y, support_mask, members)
        features, others = self._features(weights, others, support_x, support_mask, "support")
        tuned = {"trainable": weights, "non_trainable": others}
        return self.fitted_state(features, tuned, members)

    def query_features(
        self, statistics: Any, query_x: tf.Tensor, query_mask: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Returns features `[Q, *f]` of the queries, by a task's own encoder outside of `fit`."""
        if not isinstance(statistics, dict):
            return super().query_features(statistics, query_x, query_mask, training)
        values = statistics["trainable"], statistics["non_trainable"]
        return self._features(*values, query_x, query_mask, "queries")[0]

    # === Tuning ===

    def _features(
        self, weights: Tensors, others: Tensors, x: tf.Tensor, mask: tf.Tensor | None, part: Part
    ) -> tuple[tf.Tensor, Tensors]:
        """Returns features `[N, *f]` by a task's weights, and the new non-trainable values."""
        features, others = call_network(
            self.encoder,
            weights,
            others,
            x,
            normalization=normalization(self.batch_norm, part, training=False),
            mask=mask,
        )
        return tf.cast(features, self.variable_dtype), others

    def _tuned(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None,
        members: tf.Tensor,
    ) -> tuple[Tensors, Tensors]:
        """Returns the encoder's trainable and other values after the steps.

        They are a loop of the graph, as no gradient goes through them.
        """
        start, others = values_of(self.encoder)
        variables = self.encoder.trainable_variables
        rule = Adam(beta_1=0.9)
        rule.make(variables, self.learning_rate, self.steps)
        is_missing = tf.cast(tf.reduce_sum(members, axis=0) == 0, self.variable_dtype)

        def step(
            i: tf.Tensor, weights: Tensors, others: Tensors, memory: Any
        ) -> tuple[tf.Tensor, Tensors, Tensors, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                with collecting_losses() as losses:
                    features, others = self._features(
                        weights, others, support_x, support_mask, "inner steps"
                    )
                    augmented, others = self._features(
                        weights, others, self._augmented(support_x, i), support_mask, "inner steps"
                    )
                means = unit(class_means(flat(features), members))
                logits = self._scale(means.dtype) * tf.matmul(
                    unit(flat(augmented)), means, transpose_b=True
                )
                logits = without_missing(logits, is_missing)
                loss = mean_loss(CROSS_ENTROPY, support_y, logits, support_mask)
                added = sum_of(losses, loss.dtype)
                loss = loss if added is None else loss + added
            gradients = gradients_of(tape, loss, weights)
            weights, memory = rule.update(weights, gradients, loss, memory, i)
            return i + 1, constrained(weights, variables), others, memory

        _, weights, others, _ = tf.while_loop(
            lambda i, *_: i < self.steps,
            step,
            (tf.constant(0), start, others, rule.start(start)),
            maximum_iterations=self.steps,
            parallel_iterations=1,
        )
        return weights, others

    def _augmented(self, support_x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Augments each image by random numbers of its place and of the step."""
        if self._augmentation is None:
            return support_x
        place = tf.range(tf.shape(support_x)[0])
        seeds = tf.stack([tf.fill(tf.shape(place), step), place], axis=1)
        augmented = self._augmentation(tf.cast(support_x, tf.float32), seeds)
        return tf.stop_gradient(tf.cast(augmented, support_x.dtype))

    def with_best_learning_rate(
        self,
        episodes: tf.data.Dataset,
        learning_rates: Iterable[float] = LEARNING_RATES,
        *,
        n_batches: int,
        verbose: bool = False,
    ) -> FineTuning:
        """Makes a copy with the step size that is the most accurate on labelled episodes.

        Take episodes of the domain that it will be used in, but of other classes than those of the
        test. Of equally good step sizes, the first is taken.

        Args:
            episodes: tf.data.Dataset. Meta-batches, as `episodes(...)` of a source of data yields
                them.
            learning_rates: iterable of floats ≥ 0. The candidates. Defaults to 0, 0.0001, 0.001 and
                0.01, as in the authors' code, which tries each on five episodes of a domain.
            n_batches: int ≥ 1. How many meta-batches each of them is tried on.
            verbose: bool. Whether to print the accuracies. Defaults to False.

        Returns:
            The learner, not compiled.

        Raises:
            ValueError: If there is no candidate, or `n_batches` is not ≥ 1.
        """
        check_integer("n_batches", n_batches, 1)
        candidates, accuracies = [], []
        for rate in learning_rates:
            learner = clone(self)
            learner.learning_rate = float(rate)
            learner.compile(loss=self.default_loss(), metrics=["accuracy"])
            batches = episodes.take(n_batches)
            accuracy = learner.evaluate(batches, verbose=0, return_dict=True)["accuracy"]
            if verbose:
                print(f"learning_rate {rate:g}: accuracy {accuracy:.4f}")
            candidates.append(float(rate))
            accuracies.append(accuracy)
        if not candidates:
            raise ValueError("learning_rates must have at least one step size; got none.")
        best = clone(self)
        best.learning_rate = candidates[int(np.argmax(accuracies))]
        return best

    # === What others want to know ===

    def task_encoder(self, statistics: Any) -> keras.Model | None:
        """Makes a copy of the encoder with the task's weights; None as in `MetricLearner`."""
        if not isinstance(statistics, dict):
            return super().task_encoder(statistics)
        if normalises_together(self.batch_norm, self.encoder):
            return None
        return copy_with_values(self.encoder, statistics["trainable"], statistics["non_trainable"])

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns an empty list: the state holds the values of all variables of the encoder."""
        return []
