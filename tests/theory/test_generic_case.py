"""The generic case through the theory: what follows from a saddle point against the model written down densely.

Linear networks at any gains, sharing and mask have a free energy in plain NumPy (`small_problems.Dense`); its second
derivatives, taken by finite differences, are the truth of everything at finite width.
"""

from functools import cache

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal
from small_problems import (
    GENERIC_SHARINGS,
    Dense,
    as_general,
    curvature_of,
    generic_network,
    generic_new_patterns,
    generic_task,
    joined,
    pairs,
    slope_of,
    symmetric,
)

import theory


def rectified(x):
    return np.maximum(x, 0)


WIDTH, N = 200, 6
TASK, NEW = generic_task(), generic_new_patterns()
both_sharings = pytest.mark.parametrize("sharing", GENERIC_SHARINGS)


@cache
def solved(sharing, signal=1.0):
    return theory.solve(generic_network(WIDTH, sharing), generic_task(signal), starts=0)


def flat(kernel):
    return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)


def by_output(rows):
    """(n, O) or (n,) -> (P, T, O)."""
    return np.broadcast_to(
        rows.reshape(3, -1, rows.shape[1] if rows.ndim > 1 else 1).swapaxes(0, 1), (len(rows) // 3, 3, 2)
    )


def around(kernel):
    """Kernels near this one as functions of d numbers, which are of one size: L (1 + X) L^T, L = chol Phi."""
    factor = np.linalg.cholesky(kernel)
    return lambda x: factor @ (np.eye(len(kernel)) + symmetric(x)) @ factor.T


def covariance_of_numbers(dense, kernel):
    """N times the covariance of the numbers of `around`: the inverse of the curvature of F(Phi)."""
    made_of, origin = around(kernel), np.zeros(len(pairs(kernel)))
    return np.linalg.inv(curvature_of(lambda x: dense.free_energy(made_of(x)), origin))


def prediction_at_width(dense, kernel):
    """Mean (n, O) and variance (n, O) of f at the width: the readout given the kernels, and the kernels."""
    made_of, origin = around(kernel), np.zeros(len(pairs(kernel)))
    slope = slope_of(lambda x: dense.mean(made_of(x)), origin)
    of_kernels = np.einsum("eop,pq,eoq->eo", slope, covariance_of_numbers(dense, kernel), slope)
    return dense.mean(kernel), dense.variance(kernel)[:, None] + of_kernels / dense.width


def extended(solution, task):
    """The joint kernel of a linear saddle point and new patterns: new fields follow the prior given trained ones."""
    dense = Dense(solution.network, task)
    patterns = dense.patterns
    trained = np.flatnonzero(np.tile(np.arange(patterns) < 2, 3))
    kernel = np.zeros((3 * patterns, 3 * patterns))
    new = np.setdiff1d(np.arange(len(kernel)), trained)
    old = flat(solution.kernel)
    kernel[np.ix_(trained, trained)] = old
    for _ in range(3):  # each pass gets one more step right
        cov = dense.cov(kernel)
        along = np.linalg.solve(cov[np.ix_(trained, trained)], cov[np.ix_(trained, new)]).T
        kernel[np.ix_(new, trained)] = along @ old
        kernel[np.ix_(trained, new)] = old @ along.T
        rest = cov[np.ix_(new, new)] - along @ cov[np.ix_(trained, new)]
        kernel[np.ix_(new, new)] = along @ old @ along.T + rest
    return dense, kernel


@both_sharings
def test_fluctuations(sharing):
    solution = solved(sharing)
    found = theory.fluctuations(solution).kernel_cov.reshape(N * N, N * N)
    kernel = flat(solution.kernel)
    along = around(kernel)(np.eye(N * (N + 1) // 2)).reshape(-1, N * N) - kernel.ravel()
    expected = along.T @ covariance_of_numbers(Dense(solution.network, TASK), kernel) @ along / WIDTH
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(scale, scale), expected / np.outer(scale, scale), atol=1e-6)


@both_sharings
def test_predictions_on_new_patterns(sharing):
    solution = solved(sharing)
    found = theory.predict(solution, NEW)
    mean, variance = (by_output(part)[2:] for part in prediction_at_width(*extended(solution, joined(TASK, NEW))))
    np.testing.assert_allclose(found.mean, mean, atol=1e-9)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-6)
    np.testing.assert_allclose(found.observation_variance, variance + 0.3 / WIDTH, rtol=1e-6)
    assert found.scored.all()
    assert not found.standard_error.any()
    assert found.squared_bias == pytest.approx(np.mean((mean - NEW.targets) ** 2))
    assert found.generalisation_error == pytest.approx(found.squared_bias + np.mean(variance))
    data = found.to_xarray()
    assert data["mean"].dims == ("pattern", "step", "output")
    assert data["scored"].dims == ("pattern", "step")


@both_sharings
def test_predictions_on_the_training_task(sharing):
    """Every entry, and the score of the one that is known but not supervised."""
    solution = solved(sharing)
    found = theory.predict(solution)
    mean, variance = (
        by_output(part) for part in prediction_at_width(Dense(solution.network, TASK), flat(solution.kernel))
    )
    np.testing.assert_allclose(solution.prediction, mean, atol=1e-9)
    np.testing.assert_allclose(found.mean, mean, atol=1e-9)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-6)
    assert np.argwhere(found.scored).tolist() == [[1, 1]]
    assert found.squared_bias == pytest.approx(np.mean((mean - TASK.targets)[1, 1] ** 2))


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@both_sharings
def test_standard_scaling_is_a_gaussian_process(sharing, activation):
    """Kernel of the prior, prediction and evidence of the lazy limit: nothing but Gaussian conditioning."""
    network = generic_network(WIDTH, sharing, activation=activation, scaling="standard")
    solution, both = theory.solve(network, TASK), Dense(network, joined(TASK, NEW))
    kernel = both.prior_kernel(np.tanh) if activation == "tanh" else both.linear_kernel(np.eye(12))
    trained = np.flatnonzero(np.tile(np.arange(4) < 2, 3))
    np.testing.assert_allclose(flat(solution.kernel), kernel[np.ix_(trained, trained)], atol=1e-6)
    mean, variance = (by_output(part)[2:] for part in (both.mean(kernel), both.variance(kernel)))
    found = theory.predict(solution, NEW)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-5)
    np.testing.assert_allclose(found.observation_variance, variance + 0.3, rtol=1e-5)
    law = multivariate_normal(cov=both.target_cov(kernel))
    evidence = theory.log_evidence(solution)
    assert evidence.log_evidence == pytest.approx(sum(law.logpdf(y) for y in both.targets.T), rel=1e-5)
    assert evidence.standard_error == 0


def laplace(dense, kernel, width):
    """ln p(y) of a linear network around a kernel, in Bartlett coordinates of the noise: exact up to O(1/N)."""
    n = len(kernel)
    rows, columns = np.tril_indices(n, -1)
    noise_of = np.linalg.inv(np.linalg.cholesky(dense.cov(kernel)))
    factor = np.linalg.cholesky(noise_of @ kernel @ noise_of.T)
    freedom = width - np.arange(n)

    def log_joint(point):
        lower, logs = point[..., :-n], point[..., -n:]
        factors = np.zeros((*point.shape[:-1], n, n))
        factors[..., rows, columns] = lower
        factors[..., np.arange(n), np.arange(n)] = np.exp(logs)
        prior = np.sum(np.log(width / (2 * np.pi)) / 2 - width * lower**2 / 2, axis=-1)
        chi = freedom / 2 * np.log(width / 2) + freedom * logs - width / 2 * np.exp(2 * logs) - gammaln(freedom / 2)
        prior += np.sum(np.log(2) + chi, axis=-1)
        return prior + dense.log_likelihood(dense.linear_kernel(factors @ np.swapaxes(factors, -1, -2)))

    centre = np.append(factor[rows, columns], np.log(np.diag(factor)))
    curvature = curvature_of(lambda point: log_joint(point) / width, centre)
    return float(log_joint(centre)) - np.linalg.slogdet(-width * curvature / (2 * np.pi))[1] / 2


def test_evidence():
    """At a width where what is left, O(1/N), does not count; and the Bayes factor of the two sharings."""
    width, found = 10**5, []
    for sharing in GENERIC_SHARINGS:
        network = generic_network(width, sharing)
        solution = theory.solve(network, TASK, starts=0)
        found.append(theory.log_evidence(solution))
        expected = laplace(Dense(network, TASK), flat(solution.kernel), width)
        assert found[-1].log_evidence == pytest.approx(expected, abs=5e-3)
        assert found[-1].mirror == 0
        assert found[-1].leading == -width * solution.free_energy
    factor = theory.log_bayes_factor(*(one.solution for one in found))
    assert factor == found[0].log_evidence - found[1].log_evidence


def learned_weights(solution, width=40, seed=0):
    """E[W | H] and width times the population covariance of the rows of each W, at an H whose kernel is the solution's.

    Gaussian conditioning of whole rows (W, U) on what they make of the activity and the inputs.
    """
    network, task = solution.network, solution.task
    frame = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, N)))[0]
    fields = np.sqrt(width) * np.linalg.cholesky(flat(solution.kernel)) @ frame.T  # (n, N)
    copies = {name: 1 if name in network.shared else 3 for name in ("recurrent", "input")}
    w, u = np.zeros((N, copies["recurrent"], width)), np.zeros((N, copies["input"], 5))
    for t, mu in np.ndindex(3, 2):
        before = fields[2 * (t - 1) + mu] if t else np.zeros(width)
        w[2 * t + mu, t % copies["recurrent"]] = network.recurrent_gain / np.sqrt(width) * before
        u[2 * t + mu, t % copies["input"]] = network.input_gain / np.sqrt(5) * task.inputs[mu, t]
    features = np.concatenate([w.reshape(N, -1), u.reshape(N, -1)], axis=1)
    inverse = np.linalg.pinv(features)
    mean, left = (inverse @ fields).T, np.eye(features.shape[1]) - inverse @ features
    found = []
    for copy in range(copies["recurrent"] == 3, copies["recurrent"]):
        at = slice(copy * width, (copy + 1) * width)
        second = mean[:, at].T @ mean[:, at] + width * left[at, at]
        found.append(
            (network.recurrent_gain / np.sqrt(width) * mean[:, at], network.recurrent_gain**2 / width * second)
        )
    return found


class Quadrature:
    """The kernel action S of a nonlinear network on two entries, and averages over its neurons, on a grid of h."""

    def __init__(self, solution, phi, nodes=80):
        self.solution, self.dense = solution, Dense(solution.network, solution.task)
        half, weight = np.polynomial.legendre.leggauss(nodes)
        reach = 25 * np.sqrt(np.diag(flat(solution.preactivation_cov)))
        line = np.concatenate([(half - 1) / 2, (half + 1) / 2])  # a kink at zero lies between two panels
        self.h = np.stack(np.meshgrid(*(line * r for r in reach), indexing="ij"), axis=-1).reshape(-1, 2)
        self.log_measure = np.log(np.outer(*[np.tile(weight / 2, 2)] * 2).ravel() * np.prod(reach))
        self.activity = phi(self.h)
        conjugate = flat(solution.conjugate)
        self.saddle = np.append(pairs(flat(solution.kernel)), pairs(conjugate - np.diag(np.diag(conjugate)) / 2))

    def log_weights(self, cov, conjugate):
        gaussian = np.sum(self.h @ np.linalg.inv(cov) * self.h, axis=-1) + np.linalg.slogdet(2 * np.pi * cov)[1]
        tilt = np.sum(self.activity @ conjugate * self.activity, axis=-1)
        return self.log_measure - (gaussian + tilt) / 2

    def action(self, points):
        """S of Phi and its conjugates by pair, (M, 6) -> (M,)."""
        kernels, conjugates = symmetric(points[:, :3]), symmetric(points[:, 3:])
        conjugates = conjugates + conjugates * np.eye(2)
        log_z = [logsumexp(self.log_weights(*pair)) for pair in zip(self.dense.cov(kernels), conjugates, strict=True)]
        return np.sum(points[:, :3] * points[:, 3:], axis=1) + log_z - self.dense.data_term(kernels)

    def average(self, values):
        """Over q, of values (M, ...) on the grid."""
        logs = self.log_weights(flat(self.solution.preactivation_cov), flat(self.solution.conjugate))
        return np.tensordot(np.exp(logs - logsumexp(logs)), values, 1)


def two_entries(signal=20.0):
    """The first pattern of the generic task, without its first step."""
    task = generic_task(signal)
    return theory.Task(task.inputs[:1, 1:], task.targets[:1, 1:])


@pytest.mark.parametrize(("activation", "phi", "sharing"), [("tanh", np.tanh, "W and V"), ("relu", rectified, "U")])
def test_nonlinear_networks_by_quadrature(activation, phi, sharing):
    """Saddle point, fluctuations, evidence, prediction and spectrum of two entries; the tolerances on what is drawn are
    once in a thousand for t of 3 degrees of freedom."""
    network = generic_network(WIDTH, sharing, activation=activation)
    solution = theory.solve(network, two_entries())
    exact = Quadrature(solution, phi)
    assert solution.free_energy == pytest.approx(-exact.action(exact.saddle[None])[0], abs=1e-6)
    np.testing.assert_allclose(slope_of(exact.action, exact.saddle), 0, atol=1e-4 * np.abs(exact.saddle).max())
    # Gamma with its second block imaginary: its determinant has the same modulus, its inverse the same first block.
    curvature = curvature_of(exact.action, exact.saddle)
    covariance = np.linalg.inv(-curvature)[:3, :3] / WIDTH
    found = theory.fluctuations(solution)
    rows, columns = np.triu_indices(2)
    by_pair = np.ix_(2 * rows + columns, 2 * rows + columns)
    kernel_cov, error = (part.reshape(4, 4)[by_pair] for part in (found.kernel_cov, found.standard_error))
    assert np.all(np.abs(kernel_cov - covariance) < 12.9 * error + 1e-3 * np.abs(covariance))
    assert np.all(error < 0.05 * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance))))
    evidence = theory.log_evidence(solution)
    log_det = np.linalg.slogdet(2 * np.pi / WIDTH * exact.dense.target_cov(flat(solution.kernel)))[1]
    expected = -WIDTH * solution.free_energy - np.linalg.slogdet(curvature)[1] / 2 - log_det
    assert evidence.log_evidence == pytest.approx(expected, abs=12.9 * evidence.standard_error + 1e-4)
    assert evidence.standard_error < 0.05
    slope = slope_of(lambda x: exact.dense.mean(symmetric(x)), pairs(flat(solution.kernel)))
    variance = exact.dense.variance(flat(solution.kernel))[:, None] + np.einsum(
        "eop,pq,eoq->eo", slope, covariance, slope
    )
    predicted = theory.predict(solution)
    mean = exact.dense.mean(flat(solution.kernel))
    assert np.all(np.abs(predicted.mean[0] - mean) < 12.9 * predicted.standard_error[0] + 1e-6)
    np.testing.assert_allclose(predicted.variance[0], variance, rtol=0.02)
    spectrum = theory.spectrum(solution)
    x = exact.h @ np.linalg.inv(flat(solution.preactivation_cov))
    eigenvalue = 1.2**2 * exact.average(exact.activity[:, 0] * x[:, 1])
    assert abs(spectrum.eigenvalues[0][0] - eigenvalue) < 12.9 * spectrum.eigenvalue_error[0][0] + 1e-6
    response = np.linalg.inv(flat(solution.preactivation_cov))[1, 1] - exact.average(x[:, 1] ** 2)
    spike = 1.2**2 - 1.2**4 * solution.kernel[0, 0, 0, 0] * response
    assert spike > 2 * 1.2**2
    np.testing.assert_allclose(spectrum.singular_values[0], spike / np.sqrt(spike - 1.2**2), rtol=1e-4)


@both_sharings
def test_spectrum(sharing):
    """Eigenvalues of the learned part of whole matrices; outliers of singular values from spikes in the population
    covariance of their rows."""
    solution = solved(sharing, 6.0)
    spectrum, learned = theory.spectrum(solution), learned_weights(solution)
    assert len(spectrum.eigenvalues) == len(learned) == (1 if sharing == "W and V" else 2)
    for (mean, population), values, outliers in zip(
        learned, spectrum.eigenvalues, spectrum.singular_values, strict=True
    ):
        expected = np.linalg.eigvals(mean)
        leading = expected[np.argsort(-np.abs(expected))][: len(values)]
        np.testing.assert_allclose(
            np.sort_complex(np.round(values, 8)), np.sort_complex(np.round(leading, 8)), atol=1e-6
        )
        spikes = np.sort(np.linalg.eigvalsh(population))[::-1]
        spikes = spikes[spikes > 2 * 1.2**2]
        assert len(spikes)
        np.testing.assert_allclose(outliers, spikes / np.sqrt(spikes - 1.2**2), rtol=1e-6)
    assert (spectrum.radius, spectrum.edge) == (1.2, 2.4)


def test_storage():
    """Everything comes back, the mask too, and what follows from it is the same."""
    solution = solved("W and V")
    again = theory.Solution.from_xarray(solution.to_xarray())
    assert again.task == TASK
    assert again.network == solution.network
    for name in ("kernel", "conjugate", "preactivation_cov", "prediction", "dual"):
        np.testing.assert_array_equal(getattr(again, name), getattr(solution, name))
    np.testing.assert_array_equal(theory.predict(again).scored, theory.predict(solution).scored)


def test_neurons_give_what_the_closed_form_gives():
    """A linear network treated as any other; t of 3 degrees of freedom is below 13 with probability .999."""
    solution = solved("W and V")
    general, drawn = as_general(solution), {"neurons": 4096}
    exact, sampled = theory.fluctuations(solution), theory.fluctuations(general, **drawn)
    covariance, found, error = (
        part.reshape(N * N, N * N) for part in (exact.kernel_cov, sampled.kernel_cov, sampled.standard_error)
    )
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.all(np.abs(found - covariance) < 12.9 * error + 1e-6 * scale)
    assert np.all(error < 0.1 * scale)
    one, other = theory.predict(solution, NEW), theory.predict(general, NEW, **drawn)
    assert np.all(np.abs(other.mean - one.mean) < 12.9 * other.standard_error)
    assert other.standard_error.max() < 0.1 * np.abs(one.mean).max()
    np.testing.assert_allclose(other.variance, one.variance, rtol=0.1)
    spectrum, found = theory.spectrum(solution), theory.spectrum(general, **drawn)
    difference = np.abs(found.eigenvalues[0][0]) - np.abs(spectrum.eigenvalues[0][0])
    assert abs(difference) < 12.9 * found.eigenvalue_error[0][0] + 1e-9
    evidence, found = theory.log_evidence(solution), theory.log_evidence(general, **drawn)
    assert abs(found.log_evidence - evidence.log_evidence) < 12.9 * found.standard_error
    assert 0 < found.standard_error < 0.2
