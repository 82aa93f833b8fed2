"""The C API gives what TensorFlow gives, refuses what a server refuses, and keeps no memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c_api
import numpy as np
import pytest
from c_api_worker import Worker

ROWS = np.array([[1, 2, 3], [0.5, 0.25, 4]], np.float32)
MIXED = {
    "x": ROWS,
    "count": np.array([2**40, -1]),
    "name": np.array([b"zero \0 at the end \0", b""], object),
}


@pytest.fixture(scope="module")
def worker(servable: Path) -> Iterator[Worker]:
    with Worker(servable / "10") as worker:
        yield worker


def test_the_signatures_are_those_of_the_export(worker: Worker) -> None:
    assert set(worker.signatures) == {
        *("serving_default", "mixed", "positive", "short", "product", "compiled")
    }
    inputs, outputs = worker.signatures["mixed"]
    assert {key: (str(info.dtype), info.shape) for key, info in inputs.items()} == {
        "x": ("float32", (None, 3)),
        "count": ("int64", (None,)),
        "name": ("object", (None,)),
    }
    assert set(outputs) == {"total", "next", "greeting", "large"}


def test_each_data_type_comes_back_as_from_tensorflow(worker: Worker, servable: Path) -> None:
    import tensorflow as tf

    function = tf.saved_model.load(str(servable / "10")).signatures["mixed"]
    expected = function(**{key: tf.constant(value) for key, value in MIXED.items()})
    outputs = worker.run("mixed", MIXED)
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        assert outputs[key].dtype == value.numpy().dtype
        np.testing.assert_array_equal(outputs[key], value.numpy())
    assert outputs["greeting"].tolist() == [b"hello zero \0 at the end \0", b"hello "]


def test_what_is_not_contiguous_is_read_in_its_own_order(worker: Worker) -> None:
    x = np.asfortranarray(ROWS)[:, ::-1]
    np.testing.assert_array_equal(worker.run("positive", {"x": x})["root"], np.sqrt(x))


def test_no_rows_give_no_rows(worker: Worker) -> None:
    outputs = worker.run("mixed", {key: value[:0] for key, value in MIXED.items()})
    assert {key: value.shape for key, value in outputs.items()} == {
        "total": (0,),
        "next": (0,),
        "greeting": (0,),
        "large": (0, 3),
    }


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("positive", {"x": -ROWS}, "x must be positive"),
        ("positive", {"x": ROWS.astype("float64")}, "to be float but double is provided"),
        ("positive", {"x": ROWS.astype("int64")}, "to be float but int64 is provided"),
        ("positive", {"x": np.array([[b"1"]], object)}, "to be float but string is provided"),
        ("product", {"x": ROWS[:, :2]}, r"Matrix size-incompatible: In\[0\]: \[2,2\]"),
        ("mixed", {"x": ROWS}, r"Missing but required: \{count,name\}"),
        ("positive", {"x": ROWS, "y": ROWS}, r"Sent extra: \{y\}"),
        ("positive", {"y": ROWS}, r"Sent extra: \{y\}. Missing but required: \{x\}"),
    ],
)
def test_inputs_that_do_not_fit_are_invalid_arguments(
    worker: Worker, signature: str, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(c_api.InvalidArgument, match=message) as raised:
        worker.run(signature, inputs)
    assert raised.value.code == c_api.INVALID_ARGUMENT
    np.testing.assert_array_equal(worker.run("positive", {"x": ROWS})["root"], np.sqrt(ROWS))


def test_an_unknown_signature_is_a_failed_precondition(worker: Worker) -> None:
    with pytest.raises(c_api.TensorFlowError, match='signature key "nothing" not found') as raised:
        worker.run("nothing", {"x": ROWS})
    assert raised.value.code == c_api.FAILED_PRECONDITION


def test_compiled_code_is_refused_as_under_the_server(worker: Worker) -> None:
    with pytest.raises(c_api.TensorFlowError, match="XLA compilation disabled"):
        worker.run("compiled", {"x": ROWS})


def test_a_folder_without_a_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(c_api.TensorFlowError, match="Could not find SavedModel") as raised:
        Worker(tmp_path)
    assert raised.value.code == c_api.NOT_FOUND


def test_a_process_that_imported_tensorflow_is_refused(servable: Path) -> None:
    import tensorflow  # noqa: F401

    with pytest.raises(RuntimeError, match="TensorFlow was imported"):
        c_api.SavedModel(servable / "10")


@pytest.mark.large
@pytest.mark.parametrize("n_requests", [800, pytest.param(4000, marks=pytest.mark.large)])
def test_memory_stays_flat_over_thousands_of_requests(servable: Path, n_requests: int) -> None:
    """Each answer, and each refusal with the name in its message, has 10 kB that could stay."""
    inputs = {
        "x": np.ones([1000, 3], np.float32),
        "count": np.arange(1000),
        "name": np.array([b"n" * 10_000], object),
    }

    def requests(worker: Worker, count: int) -> None:
        for _ in range(count // 2):
            worker.run("mixed", inputs)
            with pytest.raises(c_api.InvalidArgument, match="n" * 10_000):
                worker.run("short", {"name": inputs["name"]})

    with Worker(servable / "10") as worker:
        requests(worker, n_requests // 4)
        before = resident_bytes(worker.pid)
        requests(worker, n_requests)
        assert resident_bytes(worker.pid) - before < 2**20


def resident_bytes(pid: int) -> int:
    """How much memory a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
