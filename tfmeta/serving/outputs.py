"""The named outputs of a signature that predicts."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmeta.learners.output_kinds import by_class
from tfmeta.serving.requests import finite

# The name of the output for the model's predictions, by the model's output kind. Predictions in one
# column for two classes get a column for each.
OUTPUTS = {
    "logits": "logits",
    "scores": "scores",
    "binary_logits": "logits",
    "binary_scores": "scores",
    "values": "predictions",
}


def named_outputs(
    predictions: tf.Tensor,
    output_kind: str,
    inputs: str,
    class_names: Sequence[str] | None = None,
) -> dict[str, tf.Tensor]:
    """Returns the outputs of a signature by name.

    Args:
        predictions: float tensor `[…, n_way]` or `[…, *y]`. What the model returned.
        output_kind: str. A key of `OUTPUTS`; logits are also returned as probabilities, and
            predictions of two classes in one column get a column for each.
        inputs: str. The names of the inputs, for the error about predictions that are not finite.
        class_names: sequence of str or None. The names of the first classes, which are then the
            only ones returned. Defaults to None.
    """
    predictions, kind = by_class(predictions, output_kind)
    if class_names is not None:
        predictions = predictions[..., : len(class_names)]
    predictions = finite(f"the predictions for {inputs}", predictions)
    outputs = {OUTPUTS[kind]: predictions}
    if kind == "logits":
        outputs["probabilities"] = tf.nn.softmax(predictions)
    if class_names is not None:
        outputs["classes"] = tf.repeat([list(class_names)], tf.shape(predictions)[0], axis=0)
    return outputs
