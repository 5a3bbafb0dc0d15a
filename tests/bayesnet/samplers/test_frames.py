"""Frames: a Gaussian becomes white, mirror images are the same state, and whatever the frame the draws are exact."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from literal_network import draw_prior, log_likelihood, quantities
from numpyro.infer.util import ParamInfo

from bayesnet import Network, sample, tasks
from bayesnet.samplers.frames import fit_frame, place, plain_frame, redraw_reflection, upright, wall_energy
from bayesnet.samplers.split_hmc import split_hmc


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def state_at(frame, w, energy):
    """A sampler's state at w, evaluated."""
    init, _ = split_hmc(lambda frame: lambda w: energy(upright(frame, w)) + wall_energy(frame, w))
    potential = jax.value_and_grad(lambda w: energy(upright(frame, w)) + wall_energy(frame, w))
    return init(ParamInfo(w, *potential(w)), 0, rng_key=jax.random.key(0))


@pytest.fixture(scope="module")
def gaussian():
    """Mean, precision and energy of a Gaussian of "a" (3,) and "b" (2,)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    precision, mean = root @ root.T + np.eye(5), rng.normal(size=5)

    def energy(x):
        distance = jnp.concatenate([x["a"], x["b"]]) - mean
        return distance @ precision @ distance / 2

    return mean, precision, energy


def test_a_gaussian_is_white_in_its_frame(gaussian):
    mean, _, energy = gaussian
    w = {"a": jnp.array([1.0, 0.0, 2.0]), "b": jnp.array([-1.0, 0.5])}
    frame, state = fit_frame(plain_frame(jnp.ones(5)), state_at(plain_frame(jnp.ones(5)), w, energy), energy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), place(frame, state.z), w)
    np.testing.assert_allclose(frame.centre, mean, atol=1e-10)
    hessian = jax.hessian(lambda flat: energy(upright(frame, {"a": flat[:3], "b": flat[3:]})))(jnp.zeros(5))
    np.testing.assert_allclose(hessian, np.eye(5), atol=1e-10)


def test_hessians_are_averaged():
    """The frame of two states is that of their mean Hessian."""

    def energy(x):
        return jnp.sum(jnp.cosh(x["a"]))

    plain = plain_frame(jnp.ones(1))
    first, _ = fit_frame(plain, state_at(plain, {"a": jnp.array([1.0])}, energy), energy)
    both, _ = fit_frame(
        first, state_at(first, {"a": (jnp.array([2.0]) - first.centre) / first.stretch}, energy), energy
    )
    np.testing.assert_allclose(both.stretch**-2, (np.cosh(1) + np.cosh(2)) / 2)
    assert both.number == 2


def slanted(x, sign):
    a, b = x["x"][0], sign * x["x"][1]
    return 2 * (a - 0.8 * b) ** 2 + (b - 1.2) ** 2


def two_wells(x):
    """Two Gaussians at x[1] = +-1.2, slanted: mirror images of each other under D = diag(1, -1)."""
    return -jnp.logaddexp(-slanted(x, 1), -slanted(x, -1))


def well_frame():
    plain = plain_frame(jnp.array([1.0, -1.0]))
    return fit_frame(plain, state_at(plain, {"x": jnp.array([1.5, 1.9])}, two_wells), two_wells)


def test_the_image_of_a_state_needs_no_new_evaluation():
    frame, _ = well_frame()
    turns = []
    for seed, w in enumerate(np.random.default_rng(2).normal(scale=3, size=(40, 2))):
        state = state_at(frame, {"x": jnp.asarray(w)}, two_wells)
        turned_frame, turned = redraw_reflection(frame, state, jax.random.key(seed))
        again = state_at(turned_frame, turned.z, two_wells)
        np.testing.assert_allclose(turned.potential_energy, again.potential_energy)
        np.testing.assert_allclose(turned.z_grad["x"], again.z_grad["x"], atol=1e-10)
        np.testing.assert_allclose(place(turned_frame, turned.z)["x"], place(frame, state.z)["x"], atol=1e-10)
        turns.append(bool(turned_frame.reflected))
    assert 5 < sum(turns) < 35


def chain_in_wells(frame, state, number, with_wall=True):
    """Draws of x (number, 2) by split HMC in the frame, and how often it was reflected."""

    def generate(frame):
        wall = wall_energy if with_wall else (lambda frame, w: 0.0)
        return lambda w: two_wells(upright(frame, w)) + wall(frame, w)

    _, step = split_hmc(generate)

    def one(carry, key):
        frame, state = carry
        state = step(state, (frame,), {})
        frame, state = redraw_reflection(frame, state, key)
        return (frame, state), (place(frame, state.z)["x"], frame.reflected)

    keys = jax.random.split(jax.random.key(1), number)
    return jax.jit(lambda frame, state: jax.lax.scan(one, (frame, state), keys)[1])(frame, state)


def two_well_means():
    """E of x0^2, x1^2, x0 x1 and cos x1 by quadrature."""

    def mean(function):
        def weighted(b, a):
            x = np.array([a, b])
            energies = [2 * (a - 0.8 * s * b) ** 2 + (s * b - 1.2) ** 2 for s in (1, -1)]
            return function(x) * np.exp(np.logaddexp(-energies[0], -energies[1]))

        return scipy.integrate.dblquad(weighted, -8, 8, -8, 8, epsabs=1e-9)[0]

    total = mean(lambda x: 1.0)
    return np.array([mean(function) / total for function in MOMENTS])


NUMBER = 200_000
MOMENTS = [lambda x: x[0] ** 2, lambda x: x[1] ** 2, lambda x: x[0] * x[1], lambda x: np.cos(x[1])]


def largest_z(draws):
    columns = [function(np.asarray(draws).T) for function in MOMENTS]
    error = np.array([float(az.mcse(column[None], method="mean")) for column in columns])
    return np.max(np.abs(np.mean(columns, axis=1) - two_well_means()) / error)


def test_mirror_modes_are_drawn_as_they_should_be():
    """Against quadrature; without the wall in the potential the same chain is far off."""
    frame, state = well_frame()
    draws, reflected = chain_in_wells(frame, state, NUMBER)
    assert 0.2 < reflected.mean() < 0.8
    assert largest_z(draws) < 4
    wrong, _ = chain_in_wells(frame, state, NUMBER, with_wall=False)
    assert largest_z(wrong) > 8  # 3 with a tenth of the draws: it is a small error


@pytest.mark.parametrize("sampler", ["nuts", pytest.param("hmc", marks=pytest.mark.slow)])
def test_a_posterior_with_mirror_modes(sampler):
    """A linear RNN of four neurons, three steps, y = 1, against prior networks weighted by the likelihood."""
    network, task = Network.rnn(4, noise=0.3), tasks.chain(3, 1.0)
    kernel, output, _ = draw_prior(network, task, 200_000, np.random.default_rng(1))
    targets = task.supervised_targets
    weight = np.exp(log_likelihood(network, task, kernel, targets))
    weight /= weight.sum()
    tree = sample(network, task, "kernels", num_warmup=200, num_samples=2500, sampler=sampler, seed=2, progress=False)
    drawn = tree["posterior"]["kernel"].values.reshape(4, -1, 3, 3)
    answers = tree["posterior"]["prediction"].values.reshape(4, -1, 3, 1)
    true, found = (quantities(network, task, *parts, targets) for parts in ((kernel, output), (drawn, answers)))
    for label in sorted(label for label in true if "output" not in label and "errors" not in label):
        # Outputs are those of prior readouts there and of the posterior's here: left out.
        mean = weight @ true[label]
        error = np.hypot(np.sqrt(weight**2 @ (true[label] - mean) ** 2), az.mcse(found[label], method="mean"))
        assert abs(found[label].mean() - mean) < 4.5 * error, label
    signs = np.sign(drawn[..., 1, 0])
    assert 0.3 < (signs > 0).mean() < 0.7


def test_chains_in_lockstep_have_frames_of_their_own():
    """As when they run in turn: each frame is fitted at the states of its chain."""
    run = {"num_warmup": 100, "num_samples": 10, "num_chains": 2, "anneal": False, "sampler": "hmc", "progress": False}
    task, network = tasks.chain(2, 2.0), Network.rnn(16)
    in_turn, together = (
        sample(network, task, "kernels", chain_method=method, **run)["posterior"]["kernel"].to_numpy()
        for method in ("sequential", "vectorized")
    )
    np.testing.assert_allclose(together, in_turn, rtol=1e-6)
    assert not np.allclose(together[0], together[1])
