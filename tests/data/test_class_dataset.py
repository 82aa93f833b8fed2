"""Invariants of the classification episodes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2_contingency, chisquare

from tfmeta.data import ClassDataset, load

# The seeds below are fixed, so that a test of a distribution cannot flake: sound draws pass for
# ever, and it took a p-value below this to fail, which one seed in a thousand gives.
P = 1e-3


def encoded(counts: list[int]) -> ClassDataset:
    """A data set whose examples are (class + 1, row + 1), with rows of the classes intermixed."""
    # `RandomState` is frozen, which the golden episodes rely on.
    y = np.random.RandomState(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return ClassDataset.from_arrays(np.stack([y + 1, np.arange(len(y)) + 1], axis=1), y)


def draw(data: tf.data.Dataset, n: int) -> dict[str, np.ndarray]:
    """The first n meta-batches, joined: everything in `inputs`, "query_y" and "weights"."""
    elements = []
    for inputs, query_y, *weights in data.take(n).as_numpy_iterator():
        named = {"query_y": query_y, **({"weights": weights[0]} if weights else {})}
        elements.append({**inputs, **named})
    return {k: np.concatenate([e[k] for e in elements]) for k in elements[0]}


UNEQUAL = encoded([3, 50, 4, 9, 3, 12])


@pytest.fixture(scope="module")
def episodes() -> dict[str, np.ndarray]:
    """1,000 episodes, 3-way 1-shot with 2 queries, of a data set with unequal classes."""
    data = UNEQUAL.episodes(n_way=3, n_shot=1, n_query=2, meta_batch_size=100)
    return draw(data, 10)


@pytest.fixture(scope="module")
def many() -> dict[str, np.ndarray]:
    """4,000 episodes, 3-way 2-shot with 2 queries, of seven classes with six examples."""
    data = encoded([6] * 7).episodes(3, 2, 2, meta_batch_size=500, seed=1)
    return draw(data, 8)


def classes_of_labels(e: dict[str, np.ndarray]) -> np.ndarray:
    """The class behind each label, found in the support set `[episodes, n_way]`."""
    order = np.argsort(e["support_y"], axis=1, kind="stable")
    by_label = np.take_along_axis(e["support_x"][..., 0], order, axis=1)
    n_way = e["support_y"].max() + 1
    return by_label[:, :: by_label.shape[1] // n_way].astype(int) - 1


# === What an episode is ===


# Recorded once; examples are (class + 1, row + 1).
GOLDEN: dict[str, dict[str, Any]] = {
    "fixed": {
        "support_x": [[[2, 14], [4, 6]], [[4, 19], [1, 10]]],
        "support_y": [[1, 0], [0, 1]],
        "query_x": [[[4, 1], [2, 7], [2, 4], [4, 15]], [[1, 2], [4, 6], [4, 1], [1, 18]]],
        "query_y": [[0, 1, 1, 0], [1, 0, 0, 1]],
    },
    "ranged": {
        "support_sizes": [4, 2, 4, 2],
        "query_sizes": [4, 6, 4, 4],
        "query_rows": [
            [16, 6, 7, 17, 0, 0, 0, 0, 0, 0, 0, 0],
            [4, 1, 14, 15, 6, 11, 0, 0, 0, 0, 0, 0],
            [5, 14, 2, 19, 0, 0, 0, 0, 0, 0, 0, 0],
            [15, 5, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ],
        "query_y": [
            [0, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            [1, 0, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ],
    },
}


def test_an_episode_is_the_same_on_every_machine_and_version() -> None:
    data = encoded([5, 4, 6, 5])
    inputs, query_y = next(iter(data.episodes(2, 1, 2, meta_batch_size=2, seed=42, start=7)))
    golden = GOLDEN["fixed"]
    assert inputs["support_x"].numpy().astype(int).tolist() == golden["support_x"]
    assert inputs["support_y"].numpy().tolist() == golden["support_y"]
    assert inputs["query_x"].numpy().astype(int).tolist() == golden["query_x"]
    assert query_y.numpy().tolist() == golden["query_y"]


def test_a_ranged_episode_is_the_same_on_every_machine_and_version() -> None:
    data = encoded([5, 4, 6, 5]).episodes((2, 4), 1, (1, 3), meta_batch_size=1, seed=42)
    e = draw(data, 4)
    golden = GOLDEN["ranged"]
    assert e["support_mask"].sum(axis=1).astype(int).tolist() == golden["support_sizes"]
    assert e["query_mask"].sum(axis=1).astype(int).tolist() == golden["query_sizes"]
    assert e["query_x"][..., 1].astype(int).tolist() == golden["query_rows"]
    assert e["query_y"].tolist() == golden["query_y"]


def test_shapes_and_types(episodes: dict[str, np.ndarray]) -> None:
    described = {k: (v.shape[1:], v.dtype) for k, v in episodes.items()}
    assert described == {
        "support_x": ((3, 2), np.float32),
        "support_y": ((3,), np.int32),
        "query_x": ((6, 2), np.float32),
        "query_y": ((6,), np.int32),
    }


def test_examples_keep_their_shape() -> None:
    data = load((np.zeros((12, 2, 3, 1)), np.repeat([0, 1], 6)))
    inputs, _ = next(iter(data.episodes(2, 1, 4, meta_batch_size=5)))
    assert inputs["support_x"].shape == (5, 2, 2, 3, 1)
    assert inputs["query_x"].shape == (5, 8, 2, 3, 1)


def test_support_and_query_are_disjoint(episodes: dict[str, np.ndarray]) -> None:
    for support, query in zip(episodes["support_x"], episodes["query_x"], strict=True):
        assert not set(support[:, 1]) & set(query[:, 1])


def test_no_example_is_drawn_twice(episodes: dict[str, np.ndarray]) -> None:
    rows = np.concatenate([episodes["support_x"], episodes["query_x"]], axis=1)[..., 1]
    assert all(len(np.unique(r)) == len(r) for r in rows)


def test_no_class_is_drawn_twice(episodes: dict[str, np.ndarray]) -> None:
    assert all(len(np.unique(c)) == 3 for c in classes_of_labels(episodes))


def test_all_classes_can_be_drawn_at_once() -> None:
    e = draw(UNEQUAL.episodes(6, 1, 2, meta_batch_size=50), 1)
    assert (np.sort(classes_of_labels(e)) == np.arange(6)).all()


def test_all_examples_of_a_class_can_be_drawn_at_once() -> None:
    e = draw(encoded([4, 4, 4]).episodes(3, 1, 3, meta_batch_size=50), 1)
    rows = np.concatenate([e["support_x"], e["query_x"]], axis=1)[..., 1]
    assert (np.sort(rows) == np.arange(1, 13)).all()


def test_examples_of_a_label_come_from_one_class(episodes: dict[str, np.ndarray]) -> None:
    classes = classes_of_labels(episodes)
    for part in ("support", "query"):
        expected = np.take_along_axis(classes, episodes[f"{part}_y"], axis=1)
        np.testing.assert_array_equal(episodes[f"{part}_x"][..., 0] - 1, expected)


def test_every_label_has_its_share(many: dict[str, np.ndarray]) -> None:
    for part in ("support_y", "query_y"):
        np.testing.assert_array_equal(
            np.sort(many[part]), np.broadcast_to([0, 0, 1, 1, 2, 2], many[part].shape)
        )


def test_examples_belong_to_their_class_where_classes_differ_in_size(
    episodes: dict[str, np.ndarray],
) -> None:
    truth = {row + 1: k for k, rows in enumerate(UNEQUAL.rows) for row in rows}
    seen = np.concatenate([episodes["support_x"], episodes["query_x"]], axis=1).reshape(-1, 2)
    assert all(truth[row] == k - 1 for k, row in seen)
    # All examples are within reach: the rarest is expected 1,000 / 2 * 3 / 50 = 30 times.
    assert {int(row) for row in seen[:, 1]} == set(truth)


# === What is random about it ===


def test_classes_are_drawn_uniformly(many: dict[str, np.ndarray]) -> None:
    assert chisquare(np.bincount(classes_of_labels(many).ravel(), minlength=7)).pvalue > P


def test_classes_are_drawn_uniformly_where_they_differ_in_size(
    episodes: dict[str, np.ndarray],
) -> None:
    assert chisquare(np.bincount(classes_of_labels(episodes).ravel(), minlength=6)).pvalue > P


def test_every_assignment_of_classes_to_labels_is_as_likely(many: dict[str, np.ndarray]) -> None:
    codes = classes_of_labels(many) @ [49, 7, 1]
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 7 * 6 * 5
    assert chisquare(counts).pvalue > P


@pytest.mark.parametrize("part", ["support", "query"])
def test_examples_are_drawn_uniformly(many: dict[str, np.ndarray], part: str) -> None:
    rows = many[f"{part}_x"][..., 1].astype(int).ravel() - 1
    assert chisquare(np.bincount(rows, minlength=42)).pvalue > P


@pytest.mark.parametrize("part", ["support", "query"])
def test_every_order_of_the_labels_is_as_likely(many: dict[str, np.ndarray], part: str) -> None:
    _, counts = np.unique(many[f"{part}_y"], axis=0, return_counts=True)
    assert len(counts) == 90  # 6! / 2!^3
    assert chisquare(counts).pvalue > P


def test_orders_of_support_and_query_are_independent(many: dict[str, np.ndarray]) -> None:
    table = np.zeros((3, 3))
    np.add.at(table, (many["support_y"][:, 0], many["query_y"][:, 0]), 1)
    assert chi2_contingency(table).pvalue > P


def test_successive_episodes_are_independent(many: dict[str, np.ndarray]) -> None:
    first = classes_of_labels(many)[:, 0]
    table = np.zeros((7, 7))
    np.add.at(table, (first[:-1], first[1:]), 1)
    assert chi2_contingency(table).pvalue > P


# === Ranges ===


RANGES = {"n_way": (2, 4), "n_shot": (1, 3), "n_query": (2, 5)}


@pytest.fixture(scope="module")
def ranged() -> dict[str, np.ndarray]:
    """360 meta-batches of two episodes with all sizes drawn."""
    return draw(encoded([8, 9, 20, 8, 11]).episodes(**RANGES, meta_batch_size=2), 360)


def sizes_of(e: dict[str, np.ndarray]) -> np.ndarray:
    """n_way, n_shot, n_query of each episode `[episodes, 3]`."""
    sizes = []
    for i in range(len(e["support_y"])):
        counts = [np.bincount(e[f"{p}_y"][i][e[f"{p}_mask"][i] == 1]) for p in ("support", "query")]
        assert len(counts[0]) == len(counts[1])
        assert all((c == c[0]).all() for c in counts), "labels must have equal shares"
        sizes.append([len(counts[0]), counts[0][0], counts[1][0]])
    return np.array(sizes)


def test_ranged_shapes_are_those_of_the_highest_sizes(ranged: dict[str, np.ndarray]) -> None:
    described = {k: (v.shape[1:], v.dtype) for k, v in ranged.items()}
    assert described == {
        "support_x": ((12, 2), np.float32),
        "support_y": ((12,), np.int32),
        "support_mask": ((12,), np.float32),
        "query_x": ((20, 2), np.float32),
        "query_y": ((20,), np.int32),
        "query_mask": ((20,), np.float32),
        "weights": ((20,), np.float32),
    }


def test_the_third_element_is_the_query_mask(ranged: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(ranged["weights"], ranged["query_mask"])


def test_all_sizes_of_the_ranges_occur_independently(ranged: dict[str, np.ndarray]) -> None:
    sizes = sizes_of(ranged)[::2]
    combinations, counts = np.unique(sizes, axis=0, return_counts=True)
    assert combinations.min(axis=0).tolist() == [2, 1, 2]
    assert combinations.max(axis=0).tolist() == [4, 3, 5]
    assert len(counts) == 3 * 3 * 4
    assert chisquare(counts).pvalue > P


def test_sizes_are_drawn_once_per_meta_batch(ranged: dict[str, np.ndarray]) -> None:
    sizes = sizes_of(ranged)
    np.testing.assert_array_equal(sizes[::2], sizes[1::2])


@pytest.mark.parametrize("part", ["support", "query"])
def test_padding_is_zero_and_at_the_end(ranged: dict[str, np.ndarray], part: str) -> None:
    x, y, mask = (ranged[f"{part}_{what}"] for what in ("x", "y", "mask"))
    assert set(np.unique(mask)) == {0, 1}
    assert (np.diff(mask, axis=1) <= 0).all()
    assert (x[mask == 0] == 0).all()
    assert (y[mask == 0] == 0).all()
    assert (x[mask == 1] > 0).all()


def test_ranged_episodes_are_proper_episodes(ranged: dict[str, np.ndarray]) -> None:
    for i in range(len(ranged["weights"])):
        x, y = (
            np.concatenate(
                [
                    ranged[f"{p}_{what}"][i][ranged[f"{p}_mask"][i] == 1]
                    for p in ("support", "query")
                ]
            )
            for what in ("x", "y")
        )
        assert len(np.unique(x[:, 1])) == len(x), "no example is drawn twice"
        pairs = np.unique(np.stack([x[:, 0], y], axis=1), axis=0)
        assert len(pairs) == len(np.unique(x[:, 0])) == len(np.unique(y)), "one class per label"


def test_ranged_rows_are_in_random_order(ranged: dict[str, np.ndarray]) -> None:
    for part in ("support_y", "query_y"):
        two_way = ranged[part][sizes_of(ranged)[:, 0] == 2]
        assert chisquare(np.bincount(two_way[:, 0], minlength=2)).pvalue > P


def test_one_range_is_enough_for_masks() -> None:
    e = draw(UNEQUAL.episodes(3, 1, (1, 2), meta_batch_size=2), 10)
    assert (e["support_mask"] == 1).all()
    assert set(e["query_mask"].sum(axis=1)) == {3, 6}


def test_a_range_of_one_size_is_that_size() -> None:
    ranged, fixed = (
        draw(UNEQUAL.episodes(3, size, 2, meta_batch_size=2), 3) for size in ((1, 1), 1)
    )
    assert ranged.keys() == fixed.keys()
    for name, values in fixed.items():
        np.testing.assert_array_equal(ranged[name], values)


# === Errors of episodes ===


def test_too_few_classes_are_told() -> None:
    with pytest.raises(ValueError, match=r"n_way=7 .*at least 7 classes.* has 6\. Lower n_way"):
        UNEQUAL.episodes(n_way=7, n_shot=1, n_query=1)
    with pytest.raises(ValueError, match=r"n_way=9 .*at least 9 classes.* has 6\. Lower n_way"):
        UNEQUAL.episodes(n_way=(2, 9), n_shot=1, n_query=1)


def test_a_class_with_too_few_examples_is_named() -> None:
    message = (
        r"n_shot \+ n_query = 4 .* 2 of 6 .*: '0' has 3, '4' has 3\. .*drop_small_classes\(4\)"
    )
    with pytest.raises(ValueError, match=message):
        UNEQUAL.episodes(n_way=2, n_shot=1, n_query=3)
    with pytest.raises(ValueError, match=message):
        UNEQUAL.episodes(n_way=2, n_shot=(1, 2), n_query=(1, 2))


def test_one_way_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n_way must be at least 2; got 1"):
        UNEQUAL.episodes(n_way=1, n_shot=1, n_query=1)
    with pytest.raises(ValueError, match=r"n_way must be at least 2; got \(1, 3\)"):
        UNEQUAL.episodes(n_way=(1, 3), n_shot=1, n_query=1)


# === Arrays ===


def examples(data: ClassDataset, name: str) -> np.ndarray:
    return data.fetch(tf.constant(data.rows[data.class_names.index(name)])).numpy()


def test_bytes_are_scaled_to_one() -> None:
    data = ClassDataset.from_arrays(np.arange(256, dtype=np.uint8)[:, None], np.zeros(256, int))
    x = examples(data, "0")
    np.testing.assert_array_equal(x[:, 0], np.arange(256, dtype=np.float32) / np.float32(255))
    assert x.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, bool])
def test_other_numbers_stay_as_they_are(dtype: type) -> None:
    values = np.array([[0, 1], [-3, 200], [7, 0.5]]).astype(dtype)
    x = examples(ClassDataset.from_arrays(values, [5, 5, 5]), "5")
    np.testing.assert_array_equal(x, values.astype(np.float32))
    assert x.dtype == np.float32


def test_classes_are_in_the_order_of_their_labels() -> None:
    data = ClassDataset.from_arrays([[1], [2], [3], [4]], [30, -1, 30, 7])
    assert data.class_names == ["-1", "7", "30"]
    assert [examples(data, name).tolist() for name in data.class_names] == [
        [[2]],
        [[4]],
        [[1], [3]],
    ]


def test_labels_are_positions_of_class_names() -> None:
    data = ClassDataset.from_arrays([[1], [2], [3]], [2, 0, 2], ["a", "b", "c"])
    assert data.class_names == ["a", "c"]
    assert examples(data, "c").tolist() == [[1], [3]]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            np.zeros((4, 2)),
            np.zeros(3, int),
            r"x \[N, \*x\] and y \[N\]; got .*\(4, 2\) and \(3,\)",
        ),
        (np.zeros(4), np.zeros(4, int), r"x \[N, \*x\].*got .*\(4,\) and \(4,\)"),
        (np.zeros((4, 2)), np.zeros((4, 1), int), r"y \[N\]; got .*\(4, 2\) and \(4, 1\)"),
        (np.zeros((0, 2)), np.zeros(0, int), r"got .*\(0, 2\) and \(0,\)"),
        (np.zeros((4, 2)), np.zeros(4), r"labels y must be integers, or text; got float64"),
        (np.zeros((4, 2)), [None, "a", "b", "b"], r"labels y must be integers, or text; got obj"),
        (np.zeros((4, 2), np.uint16), np.zeros(4, int), r"x are uint16.*divide .*\(65535"),
        (([[1, 2]], [[3]]), [0, 1], r"\(x, y\) must be .*; x is no array"),
        (np.full((4, 2), "a"), np.zeros(4, int), r"examples x must be numbers; got <U1"),
        (np.full((4, 2), np.nan), np.zeros(4, int), r"must be finite; some are NaN, infinite"),
        (np.full((4, 2), np.inf), np.zeros(4, int), r"must be finite; some are NaN, infinite"),
        (
            np.full((4, 2), 1e300),
            np.zeros(4, int),
            r"must be finite; some .* too large for float32",
        ),
    ],
)
def test_bad_arrays_are_told(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassDataset.from_arrays(x, y)


@pytest.mark.parametrize(
    "labels",
    [
        ["dog", "cat", "dog", "cat"],
        np.array(["dog", "cat", "dog", "cat"], object),
        np.array([255, 0, 255, 0], np.uint8),
        np.array([32767, -32768, 32767, -32768], np.int16),
        np.array([2**64 - 1, 7, 2**64 - 1, 7], np.uint64),
        [4915112345679, 4915112345678, 4915112345679, 4915112345678],
    ],
)
def test_labels_of_any_type_keep_their_values(labels: Any) -> None:
    data = ClassDataset.from_arrays(np.arange(4.0)[:, None], labels)
    first, second = sorted(set(np.asarray(labels).tolist()))
    assert data.class_names == [str(first), str(second)]
    assert [rows.tolist() for rows in data.rows] == [[1, 3], [0, 2]]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
def test_labels_without_a_name_are_told(labels: list[int]) -> None:
    message = rf"from 0 to 2, one per class name; got {labels[0]} to {labels[1]}"
    with pytest.raises(ValueError, match=message):
        ClassDataset.from_arrays([[1], [2]], labels, ["a", "b", "c"])


def test_class_names_must_differ() -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        ClassDataset.from_arrays([[1], [2]], [0, 1], ["a", "a"])


# === Parts of a data set ===


def test_a_subset_has_these_classes_and_their_examples() -> None:
    part = UNEQUAL.subset(["3", "0"], note="part")
    assert part.class_names == ["3", "0"]
    assert [len(r) for r in part.rows] == [9, 3]
    assert (examples(part, "3")[:, 0] == 4).all()
    assert part.source["note"] == "part"
    assert "note" not in UNEQUAL.source
    e = draw(part.episodes(2, 1, 2, meta_batch_size=20), 1)
    assert set(e["query_x"][..., 0].ravel()) == {1, 4}


def test_unknown_classes_of_a_subset_are_named() -> None:
    with pytest.raises(ValueError, match=r"No such classes here: \['x'\]"):
        UNEQUAL.subset(["0", "x"])


def test_small_classes_are_dropped() -> None:
    part = UNEQUAL.drop_small_classes(9)
    assert part.class_names == ["1", "3", "5"]
    assert len(UNEQUAL.drop_small_classes(3)) == len(UNEQUAL) == 6
    assert len(UNEQUAL.drop_small_classes(51)) == 0
    part.episodes(3, 4, 5)


def test_the_text_of_a_data_set_says_how_large_it_is() -> None:
    assert "6 classes with 3 to 50 examples of shape (2,)" in repr(UNEQUAL)
