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
LINEAR, TANH = bn.Network.rnn(16), bn.Network.rnn(16, activation="tanh")
TASK = bn.tasks.chain(2, 1.5)
QUICK = {"points": 1024, "tolerance": 1.0}
SHORT = {"num_warmup": 200, "num_samples": 100, "num_chains": 2, "seed": 1, "progress": False}


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
CASES = [(name, LINEAR) for name in UNITS] + [(name, TANH) for name in ("inputs", "targets")]


def theory_of(network, task):
    """Everything that the theory says, in the units it says it in."""
    solution = theory.solve(network, task, **({} if network.activation == "linear" else QUICK))
    neurons = {"neurons": 1024}
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


@pytest.mark.parametrize("factor", DECADES)
@pytest.mark.parametrize(("units", "network"), CASES, ids=[f"{name}-{net.activation}" for name, net in CASES])
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
    return bn.compare(bn.sample(LINEAR, TASK, **SHORT), theory.solve(LINEAR, TASK))


@pytest.mark.parametrize("factor", DECADES)
@pytest.mark.parametrize("units", UNITS)
def test_posterior_and_comparison(units, factor, compared):
    """In kernel coordinates the draws are the same ones up to rounding, and so is every score."""
    other, task, _, _ = UNITS[units](LINEAR, factor)
    table = bn.compare(bn.sample(other, task, **SHORT), theory.solve(other, task))
    for name in ("z_mcse", "r_hat", "ess_bulk", "ess_tail"):
        np.testing.assert_allclose(table[name], compared[name], rtol=1e-3, atol=1e-3, err_msg=name)
    # The expected spread comes from a thousand draws, in which eigenvectors may change their sign.
    np.testing.assert_allclose(table["z_sd"], compared["z_sd"], rtol=0.1, atol=0.01)
    assert (table["verdict"] == compared["verdict"]).all()


@pytest.mark.parametrize("gain", [1e-10, 1e-100, 1e-150])
def test_a_recurrent_gain_of_almost_nothing_is_none(gain):
    """Correlations between steps below rounding: no row differs."""
    network = LINEAR.replace(recurrent_gain=gain, shared=("recurrent", "readout"))
    task = bn.Task(np.ones((1, 2, 1)), [[np.nan, 1.5]])
    table = bn.compare(bn.sample(network, task, **SHORT | {"num_samples": 500}), theory.solve(network, task))
    assert (table["verdict"] != "differ").all()
    assert table["z_sd"].abs().max() < 5


@pytest.mark.parametrize("factor", [1e-3, 1e-5, 1e-10])
def test_faint_inputs_have_an_evidence(factor):
    """The kernels vanish, and what is left is the noise's own density: no transition."""
    network, task = inputs_times(LINEAR, TASK, factor)
    value = theory.log_evidence(theory.solve(network, task)).log_evidence
    noise = LINEAR.noise / LINEAR.width
    assert value == pytest.approx(-(1.5**2 / noise + np.log(2 * np.pi * noise)) / 2, rel=1e-4)
