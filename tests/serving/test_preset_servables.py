"""A preset's servable is in the mode that a server wants, and there is one version of it."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta import preset_files
from tfmeta.serving import ServableError, check, renew_servable, servable_of
from tfmeta.versions import versions


def make_learner():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization()]
    return tfmeta.PrototypicalNetwork(keras.Sequential([keras.Input((3,)), *layers]))


@pytest.fixture
def learner():
    return make_learner()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A preset with its first servable, which takes seconds to make. Tests write to copies."""
    folder = tmp_path_factory.mktemp("first") / "preset"
    learner = make_learner()
    learner.save_to_preset(folder)
    assert renew_servable(folder, learner) == folder / "servable" / "1"
    return folder


@pytest.mark.large
def test_a_transductive_preset_is_served_in_the_mode_support(learner, tmp_path):
    assert learner.batch_norm == "transductive"
    learner.save_to_preset(tmp_path / "preset")
    version = renew_servable(tmp_path / "preset", learner)
    assert version == servable_of(tmp_path / "preset")
    check(version)  # without allow_transductive
    files = preset_files.read(tmp_path / "preset").files
    assert f"servable/{version.name}/saved_model.pb" in files
    x = np.random.default_rng(0).random((1, 4, 3), "float32")
    episode = {"support_x": x, "support_y": np.array([[0, 1, 0, 1]]), "query_x": x}
    expected = learner.with_batch_norm("support")(episode)
    answer = tf.saved_model.load(str(version)).signatures["serving_default"](
        **{name: tf.constant(value) for name, value in episode.items()},
        support_mask=tf.ones([1, 4]),
    )
    np.testing.assert_allclose(answer["logits"], expected, rtol=1e-4, atol=1e-5)


def test_a_renewed_servable_replaces_the_old_one_and_a_failed_one_does_not(
    learner, first, tmp_path
):
    shutil.copytree(first / "servable", tmp_path / "servable")
    assert renew_servable(tmp_path, learner) == tmp_path / "servable" / "2"
    assert versions(tmp_path / "servable") == [2]
    learner.encoder.set_weights([np.full_like(w, np.nan) for w in learner.encoder.get_weights()])
    with pytest.raises(ServableError):
        renew_servable(tmp_path, learner)
    assert versions(tmp_path / "servable") == [2]


def test_a_preset_without_a_servable_is_told(tmp_path):
    with pytest.raises(ValueError, match="has no servable"):
        servable_of(tmp_path)


def test_an_altered_servable_of_a_preset_is_refused(first, tmp_path):
    shutil.copytree(first, tmp_path / "preset")
    file = servable_of(tmp_path / "preset") / "saved_model.pb"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"saved_model\.pb was truncated or altered"):
        servable_of(tmp_path / "preset")
