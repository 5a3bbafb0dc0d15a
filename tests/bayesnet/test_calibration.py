"""Calibration: the samplers return the posterior of the model that they are asked about.

The truth is the literal network of `literal_network`, drawn in NumPy. Three checks, each of which a broken model fails:

- simulation-based calibration (Talts et al. 2018): where targets come from a prior network, its rank among posterior
  draws is uniform;
- Geweke's joint-distribution test (2004): alternate a sampler's step with fresh targets given its network; the pairs so
  made are prior networks with their targets;
- targets of order one, where prior draws do not lead: prior networks weighted by the likelihood.

Metropolis steps are exact whatever the gradient, so an error in the adjoint costs acceptance and is no matter of
calibration: `tests/theory/test_causal.py` looks for it.
"""

from functools import cache
from itertools import product

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from literal_network import draw_prior, log_likelihood, quantities

from bayesnet import Network, Task, sample
from bayesnet.models import kernel_space
from bayesnet.models.gauge import SiteGroups, site_groups
from bayesnet.samplers import engine, split_hmc
from theory.model import build_model

PATTERNS, STEPS, INPUT_DIM, OUTPUTS = 2, 3, 2, 2
SUPERVISED = np.array([[False, True, True], [True, False, True]])
WIDTHS = {"weights": 5, "fields": 5, "kernels": 8}  # fields: fewer neurons than entries, a singular covariance
SHARED = {"rnn": ("recurrent", "input", "readout"), "dnn": ()}
GAINS = {"recurrent_gain": 0.9, "input_gain": 0.8, "readout_gain": 1.2, "noise": 0.5}
LEVEL = 1e-3  # family-wise, over the quantities of one test; a broken model must fall below its square
SIMULATIONS, RANKED, THIN, BINS = 128, 31, 4, 8

CASES = [
    pytest.param(coordinates, sharing, activation, sampler, id=f"{coordinates}-{sharing}-{activation}-{sampler}")
    for coordinates, activation, sharing, sampler in product(WIDTHS, ("linear", "tanh"), SHARED, ("nuts", "hmc"))
    if coordinates != "kernels" or activation == "linear"
]
slow = pytest.mark.slow


def network_of(coordinates, sharing, activation, **changes):
    return Network(WIDTHS[coordinates], activation, **{"shared": SHARED[sharing], **GAINS, **changes})


def task_with(targets):
    """Inputs at every step, so that no sign symmetry is left; ``targets`` (supervised, O) where supervised."""
    filled = np.full((STEPS, PATTERNS, OUTPUTS), np.nan)
    filled[SUPERVISED.T] = targets
    return Task(np.random.default_rng(7).normal(size=(PATTERNS, STEPS, INPUT_DIM)), filled.swapaxes(0, 1))


BLANK = task_with(np.zeros((SUPERVISED.sum(), OUTPUTS)))


def family_wise(p_values):
    """Bonferroni: the smallest of several p-values, made one p-value."""
    return min(1.0, len(p_values) * min(p_values.values()))


def flat_draws(tree):
    """Kernels (chain, draw, n, n) and outputs (chain, draw, n, O) of a posterior."""
    kernel, prediction = (tree["posterior"][name].to_numpy() for name in ("kernel", "prediction"))
    lead, n = kernel.shape[:2], BLANK.entries
    return kernel.reshape(*lead, n, n), prediction.swapaxes(2, 3).reshape(*lead, n, OUTPUTS)


# Simulation-based calibration


def ranks(truth, assumed, coordinates, sampler):
    """Label -> rank of the truth among `RANKED` posterior draws, for each of `SIMULATIONS` prior networks."""
    kernels, outputs, targets = draw_prior(truth, BLANK, SIMULATIONS, np.random.default_rng(11))
    found = {}
    settings = {"num_warmup": 150, "num_samples": RANKED * THIN, "num_chains": 1, "num_latents": 1, "progress": False}
    for i in range(SIMULATIONS):
        tree = sample(assumed, task_with(targets[i]), coordinates, seed=i, sampler=sampler, **settings)
        kernel, output = (part[0, THIN - 1 :: THIN] for part in flat_draws(tree))
        drawn = quantities(truth, BLANK, kernel, output, targets[i])
        true = quantities(truth, BLANK, kernels[i], outputs[i], targets[i])
        for label, values in drawn.items():
            found.setdefault(label, []).append(int((values < true[label]).sum()))
    return {label: np.array(values) for label, values in found.items()}


def rank_p_values(ranks):
    """Chi-squared test of flat histograms of ranks 0..RANKED in `BINS` bins."""
    counts = {label: np.bincount(values * BINS // (RANKED + 1), minlength=BINS) for label, values in ranks.items()}
    return {label: float(scipy.stats.chisquare(count).pvalue) for label, count in counts.items()}


@slow
@pytest.mark.parametrize(("coordinates", "sharing", "activation", "sampler"), CASES)
def test_simulation_based_calibration(coordinates, sharing, activation, sampler):
    network = network_of(coordinates, sharing, activation)
    p = family_wise(rank_p_values(ranks(network, network, coordinates, sampler)))
    print(f"p = {p:.2g}")
    assert p > LEVEL


@slow
def test_simulation_based_calibration_sees_a_wrong_likelihood():
    """Twice too wide. What is 20% off takes more simulations, and so does a wrong gain: see the joint test below."""
    truth, assumed = network_of("fields", "rnn", "tanh"), network_of("fields", "rnn", "tanh", noise=4 * GAINS["noise"])
    p = family_wise(rank_p_values(ranks(truth, assumed, "fields", "hmc")))
    print(f"p = {p:.2g}")
    assert p < LEVEL**2


# Geweke's test

CHAINS, ITERATIONS = 16, 2000
# Large enough to reject often; linear networks reach large kernels, where a step that is too large is stuck.
STEP_SIZES = {("weights", "nuts"): 0.2, ("weights", "hmc"): 0.25, ("fields", "nuts"): 0.35, ("fields", "hmc"): 0.6}
STEP_SIZES |= {("kernels", sampler): STEP_SIZES["fields", sampler] for sampler in ("nuts", "hmc")}


@cache
def joint_chain(network, coordinates, sampler, iterations):
    """Compiled (key, model, weight, groups) -> kernels, outputs, targets, acceptance, targets before (iteration, ...)
    of one chain that alternates a sampler's step given y, its log likelihood times ``weight``, and y given the network.

    A network belongs to the targets before it, too: what keeps the prior instead of the posterior shows there only."""
    settings = engine.Settings(
        coordinates=coordinates,
        sampler=sampler,
        num_warmup=0,
        num_samples=1,
        num_chains=1,
        target_accept=0.8,
        max_tree_depth=6,
        anneal=False,
        num_latents=1,
        precision="float64",
        chain_method="sequential",
    )
    machine = engine.build_machine(settings, network, BLANK)
    mirror = jnp.asarray(kernel_space.latent_signs(network, BLANK), float) if coordinates == "kernels" else None

    def draw_targets(key, output):
        mean = output[BLANK.supervised_entries]
        return mean + jnp.sqrt(network.noise / network.width) * jax.random.normal(key, mean.shape)

    def chain(key, model, weight, groups):
        start_key, key = jax.random.split(key)
        begun = machine.start(start_key, model, mirror)
        adapted = begun.sampler.adapt_state._replace(step_size=jnp.full((), STEP_SIZES[coordinates, sampler]))

        def one(carry, key):
            state, before = carry
            step_key, target_key = jax.random.split(key)
            state, record = machine.advance(state, step_key, model.replace(targets=before), weight, 0, 1, groups)
            kernel, output = record["kernel"][0], record["prediction"][0]
            targets = draw_targets(target_key, output)
            return (state, targets), (kernel, output, targets, record["acceptance_rate"][0], before)

        start = (begun._replace(sampler=begun.sampler._replace(adapt_state=adapted)), model.targets)
        return jax.lax.scan(one, start, jax.random.split(key, iterations))[1]

    return jax.jit(jax.vmap(chain, in_axes=(0, None, None, None)))


def successive_conditionals(
    network, coordinates, sampler, iterations=ITERATIONS, weight=1.0, readout=1.0, assumed=None, groups=None
):
    """What `joint_chain` returns, (chain, iteration, ...), its first twentieth left out; gv^2 off by ``readout``, or
    the model that of another network, ``assumed``, or gauge moves of wrong ``groups``."""
    with jax.enable_x64(True):
        model = build_model(assumed or network, BLANK).on_device()
        model = model.replace(readout=readout * model.readout)
        keys = jax.random.split(jax.random.key(3), CHAINS)
        groups = None if coordinates == "weights" else groups or site_groups(model)
        drawn = joint_chain(network, coordinates, sampler, iterations)(keys, model, weight, groups)
    return [np.asarray(part)[:, iterations // 20 :] for part in drawn]


@cache
def prior_means(network):
    """Label -> mean of a quantity over independent prior draws, and its standard error."""
    kernel, output, targets = draw_prior(network, BLANK, 100_000, np.random.default_rng(5))
    values = quantities(network, BLANK, kernel, output, targets) | target_quantity(targets)
    return {label: (x.mean(), x.std() / np.sqrt(len(x))) for label, x in values.items()}


def joint_p_values(network, drawn, before=False):
    """z-tests of the means of all quantities against `prior_means`, with the MCSE of the chains; of the networks with
    the targets drawn from them, or those ``before`` them."""
    kernel, output, fresh, _, earlier = drawn
    targets = earlier if before else fresh
    p = {}
    for label, values in (quantities(network, BLANK, kernel, output, targets) | target_quantity(targets)).items():
        assert az.ess(values) > 400, label
        mean, error = prior_means(network)[label]
        error = np.hypot(error, az.mcse(values, method="mean"))
        p[label] = float(2 * scipy.stats.norm.sf(abs(values.mean() - mean) / error))
    return p


def target_quantity(targets):
    """How large the targets are, which only the joint distribution leaves open."""
    return {"size of targets": np.log(np.sum(targets**2, axis=(-2, -1)))}


@slow
@pytest.mark.parametrize(("coordinates", "sharing", "activation", "sampler"), CASES)
def test_joint_distribution(coordinates, sharing, activation, sampler):
    network = network_of(coordinates, sharing, activation)
    drawn = successive_conditionals(network, coordinates, sampler)
    assert drawn[3].mean() < 0.98  # otherwise the Metropolis test is not tested
    p = family_wise(joint_p_values(network, drawn))
    print(f"p = {p:.2g}")
    assert p > LEVEL


def test_joint_distribution_quickly():
    """The same for one case, and the same chain with a readout gain that is 20% too large."""
    network = network_of("fields", "rnn", "tanh")
    assert family_wise(joint_p_values(network, successive_conditionals(network, "fields", "hmc", 1200))) > LEVEL
    broken = successive_conditionals(network, "fields", "hmc", 1200, readout=1.2**2)
    assert family_wise(joint_p_values(network, broken)) < LEVEL**2


FIRST_TWO = np.array([[1.0, 0.7, 0.0], [0.7, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(("coordinates", "sampler"), [("fields", "hmc"), pytest.param("kernels", "nuts", marks=slow)])
def test_joint_distribution_with_gauge_moves(coordinates, sampler):
    """Input and readout weights tie two steps of three. Moves of the neurons of both are right; those of one alone, a
    part of the group's entries, keep the prior and not the posterior."""
    shared = {"input": FIRST_TWO, "readout": FIRST_TWO}
    network = network_of(coordinates, "dnn", "linear", shared=shared)
    assert site_groups(build_model(network, BLANK)).labels == (0, 0, 1)
    drawn = successive_conditionals(network, coordinates, sampler, 1200)
    for before in (False, True):
        p = family_wise(joint_p_values(network, drawn, before))
        print(f"p = {p:.2g}")
        assert p > LEVEL
    if coordinates == "fields":  # in kernels it takes more draws: `test_gauge.py` sees the likelihood change
        broken = successive_conditionals(network, coordinates, sampler, 1200, groups=SiteGroups((0, 1, 0)))
        p = family_wise(joint_p_values(network, broken, before=True))
        print(f"broken: p = {p:.2g}")
        assert p < LEVEL**2


ARCHITECTURES = {  # and a fault of each
    "leaky": ({"leak": 0.5}, {"leak": 0.6}),
    "biased": ({"bias_gain": 0.8}, {"bias_gain": 1.0}),
    "partly shared": ({"shared": {"recurrent": 0.5, "input": 0.4, "readout": 0.6}}, {"shared": {"readout": 0.6}}),
}


@slow
@pytest.mark.parametrize(("coordinates", "sampler"), [("weights", "nuts"), ("fields", "hmc"), ("kernels", "nuts")])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_joint_distribution_of_architectures(name, coordinates, sampler):
    """Right; and, where the numbers of the model are an argument of what is compiled, seen where they are wrong."""
    right, wrong = ARCHITECTURES[name]
    network = network_of(coordinates, "rnn", "linear", **right)
    p = family_wise(joint_p_values(network, successive_conditionals(network, coordinates, sampler)))
    print(f"p = {p:.2g}")
    assert p > LEVEL
    if coordinates != "weights":
        broken = successive_conditionals(network, coordinates, sampler, assumed=network.replace(**wrong))
        p = family_wise(joint_p_values(network, broken))
        print(f"broken: p = {p:.2g}")
        assert p < LEVEL**2


@slow
@pytest.mark.parametrize("coordinates", WIDTHS)
@pytest.mark.parametrize("sampler", ["nuts", "hmc"])
def test_joint_distribution_sees_a_wrong_readout_gain(coordinates, sampler):
    """20% too large in the sampler. Weights carry their gain themselves: there the likelihood is 10% too narrow."""
    network = network_of(coordinates, "rnn", "linear")
    broken = {"weight": 1.2} if coordinates == "weights" else {"readout": 1.2**2}
    p = family_wise(joint_p_values(network, successive_conditionals(network, coordinates, sampler, **broken)))
    print(f"p = {p:.2g}")
    assert p < LEVEL**2


@pytest.fixture
def fresh_machines():
    """Nothing compiled is left over, from before or for later."""
    for kept in (engine._machine, joint_chain):
        kept.cache_clear()
    yield
    for kept in (engine._machine, joint_chain):
        kept.cache_clear()


@slow
def test_joint_distribution_sees_a_wrong_prior(monkeypatch, fresh_machines):
    """Bartlett's theorem with N degrees of freedom in every row, where row i has N - i."""

    class Forgetful(kernel_space.LogChi):
        def __init__(self, degrees, width):
            super().__init__(np.full_like(degrees, width), width)

    monkeypatch.setattr(kernel_space, "LogChi", Forgetful)
    network = network_of("kernels", "rnn", "linear")
    p = family_wise(joint_p_values(network, successive_conditionals(network, "kernels", "nuts")))
    print(f"p = {p:.2g}")
    assert p < LEVEL**2


@slow
def test_joint_distribution_sees_a_wrong_metropolis_test(monkeypatch, fresh_machines):
    """Split HMC whose kinetic energy is 20% too small; without any, its chains would hardly move."""
    right = split_hmc._kinetic
    monkeypatch.setattr(split_hmc, "_kinetic", lambda momentum: 0.8 * right(momentum))
    network = network_of("fields", "rnn", "tanh")
    p = family_wise(joint_p_values(network, successive_conditionals(network, "fields", "hmc")))
    print(f"p = {p:.2g}")
    assert p < LEVEL**2


# Targets of order one

TARGETS = np.array([[1.0, -0.8], [-0.6, 1.2], [0.9, 0.4], [-1.1, 0.7]])


NEGLIGIBLE = 1e-10  # weight beside the largest; all draws that light together weigh less than 1e-5


@cache
def weighted_prior(network, batches):
    """Label -> (posterior mean, its standard error) by prior networks weighted with p(y | Phi), V integrated out; at
    least ``batches`` times 100 000 of them, and as many as are worth 2000 of the posterior."""
    rng = np.random.default_rng(2)
    logs, values = np.empty(0), {}
    while batches > 0 or effective_number(logs) < 2000:
        kernel, _, _ = draw_prior(network, BLANK, 100_000, rng)
        new = log_likelihood(network, BLANK, kernel, TARGETS)
        heavy = new > max(new.max(), logs.max(initial=-np.inf)) + np.log(NEGLIGIBLE)
        logs, kernel = np.append(logs, new[heavy]), kernel[heavy]
        for label, x in moments(network, kernel, conditional_mean(network, kernel)).items():
            values[label] = np.append(values.get(label, []), x)
        batches -= 1
    weight = normalised(logs)
    table = {}
    for label, x in values.items():
        mean = np.sum(weight * x)
        table[label] = mean, np.sqrt(np.sum(weight**2 * (x - mean) ** 2))
    return table


def normalised(logs):
    weight = np.exp(logs - logs.max(initial=-np.inf))
    return weight / weight.sum()


def effective_number(logs):
    return 1 / np.sum(normalised(logs) ** 2)


def conditional_mean(network, kernel):
    """E[f | Phi, y], (..., n, O)."""
    same_step = np.kron(np.eye(STEPS), np.ones((PATTERNS, PATTERNS)))
    prior = network.readout_gain**2 * (1 if "readout" in network.shared else same_step) * kernel
    rows = BLANK.supervised_entries
    cov = prior[..., rows[:, None], rows] + network.noise * np.eye(len(rows))
    return prior[..., rows] @ np.linalg.solve(cov, np.broadcast_to(TARGETS, (*cov.shape[:-2], *TARGETS.shape)))


def moments(network, kernel, output):
    """The quantities linear in the output, so that E[f | Phi, y] may stand in for f, and second moments of the rest."""
    found = quantities(network, BLANK, kernel, output, TARGETS)
    found = {label: x for label, x in found.items() if not label.startswith("size")}
    return found | {f"({label})^2": x**2 for label, x in found.items() if label.startswith("log ")}


def posterior_p_values(truth, assumed, coordinates, sampler, num_samples, batches):
    """z-tests of the posterior means of `sample` against `weighted_prior`."""
    settings = {"num_warmup": 300, "num_samples": num_samples, "seed": 4, "sampler": sampler, "progress": False}
    tree = sample(assumed, task_with(TARGETS), coordinates, **settings)
    expected = weighted_prior(truth, batches)
    p = {}
    for label, values in moments(truth, *flat_draws(tree)).items():
        assert az.ess(values) > 400, label
        mean, error = expected[label]
        error = np.hypot(error, az.mcse(values, method="mean"))
        p[label] = float(2 * scipy.stats.norm.sf(abs(values.mean() - mean) / error))
    return p


@slow
def test_strong_targets_see_a_wrong_readout_gain():
    """Fields of a tanh RNN with fewer neurons than entries, right, and with a readout gain that is 20% off."""
    network, wrong = network_of("fields", "rnn", "tanh"), network_of("fields", "rnn", "tanh", readout_gain=1.2 * 1.2)
    assert family_wise(posterior_p_values(network, network, "fields", "hmc", 1000, 4)) > LEVEL
    assert family_wise(posterior_p_values(network, wrong, "fields", "hmc", 1000, 4)) < LEVEL**2


@slow
@pytest.mark.parametrize(("coordinates", "sharing", "activation", "sampler"), CASES)
def test_strong_targets(coordinates, sharing, activation, sampler):
    network = network_of(coordinates, sharing, activation)
    p = family_wise(posterior_p_values(network, network, coordinates, sampler, 2000, 10))
    print(f"p = {p:.2g}")
    assert p > LEVEL
