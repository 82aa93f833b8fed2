"""The options of a recipe's learner."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tfmeta.recipes.inner_rules import InnerRule
from tfmeta.recipes.options import (
    BatchNorm,
    Expected,
    Filters,
    Flag,
    Iterations,
    KerasObject,
    Named,
    OneOrMoreSteps,
    OptionalBatchSize,
    OptionalPositiveNumber,
    OptionalSteps,
    PositiveNumber,
    Range,
    SeedOfDraws,
    Share,
    Steps,
    Weight,
    known_name,
)

# === Learners that take inner steps ===


class InnerSteps(Named):
    """Options that all learners with inner steps have."""

    inner_steps: Steps = 1
    """Inner steps in meta-training."""
    test_inner_steps: OptionalSteps = None
    """Inner steps outside of meta-training. As many as `inner_steps` if it is null."""
    inner_batch_size: OptionalBatchSize = None
    """Support examples per inner step. All of them if it is null."""
    inner_loss: KerasObject | None = None
    """Loss of the inner steps: a Keras loss. Cross-entropy from logits if it is null, and the mean
    squared error for regression."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class GradientSteps(InnerSteps):
    """Options of the learners whose inner steps have a step size."""

    inner_learning_rate: PositiveNumber = 0.01
    """Step size of the inner steps. If the inner rule learns step sizes, their initial value."""


class MAML(GradientSteps):
    """Meta-learns the initialisation of a network."""

    name: Literal["maml"]
    first_order: Flag = False
    """Whether to ignore second derivatives."""
    inner_rule: InnerRule = "sgd"
    """How an inner step changes the weights."""


class AmortizedMAML(GradientSteps):
    """Meta-learns a Gaussian prior of the weights; inner steps make a task's posterior of it."""

    name: Literal["amortized_maml"]
    inner_steps: Steps = 5
    samples: OneOrMoreSteps = 10
    """Networks drawn in each step, and in meta-training for predictions."""
    test_samples: OptionalBatchSize = None
    """Networks drawn for predictions elsewhere. As many as `samples` if it is null."""
    kl_weight: Weight = 0.1
    """Weight of the divergence from the prior; 1 is Bayes' rule."""
    initial_log_sigma: Range = (-4.0, -3.0)
    """Range of the prior's log σ at the start of training."""
    prior_weight: Weight = 0.001
    """Weight of the hyper-prior: 1 / M for M training tasks."""
    prior_concentration: PositiveNumber = 1.0
    """Shape of the hyper-prior's gamma distribution of 1/σ²."""
    prior_rate: PositiveNumber = 0.01
    """Rate of that gamma distribution."""
    noise_scale: PositiveNumber = 1.0
    """Standard deviation of a target around the network's output, in regression."""
    learn_noise_scale: Flag = False
    """Whether that is meta-learned, too."""
    seed: SeedOfDraws = 0
    """Seed of the draws."""
    first_order: Flag = False
    """Whether to ignore second derivatives."""
    inner_rule: InnerRule = "sgd"
    """How an inner step changes means and log σ."""


class MetaSGD(GradientSteps):
    """MAML with a meta-learned step size for each parameter."""

    name: Literal["meta_sgd"]
    first_order: Flag = False
    """Whether to ignore second derivatives."""


class MAMLPlusPlus(GradientSteps):
    """MAML with step sizes per layer and step, multi-step loss and derivative-order annealing."""

    name: Literal["maml_plus_plus"]
    inner_learning_rate: PositiveNumber = 0.1
    inner_steps: OneOrMoreSteps = 5
    multi_step_loss_iterations: Iterations = 0
    """Iterations over which the loss after each inner step fades out."""
    first_order_iterations: Iterations = 0
    """Iterations at the beginning of meta-training that ignore second derivatives."""
    inner_rule: InnerRule = "per_layer_per_step"
    """How an inner step changes the weights."""


class ANIL(GradientSteps):
    """Meta-learns an encoder; inner steps change the last layer alone."""

    name: Literal["anil"]
    first_order: Flag = False
    """Whether to ignore second derivatives."""
    inner_rule: InnerRule = "sgd"
    """How an inner step changes the weights."""


class CAVIA(GradientSteps):
    """Meta-learns a network; inner steps change its context alone."""

    name: Literal["cavia"]
    inner_learning_rate: PositiveNumber = 1.0
    first_order: Flag = False
    """Whether to ignore second derivatives."""
    inner_rule: InnerRule = "sgd"
    """How an inner step changes the context."""


class Reptile(GradientSteps):
    """Moves the initialisation towards each task's adapted weights."""

    name: Literal["reptile"]
    inner_learning_rate: PositiveNumber = 0.001
    inner_steps: Steps = 5
    inner_rule: InnerRule = "sgd"
    """How an inner step changes the weights."""
    carry_moments: Flag = False
    """Whether the inner rule's moments go on from one meta-batch to the next."""


class MetaLSTM(InnerSteps):
    """An LSTM that learns the inner update, together with the initialisation."""

    name: Literal["meta_lstm"]
    inner_steps: Steps = 12
    hidden_units: Filters = 20
    """Filters of the LSTM that reads the gradients."""
    forget_bias: Range = (4.0, 5.0)
    """Range of the initial biases of the forget gate."""
    input_bias: Range = (-5.0, -4.0)
    """Range of the initial biases of the input gate."""
    first_order: Flag = True
    """Whether to ignore second derivatives, as published."""
    batch_norm: BatchNorm = "support"


# === Learners that compare ===


class MatchingNetwork(Named):
    """Weighs the support set's labels by their similarity to a query."""

    name: Literal["matching_network"]
    full_context: Flag = False
    """Whether LSTMs embed the support set and the queries in each other's context."""
    processing_steps: OneOrMoreSteps = 5
    """Steps of the LSTM that reads a query. Counts with `full_context` only."""
    temperature: PositiveNumber = 1.0
    """Divisor of the cosine similarities."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class PrototypicalNetwork(Named):
    """Compares queries with each class's mean feature."""

    name: Literal["prototypical_network"]
    distance: Annotated[Literal["euclidean", "cosine"], Expected()] = "euclidean"
    """The distance between features."""
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


class RelationNetwork(Named):
    """Compares queries with classes by a network that is meta-learned, too."""

    name: Literal["relation_network"]
    batch_norm: BatchNorm = "transductive"
    """How batch norm normalises, in training and in the recipe's first test."""


# === Heads on features ===


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


LEARNERS: dict[str, type[Named]] = {
    "amortized_maml": AmortizedMAML,
    "anil": ANIL,
    "baseline_plus_plus": BaselinePlusPlus,
    "cavia": CAVIA,
    "cosine_prototypical_network": CosinePrototypicalNetwork,
    "fine_tuning": FineTuning,
    "leo": LEO,
    "logistic_head": LogisticHead,
    "mahalanobis_head": MahalanobisHead,
    "maml": MAML,
    "maml_plus_plus": MAMLPlusPlus,
    "matching_network": MatchingNetwork,
    "meta_lstm": MetaLSTM,
    "meta_sgd": MetaSGD,
    "prototypical_network": PrototypicalNetwork,
    "relation_network": RelationNetwork,
    "reptile": Reptile,
    "ridge_head": RidgeHead,
    "simple_shot": SimpleShot,
}

Learner: TypeAlias = Annotated[
    AmortizedMAML
    | ANIL
    | BaselinePlusPlus
    | CAVIA
    | CosinePrototypicalNetwork
    | FineTuning
    | LEO
    | LogisticHead
    | MahalanobisHead
    | MAML
    | MAMLPlusPlus
    | MatchingNetwork
    | MetaLSTM
    | MetaSGD
    | PrototypicalNetwork
    | RelationNetwork
    | Reptile
    | RidgeHead
    | SimpleShot,
    Field(discriminator="name"),
    known_name(LEARNERS),
]
