r"""Second derivatives of the kernel action at a saddle point: how kernels fluctuate, and what that costs in evidence.

With the delta function that defines the kernel written as an integral over its conjugate, the evidence at width N is

    p(y) = int dPhi dPhihat exp( N S ) |A|^{-O/2} (N / 2 pi)^{...},      S = Phihat' . Phi + W(C[Phi], Phihat) - D(Phi),
    W = ln < exp( -1/2 phi^T Phihat phi ) >_{h ~ N(0, C)},               D = 1/2 sum_o y_o^T A^{-1} y_o

over the pairs i <= j of entries, with Phihat' the conjugate of each pair (Phihat_ij, half of it on the diagonal). To
second order around the saddle point S is the quadratic form of the bordered matrix

    Gamma = [ D'' - a    (I + b)^T ]        a = d^2W / dPhi dPhi,        b = d^2W / dPhihat' dPhi,
            [ I + b         -K     ]        K = d^2W / dPhihat' dPhihat' = Cov_q( s ),     s_ij = phi_i phi_j

so that N Cov(Phi) is the first diagonal block of Gamma^{-1}, and |det Gamma|^{-1/2} the integral over the deviations.
Nothing here inverts K, which is singular where entries repeat.

The derivatives of W follow in closed form for linear phi (W = -1/2 ln det(1 + Phihat C)), otherwise from neurons drawn
from q. With x = C^{-1} h, psi = dV/dh, V = 1/2 phi^T Phihat phi and C varied by E, at fixed white noise h moves by
1/2 E x, and

    dW = -< p_E >,    p_E = 1/2 psi^T E x,
    d^2W / dC dC       =  Cov(p_E, p_E') - 1/4 < x^T E (d^2V/dh dh) E' x > + 1/4 tr( E C^{-1} E' Q ),
    d^2W / dPhihat' dC =  Cov(s, p_E) - 1/2 < (ds/dh)^T E x >.

A phi with kinks has no d^2V/dh dh on points; there the law of h itself is varied, through u_E = 1/2 x^T E x:

    d^2W / dC dC = Cov(u_E, u_E') - tr( E <x x^T> E' C^{-1} ) + 1/2 tr( E C^{-1} E' C^{-1} ),
    d^2W / dPhihat' dC = -Cov(s, u_E).

"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from theory.jacobians import dense_jacobian
from theory.laws.law import live_entries, range_of
from theory.laws.neurons import Neurons
from theory.laws.smoothness import derivatives, has_kinks
from theory.model import Model, covariance_change, target_cov
from theory.response import NEGLIGIBLE, covariance_inverse, factorise

CHUNK = 4096  # neurons at once


class Curvature(NamedTuple):
    """Second derivatives of W, over pairs i <= j (d = n(n+1)/2) in the order of `pairs_of`.

    Attributes:
        covariance: d^2W / dC dC, (d, d).
        mixed: d^2W / dPhihat' dC, (d, d): rows s, columns C.
        activity: Cov_q(s), (d, d).
        slope: the first derivative dW / dC, (d,).
    """

    covariance: np.ndarray
    mixed: np.ndarray
    activity: np.ndarray
    slope: np.ndarray


def pairs_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs i <= j."""
    return np.triu_indices(n)


def pair_weights(n: int) -> np.ndarray:
    """E_ij = weight (e_i e_j^T + e_j e_i^T): one half on the diagonal."""
    rows, columns = pairs_of(n)
    return np.where(rows == columns, 0.5, 1.0)


def symmetric_of(values: np.ndarray, n: int) -> np.ndarray:
    """Numbers by pair (..., d) -> symmetric matrices (..., n, n)."""
    rows, columns = pairs_of(n)
    full = np.zeros((*values.shape[:-1], n, n))
    full[..., rows, columns] = values
    full[..., columns, rows] = values
    return full


def covariance_of_pairs(model: Model) -> scipy.sparse.csr_array:
    """dC / dPhi over pairs, (d, d): which entries of C (rows) each entry of Phi (columns) makes."""
    return scipy.sparse.csr_array(np.asarray(_covariance_of_pairs(model)))


@jax.jit
def _covariance_of_pairs(model):
    n = model.entries
    rows, columns = pairs_of(n)

    def change(values):
        kernel = jnp.zeros((n, n), values.dtype).at[rows, columns].set(values).at[columns, rows].set(values)
        return covariance_change(model, kernel)[rows, columns]

    return dense_jacobian(change, jnp.zeros(len(rows), model.drive.dtype))


def bordered_matrix(model: Model, kernel: np.ndarray, curvature: Curvature) -> np.ndarray:
    """Gamma (2d, 2d) at the kernel (n, n)."""
    coupling = covariance_of_pairs(model)
    data = _data_curvature(model, kernel) - coupling.T @ (coupling.T @ curvature.covariance).T
    border = np.eye(len(data)) + (coupling.T @ curvature.mixed.T).T
    return np.block([[data, border.T], [border, -curvature.activity]])


def linear_curvature(kernel: np.ndarray, conjugate: np.ndarray) -> Curvature:
    """The `Curvature` for linear phi, where q is Gaussian with covariance Phi; exact, also for singular C."""
    n = len(kernel)
    response = conjugate - conjugate @ kernel @ conjugate
    carried = np.eye(n) - kernel @ conjugate  # <h x^T>
    return Curvature(
        pair_traces(response, response) / 2,
        -_pair_products(carried),
        _pair_products(kernel) / pair_weights(n),
        -pair_weights(n) * response[pairs_of(n)],
    )


def sampled_curvature(neurons: Neurons, cov: np.ndarray, conjugate: np.ndarray, phi: Callable) -> Curvature:
    """The `Curvature` from neurons drawn from q at C and Phihat (n, n)."""
    factor = factorise(cov, NEGLIGIBLE)
    live = live_entries(factor)
    spread = np.zeros_like(cov)
    spread[:, list(live)] = np.asarray(range_of(jnp.asarray(cov), live).spread)
    law = _Law(phi, has_kinks(phi), conjugate, covariance_inverse(factor), spread)
    sums: dict[str, np.ndarray] = {}
    for start in range(0, len(neurons.weights), CHUNK):
        chunk = Neurons(*(part[start : start + CHUNK] for part in neurons))
        for name, value in _products(chunk, law).items():
            sums[name] = sums.get(name, 0) + value
    count = len(pairs_of(len(cov))[0])
    gram = sums["gram"] - np.outer(sums["mean"], sums["mean"])
    activity, mixed, moved = gram[:count, :count], gram[:count, count:], gram[count:, count:]
    if law.kinks:
        response = (sums["response"] + sums["response"].T) / 2
        second = pair_traces(law.precision - response, law.precision)
        covariance = moved - second + pair_traces(law.precision, law.precision) / 2
        unmoved = pair_weights(len(cov)) * law.precision[pairs_of(len(cov))]
        return Curvature(covariance, -mixed, activity, sums["mean"][count:] - unmoved)
    covariance = moved - _bending(sums, law) / 4 + pair_traces(law.precision, sums["response"]) / 4
    mixed = mixed - _displacement(sums["displaced"], spread) / 2
    return Curvature(covariance, mixed, activity, -sums["mean"][count:])


class _Law(NamedTuple):
    """The single-neuron law as the products of `_products` need it; ``spread`` as in `theory.laws.law.Range`,
    (n, n)."""

    phi: Callable
    kinks: bool
    conjugate: np.ndarray
    precision: np.ndarray
    spread: np.ndarray


def _products(neurons: Neurons, law: _Law) -> dict[str, np.ndarray]:
    """Weighted sums over neurons of all products that the second derivatives are made of."""
    h, weights = neurons.preactivation, neurons.weights[:, None]
    count, n = h.shape
    rows, columns = pairs_of(n)
    activity, slope, curvature = derivatives(law.phi, jnp.asarray(h), law.kinks)
    activity, slope = np.asarray(activity), np.asarray(slope)
    field = activity @ law.conjugate
    x, psi = h @ law.precision, (slope * field) @ law.spread
    if law.kinks:
        varied = x[:, rows] * x[:, columns]
    else:
        varied = (psi[:, rows] * x[:, columns] + psi[:, columns] * x[:, rows]) / 2
    features = np.hstack([activity[:, rows] * activity[:, columns], pair_weights(n) * varied])
    sums = {"mean": neurons.weights @ features, "gram": features.T @ (weights * features)}
    if law.kinks:
        return {**sums, "response": psi.T @ (weights * x)}
    bend = weights * np.asarray(curvature) * field
    slopes = (slope[:, :, None] * x[:, None, :]).reshape(count, n * n)
    squares = (x[:, :, None] * x[:, None, :]).reshape(count, n * n)
    displaced = (activity[:, :, None] * x[:, None, :]).reshape(count, n * n)
    stiffness = law.conjugate * (slope.T @ (weights * slope)) + np.diag(bend.sum(axis=0))
    return {
        **sums,
        "response": law.spread.T @ stiffness @ law.spread - psi.T @ (weights * psi),
        "slopes": (slopes.T @ (weights * slopes)).reshape(n, n, n, n),
        "bends": (bend.T @ squares).reshape(n, n, n),
        "displaced": (slope.T @ (weights * displaced)).reshape(n, n, n),
    }


def _bending(sums: dict[str, np.ndarray], law: _Law) -> np.ndarray:
    """< x^T E (d^2V/dh dh) E' x >, (d, d)."""
    n = len(law.conjugate)
    rows, columns = pairs_of(n)
    tensor = np.einsum("ajbl,ab,ai,bk->ijkl", sums["slopes"], law.conjugate, law.spread, law.spread, optimize=True)
    tensor += np.einsum("ajl,ai,ak->ijkl", sums["bends"], law.spread, law.spread, optimize=True)
    total = np.zeros((len(rows), len(rows)))
    for i, j in ((rows, columns), (columns, rows)):
        for k, l in ((rows, columns), (columns, rows)):  # noqa: E741
            total += tensor[i[:, None], j[:, None], k, l]
    return np.outer(pair_weights(n), pair_weights(n)) * total


def _displacement(displaced: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """< (ds/dh)^T E x > from < phi'_a phi_b x_j >, (d, d)."""
    n = len(spread)
    rows, columns = pairs_of(n)
    tensor = np.einsum("abj,ai->abij", displaced, spread)
    tensor = (tensor + tensor.swapaxes(0, 1))[rows, columns]
    return pair_weights(n) * (tensor[:, rows, columns] + tensor[:, columns, rows])


def pair_traces(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """tr( E one E' other ) for symmetric matrices, E and E' the unit matrices of each pair, (d, d)."""
    rows, columns = pairs_of(len(one))
    weights = pair_weights(len(one))
    products = (
        one[np.ix_(columns, rows)] * other[np.ix_(rows, columns)]
        + one[np.ix_(columns, columns)] * other[np.ix_(rows, rows)]
        + one[np.ix_(rows, rows)] * other[np.ix_(columns, columns)]
        + one[np.ix_(rows, columns)] * other[np.ix_(columns, rows)]
    )
    return np.outer(weights, weights) * products


def _pair_products(matrix: np.ndarray) -> np.ndarray:
    """(matrix E_kl matrix^T)_ij for each pair ij (rows) and kl (columns)."""
    rows, columns = pairs_of(len(matrix))
    straight = matrix[np.ix_(rows, rows)] * matrix[np.ix_(columns, columns)]
    crossed = matrix[np.ix_(rows, columns)] * matrix[np.ix_(columns, rows)]
    return pair_weights(len(matrix)) * (straight + crossed)


def _data_curvature(model: Model, kernel: np.ndarray) -> np.ndarray:
    """D'' (d, d): tr( R E A^{-1} E' ) of the supervised entries, R = sum_o r_o r_o^T."""
    entries = np.asarray(model.supervised)
    inverse = np.zeros_like(kernel)
    inverse[np.ix_(entries, entries)] = np.linalg.inv(np.asarray(target_cov(model, jnp.asarray(kernel))))
    dual = inverse[:, entries] @ np.asarray(model.targets)
    rows, columns = pairs_of(len(kernel))
    readout = np.asarray(model.readout)[rows, columns]
    return np.outer(readout, readout) * pair_traces(dual @ dual.T, inverse)
