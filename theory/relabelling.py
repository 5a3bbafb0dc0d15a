r"""Symmetries that relabel patterns: at all sites, which the posterior has, or at some, which saddle points have.

Permutations of patterns at all sites that leave the task as it is are symmetries of the posterior
(`symmetries_of_task`). Where targets have both signs, another one relabels patterns at some of the sites:

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

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from theory.model import Array, build_model
from theory.network import Network
from theory.symmetry import sign_changes
from theory.task import Task
from theory.ties import fixed_ties

SAME = 1e-9  # of the largest product of inputs: differences that rounding errors make
MOST = 24  # symmetries of a task that are listed: more are seldom broken each in its own way
MOST_PATTERNS = 64  # among which they are looked for: each pair is compared with all others
MOST_IMAGES = 720  # that products of symmetries are multiplied out to: all permutations of six patterns


class TaskImages(NamedTuple):
    """The group of symmetries of a task, the identity first: pi (G, P), and its sign (G,): y_{pi mu} = sign y_mu.

    The image of a network has the kernel Phi'_ts^{mu nu} = Phi_ts^{pi mu, pi nu} and the output f'_mu = sign f_{pi mu}.
    """

    permutations: np.ndarray
    signs: np.ndarray


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
    return next(_exchanges(task, -1), None)


def symmetries_of_task(task: Task) -> list[np.ndarray]:
    """Permutations pi (P,) of all patterns at all sites, pi[pi] = 0..P-1, that leave the posterior as it is.

    They keep the products of inputs, and the targets or their opposites. A rotation of the inputs does what pi does,
    and U has the same prior in every frame; V has that of -V. Where a posterior is not unchanged by pi, it has modes
    that are images of one another. `MOST` of them at most, none where there are more than `MOST_PATTERNS` patterns.
    """
    return [permutation for permutation, _ in _generators(task)]


@lru_cache(maxsize=16)
def images_of_task(task: Task) -> TaskImages:
    """The `TaskImages` that the `symmetries_of_task` generate: those and their products, `MOST_IMAGES` at most."""
    generators = [(tuple(permutation.tolist()), sign) for permutation, sign in _generators(task)]
    found: dict[tuple[int, ...], int] = {tuple(range(task.patterns)): 1}
    fresh = list(found)
    while fresh and len(found) < MOST_IMAGES:
        last, fresh = fresh, []
        for one in last:
            for other, sign in generators:
                product = tuple(one[mu] for mu in other)
                # Where both signs belong to one permutation its targets vanish, and either sign will do.
                if product not in found and len(found) < MOST_IMAGES:
                    found[product] = found[one] * sign
                    fresh.append(product)
    return TaskImages(np.array(list(found)), np.array(list(found.values())))


def _generators(task: Task) -> list[tuple[np.ndarray, int]]:
    """The `symmetries_of_task`, each with its sign."""
    if task.patterns > MOST_PATTERNS:
        return []
    identity = np.arange(task.patterns)
    found = ((each, sign) for sign in (1, -1) for each in islice(_exchanges(task, sign), MOST + 1))
    return [(each, sign) for each, sign in found if not np.array_equal(each, identity)][:MOST]


def _exchanges(task: Task, sign: int) -> Iterator[np.ndarray]:
    """Each pi that exchanges patterns of equal (``sign`` 1) or opposite (-1) targets and keeps products of inputs."""
    kernels = task.input_kernel.transpose(0, 2, 1, 3).reshape(-1, task.patterns, task.patterns)
    tolerance = SAME * np.abs(kernels).max(initial=0.0)
    partner = np.full(task.patterns, -1)

    def fits(one: int, other: int) -> bool:
        alike = np.array_equal(task.supervised[one], task.supervised[other]) and np.allclose(
            task.targets[one][task.supervised[one]],
            sign * task.targets[other][task.supervised[other]],
            rtol=1e-9,
            atol=0,
        )
        known = np.flatnonzero(partner >= 0)
        images = partner[known]
        return alike and all(
            np.allclose(kernels[:, a][:, seen], kernels[:, b][:, image], rtol=0, atol=tolerance)
            for a, b in ((one, other), (other, one))
            for seen, image in ((known, images), ([one, other], [other, one]))
        )

    def completed() -> Iterator[np.ndarray]:
        free = np.flatnonzero(partner < 0)
        if not free.size:
            yield partner.copy()
        for other in free:
            if fits(int(free[0]), int(other)):
                partner[[free[0], other]] = other, free[0]
                yield from completed()
                partner[[free[0], other]] = -1

    return completed()


def relabel(kernel: Array, permutation: np.ndarray, signs: np.ndarray) -> Array:
    """A kernel (..., S, P, S, P) with the patterns permuted at the sites whose sign is negative."""
    same = np.arange(len(permutation))
    at = np.where(signs[:, None] < 0, permutation, same)
    sites = np.arange(len(signs))[:, None]
    rows = kernel[..., sites, at, :, :]
    return rows[..., sites, at]
