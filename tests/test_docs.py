"""Every Python snippet of the README and the docs runs, as a reader would run it.

By default, training in a snippet is cut to a few steps; the large tests run it at full length.
"""

import contextlib
import re
import shlex
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from prediction_service import serving

from tfmeta import MetaLearner, cli, presets
from tfmeta.recipes import Recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = sorted((ROOT / "models").glob("*/README.md"))
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
SNIPPETS = {page: SNIPPET.findall(page.read_text(encoding="utf-8")) for page in PAGES}
# What `fit` does at most, by argument, where snippets are not run at full length.
FEW_STEPS = {"epochs": 1, "steps_per_epoch": 3, "validation_steps": 1}


@pytest.fixture
def reader_folder(tmp_path, monkeypatch):
    """A folder that holds nothing but the reader's images."""
    for name in ("cats", "dogs", "owls"):
        folder = tmp_path / "my_images" / name
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 36, 3), dtype=np.uint8)
            (folder / f"{i}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(reader_folder, monkeypatch):
    """A server of the reader's servable, started when a client first connects to the address."""
    connect = grpc.insecure_channel
    with contextlib.ExitStack() as stack:

        def channel(address):
            assert address == "localhost:8500"
            return connect(stack.enter_context(serving(reader_folder / "servables" / "few_shot")))

        monkeypatch.setattr(grpc, "insecure_channel", channel)
        yield


@pytest.fixture
def few_steps(monkeypatch):
    """Cuts training short."""
    fit = MetaLearner.fit

    def cut(learner, *args, **options):
        for name, most in FEW_STEPS.items():
            if name in options:
                options[name] = min(options[name], most)
        return fit(learner, *args, **options)

    monkeypatch.setattr(MetaLearner, "fit", cut)


def run_snippets(page):
    assert SNIPPETS[page]
    names: dict[str, object] = {}
    for snippet in SNIPPETS[page]:
        exec(compile(snippet, page.name, "exec"), names)


@pytest.fixture
def reader(reader_folder, glyphs_dir, monkeypatch, server):
    """All that a reader has: images, glyphs and a server."""
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(glyphs_dir))
    # TensorFlow has long started here, which the call refuses; it has a test of its own.
    monkeypatch.setattr("tfmeta.configure_threads", lambda: None)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
@pytest.mark.usefixtures("reader", "few_steps")
def test_snippets_run(page):
    run_snippets(page)


@pytest.mark.large
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name) for page in PAGES if ".fit(" in "".join(SNIPPETS[page])],
)
@pytest.mark.usefixtures("reader")
def test_snippets_run_at_full_length(page):
    run_snippets(page)


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_and_what_they_name(page):
    text = "".join(re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    ours = [s for s in text.replace("\\\n", " ").splitlines() if s.startswith(("tfmeta ", "make "))]
    calls: list[tuple] = []
    for program, *arguments in (shlex.split(line, comments=True) for line in ours):
        if program == "make":
            assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
            continue
        with pytest.MonkeyPatch.context() as patch:
            # Commands are parsed, and not run.
            patch.setattr("tfmeta.cli.command.call", lambda *call: calls.append(call))
            assert cli.main(arguments) == 0
        function, options, _ = calls.pop()
        if (options.get("recipe") or "").startswith("models/"):
            Recipe.load(ROOT / options["recipe"])
        if function.__name__ == "evaluate" and not options["source"].startswith("runs/"):
            assert options["source"] in presets.list_presets()
    if page in (PAGES[0], *CARDS):
        assert ours
