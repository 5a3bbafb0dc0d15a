"""The saddle point of the kernel theory: solve(network, task) -> Solution."""

from __future__ import annotations

from typing import Any

from theory import arguments, clock
from theory.lazy import nngp
from theory.memory import require_memory
from theory.network import Network
from theory.search.branch import Options
from theory.search.given_starts import start_kernels
from theory.search.settings import DEFAULT, Settings
from theory.search.solutions import search
from theory.solution import Solution
from theory.task import Task


def solve(
    network: Network,
    task: Task,
    starts: int | None = None,
    seed: int = 0,
    *,
    points: int | None = None,
    randomisations: int | None = None,
    tolerance: float | None = None,
    settings: Settings = DEFAULT,
    start: Any = None,
    time_limit: float | None = None,
    progress: clock.Progress = None,
) -> Solution:
    r"""Solve the saddle-point equations at infinite width.

        Phi = <phi(h) phi(h)^T>_q,    q(h) ~ exp( -1/2 h^T C[Phi]^{-1} h - 1/2 phi(h)^T Phihat phi(h) ),
        Phihat = d/dPhi [ sum(C[Phi] o Q) + sum_o y_o^T A[Phi]^{-1} y_o ],    Q = C^{-1} - C^{-1} <h h^T>_q C^{-1}

    C[Phi] and A[Phi] are those of `theory.model`.

    Linear networks are solved to rounding error, others on points (`theory.search.branches`): by quadrature where at
    most three entries are tied to one another, else with a standard error that falls as 1/sqrt(points x
    randomisations). Where more than 109 entries are tied, long flows of points/8 neurons take the place of points; only
    stable saddle points are found then (`theory.search.flow_branches`).

    Args:
        network: its width does not matter here. In standard scaling the answer is the lazy limit.
        task: any number of patterns and outputs, inputs at any steps.
        starts: number of random starts besides the lazy one, coherent ones where the sign symmetry holds, and those
            along unstable directions; 4 by default. For linear networks only, as ``points``, ``randomisations`` and
            ``tolerance`` are for all others; refused elsewhere.
        seed: of the random starts and of the points.
        points: size of each set of points. By default 16384 at first, and a solution that does not converge on those is
            followed on larger sets, of 262144 at most (of 65536 where more than 31 entries are tied to one another).
        randomisations: how many independent sets; at least 2, by default 4.
        tolerance: on the standard error of the kernel entries, relative to sqrt(Phi_ii Phi_jj), by default 0.01; above
            it, the solution does not count as converged.
        settings: the numbers that steer the search.
        start: where to look besides the search's own starts, for a saddle point that the search might miss: a
            `Solution`, a kernel (S, P, S, P), a posterior of `bayesnet.sample` (the mean kernel of each chain, chains
            of one phase once), or a list of such. What is downhill from there is listed with the others.
        time_limit: seconds that the search may take; it is looked at between steps, so that a large problem may take
            some longer. What has been reached then is returned: the best saddle point so far, or where the search
            stood, with its residual, its error and ``converged`` False. None for as many as it needs.
        progress: True prints where the search stands to the standard error, line by line (in a notebook that has
            ipywidgets a widget shows the last line); a function is called with each line instead. By default a line
            is shown every ten seconds, in notebooks and where the standard error is a terminal.

    Returns:
        The `Solution` of smallest free energy; ``branches`` lists every saddle point found. Where the sign symmetry
        holds, of two mirror images the one whose neighbouring steps correlate positively; where patterns may be
        relabelled (`theory.relabelling`: at all steps where the task allows it, at every other step for targets of both
        signs), all images, the one whose neighbouring steps correlate most first.

    Raises:
        ValueError: if an argument is out of its range, if the task has too many entries, or if the kernels are not
            finite.
        RuntimeError: if no saddle point is found at all, or none within the time limit. One that is found but not to
            its tolerance is returned, with ``converged`` False.

    Source: Bauer et al. 2026 (arXiv 2602.15593).
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    seed = arguments.seed("seed", seed)
    arguments.instance("settings", settings, Settings)
    clock.check(time_limit, progress)
    task.require_kernel_memory(network.layers)
    check_settings(network, task, starts=starts, points=points, randomisations=randomisations, tolerance=tolerance)
    arguments.only_for("networks in muP scaling", network.scaling == "mup", start=start)
    kernels = start_kernels(start, network, task)
    if network.scaling == "standard":
        return nngp(network, task)
    sets = settings.sets
    options = Options(
        randomisations=sets.randomisations if randomisations is None else randomisations,
        seed=seed,
        starts=settings.gaussian.starts if starts is None else starts,
        settings=settings,
        kernels=kernels,
    )
    with clock.timed(*clock.check(time_limit, progress)):
        return search(network, task, points, options, sets.tolerance if tolerance is None else tolerance)


def check_settings(
    network: Network,
    task: Task,
    *,
    starts: int | None = None,
    points: int | None = None,
    randomisations: int | None = None,
    tolerance: float | None = None,
) -> None:
    """The arguments of `solve` that say how to solve a task, checked; nothing is computed.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    linear = network.activation == "linear"
    arguments.only_for("linear networks", linear, starts=starts)
    sampled = {"points": points, "randomisations": randomisations, "tolerance": tolerance}
    arguments.only_for("networks that are not linear", not linear, **sampled)
    if starts is not None:
        arguments.integer("starts", starts, 0)
        require_memory(f"starts {starts}", 4.0 * starts * task.entries**2, "give fewer starts")
    repeated = 4 if randomisations is None else arguments.integer("randomisations", randomisations, 2)
    if tolerance is not None:
        arguments.positive("tolerance", tolerance)
    if points is not None:
        arguments.integer("points", points, 1024)
        sets = 8.0 * repeated * points * task.entries
        require_memory(f"points {points} with randomisations {repeated}", sets, "give fewer points")
