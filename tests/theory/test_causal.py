"""The causal construction: its factor, its law, and its hand-written gradient, also where C[Phi] is singular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import Network, Task
from theory.activations import BUILT_IN
from theory.causal import kernel_of_noise, propagate, semidefinite_cholesky
from theory.model import build_model, preactivation_cov

P, T, D = 2, 3, 2
N_ENTRIES = P * T
WIDTH = 8
PHI = {name: activation.function for name, activation in BUILT_IN.items()}
SHARED = {"rnn": ("recurrent", "input", "readout"), "dnn": (), "partial": ("recurrent", "readout")}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def inputs_of(case):
    """Inputs (P, T, D) of the names below: C[Phi] is regular for "generic" and singular for all others."""
    x = np.random.default_rng(3).normal(size=(P, T, D))
    if case == "repeated patterns":
        x[1] = x[0]
    elif case == "repeated at first":
        x[1, 0] = x[0, 0]
    elif case == "collinear patterns":
        x[1] = -1.7 * x[0]
    elif case == "no input at first":
        x[:, 0] = 0
    elif case == "one pattern late":
        x[1, 0] = 0
    elif case == "first step only":
        x[:, 1:] = 0
    elif case == "no input at all":
        x[:] = 0
    return x


SINGULAR = ["repeated patterns", "repeated at first", "collinear patterns", "no input at first", "one pattern late"]
SINGULAR += ["no input at all"]


def terms_of(sharing="rnn", case="generic"):
    network = Network(WIDTH, shared=SHARED[sharing], recurrent_gain=1.2, input_gain=0.8)
    model = build_model(network, Task(inputs_of(case), np.zeros((P, T))))
    return model.on_device()


def noise_of(width=WIDTH, seed=0, draws=()):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*draws, N_ENTRIES, width)))


def reference_kernel(model, noise, phi, width):
    """H = L z with L = chol C[Phi(H)], refactored from scratch at every step: for regular C only."""
    activity = jnp.zeros((0, noise.shape[1]), noise.dtype)
    for known in range(P, N_ENTRIES + 1, P):
        padded = jnp.zeros((N_ENTRIES, noise.shape[1]), noise.dtype).at[: known - P].set(activity)
        cov = preactivation_cov(model, padded @ padded.T / width)[:known, :known]
        rows = jnp.linalg.cholesky(cov)[known - P :]
        activity = jnp.concatenate([activity, phi(rows @ noise[:known])])
    return activity @ activity.T / width


@jax.jit
def cost(kernel):
    """A scalar function of the kernel that is not symmetric in its entries."""
    weights = np.random.default_rng(9).normal(size=(N_ENTRIES, N_ENTRIES))
    return jnp.sum(weights * kernel) + jnp.sum(jnp.sin(kernel[:3]))


def loss(recurrent, drive, noise, model, phi, kernel_of=kernel_of_noise):
    model = model.replace(weights=(recurrent,), drive=drive)
    if kernel_of is reference_kernel:
        return cost(reference_kernel(model, noise, phi, noise.shape[1]))
    return cost(kernel_of(model, noise, phi, noise.shape[1]))


gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=(4, 5))
value = jax.jit(loss, static_argnums=(4, 5))


@pytest.mark.parametrize("case", ["generic", "first step only", *SINGULAR])
@pytest.mark.parametrize("name", ["linear", "tanh"])
def test_factor_is_that_of_its_own_kernel(name, case):
    """L L^T = C[Phi(H)], H = L z, Phi = phi(H) phi(H)^T / N; L lower triangular, zero columns where C is singular."""
    model, noise = terms_of(case=case), noise_of()
    h, activity, kernel, factor, _, inverse = propagate(model, noise, PHI[name], WIDTH)
    np.testing.assert_allclose(factor @ factor.T, preactivation_cov(model, kernel), rtol=0, atol=1e-12)
    regular = np.asarray(factor) + np.diag(np.diagonal(factor) == 0)
    np.testing.assert_allclose(inverse @ regular, np.eye(N_ENTRIES), rtol=0, atol=1e-12)
    np.testing.assert_allclose(h, factor @ noise, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(activity, PHI[name](h))
    np.testing.assert_allclose(kernel, activity @ activity.T / WIDTH, rtol=0, atol=1e-12)
    assert not np.triu(factor, 1).any()
    dead = np.diagonal(factor) == 0
    assert dead.any() == (case in SINGULAR)
    assert not np.asarray(factor)[:, dead].any()


@pytest.mark.parametrize("sharing", SHARED)
@pytest.mark.parametrize("name", ["linear", "tanh", "relu"])
def test_law_is_that_of_the_weights(name, sharing):
    """Means and second moments of the kernel against those of networks run with Gaussian weights, within 4 MCSE."""
    draws, width = 20000, WIDTH
    inputs = inputs_of("generic")
    rng = np.random.default_rng(55)
    numpy_phi = {"linear": lambda x: x, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[name]

    def copies(weight, *shape):
        one = weight in SHARED[sharing]
        matrix = rng.normal(size=(draws, 1 if one else T, *shape))
        return np.broadcast_to(matrix, (draws, T, *shape))

    recurrent = 1.2 / np.sqrt(width) * copies("recurrent", width, width)
    drive = 0.8 / np.sqrt(D) * copies("input", width, D)
    activity = np.zeros((draws, T, P, width))
    for t in range(T):
        h = np.einsum("dik,pk->dpi", drive[:, t], inputs[:, t])
        if t:
            h = h + np.einsum("dij,dpj->dpi", recurrent[:, t], activity[:, t - 1])
        activity[:, t] = numpy_phi(h)
    flat = activity.reshape(draws, N_ENTRIES, width)
    run = flat @ flat.transpose(0, 2, 1) / width
    drawn = jax.vmap(lambda z: kernel_of_noise(terms_of(sharing), z, PHI[name], width))(
        noise_of(seed=66, draws=(draws,))
    )
    for power in (1, 2):
        one, other = run**power, np.asarray(drawn) ** power
        error = np.sqrt((one.var(0) + other.var(0)) / draws)
        assert np.abs((one.mean(0) - other.mean(0)) / error).max() < 4


@pytest.mark.parametrize("sharing", SHARED)
def test_gradient_is_that_of_autodiff(sharing):
    """The adjoint in noise, recurrent and drive against autodiff through the refactoring reference."""
    model, noise = terms_of(sharing), noise_of()
    arguments = (model.weights[0], model.drive, noise, model, PHI["tanh"])
    np.testing.assert_allclose(value(*arguments), value(*arguments, reference_kernel), rtol=1e-12)
    for ours, theirs in zip(gradient(*arguments), gradient(*arguments, reference_kernel), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=1e-12)


def finite_difference(function, point, direction, step=1e-4):
    """Derivative along a direction, central differences of fourth order."""
    at = [float(function(point + k * step * direction)) for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)


def test_gradient_of_one_pattern():
    """Its pivots are numbers, whose adjoint is written apart; the first two steps have no input and no pivot."""
    inputs = np.array([0.0, 0.0, 1.0, 0.5])[None, :, None]
    network = Network(WIDTH, recurrent_gain=1.2)
    model = build_model(network, Task(inputs, np.ones((1, 4)))).on_device()
    weights, noise = np.random.default_rng(9).normal(size=(4, 4)), noise_of()[:4]
    function = jax.jit(lambda z: jnp.sum(weights * kernel_of_noise(model, z, PHI["tanh"], WIDTH)))
    direction = np.random.default_rng(2).normal(size=noise.shape)
    slope = np.sum(direction * jax.grad(function)(noise))
    assert slope == pytest.approx(finite_difference(function, noise, direction), rel=1e-8)


@pytest.mark.parametrize("width", [2, WIDTH])
@pytest.mark.parametrize("case", ["generic", *SINGULAR])
def test_gradient_in_the_noise_where_singular(case, width):
    """Against finite differences: repeated and collinear patterns, steps without input, fewer neurons than entries."""
    # A few nonlinear neurons on collinear patterns are nearly, not exactly, dependent: no finite difference holds.
    nearly_singular = case == "collinear patterns" and width == 2
    for name in ["linear"] if nearly_singular else ["linear", "tanh"]:
        model, noise = terms_of(case=case), noise_of(width)
        derivative = gradient(model.weights[0], model.drive, noise, model, PHI[name])[2]
        assert np.isfinite(derivative).all()
        for seed in range(3):
            direction = noise_of(width, seed=100 + seed)
            expected = finite_difference(
                lambda z: value(model.weights[0], model.drive, z, model, PHI[name]),  # noqa: B023
                noise,
                direction,
            )
            np.testing.assert_allclose(jnp.vdot(derivative, direction), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", SINGULAR)
def test_gradient_in_the_terms_where_singular(case):
    """Against finite differences in the gains, which leave the range of C as it is."""
    model, noise = terms_of(case=case), noise_of()
    bars = gradient(model.weights[0], model.drive, noise, model, PHI["tanh"])
    for i, direction in enumerate((model.weights[0], model.drive)):

        def along(step, i=i, direction=direction):
            moved = [model.weights[0], model.drive]
            moved[i] = moved[i] + step * direction
            return value(*moved, noise, model, PHI["tanh"])

        expected = finite_difference(along, 0.0, 1.0)
        np.testing.assert_allclose(jnp.vdot(bars[i], direction), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", ["generic", "repeated patterns", "no input at first"])
def test_float32(case):
    """Kernel and gradients in float32 against float64."""
    model, noise = terms_of(case=case), noise_of()
    exact = (value(*(arguments := (model.weights[0], model.drive, noise, model, PHI["tanh"]))), *gradient(*arguments))
    with jax.enable_x64(False):
        single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), model)
        arguments = (single.weights[0], single.drive, jnp.asarray(np.asarray(noise)), single, PHI["tanh"])
        rounded = (value(*arguments), *gradient(*arguments))
    # In a singular C the derivative by the model is one of many; only those in the noise are unique.
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == np.float32
        if case == "generic" or ours.shape != model.drive.shape:
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=3e-5)


def test_vmap():
    """A batch gives the gradients of its members, over noise and over model (RNN beside DNN)."""
    model = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(terms_of(sharing) for sharing in SHARED))
    noise = noise_of(draws=(len(SHARED),))
    batch = jax.vmap(lambda t, z: gradient(t.weights[0], t.drive, z, t, PHI["tanh"]))(model, noise)
    for i, sharing in enumerate(SHARED):
        one = terms_of(sharing)
        alone = gradient(one.weights[0], one.drive, noise[i], one, PHI["tanh"])
        for ours, theirs in zip(batch, alone, strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", ["generic", "repeated patterns"])
@pytest.mark.parametrize("sharing", SHARED)
def test_linear_networks_need_the_gram_matrix_of_the_noise_only(sharing, case):
    """The kernel of z (n, N) is that of any square factor R of z z^T."""
    model, noise = terms_of(sharing, case), noise_of(12)
    factor = jnp.linalg.cholesky(noise @ noise.T)
    ours = propagate(model, factor, PHI["linear"], 12).kernel
    np.testing.assert_allclose(ours, propagate(model, noise, PHI["linear"], 12).kernel, rtol=0, atol=1e-11)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_semidefinite_cholesky(rank):
    """L L^T = S for S of any rank, one zero column for each rank that is missing; chol S where S is regular."""
    half = np.random.default_rng(rank).normal(size=(5, rank))
    matrix = jnp.asarray(half @ half.T)
    factor = semidefinite_cholesky(matrix, jnp.diagonal(matrix))
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=0, atol=1e-12)
    assert int((np.diagonal(factor) > 0).sum()) == rank
    assert not np.asarray(factor)[:, np.diagonal(factor) == 0].any()
    if rank == 5:
        np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), rtol=0, atol=1e-10)
