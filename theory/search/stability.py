r"""Whether the free energy has a direction of descent at a saddle point.

Its Hessian is G (I - J), G positive definite and J the Jacobian of the map from the natural parameters (C^{-1}, Phihat)
of q to those that the averages over q imply: stable where all eigenvalues of I - J, which are real, are positive. On
grids that is what is computed. Draws blur these eigenvalues by more than a soft mode's own; there the sign of the
determinant of the slope of the stationarity equations stands in, which vanishes with that of I - J but is far less
blurred: negative means an odd number of directions of descent. An even number shows in the flow, which leaves the
branch. Only what is negative on every set of draws counts as unstable: that of a soft mode changes sign between them.

"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from theory.jacobians import dense_jacobian
from theory.kernels import scale_of
from theory.model import Model, preactivation_cov
from theory.search.settings import RootSettings
from theory.search.stationarity import (
    Laws,
    Layout,
    Root,
    averages,
    conjugate_of,
    pack,
    unpack,
    violation_slope,
)


@partial(jax.jit, static_argnums=4)
def _hessian_like(unknowns, scale, model, laws, layout):
    """I - J in the scaled unknowns."""
    rows, columns = layout.pairs
    pair_scale = scale[rows] * scale[columns]

    def violation(unknowns):
        kernel, conjugate = unpack(unknowns, scale, layout)
        cov = preactivation_cov(model, kernel)
        new_kernel, response, _ = averages(kernel, conjugate, model, laws, layout)
        new_cov = preactivation_cov(model, new_kernel)
        new_response = jnp.zeros_like(cov)
        for group in layout.groups:
            index = np.array(group.entries)[np.array(group.live, dtype=int)]
            if index.size:
                window = np.ix_(index, index)
                old, precision = cov[window], jnp.linalg.inv(new_cov[window])
                # <h h^T> = C - C Q C, met by the covariance that the new kernel makes.
                second = old - old @ response[window] @ old
                new_response = new_response.at[window].set(precision - precision @ second @ precision)
        new_conjugate = conjugate_of(new_kernel, new_response, model, layout)
        new = jnp.concatenate([new_kernel[rows, columns] / pair_scale, new_conjugate[rows, columns] * pair_scale])
        return unknowns - new

    return dense_jacobian(violation, unknowns)


def is_stable(
    roots: Sequence[Root],
    sets: Sequence[Laws],
    model: Model,
    layout: Layout,
    slope: np.ndarray,
    settings: RootSettings = RootSettings(),
) -> bool:
    """Whether a saddle point is stable, by the module's two criteria.

    Args:
        roots: the saddle point, solved on each of several sets of laws.
        sets: the laws, of each group.
        model: the network on the task.
        layout: the groups.
        slope: `theory.search.stationarity.violation_slope` nearby, on other draws.
        settings: of the slope.
    """
    scale = scale_of(roots[0].kernel)
    unknowns = [pack(root.kernel, root.conjugate, scale, layout) for root in roots]
    if not layout.exact:
        more = (
            violation_slope(at, scale, model, laws, layout, settings) for at, laws in zip(unknowns, sets, strict=True)
        )
        return any(np.linalg.slogdet(one)[0] > 0 for one in chain([slope], more))
    values = np.linalg.eigvals(np.asarray(_hessian_like(unknowns[0], scale, model, sets[0], layout)))
    return bool(np.min(values.real) > 0)
