"""Jumps between phases: exact wherever the Gaussians stand, and each phase is met as often as it weighs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import bayesnet as bn
import theory
from bayesnet.samplers import chains
from bayesnet.samplers.phase_jumps import Phases, propose

PLACES = np.linspace(-8.0, 8.0, 4001)


def _density(x):
    """Two skewed humps of unequal weights, up to a factor; nothing like the Gaussians below."""
    left = jnp.exp(3 * (x + 3) - jnp.exp(3 * (x + 3)))
    return left + 0.25 * jnp.exp(-((x - 2) ** 4) / 2)


@jax.jit
def _jumps(key, x, fault):
    """A thousand jumps from each x, and what is averaged after each; ``fault`` is added to the log ratio."""
    phases = Phases(jnp.array([[-3.2], [2.1], [4.0]]), jnp.array([[[0.4]], [[0.6]], [[1.5]]]))

    def step(x, key):
        def one(x, key):
            propose_key, accept_key, walk_key, walk_accept = random.split(key, 4)
            there, ratio = propose(phases, x[None], propose_key)
            gain = jnp.log(_density(there[0])) - jnp.log(_density(x)) + ratio + fault * jnp.sign(there[0])
            x = jnp.where(jnp.log(random.uniform(accept_key)) < gain, there[0], x)
            near = x + 0.3 * random.normal(walk_key)
            gain = jnp.log(_density(near)) - jnp.log(_density(x))
            return jnp.where(jnp.log(random.uniform(walk_accept)) < gain, near, x)

        x = jax.vmap(one)(x, random.split(key, len(x)))
        return x, jnp.stack([jnp.mean(x > 0), jnp.mean(x), jnp.mean(x**2)])

    return jax.lax.scan(step, x, random.split(key, 1000))[1]


def test_jumps_leave_the_posterior_as_it_is():
    """Shares and moments of two skewed humps, against quadrature; a ratio that is off by 5% is seen."""
    weight = np.asarray(_density(PLACES))
    exact = np.array([np.sum(weight * of) for of in (PLACES > 0, PLACES, PLACES**2)]) / np.sum(weight)

    def distances(fault):
        found = np.asarray(_jumps(random.key(0), jnp.linspace(-3.5, 3.0, 400), fault))[200:]
        batches = found.reshape(20, 40, 3).mean(axis=1)
        return np.abs(batches.mean(axis=0) - exact) / (batches.std(axis=0, ddof=1) / 20**0.5)

    assert np.all(distances(0.0) < 4)
    assert distances(0.05)[0] > 5


def test_a_jump_there_and_back():
    """Between two phases the way back leads to where it came from, with the inverse ratio."""
    rng = np.random.default_rng(0)
    factors = np.tril(rng.normal(size=(2, 3, 3))) + 2 * np.eye(3)
    phases = Phases(jnp.asarray(20 * rng.normal(size=(2, 3))), jnp.asarray(factors))
    start = phases.centres[1] + 0.5
    there, ratio = propose(phases, start, random.key(1))
    back, inverse = propose(phases, there, random.key(2))
    np.testing.assert_allclose(back, start, rtol=1e-4)
    assert float(ratio) == pytest.approx(-float(inverse), abs=1e-4)
    assert abs(float(ratio)) > 0.1


def test_both_images_under_a_relabelling_are_met_alike():
    """Opposite targets and a small bias: the steps of the one image correlate, those of the other anticorrelate."""
    inputs, targets = np.zeros((2, 3, 2)), np.full((2, 3, 1), np.nan)
    inputs[:, 0], targets[:, -1, 0] = 2**0.5 * np.eye(2), [3.0, -3.0]
    network, task = bn.Network.rnn(100, bias_gain=0.1), bn.Task(inputs, targets)
    solution = theory.solve(network, task)
    posterior = bn.sample(network, task, num_warmup=50, num_samples=150, phases=solution, progress=False)
    assert posterior["sample_stats"]["jumped"].mean() > 0.3
    assert posterior.attrs["phases"] == "chains jump between 2 phases and mirror images"
    kernel = posterior["posterior"]["kernel"].to_numpy()
    above = (np.trace(kernel[:, :, 0, :, 1], axis1=2, axis2=3) > 0).astype(float)
    error = bn.diagnostics.summarise_draws({"above": above})["mcse"].iloc[0]
    assert abs(above.mean() - 0.5) < 4 * error < 0.2


def test_jumps_that_are_impossible_are_refused():
    task = bn.tasks.chain(3, 2.0)
    network = bn.Network.rnn(64)
    solution = theory.solve(network, task)
    with pytest.raises(ValueError, match=r"coordinates is 'fields'.*weigh_phases"):
        bn.sample(network, task, coordinates="fields", phases=solution)
    with pytest.raises(ValueError, match="phases is the solution of another network or task"):
        bn.sample(network, task.scaled(2.0), phases=solution)
    with pytest.raises(ValueError, match="phases is list; it must be a Solution"):
        bn.sample(network, task, phases=[solution])
    alone = bn.tasks.chain(3, 0.1)
    with pytest.raises(ValueError, match="phases has fewer than two stable saddle points"):
        bn.sample(network, alone, phases=theory.solve(network, alone))


def test_a_killed_run_with_jumps_goes_on_bitwise(tmp_path, monkeypatch):
    """Two mirror images between which chains jump; stopped in the draws, and read back once it is complete."""
    network, task = bn.Network.rnn(64), bn.tasks.chain(3, 4.0)
    run = {"num_warmup": 50, "num_samples": 75, "num_chains": 2, "progress": False}
    run["phases"] = theory.solve(network, task)
    whole = bn.sample(network, task, **run)
    add = chains.Lane.add

    def failing(lane, *arguments, **records):
        if lane.blocks == 3:
            raise InterruptedError
        add(lane, *arguments, **records)

    monkeypatch.setattr(chains.Lane, "add", failing)
    with pytest.raises(InterruptedError):
        bn.sample(network, task, checkpoint=tmp_path, **run)
    monkeypatch.setattr(chains.Lane, "add", add)
    for _ in ("resumed", "read back"):
        again = bn.sample(network, task, checkpoint=tmp_path, **run)
        assert again["posterior"].equals(whole["posterior"])
    with pytest.raises(ValueError, match=r"^checkpoint .*another run"):
        bn.sample(network, task, checkpoint=tmp_path, **{**run, "phases": None})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "how"),
    [
        (bn.Network.rnn(64), {"chain_method": "vectorized"}),
        (bn.Network.rnn(64), {"sampler": "hmc"}),
        (bn.Network.rnn(64), {"precision": "float32"}),
        (bn.Network.rnn(512, layers=2), {}),
    ],
    ids=["lockstep", "hmc", "float32", "two layers"],
)
def test_jumps_however_the_chains_run(network, how):
    """Mirror images are met alike, and what does not tell them apart has the mean that it has without jumps."""
    task = bn.tasks.chain(3, 8.0)
    solution = theory.solve(network, task)
    sites = len(solution.kernel)
    flips = theory.symmetry.flipped_pairs(theory.symmetry.mirror_signs(network, task), sites)
    pair = np.unravel_index(np.argmax(flips * np.abs(solution.kernel[:, 0, :, 0])), (sites, sites))
    run = {"num_warmup": 300, "num_samples": 500, "coordinates": "kernels", "progress": False}
    plain = bn.sample(network, task, seed=1, **run)
    jumping = bn.sample(network, task, seed=2, phases=solution, **run, **how)
    assert jumping["sample_stats"]["jumped"].mean() > 0.9
    first, second = (each["posterior"]["overlap"].to_numpy()[:, :, pair[0], 0, pair[1], 0] for each in (plain, jumping))
    table = bn.diagnostics.summarise_draws({"plain": first**2, "jumping": second**2})
    mean, error = table["mean"].to_numpy(), table["mcse"].to_numpy()
    assert abs(mean[0] - mean[1]) < 4 * np.hypot(error[0], error[1])
    assert abs(np.mean(second > 0) - 0.5) < 0.02  # every jump is accepted: draws alternate


@pytest.mark.slow
def test_two_phases_of_a_first_order_transition_have_the_weights_of_their_evidence():
    """Eight steps at the crossing, N = 1000: without jumps no chain ever leaves its phase."""
    network, chain = bn.Network.rnn(1000), bn.tasks.chain(8, 1.0)
    task = chain.scaled(0.703153775226011)
    solution = theory.solve(network, task)
    posterior = bn.sample(network, task, num_warmup=500, num_samples=1000, phases=solution, progress=False)
    table = bn.weigh_phases(posterior, solution)
    assert all(gate.passed for gate in bn.diagnostics.check_gates(posterior))
    kernel = posterior["posterior"]["kernel"].to_numpy()
    stable = [branch for branch in solution.branches if branch.stable]
    away = []
    for branch in stable:
        turns = (np.ones(8), *theory.symmetry.mirror_signs(network, task))
        images = [theory.symmetry.apply_signs(kernel, turn) - branch.kernel for turn in turns]
        away.append(np.min([np.sum(image**2, axis=(2, 3, 4, 5)) for image in images], axis=0))
    lower = (np.argmin(away, axis=0) == 0).astype(float)
    error = bn.diagnostics.summarise_draws({"lower": lower})["mcse"].iloc[0]
    weight = table["weight"][table["free_energy"] == stable[0].free_energy].iloc[0]
    assert abs(lower.mean() - weight) < 4 * error + 0.03  # of order 1/N, of each evidence
    assert np.mean(np.diff(lower, axis=1) != 0) > 0.1
