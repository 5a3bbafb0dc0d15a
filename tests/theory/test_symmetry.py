"""The relabelling symmetry: when there is one, and that its images are saddle points."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import theory
from theory import Network, Solution, Task
from theory.relabelling import find_relabelling, opposite_patterns, relabel
from theory.search.branch_solution import relabelled_images
from theory.symmetry import has_sign_symmetry
from theory.task_symmetries import images_of_task, symmetries_of_task


def endpoint(targets, inputs=None, steps=3, everywhere=False):
    """Patterns shown at step 1 (or at every step), targets at the last."""
    patterns = len(targets)
    shown = np.zeros((patterns, steps, patterns))
    if everywhere:
        shown = inputs
    else:
        shown[:, 0] = np.sqrt(patterns) * np.eye(patterns) if inputs is None else inputs
    wanted = np.full((patterns, steps), np.nan)
    wanted[:, -1] = targets
    return Task(shown, wanted)


RELU = Network(100, activation="relu", recurrent_gain=2**0.5)


def test_patterns_of_opposite_targets_are_exchanged():
    permutation = opposite_patterns(endpoint([1.0, 1.0, -1.0, 2.0, -2.0, -1.0, 0.0]))
    np.testing.assert_array_equal(permutation[permutation], np.arange(7))
    np.testing.assert_array_equal(permutation[[3, 4, 6]], [4, 3, 6])
    assert set(permutation[:2]) == {2, 5}


@pytest.mark.parametrize(
    ("change", "task"),
    [
        ({}, endpoint([1.0, -1.0, 1.0])),
        ({}, endpoint([1.0, -0.5])),
        ({}, endpoint([0.0, 0.0])),
        ({}, endpoint([1.0, -1.0], inputs=[[1.0, 0.0], [0.0, 2.0]])),
        ({"shared": ("input", "readout")}, endpoint([1.0, -1.0])),
        ({}, endpoint([1.0, -1.0], inputs=np.ones((2, 3, 1)) * [[[1]], [[-1]]], everywhere=True)),
        ({}, endpoint([1.0, -1.0], steps=1)),
    ],
    ids=["odd one out", "moduli", "no targets", "inputs", "unshared", "inputs at all steps", "one step"],
)
def test_there_may_be_none(change, task):
    assert find_relabelling(RELU.replace(**change), task) is None


@pytest.mark.parametrize("factor", [1e-10, 1e10])
@pytest.mark.parametrize("targets", [[1.0, -1.0], [1.0, -0.5]])
def test_units_do_not_matter(factor, targets):
    plain = opposite_patterns(endpoint(targets))
    other = endpoint(np.array(targets) * factor, inputs=np.array([[1.0, 0.0], [0.0, 1.0]]) * np.sqrt(2) * factor)
    np.testing.assert_array_equal(opposite_patterns(other), plain)
    unequal = endpoint(targets, inputs=np.array([[1.0, 0.0], [0.0, 2.0]]) * factor)
    assert opposite_patterns(unequal) is None


def test_unshared_inputs_and_readouts_tie_no_steps():
    everywhere = Task(np.tile(np.eye(2)[:, None], (1, 3, 1)), np.array([[1.0] * 3, [-1.0] * 3]))
    assert find_relabelling(RELU, everywhere) is None
    assert find_relabelling(RELU.replace(shared=("recurrent",)), everywhere) is not None


def test_what_is_the_same_for_all_patterns_ties_no_steps():
    """A bias, an input that no pattern differs in; neither allows W -> -W."""
    plain, task = find_relabelling(RELU, endpoint([1.0, -1.0])), endpoint([1.0, -1.0])
    biased = find_relabelling(RELU.replace(bias_gain=0.3), task)
    np.testing.assert_array_equal(biased.signs, plain.signs)
    context = np.concatenate([task.inputs, np.ones((2, 3, 1))], axis=2)
    np.testing.assert_array_equal(find_relabelling(RELU, Task(context, task.targets)).signs, plain.signs)
    assert not has_sign_symmetry(RELU.replace(bias_gain=0.3, activation="tanh"), task)
    differing = context * np.where(np.arange(3) == 1, [[1.0], [2.0]], 1.0)[..., None]
    assert find_relabelling(RELU, Task(differing, task.targets)) is None
    assert find_relabelling(RELU.replace(leak=0.5, bias_gain=0.3), task) is None


def test_a_first_pairing_that_leads_nowhere_is_taken_back():
    """Pattern 1 fits pattern 3, but 2 and 4 do not fit along with them: the pairs are 1 and 4, 2 and 3."""
    gram = [[2, 0.3, 0.1, 0.5], [0.3, 2, -0.2, 0.1], [0.1, -0.2, 2, 0.3], [0.5, 0.1, 0.3, 2]]
    inputs, targets = np.zeros((4, 3, 4)), np.full((4, 3), np.nan)
    inputs[:, 0], targets[:, -1] = np.linalg.cholesky(gram), [1, 1, -1, -1]
    np.testing.assert_array_equal(opposite_patterns(Task(inputs, targets)), [3, 2, 1, 0])


def test_relabelling_every_other_step():
    kernel = np.random.default_rng(0).normal(size=(5, 3, 2, 3, 2))
    swap, signs = np.array([1, 0]), np.array([1, -1, 1])
    image = relabel(kernel, swap, signs)
    np.testing.assert_array_equal(relabel(image, swap, signs), kernel)
    for repetition in range(5):
        for t in range(3):
            for s in range(3):
                rows, columns = ([1, 0] if step == 1 else [0, 1] for step in (t, s))
                np.testing.assert_array_equal(image[repetition, t, :, s], kernel[repetition, t][:, s][rows][:, columns])


def made_up(overlap, task):
    """A Solution whose steps correlate by ``overlap`` along the targets, its predictions those of the kernel."""
    along = np.outer([1, -1], [1, -1]) / 2
    same = np.eye(3)[:, None, :, None] * (np.eye(2) + along)[None, :, None, :]
    neighbours = (np.eye(3, k=1) + np.eye(3, k=-1))[:, None, :, None] * along[None, :, None, :]
    kernel = same + overlap * neighbours
    outputs = np.zeros((2, 3, 1))
    return Solution(RELU, task, kernel, 2 * kernel, 3 * kernel, 0.5, outputs, outputs, 1e-9, True, True, "found")


def test_the_image_of_a_solution():
    """Its kernels relabelled, its prediction of the kernel that it has; none where nothing changes."""
    solution = made_up(0.4, endpoint([3.0, -3.0]))
    (image,) = relabelled_images(solution)
    np.testing.assert_allclose(image.kernel, made_up(-0.4, solution.task).kernel)
    for name, factor in (("conjugate", 2), ("preactivation_cov", 3)):
        np.testing.assert_allclose(getattr(image, name), factor * image.kernel)
    assert image.free_energy == solution.free_energy
    # f_2 = Phi_{2, 3} A^{-1} y with A = Phi_33 + kappa
    dual = np.linalg.solve(image.kernel[2, :, 2] + RELU.noise * np.eye(2), [3.0, -3.0])
    np.testing.assert_allclose(image.prediction[:, 1, 0], image.kernel[1, :, 2] @ dual)
    assert not relabelled_images(made_up(0.0, solution.task))
    assert not relabelled_images(made_up(0.4, endpoint([3.0, -2.0])))


def matching(steps=3):
    """Four patterns, inputs of both signs at two steps, their product as the target."""
    signs = np.array([[a, b] for a in (1.0, -1.0) for b in (1.0, -1.0)])
    inputs, targets = np.zeros((4, steps, 1)), np.full((4, steps), np.nan)
    inputs[:, 0, 0], inputs[:, 1, 0], targets[:, -1] = signs[:, 0], signs[:, 1], signs.prod(axis=1)
    return Task(inputs, targets)


def test_permutations_that_leave_a_task_as_it_is():
    """All inputs turned; of orthogonal patterns any two of equal targets, or of opposite ones together."""
    (turned,) = symmetries_of_task(matching())
    np.testing.assert_array_equal(turned, [3, 2, 1, 0])
    found = {tuple(each.tolist()) for each in images_of_task(endpoint([1.0, 1.0, -1.0])).permutations}
    assert found == {(0, 1, 2), (1, 0, 2)}
    assert symmetries_of_task(endpoint([1.0, -2.0])) == []
    assert symmetries_of_task(endpoint([1.0] * 65)) == []


def circulant(values):
    """Patterns in a ring, inputs at two steps: x_1mu . x_2nu depends on nu - mu only."""
    patterns = len(values)
    inputs = np.zeros((patterns, 3, patterns))
    inputs[:, 0], inputs[:, 1] = np.eye(patterns), [np.roll(values, shift) for shift in range(patterns)]
    return Task(inputs, np.tile([np.nan, np.nan, 1.0], (patterns, 1)))


@pytest.mark.parametrize(
    ("task", "order", "odd"),
    [
        (endpoint([1.0] * 6), 720, 0),
        (endpoint([0.0] * 4), 24, 0),
        (endpoint([1.0, 1.0, 1.0, 2.0, 2.0, 3.0]), 12, 0),
        (endpoint([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]), 72, 36),
        (endpoint([1.0] * 4 + [-1.0] * 4), 1152, 576),
        (circulant([0.5, 0.2, 0.1, 0.3, 0.4]), 5, 0),  # no symmetry of a ring with a direction is an exchange
        (endpoint([1.0] * 7), 720, 0),  # of 5040 those that keep the first pattern in place
    ],
    ids=["six alike", "no targets", "three groups", "two signs", "most", "ring", "too many"],
)
def test_the_symmetries_of_a_task_are_a_group(task, order, odd):
    """Each member keeps inputs and targets, no two are the same, and products of two are members."""
    permutations, signs = images_of_task(task)
    members = {tuple(each): sign for each, sign in zip(permutations.tolist(), signs, strict=True)}
    assert len(permutations) == len(members) == order
    assert np.sum(signs < 0) == odd
    np.testing.assert_array_equal(permutations[0], np.arange(task.patterns))
    rng = np.random.default_rng(0)
    for one, other in rng.integers(order, size=(200, 2)):
        product = tuple(permutations[one][permutations[other]].tolist())
        assert members[product] == signs[one] * signs[other]
    for pi, sign in zip(permutations[:100], signs, strict=False):
        np.testing.assert_allclose(task.input_kernel[:, pi][..., pi], task.input_kernel, atol=1e-12)
        np.testing.assert_array_equal(task.targets[pi], sign * task.targets)


def test_a_saddle_point_that_breaks_a_symmetry_of_its_task_has_an_image():
    """Its kernels with the patterns exchanged at all sites, and its predictions with them."""
    task, rng = matching(), np.random.default_rng(0)
    network = Network(100, activation="tanh", bias_gain=0.5)
    root = rng.normal(size=(12, 12))
    kernel = (root @ root.T).reshape(3, 4, 3, 4)
    outputs = np.zeros((4, 3, 1))
    solution = Solution(network, task, kernel, kernel, kernel, 0.5, outputs, outputs, 1e-9, True, True, "found")
    (image,) = relabelled_images(solution)
    np.testing.assert_array_equal(image.kernel, kernel[:, ::-1, :, ::-1])
    dual = np.linalg.solve(kernel[2, :, 2] + network.noise * np.eye(4), task.targets[:, -1, 0])
    np.testing.assert_allclose(image.prediction[::-1, 1, 0], kernel[1, :, 2] @ dual)
    symmetric = (kernel + image.kernel) / 2
    assert not relabelled_images(replace(solution, kernel=symmetric))


def test_all_images_of_a_broken_symmetry_are_listed():
    """A kernel that tells three interchangeable patterns apart has six; one that singles out one of them three."""
    network = Network(100, activation="tanh", bias_gain=0.5)
    outputs = np.zeros((3, 3, 1))

    def kernels(of_patterns):
        kernel = np.einsum("ts,mn->tmsn", np.eye(3) + 0.5, np.diag(of_patterns) + 0.2)
        solution = Solution(
            network, endpoint([1.0] * 3), kernel, kernel, kernel, 0.5, outputs, outputs, 1e-9, True, True, "found"
        )
        images = [solution, *relabelled_images(solution)]
        return {tuple(np.diagonal(each.kernel[0, :, 0]).round(6).tolist()) for each in images}, images

    seen, images = kernels([1.0, 2.0, 3.0])
    assert seen == set(itertools.permutations((1.8, 3.3, 4.8)))
    assert len(images) == 6
    assert all(each.message.count("relabelled") == 1 for each in images[1:])
    assert len(kernels([1.0, 1.0, 3.0])[1]) == 3
    assert len(kernels([1.0, 1.0, 1.0])[1]) == 1


def test_images_of_an_odd_activation():
    """Without a bias the image is that of W -> -W, which is not listed; with one it is another saddle point."""
    solution = made_up(0.4, endpoint([3.0, -3.0]))
    odd = RELU.replace(activation="tanh")
    assert not relabelled_images(replace(solution, network=odd))
    assert len(relabelled_images(replace(solution, network=odd.replace(bias_gain=0.1)))) == 1


def test_both_images_of_a_biased_linear_network_are_listed_once():
    """The search finds them by itself, or the relabelling does: the one whose steps correlate first."""
    branches = theory.solve(Network(100, bias_gain=0.1), endpoint([3.0, -3.0])).branches
    first, second = (branch for branch in branches if branch.stable)
    assert np.trace(first.kernel[0, :, 1]) > 0.1 > -0.1 > np.trace(second.kernel[0, :, 1])
    np.testing.assert_allclose(second.kernel[0, ::-1, 1], first.kernel[0, :, 1], rtol=1e-6)


@pytest.mark.slow
def test_both_images_are_found_and_are_saddle_points():
    """Strong targets of both signs: neurons drawn from either law have its kernel. Weak ones: one saddle point."""
    solution = theory.solve(RELU, endpoint([3.0, -3.0]), points=4096)
    first, second = solution.branches
    assert first.free_energy == second.free_energy
    assert np.trace(first.kernel[0, :, 1]) > np.trace(second.kernel[0, :, 1])
    number = 200_000
    for branch in solution.branches:
        activity = np.maximum(branch.sample_neurons(number).reshape(number, 6), 0)
        drawn = activity.T @ activity / number
        scatter = np.sqrt(((activity**2).T @ activity**2 / number - drawn**2) / number)
        tolerance = 5 * np.hypot(scatter, branch.standard_error.reshape(6, 6))
        agree = [(np.abs(drawn - other.kernel.reshape(6, 6)) < tolerance).all() for other in solution.branches]
        assert agree == [branch is first, branch is second]
    assert len(theory.solve(RELU, endpoint([0.5, -0.5]), points=4096).branches) == 1
