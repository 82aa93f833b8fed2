"""Presets: what comes back is what was saved, and nothing else comes in."""

import contextlib
import hashlib
import http.server
import itertools
import json
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import types
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf
import trustme

import tfmeta
from tfmeta import archives, backbones, downloads, preset_files, presets, zoo
from tfmeta.data import ImageFormat
from tfmeta.networks import normalises_together
from tfmeta.serving.preset_servables import served_learner

SHAPE = (8, 8, 1)


def learner(seed=0):
    keras.utils.set_random_seed(seed)
    return tfmeta.MAML(
        backbones.conv4(3, SHAPE, 4), inner_learning_rate=0.1, inner_steps=2, batch_norm="support"
    )


def examples(of):
    """Five examples and their labels, or targets, for a learner."""
    x = np.random.default_rng(0).random((5, *of.example_shape), "float32")
    return x, (x if of.output_kind == "values" else np.arange(5))


def adapted_and_predicted(of):
    """What a learner predicts for the examples that it has learned."""
    x, y = examples(of)
    return np.asarray(of.adapt(x, y).predict(x, batch_size=5, verbose=0))


def predictions(of):
    rng = np.random.default_rng(0)
    episode = {
        "support_x": rng.random((2, 6, *SHAPE), "float32"),
        "support_y": np.tile(np.arange(6) % 3, (2, 1)),
        "query_x": rng.random((2, 4, *SHAPE), "float32"),
    }
    return np.asarray(of(episode))


@pytest.fixture
def saved(tmp_path):
    learner().save_to_preset(tmp_path / "mine", ImageFormat(*SHAPE))
    return tmp_path / "mine"


# === Modes of batch norm ===


def test_another_mode_has_the_same_weights_and_is_that_of_a_learner_made_in_it():
    transductive = tfmeta.MAML(
        learner().network, inner_learning_rate=0.1, inner_steps=2, batch_norm="transductive"
    )
    other = transductive.with_batch_norm("support")
    np.testing.assert_array_equal(predictions(other), predictions(learner()))
    assert transductive.batch_norm == "transductive"
    assert np.abs(predictions(transductive) - predictions(other)).max() > 1e-3
    # A copy: what becomes of one does not touch the other.
    for variable in other.trainable_variables:
        variable.assign(variable + 1)
    np.testing.assert_array_equal(
        predictions(transductive.with_batch_norm("support")), predictions(learner())
    )


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(ValueError, match="batch_norm must be"):
        learner().with_batch_norm("batch")

    class Plain(tfmeta.MetaLearner):
        pass

    with pytest.raises(ValueError, match="A Plain knows no modes"):
        Plain().with_batch_norm("support")


# === Round trips ===


def test_a_saved_learner_comes_back_without_its_optimizer(tmp_path):
    trained = learner()
    trained.compile("adam", trained.default_loss(), run_eagerly=True)  # Faster, once.
    episode = {
        "support_x": np.zeros((1, 3, *SHAPE), "float32"),
        "support_y": np.arange(3)[None],
        "query_x": np.ones((1, 3, *SHAPE), "float32"),
    }
    trained.fit(episode, np.arange(3)[None], verbose=0)
    expected = predictions(trained)
    trained.save_to_preset(tmp_path / "preset")
    back = tfmeta.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(predictions(back), expected)
    assert not back.compiled
    with zipfile.ZipFile(tmp_path / "preset" / preset_files.LEARNER) as file:
        assert b"optimizer" not in file.read("model.weights.h5")
    assert trained.optimizer is not None


def test_what_is_known_besides_comes_back(saved):
    preset = preset_files.read(saved)
    assert preset.image_format == ImageFormat(*SHAPE)
    assert preset.example_shape == list(SHAPE)
    assert preset.recipe is None
    digest = hashlib.sha256((saved / preset_files.LEARNER).read_bytes()).hexdigest()
    assert preset.sha256 == digest


def test_a_preset_is_not_overwritten_and_needs_weights(saved, tmp_path):
    with pytest.raises(ValueError, match="holds a preset already"):
        learner().save_to_preset(saved)

    class Bare(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="no weights yet"):
        tfmeta.PrototypicalNetwork(Bare()).save_to_preset(tmp_path / "bare")
    assert not (tmp_path / "bare").exists()


def test_a_failing_save_leaves_nothing_and_the_next_one_works(saved, tmp_path, monkeypatch):
    folder = tmp_path / "new" / "preset"
    with pytest.raises(TypeError, match="not JSON serializable"):
        preset_files.save(learner(), folder, recipe={"learner": object()})
    assert not folder.parent.exists()
    (folder / "servable").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(preset_files, "sha256_of", fail)
        with pytest.raises(OSError, match="disk is full"):
            learner().save_to_preset(folder)
    assert names_in(folder) == ["servable"]
    learner().save_to_preset(folder)
    assert names_in(folder) == [preset_files.LEARNER, preset_files.PRESET, "servable"]
    np.testing.assert_array_equal(
        predictions(tfmeta.from_preset(folder)), predictions(tfmeta.from_preset(saved))
    )


def fail(*arguments):
    raise OSError("the disk is full")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_savers_at_once_one_succeeds_and_the_others_are_told(tmp_path):
    """Before, each checked first and wrote then: the digest of one, and the weights of another."""
    start, told = threading.Barrier(4), []

    def save(saver):
        start.wait()
        try:
            saver.save_to_preset(tmp_path / "preset")
        except ValueError as error:
            told.append(str(error))

    savers = [learner(seed) for seed in range(4)]
    threads = [threading.Thread(target=save, args=(saver,)) for saver in savers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(told) == 3
    assert all("holds a preset already" in text for text in told)
    found = predictions(tfmeta.from_preset(tmp_path / "preset"))
    assert sum(np.array_equal(found, predictions(saver)) for saver in savers) == 1
    assert names_in(tmp_path / "preset") == [preset_files.LEARNER, preset_files.PRESET]


def test_a_preset_cut_off_before_its_description_can_be_saved_again(saved):
    """As if the process had been killed between the two files."""
    (saved / preset_files.PRESET).unlink()
    with pytest.raises(ValueError, match="There is no preset"):
        tfmeta.from_preset(saved)
    learner(1).save_to_preset(saved)
    np.testing.assert_array_equal(predictions(tfmeta.from_preset(saved)), predictions(learner(1)))


# === The zoo ===


def test_the_zoo_is_small():
    (folder,) = [folder for folder in zoo.FOLDERS if folder.is_dir()]
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert len(sizes) > 60
    # PyPI takes wheels of up to 100 MB. One preset has an encoder of 14 MB, in two forms.
    assert sum(sizes) < 80 * 2**20


# Regression and classification, inner steps and comparison; the large tier has the others.
BY_DEFAULT = ("maml_glyphs_5w1s", "meta_sgd_sinusoid")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in BY_DEFAULT else [pytest.mark.large])
        for name in presets.list_presets()
    ],
)
def test_the_servable_of_a_preset_answers_as_the_preset(name):
    # A server wants answers that do not depend on the other queries.
    learner = served_learner(tfmeta.from_preset(name))
    assert not normalises_together(learner.batch_norm, learner)
    expected = adapted_and_predicted(learner)
    assert np.isfinite(expected).all()
    assert list(learner.example_shape) == preset_files.read(presets.find(name)).example_shape
    if learner.output_kind == "logits":
        expected = tf.nn.softmax(expected).numpy()
    x, y = examples(learner)
    servable = tf.saved_model.load(str(tfmeta.serving.servable_of(presets.find(name))))
    answer = servable.signatures["adapt_and_predict"](
        support_x=x[None],
        support_y=y[None],
        support_mask=np.ones((1, 5), "float32"),
        query_x=x[None],
    )
    (output,) = answer.keys() & {"probabilities", "scores", "predictions"}
    np.testing.assert_allclose(answer[output][0], expected, rtol=1e-4, atol=1e-5)


# === Names ===


@pytest.mark.parametrize(
    "name",
    [
        "maml_omniglot",
        "../maml_sinusoid",
        "maml_sinusoid/../maml_sinusoid",
        "..",
        "/etc/passwd",
    ],
)
def test_an_unknown_name_is_told(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="There is no preset"):
        tfmeta.from_preset(name)


@pytest.mark.parametrize("name", ["x" * 5000, "~no_such_user_here/mine"])
def test_what_can_be_no_folder_is_told(name):
    with pytest.raises(ValueError, match="is no preset's name, nor a folder"):
        tfmeta.from_preset(name)


def test_no_name_is_told_even_in_a_preset_s_folder(saved, monkeypatch):
    monkeypatch.chdir(saved)
    with pytest.raises(ValueError, match="Give a name, a folder or an address"):
        tfmeta.from_preset("")


def test_the_nearest_name_is_told(monkeypatch, saved, tmp_path):
    monkeypatch.setattr(zoo, "FOLDERS", (tmp_path / "missing", tmp_path))
    assert tfmeta.list_presets() == ["mine"]
    assert tfmeta.from_preset("mine").inner_steps == 2
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        tfmeta.from_preset("mime")


def test_a_missing_zoo_is_told_but_folders_still_load(monkeypatch, saved, tmp_path):
    monkeypatch.setattr(zoo, "FOLDERS", (tmp_path / "missing",))
    with pytest.raises(RuntimeError, match="presets are missing"):
        tfmeta.list_presets()
    with pytest.raises(ValueError, match="There is no preset 'maml_sinusoid'"):
        tfmeta.from_preset("maml_sinusoid")
    assert tfmeta.from_preset(saved).inner_steps == 2


def test_a_class_loads_its_own_presets_only(saved):
    assert tfmeta.MAML.from_preset(saved).inner_steps == 2
    assert tfmeta.MetaLearner.from_preset(saved).inner_steps == 2
    with pytest.raises(ValueError, match="of the class Reptile; it has a MAML"):
        tfmeta.Reptile.from_preset(saved)


# === What is broken, altered or foreign ===


def test_an_altered_or_truncated_file_is_refused(saved):
    file = saved / preset_files.LEARNER
    content = file.read_bytes()
    for broken in (
        content[:-1],
        content[: len(content) // 2],
        b"",
        content[:99] + b"?" + content[100:],
    ):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="truncated or altered"):
            tfmeta.from_preset(saved)
    file.unlink()
    with pytest.raises(ValueError, match=r"lacks its learner\.keras"):
        tfmeta.from_preset(saved)


def test_what_is_loaded_is_what_was_hashed(saved, monkeypatch):
    """Before, Keras opened the file again, which may have been exchanged meanwhile."""
    expected = predictions(tfmeta.from_preset(saved))
    check = preset_files.check

    def check_and_exchange(folder, copy):
        check(folder, copy)
        learner(1).save(folder / preset_files.LEARNER)

    monkeypatch.setattr(preset_files, "check", check_and_exchange)
    np.testing.assert_array_equal(predictions(tfmeta.from_preset(saved)), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is broken, or no preset.json"),
        (b"\xff\xfe", "is broken, or no preset.json"),
        ("[]", "must say which format"),
        ('{"model": "bert"}', "must say which format"),
        ('{"format": "1"}', "must say which format"),
        ('{"format": true}', "must say which format"),
        ('{"format": 0}', "must say which format"),
        pytest.param("[" * 100_000, "is broken, or no preset.json", id="deep"),
        ('{"format": 9, "tfmeta": "9.0"}', "from tfmeta 9.0; .* upgrade"),
        ('{"format": 2, "tfmeta": "9.0"}', "was altered"),
        pytest.param(" " * 1_000_001, "has over 1000000 bytes", id="large"),
        ('{"format": 1, "sha256": "0"}', "must have the keys"),
    ],
)
def test_a_foreign_description_is_refused(content, message, saved):
    (saved / preset_files.PRESET).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(ValueError, match=message):
        tfmeta.from_preset(saved)


@pytest.mark.parametrize("shape", ["28", [28, "28"], [28, -1], [True]])
def test_a_wrong_example_shape_is_refused(shape, saved):
    change(saved, example_shape=shape)
    with pytest.raises(ValueError, match="example_shape must be a list of integers"):
        tfmeta.from_preset(saved)


def test_a_recipe_that_is_none_is_refused(saved):
    change(saved, recipe=["waves"])
    with pytest.raises(ValueError, match="recipe must be an object or null"):
        tfmeta.from_preset(saved)


def test_a_wrong_image_format_is_refused(saved):
    change(saved, image_format={"height": 0, "width": 8})
    with pytest.raises(ValueError, match="height and width"):
        tfmeta.from_preset(saved)
    change(saved, image_format={"colour": "red"})
    with pytest.raises(ValueError, match="colour"):
        tfmeta.from_preset(saved)


def change(folder, **values):
    """Changes what a preset says, with a new digest of it."""
    content = {**preset_files.read_values(folder), **values}
    (folder / preset_files.PRESET).write_text(preset_files.signed(content))


def sign(folder):
    """So that only what is in the file can be refused."""
    digest = hashlib.sha256((folder / preset_files.LEARNER).read_bytes()).hexdigest()
    change(folder, sha256=digest)


def unzipped(folder):
    with zipfile.ZipFile(folder / preset_files.LEARNER) as file:
        return {name: file.read(name) for name in file.namelist()}


def zip_and_sign(folder, files):
    with zipfile.ZipFile(folder / preset_files.LEARNER, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    sign(folder)


def test_another_model_is_refused(saved):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(saved / preset_files.LEARNER)
    sign(saved)
    with pytest.raises(ValueError, match="of the class MetaLearner; it has a Sequential"):
        tfmeta.from_preset(saved)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_no_model_is_refused(content, saved):
    (saved / preset_files.LEARNER).write_bytes(content)
    sign(saved)
    with pytest.raises(ValueError, match="does not load"):
        tfmeta.from_preset(saved)


def test_nothing_of_a_hostile_file_is_executed(saved, tmp_path):
    victim = tmp_path / "victim"
    code = f"__import__('pathlib').Path({str(victim)!r}).touch()"
    function = keras.layers.Lambda(eval(f"lambda x: ({code}, x)[1]"))
    hostile = [
        keras.saving.serialize_keras_object(function),
        {
            "module": "os",
            "class_name": "system",
            "config": f"touch {victim}",
            "registered_name": None,
        },
        {
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "eval",
        },
        {
            "module": "keras.utils",
            "class_name": "get_file",
            "config": {"origin": f"file://{saved}/{preset_files.PRESET}", "cache_dir": str(victim)},
            "registered_name": None,
        },
    ]
    good = (saved / preset_files.LEARNER).read_bytes()
    for layer in hostile:
        (saved / preset_files.LEARNER).write_bytes(good)
        files = unzipped(saved)
        config = json.loads(files["config.json"])
        config["config"]["network"]["config"]["layers"][1] |= layer
        files["config.json"] = json.dumps(config).encode()
        zip_and_sign(saved, files)
        with pytest.raises(ValueError, match="does not load"):
            tfmeta.from_preset(saved)
        assert not victim.exists()


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(saved, tmp_path, monkeypatch):
    broken = learner()
    kernel = broken.network.trainable_variables[0]
    kernel.assign(kernel * np.nan)
    with pytest.raises(ValueError, match=r"weights that are not finite, in .*kernel"):
        broken.save_to_preset(tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(preset_files, "_check_finite", lambda *_: None)
        broken.save_to_preset(tmp_path / "broken")
    with pytest.raises(ValueError, match=r"broken/learner\.keras has weights that are not finite"):
        tfmeta.from_preset(tmp_path / "broken")


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "more", "model.weights.h5"])
def test_an_archive_that_expands_is_refused_without_expanding_it(name, saved):
    files = unzipped(saved)
    with zipfile.ZipFile(saved / preset_files.LEARNER, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in files.items():
            archive.writestr(member, data if member != name else b" " * (30 << 20))
        if name not in files:
            archive.writestr(name, b" " * (30 << 20))
    sign(saved)
    assert (saved / preset_files.LEARNER).stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=r"does not load: .*expands to") as error:
        tfmeta.from_preset(saved)
    assert str(saved / preset_files.LEARNER) in str(error.value)
    with pytest.raises(ValueError, match="expands to"):
        archives.read_config(saved / preset_files.LEARNER)


def test_every_flipped_bit_of_every_file_is_noticed(saved):
    """Of `preset.json` all bits; of each other file some."""
    (saved / "evaluation.json").write_text('{"mean": 0.5}')
    (saved / "servable" / "1").mkdir(parents=True)
    (saved / "servable" / "1" / "saved_model.pb").write_bytes(bytes(range(256)))
    change(saved, recipe={"name": "x", "training": {"seed": 1, "optimizer": {"epsilon": 1e-08}}})
    preset_files.record_files(saved)
    preset_files.check(saved)
    rng = np.random.default_rng(0)
    for file in [path for path in saved.rglob("*") if path.is_file()]:
        content = file.read_bytes()
        bits = range(8 * len(content))
        for bit in bits if file.name == preset_files.PRESET else rng.choice(bits, 20):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            with pytest.raises(ValueError, match=r"altered|broken|format|must"):
                preset_files.check(saved)
        file.write_bytes(content)
    preset_files.check(saved)


def test_line_ends_of_another_system_are_no_alteration(saved):
    file = saved / preset_files.PRESET
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    preset_files.check(saved)


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "a/../../b", "C:\\x", "a\\..\\b"])
def test_a_preset_names_its_own_files_only(name, saved):
    change(saved, files={name: "0" * 64})
    with pytest.raises(ValueError, match="files must have the digests of files in its folder"):
        preset_files.check(saved)


def test_a_preset_without_digests_of_its_files_still_loads(saved):
    content = preset_files.read_values(saved)
    del content["files"]
    (saved / preset_files.PRESET).write_text(json.dumps({**content, "format": 1}))
    assert tfmeta.from_preset(saved).inner_steps == 2


@pytest.mark.parametrize("name", presets.list_presets())
def test_each_file_of_a_shipped_preset_has_its_digest(name):
    folder = presets.find(name)
    preset = preset_files.read(folder)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {*preset.files, preset_files.LEARNER, preset_files.PRESET} == found
    assert any(file.startswith("servable/") for file in found)
    preset_files.check(folder)


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_no_pickle_is_read(saved, tmp_path):
    victim = tmp_path / "victim"
    pickled = np.array([Touch(victim)], dtype=object)
    np.savez(tmp_path / "weights.npz", __root__=pickled)
    np.load(tmp_path / "weights.npz", allow_pickle=True)["__root__"]
    assert victim.exists()
    victim.unlink()
    files = unzipped(saved)
    del files["model.weights.h5"]
    files["model.weights.npz"] = (tmp_path / "weights.npz").read_bytes()
    zip_and_sign(saved, files)
    with pytest.raises(ValueError, match="does not load"):
        tfmeta.from_preset(saved)
    assert not victim.exists()


# === Addresses ===


class Server:
    """Serves a folder by https; tells what was asked for, and breaks off where `cut` is set."""

    def __init__(self, folder: Path, context: ssl.SSLContext) -> None:
        self.asked: list[str] = []
        self.cut: Callable[[], None] | None = None  # Called in the middle of the weights.
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                super().do_GET()

            def copyfile(self, source, outputfile):
                if outer.cut and self.path.endswith(".keras"):
                    outputfile.write(source.read(1000))
                    outer.cut()
                else:
                    super().copyfile(source, outputfile)

            def log_message(self, *arguments):
                pass

        handler = partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"https://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(saved, tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    running = Server(saved.parent, context)
    yield running
    running.server.shutdown()
    running.server.server_close()


def cached(tmp_path):
    files = (tmp_path / "home" / "tfmeta").rglob("*")
    return sorted(path for path in files if path.is_file() and path.name != ".lock")


def test_an_address_is_downloaded_once(server, saved, tmp_path):
    expected = predictions(tfmeta.from_preset(saved))
    for address in (f"{server.address}/mine", f"{server.address}/mine/"):
        np.testing.assert_array_equal(predictions(tfmeta.from_preset(address)), expected)
    assert server.asked == ["/mine/preset.json", "/mine/learner.keras"]
    assert {p.name for p in cached(tmp_path)} == {preset_files.PRESET, preset_files.LEARNER}


def test_a_cached_file_that_was_altered_is_downloaded_again(server, tmp_path):
    tfmeta.from_preset(f"{server.address}/mine")
    for name in (preset_files.LEARNER, preset_files.PRESET):
        (file,) = [p for p in cached(tmp_path) if p.name == name][-1:]
        file.write_bytes(b"{")
        server.asked.clear()
        tfmeta.from_preset(f"{server.address}/mine")
        assert len(server.asked) == 2


def test_a_preset_that_changed_is_downloaded_again_only_if_asked(server, saved):
    address = f"{server.address}/mine"
    before = predictions(tfmeta.from_preset(address))
    shutil.rmtree(saved)
    learner(1).save_to_preset(saved)
    np.testing.assert_array_equal(predictions(tfmeta.from_preset(address)), before)
    after = predictions(learner(1))
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(predictions(tfmeta.from_preset(address, refresh=True)), after)
    np.testing.assert_array_equal(predictions(tfmeta.from_preset(address)), after)
    # Without the network, what is in the cache stays usable.
    (saved / preset_files.LEARNER).unlink()
    with pytest.raises(ValueError, match="could not be downloaded"):
        tfmeta.MAML.from_preset(address, refresh=True)
    np.testing.assert_array_equal(predictions(tfmeta.from_preset(address)), after)


def test_a_broken_download_leaves_nothing(server, saved, tmp_path):
    server.cut = lambda: None
    with pytest.raises(ValueError, match=r"could not be downloaded|SHA-256"):
        tfmeta.from_preset(f"{server.address}/mine")
    assert cached(tmp_path) == []
    server.cut = None
    with pytest.raises(ValueError, match=r"could not be downloaded.*404"):
        tfmeta.from_preset(f"{server.address}/other")
    (saved / preset_files.LEARNER).write_bytes(b"altered")
    with pytest.raises(ValueError, match="SHA-256"):
        tfmeta.from_preset(f"{server.address}/mine")
    assert cached(tmp_path) == []


@pytest.mark.large
def test_after_a_download_was_killed_the_next_one_works(server, saved, tmp_path):
    code = f"import tfmeta; tfmeta.from_preset('{server.address}/mine')"
    process = subprocess.Popen([sys.executable, "-c", code])
    server.cut = process.kill
    assert process.wait(timeout=200) == -signal.SIGKILL
    assert server.asked == ["/mine/preset.json", "/mine/learner.keras"]
    server.cut = None
    expected = predictions(tfmeta.from_preset(saved))
    np.testing.assert_array_equal(
        predictions(tfmeta.from_preset(f"{server.address}/mine")), expected
    )
    # Nothing of the first one is left.
    assert [path.name for path in cached(tmp_path)] == [preset_files.LEARNER, preset_files.PRESET]


# === Servers that mean no good ===


@pytest.fixture
def answer(server, monkeypatch):
    """A function: makes the server answer each request by a function of its own."""
    monkeypatch.setattr(downloads, "SILENCE", 0.3)

    def install(respond):
        handler = server.server.RequestHandlerClass.func
        monkeypatch.setattr(handler, "do_GET", respond)
        return f"{server.address}/mine"

    return install


def refused(address):
    """What is said, at once, of an address that gives no preset."""
    began = time.monotonic()
    with pytest.raises(ValueError, match="could not be downloaded") as error:
        tfmeta.from_preset(address)
    assert time.monotonic() - began < 20
    assert str(error.value).startswith(f"{address}/preset.json")
    assert "/tmp" not in str(error.value)
    return str(error.value)


def test_a_silent_server_is_given_up_and_holds_no_lock(answer, saved, server, tmp_path):
    asked, go_on = threading.Event(), threading.Event()
    silent = answer(lambda handler: (asked.set(), go_on.wait(20)))
    thread = threading.Thread(target=refused, args=(silent,))
    thread.start()
    assert asked.wait(20)
    (folder,) = (tmp_path / "home" / "tfmeta").iterdir()
    with filelock.FileLock(folder / ".lock").acquire(timeout=0.2):
        pass
    thread.join(20)
    assert not thread.is_alive()
    go_on.set()
    assert cached(tmp_path) == []


@pytest.mark.parametrize("says_so", [True, False])
def test_a_file_without_end_is_not_read_to_the_end(answer, tmp_path, says_so):
    sent = []

    def respond(handler):
        handler.send_response(200)
        if says_so:
            handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b" " * 100_000)
                sent.append(1)

    assert "at most 1,000,000 are accepted" in refused(answer(respond))
    assert len(sent) < 1000
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    "target", ["http://localhost:1/mine/", "ftp://localhost:1/", "file:///etc/"]
)
def test_a_redirection_to_less_than_https_is_refused(answer, target):
    def respond(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    refused(answer(respond))


def test_a_slow_server_is_given_up(answer, monkeypatch):
    clock = itertools.count(0, 1000)
    monkeypatch.setattr(downloads, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(downloads, "BYTES_PER_SECOND", 10**9)

    def respond(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b" ")

    assert "comes at less than" in refused(answer(respond))


def test_an_answer_that_is_cut_off_is_told(answer):
    def respond(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{")

    assert "ended after 1 of 100 bytes" in refused(answer(respond))


def test_an_altered_preset_is_told_by_its_address(server, saved):
    (saved / preset_files.PRESET).write_text("{")
    with pytest.raises(ValueError, match="altered there or on the way") as error:
        tfmeta.from_preset(f"{server.address}/mine")
    assert f"{server.address}/mine/preset.json is broken" in str(error.value)
    assert "/tmp" not in str(error.value)


def test_an_unknown_certificate_is_refused(server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ValueError, match="CERTIFICATE_VERIFY_FAILED"):
        tfmeta.from_preset(f"{server.address}/mine")


@pytest.mark.large
def test_processes_that_download_at_once_do_not_disturb_each_other(server, tmp_path):
    code = f"import tfmeta; print(tfmeta.from_preset('{server.address}/mine').inner_steps)"
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in running:
        out, err = process.communicate(timeout=200)
        assert out.strip().endswith("2"), err
    # None waits for another's download; one version is kept.
    assert set(server.asked) == {"/mine/preset.json", "/mine/learner.keras"}
    assert len(server.asked) <= 6
    assert len(cached(tmp_path)) <= 6


def test_other_schemes_are_told(tmp_path):
    with pytest.raises(ValueError, match="https://, gs://, hf://"):
        tfmeta.from_preset("http://localhost/mine")


def test_google_storage_is_asked_through_tensorflow(saved, tmp_path, monkeypatch):
    """Only TensorFlow's copying is replaced: there is no such server here."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))

    def copy(source, target):
        assert source.startswith("gs://bucket/zoo/mine/")
        shutil.copy(saved / source.rpartition("/")[2], target)

    monkeypatch.setattr(tf.io.gfile, "copy", copy)
    size = types.SimpleNamespace(length=10)
    monkeypatch.setattr(tf.io.gfile, "stat", lambda path: size)
    assert tfmeta.from_preset("gs://bucket/zoo/mine").inner_steps == 2
    size.length = 10**12
    with pytest.raises(
        ValueError, match=r"gs://bucket/zoo/other/preset\.json could not .*accepted"
    ):
        tfmeta.from_preset("gs://bucket/zoo/other")


def test_the_hugging_face_hub_is_asked_through_its_library(saved, tmp_path, monkeypatch):
    """Only its download is replaced: there is no such server here."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    import huggingface_hub

    asked = []

    def download(repository, name, revision):
        assert repository == "owner/zoo"
        asked.append((name, revision))
        return str(saved.parent / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    metadata = types.SimpleNamespace(size=10)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: metadata)
    for revision, name in ((None, ""), ("v1.0", "@v1.0"), ("refs/pr/1", "@refs%2Fpr%2F1")):
        assert tfmeta.from_preset(f"hf://owner/zoo{name}/mine").inner_steps == 2
        assert asked == [("mine/preset.json", revision), ("mine/learner.keras", revision)]
        asked.clear()
    for address in ("hf://owner", "hf://owner/", "hf:///zoo/mine", "hf://owner/zoo@/mine"):
        with pytest.raises(ValueError, match="hf://owner/repository, or a folder"):
            tfmeta.from_preset(address)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install .tfmeta\[hf\]"):
        tfmeta.from_preset("hf://owner/zoo/other")
