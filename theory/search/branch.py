"""A branch: a saddle point of a model, how it was found, and when two are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from theory.activations import Activation
from theory.gaussian.settings import GaussianSettings
from theory.kernels import scale_of
from theory.model import Model
from theory.search.problem import Problem, State
from theory.search.settings import DEFAULT, BranchSettings, Settings
from theory.search.stationarity import Root
from theory.symmetry import flipped_pairs, sign_changes
from theory.ties import by_entry


class Options(NamedTuple):
    """What the user asks of a search; see `theory.solve`."""

    points: int = 16384
    randomisations: int = 4
    seed: int = 0
    starts: int = GaussianSettings.starts
    settings: Settings = DEFAULT
    kernels: tuple[np.ndarray, ...] = ()  # flat, of the whole task: where to start besides


@dataclass(frozen=True)
class Branch:
    """A saddle point of a model, once per randomisation (on grids: once per grid, the finest first).

    Attributes:
        model: whose saddle point it is, with its weights whole.
        phi: the activation.
        roots: Phi and Phihat, one of each per randomisation.
        energies: F of each.
        stable: by `theory.search.stability`, and on the symmetric branch by `theory.search.symmetry_breaking` besides;
            of linear networks by the curvature of the free energy.
        found: how it was found; None in closed form, where everything is exact.
    """

    model: Model
    phi: Activation
    roots: tuple[Root, ...]
    energies: tuple[float, ...]
    stable: bool
    found: Found | None = None

    @property
    def exact(self) -> bool:
        """Whether there is no statistical error."""
        return self.found is None or (self.found.problem.exact and not self.found.flows)


class Found(NamedTuple):
    """How a branch was found on laws.

    Attributes:
        problem: what was solved: with weights cut on a symmetric branch.
        state: what the laws were made at.
        neurons: draws h of equal weight from each root (exact: several from the finest grid),
            (`BranchSettings.kept_neurons`, n).
        means: <phi(h)> of each, (n,).
        together: whether the sets of draws were solved together, and each one's root is known to first order.
        flows: neurons of each long flow that was averaged (`theory.search.flow_branches`); zero where roots were
            sought.
    """

    problem: Problem
    state: State
    neurons: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    together: bool
    flows: int = 0


def mirror_images(model: Model, phi: Activation) -> np.ndarray:
    """The `theory.symmetry.sign_changes` where the activation is odd, else none."""
    return sign_changes(model) if phi.odd else np.ones((0, model.sites))


def oddness(kernel: np.ndarray, model: Model, phi: Activation) -> float:
    """Largest overlap between sites whose correlation changes sign in a mirror image."""
    scale = scale_of(kernel)
    odd = by_entry(model, flipped_pairs(mirror_images(model, phi), model.sites))
    return float(np.max(np.abs(kernel) * odd / np.outer(scale, scale), initial=0.0))


def same_branch(one: Branch, other: Branch, settings: BranchSettings) -> bool:
    """Equal kernels within a share of their scale, up to the sign symmetry."""
    return is_near(np.mean([root.kernel for root in one.roots], axis=0), other, settings)


def is_near(kernel: np.ndarray, branch: Branch, settings: BranchSettings) -> bool:
    """Whether a kernel (n, n) is that of a branch, likewise."""
    mean = np.mean([root.kernel for root in branch.roots], axis=0)
    return are_near(kernel, mean, branch.model, branch.phi, settings)


def are_near(one: np.ndarray, other: np.ndarray, model: Model, phi: Activation, settings: BranchSettings) -> bool:
    """Whether two kernels (n, n) of a model are those of one branch, likewise."""
    scale = scale_of(one)
    if len(mirror_images(model, phi)):
        one, other = np.abs(one), np.abs(other)
    return bool(np.max(np.abs(one - other) / np.outer(scale, scale)) < settings.same)
