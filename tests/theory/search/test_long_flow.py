"""Saddle points that long flows find, against exact solutions, and against the construction with all sites tied."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import problem_of

import theory
from theory.causal import kernel_by_site, kernel_of_noise
from theory.search import flow_branches, long_flow
from theory.search.problem import State, make_laws, make_problem, needs_flows
from theory.search.settings import BranchSettings, LongFlowSettings
from theory.search.starts import Start
from theory.search.stationarity import Root

# As if any number of tied entries were too many for roots.
FLOWS = theory.Settings(branches=BranchSettings(most_unknowns=0))
GAIN = 2**0.5


def identity(x):
    return x


def chain(steps, signal, patterns=1):
    inputs, targets = np.zeros((patterns, steps, patterns)), np.full((patterns, steps), np.nan)
    inputs[:, 0], targets[:, -1] = np.eye(patterns), signal
    return theory.Task(inputs, targets)


@pytest.fixture(scope="module")
def linear():
    """A linear recurrent network above its transition, by long flows and in closed form."""
    network, task = theory.Network.rnn(1, activation=identity), chain(3, 4.3)
    solution = theory.solve(network, task, points=8192, settings=FLOWS, tolerance=0.05)
    return solution, theory.solve(network.replace(activation="linear"), task)


def test_long_flows_come_to_the_stable_saddle_point(linear):
    """Kernel, Phihat, free energy and prediction are the exact ones within the error; no unstable one is found."""
    solution, exact = linear
    assert solution.stable
    assert solution.converged
    assert len(solution.branches) == 1
    assert 0 < solution.relative_error < 0.03
    assert np.max(np.abs(solution.kernel - exact.kernel) / solution.standard_error) < 5
    scale = np.sqrt(np.diagonal(exact.kernel.reshape(3, 3)))
    amiss = np.abs(solution.conjugate - exact.conjugate).reshape(3, 3) * np.outer(scale, scale)
    assert np.max(amiss) < 0.05
    assert solution.free_energy == pytest.approx(exact.free_energy, abs=0.02)
    np.testing.assert_allclose(solution.prediction, exact.prediction, atol=0.03)
    assert "long flows of 1024 neurons" in solution.message


def test_a_broken_flow_is_not_a_solution(linear, monkeypatch):
    """The residual compares with neurons that are drawn independently: a wrong kernel shows there."""
    solution, _ = linear
    rest = flow_branches.rest_of_flow

    def wrong(*arguments):
        found = rest(*arguments)
        return replace(found, kernel=found.kernel * 1.1)

    monkeypatch.setattr(flow_branches, "rest_of_flow", wrong)
    spoiled = theory.solve(solution.network, solution.task, points=8192, settings=FLOWS, tolerance=0.05)
    assert spoiled.residual > 0.04 > 5 * solution.residual
    assert not spoiled.converged


def test_errors_of_the_kernels_enter_the_free_energy_squared(linear):
    """An error e of Phihat moves it by e^2 terms: there and back the same, up to the third order."""
    _, exact = linear
    model, phi = problem_of(theory.Network.rnn(1, activation=identity), chain(3, 4.3))
    kernel, conjugate = exact.kernel.reshape(3, 3), exact.conjugate.reshape(3, 3)
    with jax.enable_x64(True):
        problem = make_problem(model, phi, kernel, 4096)
        laws = make_laws(problem, State(kernel, conjugate), 0)
        below, at, above = (
            flow_branches.stationary_energy(problem, Root(kernel, (1 + e) * conjugate, 0.0, 1.0), laws, 0)
            for e in (-0.01, 0.0, 0.01)
        )
    assert at == pytest.approx(exact.free_energy, abs=1e-6)
    assert abs(above + below - 2 * at) > 1e-5
    assert abs(above - below) < 0.1 * abs(above + below - 2 * at)


def test_steps_that_are_too_long_are_halved():
    """Little observation noise makes collective motions stiff; they run hot under long steps."""
    settings = theory.Settings(long_flow=LongFlowSettings(first_time=40.0, chunk=2))
    model, phi = problem_of(theory.Network.rnn(1, activation="tanh", noise=1e-4), chain(3, 1.0))
    noise = np.random.default_rng(0).normal(size=(3, 1024))
    with jax.enable_x64(True):
        rest = long_flow.rest_of_flow(model, phi, settings, 0, noise, 1.6, Start())
    assert rest.settled
    assert rest.step < 1.6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rnn", "dnn"])
def test_long_flows_agree_with_roots(kind):
    """Five patterns in six steps, whose roots are known: kernels within five errors, free energies to a per cent."""
    inputs, targets = np.zeros((5, 6, 10)), np.full((5, 6), np.nan)
    inputs[:, 0], targets[:, -1] = np.random.default_rng(0).normal(size=(5, 10)), [1, -1, 1, -1, 1]
    network = getattr(theory.Network, kind)(1, activation="tanh", recurrent_gain=GAIN)
    task = theory.Task(inputs, targets)
    flows, roots = (theory.solve(network, task, settings=settings) for settings in (FLOWS, theory.Settings()))
    assert flows.converged
    assert roots.converged
    error = np.hypot(flows.standard_error, roots.standard_error)
    assert np.all(np.abs(flows.kernel - roots.kernel) <= 5 * error + 1e-12)
    assert flows.free_energy == pytest.approx(roots.free_energy, rel=0.01)
    assert flows.relative_error < 0.01


def test_kernels_by_site_are_those_of_the_whole_construction():
    """Of a network that shares nothing, with their derivatives in the noise and in the covariance of the inputs."""
    model, phi = problem_of(theory.Network.dnn(1, activation="tanh"), chain(3, [1.0, -1.0], 2))
    with jax.enable_x64(True):
        noise = jax.random.normal(jax.random.key(0), (6, 32), float)

        def loss(construct, noise, drive):
            kernel = construct(model.replace(drive=drive), noise, phi.function, 32)
            return sum(jnp.sum(jnp.sin(kernel[i : i + 2, i : i + 2])) for i in (0, 2, 4))

        (one, by_one), (other, by_other) = (
            jax.value_and_grad(loss, (1, 2))(construct, noise, jnp.asarray(model.drive))
            for construct in (kernel_of_noise, kernel_by_site)
        )
        assert one == pytest.approx(float(other), rel=1e-12)
        np.testing.assert_allclose(by_one[0], by_other[0], atol=1e-12)
        blocks = np.kron(np.eye(3), np.ones((2, 2)))
        np.testing.assert_allclose(by_one[1] * blocks, by_other[1] * blocks, atol=1e-12)
        assert long_flow._by_site(model)
        assert not long_flow._by_site(problem_of(theory.Network.rnn(1), chain(3, 1.0))[0])


@pytest.mark.parametrize("looks", [30, 125])
def test_a_flow_that_the_clock_cuts_short_says_so(linear, monkeypatch, looks):
    """In a later flow, or at another start: what was reached before, with an error of 100% where that is unknown."""
    solution, exact = linear
    seen = iter(range(looks))
    for module in (flow_branches, long_flow):
        monkeypatch.setattr(module, "time_is_up", lambda: next(seen, None) is None)
    cut = theory.solve(solution.network, solution.task, points=8192, settings=FLOWS, tolerance=0.05)
    assert cut.stable
    assert cut.converged == (looks == 125)
    assert cut.relative_error == pytest.approx(1 if looks == 30 else solution.relative_error)
    assert cut.free_energy == pytest.approx(exact.free_energy, abs=0.1)
    np.testing.assert_allclose(cut.kernel, exact.kernel, rtol=0.2, atol=0.1)
    np.testing.assert_allclose(cut.conjugate, exact.conjugate, atol=0.1)


def test_a_flow_that_has_not_begun_is_no_saddle_point():
    network = theory.Network.rnn(1, activation="tanh")
    solution = theory.solve(network, chain(3, 1.0), points=8192, settings=FLOWS, time_limit=1e-3)
    assert solution.status == "unsolved"
    assert not solution.stable
    assert solution.relative_error == pytest.approx(1)
    assert "time limit" in solution.message


def test_long_flows_of_another_problem_start_where_those_of_the_first_ended(linear):
    """A continuation: the branch at another signal, as it is found there."""
    solution, _ = linear
    follow = {"points": 8192, "settings": FLOWS, "tolerance": 0.05}
    found = theory.continuation(solution.network, solution.task, [1.0, 0.9], **follow).sel(direction="down")
    exact = theory.solve(solution.network.replace(activation="linear"), solution.task.scaled(0.9))
    there = found.isel(factor=int(np.argmin(found.factor.to_numpy())))
    error = there.standard_error.to_numpy()
    assert np.all(np.abs(there.kernel.to_numpy() - exact.kernel) < 5 * error)
    assert float(there.free_energy) == pytest.approx(exact.free_energy, abs=0.03)
    restored = theory.Solution.from_xarray(solution.to_xarray())
    assert restored.status == solution.status == "converged"
    assert restored.residual_limit == solution.residual_limit == 1e-2


def test_what_needs_the_slope_says_how_much_fits():
    """109 tied entries are solved by roots, and no transition is looked for where they are not."""
    model, _ = problem_of(theory.Network.rnn(1, activation="tanh"), chain(109, 1.0))
    assert not needs_flows(model, BranchSettings())
    assert needs_flows(problem_of(theory.Network.rnn(1, activation="tanh"), chain(110, 1.0))[0], BranchSettings())
    with pytest.raises(ValueError, match="unknowns"):
        theory.critical_signal(theory.Network.rnn(1, activation="tanh"), chain(3, 1.0), settings=FLOWS)
