"""Support examples of some groups, and queries of others."""

from typing import Any

import numpy as np
import pytest

from tfmeta.data import ClassDataset

# Six classes with nine examples in three groups; an example is (class, row, group).
GROUPS = np.tile(["a", "b", "c"], 18)
LABELS = np.repeat(np.arange(6), 9)
X = np.stack([LABELS, np.arange(54), np.tile([0, 1, 2], 18)], axis=1).astype(np.float32)
RNG = np.random.default_rng(0)


@pytest.fixture
def data() -> ClassDataset:
    order = RNG.permutation(54)
    return ClassDataset.from_arrays(X[order], LABELS[order], groups=GROUPS[order])


def episodes(data: ClassDataset, n: int = 40, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Support examples and queries of some episodes."""
    batch = data.episodes(n_way=3, n_shot=2, n_query=3, meta_batch_size=n, **options)
    inputs, _ = next(iter(batch))
    return inputs["support_x"].numpy(), inputs["query_x"].numpy()


@pytest.mark.parametrize(
    ("options", "support", "query"),
    [
        ({"support_groups": ["a"]}, {0}, {1, 2}),
        ({"query_groups": ["a"]}, {1, 2}, {0}),
        ({"support_groups": ["a", "b"], "query_groups": ["c"]}, {0, 1}, {2}),
        ({"support_groups": ["c"], "query_groups": ["a"]}, {2}, {0}),
        ({}, {0, 1, 2}, {0, 1, 2}),
    ],
)
def test_parts_are_of_their_groups(
    data: ClassDataset, options: dict[str, list[str]], support: set[int], query: set[int]
) -> None:
    support_x, query_x = episodes(data, **options)
    assert (set(support_x[..., 2].ravel()), set(query_x[..., 2].ravel())) == (support, query)
    assert set(support_x[..., 0].ravel()) == set(query_x[..., 0].ravel()) == set(range(6))
    for one in np.concatenate([support_x[..., 1], query_x[..., 1]], axis=1):
        assert len(set(one)) == 15


def test_labels_are_those_of_the_classes(data: ClassDataset) -> None:
    batch = data.episodes(n_way=3, n_shot=2, n_query=3, support_groups=["b"])
    inputs, query_y = next(iter(batch))
    for t in range(4):
        label_of = dict(
            zip(inputs["support_x"][t, :, 0].numpy(), inputs["support_y"][t].numpy(), strict=True)
        )
        labels = [label_of[k] for k in inputs["query_x"][t, :, 0].numpy()]
        assert labels == query_y[t].numpy().tolist()


def test_an_episode_is_a_function_of_seed_and_index(data: ClassDataset) -> None:
    options: dict[str, Any] = {"seed": 5, "support_groups": ["a"]}
    whole = episodes(data, 6, **options)
    rest = episodes(data, 2, start=4, **options)
    for all_six, last_two in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(all_six[4:], last_two)
    assert (episodes(data, 6, seed=6, support_groups=["a"])[0] != whole[0]).any()


def test_groups_change_no_episode_that_does_not_name_them(data: ClassDataset) -> None:
    without = ClassDataset(data.class_names, data.rows, data.fetch, data.example_shape)
    for mine, others in zip(episodes(data), episodes(without), strict=True):
        np.testing.assert_array_equal(mine, others)


def test_sizes_may_be_ranges(data: ClassDataset) -> None:
    batch = data.episodes(n_way=(2, 4), n_shot=(1, 3), n_query=(1, 3), query_groups=["c"])
    for inputs, _, mask in batch.take(5):
        assert set(inputs["query_x"].numpy()[mask.numpy() > 0][:, 2]) == {2}
        seen = inputs["support_x"].numpy()[inputs["support_mask"].numpy() > 0]
        assert set(seen[:, 2]) <= {0, 1}


def test_a_subset_keeps_the_groups(data: ClassDataset) -> None:
    part = data.subset(["4", "1", "2"])
    for name, rows, groups in zip(part.class_names, part.rows, part.groups, strict=True):
        x = part.fetch(rows).numpy()
        assert set(x[:, 0]) == {float(name)}
        assert [["a", "b", "c"][int(g)] for g in x[:, 2]] == groups.tolist()


def test_classes_without_enough_examples_of_a_group_are_named_and_can_be_dropped() -> None:
    groups = np.where((LABELS == 1) & (GROUPS == "a") & (np.arange(54) > 9), "b", GROUPS)
    data = ClassDataset.from_arrays(X, LABELS, groups=groups)
    with pytest.raises(ValueError, match=r"n_shot = 2 .* '1' has 1\. .* choose more groups,"):
        episodes(data, support_groups=["a"])
    kept = data.drop_small_classes(2, ["a"])
    assert kept.class_names == ["0", "2", "3", "4", "5"]
    assert set(episodes(kept, support_groups=["a"])[0][..., 2].ravel()) == {0}
    with pytest.raises(ValueError, match=r"n_query = 3 .* of the chosen groups .* 1 of 6"):
        episodes(data, query_groups=["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support_groups": ["d"]}, r"support_groups must be a list of some of a, b, c; got \['d'"),
        ({"query_groups": "a"}, "query_groups must be a list of some of a, b, c; got 'a'"),
        ({"query_groups": []}, "query_groups must be a list of some of"),
        ({"support_groups": ["a", "b"], "query_groups": ["b"]}, "No group may be in both .* got b"),
        ({"support_groups": ["a", "b", "c"]}, "must leave a group for the other"),
    ],
)
def test_wrong_groups_are_refused(
    data: ClassDataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        episodes(data, **options)


def test_data_without_groups_say_so() -> None:
    data = ClassDataset.from_arrays(X, LABELS)
    with pytest.raises(ValueError, match=r"these have none\. Give groups="):
        episodes(data, support_groups=["a"])
    with pytest.raises(ValueError, match=r"these have none\. Give groups="):
        data.drop_small_classes(1, ["a"])


def test_each_example_needs_one_group() -> None:
    with pytest.raises(ValueError, match="Each of the 54 examples needs one group; got 53"):
        ClassDataset.from_arrays(X, LABELS, groups=GROUPS[1:])
    data = ClassDataset.from_arrays(X, LABELS)
    with pytest.raises(ValueError, match="Each row of each class needs one group"):
        ClassDataset(["k"], data.rows[:1], data.fetch, (3,), groups=[np.array(["a"])])
