"""A bad request is refused by the name of its input, and nobody else notices."""

import functools
import os
import re
import signal
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from c_api import InvalidArgument
from c_api_worker import Worker
from family import SHAPE

N_WAY = 5
IMAGES = {"x": "images", "support_x": "support_images", "query_x": "query_images"}

Inputs = dict[str, np.ndarray]
# What is wrong, a pattern of the error, and the request.
Bad = tuple[str, str, Inputs]


# The names, here, of models of the family.
SERVABLES = {
    "metric": "prototypical_network",
    "maml": "small_maml",
    "regression": "maml_regression",
    "adapted": "adapted",
}
SIGNATURES = {
    "metric": [
        *("serving_default", "adapt_and_predict", "adapt", "predict"),
        *("adapt_and_predict_images", "adapt_images", "predict_images"),
    ],
    "regression": ["serving_default", "adapt_and_predict", "adapt", "predict"],
    "adapted": ["serving_default", "predict_images"],
}
SIGNATURES["maml"] = SIGNATURES["metric"]


@pytest.fixture(scope="module")
def servables(exported):
    """A function: a process that serves the servable of a name, the same for all tests."""
    with ExitStack() as stack:
        yield functools.cache(
            lambda name: stack.enter_context(Worker(exported(SERVABLES[name]).version))
        )


# === Good requests ===


def good(worker: Worker, servable: str, signature: str, n_tasks=2, n_support=10, n_query=3, seed=0):
    """A request with two tasks, of which one has padding; all classes have examples."""
    rng = np.random.default_rng(seed)
    is_regression = servable == "regression"
    shape = (1,) if is_regression else SHAPE
    mask = np.ones((n_tasks, n_support), "float32")
    mask[-1, N_WAY:] = 0
    y = np.tile(np.arange(n_support) % N_WAY, (n_tasks, 1))
    arrays = {
        "x": pixels(rng, (n_query, *shape)),
        "support_x": pixels(rng, (n_tasks, n_support, *shape)),
        "support_y": pixels(rng, (n_tasks, n_support, 1)) if is_regression else y,
        "support_mask": mask,
        "query_x": pixels(rng, (n_tasks, n_query, *shape)),
    }
    wanted = worker.signatures[signature].inputs
    if any(name.startswith("state") for name in wanted):
        arrays |= worker.run("adapt", {k: arrays[k] for k in worker.signatures["adapt"].inputs})
    arrays |= {images: files(arrays[x]) for x, images in IMAGES.items() if images in wanted}
    return {name: arrays[name] for name in wanted}


def pixels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.integers(0, 256, shape) / 255).astype("float32")


def files(x: np.ndarray) -> np.ndarray:
    """PNG and JPEG in turn."""
    codecs = (tf.io.encode_png, tf.io.encode_jpeg)
    images = np.round(x.reshape(-1, *SHAPE) * 255).astype("uint8")
    encoded = [codecs[i % 2](image).numpy() for i, image in enumerate(images)]
    return np.array(encoded, object).reshape(x.shape[:-3])


# === Bad requests ===


def bad_requests(worker: Worker, servable: str, signature: str, inputs: Inputs) -> Iterator[Bad]:
    """Everything that may be wrong with the inputs of a signature."""
    infos = worker.signatures[signature].inputs
    for name, x in inputs.items():
        for what, changed in bad_arrays(x, infos[name].shape):
            yield f"{name} {what}", name, {**inputs, name: changed}
        if len(inputs) > 1:
            yield f"{name} for fewer tasks", name, {**inputs, name: x[:1]}
        # Of these the runtime, or the server, speaks.
        without = {k: v for k, v in inputs.items() if k != name}
        yield f"no {name}", rf"Missing but required: \{{{name}\}}", without
        wrong = np.ones(x.shape, "float32") if x.dtype == object else np.full(x.shape, b"x", "O")
        yield f"{name} of another type", "", {**inputs, name: wrong}
        yield f"{name} of halves", "", {**inputs, name: np.ones(x.shape, "float16")}
        megabyte = np.array(b"7" * 2**20, object)
        yield f"{name} a megabyte", name if x.dtype == object else "", {**inputs, name: megabyte}
    yield "an unknown input", r"Sent extra: \{query_z\}", {**inputs, "query_z": np.zeros(3)}
    yield "nothing", "Missing but required", {}
    no_task = {name: x[:0] for name, x in inputs.items()}
    yield "no task", r"must hold at least one (task|example)", no_task
    if "support_mask" in inputs:
        yield from bad_support(inputs)
    for name in ("query_x", "query_images"):
        if name in inputs:
            yield "no query", name, {**inputs, name: inputs[name][:, :0]}
    yield from overflows(servable, inputs)
    if "state_prototypes" in inputs:
        yield from bad_state(inputs)
    for name in IMAGES.values():
        if name in inputs:
            for what, file in BAD_FILES.items():
                images = inputs[name].copy()
                images.flat[0] = file
                yield f"{name} {what}", name, {**inputs, name: images}


def bad_arrays(x: np.ndarray, shape: tuple[int | None, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Wrong ranks, shapes and values of an input."""
    yield "without its first dimension", x[0]
    yield "with one dimension more", x[None]
    yield "with one dimension more at the end", x[..., None]
    if x.ndim > 1:
        yield "flat", x.ravel()
    yield "a number", x.ravel()[0]
    yield "for no task", x[:0]
    for axis, size in enumerate(shape):
        if size is not None:
            yield f"larger in dimension {axis}", np.repeat(x, 2, axis)
            yield f"empty in dimension {axis}", np.take(x, [], axis)
    if len(shape) == 5 and shape[2:] == SHAPE:
        yield "reshaped", x.reshape(*x.shape[:2], 28, 7, 1)
    if x.dtype.kind == "f":
        for value in (np.nan, np.inf, -np.inf):
            changed = x.copy()
            changed.flat[-1] = value
            yield f"with a {value}", changed


def bad_support(inputs: Inputs) -> Iterator[Bad]:
    x, y, mask = (f"support_{end}" for end in ("x", "y", "mask"))
    x = x if x in inputs else IMAGES[x]
    for name in (x, y, mask):
        yield f"fewer {name}", name, {**inputs, name: inputs[name][:, :-1]}
        yield f"no {name}", name, {**inputs, name: inputs[name][:, :0]}
    yield "no support", x, {k: v[:, :0] if k in (x, y, mask) else v for k, v in inputs.items()}
    for value in (0.5, 2, -1, 1e-30):
        changed = inputs[mask].copy()
        changed[0, 1] = value
        yield f"a mask of {value}", mask, {**inputs, mask: changed}
    changed = inputs[mask].copy()
    changed[1] = 0
    yield "nothing but padding in one task", x, {**inputs, mask: changed}
    if inputs[y].dtype.kind == "f":
        return
    for value in (-1, N_WAY + 5, 2**31, 2**32, 2**40, -(2**40), 2**63 - 1, -(2**63)):
        changed = inputs[y].copy()
        changed[0, 0] = value
        yield f"a label {value}", y, {**inputs, y: changed}
    # The second task's padding has labels, too, which do not count.
    for what, labels, task in (
        ("a gap", inputs[y] + (inputs[y] > 2), 0),
        ("no class 0", np.maximum(inputs[y], 1), 0),
        ("no class 3 but in padding", np.where(np.arange(10) == 3, 1, inputs[y]), 1),
    ):
        changed = inputs[y].copy()
        changed[task] = labels[task]
        yield f"{what} in task {task}", y, {**inputs, y: changed}


def overflows(servable: str, inputs: Inputs) -> Iterator[Bad]:
    """Finite pixels of which infinite or undefined values come."""
    if "support_x" in inputs:
        yield "huge support_x", "support_x", {**inputs, "support_x": inputs["support_x"] * 1e30}
    if "query_x" in inputs and servable == "metric":
        yield "huge query_x", "query_x", {**inputs, "query_x": inputs["query_x"] * 1e30}


def bad_state(inputs: Inputs) -> Iterator[Bad]:
    """Parts of a state that are not of one task."""
    prototypes, missing = inputs["state_prototypes"], inputs["state_is_missing"]
    both = "state_is_missing.*state_prototypes"
    yield "another n_way", both, {**inputs, "state_prototypes": prototypes[:, 1:]}
    yield "another n_way", both, {**inputs, "state_is_missing": missing[:, 1:]}
    # These would broadcast.
    yield "one prototype", both, {**inputs, "state_prototypes": prototypes[:, :1]}
    yield "one is_missing", both, {**inputs, "state_is_missing": missing[:, :1]}
    none = {"state_prototypes": prototypes[:, :0], "state_is_missing": missing[:, :0]}
    yield "no class", both, {**inputs, **none}
    huge = {"state_prototypes": prototypes * np.float32(1e30) + np.float32(1e30)}
    yield "huge prototypes", "state", {**inputs, **huge}
    variances = {name: -1 - x for name, x in inputs.items() if re.fullmatch(r".*_\d*[13579]", name)}
    assert variances
    for name, negative in variances.items():
        yield f"{name} negative", "state", {**inputs, name: negative}


def png(height: int, width: int, data: bytes) -> bytes:
    """A grey PNG of these filtered rows, whatever its header claims."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def jpeg(height: int, width: int) -> bytes:
    """A JPEG of a few pixels, whatever its header claims."""
    file = GOOD_FILES["jpeg"]
    start = file.index(b"\xff\xc0") + 5
    return file[:start] + struct.pack(">HH", height, width) + file[start + 4 :]


PICTURE = pixels(np.random.default_rng(0), (20, 30, 1))
GOOD_FILES = {
    "png": tf.io.encode_png((PICTURE * 255).astype("uint8")).numpy(),
    "jpeg": tf.io.encode_jpeg((PICTURE * 255).astype("uint8")).numpy(),
}
HUGE_FILES = {
    "a PNG of 60,000 × 60,000": png(60_000, 60_000, b"\0" * 1000),
    "a JPEG of 60,000 × 60,000": jpeg(60_000, 60_000),
    "a PNG of 2 ** 32 - 1 squared": png(2**32 - 1, 2**32 - 1, b""),
}
BAD_FILES = {
    **HUGE_FILES,
    "empty": b"",
    "a GIF": b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    "a BMP": b"BM" + bytes(100),
    "a word": b"no image",
    "a megabyte": np.random.default_rng(0).bytes(2**20),
    "a megabyte that begins as a PNG": png(20, 30, b"")[:16]
    + np.random.default_rng(1).bytes(2**20),
    "a megabyte that begins as a JPEG": b"\xff\xd8\xff" + np.random.default_rng(2).bytes(2**20),
    "a PNG without pixels": png(0, 30, b""),
    "a JPEG without pixels": jpeg(0, 0),
    "a PNG with less than its header says": png(4000, 4000, b"\0" * 1000),
    "a PNG that does not begin with its header": png(1, 1, b"\0\0").replace(b"IHDR", b"abCD"),
    "a PNG with a broken byte": GOOD_FILES["png"][:100] + b"?" + GOOD_FILES["png"][101:],
    **{
        f"a {kind} cut to {size} bytes": file[:size]
        for kind, file in GOOD_FILES.items()
        for size in (3, 8, 15, 16, 17, 20, 24, 33, 100, len(file) // 2, len(file) - 20)
    },
    "a PNG without its last byte": GOOD_FILES["png"][:-1],
    "a JPEG without its last two bytes": GOOD_FILES["jpeg"][:-2],
}


@contextmanager
def in_time(worker: Worker, seconds: float) -> Iterator[None]:
    """A process that hangs is ended, which fails the test."""
    timer = threading.Timer(seconds, os.kill, (worker.pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def assert_same(answer: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> None:
    assert answer.keys() == first.keys()
    for name, value in first.items():
        assert answer[name].dtype == value.dtype
        np.testing.assert_array_equal(answer[name], value, err_msg=name)


IMAGES_BESIDE_OTHERS = {("metric", "adapt_and_predict_images"), ("metric", "predict_images")}


@pytest.mark.parametrize(
    ("servable", "signature"),
    [
        # Learners that take inner steps differ in what adapts; the others in what is asked for.
        # Images are refused alike, whatever is then done with them.
        pytest.param(
            *(name, key),
            marks=[pytest.mark.large]
            if name == "maml" or (name, key) in IMAGES_BESIDE_OTHERS
            else [],
        )
        for name in SERVABLES
        for key in SIGNATURES[name]
    ],
)
def test_a_bad_request_is_refused_by_name_and_the_next_one_answered(servable, signature, servables):
    worker = servables(servable)
    assert set(worker.signatures) == set(SIGNATURES[servable])
    inputs = good(worker, servable, signature)
    first = worker.run(signature, inputs)
    n_refused = 0
    with in_time(worker, 100):
        for what, pattern, request in bad_requests(worker, servable, signature, inputs):
            try:
                worker.run(signature, request)
            except InvalidArgument as error:
                # No part of a longer name, nor of a word.
                assert re.search(f"(?<![a-z_])({pattern})", str(error)), (what, str(error))
                n_refused += 1
            else:
                pytest.fail(f"{what}: there was an answer")
            assert_same(worker.run(signature, inputs), first)
    assert n_refused > 20


def test_images_in_padding_are_not_looked_at(servables):
    worker = servables("metric")
    inputs = good(worker, "metric", "adapt_images")
    first = worker.run("adapt_images", inputs)
    inputs["support_images"][-1, N_WAY:] = [b"", b"no image", *HUGE_FILES.values()]
    assert_same(worker.run("adapt_images", inputs), first)


@pytest.mark.parametrize("what", HUGE_FILES)
def test_an_image_that_claims_to_be_huge_takes_no_time_and_memory(what, servables):
    worker = servables("adapted")
    images = np.array([GOOD_FILES["png"], HUGE_FILES[what]], object)
    before, start = peak_bytes(worker.pid), time.monotonic()
    with in_time(worker, 20), pytest.raises(InvalidArgument, match=r"images must have .* pixels"):
        worker.run("predict_images", {"images": images})
    assert time.monotonic() - start < 2
    # The first call of a signature takes some, 20 MB and more; the image would take far more.
    assert peak_bytes(worker.pid) - before < 2**26


@pytest.mark.parametrize("kind", GOOD_FILES)
def test_a_file_that_is_cut_anywhere_is_refused(kind, servables):
    worker = servables("adapted")
    file = GOOD_FILES[kind]
    first = worker.run("predict_images", {"images": np.array([file], object)})
    # A JPEG without its very last byte has all of its pixels.
    for size in range(len(file) - (kind == "jpeg")):
        with pytest.raises(InvalidArgument, match="images"):
            worker.run("predict_images", {"images": np.array([file[:size]], object)})
    assert_same(worker.run("predict_images", {"images": np.array([file], object)}), first)


# === At random ===


class Fuzz:
    """Random requests: good ones, of which one or two things were changed."""

    def __init__(self, worker: Worker) -> None:
        self.rng = np.random.default_rng(0)
        self.pool = {
            signature: [
                good(worker, "metric", signature, *sizes, seed=seed)
                for seed, sizes in enumerate([(1, 5, 1), (2, 10, 3), (3, 7, 2)])
            ]
            # A SavedModel's signatures come in another order in each process.
            for signature in sorted(worker.signatures)
        }
        self.changes = {
            name: getattr(self, name) for name in vars(Fuzz) if name[0] != "_" and name != "request"
        }

    def request(self) -> tuple[tuple[str, ...], str, Inputs]:
        """What was changed, the signature and the inputs."""
        signature = self._one_of(list(self.pool))
        inputs = dict(self._one_of(self.pool[signature]))
        kinds = [self._one_of(list(self.changes)) for _ in range(self._one_of([0, 1, 1, 1, 2]))]
        for kind in kinds:
            if inputs:
                name = self._one_of(list(inputs))
                self.changes[kind](inputs, name)
        return tuple(kinds), signature, inputs

    # Each changes one input of a request.

    def missing(self, inputs: Inputs, name: str) -> None:
        del inputs[name]

    def unknown(self, inputs: Inputs, name: str) -> None:
        inputs[f"{name}_too"] = inputs[name]

    def dtype(self, inputs: Inputs, name: str) -> None:
        dtypes = ["float16", "float64", "int32", "int64", "bool", "uint8", "float32", "object"]
        dtype = self._one_of([d for d in dtypes if d != inputs[name].dtype])
        x = inputs[name]
        x = np.zeros(x.shape) if x.dtype == object else np.nan_to_num(x)
        is_text = dtype == "object"
        with np.errstate(invalid="ignore", over="ignore"):
            inputs[name] = np.full(x.shape, b"text", "O") if is_text else x.astype(dtype)

    def shape(self, inputs: Inputs, name: str) -> None:
        if inputs[name].size:
            shape = self.rng.integers(0, 4, self.rng.integers(0, 7))
            inputs[name] = np.resize(inputs[name], shape)

    def transposed(self, inputs: Inputs, name: str) -> None:
        inputs[name] = inputs[name].transpose(self.rng.permutation(inputs[name].ndim))

    def shorter(self, inputs: Inputs, name: str) -> None:
        if inputs[name].ndim:
            axis = int(self.rng.integers(inputs[name].ndim))
            size = int(self.rng.integers(inputs[name].shape[axis] + 1))
            inputs[name] = inputs[name].take(range(size), axis)

    def swapped(self, inputs: Inputs, name: str) -> None:
        other = self._one_of(list(inputs))
        inputs[name], inputs[other] = inputs[other], inputs[name]

    def number(self, inputs: Inputs, name: str) -> None:
        floats = [np.nan, np.inf, -np.inf, 1e30, -3e38, 1e-40, -1.0, 0.5]
        integers = [-1, 4, 9, 2**31 - 1, -(2**31)]
        self._put(inputs, "f", lambda: self._one_of(floats))
        self._put(inputs, "i", lambda: self._one_of(integers))

    def numbers(self, inputs: Inputs, name: str) -> None:
        if inputs[name].dtype.kind == "f":
            scaled = inputs[name].astype("float64") * 10 ** self.rng.uniform(0, 38)
            inputs[name] = np.clip(scaled, -3e38, 3e38).astype("float32")

    def labels(self, inputs: Inputs, name: str) -> None:
        if "support_y" in inputs:
            y = inputs["support_y"]
            inputs["support_y"] = self.rng.integers(-1, self._one_of([2, 5, 9]), y.shape)

    def mask(self, inputs: Inputs, name: str) -> None:
        if "support_mask" in inputs:
            shape = inputs["support_mask"].shape
            inputs["support_mask"] = (self.rng.random(shape) < 0.8).astype("float32")

    def file(self, inputs: Inputs, name: str) -> None:
        self._put(inputs, "O", lambda: self._one_of(list(BAD_FILES.values())))

    def cut(self, inputs: Inputs, name: str) -> None:
        self._put(inputs, "O", lambda: self._file()[: self.rng.integers(500)])

    def byte(self, inputs: Inputs, name: str) -> None:
        def broken() -> bytes:
            file = bytearray(self._file())
            file[self.rng.integers(len(file))] = self.rng.integers(256)
            return bytes(file)

        self._put(inputs, "O", broken)

    def _put(self, inputs, kinds, value) -> None:
        names = [k for k, x in inputs.items() if x.dtype.kind in kinds and x.size]
        if names:
            name = self._one_of(names)
            inputs[name] = inputs[name].copy()
            with np.errstate(over="ignore"):
                inputs[name].flat[self.rng.integers(inputs[name].size)] = value()

    def _file(self) -> bytes:
        return self._one_of(list(GOOD_FILES.values()))

    def _one_of(self, values):
        return values[self.rng.integers(len(values))]


def assert_right(signature: str, inputs: Inputs, answer: Mapping[str, np.ndarray]) -> None:
    """Finite, and of the shape that the inputs ask for."""
    for value in answer.values():
        assert np.isfinite(value).all()
    if signature.startswith("adapt") and "predict" not in signature:
        n_tasks = len(inputs["support_y"])
        assert all(len(value) == n_tasks for value in answer.values())
        n_way = answer["state_prototypes"].shape[1]
    else:
        queries = inputs.get("query_x", inputs.get("query_images"))
        n_tasks, n_query, n_way = answer["logits"].shape
        assert (n_tasks, n_query) == queries.shape[:2]
        np.testing.assert_allclose(answer["probabilities"].sum(axis=-1), 1, rtol=1e-4)
    if "support_y" in inputs:
        assert n_way == 1 + inputs["support_y"][inputs["support_mask"] == 1].max()
    else:
        assert n_way == inputs["state_prototypes"].shape[1]


# The first requests make the process grow, by what is kept for each signature.
@pytest.mark.parametrize(
    ("n_requests", "n_warmup"),
    [
        (400, 200),
        *(
            pytest.param(*numbers, marks=pytest.mark.large)
            for numbers in ((2_000, 1_000), (10_000, 2_000))
        ),
    ],
)
def test_random_requests_in_one_process(n_requests, n_warmup, servables):
    worker = servables("metric")
    outcomes: Counter[tuple[tuple[str, ...], bool]] = Counter()
    with in_time(worker, 300):
        fuzz = Fuzz(worker)
        known = {key: (pool[1], worker.run(key, pool[1])) for key, pool in fuzz.pool.items()}
        before = 0
        for i in range(n_requests):
            if i == n_warmup:
                before = resident_bytes(worker.pid)
            if i % 50 == 0:
                key = list(known)[i // 50 % len(known)]
                assert_same(worker.run(key, known[key][0]), known[key][1])
            kinds, signature, inputs = fuzz.request()
            try:
                answer = worker.run(signature, inputs)
            except InvalidArgument as error:
                assert kinds, (signature, str(error))
                outcomes[kinds, False] += 1
            else:
                assert_right(signature, inputs, answer)
                outcomes[kinds, True] += 1
        growth = resident_bytes(worker.pid) - before
    assert growth < 2**22, growth
    answered = sum(n for (_, is_answered), n in outcomes.items() if is_answered)
    assert 0.25 < answered / n_requests < 0.75
    assert outcomes[(), True] > 0.15 * n_requests
    # Alone, each kind of change did its harm; among few requests, a rare kind may be missing.
    harmless = [k for k in fuzz.changes if outcomes[(k,), False] < max(1, n_requests // 400)]
    assert len(harmless) <= (1 if n_requests < 2_000 else 0), (harmless, outcomes)


def resident_bytes(pid: int) -> int:
    """How much memory a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """How much memory a process ever held."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024
