"""Matching Networks: a query takes the labels of the support examples that it attends to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmeta.checks import check_integer, check_positive
from tfmeta.learners.metric_learner import MetricLearner, flat
from tfmeta.learners.output_kinds import OutputKind
from tfmeta.networks import BatchNorm, constant_products, prepare_recurrence


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
        encoder: keras.Model. Any Keras 3 model from `[N, *x]` to features.
        full_context: bool. Whether the features of a support example depend on the whole support
            set, through a bidirectional LSTM, and those of a query, too, through an LSTM that
            attends to it. The support set's order then matters. Defaults to False.
        processing_steps: int ≥ 1. Steps K of the attending LSTM. Defaults to 5.
        temperature: float > 0. Cosines are divided by it before the attention's softmax. The
            published 1 bounds the attention: the one right example among 5 gets at most 65 %, of
            features that are not negative 40 %. Less sharpens it, and trains faster. Defaults to 1.
        batch_norm: str. How `BatchNormalization` layers normalise; see `tfmeta.MAML`. Defaults to
            `"transductive"`.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`. The dtype
            defaults to the encoder's.

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
        *,
        full_context: bool = False,
        processing_steps: int = 5,
        temperature: float = 1.0,
        batch_norm: BatchNorm = "transductive",
        **kwargs: Any,
    ) -> None:
        check_integer("processing_steps", processing_steps, 1)
        check_positive("temperature", temperature)
        super().__init__(encoder, batch_norm=batch_norm, **kwargs)
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
        prepare_recurrence(self.support_lstm)
        self.query_lstm = keras.layers.LSTMCell(n_features, dtype=dtype)
        self.query_lstm.build((None, 2 * n_features))

    def adapt_task(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        support_mask: tf.Tensor | None = None,
        training: bool = False,
        n_way: tf.Tensor | None = None,
    ) -> dict[str, Any]:
        """Keeps the support set's features and labels. See `MetaLearner.adapt_task`."""
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
            return {**state, "labels": self.members(support_y, support_mask, n_way)}
        return {**state, "targets": tf.cast(support_y, self.variable_dtype)}

    def predict_task(
        self,
        state: dict[str, Any],
        query_x: tf.Tensor,
        query_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns log-probabilities, or regression values. See `MetaLearner.predict_task`."""
        features = flat(self.query_features(state["statistics"], query_x, query_mask, training))
        # float16 cannot represent -1e9.
        exists = tf.convert_to_tensor(state["exists"])
        absent = (1 - exists) * max(-1e9, float(exists.dtype.min))
        steps = _Steps(
            tf.matmul,
            lambda similarities: tf.nn.softmax(similarities + absent),
            self.query_lstm if self.full_context else None,
        )
        return self._predict(state, features, steps)

    def _predict(self, state: dict[str, Any], features: Any, steps: _Steps) -> Any:
        """Predicts queries of features `[Q, d]`.

        Queries and support set only meet in products of matrices, so that memory does not grow with
        the features of all pairs.
        """
        support = state["support"]
        if steps.cell is not None:
            features = self._in_context(features, support, steps)
        directions = tf.transpose(keras.ops.normalize(support, axis=-1))
        cosines = steps.product(keras.ops.normalize(features, axis=-1), directions)
        attention = steps.attend(cosines / self.temperature)
        if "labels" in state:
            return keras.ops.log(steps.product(attention, state["labels"]) + 1e-7)
        targets = state["targets"]
        values = steps.product(attention, tf.reshape(targets, [tf.shape(targets)[0], -1]))
        return keras.ops.reshape(values, (-1, *targets.shape[1:]))

    def _in_context(self, features: Any, support: tf.Tensor, steps: _Steps) -> Any:
        """Returns the queries' features in the context of the support set: equations (3) to (6)."""
        transposed = tf.transpose(support)
        hidden, memory = keras.ops.zeros_like(features), keras.ops.zeros_like(features)
        for _ in range(self.processing_steps):
            read = steps.product(steps.attend(steps.product(hidden, transposed)), support)
            # The gates for the input [x; r] and the state h equal the paper's for x and [h; r].
            _, (hidden, memory) = steps.cell(
                keras.ops.concatenate([features, read], axis=-1), [hidden, memory]
            )
            hidden = hidden + features
        return hidden

    def plain_model(self, state: dict[str, Any]) -> keras.Model | None:
        """Makes a copy of the encoder, followed by attention over the support set."""
        encoder = self.task_encoder(state["statistics"])
        if encoder is None:
            return None
        x = keras.Input(encoder.input_shape[1:], dtype=self.variable_dtype)
        features = keras.layers.Flatten(dtype=self.variable_dtype)(encoder(x))
        cell = None
        if self.full_context:
            cell = keras.layers.LSTMCell.from_config(self.query_lstm.get_config())
            cell.build((None, 2 * features.shape[-1]))
            cell.set_weights(self.query_lstm.get_weights())
        steps = _Steps(constant_products(), lambda s: keras.ops.softmax(s, axis=-1), cell)
        return keras.Model(x, self._predict(state, features, steps))

    def output_kind_of(self, support_y: np.ndarray | tf.Tensor) -> OutputKind:
        return "logits" if len(support_y.shape) == 1 else "values"


class _Steps(NamedTuple):
    """The steps of a prediction, which differ in a graph and in a plain model of one task.

    Attributes:
        product: function from a tensor `[Q, m]` and a matrix of the task, `[m, n]`, to `[Q, n]`.
        attend: function from similarities `[Q, S]` to the attention, which sums to 1.
        cell: keras.layers.LSTMCell or None. The attending LSTM's, for full-context embeddings.
    """

    product: Callable[[Any, tf.Tensor], Any]
    attend: Callable[[Any], Any]
    cell: Any
