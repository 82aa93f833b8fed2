"""The restricted reader of PyTorch's old files, on files that are written here, byte by byte."""

import pickle

import numpy as np
import pytest

from tfmeta.backbones.torch_file import MAGIC, PROTOCOL, read_torch_file

# Six numbers in storage "1", and a count in storage "2".
NUMBERS = np.arange(6, dtype="<f4")
COUNT = np.array([7], "<i8")
DICT = "ccollections\nOrderedDict\n(tR"


def tensor(key, kind, size, offset, shape, strides):
    """The opcodes of a tensor, as PyTorch pickles it."""

    def numbers(values):
        return "(" + "".join(f"I{value}\n" for value in values) + "t"

    storage = f"(S'storage'\nctorch\n{kind}\nS'{key}'\nS'cpu'\nI{size}\nNtQ"
    return (
        f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{numbers(shape)}"
        f"{numbers(strides)}I00\n{DICT}tR"
    )


PLAIN = {
    "w": tensor("1", "FloatStorage", 6, 0, (2, 3), (3, 1)),
    "turned": tensor("1", "FloatStorage", 6, 1, (2, 2), (1, 3)),
    "count": tensor("2", "LongStorage", 1, 0, (), ()),
}


def content(tensors, *, magic=MAGIC, storages=(NUMBERS, COUNT)):
    entries = "".join(f"S'{name}'\n{opcodes}s" for name, opcodes in tensors.items())
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(value, 2) for value in (magic, PROTOCOL, system)]
    parts += [f"{DICT}{entries}.".encode(), pickle.dumps(["1", "2"][: len(storages)], 2)]
    for storage in storages:
        parts += [np.int64(storage.size).tobytes(), storage.tobytes()]
    return b"".join(parts)


@pytest.fixture
def written(tmp_path):
    def write(data):
        (tmp_path / "weights.pth").write_bytes(data)
        return tmp_path / "weights.pth"

    return write


def test_tensors_are_views_of_their_storages(written):
    tensors = read_torch_file(written(content(PLAIN)))
    assert list(tensors) == ["w", "turned", "count"]
    np.testing.assert_array_equal(tensors["w"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["turned"], [[1, 4], [2, 5]])
    assert tensors["w"].dtype == np.float32
    np.testing.assert_array_equal(tensors["count"], np.array(7, np.int64), strict=True)


@pytest.mark.parametrize(
    "code",
    ["cos\nsystem\n(S'echo'\ntR", "cbuiltins\neval\n(S'1'\ntR", "ctorch\nDoubleStorage\n(tR"],
)
def test_a_file_that_names_anything_else_is_refused_and_runs_nothing(written, code, capfd):
    file = written(content({"w": code}))
    with pytest.raises(ValueError, match=r"weights\.pth must be .*, but it names \w+\.\w+, which"):
        read_torch_file(file)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (content(PLAIN)[:-9], "it is cut short"),
        (content(PLAIN, magic=3), "it begins otherwise"),
        (content(PLAIN, storages=[NUMBERS]), "its storages are not those of its tensors"),
        (content({"w": "I5\n"}), "it holds other things than tensors"),
        (b"PK\x03\x04 a zip file, as PyTorch writes now", "must be a file of tensors"),
        (b"", "must be a file of tensors"),
    ],
)
def test_a_broken_file_or_another_one_is_refused(written, data, message):
    with pytest.raises(ValueError, match=message):
        read_torch_file(written(data))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2, 3), (4, 1)),
        (5, (2,), (1,)),
        (-1, (2,), (1,)),
        (3, (3,), (-1,)),
        (0, (1000,), (0,)),
        (0, (10**12,), (0,)),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(written, offset, shape, strides):
    opcodes = tensor("1", "FloatStorage", 6, offset, shape, strides)
    with pytest.raises(ValueError, match="a tensor lies outside of its numbers"):
        read_torch_file(written(content({"w": opcodes}, storages=[NUMBERS])))
