"""Functions of TensorFlow Addons, whose last release does not import beside Keras 3.

They need the extra `tfmeta[addons]`, on Python 3.11. The sections are those of TensorFlow Addons,
with the functions of tensors that were tried with today's TensorFlow: see `FUNCTIONS`. Its layers,
optimizers, metrics and loss classes are for Keras 2, and its compiled operations for TensorFlow
2.15; they are left out. `docs/addons.md` names what Keras 3 has instead. As in TensorFlow Addons,
`blend`, `equalize` and `sharpness` take pixels from 0 to 255, all others any.

Nothing else changes in the process: `tf.keras` stays Keras 3, and `tf_keras` is not needed.

Example (with the extra)::

    from tfmeta.addons import image, losses

    turned = image.rotate(images, angles=0.3, interpolation="bilinear")
    encoder.compile("adam", loss=losses.triplet_semihard_loss)
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from tfmeta import keras_internals

PACKAGE = "tensorflow_addons"

# By section: functions of tensors that run eagerly and in a graph.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "activations": (
        *("hardshrink", "lisht", "mish", "snake", "softshrink", "sparsemax", "tanhshrink"),
    ),
    "image": (
        *("angles_to_projective_transforms", "blend", "compose_transforms", "cutout"),
        *("dense_image_warp", "equalize", "gaussian_filter2d", "interpolate_bilinear"),
        *("interpolate_spline", "mean_filter2d", "median_filter2d", "random_cutout", "rotate"),
        *("sharpness", "sparse_image_warp", "transform", "translate"),
    ),
    "losses": (
        *("contrastive_loss", "giou_loss", "lifted_struct_loss", "npairs_loss"),
        *("npairs_multilabel_loss", "pinball_loss", "sigmoid_focal_crossentropy"),
        *("sparsemax_loss", "triplet_hard_loss", "triplet_semihard_loss"),
    ),
}


def __getattr__(name: str) -> Any:
    """Imports a section when it is first used (PEP 562)."""
    if name not in FUNCTIONS:
        raise AttributeError(
            f"tfmeta.addons has the sections {', '.join(FUNCTIONS)}; it has no {name!r}."
        )
    globals()[name] = section = _section(name)
    return section


def __dir__() -> list[str]:
    """Lists the sections, including those that were not imported yet."""
    return sorted({*globals(), *FUNCTIONS})


def _section(name: str) -> types.ModuleType:
    """Returns a module of the functions of one section.

    Raises:
        ImportError: If TensorFlow Addons is not installed.
    """
    source = _imported(name)
    section = types.ModuleType(f"{__name__}.{name}", f"Functions of {PACKAGE}.{name}.")
    for function in FUNCTIONS[name]:
        setattr(section, function, getattr(source, function))

    def missing(attribute: str) -> Any:
        raise AttributeError(
            f"tfmeta.addons.{name} has no {attribute!r}. It has {', '.join(FUNCTIONS[name])}."
        )

    section.__getattr__ = missing  # type: ignore[method-assign]
    return section


def _imported(name: str) -> types.ModuleType:
    """Imports a part of TensorFlow Addons without the whole, which needs Keras 2."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ImportError(
                "tfmeta.addons needs TensorFlow Addons, whose last release is for Python up to "
                "3.11: pip install 'tfmeta[addons]' with Python 3.11; this is Python "
                f"{sys.version_info.major}.{sys.version_info.minor}. Without it, docs/addons.md "
                "names what Keras 3 has instead."
            )
        sys.modules[PACKAGE] = _part_of_the_package(Path(spec.origin).parent)
    with keras_internals.with_tensors_of_keras_2():
        return importlib.import_module(f"{PACKAGE}.{name}")


def _part_of_the_package(folder: Path) -> types.ModuleType:
    """Returns a package of the same modules, whose own file is not run: it imports them all."""
    package = types.ModuleType(PACKAGE, "The part of TensorFlow Addons that tfmeta.addons needs.")
    package.__path__ = [str(folder)]

    def missing(name: str) -> Any:
        raise AttributeError(
            f"{PACKAGE} was imported by tfmeta.addons, without {name!r}, which needs Keras 2."
        )

    package.__getattr__ = missing  # type: ignore[method-assign]
    return package
