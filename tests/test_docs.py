"""Every snippet of the README and the docs runs, as a reader would run it.

The README's blocks run one by one, each in a folder of its own. Those of a page in docs/ run in
their order, because later ones use what earlier ones made. By default, training in a snippet is cut
to a few steps; the large tests run it at full length.
"""

import contextlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from prediction_service import serving

from tfmeta import MetaLearner, cards, cli, presets
from tfmeta.backbones.efficientnet_lite0_weights import PACKAGE as WEIGHTS
from tfmeta.recipes import Recipe
from tfmeta.report import Report

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
CARDS = sorted((ROOT / "models").glob("*/README.md"))
QUICKSTART = Path("models", "maml_glyphs_5w1s", "quickstart.yaml")
# What `fit` does at most, by argument, where snippets are not run at full length.
FEW_STEPS = {"epochs": 1, "steps_per_epoch": 3, "validation_steps": 1}


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """The arguments of each command of tfmeta or make in a block of the shell."""
    lines = text.replace("\\\n", " ").splitlines()
    return [
        shlex.split(line, comments=True) for line in lines if line.startswith(("tfmeta ", "make "))
    ]


# Its blocks in both languages run in their order, on photographs.
PHOTOS = ROOT / "docs" / "photos.md"
SNIPPETS = {page: blocks(page, "python") for page in (README, *PAGES) if page != PHOTOS}


def write_images(folder, names, n_images, channels):
    """A sub-folder of images for each name, each with a pattern of its own and some noise."""
    for seed, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        pattern = np.random.default_rng(seed).integers(0, 2, (5, 5, 1)) * 200
        for i in range(n_images):
            noise = np.random.default_rng(i).integers(0, 50, (40, 35, channels))
            pixels = (np.kron(pattern, np.ones((8, 7, 1), int)) + noise).astype(np.uint8)
            (folder / name / f"{i}.png").write_bytes(tf.io.encode_png(pixels).numpy())


@pytest.fixture
def reader_folder(tmp_path, monkeypatch):
    """A folder that holds nothing but the reader's images."""
    write_images(tmp_path / "my_images", ("cats", "dogs", "owls"), n_images=8, channels=3)
    write_images(tmp_path / "my_characters", ("alpha", "beta", "gamma"), n_images=2, channels=1)
    write_images(tmp_path, ("scans",), n_images=4, channels=1)
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


@pytest.fixture
def reader(reader_folder, monkeypatch, server, request):
    """All that a reader has: images, glyphs and a server."""
    # All glyphs take long to draw and to read: the large tests have them.
    is_large = request.node.get_closest_marker("large") is not None
    glyphs_dir = request.getfixturevalue("glyphs_dir" if is_large else "few_glyphs")
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(glyphs_dir))
    # TensorFlow has long started here, which the call refuses; it has a test of its own.
    monkeypatch.setattr("tfmeta.configure_threads", lambda: None)
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)


def run_snippets(page, snippets):
    assert snippets
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, page.name, "exec"), names)


# === The README's blocks, each alone ===


@pytest.mark.parametrize(
    "snippet",
    [
        # One that trains a network on the glyphs: `guide.md` does in the default tier.
        pytest.param(s, id=str(i), marks=[pytest.mark.large] if '"glyphs"' in s else [])
        for i, s in enumerate(SNIPPETS[README])
    ],
)
@pytest.mark.usefixtures("reader", "few_steps")
def test_each_block_of_the_readme_runs_alone(snippet):
    run_snippets(README, [snippet])


@pytest.mark.large
@pytest.mark.parametrize(
    "snippet",
    [pytest.param(s, id=str(i)) for i, s in enumerate(SNIPPETS[README]) if ".fit(" in s],
)
@pytest.mark.usefixtures("reader")
def test_each_block_of_the_readme_runs_alone_at_full_length(snippet):
    run_snippets(README, [snippet])


README_COMMANDS = [c for block in blocks(README, "sh") if "tfmeta" in str(c := commands(block))]


@pytest.mark.parametrize(
    "block",
    [
        # One that trains, which `tests/cli` does in the default tier, is in the large one.
        pytest.param(
            block,
            id=block[0][1],
            marks=[pytest.mark.large] if any(c[1] == "train" for c in block) else [],
        )
        for block in README_COMMANDS
    ],
)
@pytest.mark.usefixtures("reader")
def test_each_shell_block_of_the_readme_runs_alone(block, reader_folder):
    # As printed, but the recipe is a smaller one.
    recipe = yaml.safe_load((ROOT / QUICKSTART).read_text(encoding="utf-8"))
    recipe["network"]["filters"] = 4
    recipe["training"] |= {"epochs": 1, "steps_per_epoch": 3}
    for setting in ("validation", "evaluation"):
        recipe[setting]["n_episodes"] = 20
    (reader_folder / QUICKSTART.parent).mkdir(parents=True)
    (reader_folder / QUICKSTART).write_text(yaml.safe_dump(recipe))

    for _, *arguments in block:
        assert cli.main(arguments) == 0, arguments
    written = [Path(a[a.index("--output") + 1]) for a in block if "--output" in a]
    assert written
    for folder in written:
        assert any((reader_folder / folder).iterdir()), folder


def test_the_readme_has_shell_blocks_that_adapt_and_that_train():
    assert {arguments[1] for block in README_COMMANDS for arguments in block} >= {
        *("list", "adapt", "predict", "export"),
        *("train", "evaluate"),
    }


# === The pages' snippets, in their order ===


# The default tier has pages that a reader opens first; the guide takes half a minute.
FIRST_PAGES = ("zoo.md", "recipes.md", "cli.md")
LARGE = {True: [], False: [pytest.mark.large]}
NEEDS = {
    "addons.md": [
        pytest.mark.skipif(
            importlib.util.find_spec("tensorflow_addons") is None,
            reason="the extra tfmeta[addons] is not installed",
        )
    ],
    "tuning.md": [
        pytest.mark.skipif(
            importlib.util.find_spec("keras_tuner") is None,
            reason="the extra tfmeta[tuning] is not installed",
        )
    ],
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=page.name,
            marks=[*NEEDS.get(page.name, []), *LARGE[page.name in FIRST_PAGES]],
        )
        for page in PAGES
        if SNIPPETS.get(page)
    ],
)
@pytest.mark.usefixtures("reader", "few_steps")
def test_snippets_run(page):
    run_snippets(page, SNIPPETS[page])


@pytest.mark.large
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=NEEDS.get(page.name, []))
        for page in PAGES
        if ".fit(" in "".join(SNIPPETS.get(page, []))
    ],
)
@pytest.mark.usefixtures("reader")
def test_snippets_run_at_full_length(page):
    run_snippets(page, SNIPPETS[page])


# === The tutorial on photos ===


def write_photos(folder, n_images, seed):
    """JPEG files of 12 classes: parts of two photographs, moved, and lighter or darker.

    They differ in size. Every third is stored lying on its side, with its orientation in EXIF.
    """
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    rng = np.random.default_rng(seed)
    for photo, pixels in enumerate(datasets.load_sample_images().images):
        for part in range(6):
            (folder / f"place-{photo}-{part}").mkdir(parents=True)
            for i in range(n_images):
                height, width = rng.integers(150, 190, 2)
                top = 200 * (part // 3) + rng.integers(0, 30)
                left = 210 * (part % 3) + rng.integers(0, 30)
                crop = pixels[top : top + height, left : left + width] * rng.uniform(0.8, 1.2)
                image = Image.fromarray(np.clip(crop, 0, 255).astype(np.uint8))
                exif = Image.Exif()
                if i % 3 == 2:
                    image = image.transpose(Image.Transpose.ROTATE_90)
                    exif[0x0112] = 6  # "Turn me by 90° clockwise."
                image.save(folder / f"place-{photo}-{part}" / f"{seed}-{i}.jpg", exif=exif)


@pytest.mark.large
@pytest.mark.skipif(
    importlib.util.find_spec(WEIGHTS) is None,
    reason="the extra tfmeta[encoders] is not installed",
)
def test_the_tutorial_on_photos_runs(tmp_path, monkeypatch, capsys):
    write_photos(tmp_path / "my_photos", n_images=3, seed=0)
    write_photos(tmp_path / "held_out", n_images=2, seed=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfmeta.threads.configure_threads", lambda: None)  # As in `reader`.
    text = PHOTOS.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for language, block in re.findall(
        r"^```(python|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    ):
        if language == "python":
            exec(compile(block, PHOTOS.name, "exec"), names)
            continue
        for _, *arguments in commands(block):
            capsys.readouterr()
            assert cli.main(arguments) == 0, arguments
            if arguments[0] == "predict":
                accuracy = re.search(r"Accuracy (\S+):", capsys.readouterr().err)
                assert float(accuracy[1]) > 0.9
    assert np.mean(names["right"]) > 0.9
    assert Path("sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "page", [README, *PAGES, *CARDS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_exist_and_what_they_name(page, monkeypatch):
    calls: list[tuple] = []
    # Commands are parsed, and not run.
    monkeypatch.setattr("tfmeta.cli.command.call", lambda *call: calls.append(call))
    ours = commands("".join(blocks(page, "sh")))
    for program, *arguments in ours:
        if program == "make":
            assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
            continue
        assert cli.main(arguments) == 0
        function, options, _ = calls.pop()
        if (options.get("recipe") or "").startswith("models/"):
            Recipe.load(ROOT / options["recipe"])
        if function.__name__ == "evaluate" and not options["source"].startswith("runs/"):
            assert options["source"] in presets.list_presets()
    if page in (README, *CARDS):
        assert ours


# === Links and numbers ===


def anchors(page):
    """What a link to a heading of the page may name, as GitHub makes it of the heading."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize(
    "page",
    [README, ROOT / "CONTRIBUTING.md", *PAGES, *CARDS],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def rows(page, heading):
    """The cells of the table under a heading, without its first two rows."""
    section = page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


@pytest.mark.parametrize("row", rows(README, "Results"), ids=lambda row: row[0] + row[1])
def test_the_readme_s_results_are_those_of_the_evaluations(row):
    preset, test, *measured, paper = row
    name = re.fullmatch(r"\[`(.*)`\]\(models/(.*)\)", preset)
    assert name
    assert name[1] == name[2]
    assert name[1] in presets.list_presets()
    n_way, n_shot = map(int, re.fullmatch(r"(\d+)-way (\d+)-shot", test).groups())

    report = Report.read(ROOT / "models" / name[1] / "evaluation.json")
    for batch_norm, number in zip(("transductive", "support"), measured, strict=True):
        (evaluation,) = (
            e
            for e in report.evaluations
            if (e.episodes["n_way"], e.episodes["n_shot"], e.batch_norm)
            == (n_way, n_shot, batch_norm)
        )
        assert cards.cell(evaluation.estimate, evaluation.metric) == number

    published = yaml.safe_load((ROOT / "models" / "published.yaml").read_text(encoding="utf-8"))
    (quoted,) = (
        entry
        for entry in published[name[1]]
        if entry.get("episodes", {}).get("n_shot", 1) == n_shot
        and entry.get("episodes", {}).get("n_way", n_way) == n_way
    )
    assert str(quoted["paper"]) == paper


def test_the_readme_s_speeds_are_those_of_the_benchmarks():
    performance = rows(ROOT / "docs" / "performance.md", "Compared with PyTorch and JAX")
    measured = {row[0].removesuffix(" (work A)"): row for row in performance}
    shown = rows(README, "Speed")
    assert len(shown) == 3
    for name, *cells in shown:
        ours, loop, vmap, fastest = (cell.replace(" ms", "") for cell in cells)
        _, _, _, tfmeta, _, pytorch, torch_func, *jax = measured[name]
        assert (ours, loop, vmap) == (tfmeta, pytorch, torch_func)
        assert fastest == min(jax, key=lambda cell: int(cell.split()[0].replace(",", "")))
