"""Draws in modes that are images of one another under a symmetry of their task agree; those in other modes do not."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

import bayesnet as bn
from bayesnet.diagnostics import check_gates, evaluate_observables, summarise
from bayesnet.figures.densities import invariants_picture
from bayesnet.observables import default_observables, default_rows, directed_kernel, directed_overlap
from bayesnet.plots.sources import aligned_predictions, mean_of
from bayesnet.results import _moment_data, build_tree
from bayesnet.samplers.moments import Recorder
from bayesnet.task_images import Action, _exchange, image_near, turned_draws, turned_toward, values_of
from theory import Network, Solution, Task
from theory.jax_settings import own_settings
from theory.kernels import flat_of, outputs_of
from theory.model import build_model, output_law
from theory.relabelling import relabel
from theory.task_symmetries import images_of_task

STEPS = 2
SETTINGS = {"sampler": "hmc", "num_samples": 500, "max_tree_depth": 10}


def endpoint(targets):
    """Orthogonal patterns shown at the first of two steps; a target at the last."""
    inputs, answers = np.zeros((len(targets), STEPS, len(targets))), np.full((len(targets), STEPS), np.nan)
    inputs[:, 0], answers[:, -1] = np.eye(len(targets)), targets
    return Task(inputs, answers)


def network(**terms):
    return Network.rnn(64, activation="tanh", **terms)


PAIR, BIASED = endpoint([1.0, 1.0]), network(bias_gain=0.3)


def mode(patterns, seed):
    """A kernel and an output without any symmetry."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(STEPS * patterns, 2 * STEPS * patterns))
    kernel = (root @ root.T / root.shape[1]).reshape(STEPS, patterns, STEPS, patterns)
    return kernel, rng.normal(size=(patterns, STEPS, 1))


def image(kernel, outputs, permutation, sign=1):
    return relabel(kernel, permutation, -np.ones(STEPS)), sign * outputs[permutation]


def posterior_of(task, modes, chains_as=None, spread=0.02, moments=False, net=BIASED):
    """A posterior whose chains scatter around one mode each; ``chains_as`` (chain, draw) says which in each draw."""
    number, rng = task.patterns, np.random.default_rng(3)
    if chains_as is None:
        chains_as = np.repeat(np.arange(len(modes))[:, None], SETTINGS["num_samples"], axis=1)
    kernel, outputs = (np.stack(part)[chains_as] for part in zip(*modes, strict=True))
    shape = chains_as.shape
    root = np.linalg.cholesky(flat_of(kernel)) + spread * rng.normal(size=(*shape, STEPS * number, STEPS * number))
    outputs = outputs + spread * rng.normal(size=outputs.shape)
    record = {
        "kernel": root @ root.swapaxes(-1, -2),
        "prediction": outputs.swapaxes(2, 3).reshape(*shape, -1, 1),
        "log_likelihood_marginal": rng.normal(size=shape),
        "log_likelihood": rng.normal(size=(*shape, int(task.supervised.sum()), 1)),
    }
    kept = None
    if moments:
        recorder = Recorder(net, task, shape[1])
        taken = [
            recorder.take(recorder.start((), np.float64), {name: part[chain] for name, part in record.items()})
            for chain in range(shape[0])
        ]
        record = {name: np.stack([draws[name] for _, draws in taken]) for name in taken[0][1]}
        settings = SimpleNamespace(num_chains=shape[0])
        kept = _moment_data(net, task, settings, recorder.finish([one for one, _ in taken]))
    statistics = {name: rng.normal(size=shape) for name in ("lp", "step_size")}
    statistics |= {name: np.zeros(shape, dtype=int) for name in ("n_steps", "diverging")}
    tree = build_tree(net, task, record, statistics, None, 0, moments=kept)
    tree.attrs["settings"] = json.dumps(SETTINGS)
    return tree


def solution_of(task, kernel, outputs, net=BIASED):
    return Solution(net, task, kernel, kernel, kernel, 0.5, outputs, outputs, 1e-9, True, True, "found")


def r_hat_gate(tree):
    return next(gate for gate in check_gates(tree) if gate.name.startswith("R-hat"))


def test_the_group_of_a_task():
    """Any permutation of three alike patterns; signs follow the targets, and multiply."""
    for task, size in (
        (PAIR, 2),
        (endpoint([1.0] * 3), 6),
        (endpoint([1.0, 1.0, -1.0, -1.0]), 8),
        (endpoint([1, 2]), 1),
    ):
        images = images_of_task(task)
        assert len({tuple(each) for each in images.permutations.tolist()}) == len(images.signs) == size
        np.testing.assert_array_equal(images.permutations[0], np.arange(task.patterns))
        for permutation, sign in zip(images.permutations, images.signs, strict=True):
            np.testing.assert_array_equal(task.targets[permutation, -1], sign * task.targets[:, -1])


@pytest.mark.parametrize("net", [BIASED, network(), network(layers=2)], ids=["bias", "mirror", "layers"])
@pytest.mark.parametrize("targets", [[1.0, 1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
def test_what_images_make_of_the_default_observables(net, targets):
    """The observables of the permuted kernels and outputs, one by one."""
    task, rng = endpoint(targets), np.random.default_rng(0)
    sites, patterns = net.layers * STEPS, task.patterns
    root = rng.normal(size=(sites * patterns,) * 2)
    kernel, outputs = (root @ root.T).reshape((sites, patterns) * 2), rng.normal(size=(patterns, STEPS, 1))
    rows, images = default_rows(net, task), images_of_task(task)
    here, action = values_of(rows, kernel, outputs), Action.on(rows, images)
    for number, (permutation, sign) in enumerate(zip(*images, strict=True)):
        there = values_of(rows, relabel(kernel, permutation, -np.ones(sites)), sign * outputs[permutation])
        np.testing.assert_allclose(action.turn(here, np.array(number)), there, atol=1e-12)
    back = action.turn_back(here)
    for number in range(len(images.signs)):
        np.testing.assert_allclose(action.turn(back[number], np.array(number)), here, atol=1e-12)


@pytest.mark.parametrize("targets", [[1.0, 1.0], [1.0, -1.0], [1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
@pytest.mark.parametrize("moments", [False, True])
def test_chains_in_images_of_one_mode_agree(targets, moments):
    """Before they are turned they are many standard errors apart; turned, each says of a pattern what the others do."""
    task = endpoint(targets)
    one, images = mode(task.patterns, 1), images_of_task(task)
    rng = np.random.default_rng(0)
    chosen = [0, *rng.integers(len(images.signs), size=2), len(images.signs) - 1]
    modes = [image(*one, images.permutations[g], images.signs[g]) for g in chosen]
    tree = posterior_of(task, modes, moments=moments)
    assert r_hat_gate(tree).passed
    gate = check_gates(tree)[-1]
    assert gate.name == "images of one mode"
    assert gate.passed
    assert gate.detail.startswith("chain")
    assert " 0" in gate.detail.split(" as drawn")[0]
    # The truth: what the first chain says, which no relabelling has touched.
    table, first = summarise(tree), summarise(tree.isel(chain=[0]))
    error = 5 * np.hypot(table["mcse"], first["mcse"])
    assert (np.abs(table["mean"] - first["mean"]) <= error + 1e-12).all()
    alone = mean_of(tree.isel(chain=[0]), "overlap", 1)
    np.testing.assert_allclose(mean_of(tree, "overlap", 1), alone, atol=0.02)
    drawn = aligned_predictions(tree).reshape(len(chosen), -1, *one[1].shape)
    np.testing.assert_allclose(drawn.mean(axis=1), np.broadcast_to(one[1], (len(chosen), *one[1].shape)), atol=0.01)


def test_chains_in_other_modes_still_disagree():
    """A mode of its own, or one that an exchange at a single step would make, is no image."""
    one, other = mode(2, 1), mode(2, 2)
    swap = np.array([1, 0])
    partly = relabel(one[0], swap, np.array([1.0, -1.0])), one[1]
    for odd in (other, image(*other, swap), partly, (one[0], one[1][swap])):
        gate = r_hat_gate(posterior_of(PAIR, [one, image(*one, swap), one, odd]))
        assert not gate.passed
        assert ": chain 3 at " in gate.detail


def test_chains_that_change_between_images():
    """Every draw is turned, and the gate says that chains are at home nowhere."""
    one = mode(2, 1)
    visits = np.random.default_rng(0).integers(2, size=(4, SETTINGS["num_samples"]))
    tree = posterior_of(PAIR, [one, image(*one, np.array([1, 0]))], visits)
    assert r_hat_gate(tree).passed
    assert check_gates(tree)[-1].detail == "chains 0, 1, 2, 3 in several images"
    assert summarise(tree)["sd"].max() < 0.2


def test_draws_that_keep_the_symmetry_are_left_alone():
    """However widely they scatter; and nothing is turned where the task has none."""
    one = mode(2, 1)
    twin = image(*one, np.array([1, 0]))
    kept = (one[0] + twin[0]) / 2, (one[1] + twin[1]) / 2
    for spread in (0.02, 0.3):
        assert turned_draws(posterior_of(PAIR, [kept] * 4, spread=spread)) is None
    lopsided = endpoint([1.0, 2.0])
    tree = posterior_of(lopsided, [one, twin, one, one])
    assert turned_draws(tree) is None
    assert not r_hat_gate(tree).passed


def test_theory_is_compared_in_the_nearest_image():
    """Whichever image the solution is, and the draws of the first chain are."""
    kernel, _ = mode(2, 1)
    with own_settings():
        model = build_model(BIASED, PAIR)
        one = kernel, outputs_of(model.read_out(output_law(model, flat_of(kernel)).mean), PAIR)
    twin = image(*one, np.array([1, 0]))
    for first, known in itertools.product((one, twin), (one, twin)):
        second = twin if first is one else one
        tree = posterior_of(PAIR, [first, second, second, first], spread=0.002)
        solution = solution_of(PAIR, *known)
        near = image_near(solution, tree)
        np.testing.assert_array_equal(near.kernel, first[0])
        table = bn.compare(tree, solution)
        np.testing.assert_allclose(table["theory"], table["mean"], atol=0.02)


def test_networks_from_outside_are_turned_to_the_solution():
    """A single one, too; to a solution that keeps the symmetry none is."""
    one = mode(2, 1)
    twin = image(*one, np.array([1, 0]))
    kernels, outputs = (np.stack(part)[None] for part in zip(twin, one, strict=True))
    turned = turned_toward(solution_of(PAIR, *one), kernels, outputs)
    np.testing.assert_array_equal(turned.index, [[1, 0]])
    np.testing.assert_array_equal(turned.kernels(kernels)[0, 0], one[0])
    np.testing.assert_array_equal(turned.outputs(outputs)[0, 0], one[1])
    kept = (one[0] + twin[0]) / 2, (one[1] + twin[1]) / 2
    assert turned_toward(solution_of(PAIR, *kept), kernels, outputs) is None


def test_an_exact_zero_has_no_rounding_errors():
    """Terms that cancel: their rest has neither an R-hat nor an overlap."""
    signs = np.array([1.0, -1.0, -1.0, 1.0])
    odd = np.array([0.3, 1.1, -1.1, -0.3])  # its product with the direction vanishes
    kernel = np.tile(np.outer(odd, odd) + 1e-17, (2, 2)).reshape(2, 4, 2, 4)
    assert directed_kernel(0, signs / 2).evaluate(kernel, None) == 0
    assert directed_overlap(0, 1, signs / 2, False).evaluate(kernel, None) == 0
    kernel[0, 0, 0, 0] += 1e-9
    assert directed_kernel(0, signs / 2).evaluate(kernel, None) == pytest.approx(2.5e-10, rel=1e-5)


def test_what_vanishes_in_every_draw_is_left_out_of_the_figure():
    """Along the targets, on which the activities do not depend; unless the theory says that they do."""
    outer = np.outer([1.0, 1.0], [1.0, 1.0])
    kernel, outputs = np.broadcast_to(outer[None, :, None], (2, 2, 2, 2)) + 0.0, np.zeros((2, 2, 1))
    apart = endpoint([1.0, -1.0])
    tree = posterior_of(apart, [(kernel + np.eye(4).reshape(2, 2, 2, 2), outputs)] * 2)
    tree["posterior/kernel"] = tree["posterior"]["kernel"].copy(data=np.broadcast_to(kernel, (2, 500, 2, 2, 2, 2)))
    run = SimpleNamespace(posterior=tree, solution=None, task=apart, network=BIASED, name="RNN", table=range(9))
    picture = invariants_picture([run])
    assert "3 that vanish in every draw are left out" in picture.caption
    run.solution = solution_of(apart, kernel + np.eye(4).reshape(2, 2, 2, 2), outputs)
    assert "vanish" not in invariants_picture([run]).caption.replace("1 that vanish", "")


def test_labels_of_observables_that_were_recorded():
    """Moments and kernels of every draw give the same draws of each observable, turned or not."""
    one = mode(2, 1)
    modes = [one, image(*one, np.array([1, 0]))]
    observables = default_observables(BIASED, PAIR)
    every, recorded = (
        evaluate_observables(posterior_of(PAIR, modes, moments=moments), observables) for moments in (False, True)
    )
    for label, values in every.items():
        np.testing.assert_allclose(recorded[label], values, atol=1e-12)


def test_exchanged_patterns_are_told_as_cycles_counted_from_one():
    assert _exchange(np.array([0, 1, 2])) == "as drawn"
    assert _exchange(np.array([1, 0, 2, 4, 5, 3])) == "with patterns exchanged, (1 2)(4 5 6)"
