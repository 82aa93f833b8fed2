"""The operations that a servable's signatures reach, and those that a server must not run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmeta import tensorflow_internals
from tfmeta.serving.errors import ServableError

# Operations that a server cannot run, or by which a request could harm others or the machine.
FORBIDDEN = {
    "writes a variable": r"Assign\w*Variable\w*|Resource(Scatter|Apply|Sparse|Strided)\w*|Assign",
    "runs Python": r"\w*PyFunc\w*",
    "needs XLA, which a server has switched off": r"Xla\w+",
    "touches files": r"(Read|Write)File|MatchingFiles|Save\w*|Restore\w*|\w*(Reader|Dataset)V?\d?",
}

# Nodes of a graph, by the name of the signature that reaches them.
Nodes = Mapping[str, list[Any]]


def reachable_nodes(folder: Path) -> dict[str, list[Any]]:
    """Returns the nodes that each signature's outputs need, with the functions that they call.

    A scan of the whole graph would prove nothing, because a SavedModel always contains the nodes
    that restore its variables.

    Raises:
        ValueError: If the folder has no SavedModel.
        ServableError: If the SavedModel is broken.
    """
    graph, signatures = _read(folder)
    nodes = {node.name: node for node in graph.node}
    functions = {f.signature.name: f.node_def for f in graph.library.function}
    reachable = {}
    for name, signature in signatures.items():
        if name == tensorflow_internals.SAVED_MODEL_INIT:
            continue
        reached: dict[str, Any] = {}
        waiting = [output.name for output in signature.outputs.values()]
        while waiting:
            node = nodes[waiting.pop().lstrip("^").split(":")[0]]
            if node.name not in reached:
                reached[node.name] = node
                waiting += node.input
        found, called = list(reached.values()), set[str]()
        for node in found:  # The list grows: the body of each called function is appended.
            for function in _functions_of(node):
                if function in functions and function not in called:
                    called.add(function)
                    found += functions[function]
        reachable[name] = found
    return reachable


def _read(folder: Path) -> tuple[Any, Mapping[str, Any]]:
    """Returns the graph and the signatures of a SavedModel."""
    try:
        content = (folder / "saved_model.pb").read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is not a servable: it has no saved_model.pb. Export one with tfmeta."
        ) from error
    try:
        (meta_graph,) = tensorflow_internals.meta_graphs(content)
    except ValueError as error:  # The file is garbage, or empty.
        raise ServableError(
            f"{folder / 'saved_model.pb'} is broken: export the servable again."
        ) from error
    return meta_graph.graph_def, meta_graph.signature_def


def _functions_of(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def check_operations(folder: Path, reachable: Nodes) -> str:
    """Checks that no signature reaches an operation that a server must not run.

    Returns:
        What was found, in words.

    Raises:
        ServableError: If a signature reaches such an operation.
    """
    kinds = set()
    for signature, nodes in reachable.items():
        for node in nodes:
            for harm, pattern in FORBIDDEN.items():
                if re.fullmatch(pattern, node.op):
                    raise ServableError(
                        f"The signature {signature!r} of {folder} {harm}: operation {node.op} "
                        f"({node.name})."
                    )
            if tensorflow_internals.needs_xla(node):
                raise ServableError(
                    f"The signature {signature!r} of {folder} needs XLA, which a server has "
                    f"switched off ({node.name}): export without jit_compile=True."
                )
            kinds.add(node.op)
    return f"{len(kinds)} kinds, none forbidden"


def compute_dtype(reachable: Nodes) -> str:
    """Returns the half-precision dtype if any operation computes in one, else "float32".

    Models in float64 also count as float32: their answers are at least as exact.
    """
    types = {
        node.attr["T"].type for nodes in reachable.values() for node in nodes if "T" in node.attr
    }
    halves = ("bfloat16", "float16")
    return next((half for half in halves if tf.as_dtype(half).as_datatype_enum in types), "float32")
