"""SimpleShot: the nearest class mean of centred, L2-normalised features."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer
from tfmeta.data.class_dataset import ClassDataset
from tfmeta.learners.comparisons import Comparison, negative_squared_distances, unit
from tfmeta.learners.feature_head import FeatureHead, Head, class_means
from tfmeta.learners.metric_learner import flat
from tfmeta.learners.task_inputs import one_array
from tfmeta.networks import BatchNorm


@keras.saving.register_keras_serializable("tfmeta")
class SimpleShot(FeatureHead):
    """Classifies a query by the nearest class mean of centred, L2-normalised features.

    The mean feature of the base classes, `feature_mean`, is a weight that no gradient changes: give
    `set_feature_mean` the data on which the encoder was trained. Until then it is zero, which is
    the paper's variant L2N; with it, the learner is the paper's CL2N.

    `fit` trains the encoder in episodes with a zero mean, and is refused once the mean is set: a
    trained encoder has other features, and the mean would no longer be theirs.

    Deviations from the paper: there the encoder is trained by ordinary classification of the base
    classes, not in episodes. Bring such an encoder, and do not call `fit`. The paper takes the
    nearest mean and defines no probabilities; here they are a softmax of the negative squared
    distances.

    Args:
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features of any shape.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`. A pretrained encoder wants `"running"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

    Attributes:
        feature_mean: keras.Variable `[d]`. The mean feature of the base classes.

    Reference:
        Wang, Chao, Weinberger, van der Maaten (2019), SimpleShot: Revisiting Nearest-Neighbor
        Classification for Few-Shot Learning, https://arxiv.org/abs/1911.04623. Section 3: with
        z(x) = (f(x) − x̄) / ‖f(x) − x̄‖ and c_k the mean of z over class k, a query belongs to the
        class of the nearest c_k. The logits are −‖z(x) − c_k‖².

    Example:

    >>> import numpy as np, tfmeta
    >>> rng = np.random.default_rng(0)
    >>> base, x = rng.random((50, 8), "float32"), rng.random((6, 8), "float32")
    >>> identity = keras.Sequential([keras.Input((8,)), keras.layers.Identity()])
    >>> learner = SimpleShot(identity)
    >>> learner.set_feature_mean(base)
    >>> learner.adapt(x, np.arange(6) % 3).predict(x, verbose=0).shape
    (6, 3)
    """

    def __init__(
        self, encoder: keras.Model, *, batch_norm: BatchNorm = "transductive", **kwargs: Any
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if not hasattr(self, "feature_mean"):
            self.feature_mean = self.add_weight(
                shape=(int(np.prod(feature_shape)),),
                initializer="zeros",
                trainable=False,
                name="feature_mean",
            )

    # === The mean of the base classes ===

    def set_feature_mean(
        self, data: ClassDataset | Any, *, batch_size: int = 32, verbose: int = 0
    ) -> None:
        """Sets `feature_mean` to the mean feature of the base classes' examples.

        Every example counts once, as in the paper. With batch norm in another mode than
        `"running"`, the examples, in a fixed random order, are normalised in batches.

        Args:
            data: ClassDataset, array `[N, *x]` of floats, or None. The examples; None sets the mean
                to zero.
            batch_size: int ≥ 1. How many examples are embedded at once. Defaults to 32.
            verbose: int. 0 for silence, 1 for Keras's progress bar. Defaults to 0.

        Raises:
            ValueError: If there are no examples, they have another shape than the encoder takes, or
                their mean feature is not finite.
        """
        check_integer("batch_size", batch_size, 1)
        if data is None:
            if self.built:
                self.feature_mean.assign(tf.zeros_like(self.feature_mean))
            return
        if isinstance(data, ClassDataset):
            rows, shape = np.concatenate([*data.rows, np.zeros(0, np.int64)]), data.example_shape
            fetch = data.fetch
        else:
            examples = one_array("data", data)
            if not np.issubdtype(examples.dtype, np.floating):
                raise ValueError(
                    f"The examples must be floats, pixels from 0 to 1; got {examples.dtype}."
                )
            rows, shape = np.arange(len(examples)), examples.shape[1:]

            def fetch(rows: tf.Tensor) -> tf.Tensor:
                return tf.constant(examples[rows.numpy()])

        if not len(rows):
            raise ValueError("feature_mean is a mean over examples, but there are none.")
        if self.example_shape not in (None, tuple(shape)):
            raise ValueError(
                f"The encoder takes examples of shape {self.example_shape}, but the data have "
                f"examples of shape {tuple(shape)}."
            )
        if not self.built:
            self.build({"support_x": (None, None, *shape)})

        def embedded(examples: tf.Tensor) -> tf.Tensor:
            features, _ = self.support_features(examples, None, training=False)
            return tf.cast(flat(features), tf.float64)

        order = np.random.default_rng(0).permutation(rows)
        # One trace, for a batch of any size.
        spec = tf.TensorSpec([None, *shape], fetch(tf.constant(order[:1])).dtype)
        function = tf.function(embedded, autograph=False).get_concrete_function(spec)
        bar = keras.utils.Progbar(len(rows), verbose=verbose, unit_name="example")
        total = np.zeros(self.feature_mean.shape)
        for batch in np.split(order, range(batch_size, len(order), batch_size)):
            total += function(fetch(tf.constant(batch))).numpy().sum(axis=0)
            bar.add(len(batch))
        mean = total / len(rows)
        if not np.isfinite(mean).all():
            raise ValueError("The mean feature is not finite: look for NaN in the examples.")
        self.feature_mean.assign(mean)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Meta-trains the encoder; see `tfmeta.MetaLearner`.

        Raises:
            ValueError: If `feature_mean` is set, and in other cases of `MetaLearner.fit`.
        """
        self._check_mean_is_zero()
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Takes one step; see `keras.Model.train_on_batch`, and `fit`."""
        self._check_mean_is_zero()
        return super().train_on_batch(*args, **kwargs)

    def _check_mean_is_zero(self) -> None:
        if self.built and self.trainable_variables and np.any(self.feature_mean):
            raise ValueError(
                "Training changes the encoder, and feature_mean would no longer be the mean of its "
                "features: call set_feature_mean(None), train, and then set it again."
            )

    # === The algorithm ===

    def fit_head(self, features: tf.Tensor, members: tf.Tensor) -> Head:
        mean = tf.convert_to_tensor(self.feature_mean)
        return {
            "feature_mean": tf.cast(mean, features.dtype),
            "centroids": class_means(unit(features - tf.cast(mean, features.dtype)), members),
        }

    def head_logits(self, head: Head, features: Any, compare: Comparison) -> Any:
        features = unit(compare.shifted(features, head["feature_mean"]))
        return negative_squared_distances(
            features, head["centroids"], compare.product, compare.shifted
        )

    def variables_of_predict(self) -> list[keras.Variable]:
        """Returns the variables of the encoder: the state holds the mean."""
        return self.encoder.variables
