"""An inner rule, with the weights of a network that it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfmeta.inner_rules import InnerRule


class MadeRule:
    """Makes the meta-parameters of an inner rule once, and checks that they fit later.

    Args:
        rule: InnerRule. The rule.
    """

    def __init__(self, rule: InnerRule) -> None:
        self._rule = rule
        self._weights: list[Any] | None = None

    def make(self, weights: Sequence[Any], inner_learning_rate: float, inner_steps: int) -> None:
        """Makes the rule's meta-parameters; further calls have no effect. See `InnerRule.make`.

        Raises:
            ValueError: If the rule belongs to another learner.
        """
        if self._weights is not None:
            return
        if self._rule.built:
            raise ValueError(
                f"This {type(self._rule).__name__} object is another learner's: give each "
                "learner an inner rule of its own."
            )
        self._rule.make(weights, inner_learning_rate, inner_steps)
        self._rule.built = True
        self._weights = list(weights)

    def check_weights(self, weights: Sequence[Any], network: keras.Model) -> None:
        """Checks that the rule can change a network's weights.

        Args:
            weights: list. The weights that adapt now. Tensors are not compared with earlier ones.
            network: keras.Model. The network, for an error.

        Raises:
            ValueError: If there are no weights; or layers were frozen, thawed or replaced since the
                rule was made, and the rule has meta-parameters for each weight.
        """
        if not weights:
            all_frozen = not network.trainable_variables
            frozen = "all its layers are frozen" if all_frozen else "only batch norm is trainable"
            raise ValueError(
                f"The network {network.name!r} has no trainable weights that inner steps could "
                f"adapt: {frozen} (trainable=False). Thaw some layers, or compare features of the "
                "frozen network with tfmeta.PrototypicalNetwork."
            )
        if self._weights is None or not (self._rule.variables and self._rule.made_by_weight):
            return
        now, before = (
            [id(w) for w in ws if isinstance(w, keras.Variable)] for ws in (weights, self._weights)
        )
        if now != before:
            raise ValueError(
                f"Layers of {network.name!r} were frozen, thawed or replaced (trainable=) after "
                f"this learner was made, whose inner rule {type(self._rule).__name__} has "
                "meta-parameters for each weight: undo that, or make a new learner of the network "
                "as it is now."
            )

    def check_steps(self, steps: int) -> None:
        """Raises a ValueError if the rule is not defined for so many inner steps."""
        most = self._rule.max_inner_steps
        if most is not None and steps > most:
            raise ValueError(
                f"The inner rule {type(self._rule).__name__} is defined for up to {most} "
                f"inner steps, those of meta-training; got {steps}."
            )
