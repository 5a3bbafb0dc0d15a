"""Architectures in theory: reference numbers, a published table, closed forms of the lazy limit, symmetries, errors."""

import jax
import numpy as np
import pytest
from noise_energy import hessian, kernel_of_coordinates, pack
from small_problems import chain, sequence

import theory
from theory import Connection, Drift, Network
from theory.model import build_model
from theory.response import factorise, inverse_factor
from theory.symmetry import mirror_signs


def diagonal(solution):
    n = solution.model.entries
    return np.diagonal(solution.kernel.reshape(n, n))


REFERENCE = {
    "partly shared": ({"shared": {"recurrent": 0.9}}, 4.3, 1.440517, [2.29975, 5.67928, 14.02511]),
    "leak": ({"leak": 0.7}, 3.0, 1.8789292, [1.25467, 2.48947, 5.56537]),
    "two layers": ({"layers": 2}, 4.3, 0.8011161, [1.82802, 2.30457, 2.89000, 8.32892, 3.65069, 22.13005]),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_numbers(name):
    """A chain of three steps, kappa = .1, gains 1: free energy and diagonal kernels, found by other means."""
    settings, signal, free_energy, kernels = REFERENCE[name]
    solution = theory.solve(Network.rnn(1, noise=0.1, **settings), chain(3, signal))
    assert solution.converged
    assert solution.free_energy == pytest.approx(free_energy, abs=6e-7)
    np.testing.assert_allclose(diagonal(solution), kernels, atol=6e-6)


def test_overlaps_of_a_leaky_and_of_a_partly_shared_network():
    leaky = theory.solve(Network.rnn(1, noise=0.1, leak=0.7), chain(3, 3.0))
    partly = theory.solve(Network.rnn(1, noise=0.1, shared={"recurrent": 0.9}), chain(3, 4.3))
    for solution, expected in ((leaky, [0.67419, 0.91539]), (partly, [0.28640, 0.50675])):
        scale = np.sqrt(diagonal(solution))
        overlap = solution.kernel.reshape(3, 3) / np.outer(scale, scale)
        np.testing.assert_allclose([overlap[0, 1], overlap[1, 2]], expected, atol=6e-6)


PUBLISHED = {
    1: [1.6125247, 10.502992, 100.491295],
    2: [2.140142, 24.987692, 478.84778],
    4: [3.0697005, 57.14219, 1810.5612],
}


@pytest.mark.parametrize("layers", PUBLISHED)
def test_the_published_table_of_deep_linear_networks(layers):
    """The last kernel of a deep network at kappa = .01 and signals 1, 10, 100, printed in float32.

    Source: Lauditi, Bordelon, Pehlevan 2025 (arXiv 2502.07998).
    """
    network = Network.dnn(1, noise=0.01)
    for signal, kernel in zip((1.0, 10.0, 100.0), PUBLISHED[layers], strict=True):
        solution = theory.solve(network, chain(layers, signal), starts=0)
        assert diagonal(solution)[-1] == pytest.approx(kernel, rel=3e-7)


def old_network(**settings):
    return Network(1, recurrent_gain=1.2, input_gain=0.8, readout_gain=1.1, noise=0.2, **settings)


@pytest.mark.parametrize("shared", [("recurrent", "input", "readout"), (), ("recurrent",)], ids=str)
def test_old_networks_are_special_cases_to_the_last_digit(shared):
    plain = theory.solve(old_network(shared=shared), sequence(), starts=1)
    degrees = {name: float(name in shared) for name in ("recurrent", "input", "readout", "bias", "feedforward")}
    trivial = {"leak": 1.0, "bias_gain": 0.0, "process_noise": 0.0, "residual": 0.0, "layers": 1, "delay": 1}
    again = theory.solve(old_network(shared=degrees, **trivial), sequence(), starts=1)
    np.testing.assert_array_equal(again.kernel, plain.kernel)
    assert again.free_energy == plain.free_energy
    listed = [
        Connection("recurrent", "activity", [None, 0, 1], 1.2, None if "recurrent" in shared else np.eye(3)),
        Connection("input", "input", [0, 1, 2], 0.8, None if "input" in shared else np.eye(3)),
        Connection("readout", "output", [0, 1, 2], 1.1, None if "readout" in shared else np.eye(3)),
    ]
    general = theory.solve(Network(1, noise=0.2, readout_gain=1.1, connections=listed), sequence(), starts=1)
    np.testing.assert_array_equal(general.kernel, plain.kernel)


def arcsine(cov):
    scale = np.sqrt(1 + 2 * np.diagonal(cov))
    return 2 / np.pi * np.arcsin(2 * cov / np.outer(scale, scale))


def arc_cosine(cov):
    scale = np.sqrt(np.diagonal(cov))
    angle = np.arccos(np.clip(cov / np.outer(scale, scale), -1, 1))
    return np.outer(scale, scale) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)


@pytest.mark.parametrize(("activation", "closed_form"), [("erf", arcsine), ("relu", arc_cosine)])
def test_lazy_limit_of_biased_residual_deep_networks(activation, closed_form):
    """C_l = C_{l-1} + gw^2 K(C_{l-1}) + gb^2; K: arcsine (Williams 1998) or arc-cosine kernel (Cho and Saul 2009)."""
    task = theory.Task(np.random.default_rng(0).normal(size=(3, 4, 2)) * [[[1], [0], [0], [0]]], np.ones((3, 4)))
    network = Network.dnn(1, activation=activation, residual=1.0, bias_gain=0.6, recurrent_gain=1.3)
    cov = task.inputs[:, 0] @ task.inputs[:, 0].T / 2 + 0.6**2
    found = theory.nngp(network, task)
    for step in range(4):
        if step:
            cov = cov + 1.3**2 * closed_form(cov) + 0.6**2
        np.testing.assert_allclose(found.preactivation_cov[step, :, step], cov, rtol=1e-10)
        np.testing.assert_allclose(found.kernel[step, :, step], closed_form(cov), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 2, "leak": 0.7, "bias_gain": (0.5, 0.3), "shared": {"recurrent": 0.6, "input": 1.0, "bias": 0.5}},
        pytest.param(
            {"delay": 2, "process_noise": 0.4, "shared": {"recurrent": Drift(2.0), "readout": 1.0}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["two leaky layers", "delay, noise, drift"],
)
def test_fluctuations_in_two_coordinate_systems(settings):
    """N Cov(Phi) = J (d^2 F)^{-1} J^T in noise coordinates, which share nothing but the free energy with the action."""
    solution = theory.solve(Network(500, **settings), sequence(), starts=0)
    n = solution.model.entries
    with jax.enable_x64(True):
        model = build_model(solution.network, solution.task).on_device()
        noise_of = inverse_factor(factorise(solution.preactivation_cov.reshape(n, n)))
        coordinates = pack(np.linalg.cholesky(noise_of @ solution.kernel.reshape(n, n) @ noise_of.T))
        curvature = np.asarray(hessian(coordinates, model))
        jacobian = np.asarray(jax.jacrev(lambda c: kernel_of_coordinates(model, c).ravel())(coordinates))
    expected = jacobian @ np.linalg.solve(curvature, jacobian.T)
    found = 500 * theory.fluctuations(solution).kernel_cov.reshape(n * n, n * n)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


SIGNS = {
    "chain": ({}, [[1, -1, 1, -1]]),
    "not shared": ({"shared": ()}, []),
    "leak": ({"leak": 0.5}, []),
    "shared bias": ({"bias_gain": 0.5}, []),
    "own biases": ({"bias_gain": 0.5, "shared": {"recurrent": 1.0, "input": 1.0, "readout": 1.0}}, [[1, -1, 1, -1]]),
    "partly shared": ({"shared": {"recurrent": 0.3}}, [[1, -1, 1, -1]]),
    "process noise": ({"process_noise": 0.5}, [[1, -1, 1, -1]]),
    "two layers": ({"layers": 2}, [[1, 1, -1, -1, 1, 1, -1, -1]]),
    "ReLU": ({"activation": "relu"}, []),
}


@pytest.mark.parametrize("name", SIGNS)
def test_sign_changes(name):
    """Of a chain of four steps, input at the first and target at the last."""
    settings, expected = SIGNS[name]
    found = mirror_signs(
        Network.rnn(1, **settings) if "shared" not in settings else Network(1, **settings), chain(4, 1.0)
    )
    assert found.tolist() == expected


def test_sign_changes_leave_the_free_energy_as_it_is():
    """Every image of a kernel that breaks them all has the same covariances up to the signs."""
    task = chain(5, 1.0)
    network = Network.rnn(1, delay=2)
    signs = mirror_signs(network, task)
    assert len(signs)
    with jax.enable_x64(True):
        model = build_model(network, task)
        kernel = np.cov(np.random.default_rng(0).normal(size=(5, 20)))
        for one in signs:
            image = np.outer(one, one)
            cov = theory.model.preactivation_cov(model, kernel)
            np.testing.assert_allclose(theory.model.preactivation_cov(model, kernel * image), cov * image, atol=1e-12)
            np.testing.assert_allclose(
                theory.model.data_term(model, kernel * image), theory.model.data_term(model, kernel), rtol=1e-12
            )


REFUSED = {
    "degree above one": ({"shared": {"recurrent": 1.5}}, r"shared\['recurrent'\] is 1.5.*from 0 to 1"),
    "degree that is no number": ({"shared": {"recurrent": True}}, r"shared\['recurrent'\] is True"),
    "unknown weights": ({"shared": {"W": 0.5}}, "shared contains 'W'"),
    "not positive semi-definite": (
        {"shared": {"recurrent": [[1, 0.9, 0], [0.9, 1, 0.9], [0, 0.9, 1]]}},
        "positive semi-definite",
    ),
    "no unit diagonal": ({"shared": {"recurrent": [[2.0, 0], [0, 1]]}}, "diagonal"),
    "not symmetric": ({"shared": {"recurrent": [[1, 0.5], [0, 1]]}}, "not symmetric"),
    "no leak": ({"leak": 0.0}, "leak is 0.0; it must be greater than 0 and at most 1"),
    "leak above one": ({"leak": 1.1}, "leak is 1.1"),
    "missing gains": ({"layers": 3, "recurrent_gain": [1.0, 2.0]}, "recurrent_gain has 2 numbers.*each of 3"),
    "negative bias": ({"bias_gain": -1.0}, "bias_gain is -1.0"),
    "delay": ({"delay": 0}, "delay is 0"),
    "no tau": ({"shared": {"recurrent": {"drift": 0}}}, "tau is 0"),
    "beside connections": (
        {"connections": [Connection("u", "input", [0])], "recurrent_gain": 2.0},
        "recurrent_gain is 2.0 beside connections",
    ),
    "no input": ({"connections": [Connection("w", "activity", [None, 0])]}, "nothing would stir"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_networks_refuse(name):
    settings, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        Network(8, **settings)


def test_what_connections_refuse():
    with pytest.raises(ValueError, match=r"source\[1\] is 1; a site can only read .* cycle"):
        Connection("w", "activity", [None, 1])
    with pytest.raises(ValueError, match="correlation has shape"):
        Connection("w", "activity", [None, 0], correlation=np.eye(3))
    with pytest.raises(ValueError, match="reads is 'noise'; allowed are"):
        Connection("w", "noise", [0])


def test_what_a_task_of_other_length_refuses():
    with pytest.raises(ValueError, match="correlation over 2 steps; the task has 3"):
        theory.solve(Network(8, shared={"recurrent": np.eye(2)}), chain(3, 1.0))
    listed = [Connection("u", "input", [0, 1])]
    with pytest.raises(ValueError, match=r"'u' has 2 places; on 3 steps with 1 layer\(s\) there are 3"):
        theory.solve(Network(8, connections=listed), chain(3, 1.0))
    with pytest.raises(ValueError, match="delay"):
        theory.solve(Network(8, delay=3), chain(3, 1.0))


@pytest.mark.parametrize(
    "settings",
    [
        {"shared": {"recurrent": 0.5, "input": Drift(2.0), "readout": [[1, 0.5], [0.5, 1]]}},
        {"layers": 2, "recurrent_gain": (1.0, 2.0), "feedforward_gain": 3.0, "leak": 0.5, "delay": 2, "residual": 1.0},
        {
            "connections": [
                Connection("w", "activity", [None, 0]),
                Connection("u", "input", [0, 1], [1.0, 2.0], np.eye(2)),
            ]
        },
    ],
    ids=["degrees", "layers", "connections"],
)
def test_plain_values_and_back(settings):
    import json

    network = Network(8, **settings)
    again = Network.from_dict(json.loads(json.dumps(network.to_dict())))
    assert again == network
    assert hash(again) == hash(network)
    assert network.replace(width=9) != network


def test_files_of_before():
    """Version 0.1.0 stored three names; what there is not makes no difference."""
    stored = {"width": 8, "activation": "tanh", "shared": ["recurrent", "input", "readout"], "noise": 0.1}
    assert Network.from_dict(stored) == Network.rnn(8, activation="tanh")
    assert Network.from_dict({**stored, "shared": []}) == Network.dnn(8, activation="tanh")
