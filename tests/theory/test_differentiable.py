"""A branch as a JAX function: values, slopes and curvatures against problems solved anew."""

import jax
import numpy as np
import pytest
import scipy.optimize
from small_problems import chain, generic_network, generic_task

import theory
from theory import Network
from theory.parameters import network_at

CASES = {
    "every term": (generic_network(40, "all"), generic_task(), {"noise": 0.5, "leak": 0.7, "shared.recurrent": 0.4}),
    "broken symmetry": (
        Network.rnn(40, noise=0.3, shared={"recurrent": 0.9}),
        chain(3, 3.5),
        {"noise": 0.2, "shared.recurrent": 0.97},
    ),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    """Network, task, other values, the compiled function at them with its derivatives, and its start."""
    network, task, values = request.param
    solution = theory.solve(network, task)
    function = theory.differentiable(solution, list(values))
    with jax.enable_x64(True):
        found = jax.jit(function)(values)
        slopes = jax.jit(jax.jacrev(function))(values)
    return network, task, values, found, slopes, function


def solved(network, task, values):
    return theory.solve(network_at(network, values), task)


def test_it_arrives_where_a_search_arrives(case):
    network, task, values, found, _, _ = case
    expected = solved(network, task, values)
    assert float(found.residual) < 1e-9
    assert float(found.free_energy) == pytest.approx(expected.free_energy, abs=1e-10)
    assert float(found.log_evidence) == pytest.approx(theory.log_evidence(expected).log_evidence, abs=1e-7)
    np.testing.assert_allclose(found.kernel, expected.kernel, atol=1e-7)
    np.testing.assert_allclose(found.prediction, expected.prediction, atol=1e-7)


def test_its_slopes_are_those_of_problems_solved_anew(case):
    network, task, values, _, slopes, _ = case
    sensitivity = theory.sensitivity(solved(network, task, values))
    for name, value in values.items():
        step = 1e-4
        both = [solved(network, task, {**values, name: value + sign * step}) for sign in (1, -1)]
        logs = [theory.log_evidence(one).log_evidence for one in both]
        assert float(slopes.free_energy[name]) == pytest.approx(sensitivity.free_energy[name], abs=1e-8)
        assert float(slopes.log_evidence[name]) == pytest.approx((logs[0] - logs[1]) / (2 * step), abs=2e-3)
        np.testing.assert_allclose(slopes.kernel[name], sensitivity.kernel[name], atol=1e-6)
        np.testing.assert_allclose(slopes.prediction[name], sensitivity.prediction[name], atol=1e-6)
        difference = (both[0].kernel - both[1].kernel) / (2 * step)
        np.testing.assert_allclose(slopes.kernel[name], difference, atol=1e-4)


def test_scipy_can_drive_it_and_ends_where_fit_ends():
    network, task = Network.rnn(100, noise=2.0, shared={"recurrent": 0.7}), chain(3, 1.0)
    function = theory.differentiable(theory.solve(network, task), ["noise"])

    def cost(log_noise):
        return -function({"noise": jax.numpy.exp(log_noise[0])}).log_evidence

    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(cost))
        start = np.log([2.0])
        best = scipy.optimize.minimize(lambda at: [np.asarray(part) for part in both(at)], start, jac=True)
        near = [float(both(best.x + shift)[1][0]) for shift in (0.01, -0.01)]
    curvature = (near[0] - near[1]) / 0.02
    found = theory.fit(network, task, ["noise"])
    assert found.values["noise"] == pytest.approx(float(np.exp(best.x[0])), rel=2e-2)
    assert found.standard_errors["noise"] == pytest.approx(found.values["noise"] / np.sqrt(curvature), rel=2e-2)
    assert found.log_evidence == pytest.approx(-best.fun, abs=1e-4)


def test_many_values_at_once_and_a_second_derivative():
    network, task, _ = CASES["broken symmetry"]
    function = theory.differentiable(theory.solve(network, task), ["noise"])
    noises = np.array([0.2, 0.25, 0.3])
    with jax.enable_x64(True):

        def slope(noise):
            return jax.grad(lambda noise: function({"noise": noise}).free_energy)(noise)

        slopes, curvatures = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(slope)))(noises))
    solutions = [solved(network, task, {"noise": noise}) for noise in noises]
    expected = [theory.sensitivity(solution).free_energy["noise"] for solution in solutions]
    np.testing.assert_allclose(slopes, expected, atol=1e-9)
    # Three slopes: their parabola has the second derivative in the middle, up to the square of the spacing.
    assert float(curvatures[1]) == pytest.approx((slopes[2] - slopes[0]) / 0.1, rel=0.05)
    assert abs(curvatures[0] - curvatures[2]) > 0.01 * abs(curvatures[1])


def test_where_newton_does_not_arrive_the_residual_says_so():
    """In one step to a noise at which the branch of correlated steps has long ended."""
    solution = theory.solve(*CASES["broken symmetry"][:2])
    function = theory.differentiable(solution, ["shared.recurrent", "noise"], steps=1)
    with jax.enable_x64(True):
        found = jax.jit(function)({"shared.recurrent": 0.9, "noise": 1e6})
    assert not (float(found.residual) < 1e-9 and abs(float(found.kernel[2, 0, 2, 0])) > 1.5)


def test_refusals():
    network, task = Network.rnn(8), chain(2, 1.0)
    solution = theory.solve(network, task)
    with pytest.raises(ValueError, match=r"^solution is int"):
        theory.differentiable(3, ["noise"])
    with pytest.raises(ValueError, match=r"^solution is not a stable saddle point"):
        theory.differentiable(theory.nngp(network, task), ["noise"])
    with pytest.raises(ValueError, match=r"^over is 'noise'"):
        theory.differentiable(solution, "noise")
    with pytest.raises(ValueError, match=r"^over is \['width'\]"):
        theory.differentiable(solution, ["width"])
    with pytest.raises(ValueError, match=r"^steps is 0"):
        theory.differentiable(solution, ["noise"], steps=0)
    function = theory.differentiable(solution, ["noise"])
    with pytest.raises(ValueError, match=r"^values has leak; it must have noise"):
        function({"leak": 0.5})
    with jax.enable_x64(False), pytest.raises(ValueError, match="single precision"):
        function({"noise": 0.5})
