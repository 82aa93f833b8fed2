"""What importing the package costs and does, on which systems, and what a wheel of it holds."""

import configparser
import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmeta
from tfmeta import preset_files, zoo

ROOT = Path(__file__).parent.parent

# None of these is needed before something is drawn, logged, read or published.
HEAVY = {
    *("IPython", "PIL", "huggingface_hub", "matplotlib", "pandas", "pydantic", "rich", "scipy"),
    *("sklearn", "tensorboard", "tensorflow_datasets", "typer", "yaml"),
    *("tfmeta.data.glyphs", "tfmeta.plots", "tfmeta.serving", "tfmeta.testing"),
}


def run(code: str, *arguments: object, **environment: str) -> str:
    """What a Python program prints in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(Path(tfmeta.__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# === Importing ===

FRESH = """
import json, sys
import tensorflow as tf, keras
# Where scikit-learn and matplotlib are installed, Keras itself imports parts of them.
before = set(sys.modules)
import tfmeta
imported = set(sys.modules) - before
registered = [name for name in keras.saving.get_custom_objects() if name.startswith("tfmeta>")]
tfmeta.configure_threads(3)
threads = tf.config.threading
configured = (
    threads.get_inter_op_parallelism_threads(), threads.get_intra_op_parallelism_threads()
)
tf.constant(1.0) + 1.0
try:
    tfmeta.configure_threads(2)
    late = None
except RuntimeError as error:
    late = str(error)
print(json.dumps({
    "imported": sorted(imported),
    "registered": registered,
    "configured": configured,
    "late": late,
}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What happens in a process of its own."""
    return json.loads(run(FRESH).splitlines()[-1])


def test_importing_imports_nothing_heavy_besides_tensorflow_and_keras(
    fresh: dict[str, Any],
) -> None:
    assert "tfmeta.learners.maml" in fresh["imported"]
    assert [m for m in fresh["imported"] if m in HEAVY or m.split(".")[0] in HEAVY] == []


def test_importing_registers_the_learners_with_keras(fresh: dict[str, Any]) -> None:
    classes = {f"tfmeta>{learner.__name__}" for learner in tfmeta.learners.BY_NAME.values()}
    assert classes <= set(fresh["registered"])


def test_importing_does_not_start_tensorflow(fresh: dict[str, Any]) -> None:
    assert fresh["configured"] == [3, 1]


def test_configuring_threads_too_late_says_what_to_do(fresh: dict[str, Any]) -> None:
    assert "call tfmeta.configure_threads() before" in fresh["late"]


def test_the_version_is_that_of_the_distribution() -> None:
    assert tfmeta.__version__ == metadata.version("tfmeta")


def test_every_public_name_exists() -> None:
    for module in (tfmeta, tfmeta.backbones, tfmeta.data, tfmeta.learners, tfmeta.testing):
        assert [n for n in module.__all__ if not hasattr(module, n)] == []
    assert set(tfmeta.__all__) <= set(dir(tfmeta))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tfmeta' has no attribute 'MALM'"):
        _ = tfmeta.MALM


# === The command line ===


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A copy of tfmeta whose `learners` only say that they are imported; and another package."""
    for package in ("tfmeta", "other"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__main__.py").touch()
    for name in ("__init__.py", "version.py"):
        shutil.copy(Path(tfmeta.__file__).with_name(name), tmp_path / "tfmeta")
    (tmp_path / "tfmeta" / "learners.py").write_text("print('learners')")
    (tmp_path / "tfmeta" / "other.py").touch()
    (tmp_path / "other" / "__init__.py").write_text("import tfmeta")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "is_command"),
    [
        (["-m", "tfmeta", "list"], True),
        (["-X", "utf8", "-Wignore", "-mtfmeta"], True),
        (["-m", "other", "tfmeta"], False),
        (["-m", "tfmeta.other"], False),
        (["bin/tfmeta", "list"], True),
        (["bin/tfmeta.exe"], True),
        (["bin/train.py", "tfmeta"], False),
        (["-c", "import tfmeta", "tfmeta"], False),
    ],
)
def test_only_the_command_imports_no_learners(
    arguments: list[str], is_command: bool, copies: Path
) -> None:
    (copies / "bin").mkdir()
    for name in ("tfmeta", "tfmeta.exe", "train.py"):
        (copies / "bin" / name).write_text("import tfmeta")
    printed = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(copies)},
        cwd=copies,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split() == ([] if is_command else ["learners"])


LISTING = """
import sys
sys.argv = ["tfmeta"]
import tfmeta, tfmeta.preset_files, tfmeta.presets, tfmeta.registry, tfmeta.versions
for name in tfmeta.list_presets():
    tfmeta.preset_files.read_values(tfmeta.presets.find(name))
    print(name)
slow = {"tensorflow", "keras", "numpy", "matplotlib", "yaml"} & set(sys.modules)
assert not slow, slow
"""


def test_presets_are_listed_and_described_without_tensorflow() -> None:
    assert run(LISTING).split() == tfmeta.list_presets()


@pytest.mark.large
def test_a_command_that_fails_to_import_tensorflow_shows_what_it_logged() -> None:
    code = """
import os, sys
from tfmeta.quiet import quiet_tensorflow
sys.argv = ["tfmeta"]
with quiet_tensorflow():
    os.write(2, b"held back\\n")
print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
os.dup2(1, 2)  # What comes now is to be seen.
try:
    with quiet_tensorflow():
        os.write(2, b"the reason\\n")
        raise ImportError("libcudart")
except ImportError as error:
    print(error)
"""
    printed = run(code, TF_CPP_MIN_LOG_LEVEL="2").split("\n")
    assert sorted(printed) == ["", "2", "libcudart", "the reason"]


# === Other systems, as far as they can be simulated on this one ===

# Neither `fcntl` nor `os.name` is there as on Linux when tfmeta is imported.
SIMULATED = """
import importlib.util, json, os, sys, types
import tensorflow, keras, numpy, filelock  # They have what they need of this system.
system, preset, output = sys.argv[1:]

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "grp", "pwd", "resource", "termios"):
            raise ModuleNotFoundError(f"No module named {name!r}")

if system == "win32":
    sys.meta_path.insert(0, Refuse())
    for name in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules.pop(name, None)
sys.platform = system
import pathlib
import tfmeta
from tfmeta import files, preset_files, versions, zoo

opened = []
if system == "win32":
    system_open = os.open

    def open_as_windows_does(path, flags, *rest, **options):
        if pathlib.Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        opened.append(flags)
        return system_open(path, flags, *rest, **options)

    # For this module only: pathlib would make paths of Windows.
    files.os = types.SimpleNamespace(**{**vars(os), "name": "nt", "open": open_as_windows_does})
learner = tfmeta.from_preset(preset)
learner.save_to_preset(output)
assert all(flags & os.O_RDWR for flags in opened), opened
print(json.dumps([tfmeta.list_presets(), len(opened), sorted(os.listdir(output))]))
"""


@pytest.mark.parametrize(
    "system", [*(pytest.param(s, marks=pytest.mark.large) for s in ("linux", "darwin")), "win32"]
)
def test_presets_are_listed_loaded_and_saved_on_each_system(system: str, tmp_path: Path) -> None:
    output = run(SIMULATED, system, "maml_sinusoid", tmp_path / "mine")
    names, n_opened, files = json.loads(output.splitlines()[-1])
    assert names == tfmeta.list_presets()
    assert "maml_sinusoid" in names
    assert (n_opened > 0) == (system == "win32")
    assert files == [preset_files.LEARNER, preset_files.PRESET]


def test_no_module_needs_what_windows_lacks() -> None:
    for path in (ROOT / "tfmeta").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("import fcntl", "import resource", "os.symlink", "symlink_to", "os.mkfifo"):
            assert word not in text, f"{path} has {word}"


def test_the_package_has_no_links() -> None:
    assert [path for path in (ROOT / "tfmeta").rglob("*") if path.is_symlink()] == []
    assert [path for path in (ROOT / "saved_models").rglob("*") if path.is_symlink()] == []


# === The wheel ===

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist, which was built from a copy of the checkout without links."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in ("tfmeta", "saved_models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.cfg", "setup.py", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    backend = f"""
import os, setuptools.build_meta as backend, tarfile
os.chdir({str(source)!r})
name = backend.build_sdist({str(folder)!r})
with tarfile.open({str(folder)!r} + "/" + name) as archive:
    archive.extractall({str(folder)!r} + "/unpacked", filter="data")
"""
    run(backend)
    (unpacked,) = (folder / "unpacked").iterdir()
    options = ["--no-deps", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *options, unpacked], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def site(built: Path) -> Path:
    """A folder with the wheel installed."""
    folder = built.parent / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", folder, built], check=True)
    return folder


@pytest.mark.large
def test_a_wheel_holds_each_module_and_each_preset_once(built: Path) -> None:
    with zipfile.ZipFile(built) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "tfmeta").rglob("*.py")}
    presets = {f"tfmeta/{name}" for name in files_in(ROOT, "saved_models")}
    assert len(presets) > 60
    assert sorted(names) == sorted({*modules, *presets, "tfmeta/py.typed"})


def files_in(root: Path, folder: str) -> set[str]:
    paths = (root / folder).rglob("*")
    return {path.relative_to(root).as_posix() for path in paths if path.is_file()}


INSTALLED = """
import socket, sys
def refuse(*arguments):
    raise OSError("there is no network")
socket.socket.connect = socket.create_connection = refuse
import numpy as np
import tfmeta
assert tfmeta.__file__.startswith(sys.argv[1]), tfmeta.__file__
names = tfmeta.list_presets()
print(*names)
# One in five takes a third of a minute off; the test above finds the files of all.
for name in names[::5]:
    learner = tfmeta.from_preset(name)
    x = np.random.default_rng(0).random((5, *learner.example_shape), "float32")
    y = x if learner.output_kind == "values" else np.arange(5)
    predictions = learner.adapt(x, y).predict(x, batch_size=5, verbose=0)
    print(name, predictions.tobytes().hex())
"""


@pytest.mark.large
def test_an_installed_wheel_has_the_presets(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty folder, without the repository and without a network."""
    monkeypatch.chdir(tmp_path)
    names, *printed = run(INSTALLED, site, PYTHONPATH=str(site)).splitlines()
    assert names.split() == tfmeta.list_presets()
    assert len(printed) == 3
    for name, predictions in map(str.split, printed):
        learner = tfmeta.from_preset(name)
        x = np.random.default_rng(0).random((5, *learner.example_shape), "float32")
        y = x if learner.output_kind == "values" else np.arange(5)
        np.testing.assert_allclose(
            np.frombuffer(bytes.fromhex(predictions), "float32"),
            np.asarray(learner.adapt(x, y).predict(x, batch_size=5, verbose=0)).ravel(),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.large
def test_the_installed_command_is_the_module(site: Path) -> None:
    (scripts,) = site.glob("tfmeta-*.dist-info/entry_points.txt")
    assert "tfmeta = tfmeta.__main__:main" in scripts.read_text()


def test_a_checkout_finds_the_presets_beside_the_package() -> None:
    package = Path(tfmeta.__file__).parent
    assert zoo.find("maml_sinusoid") == package.parent / "saved_models" / "maml_sinusoid"
    assert not (package / "saved_models").exists()


# === What setup.cfg claims ===


def test_each_requirement_has_a_lower_bound_that_can_be_tried() -> None:
    oldest = runpy.run_path(str(ROOT / "tests" / "oldest.py"))
    lines = oldest["constraints"]((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert any(line.startswith("tensorflow==") for line in lines)
    with pytest.raises(ValueError, match="must be NAME>=VERSION"):
        oldest["constraints"]("[options]\ninstall_requires =\n    keras>=3\n    scipy\n")


def test_the_versions_of_python_are_claimed_alike() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    prefix = "Programming Language :: Python :: 3."
    classifiers = config["metadata"]["classifiers"].splitlines()
    minors = [int(line.removeprefix(prefix)) for line in classifiers if line.startswith(prefix)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    # The classifiers name the versions that were tried; pip may try later ones.
    assert config["options"]["python_requires"] == f">=3.{minors[0]}"
    tried = ", ".join(f"3.{minor}" for minor in minors)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python 3.{minors[0]} or later (tested on {tried})" in readme
    assert minors[0] <= sys.version_info.minor <= minors[-1]
