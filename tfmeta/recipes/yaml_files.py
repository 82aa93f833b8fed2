"""Reading YAML files, with bounds on what a file can expand to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

# Far more than a recipe needs, and little enough for PyYAML, whose time grows faster than the file.
MOST_BYTES = 50_000
MOST_LEVELS = 20
# An alias counts as often as it is used, so that a small file cannot describe a large content.
MOST_VALUES = 2_000

_INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "merge"))
# Numbers and dates as in YAML 1.1, which reads 1:30 as 90 and 010 as 8.
_REPLACED = (_INT, _FLOAT, "tag:yaml.org,2002:timestamp")


class _Loader(yaml.SafeLoader):
    """Reads numbers as in YAML 1.2; what else looks like a number or a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._n_values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._level += 1
        self._n_values += 1
        if self._level > MOST_LEVELS:
            raise _error(f"it has more than {MOST_LEVELS} levels", parent)
        if self._n_values > MOST_VALUES:
            raise _error(f"it has more than {MOST_VALUES:,} values", parent)
        node = super().compose_node(parent, index)
        self._level -= 1
        return node


_Loader.add_implicit_resolver(
    _INT,
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?$"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node)).replace("_", "")
    try:
        if node.tag == _INT:
            return int(text, 0)
        return float(re.sub(r"\.(?=inf$|nan$)", "", text.lower()))
    except ValueError as error:
        raise _error(f"{text[:40]!r} is no number", node) from error


for _tag in (_INT, _FLOAT):
    _Loader.add_constructor(_tag, _number)


def read_yaml(file: Path) -> Any:
    """Returns the content of a YAML file.

    Args:
        file: Path. The file.

    Raises:
        ValueError: If the file is too large, is not valid YAML, gives a key twice in one mapping,
            or describes too many values.
    """
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{file} is too large: it must have at most {MOST_BYTES:,} bytes.")
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no valid YAML: it is not encoded in UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        where = "" if mark is None else f", in line {mark.line + 1}"
        raise ValueError(f"{file} is no valid YAML: {problem}{where}.") from error


def _check(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """Returns the number of values that a node describes.

    Args:
        node: yaml.Node. The node.
        sizes: dict. The numbers of the nodes that were counted already, by their ids; None for
            those that contain this node.
    """
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise _error("a value contains itself", node)
        return size
    sizes[id(node)] = None
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if key in keys[:i] and key[0] != _MERGE:
                raise _error(f"the key {key[1][:40]!r} occurs twice", node)
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    total = 1 + sum(_check(part, sizes) for part in parts)
    if total > MOST_VALUES:
        raise _error(f"it has more than {MOST_VALUES:,} values", node)
    sizes[id(node)] = total
    return total


def _error(problem: str, node: yaml.Node | None) -> yaml.YAMLError:
    mark = None if node is None else node.start_mark
    return yaml.constructor.ConstructorError(None, None, problem, mark)
