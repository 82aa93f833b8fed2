"""The networks of `keras.applications` and of KerasHub train, adapt, save and load.

One network of each family, with random weights and small images. Through so many random layers,
a change of 1e-12 in the inputs becomes one of 1e-6 in the predictions: hence float64.
"""

import importlib.util

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.networks import clone

APPLICATIONS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Large": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}


def encoder(name):
    size = APPLICATIONS[name]
    keras.utils.set_random_seed(0)
    return getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )


def trains_adapts_saves_and_loads(learner, shape, folder):
    rng = np.random.default_rng(0)
    episode = {
        "support_x": rng.random((1, 4, *shape)),
        "support_y": np.array([[0, 0, 1, 1]]),
        "query_x": rng.random((1, 3, *shape)),
    }
    # Gradients can be of any size, too.
    learner.compile(keras.optimizers.SGD(1e-3, clipnorm=1.0), learner.default_loss())
    assert np.isfinite(learner.train_on_batch(episode, np.array([[0, 1, 0]])))
    adapted = learner.adapt(episode["support_x"][0], episode["support_y"][0])
    predictions = adapted.predict(episode["query_x"][0], verbose=0)
    np.testing.assert_allclose(predictions, learner(episode)[0], rtol=1e-5, atol=1e-5)
    for model, inputs in ((adapted, episode["query_x"][0]), (learner, episode)):
        model.save(folder / "model.keras")
        loaded = keras.models.load_model(folder / "model.keras")
        np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.large
@pytest.mark.parametrize("mode", ["support", "running"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_encoder_of_keras_applications(name, mode, tmp_path, float64):
    model = encoder(name)
    learner = tfmeta.PrototypicalNetwork(model, batch_norm=mode)
    trains_adapts_saves_and_loads(learner, model.input_shape[1:], tmp_path)


@pytest.mark.large
@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50", "EfficientNetB0"])
def test_a_network_of_keras_applications_takes_inner_steps(name, tmp_path, float64):
    model = encoder(name)
    network = keras.Sequential([model, keras.layers.LayerNormalization(), keras.layers.Dense(2)])
    learner = tfmeta.MAML(network, inner_learning_rate=1e-3, batch_norm="support")
    trains_adapts_saves_and_loads(learner, model.input_shape[1:], tmp_path)


def test_merges_beside_operators_are_copied():
    """MobileNetV3 has both, of which Keras refused one under its bare name."""
    x = keras.Input((6,))
    hidden = keras.layers.Dense(6)(x)
    gate = keras.ops.relu6(hidden + 3.0) * (1.0 / 6.0)
    model = keras.Model(x, keras.layers.Add()([x, keras.layers.Multiply()([gate, hidden])]) - x)
    examples = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(clone(model)(examples), model(examples), rtol=1e-6)
    adapted = tfmeta.PrototypicalNetwork(model).adapt(examples, [0, 0, 1, 1])
    assert adapted.predict(examples, verbose=0).argmax(axis=1).shape == (4,)


@pytest.mark.large
@pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not installed"
)
def test_a_backbone_of_keras_hub(tmp_path, float64):
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D()])
    model.build((None, 16, 16, 3))
    learner = tfmeta.PrototypicalNetwork(model, batch_norm="support")
    trains_adapts_saves_and_loads(learner, (16, 16, 3), tmp_path)
