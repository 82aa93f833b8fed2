"""The facts about a learner that its own file does not hold."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmeta.data.images import ImageFormat


@dataclasses.dataclass(frozen=True)
class About:
    """Everything that is known about a learner besides the learner itself.

    Attributes:
        example_shape: Shape of one example; None if the network does not tell it.
        image_format: How image files become examples; None if the examples are not images.
        recipe: The recipe that the learner was trained by, as a dictionary; None if there was none.
    """

    example_shape: list[int] | None
    image_format: ImageFormat | None
    recipe: dict[str, Any] | None
