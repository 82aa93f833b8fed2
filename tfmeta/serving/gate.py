"""The checks that a servable must pass before it is published, and can repeat at any time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmeta.serving.agreement import difference, difference_by_task, measured_slack
from tfmeta.serving.errors import ServableError
from tfmeta.serving.loaded_servable import LoadedServable
from tfmeta.serving.locations import newest_version
from tfmeta.serving.operations import check_operations, compute_dtype, reachable_nodes
from tfmeta.serving.warmup import FILE, Request, read_requests

QUERIES = ("query_x", "query_images")
PADDING = "padding in the support set"

INDEPENDENT = "an answer must depend on nothing else."
FAITHFUL = "what is served must predict as the model that was exported."

Answer = Mapping[str, np.ndarray]


class Finding(NamedTuple):
    """A check that a servable passed, and its result in words."""

    what: str
    result: str


def check(
    folder: str | os.PathLike[str],
    allow_transductive: bool = False,
    expected: Iterable[tuple[Request, Mapping[str, Any]]] | None = None,
    reference: tuple[Request, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Checks the operations of a servable, and its answers.

    Args:
        folder: str or path. The folder of a version, or of a servable to check the newest version
            of.
        allow_transductive: bool. Whether an answer may depend on the other queries of a request.
            Defaults to False.
        expected: requests and answers, or None. What the exported functions answer in memory.
            Defaults to None.
        reference: a request and its answer, or None. What the plain model answers. Defaults to
            None.

    Returns:
        The checks that were passed, with their results.

    Raises:
        ServableError: If a check fails.
        ValueError: If there is no servable in the folder, or there are several.

    Example:

    >>> import tfmeta
    >>> folder = tfmeta.presets.find("maml_sinusoid")
    >>> findings = tfmeta.serving.check(tfmeta.serving.servable_of(folder))
    >>> [finding.what for finding in findings]
    ['operations', 'adapt_and_predict', 'adapt', 'predict']
    """
    folder = newest_version(folder)
    reachable = reachable_nodes(folder)
    findings = [Finding("operations", check_operations(folder, reachable))]
    servable = LoadedServable.load(folder, compute_dtype(reachable))
    findings += check_answers(servable, not allow_transductive)
    if expected is not None:
        findings.append(check_agreement(servable, expected))
    if reference is not None:
        findings.append(check_reference(servable, *reference))
    return findings


# === Answers to the warmup requests ===


def check_answers(servable: LoadedServable, independent: bool) -> list[Finding]:
    """Replays the warmup requests and checks that each answer depends on its own examples only.

    Args:
        servable: LoadedServable.
        independent: bool. Whether the answer for a query, or a request, must be the same without
            the other queries, or requests.

    Raises:
        ServableError: If a request fails, or answers differ by more than rounding.
    """
    requests = _warmup_requests(servable)
    findings = []
    for name in dict.fromkeys(request.signature for request in requests):
        of_signature = [request for request in requests if request.signature == name]
        answers = [servable.answer(request) for request in of_signature]
        inputs = {
            key: np.concatenate([request.inputs[key] for request in of_signature])
            for key in of_signature[0].inputs
        }
        joined = Request(name, inputs)
        largest = 0.0
        if independent:
            largest = _check_joined(servable, joined, answers)
        if any(query in inputs for query in QUERIES):
            # The answers for adapted models have no tasks; the state that `adapt` returns may hold
            # the padding, as long as predictions from it do not show it.
            largest = max(largest, _check_tasks(servable, joined, independent))
        together = f", alone and together alike within {largest:.1g}" if independent else ""
        findings.append(Finding(name, f"{len(of_signature)} requests answered{together}"))
    return findings


def _warmup_requests(servable: LoadedServable) -> list[Request]:
    """Returns the warmup requests after a check that they fit the servable's signatures."""
    file = servable.folder / FILE
    try:
        requests = read_requests(servable.folder)
    except ValueError as error:
        raise ServableError(str(error)) from error
    if not requests:
        raise ServableError(
            f"{servable.folder} has no warmup requests, which {FILE} should hold: export it with "
            "tfmeta."
        )
    for request in requests:
        if request.signature not in servable.signatures:
            raise ServableError(
                f"{file} holds a request to the signature {request.signature!r}, but the servable "
                f"has {', '.join(servable.signatures)}: export it again."
            )
        inputs = servable.signatures[request.signature].structured_input_signature[1]
        if inputs.keys() != request.inputs.keys():
            raise ServableError(
                f"{file} holds a request to the signature {request.signature!r} with "
                f"{', '.join(sorted(request.inputs))}, but it takes {', '.join(sorted(inputs))}: "
                "export it again."
            )
    return requests


def _check_joined(servable: LoadedServable, joined: Request, answers: Sequence[Answer]) -> float:
    """Compares the answers to requests that are sent alone with those of one batch of them all."""
    largest = 0.0
    for key, together in servable.answer(joined, "warmup requests in one batch").items():
        what = (
            f"Signature {joined.signature!r} of {servable.folder}: {key} of a request alone and "
            "beside others"
        )
        alone = np.concatenate([answer[key] for answer in answers])
        found = difference(what, alone, together, INDEPENDENT, servable.compute_dtype)
        largest = max(largest, found)
    return largest


def _check_tasks(servable: LoadedServable, request: Request, independent: bool) -> float:
    """Returns the largest difference that other queries, and padding, make to answers for tasks.

    Raises:
        ServableError: If they make more than rounding.
    """
    answer = servable.answer(request)
    what = f"Signature {request.signature!r} of {servable.folder}: "
    largest = 0.0
    if independent:
        largest = _check_single_queries(servable, request, answer, what)
    if "support_mask" in request.inputs:
        largest = max(largest, _check_padding(servable, request, answer, what))
    return largest


def _check_single_queries(
    servable: LoadedServable, request: Request, answer: Answer, what: str
) -> float:
    """Compares the answers for queries that are sent one by one with those for all together."""
    query_name = next(name for name in QUERIES if name in request.inputs)
    queries = request.inputs[query_name]
    single_answers = [
        servable.answer(request.with_inputs({query_name: queries[:, i : i + 1]}), "a single query")
        for i in range(queries.shape[1])
    ]
    # The task's weights are the same bit for bit: only the kernels of the query's way may differ,
    # so no inner step enlarges what half precision rounds, and float32 is moved.
    slack = measured_slack(servable, request, answer, "query_x", "float32")
    largest = 0.0
    for key, together in answer.items():
        alone = np.concatenate([single_answer[key] for single_answer in single_answers], axis=1)
        found = difference(
            f"{what}{key} of a query alone and beside others",
            alone,
            together,
            INDEPENDENT,
            servable.compute_dtype,
            slack[key],
        )
        largest = max(largest, found)
    return largest


def _check_padding(servable: LoadedServable, request: Request, answer: Answer, what: str) -> float:
    """Compares the answers for tasks with padding, with other padding, and without."""
    rng = np.random.default_rng(0)
    padded, padded_otherwise = (
        servable.answer(_with_padding(request, rng), PADDING) for _ in range(2)
    )
    largest = 0.0
    for key in answer:
        # Both are of one size, so the same kernels add exact zeros for padding: no slack.
        found = difference(
            f"{what}{key} of a task with one and with other {PADDING}",
            padded[key],
            padded_otherwise[key],
            INDEPENDENT,
            servable.compute_dtype,
        )
        largest = max(largest, found)
    if "support_x" not in request.inputs:
        return largest  # How far rounding moves the answers cannot be measured for encoded images.
    slack = measured_slack(servable, request, answer, "support_x", servable.compute_dtype)
    for key, without in answer.items():
        found = difference_by_task(
            f"{what}{key} of a task with and without {PADDING}",
            padded[key],
            without,
            INDEPENDENT,
            servable.compute_dtype,
            slack[key],
        )
        largest = max(largest, found)
    return largest


def _with_padding(request: Request, rng: np.random.Generator) -> Request:
    """Returns the request with twice as many examples, half of which its mask marks as padding."""
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
    return request.with_inputs(
        {name: np.concatenate([inputs[name], x], axis=1) for name, x in padding.items()}
    )


# === Answers of the model ===


def check_agreement(
    servable: LoadedServable, expected: Iterable[tuple[Request, Mapping[str, Any]]]
) -> Finding:
    """Checks that the loaded signatures answer as the exported functions do in memory.

    Args:
        servable: LoadedServable.
        expected: requests, and what should be among the outputs of each.

    Raises:
        ServableError: If an answer differs by more than rounding.
    """
    largest = 0.0
    for request, outputs in expected:
        answer = servable.answer(request)
        for key, value in outputs.items():
            what = f"{key} of signature {request.signature!r} and of the model in memory"
            found = difference(
                what, answer[key], np.asarray(value), FAITHFUL, servable.compute_dtype
            )
            largest = max(largest, found)
    return Finding("agreement with the model", f"largest difference {largest:.1g}")


def check_reference(
    servable: LoadedServable, request: Request, outputs: Mapping[str, Any]
) -> Finding:
    """Checks that a loaded signature answers as the plain model, which was called eagerly.

    Args:
        servable: LoadedServable.
        request: Request. One with several tasks, or examples.
        outputs: dict of arrays. What should be among the outputs.

    Raises:
        ServableError: If an answer differs by more than rounding that inner steps enlarge.
    """
    answer = servable.answer(request)
    has_tasks = "support_x" in request.inputs
    moved_input, compare = ("support_x", difference_by_task) if has_tasks else ("x", difference)
    slack = measured_slack(servable, request, answer, moved_input, servable.compute_dtype)
    largest = 0.0
    for key, value in outputs.items():
        found = compare(
            f"{key} of signature {request.signature!r} and of the model called eagerly",
            answer[key],
            np.asarray(value),
            FAITHFUL,
            servable.compute_dtype,
            slack[key],
        )
        largest = max(largest, found)
    return Finding("agreement with an eager call", f"largest difference {largest:.1g}")
