"""The notebooks run from top to bottom, and are committed with the outputs of such a run.

By default they run with small settings; the large tests run them as they are committed.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from execute import NOTEBOOKS, execute

SMALL: dict[str, dict[str, Any]] = {
    "quickstart": {"epochs": 2, "steps_per_epoch": 15, "n_test_episodes": 40},
    "from_preset_to_servable": {"n_scans": 6, "n_labelled": 2},
}
COMMITTED = {path.stem: path for path in NOTEBOOKS}

# Paths of somebody's machine.
PATHS = re.compile(r"(?<![\w.$])(/(work|tmp|home|root|opt|var|usr|Users)\b|[A-Z]:\\)")

ACCURACY = r"^accuracy(?: of the answers:)? (\d\S+)(?: ±|\n)"


def code_cells(notebook: Any) -> list[Any]:
    """The code cells of the file, without the one that a run with other parameters adds."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [c for c in cells if "injected-parameters" not in c.metadata.get("tags", [])]


def printed(notebook: Any) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def numbers(pattern: str, notebook: Any) -> list[float]:
    """The numbers that a run printed in the place of the pattern's group."""
    return [float(found) for found in re.findall(pattern, printed(notebook), re.MULTILINE)]


def kinds(notebook: Any) -> list[set[str]]:
    """The kinds of output that each cell has."""
    return [
        {kind for o in cell.outputs for kind in ([o.name] if "name" in o else o.data)}
        for cell in code_cells(notebook)
    ]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Executes a notebook, and asserts that it writes to no folder but a temporary one."""
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def run(name: str, **parameters: Any) -> Any:
        executed = execute(COMMITTED[name], here, **parameters)
        assert list(here.iterdir()) == []
        # A kernel that is slow to end is killed before it has removed its folder.
        assert len(list(temporary.iterdir())) <= 1
        # Otherwise the committed outputs are those of another notebook.
        assert kinds(executed) == kinds(nbformat.read(COMMITTED[name], 4))
        return executed

    return run


@pytest.mark.large
def test_the_quickstart_learns_to_learn(run, glyphs_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(glyphs_dir))
    executed = run("quickstart", **SMALL["quickstart"])
    # Chance is 0.2.
    assert min(numbers(r"^accuracy (\S+) ±", executed)) > 0.4
    adapted, evaluated = numbers(r"^(?:episode \d+: accuracy|in the evaluation:) (\S+)$", executed)
    # A query on the border between two classes may be rounded to the other side.
    assert abs(adapted - evaluated) < 0.05


@pytest.mark.large
def test_the_servables_of_a_preset_recognise_what_it_never_saw(run):
    executed = run("from_preset_to_servable", **SMALL["from_preset_to_servable"])
    (accuracy,) = numbers(r"accuracy of the answers: (\S+)\n", executed)
    assert accuracy > 0.6
    differences = numbers(r"largest difference from the model in memory: (\S+)\n", executed)
    assert len(differences) == 2
    assert max(differences) < 1e-3


@pytest.mark.large
@pytest.mark.parametrize("name", COMMITTED)
def test_a_whole_run_is_as_good_as_the_committed_one(name, run, glyphs_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(glyphs_dir))
    executed, committed = run(name), nbformat.read(COMMITTED[name], 4)
    accuracies, expected = (numbers(ACCURACY, notebook) for notebook in (executed, committed))
    assert accuracies == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", COMMITTED)
def test_small_settings_are_parameters(name):
    (cell,) = (
        cell
        for cell in code_cells(nbformat.read(COMMITTED[name], 4))
        if "parameters" in cell.metadata.get("tags", [])
    )
    parameters: dict[str, Any] = {}
    exec(cell.source, {}, parameters)
    assert parameters.keys() >= SMALL[name].keys()


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_outputs_are_those_of_one_clean_run(name):
    notebook = nbformat.read(COMMITTED[name], 4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {kind for of_cell in kinds(notebook) for kind in of_cell} == {
        "stdout",
        "text/plain",
        "image/png",
    }
    assert sum("image/png" in of_cell for of_cell in kinds(notebook)) >= 3
    # With small settings it would be lower.
    assert min(numbers(ACCURACY, notebook)) > 0.7


@pytest.mark.parametrize("name", COMMITTED)
def test_a_notebook_is_small_and_tells_nothing_of_a_machine(name):
    file = COMMITTED[name]
    assert file.stat().st_size < 600_000
    notebook = nbformat.read(file, 4)
    texts = [cell.source for cell in notebook.cells]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    assert [found for text in texts for found in PATHS.findall(text)] == []
    assert PATHS.findall("a\n/tmp/x") != []


def test_every_link_leads_somewhere():
    for file in COMMITTED.values():
        cells = nbformat.read(file, 4).cells
        text = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
        links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
        assert links
        assert [link for link in links if not Path(file.parent, link).is_file()] == []
