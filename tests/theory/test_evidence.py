"""Evidence: against importance sampling at finite width, closed forms, and its own parts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from noise_energy import hessian, kernel_of_coordinates, pack
from scipy.special import gammaln, logsumexp
from small_problems import as_general, chain, repeated, weighted_networks

from theory import Network, fluctuations, log_bayes_factor, log_evidence, nngp, predict, sensitivity, solve
from theory.evidence import mirror_images
from theory.model import build_model, target_cov
from theory.response import factorise, inverse_factor

DRAWS = 40_000


def by_importance_sampling(solution, width):
    """ln p(y) of a linear network at width N and its standard error: prior and likelihood in Bartlett coordinates.

    Proposals: Student t around the saddle point and its mirror image, with the curvature found there.
    """
    network, task = solution.network.replace(width=width), solution.task
    n, patterns = task.entries, task.patterns
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        noise_of = inverse_factor(factorise(solution.preactivation_cov.reshape(n, n)))
        centre = pack(np.linalg.cholesky(noise_of @ solution.kernel.reshape(n, n) @ noise_of.T))
        scale = np.linalg.inv(np.linalg.cholesky(width * np.asarray(hessian(centre, model)))).T
        rows, columns = np.tril_indices(n, -1)
        signs = np.append((-1.0) ** (rows // patterns - columns // patterns), np.ones(n))
        freedom = 12
        size = len(centre)
        tails = np.sqrt(freedom / rng.chisquare(freedom, size=(DRAWS, 1)))
        points = centre + tails * (rng.normal(size=(DRAWS, size)) @ scale.T)
        points[::2] *= signs
        kernels = jax.lax.map(lambda point: kernel_of_coordinates(model, point), points)
        factors = jnp.linalg.cholesky(jax.vmap(lambda k: model.scale * target_cov(model, k))(kernels))
        white = np.asarray(jnp.linalg.solve(factors, jnp.broadcast_to(model.targets, (DRAWS, *model.targets.shape))))
        log_det = np.asarray(2 * jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), axis=1))
    count, outputs = model.targets.shape
    log_likelihood = -(np.sum(white**2, axis=(1, 2)) + outputs * (log_det + count * np.log(2 * np.pi))) / 2
    lower, logs = points[:, :-n], points[:, -n:]
    freedoms = width - np.arange(n)
    log_prior = np.sum(np.log(width / (2 * np.pi)) / 2 - width * lower**2 / 2, axis=1)
    chi = freedoms / 2 * np.log(width / 2) + freedoms * logs - width / 2 * np.exp(2 * logs) - gammaln(freedoms / 2)
    log_prior += np.sum(np.log(2) + chi, axis=1)

    def log_density(at):
        squares = np.sum(np.linalg.solve(scale, (at - centre).T) ** 2, axis=0)
        constant = gammaln((freedom + size) / 2) - gammaln(freedom / 2) - size / 2 * np.log(freedom * np.pi)
        return constant - np.linalg.slogdet(scale)[1] - (freedom + size) / 2 * np.log1p(squares / freedom)

    log_proposal = np.logaddexp(log_density(points), log_density(points * signs)) - np.log(2)
    return averaged(log_prior + log_likelihood - log_proposal)


def averaged(logs):
    """ln of the mean exponential, and its standard error."""
    weights = np.exp(logs - logs.max())
    return logsumexp(logs) - np.log(len(logs)), weights.std() / weights.mean() / np.sqrt(len(logs))


@pytest.mark.parametrize(
    ("network", "task"),
    [
        pytest.param(Network.rnn(1), chain(1, 1.5), marks=pytest.mark.slow),
        pytest.param(Network.rnn(1), chain(2, 1.5), marks=pytest.mark.slow),
        (Network.rnn(1), chain(3, 4.3)),
        (Network.dnn(1), chain(3, 4.3)),
    ],
    ids=["n=1", "n=2", "broken", "DNN"],
)
def test_linear_evidence_by_importance_sampling(network, task):
    """What is left falls as 1/N: by four from width 200 to 800, and the terms of order ln N and 1 are all there."""
    solution = solve(network, task, starts=0)
    left = []
    for width in (200, 800):
        value, error = by_importance_sampling(solution, width)
        assert error < 0.01
        found = log_evidence(replace(solution, network=network.replace(width=width)))
        assert found.standard_error == 0
        left.append((value - found.log_evidence, error))
    (wide_left, wide_error), narrow = left[1], left[0][0]
    assert abs(wide_left - narrow / 4) < 5 * np.hypot(wide_error, left[0][1] / 4) + 0.15 * abs(narrow) / 4
    assert abs(wide_left) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_nonlinear_evidence_by_importance_sampling(activation):
    network = Network.rnn(100, activation=activation, recurrent_gain=1.4)
    solution = solve(network, chain(2, 1.2))
    value, error = averaged(weighted_networks(solution, 100, 1000)[1])
    found = log_evidence(solution)
    assert error < 0.1
    # The next order is a few parts of 1/N.
    assert abs(found.log_evidence - value) < 4 * np.hypot(error, found.standard_error) + 0.05


def test_the_parts():
    solution = solve(Network.rnn(100), chain(3, 4.3), starts=0)
    found = log_evidence(solution)
    assert found.leading == -100 * solution.free_energy
    assert found.mirror == np.log(2)
    assert found.log_evidence == found.leading + found.gaussian
    # One supervised entry: the likelihood's normalisation is that of a Gaussian of variance A / N.
    variance = (0.1 + solution.kernel[2, 0, 2, 0]) / 100
    assert found.normalisation == pytest.approx(-np.log(2 * np.pi * variance) / 2)
    symmetric = log_evidence(solve(Network.rnn(100), chain(3, 2.0), starts=0))
    assert symmetric.mirror == 0


def test_without_signal_kernels_do_not_matter():
    """At vanishing targets the fluctuations are the prior's, whose determinant is one."""
    solution = solve(Network.rnn(100), chain(3, 1e-6), starts=0)
    assert log_evidence(solution).determinant == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_neurons_give_what_the_closed_form_gives():
    solution = solve(Network.rnn(100), repeated())
    exact, sampled = log_evidence(solution), log_evidence(as_general(solution), neurons=4096)
    assert 0 < sampled.standard_error < 0.2
    assert abs(sampled.log_evidence - exact.log_evidence) < 12 * sampled.standard_error


def test_bayes_factor():
    """Above the transition the RNN explains the chain better, at leading order by N (F_DNN - F_RNN)."""
    task = chain(3, 4.3)
    shared, deep = solve(Network.rnn(1000), task, starts=0), solve(Network.dnn(1000), task, starts=0)
    found = log_bayes_factor(shared, deep)
    assert found == log_evidence(shared).log_evidence - log_evidence(deep).log_evidence
    assert found == pytest.approx(1000 * (deep.free_energy - shared.free_energy), rel=0.1)
    assert found > 0
    with pytest.raises(ValueError, match="another task"):
        log_bayes_factor(shared, solve(Network.dnn(100), chain(3, 4.2), starts=0))


def test_refusals():
    with pytest.raises(ValueError, match="stable saddle point"):
        log_evidence(nngp(Network.rnn(8), chain(2, 1.0)))
    with pytest.raises(ValueError, match="stable saddle point"):
        log_evidence(solve(Network.rnn(8), chain(3, 4.3), starts=0).branches[1])


def test_what_was_not_solved_has_no_evidence_and_no_fluctuations():
    """A search that was cut short returns where it stood: numbers made of that would look like any others."""
    solution = solve(Network.rnn(50), chain(2, 1.0))
    cut_short = replace(solution, residual=0.5, converged=False)
    for ask in (
        log_evidence,
        fluctuations,
        sensitivity,
        lambda answer: log_bayes_factor(solution, answer),
        lambda answer: predict(answer, chain(2, 2.0)),
    ):
        with pytest.raises(ValueError, match=r"solution was not solved: its equations are violated by 0\.5"):
            ask(cut_short)
    assert np.isfinite(log_evidence(replace(solution, residual=1e-3, converged=False)).log_evidence)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_mirror_images_are_counted_in_any_units(unit):
    """Of broken kernels one; none of those that a sign leaves as they are, up to rounding or their standard error."""
    lazy = nngp(Network.rnn(300), chain(3, 4.3))
    apart = np.zeros((3, 3))
    apart[0, 1] = apart[1, 0] = unit

    def images(kernel, error=0.0):
        shape = lazy.kernel.shape
        return mirror_images(replace(lazy, kernel=kernel.reshape(shape), standard_error=np.full(shape, error * unit)))

    diagonal = unit * np.diag([1.0, 2.0, 3.0])
    assert images(diagonal) == 0
    assert images(diagonal + 0.3 * apart) == 1
    assert images(diagonal + 1e-5 * apart) == 0
    assert images(diagonal + 0.3 * apart, error=0.1) == 0
