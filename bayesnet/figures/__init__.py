"""The figures of a report, each with its caption and what one sees in it; `bayesnet.plots` draws their panels.

No pyplot, no global state. Networks come in the order given, and each keeps its colour in all figures. Steps, patterns
and outputs are counted from 1. A figure that cannot be made leaves the reason in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from bayesnet.figures.chains import energies_picture, traces_picture
from bayesnet.figures.densities import invariants_picture, numbers_picture
from bayesnet.figures.picture import Picture
from bayesnet.figures.results import overlaps_picture, predictions_picture, spectrum_picture
from bayesnet.figures.tasks import task_picture
from bayesnet.report_content import Run
from bayesnet.results import from_outside, names_with_priors
from theory.task import Task

__all__ = ["Picture", "result_pictures", "sampler_pictures", "task_pictures"]


def task_pictures(task: Task) -> list[Picture]:
    """The task: Gram matrix of the inputs, targets, inputs."""
    return [task_picture(task)]


def result_pictures(runs: Sequence[Run]) -> list[Picture]:
    """What the posterior says beside the theory: numbers with priors, overlaps, densities, predictions, eigenvalues."""
    unknown = [run for run in runs if names_with_priors(run.posterior)]
    numbers = [numbers_picture(unknown)] if unknown else []
    return [
        *numbers,
        overlaps_picture(runs),
        invariants_picture(runs),
        predictions_picture(runs),
        spectrum_picture(runs),
    ]


def sampler_pictures(runs: Sequence[Run]) -> list[Picture]:
    """How the sampler did: traces and ranks of the slowest invariants of each network, energies.

    Networks from outside had none.
    """
    runs = [run for run in runs if not from_outside(run.posterior)]
    dynamical = [run for run in runs if "energy" in run.posterior["sample_stats"]]  # Langevin has no momenta
    return [*map(traces_picture, runs), *([energies_picture(dynamical)] if dynamical else [])]
