"""Where the search for a branch starts: where the flow comes to rest, or just off an unstable symmetric branch."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from theory.activations import Activation
from theory.kernels import scale_of
from theory.laws.grid import ROUGHER
from theory.laws.law import range_of
from theory.model import Model, signal_of
from theory.search.branch import Branch, Options
from theory.search.broken_branch import walk
from theory.search.flow import Pull, flow, no_pull
from theory.search.problem import LostError, Problem, State, make_laws, make_problem, slope_on_laws, solve_on_laws
from theory.search.stationarity import conjugate_of
from theory.search.symmetric_branch import softest_of
from theory.seeds import key_of, part


class Start(NamedTuple):
    """Of a flow: the correlation of its noise between sites, the targets at first, the kernel that it is led to."""

    coherence: float = 0.0
    first_targets: float = 0.0
    kernel: np.ndarray | None = None


def come_to_rest(
    model: Model, phi: Activation, options: Options, seed: int, attempt: int, start: Start
) -> tuple[Problem, State]:
    """Where the flow comes to rest from a start, its step halved at each attempt."""
    (coherence, first_targets, towards), settings = start, options.settings.flow
    pull = no_pull(model.entries)
    if towards is not None:
        pull = Pull(jnp.asarray(towards), jnp.asarray(scale_of(towards)), jnp.asarray(settings.pull))
    noise = first_noise(model, coherence, settings.neurons, np.random.default_rng(part(seed, 0)))
    steps, step, key = settings.steps * 2**attempt, settings.step / 2**attempt, key_of(part(seed, 1))
    settled = flow(model, noise, key, phi.function, steps, step, first_targets, pull, settings.friction)
    kernel, response = map(np.asarray, settled)
    if not np.isfinite(kernel).all():
        raise ValueError(
            "network and task lead to kernels that are not finite; lower the gains or the targets, "
            "or use an activation that grows more slowly"
        )
    problem = make_problem(model, phi, kernel, options.points, options.settings)
    return problem, first_state(problem, kernel, response)


def first_noise(model: Model, coherence: float, neurons: int, rng: np.random.Generator) -> np.ndarray:
    """Noise z (n, M) of neurons, correlated by ``coherence`` between any two sites."""
    independent = rng.normal(size=(model.entries, neurons))
    common = np.tile(rng.normal(size=(model.patterns, neurons)), (model.sites, 1))
    return np.sqrt(1 - coherence) * independent + np.sqrt(coherence) * common


def first_state(problem: Problem, kernel: np.ndarray, response: np.ndarray) -> State:
    """The `State` where a flow came to rest, from its kernel and response Q, (n, n)."""
    layout = problem.layout
    kernel = np.where(layout.between, 0, kernel)
    cov = problem.cov(kernel)
    on_live = np.zeros_like(cov)
    for group in layout.groups:
        entries, live = np.array(group.entries), np.array(group.entries)[list(group.live)]
        if group.live:
            spread = np.asarray(range_of(cov[np.ix_(entries, entries)], group.live).spread)
            on_live[np.ix_(live, live)] = spread.T @ response[np.ix_(entries, entries)] @ spread
    return State(kernel, np.asarray(conjugate_of(jnp.asarray(kernel), jnp.asarray(on_live), problem.model, layout)))


def leave_symmetric(symmetric: Branch, problem: Problem, model: Model, seed: int) -> State | None:
    """A broken state near an unstable symmetric branch, too slightly broken for the flow; None if there is none."""
    found = symmetric.found
    assert found is not None
    try:
        laws = make_laws(found.problem, found.state, seed, ROUGHER)
        root = solve_on_laws(found.problem, found.state, laws, slope_on_laws(found.problem, found.state, laws))
    except LostError:
        return None
    softest = softest_of(found.problem, root, laws, model, odd_only=True)
    for step in walk(problem, signal_of(model), root, softest, 1.0, part(seed, 0)):
        if step.factor >= 1:
            return State(step.root.kernel, step.root.conjugate)
    return None
