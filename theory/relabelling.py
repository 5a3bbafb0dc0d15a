r"""A symmetry of saddle points that relabels patterns at some of the sites.

Permutations of patterns at all sites are symmetries of the posterior (`theory.task_symmetries`). Where targets have
both signs, another one relabels patterns at some of the sites only:

    Phi'_ts^{mu nu} = Phi_ts^{pi_t mu, pi_s nu},        pi_s = pi where e_s = -1, the identity elsewhere

The permutation pi exchanges patterns of opposite targets and leaves all products of inputs as they are:
y_{pi mu} = -y_mu, x_{pi mu} . x_{pi nu} = x_mu . x_nu. If a kernel is unchanged when ALL sites are relabelled, C[Phi]
and A[Phi] are relabelled with it wherever the signs e solve the equations of `theory.symmetry`, under their conditions
but for two. The activation may be any. And D need not vanish between sites of different signs: it is enough that D is
unchanged when one of the two sites is relabelled, as a bias is, or an input that is the same for all patterns.

Unlike W -> -W this is a symmetry of the saddle point equations only. At finite width the images weigh alike up to a
factor of order one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theory.model import Array, build_model
from theory.network import Network
from theory.symmetry import sign_changes
from theory.task import Task
from theory.task_symmetries import SAME, matching_permutations
from theory.ties import fixed_ties


class Relabelling(NamedTuple):
    """The relabelling of the module's docstring: pi, (P,) with pi[pi] = 0..P-1, and all of its e, (images, sites)."""

    permutation: np.ndarray
    signs: np.ndarray


def find_relabelling(network: Network, task: Task) -> Relabelling | None:
    """The `Relabelling` of a network on a task; None where there is none or none that any kernel can tell."""
    if not task.targets[task.supervised].any():
        return None
    permutation = opposite_patterns(task)
    if permutation is None:
        return None
    model = build_model(network, task)
    drive = model.drive.reshape((model.sites, model.patterns) * 2)
    changed = np.abs(drive[:, permutation] - drive) > SAME * np.abs(drive).max(initial=0.0)
    # A site is relabelled on both sides of its own block, which pi leaves as it is.
    changed &= ~np.eye(model.sites, dtype=bool)[:, None, :, None]
    signs = sign_changes(model, fixed_ties(model, changed.reshape(model.drive.shape)))
    return Relabelling(permutation, signs) if len(signs) else None


def opposite_patterns(task: Task) -> np.ndarray | None:
    """pi, (P,), which exchanges patterns of opposite targets and keeps the products of inputs; or None."""
    return next(matching_permutations(task, -1, exchange=True), None)


def relabel(kernel: Array, permutation: np.ndarray, signs: np.ndarray) -> Array:
    """A kernel (..., S, P, S, P) with the patterns permuted at the sites whose sign is negative."""
    same = np.arange(len(permutation))
    at = np.where(signs[:, None] < 0, permutation, same)
    sites = np.arange(len(signs))[:, None]
    rows = kernel[..., sites, at, :, :]
    return rows[..., sites, at]
