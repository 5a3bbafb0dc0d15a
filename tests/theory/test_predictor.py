"""Prediction: against solutions of the joint task, their own fluctuations, and the Gaussian process."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import as_general, chain, generic_new_patterns, generic_task, repeated, sequence

from theory import Network, Task, fluctuations, nngp, predict, solve
from theory.extension import extend_kernel, joint_model
from theory.jax_settings import own_settings
from theory.kernels import flat_of, outputs_of
from theory.model import build_model, output_law, preactivation_cov

SHARINGS = [("recurrent", "input", "readout"), (), ("input", "readout"), ("recurrent",)]


@pytest.fixture(scope="module")
def chain_solution():
    return solve(Network.rnn(300), chain(2, 1.5), starts=0)


def new_patterns(steps, input_dim, output_dim, patterns=2):
    """Generic inputs at every step, and targets to score with."""
    rng = np.random.default_rng(5)
    return Task(rng.normal(size=(patterns, steps, input_dim)), rng.normal(size=(patterns, steps, output_dim)))


def joined(trained, task):
    """Both tasks in one, the second unsupervised; the first is silent after its end."""
    silent = task.steps - trained.steps
    inputs = np.pad(trained.inputs, [(0, 0), (0, silent), (0, 0)])
    targets = np.pad(trained.targets, [(0, 0), (0, silent), (0, 0)], constant_values=np.nan)
    targets[: trained.patterns, : trained.steps][~trained.supervised] = np.nan
    return Task(np.concatenate([inputs, task.inputs]), np.concatenate([targets, np.full_like(task.targets, np.nan)]))


def in_the_joint_task(network, trained, task):
    """Mean and variance of f on ``task`` from the kernel of the saddle point of both tasks together."""
    joint = joined(trained, task)
    solution = solve(network, joint, starts=0)
    n = joint.entries
    kernel_cov = fluctuations(solution).kernel_cov.reshape(n * n, n * n)
    with jax.enable_x64(True):
        model = build_model(network, joint).on_device()
        kernel = jnp.asarray(solution.kernel.reshape(n, n))
        slope = np.asarray(jax.jacobian(lambda k: output_law(model, k).mean)(kernel)).reshape(n, -1, n * n)
        law = output_law(model, kernel)
    of_kernels = np.einsum("eop,pq,eoq->eo", slope, kernel_cov, slope, optimize=True)
    variance = outputs_of(np.diagonal(law.cov)[:, None] + of_kernels, joint)
    return outputs_of(law.mean, joint)[trained.patterns :], variance[trained.patterns :]


@pytest.mark.slow
@pytest.mark.parametrize("shared", SHARINGS, ids=["RNN", "DNN", "W not", "W only"])
def test_new_patterns_as_in_the_joint_task(shared):
    """Extending the solution is solving with the new patterns unsupervised: mean and variance."""
    network, trained = Network(300, shared=shared), sequence()
    task = new_patterns(3, 4, 2)
    mean, variance = in_the_joint_task(network, trained, task)
    found = predict(solve(network, trained, starts=0), task)
    np.testing.assert_allclose(found.mean, mean, atol=1e-7)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-6)
    np.testing.assert_allclose(found.observation_variance, variance + 0.1 / 300, rtol=1e-6)
    assert not found.standard_error.any()


@pytest.mark.slow
def test_longer_and_shorter_sequences(chain_solution):
    longer = new_patterns(3, 1, 1, patterns=1)
    mean, variance = in_the_joint_task(chain_solution.network, chain_solution.task, longer)
    found = predict(chain_solution, longer)
    np.testing.assert_allclose(found.mean, mean, atol=1e-7)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-6)
    first = predict(chain_solution, Task(longer.inputs[:, :2], longer.targets[:, :2]))
    np.testing.assert_allclose(first.mean, found.mean[:, :2], atol=1e-12)
    np.testing.assert_allclose(first.variance, found.variance[:, :2], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [chain(2, 1.5), chain(3, 4.3), repeated(), sequence()],
    ids=["chain", "broken", "repeated", "sequence"],
)
def test_the_training_task_itself(task):
    """Every entry, supervised or not, as the solution has it; repeated patterns leave nothing to chance."""
    solution = solve(Network.rnn(300), task, starts=0)
    found = predict(solution)
    np.testing.assert_allclose(found.mean, solution.prediction, atol=1e-9)
    n = task.entries
    with jax.enable_x64(True):
        model = build_model(solution.network, task).on_device()
        kernel = jnp.asarray(solution.kernel.reshape(n, n))
        slope = np.asarray(jax.jacobian(lambda k: output_law(model, k).mean)(kernel)).reshape(n, -1, n * n)
        of_readout = np.diagonal(output_law(model, kernel).cov)[:, None]
    kernel_cov = fluctuations(solution).kernel_cov.reshape(n * n, n * n)
    variance = of_readout + np.einsum("eop,pq,eoq->eo", slope, kernel_cov, slope, optimize=True)
    np.testing.assert_allclose(found.variance, outputs_of(variance, task), rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("task", [chain(2, 1.5), sequence(2), repeated()], ids=["chain", "sequence", "repeated"])
def test_neurons_give_what_the_closed_form_gives(task):
    """A linear network treated as any other; t of 3 degrees of freedom is below 12 with probability .999."""
    solution = solve(Network.rnn(300), task, starts=0)
    new = new_patterns(2, task.input_dim, task.output_dim)
    exact, sampled = predict(solution, new), predict(as_general(solution), new, neurons=4096)
    assert (np.abs(sampled.mean - exact.mean) < 12 * sampled.standard_error).all()
    assert sampled.standard_error.max() < 0.1 * np.abs(exact.mean).max()
    np.testing.assert_allclose(sampled.variance, exact.variance, rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("task", [chain(2, 1.5), sequence(2)], ids=["chain", "sequence"])
def test_nonlinear_training_patterns_are_reproduced(task):
    """A new pattern equal to a trained one follows it neuron by neuron."""
    solution = solve(Network.rnn(300, activation="tanh"), task)
    found = predict(solution, neurons=2048)
    error = np.hypot(found.standard_error, 0.005)
    assert (np.abs(found.mean - solution.prediction) < 5 * error).all()
    assert (found.variance > 0).all()


@pytest.mark.parametrize("scaling", ["mup", "standard"])
def test_the_lazy_limit_is_a_gaussian_process(scaling):
    network, trained = Network.rnn(50, activation="erf", scaling=scaling), sequence()
    task = new_patterns(4, 4, 2)
    joint = nngp(network, joined(trained, task))
    found = predict(nngp(network, trained), task)
    np.testing.assert_allclose(found.mean, joint.prediction[2:], atol=1e-10)
    with jax.enable_x64(True):
        model = build_model(network, joint.task)
        cov = output_law(model, jnp.asarray(joint.kernel.reshape(16, 16))).cov
    expected = outputs_of(np.diagonal(cov)[:, None], joint.task)[2:]
    np.testing.assert_allclose(found.variance, np.broadcast_to(expected, found.variance.shape), rtol=1e-9)
    kappa = 0.1 / 50 if scaling == "mup" else 0.1
    np.testing.assert_allclose(found.observation_variance - found.variance, kappa, rtol=1e-9)


def test_each_new_pattern_meets_the_trained_ones_alone():
    """Also the only one."""
    network, trained, new = Network.rnn(8), generic_task(), generic_new_patterns()
    both = joint_model(network, trained, new)
    for number in range(2):
        alone = joint_model(network, trained, Task(new.inputs[[number]], new.targets[[number]]))
        np.testing.assert_array_equal(alone.model.drive, np.asarray(both.model.drive)[[number]])
        np.testing.assert_array_equal(alone.trained, both.trained)
        assert (alone.new, alone.outputs) == (both.new, both.outputs)


def test_nothing_to_score():
    lazy = nngp(Network.rnn(8), chain(2, 1.5))
    assert not predict(lazy).scored.any()
    with pytest.raises(ValueError, match="nothing to score"):
        _ = predict(lazy).squared_bias


def test_refusals():
    deep = nngp(Network.dnn(300), chain(2, 1.0))
    with pytest.raises(ValueError, match="input_dim 3"):
        predict(deep, new_patterns(2, 3, 1))
    with pytest.raises(ValueError, match="recurrent, input, readout is not"):
        predict(deep, new_patterns(3, 1, 1))
    with pytest.raises(ValueError, match="task is"):
        predict(deep, deep)
    with pytest.raises(ValueError, match="stable saddle point"):
        predict(replace(deep, kind="saddle point", stable=False))


def test_shorter_sequences_in_the_lazy_limit():
    """As of the joint task, cut where the new sequences end."""
    solution = nngp(Network.rnn(8, noise=0.3), chain(3, 1.0))
    new = Task(np.ones((2, 2, 1)) * [[[1.0]], [[0.5]]], np.zeros((2, 2, 1)))
    longer = Task(np.pad(new.inputs, ((0, 0), (0, 1), (0, 0))), np.zeros((2, 3, 1)))
    short, whole = predict(solution, new), predict(solution, longer)
    assert short.mean.shape == (2, 2, 1)
    np.testing.assert_allclose(short.mean, whole.mean[:, :2], atol=1e-12)
    np.testing.assert_allclose(short.variance, whole.variance[:, :2], atol=1e-12)


@pytest.mark.parametrize("kept", [[0, 1], [0, 1, 2, 4]], ids=["first step", "an entry of each step"])
def test_neurons_are_extended_entry_by_entry_as_the_prior_has_it(kept):
    """From prior draws of some entries the kernel of the lazy limit on all; activities of at most 1: 5 MCSE."""
    network, task, number = Network.rnn(8, activation="erf", bias_gain=0.4), generic_task(), 200_000
    lazy, rng = flat_of(nngp(network, task).kernel), np.random.default_rng(0)
    with own_settings():
        model = build_model(network, task).on_device()
        cov = np.asarray(preactivation_cov(model, jnp.asarray(lazy)))
        window = np.ix_(kept, kept)
        neurons = rng.multivariate_normal(np.zeros(len(kept)), cov[window], number)
        found = extend_kernel(lazy[window], neurons, model, np.array(kept), network.phi.function, rng)
    np.testing.assert_array_equal(found[window], lazy[window])
    np.testing.assert_allclose(found, lazy, atol=5 / np.sqrt(number))
