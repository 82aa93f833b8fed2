"""What a servable must prove before it is published, and can be asked to prove again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfmeta.serving.warmup import FILE, Request, read_requests
from tfmeta.versions import versions

# An operation that a server cannot run, or that one request could harm others or the machine by.
FORBIDDEN = {
    "writes a variable": r"Assign\w*Variable\w*|Resource(Scatter|Apply|Sparse|Strided)\w*|Assign",
    "runs Python": r"\w*PyFunc\w*",
    "needs XLA, which a server has switched off": r"Xla\w+",
    "touches files": r"(Read|Write)File|MatchingFiles|Save\w*|Restore\w*|\w*(Reader|Dataset)V?\d?",
}
INIT = "__saved_model_init_op"
XLA_ATTRIBUTE = "_XlaMustCompile"

# Rounding: a batch of another size may be computed by other kernels.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
# How finely a type rounds; of half precision, differences of so many roundings are allowed.
EPSILON = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
ROUNDINGS = 16
# Inner steps enlarge rounding, so what it does to an answer is measured: the examples are moved by
# so many roundings, a few times. A few times that much may be rounding.
NUDGE, NUDGES, ENLARGED = 8, 5, 10

QUERIES = ("query_x", "query_images")

DEPENDS = "an answer must depend on nothing else."
DISAGREES = "what is served must predict as the model that was exported."


class ServableError(ValueError):
    """A servable that must not be published."""


class Finding(NamedTuple):
    """What was checked, and what came out."""

    what: str
    result: str


def check(
    folder: str | os.PathLike[str],
    allow_transductive: bool = False,
    expected: Iterable[tuple[Request, Mapping[str, Any]]] | None = None,
) -> list[Finding]:
    """Checks a servable: its operations, its answers to the warmup requests, and expected ones.

    Args:
        folder: A version's folder, or the servable's, for its newest version.
        allow_transductive: Whether an answer may depend on the other queries in a request.
        expected: Requests, and what the model in memory answers; None if there is none.

    Returns:
        What was checked.

    Raises:
        ServableError: If a check fails.
        ValueError: If there is no servable, or several.
    """
    folder = _version_in(Path(folder))
    reachable = dict(_reachable(folder))
    findings = [check_operations(folder, reachable)]
    signatures, dtype = load(folder), _compute_dtype(reachable)
    findings += check_answers(folder, signatures, not allow_transductive, dtype)
    if expected is not None:
        findings.append(check_agreement(signatures, expected, dtype))
    return findings


def _version_in(folder: Path) -> Path:
    """The folder of a version: this one, or that of its newest."""
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{folder} {problem}: name a servable's folder, or that of its version.")
    if numbers := versions(folder):
        return folder / str(numbers[-1])
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and versions(path))
    if inside:
        raise ValueError(
            f"{folder} is no servable, but holds some: check {' or '.join(map(str, inside))}."
        )
    return folder


def check_operations(folder: Path, reachable: Mapping[str, list[Any]]) -> Finding:
    """Raises a ServableError if a signature reaches an operation that a server must not run."""
    reached: dict[str, int] = {}
    for signature, nodes in reachable.items():
        for node in nodes:
            for why, pattern in FORBIDDEN.items():
                if re.fullmatch(pattern, node.op):
                    raise ServableError(
                        f"The signature {signature!r} of {folder} {why}: operation {node.op} "
                        f"({node.name})."
                    )
            if XLA_ATTRIBUTE in node.attr and node.attr[XLA_ATTRIBUTE].b:
                raise ServableError(
                    f"The signature {signature!r} of {folder} needs XLA, which a server has "
                    f"switched off ({node.name}): export without jit_compile=True."
                )
            reached[node.op] = reached.get(node.op, 0) + 1
    return Finding("operations", f"{len(reached)} kinds, none forbidden")


def check_answers(
    folder: Path, signatures: Mapping[str, Any], independent: bool, compute_dtype: str
) -> list[Finding]:
    """Replays the warmup requests: each succeeds, and gets what its own examples say, only.

    Args:
        folder: The version's folder.
        signatures: Those of the servable in it.
        independent: Whether the answer for a query, or a request, must be the same without others.
        compute_dtype: What the model's layers compute in.
    """
    try:
        requests = read_requests(folder)
    except ValueError as error:
        raise ServableError(str(error)) from error
    if not requests:
        raise ServableError(
            f"{folder} has no warmup requests, which {FILE} should hold: export it with tfmeta."
        )
    for request in requests:
        _check_request(folder / FILE, signatures, request)
    findings = []
    by_signature: dict[str, list[Request]] = {}
    for request in requests:
        by_signature.setdefault(request.signature, []).append(request)
    for name, of_one in by_signature.items():
        largest = 0.0
        alone = [run(signatures, request) for request in of_one]
        inputs = {k: np.concatenate([r.inputs[k] for r in of_one]) for k in of_one[0].inputs}
        joined = Request(name, inputs)
        if independent:
            together = run(signatures, joined, "warmup requests in one batch")
            for key, value in together.items():
                what = f"Signature {name!r} of {folder}: {key} of a request alone and beside others"
                apart = np.concatenate([answer[key] for answer in alone])
                largest = max(largest, difference(what, apart, value, DEPENDS, compute_dtype))
        checked = _check_tasks(folder, signatures, joined, independent, compute_dtype)
        largest = max(largest, checked)
        findings.append(
            Finding(
                name,
                f"{len(of_one)} requests answered"
                + (f", alone and together alike within {largest:.1g}" if independent else ""),
            )
        )
    return findings


def _check_request(file: Path, signatures: Mapping[str, Any], request: Request) -> None:
    """Raises a ServableError if a warmup request is none of this servable's."""
    if request.signature not in signatures:
        raise ServableError(
            f"{file} holds a request to the signature {request.signature!r}, but the servable has "
            f"{', '.join(signatures)}: export it again."
        )
    inputs = signatures[request.signature].structured_input_signature[1]
    if inputs.keys() != request.inputs.keys():
        raise ServableError(
            f"{file} holds a request to the signature {request.signature!r} with "
            f"{', '.join(sorted(request.inputs))}, but it takes {', '.join(sorted(inputs))}: "
            "export it again."
        )


def check_agreement(
    signatures: Mapping[str, Any],
    expected: Iterable[tuple[Request, Mapping[str, Any]]],
    compute_dtype: str,
) -> Finding:
    """Raises a ServableError if an answer is not what the model in memory gives.

    Args:
        signatures: Those of the servable.
        expected: Requests, and what should be among their outputs.
        compute_dtype: What the model's layers compute in.
    """
    largest = 0.0
    for request, outputs in expected:
        answer = run(signatures, request)
        for key, value in outputs.items():
            what = f"{key} of signature {request.signature!r} and of the model in memory"
            largest = max(
                largest, difference(what, answer[key], np.asarray(value), DISAGREES, compute_dtype)
            )
    return Finding("agreement with the model", f"largest difference {largest:.1g}")


def _check_tasks(
    folder: Path,
    signatures: Mapping[str, Any],
    request: Request,
    independent: bool,
    compute_dtype: str,
) -> float:
    """The largest difference that other queries, and padding, make to a learner's answer.

    Raises:
        ServableError: If they make more than rounding.
    """
    queries = next((name for name in QUERIES if name in request.inputs), None)
    if queries is None:
        # An adapted model, whose examples are requests; or `adapt`: a state may hold the padding,
        # as long as predictions from it do not show it.
        return 0.0
    answer = run(signatures, request)
    largest = 0.0

    def compare(
        how: str, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], slack: dict[str, float]
    ) -> None:
        nonlocal largest
        for key in answer:
            what = f"Signature {request.signature!r} of {folder}: {key} of {how}"
            found = difference(what, a[key], b[key], DEPENDS, compute_dtype, slack[key])
            largest = max(largest, found)

    if independent:
        # The task's weights are the same bit for bit; the kernels of the query's way may differ.
        x = request.inputs[queries]
        singles = [
            run(signatures, _with(request, {queries: x[:, i : i + 1]}), "a single query")
            for i in range(x.shape[1])
        ]
        one_by_one = {k: np.concatenate([s[k] for s in singles], axis=1) for k in answer}
        # No inner step enlarges what half precision rounds, and `difference` allows for it.
        slack = _slack(signatures, request, answer, "query_x", "float32")
        compare("a query alone and beside others", one_by_one, answer, slack)
    if "support_mask" in request.inputs:
        rng = np.random.default_rng(0)
        how = "padding in the support set"
        one, other = (run(signatures, _padded(request, rng), how) for _ in range(2))
        # Of equal sizes, the same kernels add exact zeros for padding: nothing is rounded.
        exact = dict.fromkeys(answer, 0.0)
        compare(f"a task with one and with other {how}", one, other, exact)
        if "support_x" in request.inputs:  # Encoded, examples cannot be moved by roundings.
            slack = _slack(signatures, request, answer, "support_x", compute_dtype)
            # Where an inner step's gradient jumps (at a ReLU's or a maximum's edge), rounding may
            # move a task by any amount, but hardly ever all of the tasks.
            nearest = {k: _least_different(one[k], answer[k]) for k in answer}
            one = {k: one[k][i] for k, i in nearest.items()}
            answer = {k: answer[k][i] for k, i in nearest.items()}
            compare(f"a task with and without {how}", one, answer, slack)
    return largest


def _slack(
    signatures: Mapping[str, Any],
    request: Request,
    answer: Mapping[str, np.ndarray],
    name: str,
    compute_dtype: str,
) -> dict[str, float]:
    """How far kernels for other sizes may move each output, by how far rounding an input does."""
    slack = {key: RELATIVE * float(np.abs(value).max()) for key, value in answer.items()}
    if name not in request.inputs:
        return slack
    rng, x = np.random.default_rng(0), request.inputs[name]
    for _ in range(NUDGES):
        nudge = NUDGE * EPSILON[compute_dtype] * rng.choice([-1.0, 1.0], size=x.shape)
        nudged = _with(request, {name: x * (1 + nudge)})
        other = run(signatures, nudged, f"{name} rounded otherwise")
        for key, value in answer.items():
            moved = float(np.abs(other[key] - value).max())
            slack[key] = max(slack[key], ENLARGED * moved)
    return slack


def _least_different(a: np.ndarray, b: np.ndarray) -> slice:
    """The task that differs least; all, if they cannot be compared."""
    if a.shape != b.shape:
        return slice(None)
    i = int(np.abs(a - b).max(axis=tuple(range(1, a.ndim))).argmin())
    return slice(i, i + 1)


def _padded(request: Request, rng: np.random.Generator) -> Request:
    """The request with as many examples again, which its mask says are none."""
    inputs = request.inputs
    padding = {"support_mask": np.zeros_like(inputs["support_mask"])}
    for name in inputs.keys() & {"support_x", "support_y", "support_images"}:
        x = inputs[name]
        if x.dtype == object:
            padding[name] = np.full_like(x, rng.bytes(8))
        elif np.issubdtype(x.dtype, np.integer):
            padding[name] = rng.integers(-9, 9, x.shape)
        else:
            padding[name] = 10 * rng.normal(size=x.shape)
    return _with(request, {k: np.concatenate([inputs[k], x], axis=1) for k, x in padding.items()})


def _with(request: Request, inputs: Mapping[str, np.ndarray]) -> Request:
    """The request with other inputs, of the same types."""
    cast = {name: x.astype(request.inputs[name].dtype) for name, x in inputs.items()}
    return Request(request.signature, {**request.inputs, **cast})


def difference(
    what: str, a: np.ndarray, b: np.ndarray, why: str, compute_dtype: str, slack: float = 0.0
) -> float:
    """The largest difference of two answers.

    Raises:
        ServableError: If it is more than rounding, and `slack`; `why` says why it must not be.
    """
    if a.dtype == object:
        if not np.array_equal(a, b):
            raise ServableError(f"{what} differ: {why}")
        return 0.0
    if a.shape != b.shape:
        raise ServableError(f"{what} differ by shapes {a.shape} and {b.shape}: {why}")
    # NumPy does not compare bfloat16.
    a, b = a.astype("float64"), b.astype("float64")
    largest = float(np.abs(a - b).max(initial=0.0))
    relative, absolute = RELATIVE, ABSOLUTE
    if EPSILON[compute_dtype] > EPSILON["float32"]:
        # Small answers are sums of large numbers, and inherit what those lost.
        relative = ROUNDINGS * EPSILON[compute_dtype]
        absolute = relative * float(np.abs(b).max(initial=0.0))
    if not np.allclose(a, b, rtol=relative, atol=absolute + slack):
        raise ServableError(f"{what} differ by {largest:.2g}: {why}")
    return largest


def load(folder: Path) -> Mapping[str, Any]:
    """A servable's signatures, by name.

    Raises:
        ServableError: If it cannot be loaded.
    """
    verbosity = logging.get_verbosity()
    # Of each function with a gradient of its own TensorFlow warns that the gradient is not loaded.
    # A server asks for none.
    logging.set_verbosity(logging.ERROR)
    try:
        return tf.saved_model.load(str(folder)).signatures
    # What TensorFlow raises depends on which byte of which file is wrong.
    except Exception as error:
        raise ServableError(f"{folder} cannot be loaded: {error}. Export it again.") from error
    finally:
        logging.set_verbosity(verbosity)


def run(
    signatures: Mapping[str, Any], request: Request, how: str = "a warmup request"
) -> dict[str, np.ndarray]:
    """Asks a loaded servable.

    Raises:
        ServableError: If the signature fails, which says `how` it was asked.
    """
    with named(f"The signature {request.signature!r} fails on {how}"):
        outputs = signatures[request.signature](
            **{name: tf.constant(x) for name, x in request.inputs.items()}
        )
        return {name: x.numpy() for name, x in outputs.items()}


@contextmanager
def named(what: str) -> Iterator[None]:
    """Makes an error of TensorFlow a ServableError that says what failed, and the cause."""
    try:
        yield
    except tf.errors.OpError as error:
        # An error within a graph comes with where it was; the line before the node says what it is.
        lines = error.message.splitlines() or [type(error).__name__]
        ends = (i for i, line in enumerate(lines) if line.startswith("\t [[") and i)
        cause = re.sub(r"^{{.*?}} | \[Op:.*", "", lines[next(ends, 1) - 1])
        raise ServableError(f"{what}: {cause}") from error


def _reachable(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    """Each signature's name, and the nodes that its outputs need, functions' bodies included.

    The whole graph proves nothing: it always holds what restores the variables.
    """
    try:
        content = (folder / "saved_model.pb").read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is no servable: it has no saved_model.pb. Export one with tfmeta."
        ) from error
    try:
        (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    except (DecodeError, ValueError) as error:  # Garbage; or nothing.
        raise ServableError(
            f"{folder / 'saved_model.pb'} is broken: export the servable again."
        ) from error
    graph = meta_graph.graph_def
    nodes = {node.name: node for node in graph.node}
    functions = {f.signature.name: f.node_def for f in graph.library.function}
    for name, signature in meta_graph.signature_def.items():
        if name == INIT:
            continue
        reached: dict[str, Any] = {}
        waiting = [output.name for output in signature.outputs.values()]
        while waiting:
            node = nodes[waiting.pop().lstrip("^").split(":")[0]]
            if node.name not in reached:
                reached[node.name] = node
                waiting += node.input
        found, called = list(reached.values()), set[str]()
        for node in found:  # which grows: a function's body is reached as a whole
            for function in _functions_of(node):
                if function in functions and function not in called:
                    called.add(function)
                    found += functions[function]
        yield name, found


def _functions_of(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def _compute_dtype(reachable: Mapping[str, list[Any]]) -> str:
    """Half precision, if any operation computes in it; else float32, also for what is finer."""
    types = {
        node.attr["T"].type for nodes in reachable.values() for node in nodes if "T" in node.attr
    }
    halves = ("bfloat16", "float16")
    return next((half for half in halves if tf.as_dtype(half).as_datatype_enum in types), "float32")
