r"""The saddle points of a task, with error bars where they have any.

Linear networks, whose law is Gaussian, are minimised over Gaussian laws (`theory.gaussian.search`). Others:

1. Find starts: M neurons descend the free energy together (`theory.search.flow`).
2. Settle on laws and solve on them (`theory.search.problem`).
3. Repeat on independent draws: their mean is the answer, their scatter its statistical error. The residual is not: it
   says how well the problem of one set of draws was solved. Where some set has no root, all of them are solved
   together (`theory.search.common_root`).

Groups of at most three independent entries are integrated on a tensor grid instead, without statistical error; then
two grids take the place of the repetitions and their difference that of the error. Unshared weights make one group
of each step, and so does the symmetric branch where neither inputs nor readouts tie sites
(`theory.search.symmetry_breaking`).

Where so many entries are tied that the slope of the equations would not fit into memory, long flows take the place of
2. and 3. (`theory.search.flow_branches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

from theory.activations import Activation
from theory.clock import report, time_is_up
from theory.gaussian.saddle_point import SaddlePoint
from theory.gaussian.search import LinearProblem
from theory.model import Model
from theory.search.branch import Branch, Options, is_near, mirror_images, oddness, same_branch
from theory.search.flow_branches import branches_of_flows, follow_flow
from theory.search.problem import LostError, Problem, State, needs_flows
from theory.search.solve_branch import solve_branch
from theory.search.starts import Start, come_to_rest, leave_symmetric
from theory.search.stationarity import Root
from theory.search.symmetry_breaking import decoupled_model
from theory.seeds import part

FLOWING, SOLVING, SYMMETRIC, LEAVING, LED = range(5)  # places of `theory.seeds.part`


def find_branches(model: Model, phi: Activation, options: Options, images: np.ndarray | None = None) -> list[Branch]:
    """Every saddle point of a model that the starts lead to.

    Args:
        model: all of whose patterns and last sites matter, if phi is not linear.
        phi: the activation.
        options: of the search.
        images: the `mirror_images` of the model, where they are known.

    Raises:
        ValueError: if the kernels are not finite.
    """
    images = mirror_images(model, phi) if images is None else images
    if phi.linear:
        linear = LinearProblem(model, images, options.settings.gaussian)
        points = linear.find_saddle_points(options.starts, options.seed, options.kernels)
        return [_gaussian_branch(point, model, phi) for point in points]
    flows, seed = options.settings.flow, options.seed
    independent, coherent = Start(), Start(flows.coherence, flows.first_targets)
    if needs_flows(model, options.settings.branches):
        return branches_of_flows(model, phi, options, (independent, coherent) if len(images) else (independent,))

    solved = partial(_solved, model, options)

    def from_independent_noise(on: Model, seed: int) -> list[Branch]:
        report("flow of neurons from independent noise")
        attempts = (
            solved(
                *come_to_rest(on, phi, options, part(seed, FLOWING, attempt), attempt, independent),
                part(seed, SOLVING, attempt),
            )
            for attempt in range(flows.attempts)
            if not (attempt and time_is_up())
        )
        return next(filter(None, attempts), [])

    if not len(images):
        return from_independent_noise(model, seed)
    symmetric = from_independent_noise(decoupled_model(model), part(seed, SYMMETRIC))
    unstable = not any(branch.stable for branch in symmetric)
    for attempt in range(flows.attempts):
        lost = False
        if symmetric and time_is_up():
            return symmetric
        report("flow of neurons from coherent steps")
        # What is stable is left by nothing but a start far away.
        for number, start in enumerate((coherent, independent)[: 1 + unstable]):
            problem, state = come_to_rest(model, phi, options, part(seed, FLOWING, attempt, number), attempt, start)
            if oddness(state.kernel, model, phi) > options.settings.branches.broken:
                found = solved(problem, state, part(seed, SOLVING, attempt, number))
                if found and not (symmetric and same_branch(found[0], symmetric[0], options.settings.branches)):
                    return symmetric + found
                lost = lost or not found
        if not lost:
            break
    if symmetric and unstable:
        nearby = leave_symmetric(symmetric[0], problem, model, part(seed, LEAVING, FLOWING))
        if nearby is not None:
            return symmetric + solved(problem, nearby, part(seed, LEAVING, SOLVING))
    return symmetric


def branches_from(
    kernels: Sequence[np.ndarray], model: Model, phi: Activation, options: Options, known: Sequence[Branch]
) -> list[Branch]:
    """The saddle points downhill from kernels (n, n) each that are not among those known, of a network not linear.

    Args:
        kernels: near what is sought.
        model: all of whose patterns and last sites matter.
        phi: the activation.
        options: of the search.
        known: branches of this model.
    """
    found: list[Branch] = []
    if needs_flows(model, options.settings.branches):
        led = [Start(0.0, 1.0, kernel) for kernel in kernels]
        return branches_of_flows(model, phi, options._replace(seed=part(options.seed, LED)), led, known)
    for number, kernel in enumerate(kernels):
        if time_is_up():
            break
        report(f"flow of neurons towards kernel {number + 1}")
        seed, start = part(options.seed, LED, number), Start(0.0, 1.0, kernel)
        for attempt in range(options.settings.flow.attempts):
            with suppress(ValueError):  # a pull may be too strong for the step
                problem, state = come_to_rest(model, phi, options, part(seed, FLOWING, attempt), attempt, start)
                break
        else:
            continue
        if any(is_near(state.kernel, branch, options.settings.branches) for branch in [*known, *found]):
            continue
        for branch in _solved(model, options, problem, state, part(seed, SOLVING)):
            if not any(same_branch(branch, other, options.settings.branches) for other in [*known, *found]):
                found.append(branch)
    return found


def _solved(model: Model, options: Options, problem: Problem, state: State, seed: int) -> list[Branch]:
    """The branch that a state leads to, if it does."""
    try:
        return [solve_branch(problem, model, state, options.randomisations, seed)]
    except LostError:
        return []


def follow_branch(branch: Branch, model: Model, options: Options, points: int | None = None) -> Branch | None:
    """The branch on a model that differs at most in its numbers; None where it has turned unstable or ended.

    Of a linear network, and of one solved by long flows, where that happens, what lies below it. ``points`` in a set
    may be others than before.
    """
    found = branch.found
    if found is None:
        root = branch.roots[0]
        linear = LinearProblem(model, mirror_images(model, branch.phi), options.settings.gaussian)
        return _gaussian_branch(linear.follow(root.kernel), model, branch.phi)
    if found.flows:
        return follow_flow(branch, model, options._replace(points=points or found.problem.points))
    broken = options.settings.branches.broken
    cut = decoupled_model(model) if found.problem.model is not branch.model else model
    problem = replace(found.problem.with_model(cut), points=points or found.problem.points)
    try:
        followed = solve_branch(problem, model, found.state, options.randomisations, options.seed)
    except LostError:
        return None
    still_broken = any(oddness(root.kernel, model, branch.phi) > broken for root in followed.roots)
    was_broken = any(oddness(root.kernel, model, branch.phi) > broken for root in branch.roots)
    lost = max(root.residual for root in followed.roots) > problem.tolerance or still_broken != was_broken
    return None if lost or not followed.stable else followed


def _gaussian_branch(point: SaddlePoint, model: Model, phi: Activation) -> Branch:
    """The `Branch` of a linear network in closed form."""
    root = Root(point.kernel, point.conjugate, point.residual, 1.0, point.distance)
    return Branch(model, phi, (root,), (point.free_energy,), point.stable)
