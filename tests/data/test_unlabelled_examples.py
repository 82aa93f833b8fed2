"""Episodes with examples that have no label."""

import numpy as np
import pytest

import tfmeta
from tfmeta.data.class_dataset import ClassDataset


def data(n_classes=6, n_examples=10):
    """Each example is its number; class k has the numbers from 10 k."""
    y = np.repeat(np.arange(n_classes), n_examples)
    x = np.arange(len(y), dtype="float32")[:, None]
    return ClassDataset.from_arrays(x, y)


def first(dataset, **options):
    return next(iter(dataset.episodes(n_way=3, n_shot=1, n_query=2, seed=4, **options)))


def numbers_of(inputs):
    names = ("support_x", "query_x", "unlabelled_x")
    return [inputs[name].numpy()[..., 0] for name in names if name in inputs]


def test_unlabelled_examples_are_of_the_classes_and_occur_nowhere_else():
    inputs, _ = first(data(), n_unlabelled=4)
    assert inputs["unlabelled_x"].shape == (4, 3 * 4, 1)
    support, queries, unlabelled = numbers_of(inputs)
    for s, q, u in zip(support, queries, unlabelled, strict=True):
        assert len({*s, *q, *u}) == 3 * (1 + 2 + 4)
        classes, counts = np.unique(u // 10, return_counts=True)
        assert set(classes) == set(s // 10) and set(counts) == {4}
        # Their order must not tell their classes.
        assert (np.sort(u // 10) != u // 10).any()


def test_a_fraction_of_each_class_has_labels_whatever_the_seed():
    dataset = data()
    labelled, unlabelled = set(), set()
    for seed in range(3):
        episodes = dataset.episodes(3, 1, 2, seed=seed, n_unlabelled=4, labelled_fraction=0.3)
        for inputs, _ in episodes.take(10):
            support, queries, others = numbers_of(inputs)
            labelled |= {*support.ravel(), *queries.ravel()}
            unlabelled |= {*others.ravel()}
    assert not labelled & unlabelled
    assert sorted(n // 10 for n in labelled) == sorted([*range(6)] * 3)
    assert len(unlabelled) == 6 * 7
    # Which ones these are depends on the class alone, not on which other classes there are.
    inputs, _ = first(dataset.subset(["5", "4", "3"]), labelled_fraction=0.3)
    assert {*np.concatenate(numbers_of(inputs), axis=None)} <= labelled
    assert "unlabelled_x" not in inputs


def test_unlabelled_examples_change_no_other_draw_of_labelled_ones():
    alone, both = (
        first(data(), labelled_fraction=0.3, n_unlabelled=n_unlabelled)[0]
        for n_unlabelled in (0, 2)
    )
    for a, b in zip(numbers_of(alone), numbers_of(both), strict=False):
        np.testing.assert_array_equal(a, b)


def test_missing_classes_have_no_unlabelled_examples():
    episodes = data().episodes((2, 4), 1, 1, meta_batch_size=2, n_unlabelled=3)
    for inputs, _, _ in episodes.take(5):
        mask, values = inputs["unlabelled_mask"].numpy(), inputs["unlabelled_x"].numpy()[..., 0]
        n_way = inputs["support_y"].numpy().max() + 1
        assert (mask.sum(axis=1) == 3 * n_way).all()
        assert (values[mask == 0] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_unlabelled": -1}, "n_unlabelled must be an integer ≥ 0"),
        ({"labelled_fraction": 1.0}, "labelled_fraction must be a number between 0 and 1"),
        ({"labelled_fraction": 0.1}, "examples with labels are needed .* raise labelled_fraction"),
        (
            {"labelled_fraction": 0.9, "n_unlabelled": 2},
            "n_unlabelled = 2 examples without labels are needed",
        ),
        ({"n_unlabelled": 8}, r"n_shot \+ n_query \+ n_unlabelled = 11 examples are needed"),
        ({"n_unlabelled": 1, "query_groups": ["a"]}, "cannot be drawn by groups"),
    ],
)
def test_what_there_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        first(data(), **options)


def test_a_learner_of_labels_alone_refuses_them():
    learner = tfmeta.PrototypicalNetwork(tfmeta.backbones.identity((1,)))
    inputs, _ = first(data(), n_unlabelled=1)
    with pytest.raises(ValueError, match="learns nothing from unlabelled examples"):
        learner(inputs)
