"""The handwritten digits of scikit-learn."""

from __future__ import annotations

from tfmeta.data.class_dataset import ClassDataset
from tfmeta.data.splits import split_classes


def digits(split: str = "train") -> ClassDataset:
    """The 1,797 handwritten digits of scikit-learn, 8×8, ink = 1.

    Args:
        split: str. "train" (four digits), "validation" (two), "test" (four) or "all". Defaults to
            "train".

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If there is no such split.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'The digits come with scikit-learn: pip install "tfmeta[digits]".'
        ) from error
    data = load_digits()
    whole = ClassDataset.from_arrays(
        data.images[..., None] / 16,
        data.target,
        [str(k) for k in range(10)],
        source={"name": "digits", "split": split},
    )
    return whole.subset(split_classes(whole.class_names, split, (4, 2)))
