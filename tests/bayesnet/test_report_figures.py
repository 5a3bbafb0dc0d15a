"""The figures of a report: all inputs and outputs of a task, words true for the network, files for a paper."""

import re

import numpy as np
import pytest

import bayesnet as bn
import theory
from bayesnet.comparison import Verdict
from bayesnet.diagnostics import summarise
from bayesnet.figures import picture
from bayesnet.figures.densities import invariants_picture
from bayesnet.figures.results import MOST_OUTPUTS, MOST_PANELS, overlaps_picture, predictions_picture, spectrum_picture
from bayesnet.figures.tasks import MOST_PATTERNS, task_overview, task_picture
from bayesnet.plots.style import COLOURS
from bayesnet.report_content import Run

RNG = np.random.default_rng(0)
CHAIN = bn.tasks.chain(3, 1.0)


@pytest.fixture
def unwritten(monkeypatch):
    """For what asks for the axes and the words only: writing figures is what takes time."""
    monkeypatch.setattr(picture, "_written", lambda figure, form: b"")


def made(name, network, task, solution=None, number=8):
    """A run of networks of random weights: no sampler is needed to look at a picture."""
    shapes = {
        "recurrent": (network.width, network.width),
        "input": (network.width, task.input_dim),
        "readout": (task.output_dim, network.width),
    }
    given = [{key: RNG.normal(size=shape) for key, shape in shapes.items()} for _ in range(number)]
    posterior = bn.from_weights(network, task, given)
    return Run(name, posterior, solution, network, task, summarise(posterior), Verdict("PASS", "", []))


def images(task):
    """The arrays drawn by the overview of a task, by the title of their axes."""
    axes = task_overview(task).axes
    return {ax.get_title(): np.ma.filled(ax.images[0].get_array(), np.nan) for ax in axes if ax.images}


def test_targets_of_all_outputs_and_inputs_at_all_steps_are_shown():
    inputs, targets = RNG.normal(size=(3, 4, 2)), RNG.normal(size=(3, 4, 5))
    targets[:, 0] = np.nan
    shown = images(bn.Task(inputs, targets))
    for output in range(5):
        np.testing.assert_array_equal(
            shown["Targets; dots: supervised"][3 * output : 3 * output + 3], targets[..., output]
        )
    for pattern in range(3):
        np.testing.assert_array_equal(shown["Inputs"][2 * pattern : 2 * pattern + 2], inputs[pattern].T)


def test_every_figure_is_written_as_svg_and_pdf(tmp_path):
    network, task = bn.Network.rnn(8), bn.tasks.chain(2, 1.0)
    shapes = {"recurrent": (8, 8), "input": (8, 1), "readout": (1, 8)}
    given = [{name: RNG.normal(size=shape) for name, shape in shapes.items()} for _ in range(8)]
    report = bn.report(bn.from_weights(network, task, given), None, tmp_path / "a.html", figures=tmp_path / "figures")
    titles = re.findall(r"<figure>\s*<h3>(.*?)</h3>", report.path.read_text())
    assert len(titles) >= 4
    expected = [f"{n:02d}-{title.lower().replace(' ', '-')}" for n, title in enumerate(titles, 1)]
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == sorted(f"{name}.{form}" for name in expected for form in ("pdf", "svg"))
    for path in (tmp_path / "figures").iterdir():
        start = path.read_bytes()[:200]
        assert start.startswith(b"%PDF-") if path.suffix == ".pdf" else b"<?xml" in start


def test_a_place_for_figures_that_is_none_is_refused_before_anything_is_drawn(tmp_path):
    network, task = bn.Network.rnn(4), bn.tasks.chain(2, 1.0)
    shapes = {"recurrent": (4, 4), "input": (4, 1), "readout": (1, 4)}
    tree = bn.from_weights(network, task, {name: np.ones(shape) for name, shape in shapes.items()})
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="figures"):
        bn.report(tree, None, tmp_path / "a.html", figures=tmp_path / "file")
    assert not (tmp_path / "a.html").exists()


def sequences(patterns, steps, outputs):
    """A task of random inputs at all steps, all of whose entries are supervised."""
    return bn.Task(RNG.normal(size=(patterns, steps, 2)), RNG.normal(size=(patterns, steps, outputs)))


def panels(shown):
    """The axes of a picture that show anything, by title."""
    assert shown.error == ""
    return {axes.get_title(): axes for axes in shown.figure.axes if axes.axison and axes.get_title()}


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize(("patterns", "outputs"), [(1, 1), (3, 2), (2, 3), (20, 2), (2, 9)])
def test_every_output_has_a_panel_or_the_caption_says_which_have(patterns, outputs):
    task = sequences(patterns, 2, outputs)
    made_picture = predictions_picture([made("net", bn.Network.rnn(8), task)])
    shown = panels(made_picture)
    numbers = [tuple(map(int, re.findall(r"\d+", title))) for title in shown]
    assert len(numbers) <= MOST_PANELS
    seen = {(n[0], n[1] if outputs > 1 else 1) for n in numbers}
    for what, index, number in (("patterns", 0, patterns), ("outputs", 1, outputs)):
        there = sorted({one[index] for one in seen})
        if len(there) == number:
            assert f"Shown are {what}" not in made_picture.caption
        else:
            assert len(there) >= (1 if what == "patterns" else MOST_OUTPUTS)
            assert {1, number} <= set(there) or len(there) == 1
            assert f"Shown are {what} {', '.join(map(str, there))} of {number}" in made_picture.caption
            assert f"{number - len(there)} are left out" in made_picture.caption
    for (pattern, output), axes in zip(sorted(seen), shown.values(), strict=True):
        target = next(line for line in axes.get_lines() if line.get_label() == "target")
        np.testing.assert_array_equal(target.get_ydata(), task.targets[pattern - 1, :, output - 1])


@pytest.mark.usefixtures("unwritten")
def test_inputs_that_are_left_out_are_said_to_be():
    assert "left out" not in task_picture(sequences(MOST_PATTERNS, 2, 1)).caption
    caption = task_picture(sequences(MOST_PATTERNS + 6, 2, 1)).caption
    assert f"Inputs of {MOST_PATTERNS} patterns" in caption
    assert "6 are left out" in caption


def captions(run):
    return " ".join(
        picture(run).caption
        for picture in (overlaps_picture, invariants_picture, predictions_picture, spectrum_picture)
    )


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("activation", ["linear", "tanh", "relu"])
def test_captions_are_true_for_the_activation(activation):
    """Mirror modes and squares are spoken of where the sign symmetry holds, theory where there is one."""
    run = made("net", bn.Network.rnn(8, activation=activation), CHAIN)
    text = captions([run])
    symmetric = theory.has_sign_symmetry(run.network, run.task)
    assert symmetric == (activation != "relu")
    for word in ("mirror", "Squares, because", "W → −W", "squared overlaps"):
        assert (word in text) == symmetric, word
    for word in ("linear", "infinite width", "Dashed", "theory"):
        assert word not in text, word


@pytest.mark.usefixtures("unwritten")
def test_captions_name_the_networks_that_they_are_true_of():
    runs = [made("second", bn.Network.rnn(8, activation="relu"), CHAIN), made("first", bn.Network.rnn(8), CHAIN)]
    text = captions(runs)
    assert "leaves the posterior of first as it is" in text
    assert "Draws of first are turned" in text
    assert "of second" not in text


@pytest.mark.usefixtures("unwritten")
def test_the_lazy_limit_is_not_said_to_be_what_densities_shrink_to():
    network = bn.Network.rnn(8)
    lazy = invariants_picture([made("net", network, CHAIN, theory.nngp(network, CHAIN))]).caption
    assert "vanishing targets" in lazy
    assert "shrink" not in lazy


@pytest.mark.usefixtures("unwritten")
def test_networks_stand_in_the_order_given_and_keep_their_colours():
    names = ["b", "c", "a"]
    runs = [made(name, bn.Network.rnn(8), CHAIN) for name in names]
    titles = [title for title in panels(spectrum_picture(runs)) if title]
    assert titles == names
    for shown_picture in (invariants_picture(runs), predictions_picture(runs)):
        legend = shown_picture.figure.legends[0]
        shown = {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.get_lines(), strict=True)}
        posteriors = [label for label in shown if label.endswith("networks")]
        assert posteriors == [f"{name}, networks" for name in names]
        assert [shown[label] for label in posteriors] == list(COLOURS[:3])
    assert [name for name in re.findall(r"(\w): ", overlaps_picture(runs).reading)] == names
