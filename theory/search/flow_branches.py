r"""Saddle points of many tied entries: where long flows of neurons come to rest.

The stationarity equations of n tied entries have n (n + 1) unknowns, and the dense slope that solves them no longer
fits into memory (`BranchSettings.most_unknowns`). The flow of M neurons (`theory.search.flow`) needs no slope. Run for
long, its kernel is the saddle point's up to

- the fluctuations of its neurons: flows that start from neurons picked at random, with replacement, of a first one
  are averaged after they have settled; their scatter is the error;
- terms of order 1/M, by which the kernel at width M differs from that at infinite width. A flow of half as many
  neurons is off by twice as much, so that its distance from the others is as large as their own.

That distance, less what the scatter explains, and the scatter, each as root mean square over entries, are a floor of
the error of every entry: few flows know the scatter of all entries together better than that of each.

Phihat follows from the mean response Q. The residual is that of the kernels,

    |Phi - < phi phi^T >_q|,        q the law of C[Phi] and Phihat,

relative and as root mean square over entries, on neurons that are drawn independently of the flow. Of two sets of these
the product of the violations is averaged, in which their own scatter cancels.

A flow leaves what is unstable: saddle points found in this way are stable, and unstable ones are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from theory.activations import Activation
from theory.clock import report, time_is_up
from theory.kernels import scale_of
from theory.model import Model
from theory.response import factorise, inverse_factor
from theory.search.branch import Branch, Found, Options, are_near, is_near, mirror_images
from theory.search.long_flow import Rest, rest_of_flow
from theory.search.problem import LostError, Problem, make_laws, make_problem
from theory.search.settings import BranchSettings
from theory.search.solve_branch import free_energy_on_laws, mean_activity, neurons_of
from theory.search.starts import Start, first_noise, first_state
from theory.search.stationarity import Laws, Root, averages
from theory.seeds import part

STARTING, FLOWING, REPEATING, PICKING, LAWS, INTEGRATING, DRAWING = range(7)  # places of `theory.seeds.part`


def branches_of_flows(
    model: Model, phi: Activation, options: Options, starts: Sequence[Start], known: Sequence[Branch] = ()
) -> list[Branch]:
    """The stable saddle points that long flows come to from some starts, apart from those known.

    Args:
        model: all of whose patterns and last sites matter.
        phi: the activation, not linear.
        options: of the search; a flow has an eighth as many neurons as a set has points, each at eight times or more.
        starts: of the flows.
        known: branches of this model.

    Raises:
        ValueError: if the kernels are not finite.
    """
    scouted: list[Rest] = []
    found: list[Branch] = []
    near = partial(are_near, model=model, phi=phi, settings=options.settings.branches)
    step, neurons = options.settings.long_flow.step, options.points // options.settings.long_flow.points_per_neuron
    for number, start in enumerate(starts):
        if scouted and time_is_up():
            break
        report(f"long flow from start {number + 1} of {len(starts)}")
        seed = part(options.seed, number)
        noise = first_noise(model, start.coherence, neurons, np.random.default_rng(part(seed, STARTING)))
        rest = rest_of_flow(model, phi, options.settings, part(seed, FLOWING), noise, step, start)
        step = rest.step
        if any(is_near(rest.kernel, branch, options.settings.branches) for branch in known):
            continue
        if found and not rest.settled:
            break
        if not any(near(rest.kernel, other.kernel) for other in scouted):
            scouted.append(rest)
            found += _repeated(model, phi, options, rest, seed)
    return _distinct(found, known, options.settings.branches)


def _distinct(found: Sequence[Branch], known: Sequence[Branch], settings: BranchSettings) -> list[Branch]:
    """Branches that differ from those known, and from each other, by more than their errors, by increasing F.

    Along a soft mode two flows from different starts may be far apart and on their way to one saddle point.
    """
    distinct: list[Branch] = []
    # What has not settled is near everything, and its F means nothing.
    for branch in sorted(found, key=lambda branch: (not branch.stable, float(np.mean(branch.energies)))):
        kernel, error = _mean_kernel(branch), _largest_error(branch)
        others = [*known, *distinct]
        bounds = [replace(settings, same=settings.same + 3 * (error + _largest_error(other))) for other in others]
        if not any(is_near(kernel, other, bound) for other, bound in zip(others, bounds, strict=True)):
            distinct.append(branch)
    return distinct


def _mean_kernel(branch: Branch) -> np.ndarray:
    """Phi of a branch, the mean over its roots, (n, n)."""
    return np.mean([root.kernel for root in branch.roots], axis=0)


def follow_flow(branch: Branch, model: Model, options: Options) -> Branch | None:
    """The branch that neurons of another come to rest at, on a model that differs at most in its numbers.

    None where that has no law.
    """
    found = branch.found
    assert found is not None
    rng = np.random.default_rng(part(options.seed, STARTING))
    neurons = options.points // options.settings.long_flow.points_per_neuron
    inverse = inverse_factor(factorise(found.problem.cov(_mean_kernel(branch))))
    live = np.diagonal(inverse) > 0
    drawn = np.concatenate(found.neurons)
    noise = rng.normal(size=(model.entries, neurons))
    noise[live] = (inverse @ drawn[rng.integers(len(drawn), size=neurons)].T)[live]
    start, step = Start(0.0, 1.0), options.settings.long_flow.step
    rest = rest_of_flow(model, branch.phi, options.settings, part(options.seed, FLOWING), noise, step, start)
    led = _repeated(model, branch.phi, options, rest, options.seed)
    return led[0] if led else None


def _largest_error(branch: Branch) -> float:
    """The largest relative standard error of a branch's kernel."""
    kernels, distance = np.array([root.kernel for root in branch.roots]), branch.roots[0].distance
    scale = scale_of(kernels.mean(axis=0))
    scatter = kernels.std(axis=0, ddof=1) / np.sqrt(len(kernels))
    error = scatter if distance is None else np.maximum(scatter, distance)
    return float(np.max(error / np.outer(scale, scale)))


def _repeated(model: Model, phi: Activation, options: Options, rest: Rest, seed: int) -> list[Branch]:
    """The branch that a flow came to rest at, from further flows that start there; none where it has no law."""
    rng, neurons = np.random.default_rng(part(seed, PICKING)), rest.noise.shape[1]

    def another(number: int, neurons: int) -> Rest:
        noise = rest.noise[:, rng.integers(rest.noise.shape[1], size=neurons)]
        return rest_of_flow(model, phi, options.settings, part(seed, REPEATING, number), noise, rest.step)

    rests: list[Rest] = []
    while rest.settled and len(rests) < options.randomisations and not time_is_up():
        report(f"long flow {len(rests) + 1} of {options.randomisations}, {neurons} neurons each")
        rests.append(another(len(rests), neurons))
    rests, narrow = [each for each in rests if each.settled], None
    if len(rests) > 1 and not time_is_up():
        report(f"long flow of {neurons // 2} neurons")
        narrow = another(options.randomisations, neurons // 2)
    rests = rests if len(rests) > 1 else [rest]
    report("laws where the flows came to rest")
    rests = [_turned(each, model, phi, rest) for each in rests]
    kernel = np.mean([each.kernel for each in rests], axis=0)
    problem = make_problem(model, phi, kernel, options.points, options.settings)
    state = first_state(problem, kernel, np.mean([each.response for each in rests], axis=0))
    try:
        sets = [make_laws(problem, state, part(seed, LAWS, number)) for number in range(2)]
    except LostError:
        return []
    scale = scale_of(state.kernel)
    whole = np.outer(scale, scale)
    on_sets = [averages(state.kernel, state.conjugate, model, laws, problem.layout) for laws in sets]
    one, other = ((np.asarray(each[0]) - state.kernel) / whole for each in on_sets)
    residual = float(np.sqrt(abs(np.mean(one * other))))
    distance = whole
    if narrow is not None and narrow.settled:
        distance = whole * _off_by(rests, _turned(narrow, model, phi, rest), rest, whole)
    size = min(float(on_set[2]) for on_set in on_sets)
    own = [first_state(problem, each.kernel, each.response) for each in rests]
    roots = [Root(each.kernel, each.conjugate, residual, size, distance) for each in own]
    roots = roots * 2 if len(roots) == 1 else roots
    on = [sets[number % 2] for number in range(len(roots))]
    energy = partial(stationary_energy, problem)
    # At the mean kernel the error of F, which is quadratic, is smallest; the flows show how it scatters.
    middle = Root(state.kernel, state.conjugate, residual, size)
    seeds = [part(seed, INTEGRATING, number) for number in range(2 + len(roots))]
    at_middle = np.mean([energy(middle, *each) for each in zip(sets, seeds[:2], strict=True)])
    apart = np.array([energy(*each) for each in zip(roots, on, seeds[2:], strict=True)])
    energies = at_middle + apart - apart.mean()
    draws = [neurons_of(problem, root, on[r], part(seed, DRAWING, r)) for r, root in enumerate(roots)]
    means = [mean_activity(problem, root, on[r]) for r, root in enumerate(roots)]
    found = Found(problem, state, tuple(draws), tuple(means), False, neurons)
    return [Branch(model, phi, tuple(roots), tuple(energies.tolist()), rest.settled, found)]


def stationary_energy(problem: Problem, root: Root, laws: Laws, seed: int) -> float:
    """F in the form that is stationary in Phi and in Phihat, so that their errors enter squared:

        F = -ln Z[C[Phi], Phihat] - 1/2 tr(Phihat Phi) + data term.

    The divergence of q differs by 1/2 tr Phihat (Phi - <phi phi^T>_q), which vanishes on roots only.
    """
    met = np.asarray(averages(root.kernel, root.conjugate, problem.model, laws, problem.layout)[0])
    amiss = float(np.sum(root.conjugate * (met - root.kernel))) / 2
    return free_energy_on_laws(problem, root, laws, seed) + amiss


def _off_by(rests: Sequence[Rest], narrow: Rest, first: Rest, whole: np.ndarray) -> float:
    """The error of the mean kernel that all entries share, relative.

    By scatter, and by what it does not explain of the distance from a flow of half as many neurons, which is off by
    twice as much, or from the first flow, which all others start from.
    """
    kernels = np.array([each.kernel for each in rests]) / whole
    variance = kernels.var(axis=0, ddof=1).mean()
    # A flow of half as many neurons scatters by twice the variance, and so about does the first, which is shorter.
    scatter = variance * (1 / len(kernels) + 2)
    distances = [np.mean((kernels.mean(axis=0) - other.kernel / whole) ** 2) for other in (narrow, first)]
    return float(np.sqrt(variance / len(kernels) + max(max(distances) - scatter, 0.0)))


def _turned(rest: Rest, model: Model, phi: Activation, toward: Rest) -> Rest:
    """Of the mirror images of where a flow came to rest, that nearest to another."""
    images = mirror_images(model, phi)
    if not len(images):
        return rest
    signs = np.vstack([np.ones(model.sites), images])
    turned = [np.outer(*[np.repeat(e, model.patterns)] * 2) for e in signs]
    best = max(turned, key=lambda each: float(np.sum(each * rest.kernel * toward.kernel)))
    return replace(rest, kernel=rest.kernel * best, response=rest.response * best)
