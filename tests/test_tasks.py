"""Task folders: what is written is read again, and what is broken is refused."""

import json

import numpy as np
import pytest

import tfmeta
from tfmeta.data import ImageFormat
from tfmeta.tasks import MODEL, TASK, Task, is_task, learn


@pytest.fixture(scope="module")
def learner():
    network = tfmeta.backbones.linear(2, (4,))
    return tfmeta.MAML(network, 0.5, inner_steps=1)


@pytest.fixture
def support(tmp_path):
    """A CSV file of two classes of two examples."""
    path = tmp_path / "support.csv"
    path.write_text("1,0,0,0,8\n0,1,0,0,8\n0,0,1,0,-1\n0,0,0,1,-1\n")
    return path


def test_a_task_that_was_written_is_read_again(learner, support, tmp_path):
    task = learn(learner, support, example_shape=(4,), source="runs/mine")
    task.save(tmp_path / "task")
    again = Task.load(tmp_path / "task")
    for name in ("class_names", "output_kind", "example_shape", "image_format", "source"):
        assert getattr(again, name) == getattr(task, name)
    assert (again.class_names, again.output_kind) == (["-1", "8"], "logits")
    assert (again.example_shape, again.source) == ((4,), "runs/mine")
    assert (again.support, again.n_examples) == (str(support), 4)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(again.outputs(x), task.outputs(x), rtol=1e-6)
    np.testing.assert_allclose(task.outputs(x).sum(axis=1), 1, rtol=1e-6)


def test_a_task_of_images_keeps_its_image_format(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "support" / name).mkdir(parents=True)
        for i in range(2):
            file = tmp_path / "support" / name / f"{i}.png"
            import tensorflow as tf

            file.write_bytes(tf.io.encode_png(rng.integers(0, 256, (6, 6, 1), "uint8")).numpy())
    image_format = ImageFormat(4, 5, channels=1, invert=True)
    learner = tfmeta.MAML(tfmeta.backbones.linear(2, (4, 5, 1)), 0.5, inner_steps=1)
    task = learn(learner, tmp_path / "support", image_format=image_format)
    task.save(tmp_path / "task")
    again = Task.load(tmp_path / "task")
    assert again.image_format == image_format
    names, outputs = again.predict([tmp_path / "support"])
    assert [name.rsplit("support")[-1][1:4] for name in names] == ["cat", "cat", "dog", "dog"]
    np.testing.assert_allclose(outputs, task.predict([tmp_path / "support"])[1], rtol=1e-6)


def test_a_task_of_0_1_0_is_read(learner, support, tmp_path):
    task = learn(learner, support, example_shape=(4,))
    task.save(tmp_path)
    # What 0.1.0 wrote, key by key.
    old = {
        "class_names": ["-1", "8"],
        "output_kind": "logits",
        "example_shape": [4],
        "image_format": None,
        "source": "runs/old",
    }
    (tmp_path / TASK).write_text(json.dumps(old))
    again = Task.load(tmp_path)
    assert (again.source, again.example_shape, again.n_examples) == ("runs/old", (4,), None)


def test_a_new_task_replaces_an_old_one(learner, support, tmp_path):
    folder = tmp_path / "task"
    learn(learner, support).save(folder)
    support.write_text(support.read_text().replace("8", "9"))
    learn(learner, support).save(folder)
    assert Task.load(folder).class_names == ["-1", "9"]
    assert sorted(path.name for path in folder.iterdir()) == [MODEL, TASK]


def test_a_model_is_never_read_with_the_names_of_another(learner, support, tmp_path, monkeypatch):
    folder = tmp_path / "task"
    learn(learner, support).save(folder)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("tfmeta.tasks.write_json", full)
    with pytest.raises(OSError, match="No space"):
        learn(learner, support).save(folder)
    assert not is_task(folder)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is broken"),
        ("[]", "lacks class_names"),
        ('{"class_names": null}', "lacks output_kind"),
        (
            '{"class_names": null, "output_kind": "values", "example_shape": null, '
            '"image_format": {"width": 0, "height": 1}}',
            "image format",
        ),
    ],
)
def test_a_broken_task_is_told(tmp_path, text, part):
    (tmp_path / TASK).write_text(text)
    with pytest.raises(ValueError, match=part):
        Task.load(tmp_path)


def test_what_is_missing_is_told(learner, support, tmp_path):
    with pytest.raises(ValueError, match="is no task folder: make one with `tfmeta adapt`"):
        Task.load(tmp_path)
    learn(learner, support).save(tmp_path)
    (tmp_path / MODEL).unlink()
    with pytest.raises(ValueError, match=f"lacks its {MODEL}"):
        Task.load(tmp_path)


def test_nothing_to_predict_is_told(learner, support):
    with pytest.raises(ValueError, match="Which examples"):
        learn(learner, support).predict([])
