"""Phases that coexist, and what each weighs.

Near a first-order transition the posterior of a wide network has several separate phases. A chain keeps to the one that
its warm-up ended in, so that the share of the chains in a phase says nothing of its weight; its evidence does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from bayesnet.results import require_whole
from bayesnet.sampling import network_of, task_of
from theory import arguments
from theory.evidence import log_evidence
from theory.solution import Solution
from theory.symmetry import apply_signs, mirror_signs


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
        ValueError: if the solution is of another task, or of a network that differs in more than its width.
    """
    arguments.instance("solution", solution, Solution)
    require_whole(posterior, "posterior")
    network, task = network_of(posterior), task_of(posterior)
    if solution.task != task or solution.network.replace(width=network.width) != network:
        raise ValueError(
            "solution is of another task, or of a network that differs from the posterior's in more than width"
        )
    stable = [branch for branch in solution.branches or (solution,) if branch.stable]
    evidence = [log_evidence(replace(branch, network=network)) for branch in stable]
    logs = np.array([term.log_evidence for term in evidence])
    weights = np.exp(logs - logs.max())
    nearest = _nearest(posterior, stable)
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


def _nearest(posterior: xr.DataTree, stable: list[Solution]) -> np.ndarray:
    """Index of the saddle point nearest to each chain's kernels, by squared distance averaged over its draws."""
    kernel = posterior["posterior"]["kernel"].to_numpy()
    distances = []
    for branch in stable:
        images = [branch.kernel]
        images += [apply_signs(branch.kernel, signs) for signs in mirror_signs(branch.network, branch.task)]
        squares = [((kernel - image) ** 2).sum(axis=(2, 3, 4, 5)) for image in images]
        distances.append(np.min(squares, axis=0).mean(axis=1))
    return np.argmin(distances, axis=0)
