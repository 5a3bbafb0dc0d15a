"""Saddle points of linear networks: reference numbers, closed forms, and a brute-force free energy in plain NumPy."""

import jax
import numpy as np
import pytest
from noise_energy import hessian, pack
from scipy.optimize import brentq

from theory import Network, Solution, Task, nngp, solve, spectrum
from theory.activations import BUILT_IN
from theory.causal import kernel_of_noise
from theory.model import build_model

RNN, DNN = Network.rnn(500), Network.dnn(500)
ALL = ("recurrent", "input", "readout")
SHARINGS = [ALL, (), ("recurrent",), ("input", "readout"), ("recurrent", "readout"), ("readout",)]


def chain(steps, signal):
    """x_1 = 1, y_T = signal."""
    inputs, targets = np.zeros((1, steps, 1)), np.full((1, steps), np.nan)
    inputs[0, 0], targets[0, -1] = 1, signal
    return Task(inputs, targets)


def endpoint(inputs, targets, steps=3):
    """Patterns (P, D) at the first step, targets (P,) at the last, and a second output that is asked to be zero."""
    x = np.zeros((len(inputs), steps, len(inputs[0])))
    y = np.full((len(inputs), steps, 2), np.nan)
    x[:, 0], y[:, -1] = inputs, np.stack([targets, 0 * targets], axis=-1)
    return Task(x, y)


def rotation(signal):
    """A kick in the plane, then a cosine of period 8, seven of twelve steps supervised."""
    inputs = np.zeros((1, 12, 2))
    inputs[0, 0, 0] = np.sqrt(2)
    supervised = np.isin(np.arange(12), [0, 1, 3, 4, 6, 9, 11])[None]
    return Task(inputs, signal * np.cos(2 * np.pi * np.arange(12) / 8)[None], supervised)


def sequence():
    """Two patterns, two outputs, generic inputs at every step, a target at the second step and one at the third."""
    rng = np.random.default_rng(0)
    supervised = np.array([[False, True, False], [False, False, True]])
    return Task(rng.normal(size=(2, 3, 4)), 2 * rng.normal(size=(2, 3, 2)), supervised)


def flat(kernel):
    n = kernel.shape[0] * kernel.shape[1]
    return kernel.reshape(n, n)


def correlation(kernel):
    matrix = flat(kernel)
    deviation = np.sqrt(np.diag(matrix))
    return matrix / np.outer(deviation, deviation)


def gain_ratio(steps, signal, noise=0.1):
    """r of the symmetric branch of a unit chain: r - 1 = y^2 K / (kappa + K)^2, K = r^T."""
    return brentq(lambda r: r - 1 - signal**2 * r**steps / (noise + r**steps) ** 2, 1, 1 + signal**2, xtol=1e-14)


@pytest.fixture(scope="module")
def broken():
    return solve(RNN, chain(3, 4.3))


def test_chain_above_the_transition(broken):
    """The RNN's kernels, overlaps and prediction at T = 3, y = 4.3: the table of docs/reference_numbers.md."""
    np.testing.assert_allclose(np.diag(flat(broken.kernel)), [2.26299, 5.71627, 14.43917], rtol=0, atol=5e-6)
    rho = correlation(broken.kernel)
    np.testing.assert_allclose([rho[0, 1], rho[1, 2], rho[0, 2]], [0.340901, 0.610817, 0.208228], rtol=0, atol=5e-7)
    assert broken.prediction[0, -1, 0] == pytest.approx(4.270425, abs=5e-7)
    assert broken.converged
    assert broken.stable


def test_chain_of_the_deep_network():
    """The DNN's numbers in the same table, and the closed form k_t = r^t."""
    solution = solve(DNN, chain(3, 4.3))
    np.testing.assert_allclose(np.diag(flat(solution.kernel)), [2.36938, 5.61398, 13.30167], rtol=0, atol=5e-6)
    np.testing.assert_allclose(flat(solution.kernel), np.diag(gain_ratio(3, 4.3) ** np.arange(1, 4)), rtol=1e-9)
    np.testing.assert_allclose(solution.prediction.ravel(), [0, 0, 4.2679145], rtol=0, atol=1e-7)


def test_symmetric_branch_is_the_solution_of_the_deep_network(broken):
    """Above the transition the RNN's unstable branch has the DNN's kernel and free energy; the broken one is lower."""
    deep = solve(DNN, chain(3, 4.3))
    symmetric = broken.branches[1]
    assert len(broken.branches) == 2
    assert not symmetric.stable
    assert symmetric.converged
    np.testing.assert_allclose(symmetric.kernel, deep.kernel, atol=1e-9)
    assert symmetric.free_energy == pytest.approx(deep.free_energy, abs=1e-12)
    assert broken.free_energy < deep.free_energy - 0.01
    assert broken.free_energy == broken.branches[0].free_energy


def lowest_curvature(steps, signal):
    """Smallest eigenvalue of the RNN's Hessian at the symmetric solution of a chain with kappa = .1, unit gains."""
    coordinates = pack(np.sqrt(gain_ratio(steps, signal)) * np.eye(steps))
    with jax.enable_x64(True):
        model = build_model(RNN, chain(steps, signal)).on_device()
        return np.linalg.eigvalsh(np.asarray(hessian(coordinates, model)))[0]


@pytest.mark.parametrize(
    ("steps", "critical"),
    [
        (3, 2.863782),
        (4, 1.622417),
        pytest.param(5, 1.213310, marks=pytest.mark.slow),
        pytest.param(6, 1.002163, marks=pytest.mark.slow),
        pytest.param(8, 0.778367, marks=pytest.mark.slow),
    ],
)
def test_critical_signal(steps, critical):
    """The symmetric branch turns unstable where r_c = (T-1)/(T-2) and the table of docs/reference_numbers.md say."""
    found = brentq(lambda y: lowest_curvature(steps, y), 0.8 * critical, 1.2 * critical, xtol=1e-10)
    ratio = (steps - 1) / (steps - 2)
    closed = (0.1 + ratio**steps) / ratio ** (steps / 2) * np.sqrt(ratio - 1)
    assert found == pytest.approx(closed, rel=1e-8)
    assert found == pytest.approx(critical, abs=5.1e-7)


def test_branches_around_the_critical_signal():
    """T = 3, continuous: one stable branch just below 2.86378, a broken and an unstable one just above."""
    below, above = (solve(RNN, chain(3, signal)) for signal in (2.86, 2.87))
    assert [branch.stable for branch in below.branches] == [True]
    assert [branch.stable for branch in above.branches] == [True, False]
    assert abs(correlation(below.kernel)[0, 1]) < 1e-6 < 0.01 < correlation(above.kernel)[0, 1] < 0.2


@pytest.mark.parametrize(("signal", "error"), [(1, 0.097), (2, 0.052)])
def test_rotation(signal, error):
    """Relative error on the steps kept back, and the outliers on the eigenvalues of the rotation."""
    task = rotation(signal)
    solution = solve(RNN.replace(noise=0.01), task)
    assert solution.converged
    truth, kept = task.targets[0, :, 0], ~task.supervised[0]
    off = np.linalg.norm((solution.prediction[0, :, 0] - truth)[kept]) / np.linalg.norm(truth[kept])
    assert off == pytest.approx(error, abs=5e-4)
    outliers = spectrum(solution).outliers[0]
    np.testing.assert_allclose(sorted(outliers, key=np.imag), [0.7 - 0.7j, 0.7 + 0.7j], rtol=0, atol=0.02)
    assert np.angle(outliers[0]) == pytest.approx(2 * np.pi / 8, abs=0.02)


def test_unshared_readout_predicts_nothing_where_nothing_was_supervised():
    """The DNN's relative error on the steps kept back is 1."""
    task = rotation(2)
    prediction = solve(DNN.replace(noise=0.01), task).prediction[0, :, 0]
    assert not prediction[~task.supervised[0]].any()


def test_singular_value_outlier(broken):
    """The RNN's top singular value is 2.127; the DNN's second and third matrix have one too, as r > 2."""
    assert spectrum(broken).singular_values[0] == pytest.approx([2.127], abs=5e-4)
    deep = spectrum(solve(DNN, chain(3, 4.3)))
    theta_squared = gain_ratio(3, 4.3)
    expected = theta_squared / np.sqrt(theta_squared - 1)
    np.testing.assert_allclose(np.concatenate(deep.singular_values), [expected, expected], rtol=1e-9)
    assert not any(len(outliers) for outliers in deep.outliers)


@pytest.mark.parametrize(("steps", "threshold"), [(3, 4.41), (4, 2.25)])
def test_eigenvalue_outlier_threshold(steps, threshold):
    """The leading eigenvalue leaves the unit disc at a larger signal than that of the transition."""

    def distance(signal):
        return np.abs(spectrum(solve(RNN, chain(steps, signal), starts=0)).eigenvalues[0][0]) - 1

    assert brentq(distance, 0.95 * threshold, 1.05 * threshold, xtol=1e-4) == pytest.approx(threshold, abs=6e-3)


def brute_force(network, task, kernel):
    """F(Phi) = 1/2 [tr C^-1 Phi - ln det C^-1 Phi - n] + 1/2 sum_o y_o A^-1 y_o by dense linear algebra, Phi (n, n)."""
    steps, patterns = task.steps, task.patterns
    n = steps * patterns
    same = np.kron(np.eye(steps), np.ones((patterns, patterns)))
    mask = {name: np.ones((n, n)) if name in network.shared else same for name in ALL}
    x = task.inputs.transpose(1, 0, 2).reshape(n, -1)
    cov = network.input_gain**2 * mask["input"] * (x @ x.T) / task.input_dim
    cov[patterns:, patterns:] += (network.recurrent_gain**2 * mask["recurrent"])[patterns:, patterns:] * kernel[
        :-patterns, :-patterns
    ]
    ratio = np.linalg.solve(cov, kernel)
    chosen = task.supervised.T.ravel()
    y = task.targets.transpose(1, 0, 2).reshape(n, -1)[chosen]
    law = network.noise * np.eye(len(y)) + (network.readout_gain**2 * mask["readout"] * kernel)[chosen][:, chosen]
    return (np.trace(ratio) - np.linalg.slogdet(ratio)[1] - n) / 2 + np.sum(y * np.linalg.solve(law, y)) / 2


@pytest.mark.parametrize("shared", SHARINGS, ids=lambda names: "+".join(names) or "none")
def test_stationary_point_of_the_brute_force_free_energy(shared):
    """Value and vanishing gradient of F(Phi) at every branch; inputs at every step, several patterns and outputs."""
    network = Network(8, shared=shared, recurrent_gain=1.2, input_gain=0.9, readout_gain=1.4, noise=0.3)
    task = sequence()
    solution = solve(network, task, starts=1)
    assert solution.residual <= 1e-9
    for branch in solution.branches:
        kernel = flat(branch.kernel)
        assert branch.free_energy == pytest.approx(brute_force(network, task, kernel), rel=1e-10)
        scale = np.sqrt(np.diag(kernel))
        for i, j in zip(*np.triu_indices(len(kernel)), strict=True):
            step = np.zeros_like(kernel)
            step[i, j] = step[j, i] = 1e-5 * scale[i] * scale[j]
            slope = (brute_force(network, task, kernel + step) - brute_force(network, task, kernel - step)) / 2e-5
            assert abs(slope) < 1e-7
    off = flat(solution.kernel) * (1 + 0.1 * np.eye(6))
    assert brute_force(network, task, off) > solution.free_energy + 1e-3


@pytest.mark.parametrize("shared", SHARINGS, ids=lambda names: "+".join(names) or "none")
def test_parts_of_a_solution(shared):
    """C, dual, prediction and conjugate kernel fit together: Phi^-1 = C^-1 + Phihat, f = gv^2 M o Phi r, r = A^-1 y."""
    network = Network(8, shared=shared, recurrent_gain=1.2, input_gain=0.9, readout_gain=1.4, noise=0.3)
    task = sequence()
    solution = solve(network, task, starts=0)
    cov, conjugate, kernel = (flat(getattr(solution, name)) for name in ("preactivation_cov", "conjugate", "kernel"))
    np.testing.assert_allclose(np.linalg.inv(kernel), np.linalg.inv(cov) + conjugate, rtol=0, atol=1e-8)
    same = np.kron(np.eye(3), np.ones((2, 2)))
    readout = 1.4**2 * kernel * (1 if "readout" in shared else same)
    dual = solution.dual.transpose(1, 0, 2).reshape(6, 2)
    prediction = solution.prediction.transpose(1, 0, 2).reshape(6, 2)
    np.testing.assert_allclose(prediction, readout @ dual, rtol=0, atol=1e-10)
    assert not solution.dual[~task.supervised].any()
    fitted = solution.prediction + 0.3 * solution.dual
    np.testing.assert_allclose(fitted[task.supervised], task.targets[task.supervised], rtol=0, atol=1e-10)


def test_outputs_may_be_rotated():
    """Only sum_o y_o y_o^T matters: kernels stay and predictions turn along."""
    one = sequence()
    turn = np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])
    two = Task(one.inputs, one.targets @ turn, one.supervised)
    first, second = solve(RNN, one, starts=0), solve(RNN, two, starts=0)
    np.testing.assert_allclose(first.kernel, second.kernel, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(first.prediction @ turn, second.prediction, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", [RNN, DNN], ids=["rnn", "dnn"])
@pytest.mark.parametrize("factor", [1.0, -2.0], ids=["repeated", "collinear"])
def test_dependent_patterns_act_as_one(network, factor):
    """x_2 = a x_1 and y_2 = a y_1 is one pattern observed with noise kappa / (1 + a^2); the Gram matrix is singular."""
    weights = np.array([1.0, factor])
    pair = solve(network, endpoint(weights[:, None], 4.3 * weights))
    single = solve(network.replace(noise=0.1 / (weights @ weights)), chain(3, 4.3))
    assert pair.residual <= 1e-9
    expected = flat(single.kernel)[:, None, :, None] * np.outer(weights, weights)[None, :, None, :]
    np.testing.assert_allclose(pair.kernel, expected, rtol=0, atol=1e-8)
    assert pair.free_energy == pytest.approx(single.free_energy, abs=1e-10)
    np.testing.assert_allclose(pair.prediction[:, :, 0], np.outer(weights, single.prediction), rtol=0, atol=1e-8)


def test_step_without_input():
    """A first step that sees nothing has no variance, and the rest is the shorter chain."""
    inputs, targets = np.zeros((1, 4, 1)), np.full((1, 4), np.nan)
    inputs[0, 1], targets[0, -1] = 1, 4.3
    late, short = solve(RNN, Task(inputs, targets)), solve(RNN, chain(3, 4.3))
    assert late.residual <= 1e-9
    assert not late.kernel[0].any()
    np.testing.assert_allclose(late.kernel[1:, :, 1:], short.kernel, rtol=0, atol=1e-8)


def test_without_input_nothing_is_active(capfd):
    """F = y^2 / 2 kappa, and no library has anything to say about empty matrices."""
    task = Task(np.zeros((1, 2, 1)), np.array([[np.nan, 1.0]]))
    solution = solve(RNN, task)
    np.testing.assert_array_equal(solution.kernel, 0.0)
    assert solution.free_energy == pytest.approx(1 / (2 * RNN.noise))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("network", [RNN, DNN], ids=["rnn", "dnn"])
def test_nothing_to_learn(network):
    """Zero targets leave the kernel at the prior, with F = 0 and Phihat = 0."""
    solution = solve(network, chain(3, 0.0))
    np.testing.assert_allclose(flat(solution.kernel), np.eye(3), atol=1e-9)
    assert solution.free_energy == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(solution.conjugate, 0, atol=1e-9)


@pytest.mark.parametrize("richness", [0.5, 2.0, 5.0])
def test_published_closed_form_of_the_deep_linear_network(richness):
    """Whitened inputs, unit target y: y^T Phi_T y = c = (1 - chi)^L, chi = -gamma0^2 c / (1/beta + c)^2.

    L counts the weight layers below the readout (here T, the input layer among them), 1/beta = kappa, and gamma0 y is
    the target. Other directions keep their prior variance.
    """
    direction = np.array([0.6, -0.8])
    task = endpoint(np.sqrt(2) * np.eye(2), richness * direction)
    last = solve(DNN, task, starts=0).kernel[-1, :, -1]
    c = direction @ last @ direction
    chi = -(richness**2) * c / (0.1 + c) ** 2
    assert c == pytest.approx((1 - chi) ** 3, rel=1e-9)
    np.testing.assert_allclose(last, np.eye(2) + (c - 1) * np.outer(direction, direction), rtol=0, atol=1e-8)


def test_mirror_image_is_chosen(broken):
    """Of the two mirror modes the one whose neighbouring steps correlate positively, whatever the seed."""
    for seed in (1, 2):
        np.testing.assert_allclose(solve(RNN, chain(3, 4.3), seed=seed).kernel, broken.kernel, rtol=0, atol=1e-8)
    assert correlation(broken.kernel)[0, 1] > 0


@pytest.mark.parametrize("starts", [-1, 1.0, True, "2"])
def test_bad_number_of_starts(starts):
    """Refused by name."""
    with pytest.raises(ValueError, match=r"^starts is "):
        solve(RNN, chain(3, 1.0), starts=starts)


def test_standard_scaling_is_the_lazy_limit():
    """In standard scaling the kernels stay at the prior."""
    network = RNN.replace(scaling="standard")
    solution = solve(network, chain(3, 4.3))
    assert solution.kind == "lazy limit"
    np.testing.assert_array_equal(solution.kernel, nngp(network, chain(3, 4.3)).kernel)
    np.testing.assert_allclose(flat(solution.kernel), np.eye(3), atol=1e-15)


@pytest.mark.parametrize("activation", [*BUILT_IN, "jax.numpy:arctan"])
@pytest.mark.parametrize("shared", [ALL, (), ("recurrent",)], ids=["rnn", "dnn", "recurrent"])
def test_lazy_limit_against_wide_networks(activation, shared):
    """The prior kernel against 40 networks of 20 000 neurons, drawn exactly; within 4 MCSE."""
    network = Network(20_000, activation=activation, shared=shared, recurrent_gain=1.3)
    task = sequence()
    theory = flat(nngp(network, task).kernel)
    noise = np.random.default_rng(7).normal(size=(40, 6, network.width))
    with jax.enable_x64(True):
        model = build_model(network, task).on_device()
        drawn = np.stack([kernel_of_noise(model, z, network.phi.function, network.width) for z in noise])
    error = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    assert np.abs((drawn.mean(0) - theory) / error).max() < 4


def test_lazy_prediction_is_gaussian_process_regression():
    """f = K_*s (kappa I + K_ss)^-1 y with the prior kernel, written out."""
    network = RNN.replace(activation="erf", readout_gain=1.5)
    task = sequence()
    solution = nngp(network, task)
    kernel = 1.5**2 * flat(solution.kernel)
    chosen = task.supervised.T.ravel()
    y = task.targets.transpose(1, 0, 2).reshape(6, 2)[chosen]
    dual = np.linalg.solve(kernel[chosen][:, chosen] + 0.1 * np.eye(2), y)
    expected = (kernel[:, chosen] @ dual).reshape(3, 2, 2).transpose(1, 0, 2)
    np.testing.assert_allclose(solution.prediction, expected, rtol=0, atol=1e-12)
    assert solution.free_energy == pytest.approx(np.sum(y * dual) / 2)
    assert solution.residual == 0  # the kernel of the prior is given, not searched for


def test_round_trip_through_xarray(broken):
    """Everything survives `to_xarray` and `from_xarray`, branches and verdicts included."""
    dataset = broken.to_xarray()
    assert dataset.kernel.dims == ("step", "pattern", "step_bis", "pattern_bis")
    assert dataset.prediction.dims == ("pattern", "step", "output")
    assert dataset.step.values.tolist() == [1, 2, 3]
    again = Solution.from_xarray(dataset)
    assert len(again.branches) == len(broken.branches)
    for one, other in zip((broken, *broken.branches), (again, *again.branches), strict=True):
        for name in ("network", "task", "free_energy", "residual", "stable", "converged", "message", "kind"):
            assert getattr(one, name) == getattr(other, name), name
        for name in ("kernel", "conjugate", "preactivation_cov", "prediction", "dual"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == np.float64
