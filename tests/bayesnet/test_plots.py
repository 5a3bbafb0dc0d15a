"""bn.plots: every picture holds the numbers of its source."""

import json

import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from matplotlib.figure import Figure

import bayesnet as bn
import theory
from bayesnet.eigenvalue_cloud import prior_cloud
from bayesnet.plots.curves import kernel_density
from bayesnet.plots.style import COLOURS, observable_label

TASK = bn.tasks.chain(steps=3, signal=4.3)
RNN = bn.Network.rnn(32)
OBSERVABLE = bn.observables.diagonal_kernel(2, 0)


@pytest.fixture(scope="module")
def solution():
    return theory.solve(RNN, TASK)


@pytest.fixture(scope="module")
def draws():
    """Networks of random weights: no sampler is needed to look at a picture."""
    rng = np.random.default_rng(0)
    shapes = {"recurrent": (32, 32), "input": (32, 1), "readout": (1, 32)}
    scale = {"recurrent": 32**-0.5, "input": 1.0, "readout": 5.0}
    networks = [{name: scale[name] * rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(40)]
    return bn.from_weights(RNN, TASK, networks)


@pytest.fixture(scope="module")
def followed():
    return theory.continuation(RNN, bn.tasks.chain(steps=3, signal=1.0), [2.0, 3.5, 4.3])


def axes():
    return Figure().subplots()


def test_maps_show_the_kernel_and_its_overlaps(solution, draws):
    ax = axes()
    assert bn.plots.kernel(solution, ax=ax) is ax
    np.testing.assert_allclose(ax.images[0].get_array(), np.abs(solution.kernel.reshape(3, 3)))
    np.testing.assert_allclose(ax.images[0].get_clim(), (0, np.abs(solution.kernel).max()))
    kernels = draws["posterior"]["kernel"].to_numpy().reshape(-1, 3, 3)
    np.testing.assert_allclose(bn.plots.kernel(draws, ax=axes()).images[0].get_array(), np.sqrt((kernels**2).mean(0)))
    squares = draws["posterior"]["overlap"].to_numpy().reshape(-1, 3, 3) ** 2
    np.testing.assert_allclose(bn.plots.overlaps(draws, ax=axes()).images[0].get_array(), squares.mean(0))


def test_signs_are_shown_where_no_symmetry_turns_them():
    task = bn.Task(np.ones((2, 2, 1)) * [[[1.0]], [[-1.0]]], [[np.nan, 1.0], [np.nan, -1.0]])
    lazy = theory.nngp(bn.Network.rnn(32, leak=0.5), task)
    shown = bn.plots.overlaps(lazy, ax=axes()).images[0]
    assert shown.get_array()[0, 1] == pytest.approx(-1)
    assert shown.get_clim() == (-1, 1)


def test_predictions_show_theory_bands_and_targets(solution, draws):
    ax = bn.plots.prediction(draws, ax=axes(), label="mine")
    bn.plots.prediction(solution, ax=ax)
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_allclose(lines["RNN, theory"].get_ydata(), solution.prediction[0, :, 0])
    outputs = draws["posterior"]["prediction"].to_numpy()[0, :, 0, :, 0]
    # Of a chain the symmetry turns the steps at an odd distance from the supervised one.
    assert np.median(outputs[:, 2]) == pytest.approx(lines["mine"].get_ydata()[2])
    turned = np.sign(np.einsum("nss->n", np.diagonal(kernels_of(draws), 1, 1, 2)[:, None] * np.eye(2)))
    assert np.median(turned * outputs[:, 1]) == pytest.approx(lines["mine"].get_ydata()[1])
    assert lines["target"].get_xydata().tolist() == [[3.0, 4.3]]
    assert len({lines[name].get_color() for name in ("mine", "RNN, theory")}) == 2


def test_what_is_known_of_the_truth_is_shown_beside_the_targets():
    """Also where a part of it is unknown."""
    task = bn.Task(np.ones((1, 3, 1)), [[[0.5], [np.nan], [1.0]]], [[False, False, True]])
    ax = bn.plots.prediction(theory.nngp(RNN, task), ax=axes())
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines["target"] == [[3.0, 1.0]]
    assert lines["truth, not supervised"][0] == [1.0, 0.5]


def kernels_of(draws):
    return draws["posterior"]["kernel"].to_numpy().reshape(-1, 3, 3)


def test_densities_stand_on_the_draws_and_on_the_value_of_the_theory(solution, draws):
    ax = bn.plots.density(draws, OBSERVABLE, ax=axes(), color="C4")
    bn.plots.density(solution, OBSERVABLE, ax=ax, color="C4")
    curve, line = ax.get_lines()
    assert curve.get_color() == line.get_color() == "C4"
    assert ax.get_xlabel() == r"$\Phi$, $t = 3$, $\mu = 1$"
    values = kernels_of(draws)[:, 2, 2]
    assert line.get_xdata()[0] == pytest.approx(solution.kernel[2, 0, 2, 0])
    peak = curve.get_xdata()[np.argmax(curve.get_ydata())]
    assert np.quantile(values, 0.05) < peak < np.quantile(values, 0.95)


def test_the_spectrum_shows_every_eigenvalue_the_disc_and_the_outliers(solution, draws):
    ax = bn.plots.spectrum(draws, ax=axes())
    shown = np.asarray(ax.collections[0].get_offsets())
    given = np.linalg.eigvals(bn.draw_weights(draws, 0)["recurrent"][0])
    distance = np.abs(given[:, None] - (shown[:, 0] + 1j * shown[:, 1]))
    assert distance.min(axis=1).max() < 1e-9
    bn.plots.spectrum(solution, ax=ax)
    disc = next(line for line in ax.get_lines() if len(line.get_xdata()) == 200)
    np.testing.assert_allclose(np.hypot(*disc.get_xydata().T), theory.spectrum(solution).radius)


def test_free_energies_of_branches_and_along_a_parameter(solution, followed):
    marks = [line for line in bn.plots.free_energy(solution, ax=axes()).get_lines() if len(line.get_xdata())]
    assert [float(line.get_ydata()[0]) for line in marks] == [branch.free_energy for branch in solution.branches]
    assert [line.get_markerfacecolor() != "white" for line in marks] == [b.stable for b in solution.branches]
    up, down = bn.plots.free_energy(followed, ax=axes()).get_lines()
    np.testing.assert_allclose(up.get_ydata(), followed["free_energy"].sel(direction="up"))
    np.testing.assert_allclose(down.get_xdata(), [2.0, 3.5, 4.3])


def test_the_order_parameter_along_the_signal(solution, followed, draws):
    ax = bn.plots.overlap_along(followed, {4.3: draws}, ax=axes())
    up = ax.get_lines()[0]
    kernel = solution.kernel[:, 0, :, 0]
    assert up.get_ydata()[0] == pytest.approx(0, abs=1e-9)  # below the critical signal
    assert up.get_ydata()[-1] == pytest.approx(kernel[1, 2] ** 2 / (kernel[1, 1] * kernel[2, 2]), rel=1e-6)
    squares = draws["posterior"]["overlap"].to_numpy().reshape(-1, 3, 3)[:, *np.triu_indices(3, 1)] ** 2
    assert ax.containers[0].lines[0].get_ydata()[0] == pytest.approx(squares.max(axis=1).mean())
    for label, name in ((None, "RNN"), ("mine", "mine")):
        told = bn.plots.overlap_along(followed, {4.3: draws}, label=label, ax=axes()).get_legend().get_texts()
        assert [text.get_text() for text in told] == [f"{name}, theory", f"{name}, draws (90%)"]


def test_the_prior_is_a_source_and_colours_follow_one_another():
    prior = bn.sample_prior(RNN, TASK, num_samples=50, priors={"noise": dist.LogNormal(-2.0, 1.0)})
    observable = bn.observables.diagonal_kernel(0, 0)
    ax = axes()
    for _ in range(3):
        bn.plots.density(prior, observable, ax=ax)
    assert [line.get_color() for line in ax.get_lines()] == list(COLOURS[:3])
    assert ax.get_legend().get_texts()[0].get_text() == "RNN, prior, $N = 32$"
    ax = bn.plots.density(prior, "noise", ax=axes())
    assert r"\kappa" in ax.get_xlabel()
    assert len(ax.get_lines()) == 1


def test_the_spectrum_of_the_prior():
    """The circular law: eigenvalues fill a disc whose radius is the gain, their squared modulus uniformly."""
    network = RNN.replace(width=256, recurrent_gain=1.5)
    prior = bn.sample_prior(network, TASK, num_samples=2)
    cloud, again = prior_cloud(prior), prior_cloud(prior)
    np.testing.assert_array_equal(cloud.values, again.values)
    radius = np.abs(cloud.values)
    assert radius.max() == pytest.approx(1.5, abs=0.15)
    assert np.mean(radius**2) == pytest.approx(1.5**2 / 2, rel=0.1)
    assert cloud.singular_values[0] == pytest.approx(cloud.edge, rel=0.05)
    ax = bn.plots.spectrum(prior, ax=axes())
    assert ax.collections[0].get_offsets().shape == (256, 2)
    uncertain = bn.sample_prior(network, TASK, num_samples=2, priors={"recurrent_gain": dist.LogNormal(0.0, 1.0)})
    for source, reason in ((uncertain, "has a prior"), (bn.sample_prior(RNN, bn.tasks.chain(1, 1.0), 2), "one step")):
        with pytest.raises(ValueError, match=reason):
            bn.plots.spectrum(source)


def test_a_number_with_a_prior_is_shown_with_it(draws):
    sampled = draws.copy(deep=True)
    values = 2 + 0.1 * np.random.default_rng(1).normal(size=sampled["posterior"]["kernel"].shape[:2])
    group = sampled["posterior"].to_dataset()
    sampled["posterior"] = xr.DataTree(group.assign(noise=(("chain", "draw"), values)))
    sampled["priors"] = xr.DataTree(xr.Dataset({"noise": ("probability", np.linspace(1.0, 5.0, 99))}))
    sampled.attrs["priors"] = json.dumps({"noise": "Uniform(1, 5)"})
    prior, posterior = bn.plots.density(sampled, "noise", ax=axes()).get_lines()
    assert (prior.get_label(), posterior.get_label()) == ("prior", "RNN, posterior, $N = 32$")
    assert posterior.get_xdata()[np.argmax(posterior.get_ydata())] == pytest.approx(np.median(values), abs=0.1)
    assert np.average(prior.get_xdata(), weights=prior.get_ydata()) == pytest.approx(3.0, abs=0.1)


def test_differences_of_overlaps_and_what_is_squared(solution, draws):
    theirs = bn.observables.overlaps(solution.kernel).reshape(3, 3)
    ours = draws["posterior"]["overlap"].to_numpy().reshape(-1, 3, 3)
    for squared, power in ((None, 2), (True, 2), (False, 1)):
        shown = bn.plots.overlaps(draws, minus=solution, squared=squared, ax=axes()).images[0]
        expected = (ours**power).mean(axis=0) - theirs**power
        np.testing.assert_allclose(shown.get_array(), expected, atol=1e-12)
        assert shown.get_clim() == pytest.approx((-np.abs(expected).max(), np.abs(expected).max()))


def test_a_spectrum_and_eigenvalues_of_ones_own_are_sources(solution):
    predicted, given = theory.spectrum(solution), np.array([0.5j, -0.5j, 1.5])
    ax = bn.plots.spectrum(predicted, ax=bn.plots.spectrum(given, ax=axes(), label="mine"))
    np.testing.assert_allclose(np.asarray(ax.collections[0].get_offsets()), np.stack([given.real, given.imag], axis=1))
    squares = next(line for line in ax.get_lines() if line.get_label() == "theory: outliers")
    np.testing.assert_allclose(squares.get_xdata() + 1j * squares.get_ydata(), np.concatenate([*predicted.outliers]))


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("kernel[t=3, mu=1]", r"$\Phi$, $t = 3$, $\mu = 1$"),
        ("kernel_y[t=3, l=2]", r"$\Phi$ along $y$, $t = 3$, $\ell = 2$"),
        ("overlap^2_y[t=1,12]", "overlap$^2$ along $y$, $t = 1, 12$"),
        ("prediction^2[t=1, mu=2, o=3]", r"$f^2$, $t = 1$, $\mu = 2$, $o = 3$"),
        ("my own [unit=3]", "my own [unit=3]"),
    ],
)
def test_labels_are_in_mathematical_type(label, shown):
    assert observable_label(label) == shown


def test_without_axes_a_figure_is_made(solution):
    before = set(plt.get_fignums())
    ax = bn.plots.kernel(solution)
    assert ax.figure.number not in before
    plt.close(ax.figure)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: bn.plots.kernel(s.kernel), "source is ndarray; it must be a theory.Solution, or what bayesnet"),
        (lambda s: bn.plots.overlaps(s, ax="here"), "ax is str; it must be matplotlib axes, or None"),
        (lambda s: bn.plots.prediction(s, pattern=2), "pattern is 2"),
        (lambda s: bn.plots.prediction(s, output=0), "output is 0"),
        (lambda s: bn.plots.density(s, 3), "observables is"),
        (lambda s: bn.plots.density(s, "noise"), "observable is 'noise'; .* are allowed: none here"),
        (lambda s: bn.plots.density(s, OBSERVABLE, color="blueish"), "color is 'blueish'"),
        (lambda s: bn.plots.overlaps(s, squared=2), "squared is 2"),
        (lambda s: bn.plots.overlaps(s, minus=theory.nngp(RNN, TASK.scaled(2.0))), "minus belongs to another task"),
        (lambda s: bn.plots.spectrum(np.eye(2)), r"source has shape \(2, 2\)"),
        (lambda s: bn.plots.free_energy(s.kernel), "source is ndarray; it must be a Solution"),
        (lambda s: bn.plots.overlap_along(s), "Solution is not what theory.continuation returned"),
    ],
)
def test_bad_input_is_named(solution, call, message):
    with pytest.raises(ValueError, match=message):
        call(solution)


@pytest.mark.parametrize(("value", "width"), [(3.0, 3e-3), (-2.0, 2e-3), (0.0, 1e-6)])
def test_draws_that_are_all_equal_are_a_peak_that_can_be_seen(value, width):
    at, heights = kernel_density(np.full(7, value))
    np.testing.assert_allclose(at - value, [-width, 0, width], rtol=1e-9)
    assert heights.tolist() == [0, 1, 0]
