"""Matching Networks: a query takes the labels of the support examples that it attends to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.adapted_model import repeated
from tfmeta.learners.functional import BatchNorm, check_integer
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.metric_learner import MetricLearner, flat


@keras.saving.register_keras_serializable("tfmeta")
class MatchingNetwork(MetricLearner):
    """Predicts a mean of the support set's labels, weighted by attention.

    Predictions are the logarithms of the weighted mean of the one-hot labels, and so logits. For
    regression, with targets `[T, S, d]`, they are the weighted mean of the targets.

    Deviations from the paper: a constant of 1e-7 under the logarithm. With full-context embeddings
    the bidirectional LSTM reads the support set in the order in which it comes, random in an
    episode; the paper leaves open the order, the number of processing steps, and the attending
    LSTM's start (here zeros, so that it first reads the support set's plain mean).

    Args:
        encoder: Any Keras 3 model from `[N, *x]` to features.
        full_context: Whether the features of a support example depend on the whole support set,
            through a bidirectional LSTM, and those of a query, too, through an LSTM that attends
            to it. The support set's order then matters.
        processing_steps: Steps K of the attending LSTM.
        temperature: What cosines are divided by before the attention's softmax, > 0. As published,
            1 bounds the attention: the one right example among 5 gets at most 65 %, of features
            that are not negative 40 %. Less sharpens it, and trains faster.
        batch_norm: How `BatchNormalization` layers normalise; see `tfmeta.MAML`.
        **kwargs: As in `keras.Model`: `name`, `dtype`. The dtype defaults to the encoder's.

    Reference:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra (2016), Matching Networks for One Shot
        Learning, https://arxiv.org/abs/1606.04080. Equation (1): ŷ = Σ_i a(x, x_i) y_i, with the
        attention a = softmax_i cos(f(x), g(x_i)) of section 2.1.1, there without a temperature;
        full-context embeddings: equations (2) to (6), and (7) of the appendix.

    Example:

    >>> import numpy as np, tfmeta
    >>> learner = MatchingNetwork(tfmeta.backbones.conv4(None, (28, 28, 1)))
    >>> learner.compile("adam", learner.default_loss(), metrics=["accuracy"])
    >>> x, y = np.random.rand(60, 28, 28, 1).astype("float32"), np.arange(60) % 3
    >>> episodes = tfmeta.data.load((x, y)).episodes(n_way=3, n_shot=5, n_query=5)
    >>> history = learner.fit(episodes, steps_per_epoch=1, shuffle=False, verbose=0)
    >>> learner.adapt(x[:10], y[:10]).predict(x[:7], verbose=0).shape
    (7, 3)
    """

    def __init__(
        self,
        encoder: keras.Model,
        full_context: bool = False,
        processing_steps: int = 5,
        temperature: float = 1.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_integer("processing_steps", processing_steps, 1)
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0; got {temperature}.")
        super().__init__(encoder, batch_norm, **kwargs)
        self.full_context = full_context
        self.processing_steps = processing_steps
        self.temperature = temperature
        self.build_if_possible()

    def build_comparison(self, feature_shape: tuple[int, ...]) -> None:
        if not self.full_context or hasattr(self, "support_lstm"):
            return
        n_features = int(np.prod(feature_shape))
        dtype = self.variable_dtype
        self.support_lstm = keras.layers.Bidirectional(
            keras.layers.LSTM(n_features, return_sequences=True, dtype=dtype),
            merge_mode="sum",
            dtype=dtype,
        )
        self.support_lstm.build((None, None, n_features))
        self.query_lstm = keras.layers.LSTMCell(n_features, dtype=dtype)
        self.query_lstm.build((None, 2 * n_features))

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> dict[str, Any]:
        """The support set's features and labels. See `MetaLearner.adapt_task`."""
        features, statistics = self.support_features(support_x, support_mask, training)
        features = flat(features)
        exists = tf.ones(tf.shape(features)[:1]) if support_mask is None else support_mask
        if self.full_context:
            mask = tf.cast(exists, tf.bool)[None]
            features += self.support_lstm(features[None], mask=mask, training=training)[0]
        state = {
            "support": features,
            "exists": tf.cast(exists, self.variable_dtype),
            "statistics": statistics,
        }
        if support_y.shape.rank == 1:
            return {**state, "labels": self.members(support_y, support_mask)}
        return {**state, "targets": tf.cast(support_y, self.variable_dtype)}

    def predict_task(
        self,
        state: dict[str, Any],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Log-probabilities, or regression values. See `MetaLearner.predict_task`."""
        features = self.query_features(state["statistics"], query_x, query_mask, training)
        cell = self.query_lstm if self.full_context else None
        return self._predict(state, flat(features), state["support"], cell)

    def _predict(self, state: dict[str, Any], features: Any, support: Any, cell: Any) -> Any:
        """Predictions, from features `[Q, d]` and those of the support `[S, d]` or `[Q, S, d]`."""
        absent = (1 - state["exists"]) * -1e9

        def attend(similarities: Any) -> Any:
            return keras.ops.softmax(similarities + absent, axis=-1)

        if cell is not None:
            features = self._in_context(features, support, cell, attend)
        normalised = keras.ops.normalize(features, axis=-1)[:, None]
        cosines = keras.ops.sum(normalised * keras.ops.normalize(support, axis=-1), axis=-1)
        attention = attend(cosines / self.temperature)
        if "targets" in state:
            return keras.ops.tensordot(attention, state["targets"], axes=[[1], [0]])
        return keras.ops.log(keras.ops.matmul(attention, state["labels"]) + 1e-7)

    def _in_context(
        self, features: Any, support: Any, cell: keras.layers.LSTMCell, attend: Callable[[Any], Any]
    ) -> Any:
        """Equations (3) to (6)."""
        hidden, memory = keras.ops.zeros_like(features), keras.ops.zeros_like(features)
        for _ in range(self.processing_steps):
            attention = attend(keras.ops.sum(hidden[:, None] * support, axis=-1))
            read = keras.ops.sum(attention[..., None] * support, axis=1)
            # A cell that gets [x; r] and h has the same gates as the paper's with x and [h; r].
            _, (hidden, memory) = cell(
                keras.ops.concatenate([features, read], axis=-1), [hidden, memory]
            )
            hidden = hidden + features
        return hidden

    def adapt(
        self, support_x: Any, support_y: Any, class_names: Sequence[str] | None = None
    ) -> keras.Model:
        """Learns one task, for good. See `MetaLearner.adapt`."""
        if np.ndim(support_y) > 1:
            return MetaLearner.adapt(self, support_x, support_y, class_names)
        return super().adapt(support_x, support_y, class_names)

    def adapted_model(self, state: dict[str, Any]) -> keras.Model:
        """A plain Keras model: a copy of the encoder, and attention over the support set."""
        encoder = self.task_encoder(state["statistics"])
        if encoder is None:
            return super().adapted_model(state)
        x = keras.Input(encoder.input_shape[1:], dtype=self.variable_dtype)
        features = keras.layers.Flatten(dtype=self.variable_dtype)(encoder(x))
        cell = None
        if self.full_context:
            cell = keras.layers.LSTMCell.from_config(self.query_lstm.get_config())
            cell.build((None, 2 * features.shape[-1]))
            cell.set_weights(self.query_lstm.get_weights())
        # As NumPy's arrays: a TensorFlow tensor would become an input of the model's ONNX file.
        constants = {k: np.asarray(state[k]) for k in state.keys() - {"support", "statistics"}}
        outputs = self._predict(constants, features, repeated(features, state["support"]), cell)
        return keras.Model(x, outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "full_context": self.full_context,
            "processing_steps": self.processing_steps,
            "temperature": self.temperature,
        }
