"""The options of a recipe's learner."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tfmeta.recipes.feature_heads import (
    LEO,
    BaselinePlusPlus,
    CosinePrototypicalNetwork,
    FineTuning,
    LogisticHead,
    MahalanobisHead,
    RidgeHead,
    SimpleShot,
)
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
    OptionalSteps,
    PositiveNumber,
    Range,
    SeedOfDraws,
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


class MetaGANMAML(GradientSteps):
    """MAML that is trained to tell real examples from a generator's, too."""

    name: Literal["meta_gan_maml"]
    n_code: Filters = 64
    """Numbers in a task's code, from which the generator makes examples."""
    n_noise: Filters = 100
    """Random numbers from which it makes an example."""
    adversarial_weight: Weight = 1.0
    """Weight of telling real from fake in the outer loss."""
    inner_adversarial_weight: Weight = 1.0
    """Weight of telling real from fake in the inner steps of meta-training."""
    generator_learning_rate: PositiveNumber = 0.001
    """Learning rate of the generator's optimizer, Adam."""
    first_order: Flag = False
    """Whether to ignore second derivatives."""
    inner_rule: InnerRule = "sgd"
    """How an inner step changes the weights."""


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


class MetaGANRelationNetwork(RelationNetwork):
    """A Relation Network that is trained to tell real examples from a generator's, too."""

    name: Literal["meta_gan_relation_network"]  # type: ignore[assignment]
    n_code: Filters = 64
    """Numbers in a task's code, from which the generator makes examples."""
    n_noise: Filters = 100
    """Random numbers from which it makes an example."""
    adversarial_weight: Weight = 0.1
    """Weight of telling real from fake."""
    generator_learning_rate: PositiveNumber = 0.001
    """Learning rate of the generator's optimizer, Adam."""


# === All, with the heads ===

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
    "meta_gan_maml": MetaGANMAML,
    "meta_gan_relation_network": MetaGANRelationNetwork,
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
    | MetaGANMAML
    | MetaGANRelationNetwork
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
