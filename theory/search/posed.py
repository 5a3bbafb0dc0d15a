"""A network on a task, reduced to what is searched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.model import Model, build_model
from theory.network import Network
from theory.search.branch import Options, mirror_images
from theory.task import Task
from theory.ties import needed_part
from theory.units import Units, natural_units, times


@dataclass(frozen=True, eq=False)
class Posed:
    """A network on a task, as it is searched; call everything in float64.

    Attributes:
        network, task: what is asked.
        options: of the search; the kernels to start from are those of what is searched.
        tolerance: on the standard error of the kernel entries, relative to sqrt(Phi_ii Phi_jj).
        units: natural ones (`theory.units`) of a linear network; its relative numbers may be anything.
        model: the two in arrays, in these units.
        part: what is searched: of a linear network all, else what a supervised entry depends on.
        kept: its flat entries.
        images: the sign changes that turn saddle points into others (`theory.symmetry`).
    """

    network: Network
    task: Task
    options: Options
    tolerance: float
    units: Units
    model: Model
    part: Model
    kept: np.ndarray
    images: np.ndarray


def pose(network: Network, task: Task, options: Options, tolerance: float, units: Units | None = None) -> Posed:
    """The `Posed` problem of a network on a task, in natural units or in given ones."""
    model, phi = build_model(network, task), network.phi
    if units is None:
        units = natural_units(model, phi, model.drive, model.drive) if phi.linear else Units(0, 0, 0)
    model = units.model(model).on_device()
    searched, kept = (model, np.arange(model.entries)) if phi.linear else needed_part(model)
    window = np.ix_(kept, kept)
    kernels = tuple(times(kernel, -2 * units.activity)[window] for kernel in options.kernels)
    options = options._replace(kernels=kernels)
    return Posed(network, task, options, tolerance, units, model, searched, kept, mirror_images(model, phi))
