"""Task folders: what is written is read again, and what is broken is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tfmeta
from tfmeta.data import ImageFormat
from tfmeta.task_files import MODEL, TASK
from tfmeta.tasks import Task, learn


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


def test_two_classes_in_one_column_are_read_again(support, tmp_path):
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network = tfmeta.backbones.linear(1, (4,))
    learner = tfmeta.MAML(network, inner_learning_rate=5.0, inner_steps=5, inner_loss=loss)
    learn(learner, support, example_shape=(4,)).save(tmp_path / "task")
    again = Task.load(tmp_path / "task")
    assert (again.class_names, again.output_kind) == (["-1", "8"], "binary_logits")
    outputs = again.outputs(np.eye(4, dtype="float32"))
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-6)
    assert [again.class_names[k] for k in outputs.argmax(axis=1)] == ["8", "8", "-1", "-1"]


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


def _about(**changes):
    about = {"class_names": None, "output_kind": "values", "example_shape": None}
    return json.dumps({**about, "image_format": None, **changes})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is broken"),
        ("[]", "lacks class_names"),
        ('{"class_names": null}', "lacks output_kind"),
        (_about(class_names="abc"), "class_names must be a list"),
        (_about(class_names=[]), "class_names must be a list"),
        (_about(output_kind="words"), "output_kind must be"),
        (_about(example_shape="abc"), "example_shape must be a list"),
        (_about(image_format=[1]), "image_format must be a mapping"),
        (_about(image_format={"depth": 3}), "depth"),
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


# === What files become ===


def save_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def image_task(tmp_path):
    """A task of dark and light images of 4×4, learned from sub-folders with clutter in them."""
    for name, level in (("dark", 20), ("light", 230)):
        for i in range(2):
            save_png(tmp_path / "support" / name / f"{i}.png", np.full((4, 4), level + i))
    save_png(tmp_path / "support" / "dark" / "more" / "2.png", np.full((4, 4), 25))
    (tmp_path / "support" / "dark" / "._0.png").write_bytes(b"Mac")
    (tmp_path / "support" / "__MACOSX").mkdir()
    encoder = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    with pytest.warns(UserWarning, match=r"Skipped 2 .*1 hidden \(dark.\._0\.png\)"):
        return learn(
            tfmeta.PrototypicalNetwork(encoder),
            tmp_path / "support",
            image_format=ImageFormat(4, 4, 1),
        )


def test_sub_folders_are_read_and_clutter_is_not(image_task, tmp_path):
    assert (image_task.class_names, image_task.n_examples) == (["dark", "light"], 5)
    with pytest.warns(UserWarning, match="Skipped 2"):
        data = tfmeta.data.load(tmp_path / "support", image_format=ImageFormat(4, 4, 1))
    assert [len(rows) for rows in data.rows] == [3, 2]
    with pytest.warns(UserWarning, match="Skipped 2") as given:
        names, _ = image_task.predict([tmp_path / "support"])
    assert (len(names), len(given), given[0].filename) == (5, 1, __file__)


def test_predictions_come_in_parts_of_bounded_size(image_task, tmp_path, monkeypatch):
    monkeypatch.setattr("tfmeta.tasks.CHUNK", 3)
    for i in range(7):
        save_png(tmp_path / "new" / f"{i}.png", np.full((4, 4), 30 * i))
    parts = list(image_task.predict_in_parts([tmp_path / "new"]))
    assert [len(names) for names, _ in parts] == [3, 3, 1]
    names, outputs = image_task.predict([tmp_path / "new"])
    assert names == [str(tmp_path / "new" / f"{i}.png") for i in range(7)]
    assert outputs.argmax(axis=1).tolist() == [0, 0, 0, 0, 0, 1, 1]
    table = tmp_path / "table.csv"
    np.savetxt(table, np.full((7, 16), 0.9), delimiter=",")
    named = dataclasses.replace(image_task, example_shape=(4, 4, 1))
    parts = list(named.predict_in_parts([table]))
    assert [names for names, _ in parts][2] == [f"{table}:7"]
    assert [len(names) for names, _ in parts] == [3, 3, 1]


def test_examples_that_are_normalised_together_stay_together(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmeta.tasks.CHUNK", 2)
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization()]
    learner = tfmeta.PrototypicalNetwork(keras.Sequential([keras.Input((2,)), *layers]))
    (tmp_path / "s.csv").write_text("0,1,a\n1,0,b\n1,1,a\n")
    (tmp_path / "q.csv").write_text("0,1\n1,0\n2,1\n0,3\n5,1\n")
    task = learn(learner, tmp_path / "s.csv")
    assert task.is_transductive
    ((names, outputs),) = task.predict_in_parts([tmp_path / "q.csv"])
    assert len(names) == 5
    x = np.loadtxt(tmp_path / "q.csv", delimiter=",", dtype=np.float32)
    np.testing.assert_allclose(outputs, task.outputs(x), rtol=1e-6)
    task.save(tmp_path / "task")
    assert Task.load(tmp_path / "task").is_transductive
    assert not learn(learner.with_batch_norm("support"), tmp_path / "s.csv").is_transductive


def test_pixels_in_a_table_are_from_0_to_1(image_task, tmp_path):
    table = tmp_path / "pixels.csv"
    np.savetxt(table, np.full((2, 16), 200), delimiter=",")
    task = dataclasses.replace(image_task, example_shape=(4, 4, 1))
    with pytest.raises(ValueError, match=r"pixels\.csv: .* from 200 to 200: divide pixels by 255"):
        task.predict([table])
    np.savetxt(table, np.full((2, 16), 200) / 255, delimiter=",")
    assert task.predict([table])[1].argmax(axis=1).tolist() == [1, 1]
