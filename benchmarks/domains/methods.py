"""What is compared: how each learner is trained on a domain, and the learners that are tested."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from drawings import SHAPE

import tfmeta
from tfmeta.data import ClassDataset

FILTERS = 32
BATCH_SIZE = 64  # of ordinary classification
BASE_CLASSES = 1000  # at most so many classes give SimpleShot its mean
# Of the test. An emoji has at least 8 drawings: 5 for the support set leave 3.
N_WAY, SHOTS, N_QUERY = 5, (1, 5), 3


def encoder() -> keras.Model:
    """Makes the encoder of all methods: 128 features."""
    return tfmeta.backbones.conv4(None, SHAPE, filters=FILTERS, head="flatten")


# === Training ===

# Chosen so that each takes about the same CPU time.
STEPS = {"classification": 1200, "prototypical_network": 700, "ridge_head": 700, "maml": 350}


def train(name: str, data: ClassDataset, steps: int, seed: int) -> tuple[keras.Model, float]:
    """Trains on one domain; returns the learner, or the classifier's encoder, and the CPU seconds.

    The weights are those after the last step.
    """
    keras.utils.set_random_seed(seed)
    schedule = keras.optimizers.schedules.CosineDecay(RATES[name], steps, alpha=0.01)
    optimizer = keras.optimizers.Adam(schedule)
    started = time.process_time()
    if name == "classification":
        trained = encoder()
        model = keras.Sequential([trained, keras.layers.Dense(len(data), name="classes")])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        examples = batches(data, seed)
    else:
        model = trained = META_LEARNERS[name]()
        loss = trained.default_loss()
        n_way, size = (5, 4) if name == "maml" else (20, 1)
        examples = data.episodes(n_way, (1, 5), 3, meta_batch_size=size, seed=seed)
    model.compile(optimizer, loss)
    model.fit(examples, steps_per_epoch=steps, shuffle=False, verbose=2)
    return trained, time.process_time() - started


RATES = {"classification": 3e-3, "prototypical_network": 3e-3, "ridge_head": 3e-3, "maml": 2e-3}
META_LEARNERS: dict[str, Callable[[], tfmeta.MetaLearner]] = {
    # In training, "running" normalises as "transductive" does, and also keeps moving averages.
    "prototypical_network": lambda: tfmeta.PrototypicalNetwork(encoder(), batch_norm="running"),
    "ridge_head": lambda: tfmeta.RidgeHead(encoder(), batch_norm="running"),
    # As the presets: second order.
    "maml": lambda: tfmeta.MAML(
        tfmeta.backbones.conv4(5, SHAPE, filters=FILTERS, head="flatten"),
        inner_learning_rate=0.4,
        inner_steps=1,
        test_inner_steps=3,
    ),
}


def batches(data: ClassDataset, seed: int) -> tf.data.Dataset:
    """Makes an endless data set of shuffled batches of images and their classes."""
    rows = np.concatenate(data.rows)
    labels = np.repeat(np.arange(len(data)), [len(r) for r in data.rows])
    pairs = tf.data.Dataset.from_tensor_slices((rows, labels)).shuffle(len(rows), seed).repeat()
    return pairs.batch(BATCH_SIZE).map(lambda r, y: (data.fetch(r), y)).prefetch(2)


# === Test ===


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Attributes:
        label: str. What the tables call it.
        training: str or None. The key in `STEPS` of the training that it uses; None for none.
        head: class or None. The learner that takes the features. None for the learner that was
            trained, as it is.
        batch_norm: str. How batch norm normalises in the test: see `tfmeta.MAML`.
        same_features: str or None. For a meta-learner, the label of SimpleShot on its features.
    """

    label: str
    training: str | None
    head: type[tfmeta.MetaLearner] | None
    batch_norm: str = "running"
    same_features: str | None = None

    @property
    def key(self) -> str:
        """A name for files."""
        return re.sub(r"\W+", "_", f"{self.label} {self.batch_norm}".lower())

    @property
    def is_inductive(self) -> bool:
        return self.batch_norm != "transductive"

    @property
    def is_on_features(self) -> bool:
        """Whether the features of an image do not depend on the episode, and are computed once."""
        return self.batch_norm == "running"


NEAREST, SIMPLE_SHOT = tfmeta.PrototypicalNetwork, tfmeta.SimpleShot
OF = "SimpleShot on {}'s features"
PROTONET, RIDGE, MAML = "Prototypical Network", "ridge head (R2D2)", "MAML"
METHODS = (
    Method(PROTONET, "prototypical_network", None, same_features=OF.format(PROTONET)),
    Method(OF.format(PROTONET), "prototypical_network", SIMPLE_SHOT),
    Method(RIDGE, "ridge_head", None, same_features=OF.format(RIDGE)),
    Method(OF.format(RIDGE), "ridge_head", SIMPLE_SHOT),
    Method("SimpleShot", "classification", SIMPLE_SHOT),
    Method("nearest mean", "classification", NEAREST),
    Method("cosine nearest mean", "classification", tfmeta.CosinePrototypicalNetwork),
    Method("logistic regression", "classification", tfmeta.LogisticHead),
    Method("Mahalanobis distance", "classification", tfmeta.MahalanobisHead),
    Method("nearest mean, untrained encoder", None, NEAREST),
    Method(MAML, "maml", None, "support", same_features=OF.format(MAML)),
    Method(OF.format(MAML), "maml", SIMPLE_SHOT, "support"),
    Method(PROTONET, "prototypical_network", None, "transductive"),
    Method(MAML, "maml", None, "transductive"),
    Method("SimpleShot", "classification", SIMPLE_SHOT, "transductive"),
)


def encoder_of(trained: keras.Model) -> keras.Model:
    """Returns the encoder of what `train` returned."""
    if isinstance(trained, tfmeta.MAML):
        network = trained.network
        return keras.Model(network.inputs, network.get_layer("flatten").output)
    return trained.encoder if isinstance(trained, tfmeta.MetaLearner) else trained


def learner_for(
    method: Method,
    trained: keras.Model,
    example_shape: tuple[int, ...],
    base: Callable[[], ClassDataset],
) -> tfmeta.MetaLearner:
    """Makes the learner that is tested: of features if the method is on features, else of images.

    Args:
        method: Method. The row.
        trained: keras.Model. What `train` returned, or an untrained encoder.
        example_shape: tuple of int. The shape of an image's features, or of an image.
        base: function without arguments. Returns training classes, features or images.
    """
    if method.head is None:
        if method.is_on_features:
            return without_encoder(trained)
        return trained.with_batch_norm(method.batch_norm)
    network = identity(example_shape) if method.is_on_features else encoder_of(trained)
    learner = method.head(network, batch_norm=method.batch_norm)
    if isinstance(learner, SIMPLE_SHOT):
        learner.set_feature_mean(base())
    return learner


def without_encoder(learner: tfmeta.MetaLearner) -> tfmeta.MetaLearner:
    """Makes a learner of the features of a metric learner's encoder, with the same head."""
    head = type(learner)(identity(learner.encoder.output_shape[1:]), batch_norm="running")
    in_encoder = {id(v) for v in learner.encoder.variables}
    values = [v for v in learner.variables if id(v) not in in_encoder]
    for variable, value in zip(head.variables, values, strict=True):
        variable.assign(value)
    return head


def identity(shape: tuple[int, ...]) -> keras.Model:
    return keras.Sequential([keras.Input(shape), keras.layers.Identity()])


def base_classes(data: ClassDataset) -> ClassDataset:
    """Returns the training classes, evenly thinned out, that give SimpleShot its mean."""
    step = -(-len(data) // BASE_CLASSES)
    return data.subset(data.class_names[::step])


def accuracies(
    learner: tfmeta.MetaLearner, targets: Sequence[ClassDataset], n_episodes: int, seed: int
) -> np.ndarray:
    """Returns the accuracy in each episode `[targets, shots, n_episodes]`.

    The episodes of a target and a shot are the same for all learners.
    """
    size = math.gcd(n_episodes, 25)
    settings = [
        data.episodes(N_WAY, n_shot, N_QUERY, meta_batch_size=size, seed=seed).take(
            n_episodes // size
        )
        for data in targets
        for n_shot in SHOTS
    ]
    # One data set, for `evaluate` traces a learner's function anew each time.
    episodes = functools.reduce(tf.data.Dataset.concatenate, settings)
    result = tfmeta.evaluate(learner, episodes, n_episodes=n_episodes * len(settings))
    return result.values.reshape(len(targets), len(SHOTS), n_episodes)
