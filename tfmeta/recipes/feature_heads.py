"""The options of a recipe's learner that is a head on features."""

from __future__ import annotations

from typing import Literal

from tfmeta.recipes.options import (
    BatchNorm,
    Filters,
    Flag,
    Named,
    OneOrMoreSteps,
    OptionalPositiveNumber,
    PositiveNumber,
    Share,
    Steps,
    Weight,
)


class BaselinePlusPlus(Named):
    """Fits a cosine classifier to the support set's features by gradient descent."""

    name: Literal["baseline_plus_plus"]
    learning_rate: PositiveNumber = 0.01
    """Step size of the gradient descent."""
    steps: Steps = 100
    """Steps of the gradient descent."""
    scale: PositiveNumber = 2.0
    """Factor of the cosine similarities."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class CosinePrototypicalNetwork(Named):
    """Compares queries with each class's mean feature by cosines, times a learned scale."""

    name: Literal["cosine_prototypical_network"]
    initial_scale: PositiveNumber = 10.0
    """Factor of the cosine similarities at the start of training."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class FineTuning(Named):
    """Tunes the encoder on each task's support set, then compares with the classes' means."""

    name: Literal["fine_tuning"]
    learning_rate: PositiveNumber = 0.001
    """Adam's step size in a task."""
    steps: Steps = 50
    """How many steps a task takes, outside of meta-training."""
    initial_scale: PositiveNumber = 10.0
    """Factor of the cosine similarities at the start of training."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class LEO(Named):
    """Decodes a linear classifier from latent codes, which adapt to the task."""

    name: Literal["leo"]
    n_latent: Filters = 64
    """Numbers in a code."""
    inner_learning_rate: PositiveNumber = 1.0
    """Step size of the inner steps on codes, at the start of training."""
    inner_steps: Steps = 5
    """Inner steps that change the codes."""
    finetuning_learning_rate: PositiveNumber = 0.001
    """Step size of the steps on weights, at the start of training."""
    finetuning_steps: Steps = 5
    """Steps that change the weights, after those on codes."""
    sample: Flag = True
    """Whether codes and weights are drawn in meta-training."""
    largest_deviation: OptionalPositiveNumber = None
    """A bound of the standard deviations, for training that diverges. None if it is null."""
    dropout_rate: Share = 0.5
    """Which share of the features is dropped in meta-training."""
    kl_weight: Weight = 0.001
    """Weight of the codes' divergence from a standard normal distribution."""
    encoder_penalty_weight: Weight = 1e-9
    """Weight of the codes' mean squared change in the inner steps."""
    l2_weight: Weight = 1e-8
    """Weight of half the sum of squared weights."""
    orthogonality_weight: Weight = 0.001
    """Weight of the penalty of rows of the decoder that are not orthogonal."""
    normalize: Flag = True
    """Whether features are divided by their length."""
    task_mapping: Literal["auto", "loop", "vectorized"] = "auto"
    """How tasks are computed: one after another, or all at once. `auto` is all at once on a GPU
    only; of features from a file, `vectorized` takes less time on a CPU, too."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class LogisticHead(Named):
    """Fits logistic regression to the support set's L2-normalised features."""

    name: Literal["logistic_head"]
    inverse_regularization: PositiveNumber = 1.0
    """Weight of the examples' loss beside the penalty of large weights: scikit-learn's C."""
    newton_steps: OneOrMoreSteps = 10
    """Steps of Newton's method."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class MahalanobisHead(Named):
    """Compares queries with each class's mean feature by Mahalanobis distances."""

    name: Literal["mahalanobis_head"]
    regularization: PositiveNumber = 1.0
    """Multiple of the identity in the classes' covariances."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class RidgeHead(Named):
    """Fits ridge regression to the support set's features, with a learned penalty."""

    name: Literal["ridge_head"]
    initial_regularization: PositiveNumber = 1.0
    """Penalty of large weights at the start of training."""
    initial_scale: PositiveNumber = 10.0
    """Factor of the logits at the start of training."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class SimpleShot(Named):
    """Compares queries with each class's mean of L2-normalised features.

    With `epochs: 0`, the mean feature of the base classes is that of the training classes. With
    training, it stays zero, and `learner.set_feature_mean` sets it afterwards.
    """

    name: Literal["simple_shot"]
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""
