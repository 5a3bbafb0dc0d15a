"""Phases that coexist, and what each weighs.

Near a first-order transition the posterior of a wide network has several separate phases. A chain that does not jump
(`sample(phases=)`) keeps to the one that its warm-up ended in, so that the share of the chains in a phase says nothing
of its weight; its evidence does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from bayesnet.comparison import require_same_problem
from bayesnet.results import kernels_of, network_of, require_whole
from theory import arguments
from theory.evidence import log_evidence
from theory.solution import Solution
from theory.symmetry import apply_signs, mirror_signs

FAR = 3.0  # standard deviations of the draws; within a phase means are off by less than one, and phases are many apart


def weigh_phases(posterior: xr.DataTree, solution: Solution) -> pd.DataFrame:
    """The stable saddle points of a posterior's network on its task, what each weighs, and which chains sit in it.

    The weight of a phase is its part of the evidence at the posterior's width, exp(`theory.log_evidence`), mirror image
    included, over the sum of all: right up to a factor 1 + O(1/N), provided that the phases are well separated.

    Args:
        posterior: what `sample` returned.
        solution: of `theory.solve`, whose ``branches`` are the candidates.

    Returns:
        One row for each phase, the heaviest first: ``free_energy``, ``log_evidence``, ``standard_error`` (of the log
        evidence; zero for linear networks), ``weight``, and ``chains``, those whose kernels are nearest to this saddle
        point or its mirror image, as a tuple.

    Raises:
        ValueError: if the solution is of another task, or of a network that differs in more than its width; if the
            posterior has priors on numbers of the network; if a chain is far from all saddle points.
    """
    arguments.instance("solution", solution, Solution)
    require_whole(posterior, "posterior")
    require_same_problem(posterior, solution)
    network = network_of(posterior)
    stable = [branch for branch in solution.branches or (solution,) if branch.stable]
    evidence = [log_evidence(replace(branch, network=network)) for branch in stable]
    logs = np.array([term.log_evidence for term in evidence])
    weights = np.exp(logs - logs.max())
    nearest, away, spread = _nearest(posterior, stable)
    _require_near(away, spread)
    table = pd.DataFrame(
        {
            "free_energy": [branch.free_energy for branch in stable],
            "log_evidence": logs,
            "standard_error": [term.standard_error for term in evidence],
            "weight": weights / weights.sum(),
            "chains": [tuple(np.flatnonzero(nearest == index).tolist()) for index in range(len(stable))],
        }
    )
    return table.sort_values("weight", ascending=False, ignore_index=True)


def _nearest(posterior: xr.DataTree, stable: list[Solution]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each chain is: the saddle point or mirror image nearest to most of its draws, and how far its draws are.

    Returns:
        Of each chain the index of the saddle point, how far the mean of the draws is from the saddle points nearest to
        them, and how far the draws scatter around that mean (root mean squares over all entries), (chains,).
    """
    kernel = kernels_of(posterior, "weigh_phases")
    index = np.zeros(kernel.shape[:2], int)
    closest, residual = np.full(kernel.shape[:2], np.inf), np.empty_like(kernel)
    for number, branch in enumerate(stable):
        signs = mirror_signs(branch.network, branch.task)
        for turn in (np.ones(len(branch.kernel)), *signs):
            # The image of the draws, so that residuals at different images of one saddle point can be averaged.
            away = apply_signs(kernel, turn) - branch.kernel
            square = (away**2).mean(axis=(2, 3, 4, 5))
            nearer = square < closest
            closest[nearer], residual[nearer], index[nearer] = square[nearer], away[nearer], number
    most = np.array([np.bincount(row, minlength=len(stable)).argmax() for row in index])
    mean = residual.mean(axis=1)
    away = np.sqrt((mean**2).mean(axis=(1, 2, 3, 4)))
    return most, away, np.sqrt(residual.var(axis=1).mean(axis=(1, 2, 3, 4)))


def _require_near(away: np.ndarray, spread: np.ndarray) -> None:
    """Refuse chains that sit at none of the saddle points.

    Raises:
        ValueError: with the distance of such a chain and the scatter of its draws.
    """
    far = np.flatnonzero(away > FAR * spread)
    if len(far):
        chain = far[np.argmax(away[far] / spread[far])]
        raise ValueError(
            f"posterior has chain(s) {', '.join(map(str, far))} at none of the saddle points of solution: the mean "
            f"kernel of chain {chain} is {away[chain]:.2g} (root mean square of its entries) from the nearest, and its "
            f"draws scatter by {spread[chain]:.2g}; at most {FAR:g} times that is allowed. The search has missed a "
            "phase, or the width is too small for the theory: follow the phase with theory.continuation, or solve "
            "again with another seed"
        )
