"""Nothing depends on the units of inputs, targets and activities: twenty decades, through public functions.

inputs a x,  gain gu / a                              the same h
targets b y, gain gv b, noise kappa b^2               f times b
inputs a x,  gain gv / a, linear networks             h times a, the same f
"""

import numpy as np
import pytest

import bayesnet as bn
import theory

DECADES = [1e-10, 1e-5, 1e5, 1e10]
FARTHEST = [1e-70, 1e70]  # covariances of kernels are fourth powers
LINEAR, TANH = bn.Network.rnn(16), bn.Network.rnn(16, activation="tanh")
TASK = bn.tasks.chain(2, 1.5)
QUICK = {"points": 1024, "tolerance": 1.0}
SHORT = {"num_warmup": 200, "num_samples": 100, "num_chains": 2, "seed": 1, "progress": False}

# Trajectories are chaotic: rounding errors reach one after some hundred draws, in whatever units.
BRIEF = SHORT | {"num_warmup": 20, "num_samples": 20}


def inputs_times(network, task, factor):
    return network, bn.Task(task.inputs * factor, task.targets, task.supervised)


# name: (network and task in other units, what kernels and what outputs are multiplied by)
UNITS = {
    "inputs": lambda network, a: (
        *inputs_times(network.replace(input_gain=network.input_gain / a), TASK, a),
        1.0,
        1.0,
    ),
    "targets": lambda network, a: (
        network.replace(readout_gain=network.readout_gain * a, noise=network.noise * a**2),
        TASK.scaled(a),
        1.0,
        a,
    ),
    "activities": lambda network, a: (
        *inputs_times(network.replace(readout_gain=network.readout_gain / a), TASK, a),
        a**2,
        1.0,
    ),
}
FAMILIES = [(name, LINEAR) for name in UNITS] + [(name, TANH) for name in ("inputs", "targets")]
CASES = [(name, network, factor) for name, network in FAMILIES for factor in DECADES]
CASES += [(name, LINEAR, factor) for name in UNITS for factor in FARTHEST]


def theory_of(network, task):
    """Everything that the theory says, in the units it says it in."""
    quick, neurons = ({}, {}) if network.activation == "linear" else (QUICK, {"neurons": 1024})
    solution = theory.solve(network, task, **quick)
    fluctuations = theory.fluctuations(solution, **neurons)
    evidence = theory.log_evidence(solution, **neurons)
    prediction = theory.predict(solution, **neurons)
    assert solution.converged
    assert solution.stable
    return {
        "free energy": solution.free_energy,
        "kernel": solution.kernel,
        "fluctuations": fluctuations.kernel_cov,
        "determinant": evidence.determinant,
        "mirror": evidence.mirror,
        "prediction": prediction.mean,
        "variance": prediction.variance,
        "spectrum": np.sort(np.abs(theory.spectrum(solution, **neurons).eigenvalues[0])),
        "normalisation": evidence.normalisation,
    }


@pytest.fixture(scope="module")
def plain():
    return {network: theory_of(network, TASK) for network in (LINEAR, TANH)}


@pytest.mark.parametrize(
    ("units", "network", "factor"), CASES, ids=[f"{name}-{net.activation}-{factor:g}" for name, net, factor in CASES]
)
def test_the_theory(units, network, factor, plain):
    other, task, kernels, outputs = UNITS[units](network, factor)
    found, expected = theory_of(other, task), dict(plain[network])
    powers = {"kernel": kernels, "fluctuations": kernels**2, "prediction": outputs, "variance": outputs**2}
    for name, values in expected.items():
        values = values * powers.get(name, 1.0)
        if name == "normalisation":
            values -= np.log(outputs)  # a density of one target
        scale = np.max(np.abs(values))
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-9 * scale, err_msg=name)


@pytest.fixture(scope="module")
def compared():
    return bn.compare(bn.sample(LINEAR, TASK, **BRIEF), theory.solve(LINEAR, TASK))


@pytest.mark.parametrize("factor", DECADES)
@pytest.mark.parametrize("units", UNITS)
def test_posterior_and_comparison(units, factor, compared):
    """In kernel coordinates the draws are the same ones up to rounding, and so is every score."""
    other, task, _, _ = UNITS[units](LINEAR, factor)
    table = bn.compare(bn.sample(other, task, **BRIEF), theory.solve(other, task))
    np.testing.assert_allclose(table["mean"] / compared["mean"], table["mcse"] / compared["mcse"], rtol=1e-6)
    np.testing.assert_allclose(table["z_mcse"], compared["z_mcse"], rtol=1e-6, atol=1e-6)
    # Of ranks: a gauge move repeats what a rejected proposal leaves up to rounding errors, which order such draws.
    np.testing.assert_allclose(table["r_hat"], compared["r_hat"], rtol=0.1)
    # The expected spread comes from a thousand draws, in which eigenvectors may change their sign.
    np.testing.assert_allclose(table["z_sd"], compared["z_sd"], rtol=0.1, atol=0.01)
    assert (table["verdict"] == compared["verdict"]).all()


@pytest.mark.parametrize("factor", [1e-100, 1e100])
def test_comparisons_far_from_one(factor):
    """Squares of these kernels under- or overflow; scores do not."""
    network, task = inputs_times(LINEAR, TASK, factor)
    solution = theory.solve(network, task)
    table = bn.compare(bn.sample(network, task, **SHORT), solution)
    assert np.isfinite(table[["theory", "mean", "mcse", "expected_sd", "z_sd"]].to_numpy()).all()
    assert table["expected_sd"].min() > 0
    assert table["z_sd"].abs().max() < 5
    relative = theory.fluctuations(solution).draw_kernels(4000)[:, 0, 0, 0, 0] / solution.kernel[0, 0, 0, 0]
    # The logarithm is Gaussian with the variance of a Wishart matrix.
    assert np.log(relative).std() == pytest.approx((2 / network.width) ** 0.5, rel=0.1)


@pytest.mark.parametrize("gain", [1e-10, 1e-100, 1e-150])
def test_a_recurrent_gain_of_almost_nothing_is_none(gain):
    """Correlations between steps below rounding: no row differs."""
    network = LINEAR.replace(recurrent_gain=gain, shared=("recurrent", "readout"))
    task = bn.Task(np.ones((1, 2, 1)), [[np.nan, 1.5]])
    table = bn.compare(bn.sample(network, task, **SHORT | {"num_samples": 500}), theory.solve(network, task))
    assert (table["verdict"] != "differ").all()
    assert table["z_sd"].abs().max() < 5


@pytest.mark.parametrize("factor", DECADES)
@pytest.mark.parametrize("units", UNITS)
def test_critical_signals(units, factor):
    other, task, _, outputs = UNITS[units](LINEAR, factor)
    task = task.scaled(1 / outputs)  # the signal itself in other units
    expected = theory.critical_signal(LINEAR, TASK).instability
    assert theory.critical_signal(other, task).instability / outputs == pytest.approx(expected, rel=1e-6)


def gaussian_log_density(variance):
    return -(1.5**2 / variance + np.log(2 * np.pi * variance)) / 2


@pytest.mark.parametrize(
    ("network", "factor"),
    [*((LINEAR, factor) for factor in (1e-3, 1e-5, 1e-10, 1e-100, 1e-150)), (TANH, 1e-4), (TANH, 1e-100)],
    ids=str,
)
def test_faint_inputs_have_an_evidence(network, factor):
    """The kernels vanish, and what is left is the noise's own density: no transition."""
    network, task = inputs_times(network, TASK, factor)
    settings = {} if network.activation == "linear" else QUICK
    value = theory.log_evidence(theory.solve(network, task, **settings)).log_evidence
    assert value == pytest.approx(gaussian_log_density(LINEAR.noise / LINEAR.width), rel=1e-4)


@pytest.mark.parametrize("factor", [1e5, 1e10, 1e100, 1e150])
def test_strong_inputs_have_an_evidence(factor):
    """The prior explains everything, and what is left is its own density."""
    network, task = inputs_times(LINEAR, TASK, factor)
    solution = theory.solve(network, task)
    assert solution.converged
    lazy = theory.nngp(network, task)
    np.testing.assert_allclose(solution.kernel, lazy.kernel, rtol=1e-9)
    np.testing.assert_allclose(theory.predict(solution).mean, lazy.prediction, rtol=1e-9)
    variance = (network.noise + network.readout_gain**2 * lazy.kernel[-1, 0, -1, 0]) / network.width
    assert theory.log_evidence(solution).log_evidence == pytest.approx(gaussian_log_density(variance), rel=1e-9)
    if factor > 1e80:
        with pytest.raises(ValueError, match="squares overflow"):
            _ = theory.fluctuations(solution).kernel_cov


DEPENDENT = bn.Task(
    np.multiply.outer([1.0, 2.0, -1.0], np.ones((2, 1))), [[[np.nan], [y]] for y in (1.0, 2.1, -0.8)]
)  # inputs of rank one, which these targets are not quite of


def test_what_double_precision_does_not_resolve_is_said_to_be_so():
    """Never an error of linear algebra, a NaN, or a transition where there is none."""
    plain, limit = theory.log_evidence, []
    for factor in (10.0, 100.0):
        solution = theory.solve(*inputs_times(LINEAR, DEPENDENT, factor))
        limit.append(plain(solution).log_evidence + np.log(factor))
    assert limit[0] == pytest.approx(limit[1], abs=0.1)
    for factor in (1e3, 1e5):
        solution = theory.solve(*inputs_times(LINEAR, DEPENDENT, factor))
        for question in (theory.log_evidence, theory.fluctuations, theory.predict):
            with pytest.raises(ValueError, match=r"double precision cannot resolve.*noise is too small"):
                question(solution)
    for factor in (1e10, 1e100):
        with pytest.raises(RuntimeError, match=r"double precision does not resolve it\. Its noise is about"):
            theory.solve(*inputs_times(LINEAR, DEPENDENT, factor))


@pytest.mark.parametrize("task", [TASK, DEPENDENT], ids=["chain", "dependent"])
def test_targets_far_beyond_the_prior(task):
    solution = theory.solve(LINEAR, task.scaled(1e150))
    assert solution.status == "unsolved"
    assert not np.isnan(solution.residual)
    assert "NOT CONVERGED: the search came to rest nowhere" in solution.message


def test_a_saturated_activation_has_a_prediction_or_a_reason():
    """tanh becomes the sign of h; what is too steep for second derivatives is refused."""
    steep = [theory.solve(*inputs_times(TANH, TASK, factor), **QUICK) for factor in (1e10, 1e100)]
    assert steep[0].free_energy == pytest.approx(steep[1].free_energy, rel=1e-6)
    evidence = theory.log_evidence(steep[0], neurons=1024)
    assert abs(evidence.determinant) < 1
    with pytest.raises(ValueError, match="slope of the activation is not resolved"):
        theory.log_evidence(steep[1], neurons=1024)
