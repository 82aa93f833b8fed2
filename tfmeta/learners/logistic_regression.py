"""Multinomial logistic regression in a graph: Newton's method, and the solution's derivative."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Solution(NamedTuple):
    """A fitted logistic regression.

    Attributes:
        dual: tf.Tensor `[S, n_way]`. With the features X, the weights are W = Xᵀ · dual.
        bias: tf.Tensor `[n_way]`. It sums to 0.
    """

    dual: tf.Tensor
    bias: tf.Tensor


def fit_logistic_regression(
    products: tf.Tensor, members: tf.Tensor, strength: float, steps: int
) -> Solution:
    """Minimises C Σ_i cross-entropy(x_i W + b, y_i) + ½ ‖W‖².

    The weights are in the span of the examples, so a task costs n_way · S³ per step, whatever the
    number of features. All steps but the last are damped so that they lower the objective. The last
    one alone is differentiable, with a constant Jacobian: at the minimum its derivative is that of
    the solution, by the implicit function theorem.

    Args:
        products: tf.Tensor `[S, S]` float64. X Xᵀ, with rows and columns of zeros for padding.
        members: tf.Tensor `[S, n_way]` float64. 1 for the class of an example, 0 for all others and
            for padding. Classes without examples get no weights.
        strength: float > 0. C.
        steps: int ≥ 1. Newton steps.

    Returns:
        The solution, float64.
    """
    problem = _Problem(
        products,
        members,
        strength,
        tf.reduce_sum(members, axis=1, keepdims=True),
        tf.cast(tf.reduce_sum(members, axis=0) > 0, members.dtype),
    )
    fixed = problem._replace(products=tf.stop_gradient(products))

    def damped_step(
        i: tf.Tensor, dual: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        step = _newton_step(fixed, fixed, Solution(dual, bias))
        size = _step_size(fixed, Solution(dual, bias), step)
        return i + 1, dual + size * step.dual, bias + size * step.bias

    _, dual, bias = tf.while_loop(
        lambda i, *_: i < steps - 1,
        damped_step,
        (tf.constant(0), tf.zeros_like(members), tf.zeros_like(members[0])),
        maximum_iterations=steps - 1,
        parallel_iterations=1,
    )
    found = Solution(tf.stop_gradient(dual), tf.stop_gradient(bias))
    last = _newton_step(problem, fixed, found)
    return Solution(found.dual + last.dual, found.bias + last.bias)


class _Problem(NamedTuple):
    """One task.

    Attributes:
        products: tf.Tensor `[S, S]`. K = X Xᵀ.
        members: tf.Tensor `[S, n_way]`. Y.
        strength: float. C.
        exists: tf.Tensor `[S, 1]`. 0 for padding.
        is_present: tf.Tensor `[n_way]`. 0 for classes without examples.
    """

    products: tf.Tensor
    members: tf.Tensor
    strength: float
    exists: tf.Tensor
    is_present: tf.Tensor

    def logits(self, at: Solution) -> tf.Tensor:
        """Returns X W + b, `[…, S, n_way]`; −1e9 for classes without examples."""
        logits = tf.matmul(self.products, at.dual) + at.bias[..., None, :]
        return tf.where(self.is_present > 0, logits, tf.constant(-1e9, logits.dtype))

    def probabilities(self, at: Solution) -> tf.Tensor:
        """Returns the probabilities P `[S, n_way]`, with zeros for padding."""
        return self.exists * tf.nn.softmax(self.logits(at))

    def objective(self, at: Solution) -> tf.Tensor:
        """Returns what is minimised, `[…]`."""
        losses = -tf.reduce_sum(self.members * tf.nn.log_softmax(self.logits(at)), axis=(-2, -1))
        squares = tf.reduce_sum(at.dual * tf.matmul(self.products, at.dual), axis=(-2, -1))
        return self.strength * losses + squares / 2


def _newton_step(problem: _Problem, fixed: _Problem, at: Solution) -> Solution:
    """Returns the step to the root of the linearised conditions of the minimum.

    They are A − C(Y − P) = 0 for the dual A, and 1ᵀA = 0 for the bias. With H = C(D − ΠΠᵀ), the
    blocks of whose D are the diagonal matrices D_c of the probabilities of class c, and Π their
    column, the step (a, b) solves

        a + H(K a + 1 b) = −r,  1ᵀa = −s.

    M = (I + HK)⁻¹H is computed class by class (Rasmussen and Williams 2006, Gaussian Processes for
    Machine Learning, algorithm 3.3): with E_c = D_c^½ (I + D_c^½ K D_c^½)⁻¹ D_c^½, the part of M v
    for class c is E_c v_c − E_c (Σ E)⁻¹ Σ_c' E_c' v_c'. Then (I + HK)⁻¹ = I − M K.

    Args:
        problem: _Problem. Its conditions, through which gradients flow.
        fixed: _Problem. The same without gradients, for the Jacobian.
        at: Solution. Where to linearise.
    """
    exists, is_present = fixed.exists, fixed.is_present
    roots = tf.transpose(tf.sqrt(fixed.strength * fixed.probabilities(at)))  # [n_way, S]
    inner = roots[:, :, None] * fixed.products * roots[:, None, :]
    identity = tf.eye(tf.shape(inner)[-1], dtype=inner.dtype)
    factors = tf.linalg.cholesky(inner + identity)
    blocks = roots[:, :, None] * tf.linalg.cholesky_solve(factors, identity * roots[:, None, :])
    # Padding has no block: 1 on its diagonal makes the sum invertible.
    padding = tf.linalg.diag(1 - exists[:, 0])
    factor_of_sum = tf.linalg.cholesky(tf.reduce_sum(blocks, axis=0) + padding)

    def by_block(v: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tf.linalg.matvec(blocks, tf.transpose(v)))

    def m_times(v: tf.Tensor) -> tf.Tensor:
        parts = by_block(v)
        total = tf.reduce_sum(parts, axis=1, keepdims=True)
        common = tf.linalg.cholesky_solve(factor_of_sum, total)
        return parts - by_block(tf.broadcast_to(common, tf.shape(v)))

    residual = at.dual - problem.strength * (problem.members - problem.probabilities(at))
    start = m_times(tf.matmul(fixed.products, residual)) - residual
    # M 1 b, of which each class's bias is a column: 1ᵀM 1 = diag(1ᵀU) − Uᵀ(Σ E)⁻¹U, U_c = E_c 1.
    ones = by_block(tf.ones_like(residual))
    system = tf.linalg.diag(tf.reduce_sum(ones, axis=0)) - tf.matmul(
        ones, tf.linalg.cholesky_solve(factor_of_sum, ones), transpose_a=True
    )
    # The same bias for all classes changes nothing: it is set to 0, and that of absent classes.
    system += is_present[:, None] * is_present / tf.reduce_sum(is_present)
    system += tf.linalg.diag(1 - is_present)
    sums = tf.reduce_sum(start, axis=0) + tf.reduce_sum(at.dual, axis=0)
    bias = tf.linalg.solve(system, sums[:, None])[:, 0]
    return Solution(start - m_times(tf.ones_like(residual) * bias), bias)


def _step_size(problem: _Problem, at: Solution, step: Solution) -> tf.Tensor:
    """Returns the largest of 1, ½, ¼, …, 2⁻¹⁵ at which the objective is not larger than before."""
    sizes = tf.constant([0.5**i for i in range(16)], at.dual.dtype)
    there = Solution(
        at.dual + sizes[:, None, None] * step.dual, at.bias + sizes[:, None] * step.bias
    )
    before = problem.objective(at)
    is_lower = problem.objective(there) <= before + 1e-12 * tf.abs(before)
    return tf.gather(sizes, tf.argmax(tf.cast(is_lower, tf.int32)))
