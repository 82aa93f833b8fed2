"""Files of embeddings: our own and those of LEO's authors, which are read without running code."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.data.numpy_pickle import read_numpy_pickle

RNG = np.random.default_rng(0)
CLASSES = {
    "train": ["n01", "n02", "n03", "n04", "n05"],
    "val": ["n11", "n12", "n13", "n14", "n15"],
    "test": ["n21", "n22", "n23", "n24", "n25"],
}
SHOTS = 16


def made_up(names, n_shot=SHOTS, n_features=6):
    """A file of LEO's authors, as `pickle` loads it: unsorted keys, vectors near their class's."""
    order = RNG.permutation(n_shot * len(names))
    keys = np.array([f"{i}-{n}-{n}_{j}.jpg" for i, n in enumerate(names) for j in range(n_shot)])
    centres = np.repeat(RNG.normal(size=(len(names), n_features)), n_shot, axis=0)
    vectors = (centres + 0.1 * RNG.normal(size=centres.shape)).astype("float32")
    return {"keys": keys[order], "embeddings": vectors[order]}


@pytest.fixture
def leo_files(tmp_path):
    """Pickles in the layout of LEO's authors; returns `data_dir` and their content."""
    folder = tmp_path / "embeddings" / "miniImageNet" / "center"
    folder.mkdir(parents=True)
    contents = {name: made_up(classes) for name, classes in CLASSES.items()}
    for name, content in contents.items():
        (folder / f"{name}_embeddings.pkl").write_bytes(pickle.dumps(content, 2))
    return tmp_path, contents


def test_the_files_of_leo_s_authors_are_classes_of_vectors(leo_files):
    data_dir, contents = leo_files
    options = {"features": "miniImageNet/center", "data_dir": data_dir}
    data = tfmeta.data.load("embeddings", split="validation", **options)
    assert data.class_names == CLASSES["val"]
    assert data.example_shape == (6,)
    of_class = np.char.find(contents["val"]["keys"], "-n12-") >= 0
    expected = contents["val"]["embeddings"][of_class]
    np.testing.assert_array_equal(data.fetch(tf.constant(data.rows[1])), expected)
    whole = tfmeta.data.load("embeddings", split="all", **options)
    assert sorted(whole.class_names) == sorted(name for names in CLASSES.values() for name in names)
    assert whole.fingerprint() != data.fingerprint()


@pytest.mark.parametrize("dtype", ["U40", "S40", object])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_every_protocol_and_type_of_text_are_read(tmp_path, dtype, protocol):
    content = {
        "keys": made_up(["a", "b"])["keys"].astype(dtype),
        "x": np.asfortranarray(RNG.random((2, 3))),
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    arrays = read_numpy_pickle(tmp_path / "x.pkl")
    np.testing.assert_array_equal(arrays["keys"], content["keys"].astype(str))
    np.testing.assert_array_equal(arrays["x"], content["x"])


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Its texts, the bytes of its arrays among them, are opcodes of the old type of text."""
    numbers = np.array([1.5, -2.0], "<f4")
    opcodes = (
        b"(dS'x'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\n"
        b"tcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nT"
    )
    content = opcodes + len(numbers.tobytes()).to_bytes(4, "little") + numbers.tobytes() + b"tbs."
    (tmp_path / "x.pkl").write_bytes(content)
    np.testing.assert_array_equal(read_numpy_pickle(tmp_path / "x.pkl")["x"], numbers)


class Runs:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"x": Runs()}), "it names builtins.print"),
        (pickle.dumps({"x": np.zeros(2, "complex64")}), "it holds an array of 'c8'"),
        (pickle.dumps({"x": np.array([{}, 1], object)}), "other things than numbers and texts"),
        (pickle.dumps([1]), "it holds a list"),
        (pickle.dumps({"x": 1}), "it holds a int besides arrays"),
        (pickle.dumps({"x": np.zeros(9)})[:-20], "must be a pickle"),
        (b"", "must be a pickle"),
    ],
)
def test_other_pickles_are_refused_and_run_no_code(tmp_path, capsys, content, reason):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_numpy_pickle(tmp_path / "x.pkl")
    assert capsys.readouterr().out == ""


def test_written_embeddings_are_read_again(tmp_path):
    folder = tmp_path / "embeddings" / "mine"
    vectors = RNG.normal(size=(6, 3)).astype("float32")
    data = tfmeta.data.load((vectors, np.array(["b", "a", "b", "a", "c-d", "b"])))
    tfmeta.data.write_embeddings(data, folder / "test_embeddings.npz")
    again = tfmeta.data.load("embeddings", features="mine", split="test", data_dir=tmp_path)
    assert again.class_names == data.class_names == ["a", "b", "c-d"]
    for rows, others in zip(again.rows, data.rows, strict=True):
        np.testing.assert_array_equal(again.fetch(rows), data.fetch(others))


def test_what_is_wrong_with_files_is_told(leo_files, tmp_path):
    folder = tmp_path / "embeddings" / "miniImageNet" / "center"
    options = {"features": "miniImageNet/center", "data_dir": tmp_path}

    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            tfmeta.data.load("embeddings", **{**options, **changes})

    refused("train_embeddings.npz or train_embeddings.pkl", features="tieredImageNet/center")
    (folder / "train_embeddings.npz").write_bytes(b"no archive")
    refused("found 2")
    (folder / "train_embeddings.pkl").unlink()
    refused("is no file of embeddings")
    (folder / "train_embeddings.npz").unlink()
    for content, match in (
        ({"keys": np.array(["0-n01-x.jpg"])}, "must hold the arrays"),
        (
            {"keys": np.array(["n01"]), "embeddings": np.ones((1, 6))},
            "by hyphens|hyphens; got 'n01'",
        ),
        ({"keys": np.array(["0-a-b"] * 2), "embeddings": np.ones((1, 6))}, "a text for each"),
        (made_up(["n11"]), "A class is in two"),
        (made_up(["n01"], n_features=5), "of one length"),
    ):
        (folder / "train_embeddings.pkl").write_bytes(pickle.dumps(content, 2))
        refused(match, split="all")
    images = tfmeta.data.load((np.zeros((2, 3, 3), "float32"), [0, 1]))
    with pytest.raises(ValueError, match=r"embed them with tfmeta.data.embed"):
        tfmeta.data.write_embeddings(images, tmp_path / "x.npz")
