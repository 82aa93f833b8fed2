"""Files are the old or the new, whatever happens while they are written."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tfmeta.files import replacing, scratch_beside, sweep, write_json, write_text


def test_an_exception_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyError("interrupted")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_replaces_the_old_and_no_temporary_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    write_text(path, "new: é")
    assert path.read_text(encoding="utf-8") == "new: é"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_being_written_is_not_seen_yet(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_file_is_on_the_disk_before_its_new_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the folder was not written through: after a power cut the file could be gone."""
    path = tmp_path / "file.txt"
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_text(path, "new")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_reader_never_sees_a_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    contents = ["a" * 2_000_000, "b" * 2_000_000]
    write_text(path, contents[0])
    stop = threading.Event()

    def write() -> None:
        for i in range(30):
            write_text(path, contents[i % 2])
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not stop.is_set() or seen == 0:
        assert path.read_text() in contents
        seen += 1
    writer.join()


def test_the_temporary_has_the_suffix_and_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.keras"
    with replacing(path) as temporary:
        assert temporary.suffix == ".keras"
        assert temporary.parent == path.parent  # On the same disk, so that renaming is atomic.
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    value = {"mean": 0.1, "names": ["α", "b"], "none": None}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "α" in text


# === What killed processes leave ===

KILLED_IN = """
import os, pathlib, signal, sys
sys.path.insert(0, "tfmeta")  # Without the package, whose import takes long.
import files
with files.{writer}(pathlib.Path(sys.argv[1])) as temporary:
    {write}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in(writer: str, write: str, path: Path) -> None:
    program = KILLED_IN.format(writer=writer, write=write)
    root = Path(__file__).parent.parent
    child = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, timeout=100)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["model.keras", "v1.2 of a model.keras", "no suffix"])
def test_temporaries_of_killed_processes_are_swept_and_all_else_stays(
    tmp_path: Path, name: str
) -> None:
    kill_in("replacing", "temporary.write_text('half')", tmp_path / name)
    (left,) = tmp_path.iterdir()
    others = [name, f"{left.name}.old", left.name.lstrip("."), left.name.replace("a", "g"), ".x"]
    for other in {*others} - {left.name}:
        (tmp_path / other).write_text("other")
    sweep(tmp_path, ["other.keras"])
    assert left.exists()
    sweep(tmp_path, [name])
    assert {p.name for p in tmp_path.iterdir()} == {*others} - {left.name}


def test_a_folder_is_built_beside_and_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "new"
    kill_in("scratch_beside", "(temporary / 'half').write_text('half')", path)
    (left,) = (p for p in path.parent.iterdir() if p.is_dir())
    with scratch_beside(path) as scratch:
        assert not left.exists()
        assert scratch.parent == path.parent
        (scratch / "whole").mkdir()
        with (
            pytest.raises(ValueError, match="Another process is writing"),
            scratch_beside(path),
        ):
            pass
        (scratch / "whole").rename(path)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyError), scratch_beside(path):
        raise KeyError("interrupted")
    assert list(path.parent.iterdir()) == [path]
