"""The figures of a report: one function each, returning a matplotlib Figure; no pyplot, no global state.

Posteriors and solutions come as {name: object} with the same names; a name without a solution has no theory in the
figure. Steps, patterns and outputs are counted from 1. Each name keeps its colour in all figures.
"""

from bayesnet.figures.chains import energies, traces
from bayesnet.figures.posteriors import densities, eigenvalues, kernel_maps, parameters, predictions
from bayesnet.figures.tasks import input_steps, pattern_order, task_overview

__all__ = [
    "densities",
    "eigenvalues",
    "energies",
    "input_steps",
    "kernel_maps",
    "parameters",
    "pattern_order",
    "predictions",
    "task_overview",
    "traces",
]
