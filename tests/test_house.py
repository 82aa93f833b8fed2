"""The house is in order: imports, sizes of files, docstrings and uses of private interfaces.

Nothing is imported: the files are only read. `python tests/test_house.py` prints all files with
their floors and sizes.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tfmeta"

# Rooms by floor, from the ground; a room is a file or a folder of the package. A room may import
# from its own floor and from those below.
FLOORS: list[set[str]] = [
    {
        *("addons", "archives", "backend", "checks", "files", "keras_internals", "keras_layers"),
        *("modes", "pfor_internals", "quiet", "registry", "signals", "task_mapping"),
        *("tensorflow_internals", "threads", "version", "versions"),
    },
    {
        *("about", "backbones", "data", "downloads", "metrics", "networks", "ops"),
        *("preset_files", "report", "zoo"),
    },
    {"inner_rules"},
    {"learners"},
    {"callbacks", "evaluation", "presets", "recipes", "rl", "serving", "testing"},
    {"cards", "classifier", "plots", "task_files", "tasks", "training", "tuning", "zoo_table"},
    {"__init__", "__main__", "cli"},
]
# What no file of a room may import itself, whatever its floor.
FORBIDDEN = {
    "learners": {"tfmeta.presets", "tfmeta.serving", "tfmeta.versions", "filelock", "fcntl"}
}

LONGEST_FILE = 350

# Files with several public classes, and why.
SCHEMA = "the pydantic models of one section of a recipe"
SEVERAL_CLASSES: dict[str, str] = {
    "recipes/data.py": SCHEMA,
    "recipes/inner_rules.py": SCHEMA,
    "recipes/feature_heads.py": SCHEMA,
    "recipes/learners.py": SCHEMA,
    "recipes/networks.py": SCHEMA,
    "recipes/options.py": SCHEMA,
    "recipes/schema.py": SCHEMA,
}
# Classes that only travel with a function, and errors, do not count.
CARRIERS = re.compile(r"(NamedTuple|TypedDict|Protocol|Enum|\w*Error|\w*Exception|\w*Warning)$")

BAD_BEGINNING = re.compile(r"(That|Those|The same|What|As|Of|None|It)\b")

# Private or fragile interfaces of Keras and TensorFlow, and the files that may use them.
INTERNALS_FILES = (
    *("keras_internals.py", "keras_layers.py"),
    *("pfor_internals.py", "tensorflow_internals.py"),
)
INTERNALS = re.compile(
    r"\b(_flatten_layers|_default_save_signature|convolution_op|seed_generator_state|raw_ops"
    r"|_run_through_graph|_inbound_nodes|_keras_history|_keras_mask"
    r"|keras\.src|tensorflow\.core|tensorflow\.python)\b"
    r"|\bnn\.moments = |\(tf\.nn, 'moments'"
)


# === Imports ===


def module_files(package: Path) -> dict[str, Path]:
    """The files of a package by module name; a folder's name stands for its `__init__`."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported_names(name: str, path: Path) -> Iterator[str]:
    """Every name that a file imports, in statements anywhere in it.

    `from a import b` gives `a.b`, which need not be a module.
    """
    package = package_of(name, path)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                module = ".".join([*parents, module] if module else parents)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def strings(name: str, path: Path) -> Iterator[str]:
    """The strings of a file, as absolute names of what could be modules.

    Lazy imports have such: `importlib.import_module("tfmeta.plots")`, or a table of names.
    """
    package = package_of(name, path)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield package + node.value if node.value.startswith(".") else node.value


def package_of(name: str, path: Path) -> str:
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def import_graph(package: Path) -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports."""
    files = module_files(package)
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        graph[name] = {string for string in strings(name, path) if string in files}
        for imported in imported_names(name, path):
            while imported and imported not in files:
                imported = imported.rpartition(".")[0]
            if imported:
                graph[name].add(imported)
        graph[name].discard(name)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules of which each reaches each other one."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for module in graph[waiting.pop()] - found:
                found.add(module)
                waiting.append(module)
        return found

    reach = {module: reached(module) for module in graph}
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in graph
        if module in reach[module]
    }
    return [list(group) for group in sorted(groups)]


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor(module: str, floors: list[set[str]]) -> int | None:
    return next((n for n, rooms in enumerate(floors) if room(module) in rooms), None)


def wrong_imports(
    package: Path, floors: list[set[str]], forbidden: dict[str, set[str]]
) -> list[str]:
    """Rooms without a floor, imports that go up, and forbidden ones."""
    graph = import_graph(package)
    wrong = [f"{m} has no floor" for m in graph if floor(m, floors) is None]
    for module, imports in sorted(graph.items()):
        for imported in sorted(imports):
            here, there = floor(module, floors), floor(imported, floors)
            if here is not None and there is not None and there > here:
                wrong.append(f"{module} imports upwards: {imported}")
    for module, path in module_files(package).items():
        for imported in sorted(set(imported_names(module, path))):
            for name in forbidden.get(room(module), ()):
                if f"{imported}.".startswith(f"{name}."):
                    wrong.append(f"{module} may not import {imported}")
    return wrong


# === Files ===


def too_long(package: Path, longest: int) -> list[str]:
    sizes = {path.relative_to(package).as_posix(): n_lines(path) for path in package.rglob("*.py")}
    return [f"{name} has {size} lines" for name, size in sorted(sizes.items()) if size > longest]


def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def with_several_classes(package: Path) -> dict[str, list[str]]:
    """The public classes of each file that has more than one."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        classes = [
            node.name
            for node in parse(path).body
            if isinstance(node, ast.ClassDef)
            and not node.name.startswith("_")
            and not any(CARRIERS.search(ast.unparse(base)) for base in node.bases)
        ]
        if len(classes) > 1:
            found[path.relative_to(package).as_posix()] = classes
    return found


def riddles(package: Path) -> list[str]:
    """Docstrings that begin with a word that points outside of them."""
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(parse(path)):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            docstring = ast.get_docstring(node) or ""
            if BAD_BEGINNING.match(docstring):
                place = f"{path.relative_to(package).as_posix()}:{getattr(node, 'lineno', 1)}"
                found.append(f"{place}: {docstring.splitlines()[0]}")
    return found


def uses_of_internals(package: Path) -> list[str]:
    """Lines of code, without comments and docstrings, that use what only one file may use."""
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name in INTERNALS_FILES:
            continue
        tree = parse(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value = ast.Constant(None)
        for line in ast.unparse(tree).splitlines():
            if INTERNALS.search(line):
                found.append(f"{name}: {line.strip()}")
    return found


# === The package ===


def test_no_modules_import_each_other_in_a_circle():
    assert circles(import_graph(PACKAGE)) == []


def test_no_module_imports_upwards():
    assert wrong_imports(PACKAGE, FLOORS, FORBIDDEN) == []


def test_no_file_is_too_long():
    assert too_long(PACKAGE, LONGEST_FILE) == []


def test_each_file_has_one_public_class():
    assert with_several_classes(PACKAGE).keys() == SEVERAL_CLASSES.keys()


def test_no_docstring_begins_as_a_riddle():
    assert riddles(PACKAGE) == []


def test_private_interfaces_are_used_in_one_file():
    assert uses_of_internals(PACKAGE) == []


# === The checks themselves, on made-up packages ===


@pytest.fixture
def house(tmp_path):
    """Makes a package of these files, by path and text."""

    def build(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "house" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "house"

    return build


@pytest.mark.parametrize(
    "text",
    [
        "import house.b",
        "from house import b",
        "from house.b import thing",
        "from . import b",
        "from .b import thing",
        "def f():\n    import house.b",
        "if TYPE_CHECKING:\n    from house.b import Thing",
        "import importlib\nb = importlib.import_module('house.b')",
        "import importlib\nb = importlib.import_module('.b', __package__)",
    ],
)
def test_every_kind_of_import_closes_a_circle(house, text):
    package = house({"a.py": text, "b.py": "import house.a", "c.py": "import house.a"})
    assert circles(import_graph(package)) == [["house.a", "house.b"]]


def test_a_string_that_names_no_module_is_no_import(house):
    package = house({"room/__init__.py": "from .a import f", "room/a.py": "suffix = '.keras'"})
    assert circles(import_graph(package)) == []


def test_a_circle_may_go_through_a_package():
    graph = {"h": {"h.room"}, "h.room": {"h.room.x"}, "h.room.x": {"h"}, "h.other": {"h"}}
    assert circles(graph) == [["h", "h.room", "h.room.x"]]


def test_a_name_of_a_package_is_an_import_of_its_init_and_a_module_is_not(house):
    files = {"__init__.py": "from house.a import f", "a.py": "", "b.py": "from house import f"}
    package = house({**files, "room/__init__.py": "", "room/c.py": "from .. import a"})
    graph = import_graph(package)
    assert graph["house.b"] == {"house"}
    assert graph["house.room.c"] == {"house.a"}
    assert circles(graph) == []
    house({"a.py": "import house"})
    assert circles(import_graph(package)) == [["house", "house.a"]]


def test_imports_that_go_up_and_forbidden_ones_are_found(house):
    files = {"a.py": "import house.b.c", "b/__init__.py": "", "b/c.py": "import filelock"}
    package = house({**files, "d.py": "from house import a"})
    assert wrong_imports(package, [{"a", "b"}, {"d"}], {}) == []
    assert wrong_imports(package, [{"a"}, {"b", "d"}], {}) == ["house.a imports upwards: house.b.c"]
    assert wrong_imports(package, [{"a", "b"}], {}) == ["house.d has no floor"]
    assert wrong_imports(package, [{"a", "b", "d"}], {"b": {"filelock"}, "d": {"house.a"}}) == [
        "house.b.c may not import filelock",
        "house.d may not import house.a",
    ]


def test_long_files_and_further_public_classes_are_found(house):
    files = {
        "a.py": "class A:\n    class Inner: pass\nclass _B: pass\nclass BadError(ValueError): ...",
        "b/c.py": "class C:\n    x = 1\n\n\nclass D:\n    ...\nclass E(t.NamedTuple):\n    x = 1",
    }
    package = house(files)
    assert too_long(package, 8) == []
    assert too_long(package, 7) == ["b/c.py has 8 lines"]
    assert with_several_classes(package) == {"b/c.py": ["C", "D"]}


@pytest.mark.parametrize("word", ["That", "Those", "The same", "What", "As", "Of", "None", "It"])
def test_a_docstring_that_is_a_riddle_is_found(house, word):
    package = house(
        {
            "a.py": f'"""{word} is here."""\nclass A:\n    """Aspects."""\n    async def f(self):\n'
            f'        """{word}, too."""\n',
            "b.py": f'"""Its {word}."""\ndef f():\n    """Items.\n\n    {word} is fine."""\n',
        }
    )
    assert riddles(package) == [f"a.py:1: {word} is here.", f"a.py:4: {word}, too."]


@pytest.mark.parametrize(
    "line",
    [
        "layers = model._flatten_layers()",
        "class M:\n    def _default_save_signature(self): ...",
        "layer.convolution_op = f",
        "setattr(layer, 'convolution_op', f)",
        "tf.nn.moments = f",
        "setattr(tf.nn, 'moments', f)",
        "is_seed = v.name == 'seed_generator_state'",
        "from keras.src import backend",
        "tf.raw_ops.Add(x=1, y=2)",
        "from tensorflow.core.protobuf import saved_model_pb2",
        "def f():\n    from tensorflow.python.eager import context",
    ],
)
def test_a_use_of_a_private_interface_is_found(house, line):
    files = dict.fromkeys(INTERNALS_FILES, line)
    package = house({"a.py": line, **files, "b.py": '"""tf.raw_ops"""  # keras.src'})
    (found,) = uses_of_internals(package)
    assert found.startswith("a.py: ")


def test_public_interfaces_may_be_used(house):
    package = house({"a.py": "mean, variance = tf.nn.moments(x, axes=[0])\nlayers = model.layers"})
    assert uses_of_internals(package) == []


def main() -> int:
    """Prints floors, files and sizes, and what is out of order."""
    files = module_files(PACKAGE)
    for number in reversed([*range(len(FLOORS))]):
        modules = {m: n_lines(path) for m, path in files.items() if floor(m, FLOORS) == number}
        print(f"floor {number}: {', '.join(sorted(FLOORS[number]))}")
        for module, size in sorted(modules.items()):
            print(f"{size:>7}  {files[module].relative_to(PACKAGE.parent).as_posix()}")
    wrong = {
        "circles": [" -> ".join(circle) for circle in circles(import_graph(PACKAGE))],
        "wrong imports": wrong_imports(PACKAGE, FLOORS, FORBIDDEN),
        f"files over {LONGEST_FILE} lines": too_long(PACKAGE, LONGEST_FILE),
        "several public classes": [
            f"{name}: {', '.join(classes)}"
            for name, classes in with_several_classes(PACKAGE).items()
            if name not in SEVERAL_CLASSES
        ],
        "docstrings that begin as riddles": riddles(PACKAGE),
        "private interfaces": uses_of_internals(PACKAGE),
    }
    for what, found in wrong.items():
        print(f"\n{what}: {len(found)}")
        for line in found:
            print(f"  {line}")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
