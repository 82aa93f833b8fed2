"""Task folders: what is written is read again, and what is broken is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tfmeta
from tfmeta.data import ImageFormat
from tfmeta.tasks import MODEL, TASK, Task, learn


@pytest.fixture(scope="module")
def learner():
    network = tfmeta.backbones.linear(2, (4,))
    return tfmeta.MAML(network, inner_learning_rate=0.5, inner_steps=1)


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
    learner = tfmeta.MAML(
        tfmeta.backbones.linear(2, (4, 5, 1)), inner_learning_rate=0.5, inner_steps=1
    )
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


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", range(1, 5))
def test_a_task_that_is_replaced_is_the_old_one_or_the_new_one(
    learner, support, tmp_path, monkeypatch, at
):
    """Whenever the process ends, and whatever a reader sees meanwhile."""
    folder = tmp_path / "task"
    tasks = [learn(learner, support)]
    tasks[0].save(folder)
    support.write_text("1,0,0,0,8\n0,1,0,0,8\n0,0,1,0,9\n0,0,0,1,9\n")
    tasks.append(learn(learner, support))
    x = np.eye(4, dtype="float32")
    seen = []

    def look() -> None:
        found = Task.load(folder)
        expected = tasks[0] if found.class_names == ["-1", "8"] else tasks[1]
        assert found.class_names == expected.class_names
        np.testing.assert_allclose(found.outputs(x), expected.outputs(x), rtol=1e-5)
        seen.append(found.class_names)

    replace, count = Path.replace, 0

    def replace_or_die(self, target):
        nonlocal count
        count += 1
        look()
        if count == at:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_die)
    if at < 4:
        with pytest.raises(Killed):
            tasks[1].save(folder)
    else:
        tasks[1].save(folder)
    monkeypatch.undo()
    look()
    assert (seen[-1] == ["8", "9"]) == (at > 2)
    # The next one leaves nothing of it.
    tasks[1].save(folder)
    assert Task.load(folder).class_names == ["8", "9"]
    assert "before" not in json.loads((folder / TASK).read_text())
    assert sorted(path.name for path in folder.iterdir()) == [MODEL, TASK]


def test_a_model_that_is_not_that_of_the_task_is_told(learner, support, tmp_path):
    learn(learner, support).save(tmp_path / "one")
    support.write_text(support.read_text().replace("1,0", "2,0"))
    learn(learner, support).save(tmp_path / "two")
    shutil.copy(tmp_path / "one" / MODEL, tmp_path / "two" / MODEL)
    with pytest.raises(ValueError, match=rf"two.{MODEL} was truncated or altered, or is of ano"):
        Task.load(tmp_path / "two")


def test_what_a_killed_writer_left_is_swept(learner, support, tmp_path):
    (tmp_path / f".model.{'0' * 32}.keras").write_text("half")
    (tmp_path / f".mine.{'0' * 32}.keras").write_text("mine")
    learn(learner, support).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p != support) == [
        f".mine.{'0' * 32}.keras",
        MODEL,
        TASK,
    ]


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
