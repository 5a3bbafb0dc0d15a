"""The saddle point of the kernel theory: solve(network, task) -> Solution."""

from __future__ import annotations

from theory import arguments
from theory.lazy import nngp
from theory.memory import require_memory
from theory.network import Network
from theory.search.branch import Options
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
) -> Solution:
    r"""Solve the saddle-point equations at infinite width.

        Phi = <phi(h) phi(h)^T>_q,    q(h) ~ exp( -1/2 h^T C[Phi]^{-1} h - 1/2 phi(h)^T Phihat phi(h) ),
        Phihat = d/dPhi [ sum(C[Phi] o Q) + sum_o y_o^T A[Phi]^{-1} y_o ],    Q = C^{-1} - C^{-1} <h h^T>_q C^{-1}

    C[Phi] and A[Phi] are those of `theory.model`.

    Linear networks are solved to rounding error, others on points (`theory.search.branches`): by quadrature where at
    most three entries are tied to one another, else with a standard error that falls as 1/sqrt(points x
    randomisations).

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

    Returns:
        The `Solution` of smallest free energy; ``branches`` lists every saddle point found. Where the sign symmetry
        holds, of two mirror images the one whose neighbouring steps correlate positively; where patterns may be
        relabelled at every other step instead (`theory.relabelling`: targets of both signs, and an activation that is
        not odd, or a bias), all images, the one whose neighbouring steps correlate most first.

    Raises:
        ValueError: if an argument is out of its range, if the task has too many entries, or if the kernels are not
            finite.
        RuntimeError: if no saddle point is found at all. One that is found but not to its tolerance is returned, with
            ``converged`` False.

    Source: Bauer et al. 2026 (arXiv 2602.15593).
    """
    arguments.instance("network", network, Network)
    arguments.instance("task", task, Task)
    seed = arguments.seed("seed", seed)
    arguments.instance("settings", settings, Settings)
    task.require_kernel_memory(network.layers)
    check_settings(network, task, starts=starts, points=points, randomisations=randomisations, tolerance=tolerance)
    if network.scaling == "standard":
        return nngp(network, task)
    sets = settings.sets
    options = Options(
        randomisations=sets.randomisations if randomisations is None else randomisations,
        seed=seed,
        starts=settings.gaussian.starts if starts is None else starts,
        settings=settings,
    )
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
