r"""A saddle point of a linear network as a function that JAX compiles and differentiates.

The saddle point is where the action of the pairs of entries is stationary in both of its arguments:

    S(Phi, Phihat; theta) = 1/2 tr( Phihat Phi ) - 1/2 ln det( I + Phihat C[Phi] ) - D(Phi),       F = -S .

From a solution that is known, Newton's method follows it to other values of the parameters, and the implicit function
theorem (`jax.lax.custom_root`) differentiates it, as often as asked for. Everything is JAX: `jax.jit`, `jax.grad`,
`jax.hessian` and `jax.vmap` apply, and so do optimisers that take such functions (SciPy, Optax).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory import arguments
from theory.evidence import mirror_images
from theory.finite_width import require_stable
from theory.kernel_action import pairs_of
from theory.kernels import flat_of
from theory.model import Array, Model, data_term, output_law, preactivation_cov, target_cov
from theory.parameters import Parameters
from theory.sensitivity import current_values
from theory.solution import Solution

MOST_ENTRIES = 30  # Newton solves n (n + 1) equations; beyond 30 entries a step takes seconds
STEPS = 8  # from the known solution to the parameters asked for: tenfold changes of gains and noise arrive
ITERATIONS = 12  # Newton steps at each, at most; near a solution it takes four
SMALL = 1e-11  # a residual at which Newton's method stops: of the order of rounding


class Followed(NamedTuple):
    """A saddle point as JAX arrays.

    Attributes:
        free_energy: F.
        log_evidence: ln p(y) at the network's width, with all terms that do not vanish at large width.
        kernel: Phi, (T, P, T, P); of several layers as in `Solution`.
        prediction: f, (P, T, O).
        residual: the largest violation of the stationarity equations, in units of the kernel. Where it is not tiny
            (above 1e-8, say, or not a number), Newton's method did not arrive, and nothing else holds.
    """

    free_energy: Array
    log_evidence: Array
    kernel: Array
    prediction: Array
    residual: Array


def differentiable(
    solution: Solution, over: Sequence[str], *, steps: int = STEPS
) -> Callable[[Mapping[str, Array]], Followed]:
    """A solution as a function of parameters, to be compiled and differentiated by JAX.

    The function follows the branch of ``solution``: it knows of no other branch and does not tell whether its own has
    become unstable. Check the end of an optimisation with `theory.solve`.

    Args:
        solution: a stable saddle point of a linear network, with at most 30 entries (sites times patterns).
        over: names of parameters, as in `theory.sensitivity`.
        steps: in how many steps the parameters go from those of ``solution`` to those asked for.

    Returns:
        A function of a mapping from these names to scalars, which may be traced, that returns a `Followed`. JAX has
        to be in double precision where it is called, within ``jax.enable_x64(True)`` say.

    Raises:
        ValueError: if the solution is not a stable saddle point of a linear network, is too large, or an argument is
            out of its range; in the function, if names are missing or JAX is in single precision.
    """
    require_stable(solution)
    n = solution.model.entries
    if not solution.saddle.linear:
        raise ValueError(f"solution is of activation {solution.network.activation!r}; it must be of a linear network")
    if n > MOST_ENTRIES:
        raise ValueError(f"solution has {n} entries (sites x patterns); at most {MOST_ENTRIES} are followed")
    steps = arguments.integer("steps", steps, 1)
    known = current_values(solution.network)
    names = tuple(over) if not isinstance(over, str) else ()
    if not names or not set(names) <= set(known) or len(set(names)) < len(names):
        raise ValueError(f"over is {over!r}; it must be a list of different names out of {', '.join(known)}")
    branch = _Branch(solution, names, known, steps)

    def followed(values: Mapping[str, Array]) -> Followed:
        if set(values) != set(names):
            raise ValueError(f"values has {', '.join(map(str, values))}; it must have {', '.join(names)}")
        if jnp.result_type(float) != jnp.float64:
            raise ValueError("values are in single precision; call the function within jax.enable_x64(True)")
        return branch.at(jnp.stack([jnp.asarray(values[name], float) for name in names]))

    return followed


class _Branch:
    """The branch of a solution; kernels in units of their own entries, x = (pairs of Phi, pairs of Phihat)."""

    def __init__(self, solution: Solution, names: tuple[str, ...], known: Mapping[str, float], steps: int) -> None:
        self.solution, self.names, self.steps = solution, names, steps
        self.parameters = Parameters(solution.network, solution.task, names)
        self.start = np.array([known[name] for name in names])
        self.width = solution.network.width
        self.mirror = math.log(1 + mirror_images(solution))
        kernel, conjugate = flat_of(solution.kernel), flat_of(solution.conjugate)
        self.pairs = pairs_of(len(kernel))
        self.size = len(self.pairs[0])
        scale = np.sqrt(np.diagonal(kernel))
        self.unit = np.outer(*[np.where(scale > 0, scale, 1.0)] * 2)
        half = np.where(np.eye(len(kernel)), 0.5, 1.0)  # the conjugate of a pair
        self.known = np.concatenate([(kernel / self.unit)[self.pairs], (half * conjugate * self.unit)[self.pairs]])

    def at(self, theta: Array) -> Followed:
        def stationary(x: Array) -> Array:
            return jax.grad(self.action)(x, theta)

        x = jax.lax.custom_root(
            stationary, jnp.asarray(self.known), lambda _, start: self.newton(start, theta), _linear_solve
        )
        model, (kernel, _) = self.model(theta), self.matrices(x)
        free_energy = -self.action(x, theta)
        second = jax.hessian(self.action)(x, theta)
        spread = 2 * math.pi * model.scale * target_cov(model, kernel)
        outputs = self.solution.task.output_dim
        log_evidence = -self.width * free_energy - jnp.linalg.slogdet(second)[1] / 2 + self.mirror
        log_evidence = log_evidence - outputs / 2 * jnp.linalg.slogdet(spread)[1]
        prediction = model.read_out(output_law(model, kernel).mean)
        task = self.solution.task
        return Followed(
            free_energy,
            log_evidence,
            kernel.reshape(self.solution.kernel.shape),
            prediction.reshape(task.steps, task.patterns, outputs).swapaxes(0, 1),
            jnp.max(jnp.abs(stationary(x))),
        )

    def model(self, theta: Array) -> Model:
        return self.parameters.model(dict(zip(self.names, theta, strict=True)))

    def matrices(self, x: Array) -> tuple[Array, Array]:
        """Phi and Phihat (n, n)."""
        rows, columns = self.pairs
        whole = jnp.zeros((2, *self.unit.shape), x.dtype).at[:, rows, columns].add(x.reshape(2, -1))
        kernel = whole[0] + whole[0].T - jnp.diag(jnp.diagonal(whole[0]))
        return kernel * self.unit, (whole[1] + whole[1].T) / self.unit

    def action(self, x: Array, theta: Array) -> Array:
        """S."""
        model, (kernel, conjugate) = self.model(theta), self.matrices(x)
        cov = preactivation_cov(model, kernel)
        log_det = jnp.linalg.slogdet(jnp.eye(len(cov)) + conjugate @ cov)[1]
        return jnp.sum(conjugate * kernel) / 2 - log_det / 2 - data_term(model, kernel)

    def newton(self, x: Array, theta: Array) -> Array:
        """The stationary point at theta, in steps from where it is known."""
        slope, curvature = jax.grad(self.action), jax.hessian(self.action)

        def step(number: Array, x: Array) -> Array:
            here = self.start + (number + 1) / self.steps * (theta - self.start)

            def going(state: tuple[Array, Array, Array]) -> Array:
                _, residual, count = state
                return (jnp.max(jnp.abs(residual)) > SMALL) & (count < ITERATIONS)

            def move(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
                x, residual, count = state
                x = x - jnp.linalg.solve(curvature(x, here), residual)
                return x, slope(x, here), count + 1

            return jax.lax.while_loop(going, move, (x, slope(x, here), jnp.zeros((), int)))[0]

        return jax.lax.fori_loop(0, self.steps, step, x)


def _linear_solve(linear: Callable[[Array], Array], right: Array) -> Array:
    return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(right)), right)
