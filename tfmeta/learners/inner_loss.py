"""The base class of learners whose inner loss tells what their network's outputs mean."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.learners.inner_batches import mean_loss, power_of_two_scale
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.output_kinds import (
    OutputKind,
    check_loss_of_tasks,
    check_outputs,
    n_classes,
    output_kind,
    targets_of,
)
from tfmeta.learners.task_inputs import (
    check_binary_labels,
    check_labels,
    check_one_hot_labels,
    check_targets,
)
from tfmeta.networks import computes_in


class InnerLoss(MetaLearner):
    """Base class: the loss of a support set tells what the network's outputs mean.

    Args:
        inner_loss: Any Keras loss; sparse categorical cross-entropy from logits if None.
        **kwargs: As in `MetaLearner`: `task_mapping`, `tasks_at_once`, `name`, `dtype`.
    """

    def __init__(self, inner_loss: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner_loss = keras.losses.get(
            inner_loss
        ) or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        check_loss_of_tasks(self.inner_loss)

    @property
    def output_kind(self) -> OutputKind:
        """The kind of outputs that the inner loss takes."""
        return output_kind(self.inner_loss)

    def check_outputs(self, shape: tuple[int | None, ...], name: str) -> None:
        """Checks what a network returns for one example, and notes how many classes it tells apart.

        Args:
            shape: tuple of int. The shape of the output.
            name: str. The network's name.

        Raises:
            ValueError: If the outputs do not fit the inner loss.
        """
        check_outputs(self.inner_loss, shape, name, in_use=False)
        if self.output_kind != "values" and shape and shape[-1] is not None:
            self.n_classes = n_classes(self.output_kind, shape[-1])

    def default_loss(self) -> keras.losses.Loss:
        """Returns the published loss, which takes the same predictions as the inner loss."""
        losses, kind = keras.losses, self.output_kind
        loss = {"one-hot": losses.CategoricalCrossentropy, "binary": losses.BinaryCrossentropy}.get(
            targets_of(self.inner_loss), losses.SparseCategoricalCrossentropy
        )
        return loss(from_logits=not kind.endswith("scores"))

    def loss_to_compile(self) -> Any:
        return self.inner_loss if self.output_kind == "values" else self.default_loss()

    def check_task(self, support_x: np.ndarray, support_y: np.ndarray) -> None:
        targets = targets_of(self.inner_loss)
        network = self.input_network()
        if targets == "values" and network is not None and computes_in(network, "float16"):
            largest = np.abs(support_y.astype("float64")).max(initial=0)
            if largest > np.finfo("float16").max:
                raise ValueError(
                    "Targets must be finite in float16, in which the network computes: scale them, "
                    f'or take the dtype policy "mixed_bfloat16"; got up to {largest:.4g}.'
                )
        shape = self.prediction_shape(support_x.shape[1:])
        if targets == "values" or shape is None:
            y = tf.TensorSpec(support_y.shape)
            outputs = tf.TensorSpec([len(support_y), *(shape or ())])
            check_targets("support_y", self.inner_loss, y, None if shape is None else outputs)
            return
        check_outputs(self.inner_loss, shape, "base network")
        try:
            if targets == "binary":
                check_binary_labels(support_y)
            elif targets == "one-hot":
                check_one_hot_labels(support_y, shape[-1])
            else:
                check_labels(support_y, shape[-1])
        except ValueError as error:
            raise ValueError(
                f'{error} For regression, give the learner another inner_loss=, for example "mse".'
            ) from None

    def as_targets(self, support_y: np.ndarray) -> np.ndarray:
        targets = targets_of(self.inner_loss)
        if targets == "binary":
            return support_y.reshape(-1).astype("int64")
        if support_y.ndim == 1 and targets == "one-hot" and self.n_classes is not None:
            return np.eye(self.n_classes, dtype=self.variable_dtype)[support_y]
        if support_y.ndim == 1 and targets == "values":
            return support_y[:, None]
        return support_y

    def support_loss(
        self, support_y: tf.Tensor, predictions: tf.Tensor, support_mask: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns the mean inner loss of a support set.

        Args:
            support_y: tf.Tensor `[S, …]`.
            predictions: tf.Tensor `[S, n_way]` or `[S, *y]`.
            support_mask: tf.Tensor `[S]` or None. 0 for padding.

        Raises:
            ValueError: If the targets' shape does not fit the predictions'.
        """
        if support_y.shape.rank not in (predictions.shape.rank - 1, predictions.shape.rank):
            raise ValueError(
                f"support_y {tuple(support_y.shape)} does not fit the network's predictions "
                f"{tuple(predictions.shape)} for one task."
            )
        check_outputs(self.inner_loss, tuple(predictions.shape[1:]), "base network")
        check_targets("support_y", self.inner_loss, support_y, predictions)
        return mean_loss(
            self.inner_loss, support_y, tf.cast(predictions, self.variable_dtype), support_mask
        )

    def loss_scale(
        self,
        network: keras.Model,
        support_y: tf.Tensor,
        predictions: tf.Tensor,
        support_mask: tf.Tensor | None,
    ) -> tf.Tensor | None:
        """Returns by what to multiply a loss before its gradient passes through a network.

        Args:
            network: keras.Model. The network.
            support_y: tf.Tensor. As in `support_loss`; likewise the next two.
            predictions: tf.Tensor.
            support_mask: tf.Tensor or None.

        Returns:
            A power of two, by which the gradient must be divided again; None if no layer of the
            network computes in float16.
        """
        if not computes_in(network, "float16"):
            return None
        return power_of_two_scale(
            lambda p: self.support_loss(support_y, p, support_mask),
            tf.cast(predictions, self.variable_dtype),
        )
