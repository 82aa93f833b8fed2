"""Facts that belong to a learner: its examples and its recipe."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmeta.data.images import ImageFormat


@dataclasses.dataclass(frozen=True)
class About:
    """Facts about a learner that its own file does not hold.

    Attributes:
        example_shape: list of int or None. Shape of one example; None if it is not known.
        image_format: `ImageFormat` or None. How image files become examples; None if the examples
            are not images.
        recipe: dict or None. The recipe that the learner was trained by; None if there was none.
    """

    example_shape: list[int] | None
    image_format: ImageFormat | None
    recipe: dict[str, Any] | None
