"""Recipes: YAML files that say how a learner is meta-trained and tested.

Reading and checking a recipe does not import TensorFlow; `tfmeta.recipes.plan` builds what a recipe
describes.
"""

from __future__ import annotations

from tfmeta.recipes.schema import Recipe

__all__ = ["Recipe"]
