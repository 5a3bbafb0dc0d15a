"""Fits against evidences that are integrals over one kernel, against networks with weights, and at their limits."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from scipy.special import gammaln, logsumexp
from small_problems import chain

import theory
from theory import Network, Task
from theory.evidence_climb import best_start
from theory.evidence_curve import EvidenceCurve

OUTPUTS = 12


def one_step(size, outputs=OUTPUTS, seed=0):
    """One pattern, one step, targets of a mean square of ``size``."""
    targets = np.random.default_rng(seed).normal(size=(1, 1, outputs))
    targets *= np.sqrt(size / np.mean(targets**2))
    return Task(np.full((1, 1, 1), 1.3), targets)


def exact_log_evidence(network, task):
    """ln p(y) of a linear network on one step: one kernel, N Phi / C a chi-squared number of N degrees of freedom."""
    width, square, outputs = network.width, np.sum(task.targets**2), task.output_dim
    scaled = np.linspace(0.02, 6, 20001)
    log_prior = np.log(width / 2) * width / 2 - gammaln(width / 2) + (width / 2 - 1) * np.log(scaled)
    log_prior = log_prior - width * scaled / 2
    kernel = network.input_gain**2 * float(task.inputs[0, 0, 0]) ** 2 * scaled
    variance = (network.noise + network.readout_gain**2 * kernel) / width
    log_likelihood = -square / (2 * variance) - outputs / 2 * np.log(2 * np.pi * variance)
    return logsumexp(log_prior + log_likelihood) + np.log(scaled[1] - scaled[0])


def best_by_quadrature(network, tasks, name):
    """The maximum of the summed evidence along one number, and its standard error from the curvature."""

    def cost(log_value):
        there = network.with_parameter(name, float(np.exp(log_value)))
        return -sum(exact_log_evidence(there, task) for task in tasks)

    best = scipy.optimize.minimize_scalar(cost, bounds=(-5, 5), method="bounded", options={"xatol": 1e-7}).x
    curvature = (cost(best + 0.05) - 2 * cost(best) + cost(best - 0.05)) / 0.05**2
    return np.exp(best), np.exp(best) / np.sqrt(curvature), -cost(best)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("noise", (0.003,)), ("noise", (0.002, 0.005)), ("readout_gain", (0.005,)), ("input_gain", (0.05,))],
)
def test_optimum_and_error_are_those_of_the_exact_evidence(name, sizes):
    network = Network.rnn(1000, readout_gain=0.8)
    tasks = [one_step(size, seed=seed) for seed, size in enumerate(sizes)]
    found = theory.fit(network, tasks if len(tasks) > 1 else tasks[0], [name])
    value, error, log_evidence = best_by_quadrature(network, tasks, name)
    assert found.converged, found.message
    assert (found.at_boundary, found.undetermined, found.at_transition) == ((), (), False)
    # The evidence is known up to O(1/N), here OUTPUTS^2 / 4N, the optimum up to a small part of its error.
    assert abs(found.values[name] - value) < 0.05 * error
    assert found.standard_errors[name] == pytest.approx(error, rel=0.05)
    assert found.log_evidence == pytest.approx(log_evidence, abs=0.1)
    assert found.log_evidence_error == 0
    assert getattr(found.network, name) == found.values[name]
    assert found.log_evidence == pytest.approx(sum(theory.log_evidence(one).log_evidence for one in found.solutions))


def test_of_two_numbers_that_do_the_same_one_is_not_determined():
    """Of one step only kappa + gv^2 Phi counts, and Phi hardly moves: noise and gain trade for one another."""
    found = theory.fit(Network.rnn(1000), one_step(0.003), ["noise", "readout_gain"])
    assert found.undetermined
    assert all(np.isinf(found.standard_errors[name]) for name in found.undetermined)
    assert f"do not determine {', '.join(found.undetermined)}" in found.message
    alone = theory.fit(Network.rnn(1000), one_step(0.003), ["noise"])
    assert found.log_evidence == pytest.approx(alone.log_evidence, abs=0.05)


def drawn_task(rng, width, noise, degree, outputs):
    """Targets of a linear recurrent network with weights drawn: readouts correlated over the steps to a degree."""
    inputs = rng.normal(size=(2, 3, 4))
    recurrent, entering = rng.normal(size=(width, width)) / np.sqrt(width), rng.normal(size=(width, 4)) / 2
    common, own = rng.normal(size=(outputs, width)), rng.normal(size=(3, outputs, width))
    h, targets = np.zeros((width, 2)), np.empty((2, 3, outputs))
    for step in range(3):
        h = recurrent @ h + entering @ inputs[:, step].T
        readout = np.sqrt(degree) * common + np.sqrt(1 - degree) * own[step]
        targets[:, step] = (readout @ h).T / width
    targets += np.sqrt(noise / width) * rng.normal(size=targets.shape)
    return Task(inputs, targets)


def test_what_drew_the_data_is_found_again():
    rng, truth = np.random.default_rng(3), {"noise": 0.8, "shared.readout": 0.6}
    network = Network.rnn(200, noise=0.3, shared={"readout": 0.3})
    distances = []
    for _ in range(3):
        found = theory.fit(network, drawn_task(rng, 200, 0.8, 0.6, 30), list(truth), scan=0)
        assert found.converged, found.message
        gap = np.array([found.values[name] - value for name, value in truth.items()])
        distances.append(gap @ np.linalg.solve(found.covariance, gap))
    # Three chi-squared numbers of two degrees of freedom each.
    assert 0.001 < scipy.stats.chi2.cdf(sum(distances), 6) < 0.999


@pytest.mark.parametrize("order", ["leading", "full"])
def test_slopes_and_curvatures_are_those_of_the_log_evidence(order):
    """Against differences of the values alone, at a generic point and at the end of a range."""
    network = Network.rnn(100, noise=0.3, shared={"recurrent": 0.7, "input": 0.5})
    names = ["noise", "shared.input"]
    bounds = np.array([[-5.0, 5.0], [0.0, 1.0]])
    curve = EvidenceCurve(network, [chain(3, 1.5)], names, bounds, order == "leading", {})
    for at in (np.array([-0.4, 0.6]), np.array([-0.4, 0.0])):
        step, inward = 1e-3, at[1] == 0
        slope = curve.slope(at)
        for k, unit in enumerate(np.eye(2)):
            if k == 1 and inward:
                near, far = (curve.at(at + size * unit).value - curve.at(at).value for size in (step, 2 * step))
                expected = (4 * near - far) / (2 * step)
            else:
                expected = (curve.at(at + step * unit).value - curve.at(at - step * unit).value) / (2 * step)
            assert slope[k] == pytest.approx(expected, abs=2e-3 * (1 + abs(expected)))
    at, step = np.array([-0.4, 0.6]), 0.05
    one, two = step * np.eye(2)
    value = lambda *shifts: curve.at(at + sum(shifts)).value  # noqa: E731
    expected = np.empty((2, 2))
    for k, unit in enumerate((one, two)):
        expected[k, k] = (value(unit) - 2 * value(0 * unit) + value(-unit)) / step**2
    mixed = value(one, two) - value(one, -two) - value(-one, two) + value(-one, -two)
    expected[0, 1] = expected[1, 0] = mixed / (4 * step**2)
    np.testing.assert_allclose(curve.curvature(at, [0, 1]), expected, atol=0.01 * np.abs(expected).max())


def test_by_the_leading_order_noise_runs_to_the_end_of_its_range():
    found = theory.fit(Network.rnn(100), chain(3, 2.0), ["noise"], order="leading", bounds={"noise": (0.05, 5.0)})
    assert found.values == {"noise": 5.0}
    assert found.at_boundary == ("noise",)
    assert found.converged
    assert "noise at 5" in found.message
    slope = -100 * theory.sensitivity(found.solutions[0]).free_energy["noise"]
    assert found.standard_errors["noise"] == pytest.approx(1 / slope, rel=1e-3)
    assert found.log_evidence == -100 * found.solutions[0].free_energy


def test_below_the_critical_signal_a_degree_is_not_determined_above_it_it_is():
    """The free energy does not depend on the degree of sharing of W as long as the steps do not correlate."""
    network = Network.rnn(100, shared={"recurrent": 0.4})
    below = theory.fit(network, chain(3, 2.0), ["shared.recurrent"], order="leading")
    assert below.undetermined == ("shared.recurrent",)
    assert below.standard_errors == {"shared.recurrent": np.inf}
    above = theory.fit(network, chain(3, 4.3), ["shared.recurrent"], order="leading")
    assert above.values == {"shared.recurrent": 1.0}
    assert above.at_boundary == ("shared.recurrent",)
    assert not above.at_transition


def test_an_optimum_at_a_transition_says_so():
    found = theory.fit(Network.rnn(100, shared={"recurrent": 0.5}), chain(3, 2.95), ["shared.recurrent"])
    assert found.at_transition
    assert "at a transition" in found.message
    assert repr(found).startswith("Fit(shared.recurrent=")


def test_standard_scaling_is_the_gaussian_process():
    """One step: y ~ N(0, kappa + gv^2 C), whose optimum is the mean square of the targets."""
    task = one_step(2.0)
    network = Network.rnn(50, scaling="standard", readout_gain=0.5)
    found = theory.fit(network, task, ["noise"])
    total = np.mean(task.targets**2)
    assert found.values["noise"] == pytest.approx(total - 0.25 * 1.3**2, rel=1e-4)
    assert found.standard_errors["noise"] == pytest.approx(total * np.sqrt(2 / OUTPUTS), rel=2e-3)


@pytest.mark.slow
def test_a_network_that_is_not_linear():
    network, task, rng = Network.rnn(100, activation="erf", readout_gain=2.0), one_step(0.04), np.random.default_rng(5)
    found = theory.fit(network, task, ["noise"], scan=4)
    kernel = np.array([np.mean(scipy.special.erf(1.3 * rng.normal(size=(1000, 100))) ** 2, axis=1) for _ in range(40)])

    def cost(log_noise):
        variance = (np.exp(log_noise) + 4 * kernel.ravel()) / 100
        logs = -np.sum(task.targets**2) / (2 * variance) - OUTPUTS / 2 * np.log(2 * np.pi * variance)
        return -logsumexp(logs) + np.log(kernel.size)

    best = scipy.optimize.minimize_scalar(cost, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6}).x
    curvature = (cost(best + 0.05) - 2 * cost(best) + cost(best - 0.05)) / 0.05**2
    error = np.exp(best) / np.sqrt(curvature)
    assert found.converged, found.message
    assert abs(found.values["noise"] - np.exp(best)) < 0.1 * error
    assert found.standard_errors["noise"] == pytest.approx(error, rel=0.1)
    assert found.log_evidence == pytest.approx(-cost(best), abs=0.1 + 4 * found.log_evidence_error)


BAD = {
    "task": ({"task": "chain"}, r"^task is str"),
    "no tasks": ({"task": []}, r"^task is list"),
    "no names": ({"over": []}, r"^over is \[\]"),
    "text": ({"over": "noise"}, r"^over is 'noise'"),
    "twice": ({"over": ["noise", "noise"]}, r"^over is"),
    "unknown": ({"over": ["width"]}, r"^over has 'width', which is no parameter"),
    "several": ({"over": ["recurrent_gain"]}, r"^over has 'recurrent_gain', which is not a single number"),
    "zero": ({"over": ["process_noise"]}, r"^over has 'process_noise', which is 0"),
    "order": ({"order": "best"}, r"^order is 'best'"),
    "scan": ({"scan": -1}, r"^scan is -1"),
    "other bounds": ({"bounds": {"leak": (0.1, 1)}}, r"^bounds is"),
    "bounds": ({"bounds": {"noise": (2, 1)}}, r"^bounds\['noise'\]"),
    "text bounds": ({"bounds": {"noise": "wide"}}, r"^bounds\['noise'\]"),
    "negative": ({"bounds": {"noise": (-1.0, 1)}}, r"^bounds\['noise'\]"),
    "beyond": ({"over": ["shared.input"], "bounds": {"shared.input": (0.0, 2)}}, r"^bounds\['shared.input'\]"),
    "points": ({"points": 2048}, r"^points is 2048"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(changes, message):
    network = Network.rnn(8, layers=2, recurrent_gain=(1.0, 1.2))
    with pytest.raises(ValueError, match=message):
        theory.fit(network, **{"task": chain(3, 1.0), "over": ["noise"], **changes})
    with pytest.raises(ValueError, match=r"^network is"):
        theory.fit(3, chain(3, 1.0), ["noise"])


@pytest.mark.parametrize(("names", "scan", "seen"), [(("noise",), 5, 6), (("noise", "leak"), 3, 9)])
def test_the_climb_begins_at_the_best_of_the_points_that_are_scanned(names, scan, seen):
    """The network's own and ``scan`` for each parameter, up to the next power of two where there are several."""
    met = []

    class Curve:
        bounds = np.array([[-3.0, 3.0], [0.0, 1.0]])[: len(names)]

        def at(self, point):
            met.append(np.asarray(point))
            return SimpleNamespace(value=-np.sum((met[-1] - 0.7) ** 2), trouble=None)

    Curve.names = names
    best = best_start(Curve(), np.full(len(names), 0.1), scan, seed=0)
    assert len(met) == seen
    np.testing.assert_array_equal(best, min(met, key=lambda point: np.sum((point - 0.7) ** 2)))
    assert np.ptp(met, axis=0)[0] > 0.6 * np.log(10)
