"""Data sets of classes, from which classification episodes are drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmeta import tensorflow_internals
from tfmeta.data.augmentation import ImageAugmentation, image_augmentations, with_seeds
from tfmeta.data.class_arrays import checked_arrays
from tfmeta.data.class_episodes import EpisodeDescriber, Part
from tfmeta.data.episode_parts import check_enough, parts_of_episodes
from tfmeta.data.groups import Groups, rows_of_groups
from tfmeta.data.images import ImageFormat
from tfmeta.data.pipeline import (
    Restart,
    Size,
    at_step,
    check_size,
    episode_index,
    episode_pipeline,
    restartable,
)


class ClassDataset:
    """Examples grouped by class, from which N-way K-shot episodes are drawn.

    `tfmeta.data.load` makes it.

    Args:
        class_names: sequence of str. A name for each class.
        rows: sequence of int arrays. For each class the rows of its examples: integers that
            `fetch` understands.
        fetch: function from rows, int64 `[N]`, to their examples, float32 `[N, *x]`. Runs inside
            `tf.data`. If it has a method `explain`, an error of TensorFlow in a loop over episodes
            is given to it first, so that it can raise one that says more.
        example_shape: sequence of int. *x.
        image_format: ImageFormat or None. How image files are read as such examples. Defaults to
            None: the examples are no images.
        source: mapping or None. What the data are and how they were split, for records. Defaults
            to None: nothing is recorded.
        fingerprint: function or None. Returns a version or digest, by which a run notices that the
            data changed. Called only when needed. Defaults to None: there is none.
        groups: sequence of str arrays, or None. For each class the groups of its rows, such as
            who drew them; see `episodes`. Defaults to None: there are none.

    Raises:
        ValueError: If there is not exactly one name for each class, two classes share a name, or
            there is not exactly one group for each row.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        rows: Sequence[np.ndarray],
        fetch: Callable[[tf.Tensor], tf.Tensor],
        example_shape: Sequence[int],
        image_format: ImageFormat | None = None,
        source: Mapping[str, Any] | None = None,
        fingerprint: Callable[[], str] | None = None,
        groups: Sequence[np.ndarray] | None = None,
    ) -> None:
        if len(class_names) != len(rows) or len(set(class_names)) != len(class_names):
            raise ValueError(
                f"Each class needs a name of its own; got {len(rows)} classes and "
                f"{len(set(class_names))} different names."
            )
        self.class_names = list(class_names)
        self.rows = [np.asarray(r, np.int64) for r in rows]
        self.fetch = fetch
        self.example_shape = tuple(example_shape)
        self.image_format = image_format
        self.source = dict(source or {})
        self.fingerprint = fingerprint
        self.groups = None if groups is None else [np.asarray(g, str) for g in groups]
        if self.groups is not None and [*map(len, self.groups)] != [*map(len, self.rows)]:
            raise ValueError("Each row of each class needs one group.")

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        class_names: Sequence[str] | None = None,
        image_format: ImageFormat | None = None,
        source: Mapping[str, Any] | None = None,
        fingerprint: Callable[[], str] | None = None,
        groups: Any = None,
    ) -> ClassDataset:
        """Groups arrays by label.

        Args:
            x: array `[N, *x]`. uint8, the type of pixels, is scaled to [0, 1]; other types become
                float32 as they are, but uint16 is refused, because its range is not known.
            y: array `[N]` of integers or text. Labels.
            class_names: sequence of str, or None. Names of the labels 0, 1, …. Defaults to None:
                the labels themselves.
            image_format: ImageFormat or None. See the class. Defaults to None.
            source: mapping or None. See the class. Defaults to None.
            fingerprint: function or None. See the class. Defaults to None.
            groups: array `[N]` of text, or None. The group of each example. Defaults to None.

        Returns:
            A data set with the classes that have examples, in the order of their labels.

        Raises:
            ValueError: If the lengths differ, the labels are neither integers nor text or have no
                name, or a value is uint16 or not finite as float32.
        """
        x, y = checked_arrays(x, y, class_names)
        order = np.argsort(y, kind="stable")
        if groups is not None and len(groups) != len(y):
            raise ValueError(f"Each of the {len(y)} examples needs one group; got {len(groups)}.")
        labels, counts = np.unique(y, return_counts=True)
        starts = np.cumsum(counts)[:-1]
        with tf.device("CPU"):
            store = tf.constant(x)
        return cls(
            [str(k) if class_names is None else class_names[k] for k in labels],
            np.split(order, starts),
            functools.partial(_rows_of, store),  # It pickles, unlike a function within this one.
            x.shape[1:],
            image_format,
            source,
            fingerprint,
            None if groups is None else np.split(np.asarray(groups, str)[order], starts),
        )

    def __getstate__(self) -> dict[str, Any]:
        if "<locals>" in getattr(self.fetch, "__qualname__", ""):
            raise TypeError(
                f"The data set {self.source} does not pickle, for it reads its examples from where "
                "they lie: send the arguments of tfmeta.data.load instead, and load it there."
            )
        return dict(vars(self))

    def __len__(self) -> int:
        return len(self.class_names)

    def __repr__(self) -> str:
        sizes = [len(r) for r in self.rows] or [0]
        return (
            f"<ClassDataset of {len(self)} classes with {min(sizes)} to {max(sizes)} examples of "
            f"shape {self.example_shape}, {self.source}>"
        )

    def subset(self, class_names: Sequence[str], **source: Any) -> ClassDataset:
        """Makes a data set of only these classes.

        Args:
            class_names: sequence of str. Names of classes, each in this data set.
            **source: Entries to add to `source`.

        Raises:
            ValueError: If a class is not in this data set.
        """
        position = {name: i for i, name in enumerate(self.class_names)}
        groups = self.groups
        unknown = [name for name in class_names if name not in position]
        if unknown:
            raise ValueError(f"No such classes here: {unknown[:5]}.")
        return ClassDataset(
            class_names,
            [self.rows[position[name]] for name in class_names],
            self.fetch,
            self.example_shape,
            self.image_format,
            {**self.source, **source},
            self.fingerprint,
            groups and [groups[position[name]] for name in class_names],
        )

    def drop_small_classes(self, n_examples: int, groups: Groups = None) -> ClassDataset:
        """Makes a data set of only the classes with enough examples.

        Args:
            n_examples: int. The smallest number of examples of a class to keep.
            groups: sequence of str, or None. Only examples of these groups count. Defaults to
                None: all count.

        Raises:
            ValueError: If there are no such groups.
        """
        counted = self.rows
        if groups is not None:
            counted = rows_of_groups(self.rows, self.groups, groups)
        sizes = zip(self.class_names, counted, strict=True)
        return self.subset([name for name, rows in sizes if len(rows) >= n_examples])

    def episodes(
        self,
        n_way: Size = 5,
        n_shot: Size = 1,
        n_query: Size = 15,
        meta_batch_size: int = 4,
        seed: int = 0,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
        *,
        augment: Any = None,
        support_groups: Groups = None,
        query_groups: Groups = None,
        n_unlabelled: int = 0,
        labelled_fraction: float | None = None,
    ) -> tf.data.Dataset:
        """Makes an endless data set of meta-batches of episodes, for `fit`.

        Episode `index` is a pure function of (seed, index), whatever the meta-batch size, machine
        or point of resumption. Each episode draws new classes and labels. Its rows are
        in random order, and no example occurs twice in it.

        Args:
            n_way: int or (low, high). Classes per episode; a range is inclusive. Defaults to 5.
            n_shot: int or (low, high). Support examples per class. Defaults to 1.
            n_query: int or (low, high). Queries per class. Defaults to 15.
            meta_batch_size: int. Episodes per element, T. Defaults to 4.
            seed: int. Seed of the episodes. Defaults to 0.
            start: int. Index of the first episode. To resume after `k` meta-batches, give
                `k * meta_batch_size` (times the number of workers). Defaults to 0.
            shard: (w, W). The share of worker w of W: the indices congruent to w modulo W.
                Defaults to (0, 1): all episodes.
            augment: keras.Layer, function or mapping. Changes images at random: for example
                `keras.layers.RandomRotation(0.1)`, a `keras.Sequential` of such layers, or a
                function of images `[1, height, width, channels]` with a parameter `seed` (int32
                `[2]`). One for all images, or `{"support": …, "query": …}`, of which one may be
                left out. Each image is changed by itself, as (seed, index) say. Defaults to None:
                nothing is changed.
            support_groups: sequence of str, or None. The groups from which the support examples
                come. Defaults to None: all but `query_groups`, or any if that is None, too.
            query_groups: sequence of str, or None. The groups from which the queries come.
                Defaults to None: all but `support_groups`, or any if that is None, too.
            n_unlabelled: int ≥ 0. Unlabelled examples per class, for learners that learn from them,
                such as `tfmeta.MetaGANMAML`. Defaults to 0.
            labelled_fraction: float between 0 and 1, or None. The fraction of each class's examples
                whose labels are used: support examples and queries are drawn from them, and
                unlabelled examples from the others. They are the same ones in all episodes, for
                every seed. Defaults to None: an example may be any of the three.

        Returns:
            A data set of `(inputs, query_y)` with `support_x` `[T, n_way·n_shot, *x]` float32,
            `support_y` `[T, n_way·n_shot]` int32, `query_x` `[T, n_way·n_query, *x]` float32, and
            `query_y` `[T, n_way·n_query]` int32. If a size is a range, it is drawn once per
            meta-batch, the shapes are those of the highest sizes, the inputs have `support_mask`
            and `query_mask`, and the elements are `(inputs, query_y, query_mask)`: Keras takes
            the third as sample weights. With `n_unlabelled`, the inputs have `unlabelled_x`
            `[T, n_way·n_unlabelled, *x]`, too, and `unlabelled_mask` if a size is a range.

        Raises:
            ValueError: If there are too few classes, a class has too few examples, or a size, the
                seed, the start, the shard or a group is invalid; or if `augment` has no seed,
                changes the shape of images, or takes pixels out of [0, 1].
        """
        sizes = {
            "n_way": check_size("n_way", n_way, minimum=2),
            "n_shot": check_size("n_shot", n_shot),
            "n_query": check_size("n_query", n_query),
        }
        ways, shots, queries = (high for _, high in sizes.values())
        if not isinstance(n_unlabelled, int) or n_unlabelled < 0:
            raise ValueError(f"n_unlabelled must be an integer ≥ 0; got {n_unlabelled!r}.")
        parts = parts_of_episodes(
            self.class_names,
            self.rows,
            self.groups,
            {"n_shot": shots, "n_query": queries, "n_unlabelled": n_unlabelled},
            support_groups,
            query_groups,
            labelled_fraction,
        )
        check_enough(self.class_names, ways, parts)
        is_ranged = any(low != high for low, high in sizes.values())
        describe = EpisodeDescriber(ways, shots, queries, parts).describe
        augmentations = image_augmentations(augment, self.example_shape)
        data = episode_pipeline(
            functools.partial(with_seeds, describe) if augmentations else describe,
            functools.partial(
                self._fetch_episodes, is_ranged=is_ranged, augmentations=augmentations
            ),
            sizes,
            meta_batch_size=meta_batch_size,
            seed=seed,
            start=start,
            shard=shard,
        )
        explain = getattr(self.fetch, "explain", None)
        if explain is None:
            return data
        return restartable(
            Restart(
                lambda step: tensorflow_internals.explaining(at_step(data, step), explain),
                functools.partial(episode_index, data),
            )
        )

    def _fetch_episodes(
        self,
        support: Part,
        query: Part,
        unlabelled: Part | None = None,
        *,
        is_ranged: bool,
        augmentations: Mapping[str, ImageAugmentation],
    ) -> Any:
        """Reads the examples of a meta-batch of described episodes."""
        inputs = {
            "support_x": self._fetch_part(support, is_ranged, augmentations.get("support")),
            "support_y": support["y"],
            "query_x": self._fetch_part(query, is_ranged, augmentations.get("query")),
        }
        masks = {"support_mask": support["mask"], "query_mask": query["mask"]}
        if unlabelled is not None:
            # Unlabelled examples are part of the support set, whose images may be changed.
            augmentation = augmentations.get("support")
            inputs["unlabelled_x"] = self._fetch_part(unlabelled, is_ranged, augmentation)
            masks["unlabelled_mask"] = unlabelled["mask"]
        if not is_ranged:
            return inputs, query["y"]
        return {**inputs, **masks}, query["y"], query["mask"]

    def _fetch_part(
        self, part: Part, is_ranged: bool, augmentation: ImageAugmentation | None
    ) -> tf.Tensor:
        """Reads the examples of the support sets or the query sets `[T, rows, *x]`."""
        rows = part["rows"]
        x = self.fetch(tf.reshape(rows, [-1]))
        if augmentation is not None:
            x = augmentation(x, tf.reshape(part["seeds"], [-1, 2]))
        x = tf.reshape(x, [*rows.shape, *self.example_shape])
        if is_ranged:
            x *= tf.reshape(part["mask"], [*rows.shape, *([1] * len(self.example_shape))])
        return x


def _rows_of(store: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns the examples of some rows as float32, uint8 scaled to [0, 1]."""
    examples = tf.gather(store, rows)
    return tf.cast(examples, tf.float32) / 255 if store.dtype == tf.uint8 else examples
