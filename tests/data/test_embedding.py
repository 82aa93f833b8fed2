"""Data sets of features: what is embedded, what is cached, and when it is made anew."""

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.data import embed, embedding, load
from tfmeta.networks import NoDigestError

RNG = np.random.default_rng(0)
NAMES = ["cat", "dog", "owl"]


def images(n=4):
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, (n + i, 6, 6, 3), np.uint8) for i, name in enumerate(NAMES)}


def encoder(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(5, 3)(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="small")


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """Embeds with a cache; `embedded.calls` counts how often features were computed."""
    compute = embedding._features

    def counted(*args):
        run.calls += 1
        return compute(*args)

    def run(source=None, network=None, **options):
        source = load(images()) if source is None else source
        network = encoder() if network is None else network
        return embed(source, network, cache_dir=tmp_path, **{"verbose": 0, **options})

    run.calls = 0
    run.folder = tmp_path
    monkeypatch.setattr(embedding, "_features", counted)
    return run


def features_of(data):
    return [data.fetch(rows).numpy() for rows in data.rows]


# === What is embedded ===


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_features_are_the_encoder_s_class_by_class(embedded, batch_size):
    network = encoder()
    data = embedded(network=network, batch_size=batch_size)
    assert data.class_names == NAMES
    assert data.example_shape == (5,)
    for features, pixels in zip(features_of(data), images().values(), strict=True):
        expected = network(pixels / np.float32(255), training=False)
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_a_subset_in_another_order_keeps_its_names(embedded):
    whole, part = load(images()), load(images()).subset(["owl", "cat"])
    features = dict(zip(NAMES, features_of(embedded(whole)), strict=True))
    data = embedded(part)
    assert data.class_names == ["owl", "cat"]
    for name, found in zip(data.class_names, features_of(data), strict=True):
        np.testing.assert_allclose(found, features[name], rtol=1e-5, atol=1e-6)


def test_groups_are_kept(embedded):
    x, y = np.zeros((6, 6, 6, 3), "float32"), np.array([0, 1, 0, 1, 0, 1])
    grouped = tfmeta.data.ClassDataset.from_arrays(x, y, groups=[*"aabbcc"])
    features = embedded(grouped)
    assert [[*groups] for groups in features.groups] == [[*"abc"], [*"abc"]]


def test_every_kind_of_learner_takes_the_episodes(embedded):
    data = embedded()
    episodes = data.episodes(n_way=2, n_shot=1, n_query=2, meta_batch_size=2)
    identity = keras.Sequential([keras.Input((5,)), keras.layers.Rescaling(1.0)])
    learners = [
        tfmeta.MAML(tfmeta.backbones.mlp(2, (5,)), inner_learning_rate=0.1),
        tfmeta.PrototypicalNetwork(tfmeta.backbones.mlp(4, (5,))),
        tfmeta.PrototypicalNetwork(identity),
    ]
    for learner in learners:
        assert np.isfinite(tfmeta.evaluate(learner, episodes, n_episodes=4).mean)


def test_records_name_the_source_and_the_encoder(embedded):
    data = embedded()
    assert data.source == {"name": "arrays", "split": "all", "encoder": "small"}
    assert data.fingerprint() == embedding.data_digest(load(images()))


def test_files_of_images_are_embedded_as_they_are_loaded(embedded, tmp_path):
    for name, pixels in images(n=2).items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(pixels):
            keras.utils.save_img(tmp_path / "photos" / name / f"{i}.png", image, scale=False)
    photos = load(tmp_path / "photos", image_format=tfmeta.data.ImageFormat(6, 6))
    expected = features_of(embedded(load(images(n=2))))
    for found, features in zip(features_of(embedded(photos)), expected, strict=True):
        np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)


def test_the_progress_bar_counts_examples(embedded, capsys):
    embedded(verbose=1)
    assert "15/15" in capsys.readouterr().out
    embedded(verbose=0, network=encoder(1))
    assert capsys.readouterr().out == ""


# === The cache ===


def test_a_second_call_reads_the_file(embedded):
    first = embedded()
    # Layers have other names and batches another size, which changes nothing.
    second = embedded(batch_size=2)
    assert embedded.calls == 1
    for a, b in zip(features_of(first), features_of(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(list(embedded.folder.iterdir())) == 1


def test_no_file_is_written_without_the_cache(embedded):
    embedded(cache=False)
    embedded(cache=False)
    assert embedded.calls == 2
    assert list(embedded.folder.iterdir()) == []


def test_the_cache_is_in_the_home_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    embed(load(images()), encoder(), verbose=0)
    assert len(list((tmp_path / "tfmeta" / "embeddings").glob("*.npz"))) == 1


def one_pixel():
    changed = images()
    changed["dog"][2, 3, 1, 0] ^= 1
    return load(changed)


def two_swapped():
    changed = images()
    changed["owl"] = changed["owl"][[1, 0, *range(2, len(changed["owl"]))]]
    return load(changed)


def renamed():
    return load({name.upper(): pixels for name, pixels in images().items()})


def moved_to_the_next_class():
    whole = np.concatenate(list(images().values()))
    return load((whole, np.repeat([0, 1, 2], [5, 4, 6])), class_names=NAMES)


def other_order_of_classes():
    return load(images()).subset(NAMES[::-1])


@pytest.mark.parametrize(
    "change", [one_pixel, two_swapped, renamed, moved_to_the_next_class, other_order_of_classes]
)
def test_other_data_are_embedded_anew(embedded, change):
    embedded()
    embedded(change())
    assert embedded.calls == 2


def test_another_weight_or_statistic_is_embedded_anew(embedded):
    networks = [encoder(), encoder(), encoder(), encoder(seed=1)]
    networks[1].layers[1].bias.assign([0, 0, 0, 0, 1e-6])
    networks[2].layers[2].moving_mean.assign([0, 0, 0, 0, 1e-6])
    for network in networks:
        embedded(network=network)
    assert embedded.calls == 4


@pytest.mark.parametrize("library", ["tfmeta", "tensorflow", "keras"])
def test_other_versions_are_embedded_anew(embedded, monkeypatch, library):
    embedded()
    if library == "tfmeta":
        monkeypatch.setattr(embedding, "__version__", "0.0.1")
    else:
        short = {"tensorflow": "tf", "keras": "keras"}[library]
        monkeypatch.setattr(getattr(embedding, short), "__version__", "0.0.1")
    embedded()
    assert embedded.calls == 2


def cut(content):
    return content[:-40]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def empty(content):
    return b""


def text(content):
    return b"no array"


@pytest.mark.parametrize("damage", [cut, flipped, empty, text])
def test_a_broken_file_is_computed_again(embedded, damage):
    first = embedded()
    (file,) = embedded.folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match=r"is broken, so they are computed again") as caught:
        second = embedded()
    assert sum("is broken" in str(warning.message) for warning in caught) == 1
    assert embedded.calls == 2
    for a, b in zip(features_of(first), features_of(second), strict=True):
        np.testing.assert_array_equal(a, b)
    embedded()
    assert embedded.calls == 2


def test_a_file_of_other_features_is_broken(embedded):
    embedded()
    (file,) = embedded.folder.iterdir()
    with file.open("wb") as opened:
        np.savez(opened, features=np.zeros((3, 5), np.float32))
    with pytest.warns(UserWarning, match=r"it holds float32 \(3, 5\)"):
        embedded()


def test_an_encoder_without_a_digest_is_not_cached(embedded, monkeypatch):
    def no_digest(network):
        raise NoDigestError("its code cannot be read")

    monkeypatch.setattr(embedding, "network_digest", no_digest)
    with pytest.warns(UserWarning, match="are not cached, for its code cannot be read"):
        embedded()
    assert list(embedded.folder.iterdir()) == []


# === What is refused ===


def test_what_does_not_fit_is_refused(embedded):
    with pytest.raises(ValueError, match="source must be a ClassDataset"):
        embedded(load("sinusoid"))
    with pytest.raises(ValueError, match=r"encoder must be a keras\.Model; got str"):
        embedded(network="efficientnet_lite0")
    with pytest.raises(ValueError, match="batch_size must be an integer"):
        embedded(batch_size=0)
    with pytest.raises(
        ValueError, match=r"takes examples of the shape \(6, 6, 3\), but the data have \(2, 2, 3\)"
    ):
        embedded(load((RNG.random((4, 2, 2, 3)), [0, 0, 1, 1])))


def test_features_must_be_finite(embedded):
    pixels = {name: np.zeros((2, 6, 6, 3), np.float32) for name in NAMES}
    pixels["dog"][1] = 1e30
    inputs = keras.Input((6, 6, 3))
    squares = keras.Model(inputs, keras.layers.Flatten()(inputs * inputs))
    with pytest.raises(ValueError, match="NaN or infinity for an example of 'dog'"):
        embedded(load(pixels), squares)
    assert list(embedded.folder.iterdir()) == []
