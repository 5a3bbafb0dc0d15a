r"""Whether the free energy has a direction of descent at a nonlinear saddle point.

Its Hessian is G (I - J), G positive definite and J the Jacobian of the map from the natural parameters (C^{-1}, Phihat)
of q to those that the averages over q imply: stable where all eigenvalues of I - J, which are real, are positive. On
grids that is what is computed. Draws blur these eigenvalues by more than a soft mode's own; there the sign of the
determinant of the slope of the stationarity equations stands in, which vanishes with that of I - J but is far less
blurred: negative means an odd number of directions of descent. An even number shows in the flow, which leaves the
branch.

Source: SOLVER.md, "Stability"; DESIGN.md section 3.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from theory.covariance import Terms, preactivation_cov
from theory.jacobians import dense_jacobian
from theory.nonlinear.fixed_point import Layout, averages, conjugate_of, pack, unpack
from theory.nonlinear.neuron import Points


@partial(jax.jit, static_argnums=4)
def _hessian_like(unknowns, scale, terms, points, layout):
    """I - J in the scaled unknowns."""
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]

    def violation(unknowns):
        kernel, conjugate = unpack(unknowns, scale, layout)
        cov = preactivation_cov(terms, kernel, layout.patterns)
        new_kernel, response, _ = averages(kernel, conjugate, terms, points, layout)
        new_cov = preactivation_cov(terms, new_kernel, layout.patterns)
        new_response = jnp.zeros_like(cov)
        for group in layout.groups:
            index = np.array(group.entries)[np.array(group.live, dtype=int)]
            if index.size:
                window = np.ix_(index, index)
                old, precision = cov[window], jnp.linalg.inv(new_cov[window])
                # <h h^T> = C - C Q C, met by the covariance that the new kernel makes.
                second = old - old @ response[window] @ old
                new_response = new_response.at[window].set(precision - precision @ second @ precision)
        new_conjugate = conjugate_of(new_kernel, new_response, terms, layout)
        new = jnp.concatenate([new_kernel[rows, columns] / pair_scale, new_conjugate[rows, columns] * pair_scale])
        return unknowns - new

    return dense_jacobian(violation, unknowns)


def is_stable(
    kernel: np.ndarray,
    conjugate: np.ndarray,
    scale: np.ndarray,
    terms: Terms,
    points: tuple[Points, ...],
    layout: Layout,
    slope: np.ndarray,
) -> bool:
    """Whether a saddle point is stable, by the module's two criteria.

    Args:
        kernel, conjugate: Phi and Phihat, (n, n).
        scale: sqrt(Phi_ii), ones where that vanishes, (n,).
        terms: the network on the task.
        points: of each group.
        layout: what they are points of.
        slope: `theory.nonlinear.fixed_point.violation_slope` here.
    """
    if any(group.sampled for group in layout.groups):
        return bool(np.linalg.slogdet(slope)[0] > 0)
    unknowns = pack(kernel, conjugate, scale, layout)
    values = np.linalg.eigvals(np.asarray(_hessian_like(unknowns, scale, terms, points, layout)))
    return bool(np.min(values.real) > 0)
