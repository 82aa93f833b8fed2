"""Models of Keras as encoders, with random weights."""

import importlib.util

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.backbones import from_keras

RNG = np.random.default_rng(0)
applications = keras.applications
# Each with what it expects to be done to images from 0 to 255.
MODELS = {
    "MobileNetV2": (applications.mobilenet_v2.preprocess_input, 1280),
    "MobileNetV3Small": (None, 576),
    "EfficientNetV2B0": (None, 1280),
    "ResNet50": (applications.resnet50.preprocess_input, 2048),
}


def application(name, **options):
    keras.utils.set_random_seed(0)
    options = {"weights": None, "include_top": False, "input_shape": (32, 32, 3), **options}
    return getattr(applications, name)(**options)


def tiny(outputs=None, input_shape=(8, 8, 3)):
    """A model of images that returns its input, or what a function makes of it."""
    inputs = keras.Input(input_shape)
    made = keras.layers.Identity()(inputs) if outputs is None else outputs(inputs)
    return keras.Model(inputs, made, name="tiny")


# === What is computed ===


@pytest.mark.large
@pytest.mark.parametrize("name", MODELS)
def test_an_application_gets_the_pixels_that_it_expects(name, tmp_path):
    preprocess, n_features = MODELS[name]
    model = application(name)
    encoder = from_keras(model, preprocess=preprocess, input_shape=(32, 32, 1))
    grey = RNG.random((3, 32, 32, 1)).astype(np.float32)

    pixels = np.repeat(grey * 255, 3, axis=-1)
    expected = np.mean(model(pixels if preprocess is None else preprocess(pixels)), axis=(1, 2))
    assert encoder.output_shape == (None, n_features)
    np.testing.assert_allclose(encoder(grey), expected, rtol=1e-3, atol=1e-4)

    learner = tfmeta.PrototypicalNetwork(encoder, batch_norm="support")
    predictions = learner.adapt(grey[:2], [0, 1]).predict(grey, verbose=0)
    distances = np.square(expected[:, None] - expected[:2]).sum(axis=-1)
    np.testing.assert_allclose(predictions, -distances, rtol=1e-3, atol=1e-3)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    again = loaded.adapt(grey[:2], [0, 1]).predict(grey, verbose=0)
    np.testing.assert_array_equal(again, predictions)


@pytest.mark.parametrize("mode", ["resnet50", "densenet", "mobilenet_v2"])
def test_the_preprocessing_of_applications_is_in_the_encoder(mode, tmp_path):
    preprocess = getattr(applications, mode).preprocess_input
    encoder = from_keras(tiny(), preprocess=preprocess, input_shape=(5, 4, 1))
    images = RNG.random((2, 5, 4, 1)).astype(np.float32)
    resized = np.asarray(keras.ops.image.resize(images, (8, 8), antialias=True))
    pixels = np.repeat(resized * 255, 3, axis=-1)
    expected = np.mean(preprocess(pixels), axis=(1, 2))
    np.testing.assert_allclose(encoder(images), expected, rtol=1e-4, atol=1e-5)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(images), encoder(images))
    learner = tfmeta.PrototypicalNetwork(loaded)
    predictions = learner.adapt(images, [0, 1]).predict(images, verbose=0)
    distance = np.square(expected[0] - expected[1]).sum()
    expected = [[0, -distance], [-distance, 0]]
    np.testing.assert_allclose(predictions, expected, rtol=1e-3, atol=1e-3)


def test_a_call_without_training_is_inference():
    model = tiny(lambda x: keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(x)))
    encoder = from_keras(model, preprocess=None, input_shape=(5, 4, 1), trainable=True)
    images = RNG.random((2, 5, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(encoder(images), encoder(images, training=False))


def test_images_are_resized_to_the_model_s_size():
    encoder = from_keras(tiny(), preprocess=None, input_shape=(5, 4, 3))
    images = RNG.random((2, 5, 4, 3)).astype(np.float32)
    resized = keras.ops.image.resize(images, (8, 8), antialias=True)
    np.testing.assert_allclose(encoder(images), np.mean(resized, axis=(1, 2)) * 255, rtol=1e-4)


def test_a_model_of_any_size_sees_images_in_theirs():
    model = tiny(input_shape=(None, None, 3))
    encoder = from_keras(model, preprocess=lambda x: x / 255, input_shape=(5, 4, 3))
    images = RNG.random((2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(encoder(images), images.mean(axis=(1, 2)), rtol=1e-4)
    with pytest.raises(ValueError, match=r"input_shape must be .*; got \(None, None, 3\)"):
        from_keras(model, preprocess=None)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_tokens_are_pooled(pooling):
    model = tiny(keras.layers.Reshape((64, 3)))
    encoder = from_keras(model, preprocess=None, pooling=pooling)
    images = RNG.random((2, 8, 8, 3)).astype(np.float32)
    expected = images[:, 0, 0] if pooling == "first" else images.mean(axis=(1, 2))
    np.testing.assert_allclose(encoder(images), expected * 255, rtol=1e-4)


def test_a_model_with_its_input_in_a_dictionary_is_taken():
    inputs = {"images": keras.Input((8, 8, 3), name="images")}
    model = keras.Model(inputs, keras.layers.Identity()(inputs["images"]))
    images = RNG.random((2, 8, 8, 3)).astype(np.float32)
    expected = images.mean(axis=(1, 2)) * 255
    np.testing.assert_allclose(from_keras(model, preprocess=None)(images), expected, rtol=1e-4)


def test_the_model_is_frozen_unless_it_is_to_be_trained():
    model = tiny(keras.layers.Conv2D(2, 3))
    assert len(from_keras(model, preprocess=None, trainable=True).trainable_variables) == 2
    assert from_keras(model, preprocess=None).trainable_variables == []
    assert model.trainable_variables == []


@pytest.mark.large
@pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not installed"
)
@pytest.mark.parametrize("family", ["ResNet", "ViT", "DINOV2"])
def test_a_backbone_of_keras_hub(family):
    import keras_hub

    shape, sizes = (32, 32, 3), {"num_layers": 1, "num_heads": 2, "hidden_dim": 8}
    if family == "ResNet":  # It does not tell the size of its images.
        model = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 16],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
        )
    elif family == "ViT":
        model = keras_hub.models.ViTBackbone(shape, 8, mlp_dim=16, **sizes)
    else:
        model = keras_hub.models.DINOV2Backbone(
            8, intermediate_dim=16, image_shape=shape, position_embedding_shape=shape, **sizes
        )
    converter = keras_hub.layers.ImageConverter(scale=1 / 127.5, offset=-1)
    pooling = "mean" if family == "ResNet" else "first"
    encoder = from_keras(model, preprocess=converter, pooling=pooling, input_shape=(32, 32, 1))
    grey = RNG.random((3, 32, 32, 1)).astype(np.float32)
    rgb = np.repeat(grey * 2 - 1, 3, axis=-1)
    features = np.asarray(model({"images": rgb} if family == "DINOV2" else rgb))
    expected = features.mean(axis=(1, 2)) if pooling == "mean" else features[:, 0]
    np.testing.assert_allclose(encoder(grey), expected, rtol=1e-3, atol=1e-5)


# === What is refused ===


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet50", {}, "model must be a keras.Model; got str"),
        (tiny(input_shape=(8, 8, 4)), {}, r"RGB images .* takes inputs of the shape \(None, 8, 8"),
        (tiny(input_shape=(8, 3)), {}, "RGB images"),
        (keras.Sequential([keras.layers.Dense(3)]), {}, "RGB images"),
        (tiny(lambda x: [x, x]), {}, "must return one output; 'tiny' returns 2"),
        (
            tiny(lambda x: keras.layers.Dense(7, "softmax")(keras.layers.Flatten()(x))),
            {},
            "returns the probabilities of 7 classes: make it without its classifier",
        ),
        (tiny(lambda x: x[:, None]), {}, "must return features"),
        (tiny(), {"pooling": "max"}, "pooling must be one of mean, first; got 'max'"),
        (tiny(), {"pooling": "first"}, 'pooling="first" is for tokens'),
        (tiny(), {"preprocess": np.sqrt}, "preprocess must take a symbolic tensor"),
        (tiny(), {"preprocess": lambda x: x[..., 0]}, "must return images of the shape"),
        (tiny(), {"preprocess": lambda x: None}, "got NoneType"),
        (tiny(), {"input_shape": (8, 8, 2)}, "with 1 or 3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        from_keras(model, **{"preprocess": None, **options})
