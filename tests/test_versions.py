"""A server sees whole versions only, whoever publishes beside whom, and whenever one is killed."""

import itertools
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock
import pytest

import tfmeta.versions
from tfmeta.versions import locked, publish, versions

# === A version whose files tell if it is whole ===

# The processes below run this source, too, so that they start fast: without TensorFlow or pytest.
SHARED = '''
import hashlib, json, random
from pathlib import Path

SIZES = {"saved_model.pb": 20_000, "variables/variables.data": 300_000, "variables/index": 500}
SIZES |= {f"assets/{i}.txt": 100 for i in range(6)}

def fill(folder, token):
    """Writes files that are this token's, and last a manifest of their digests."""
    digests = {}
    for name, size in SIZES.items():
        data = random.Random(f"{token} {name}").randbytes(size)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"token": token, "files": digests}))

def read(folder):
    """The token of a version; fails unless it has exactly the files that the manifest says."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {*manifest["files"], "manifest.json"}, f"{folder} has the files {files}"
    for name, digest in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest, f"{folder / name} is broken"
    return manifest["token"]
'''
_shared: dict = {}
exec(SHARED, _shared)
fill, read = _shared["fill"], _shared["read"]

LOAD = (
    SHARED
    + f"""
import itertools, os, shutil, signal, sys, time, types
# The packages, but neither their site's start-up files nor what `import tfmeta` imports.
sys.path.append({str(Path(filelock.__file__).parents[1])!r})
tfmeta = sys.modules["tfmeta"] = types.ModuleType("tfmeta")
tfmeta.__path__ = [{str(Path(tfmeta.versions.__file__).parent)!r}]
import tfmeta.versions
assert not {{"tensorflow", "keras", "numpy"}} & set(sys.modules)
folder, name, keep = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if sys.argv[4:]:
    # A real servable instead of files that tell whether they are whole.
    def fill(path, token):
        shutil.copytree(sys.argv[4], path, dirs_exist_ok=True)

def publish(i):
    token = f"{{name}}-{{i}}"
    version = tfmeta.versions.publish(folder, lambda path: fill(path, token), keep)
    print(version.name, token, flush=True)
"""
)

# Publishes as often as it is told to.
PUBLISHER = (
    LOAD
    + """
print("ready", flush=True)
for i in range(int(sys.stdin.readline())):
    publish(i)
"""
)

# Starts a publisher for every line, of which nothing but its files and its prints stays:
# "after SECONDS" publishes without end and is killed; "step N" publishes once, and is killed just
# before its N-th operation on files. Tells how it ended, which is 0 if there are fewer than N.
KILLER = (
    LOAD
    + """
left = float("inf")

def count(event, arguments):
    global left
    if event.startswith(("os.", "open", "shutil.", "fcntl.")):
        left -= 1
        if left < 0:
            left = float("inf")
            os.kill(os.getpid(), signal.SIGKILL)

def run(kind, number):
    global left, SIZES
    if kind == "after":
        for i in itertools.count():
            publish(i)
    SIZES = {"saved_model.pb": 100, "variables/index": 50}  # A few steps of writing are enough.
    sys.addaudithook(count)
    left = number
    publish(0)
    left = float("inf")

print("ready", flush=True)
for line in sys.stdin:
    kind, number = line.split()
    child = os.fork()  # Far faster than to start Python.
    if not child:
        run(kind, float(number))
        os._exit(0)
    if kind == "after":
        time.sleep(float(number))
        os.kill(child, signal.SIGKILL)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)

# Polls as TF Serving does: lists the numbers, takes the largest, reads its files.
READER = (
    SHARED
    + """
import os, sys, time
folder, stop = Path(sys.argv[1]), Path(sys.argv[2])

def newest():
    return max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)

seen, vanished, reads, last = set(), 0, 0, 0
while not stop.exists():
    version = newest()
    assert version >= last, f"went back from {last} to {version}"
    last = version
    if version:
        try:
            read(folder / str(version))
        except (FileNotFoundError, AssertionError):
            if (folder / str(version)).exists() or newest() <= version:
                raise
            vanished += 1  # Pruned while it was read, so it had a successor.
        reads += 1
        seen.add(version)
    time.sleep(0.001)
print(json.dumps({"reads": reads, "distinct": len(seen), "vanished": vanished, "last": last}))
"""
)

# The same with servables, which TensorFlow's C++ loads and runs.
LOADER = READER.replace(
    SHARED,
    f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent / "serving")!r})
import numpy as np
from c_api import SavedModel, TensorFlowError

def read(folder):
    try:
        model = SavedModel(folder)
        (root,) = model.run("root", {{"x": np.array([[1, 4, 9]], "float32")}})["root"]
    except TensorFlowError as error:
        raise FileNotFoundError(folder, str(error)) from error
    assert root.tolist() == [1, 2, 3]
""",
)


@contextmanager
def process(source: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A Python process that is gone at the end, and whose errors are shown."""
    options = [] if source is LOADER else ["-I", "-S"]  # Without packages, it starts fast.
    command = [sys.executable, *options, "-c", source, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def ready(source: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A process that waits for its order."""
    with process(source, *arguments) as running:
        assert running.stdout.readline() == "ready\n"
        yield running


def order(running: subprocess.Popen, what: object) -> None:
    running.stdin.write(f"{what}\n")
    running.stdin.flush()


def killed(killer: subprocess.Popen, how: str) -> tuple[list[int], int]:
    """The versions that a publisher said it had published until it was killed, and its end."""
    order(killer, how)
    published = []
    for line in killer.stdout:
        first, second = line.split()
        if first == "ended":
            return published, int(second)
        published.append(int(first))
    raise AssertionError("The killer died.")


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith((".tmp-", ".old-")))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """All that is in a folder, with its contents and times; but the lock file may be touched."""
    return {
        str(p.relative_to(folder)): (
            p.read_bytes() if p.is_file() else b"",
            p.stat().st_ino,
            p.stat().st_mtime_ns if p.is_file() and p.name != ".lock" else 0,
        )
        for p in folder.rglob("*")
    }


def filling(token: str) -> Callable[[Path], None]:
    return lambda path: fill(path, token)


# === One publisher ===


def test_versions_count_up_from_one_and_hold_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "missing" / "name"
    assert versions(folder) == []
    for number in (1, 2, 3):
        assert publish(folder, filling(f"v{number}"), keep=5) == folder / str(number)
    assert versions(folder) == [1, 2, 3]
    assert [read(folder / str(n)) for n in versions(folder)] == ["v1", "v2", "v3"]
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "1", "2", "3"]


def test_the_newest_are_kept_and_numbers_go_on_after_pruning(tmp_path: Path) -> None:
    for i in range(1, 8):
        publish(tmp_path, filling(f"v{i}"), keep=2)
        assert versions(tmp_path) == [i - 1, i][-i:]
    publish(tmp_path, filling("v8"), keep=1)
    assert versions(tmp_path) == [8]
    publish(tmp_path, filling("v9"))
    assert versions(tmp_path) == [8, 9]
    assert leftovers(tmp_path) == []


def test_what_is_being_written_is_no_version_and_is_on_the_same_disk(tmp_path: Path) -> None:
    folder = tmp_path / "name"

    def write(path: Path) -> None:
        fill(path, "new")
        assert path.parent == folder
        assert path.name.startswith(".tmp-")
        assert versions(folder) == []

    publish(folder, write)
    assert versions(folder) == [1]


def test_every_file_and_folder_is_on_the_disk_before_it_is_to_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, list[int]]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, versions(folder)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    folder = tmp_path / "new" / "name"
    version = publish(folder, filling("a"))
    before = {inode for inode, seen in synced if seen == []}
    after = {inode for inode, seen in synced if seen == [1]}
    assert before >= {p.stat().st_ino for p in (version, *version.rglob("*"))}
    assert after >= {p.stat().st_ino for p in (folder, folder.parent, tmp_path)}


def test_links_and_pipes_in_a_version_are_kept_and_not_opened(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        fill(path, "a")
        (path / "link").symlink_to("nowhere")
        os.mkfifo(path / "pipe")

    version = publish(tmp_path, write)
    assert (version / "link").is_symlink()
    assert (version / "pipe").is_fifo()


def test_a_server_of_another_user_may_read_what_the_umask_lets_it_read(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    version = publish(tmp_path / "name", filling("a"))
    assert stat.S_IMODE(version.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_published_versions_are_never_written_to(tmp_path: Path) -> None:
    first = publish(tmp_path, filling("a"))
    before = snapshot(first)
    for i in range(4):
        publish(tmp_path, filling(str(i)), keep=5)
    assert snapshot(first) == before


@pytest.mark.parametrize("error", [KeyError("broken"), KeyboardInterrupt()])
def test_if_write_raises_nothing_is_left_behind_and_nothing_changed(
    tmp_path: Path, error: BaseException
) -> None:
    def write(path: Path) -> None:
        fill(path, "half")
        raise error

    new = tmp_path / "missing" / "name"
    with pytest.raises(type(error)):
        publish(new, write)
    assert list(tmp_path.iterdir()) == []

    folder = tmp_path / "name"
    for i in range(3):
        publish(folder, filling(str(i)))
    before = snapshot(folder)
    with pytest.raises(type(error)):
        publish(folder, write, keep=1)
    assert snapshot(folder) == before


def test_a_failed_first_publisher_leaves_the_folder_to_one_that_is_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "name"

    def write(path: Path) -> None:
        publish(folder, other)

    def other(path: Path) -> None:
        fill(path, "other")
        assert len(leftovers(folder)) == 4  # Two folders and their locks.

    with pytest.raises(ValueError, match=r"write must put the files.*empty"):
        publish(folder, write)
    assert read(folder / "1") == "other"
    assert leftovers(folder) == []


def test_an_empty_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"write must put the files.*empty"):
        publish(tmp_path / "name", lambda path: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, -1, 2.5])
def test_keep_is_a_positive_integer(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ValueError, match=f"keep must be .* at least 1; got {keep}"):
        publish(tmp_path / "name", filling("a"), keep)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("mine")
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        publish(tmp_path / "name", filling("a"))
    assert (tmp_path / "name").read_text() == "mine"


# === What others put into the folder ===


def test_what_is_no_version_stays_and_is_not_counted(tmp_path: Path) -> None:
    for name in ("notes", "12a", "-3", "1.5", ".hidden", "٣", " 4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "models.config").write_text("mine")
    before = snapshot(tmp_path)
    for i in range(3):
        publish(tmp_path, filling(str(i)), keep=1)
    assert versions(tmp_path) == [3]
    assert before.items() <= snapshot(tmp_path).items()


def test_an_empty_folder_named_by_a_number_is_a_version(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    inode = (tmp_path / "7").stat().st_ino
    assert publish(tmp_path, filling("a")) == tmp_path / "8"
    assert (tmp_path / "7").stat().st_ino == inode
    assert list((tmp_path / "7").iterdir()) == []
    publish(tmp_path, filling("b"), keep=2)
    assert versions(tmp_path) == [8, 9]


@pytest.mark.parametrize("name", ["7", "007"])
def test_numbers_that_the_server_reads_are_not_given_again(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert versions(tmp_path) == []
    assert publish(tmp_path, filling("a"), keep=1) == tmp_path / "8"
    assert (tmp_path / name).read_text() == "mine"


def test_a_number_beyond_int64_is_no_version_of_the_server(tmp_path: Path) -> None:
    (tmp_path / str(2**63)).touch()
    assert publish(tmp_path, filling("a")) == tmp_path / "1"
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        publish(tmp_path, filling("b"))
    assert versions(tmp_path) == [1, 2**63 - 1]
    assert leftovers(tmp_path) == []


def test_a_version_that_is_a_link_is_pruned_without_what_it_points_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fill(elsewhere, "mine")
    folder = tmp_path / "name"
    folder.mkdir()
    (folder / "1").symlink_to(elsewhere)
    assert versions(folder) == [1]
    publish(folder, filling("a"), keep=1)
    assert versions(folder) == [2]
    assert read(elsewhere) == "mine"
    assert leftovers(folder) == []


def test_what_cannot_be_deleted_is_warned_of_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(f"not yours: {path}")

    publish(tmp_path, filling("a"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.warns(RuntimeWarning, match="could not be deleted.*not yours"):
            assert publish(tmp_path, filling("b"), keep=1) == tmp_path / "2"
    assert versions(tmp_path) == [2]
    assert len(leftovers(tmp_path)) == 1
    publish(tmp_path, filling("c"))
    assert leftovers(tmp_path) == []


# === Several publishers ===


def test_a_version_is_numbered_when_it_is_ready_and_not_when_it_is_begun(tmp_path: Path) -> None:
    for _ in range(4):
        publish(tmp_path, filling("before"), keep=1)

    def slow(path: Path) -> None:
        fill(path, "slow")
        for i in (5, 6, 7, 8):
            assert publish(tmp_path, filling("fast"), keep=1) == tmp_path / str(i)
        # 5 is free again, and those publishers have removed leftovers, but not this one.
        assert read(path) == "slow"

    assert publish(tmp_path, slow, keep=1) == tmp_path / "9"
    assert versions(tmp_path) == [9]
    assert read(tmp_path / "9") == "slow"
    assert leftovers(tmp_path) == []


def test_nobody_numbers_or_deletes_while_another_has_the_lock(tmp_path: Path) -> None:
    publish(tmp_path, filling("a"))
    (tmp_path / ".old-dead").mkdir()
    with filelock.FileLock(tmp_path / ".lock"):
        publisher = threading.Thread(target=publish, args=(tmp_path, filling("b"), 1))
        publisher.start()
        time.sleep(0.3)
        assert versions(tmp_path) == [1]
        assert leftovers(tmp_path) == [".old-dead"]
    publisher.join(30)
    assert versions(tmp_path) == [2]
    assert leftovers(tmp_path) == []


def test_a_lock_file_that_was_replaced_meanwhile_locks_all_the_same(tmp_path: Path) -> None:
    publish(tmp_path, filling("a"))
    removed = filelock.FileLock(tmp_path / ".lock", is_singleton=False)
    removed.acquire()
    publisher = threading.Thread(target=publish, args=(tmp_path, filling("b")))
    publisher.start()
    time.sleep(0.2)
    # Locked before it is there, or else the publisher may be the first to lock it.
    replacement = filelock.FileLock(tmp_path / "new", is_singleton=False)
    with replacement:
        (tmp_path / "new").replace(tmp_path / ".lock")
        removed.release()
        time.sleep(0.2)
        assert versions(tmp_path) == [1]
        assert leftovers(tmp_path) == []
    publisher.join(30)
    assert versions(tmp_path) == [1, 2]


class Holder:
    """A thread that has a folder locked while the `with` block runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_lock, self.is_over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold)

    def hold(self) -> None:
        with locked(self.folder):
            self.has_lock.set()
            self.is_over.wait(30)

    def __enter__(self) -> None:
        self.thread.start()
        assert self.has_lock.wait(30)

    def __exit__(self, *exception: object) -> None:
        self.is_over.set()
        self.thread.join(30)


def test_a_lock_excludes_threads_and_can_leave_no_file(tmp_path: Path) -> None:
    """Each waits for a file that the one before deletes."""
    inside, seen = [], []

    def enter() -> None:
        for _ in range(20):
            with locked(tmp_path / "folder", keep_file=False):
                inside.append(None)
                time.sleep(0.0005)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [1] * 80
    assert list((tmp_path / "folder").iterdir()) == []


FORKER = (
    LOAD
    + """
import threading

is_held, may_go = threading.Event(), threading.Event()

def hold():
    with tfmeta.versions.locked(folder):
        is_held.set()
        may_go.wait()

holder = threading.Thread(target=hold)
holder.start()
is_held.wait()
child = os.fork()
if not child:
    signal.alarm(30)  # Without it, a child that waits for ever would outlive the test.
    publish(0)
    os._exit(0)
time.sleep(0.2)
assert os.waitpid(child, os.WNOHANG) == (0, 0), "published in spite of the lock"
may_go.set()
holder.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_while_a_thread_holds_the_lock_waits_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "name"
    subprocess.run([sys.executable, "-c", FORKER, folder, "child", "1"], check=True, timeout=60)
    assert read(folder / "1") == "child-0"


def test_a_waiting_publisher_makes_a_folder_that_another_removes(tmp_path: Path) -> None:
    folder = tmp_path / "name"
    with Holder(folder):
        publisher = threading.Thread(target=publish, args=(folder, filling("a")))
        publisher.start()
        time.sleep(0.1)
        shutil.rmtree(folder)
        publisher.join(30)
        assert read(folder / "1") == "a"


@pytest.mark.parametrize(("n_publishers", "keep"), [(2, 1), (4, 2), (4, 1000)])
def test_publishers_at_once_share_no_version_and_skip_none(
    tmp_path: Path, n_publishers: int, keep: int
) -> None:
    each = 8
    folder = tmp_path / "parent" / "name"
    told: dict[int, str] = {}
    with ExitStack() as stack:
        publishers = {
            name: stack.enter_context(ready(PUBLISHER, folder, name, keep))
            for name in "abcd"[:n_publishers]
        }
        for running in publishers.values():  # They all have started, and wait.
            order(running, each)
        for name, running in publishers.items():
            output = [line.split() for line in running.stdout]
            assert running.wait() == 0
            assert [token for _, token in output] == [f"{name}-{i}" for i in range(each)]
            numbers = [int(number) for number, _ in output]
            assert numbers == sorted(numbers)
            told |= {int(number): token for number, token in output}
    n = n_publishers * each
    assert sorted(told) == list(range(1, n + 1))
    assert versions(folder) == list(range(1, n + 1))[-keep:]
    assert [read(folder / str(v)) for v in versions(folder)] == [told[v] for v in versions(folder)]
    assert leftovers(folder) == []


# === Kills ===

KEEP = 2


def states(before: list[int]) -> list[list[int]]:
    """What may be there after a publish, finished or not: the old, the new, or not all pruned."""
    both = [*before, before[-1] + 1]
    return [before, *(both[-k:] for k in range(min(KEEP, len(both)), len(both) + 1))]


def phase(new: set[str], folder: Path, has_new_version: bool) -> str:
    """What a publisher was doing when it was killed, by what it has left."""
    if any(name.startswith(".old-") for name in new):
        return "deleting"
    if has_new_version:
        return "published"
    for name in new:
        if not name.endswith(".lock"):
            manifest = folder / name / "manifest.json"
            return "written" if manifest.exists() and manifest.read_text() else "writing"
    return "between"


# How many publishers are killed.
KILLS = [20, *(pytest.param(n, marks=pytest.mark.large) for n in (60, 210))]


def kill_publishers(
    killer: subprocess.Popen, folder: Path, check: Callable[[Path], object], n_kills: int
) -> tuple[int, Counter[str]]:
    """Kills at random moments; the newest version then, and what the publishers were doing."""
    rng = random.Random(0)
    window = 0.02
    present, old_leftovers = versions(folder), set(leftovers(folder))
    phases: Counter[str] = Counter()
    for _ in range(n_kills):
        published, end = killed(killer, f"after {rng.uniform(0, window)}")
        assert end == -signal.SIGKILL
        assert published == list(range(present[-1] + 1, present[-1] + 1 + len(published)))
        before = [*present, *published][-KEEP:] if published else present
        present = versions(folder)
        assert present in states(before)
        for version in present:
            check(folder / str(version))
        left = set(leftovers(folder))
        phases[phase(left - old_leftovers, folder, present[-1] > before[-1])] += 1
        # So it becomes twice as long as a publish takes here and now: half of them get through.
        window *= 0.9 if published else 1.1
        old_leftovers = left
    return present[-1], phases


def reading(reader: subprocess.Popen, stop: Path) -> dict[str, int]:
    """What a reader saw until now."""
    time.sleep(0.1)
    stop.touch()
    assert reader.wait(30) == 0
    return json.loads(reader.stdout.readline())


@pytest.mark.parametrize("n_kills", KILLS)
def test_a_reader_never_sees_a_broken_version_whenever_publishers_are_killed(
    tmp_path: Path, n_kills: int
) -> None:
    folder, stop = tmp_path / "name", tmp_path / "stop"
    publish(folder, filling("first"), KEEP)
    publish(folder, filling("second"), KEEP)
    with process(READER, folder, stop) as reader, ready(KILLER, folder, "v", KEEP) as killer:
        newest, phases = kill_publishers(killer, folder, read, n_kills)
        publish(folder, filling("last"), KEEP)
        assert versions(folder) == [newest, newest + 1]
        assert leftovers(folder) == []
        result = reading(reader, stop)
    assert phases.total() == n_kills
    rarest = min(phases[name] for name in ("writing", "written", "deleting"))
    assert rarest >= n_kills // 40, phases
    assert result["last"] == newest + 1
    assert result["reads"] > n_kills
    assert result["distinct"] > n_kills / 8


@pytest.fixture(scope="module")
def servable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel that takes square roots."""
    import tensorflow as tf

    rows = tf.TensorSpec([None, 3], tf.float32, "x")
    module = tf.Module()
    signatures = {"root": tf.function(lambda x: {"root": tf.sqrt(x)}, [rows])}
    folder = tmp_path_factory.mktemp("servable")
    tf.saved_model.save(module, str(folder), signatures)
    return folder


@pytest.mark.parametrize("n_kills", KILLS)
def test_a_server_loads_every_version_it_sees_whenever_publishers_are_killed(
    tmp_path: Path, servable: Path, n_kills: int
) -> None:
    folder, stop, model = tmp_path / "name", tmp_path / "stop", servable
    for _ in range(KEEP):
        publish(folder, lambda path: shutil.copytree(model, path, dirs_exist_ok=True), KEEP)
    files = snapshot(model).keys()

    def check(version: Path) -> None:
        assert snapshot(version).keys() == files
        time.sleep(0.03)  # Enough for the reader to see what the kill has left.

    with (
        process(LOADER, folder, stop) as reader,
        ready(KILLER, folder, "v", KEEP, model) as killer,
    ):
        newest, _ = kill_publishers(killer, folder, check, n_kills)
        result = reading(reader, stop)
    assert result["last"] == newest
    assert result["reads"] - result["vanished"] > n_kills / 4, result
    assert result["distinct"] > n_kills / 8, result


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.large)])
def test_a_kill_at_any_operation_on_files_leaves_the_old_or_the_new(
    tmp_path: Path, stride: int
) -> None:
    """Every step of a publish that removes leftovers, writes, renames, prunes and deletes."""
    seen = set()
    with ready(KILLER, tmp_path, "new", KEEP) as killer:
        for step in itertools.count(0, stride):
            publish(tmp_path, filling("old"), KEEP)
            assert leftovers(tmp_path) == []
            for name in (".old-dead", ".tmp-dead"):
                fill(tmp_path / name, "dead")
            (tmp_path / ".tmp-dead.lock").touch()
            before = versions(tmp_path)
            published, end = killed(killer, f"step {step}")
            present = versions(tmp_path)
            assert present in states(before)
            assert {read(tmp_path / str(v)) for v in present} <= {"old", "new-0"}
            seen.add(states(before).index(present))
            if end == 0:
                break
            assert end == -signal.SIGKILL
    assert published == present[-1:]
    assert present == states(before)[1]
    assert leftovers(tmp_path) == []
    assert step > 50
    assert seen == {0, 1, 2} if stride == 1 else {0, 1} <= seen
