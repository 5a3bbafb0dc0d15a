r"""Permutations of patterns that leave a task, and with it the posterior, as it is.

A permutation pi is a symmetry of a task if it keeps all products of inputs, and the targets up to one common sign:

    x_{t, pi mu} . x_{s, pi nu} = x_{t, mu} . x_{s, nu},        y_{t, pi mu} = sign y_{t, mu}.

A rotation of the inputs does what pi does, and U has the same prior in every frame; V has that of -V. A posterior that
pi does not leave unchanged has modes that are images of one another.

The symmetries are a group. It is found pattern by pattern (Schreier and Sims): of the symmetries that keep patterns 0
to i - 1 in place, some carry pattern i to each pattern of its orbit. One symmetry for each new member of each orbit
generates the group, and products of one symmetry for each i are all of its members, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from theory.task import Task

SAME = 1e-9  # of the largest product of inputs: differences that rounding errors make
MOST_PATTERNS = 64  # among which symmetries are looked for: each pair is compared with all others
MOST_IMAGES = 1152  # members of a group that are written out: those of two times four interchangeable patterns

Permutation = tuple[int, ...]


class TaskImages(NamedTuple):
    """A group of symmetries of a task, the identity first: pi (G, P), and its sign (G,): y_{pi mu} = sign y_mu.

    The image of a network has the kernel Phi'_ts^{mu nu} = Phi_ts^{pi mu, pi nu} and the output f'_mu = sign f_{pi mu}.
    """

    permutations: np.ndarray
    signs: np.ndarray


def symmetries_of_task(task: Task) -> list[np.ndarray]:
    """Permutations pi (P,) that generate the symmetries of a task; none of more than `MOST_PATTERNS` patterns."""
    found = _chain(task)
    return [np.array(each) for each in (*found.generators, *found.turned)]


@lru_cache(maxsize=16)
def images_of_task(task: Task) -> TaskImages:
    """The `TaskImages` of all symmetries.

    Where there are more than `MOST_IMAGES`, those of sign 1, and of these those that keep the first patterns in place.
    """
    found = _chain(task)
    members = [tuple(range(task.patterns))]
    for reached in found.reached:
        if len(members) * len(reached) > MOST_IMAGES:
            return TaskImages(np.array(members), np.ones(len(members), dtype=int))
        members = [_product(one, other) for one in reached.values() for other in members]
    signs = np.ones(len(members), dtype=int)
    if found.turned and 2 * len(members) <= MOST_IMAGES:
        members += [_product(found.turned[0], other) for other in members]
        signs = np.concatenate([signs, -signs])
    return TaskImages(np.array(members), signs)


def matching_permutations(
    task: Task, sign: int, start: Permutation = (), exchange: bool = False
) -> Iterator[np.ndarray]:
    """Each symmetry pi of a task with the given sign, one after the other.

    Args:
        task: of any number of patterns.
        sign: of the targets, 1 or -1.
        start: the images of the first patterns, in order.
        exchange: ask for pi[pi] = 0..P-1 as well.
    """
    patterns = _patterns_of(task, sign)
    image, taken = np.full(task.patterns, -1), np.zeros(task.patterns, dtype=bool)

    def placed(one: int, other: int) -> list[int]:
        """The patterns that have an image once ``one`` goes to ``other``, and back where exchanges are asked for."""
        if taken[other] or not patterns.fit(one, other, image):
            return []
        image[one], taken[other] = other, True
        if not exchange or one == other:
            return [one]
        if image[other] < 0 and patterns.fit(other, one, image):
            image[other], taken[one] = one, True
            return [one, other]
        image[one], taken[other] = -1, False
        return []

    def choices() -> tuple[int, Iterator[int]] | None:
        """The next pattern without an image, and where it may go; None where there is none."""
        free = np.flatnonzero(image < 0)
        if not free.size:
            return None
        one = int(free[0])
        return one, iter(start[one : one + 1] if one < len(start) else np.flatnonzero(patterns.alike(one)).tolist())

    stack: list[tuple[int, Iterator[int], list[int]]] = []
    level = choices()
    while level is not None or stack:
        if level is None:
            yield image.copy()
        else:
            stack.append((*level, []))
        while stack:  # the next choice of the last pattern that has one
            one, others, done = stack[-1]
            for pattern in done:
                image[pattern], taken[image[pattern]] = -1, False
            done[:] = next(filter(None, (placed(one, other) for other in others)), [])
            if done:
                break
            stack.pop()
        if not stack:
            return
        level = choices()


class _Patterns:
    """Which patterns of a task are alike under a sign of the targets."""

    def __init__(self, task: Task, sign: int) -> None:
        kernels = task.input_kernel.transpose(0, 2, 1, 3).reshape(-1, task.patterns, task.patterns)
        self._kernels = kernels[np.any(kernels, axis=(1, 2))]
        self._tolerance = SAME * np.abs(kernels).max(initial=0.0)
        self._sign = sign
        self._targets = np.where(task.supervised[..., None], task.targets, 0.0).reshape(task.patterns, -1)
        self._supervised = task.supervised.reshape(task.patterns, -1)
        along, across = np.sort(self._kernels, axis=2), np.sort(self._kernels, axis=1)
        self._products = along.transpose(1, 0, 2), across.transpose(2, 0, 1)
        self._alike: dict[int, np.ndarray] = {}

    def alike(self, one: int) -> np.ndarray:
        """Where a pattern may go to, as far as it alone shows: by its targets and its products with others, (P,)."""
        if one not in self._alike:
            same = np.all(self._supervised == self._supervised[one], axis=1)
            same &= np.all(np.isclose(self._targets[one], self._sign * self._targets, rtol=SAME, atol=0), axis=1)
            for products in self._products:
                same[same] = np.all(np.abs(products[same] - products[one]) <= self._tolerance, axis=(1, 2))
            self._alike[one] = same
        return self._alike[one]

    def fit(self, one: int, other: int, image: np.ndarray) -> bool:
        """Whether a pattern may go to another beside the images that others have, -1 where they have none."""
        if not self.alike(one)[other]:
            return False
        known, seen = np.append(np.flatnonzero(image >= 0), one), np.append(image[image >= 0], other)
        rows = np.abs(self._kernels[:, one, known] - self._kernels[:, other, seen])
        columns = np.abs(self._kernels[:, known, one] - self._kernels[:, seen, other])
        return bool(np.all(rows <= self._tolerance) and np.all(columns <= self._tolerance))


@lru_cache(maxsize=8)
def _patterns_of(task: Task, sign: int) -> _Patterns:
    return _Patterns(task, sign)


class _Chain(NamedTuple):
    """The groups of symmetries that keep more and more of the first patterns in place.

    ``reached``, from the last pattern i to the first: a symmetry of sign 1 that keeps 0 to i - 1 in place, for each
    pattern that it carries i to. ``generators`` of all symmetries of sign 1. ``turned``: one of sign -1, if any.
    """

    reached: tuple[dict[int, Permutation], ...]
    generators: tuple[Permutation, ...]
    turned: tuple[Permutation, ...]


@lru_cache(maxsize=16)
def _chain(task: Task) -> _Chain:
    if task.patterns > MOST_PATTERNS:
        return _Chain((), (), ())
    reached: list[dict[int, Permutation]] = []
    generators: list[Permutation] = []
    for pattern in reversed(range(task.patterns)):
        orbit = _orbit(pattern, generators, task.patterns)
        for other in range(pattern + 1, task.patterns):
            if other not in orbit and _patterns_of(task, 1).alike(pattern)[other]:
                found = next(matching_permutations(task, 1, (*range(pattern), other)), None)
                if found is not None:
                    generators.append(tuple(found.tolist()))
                    orbit = _orbit(pattern, generators, task.patterns)
        reached.append(orbit)
    has_targets = bool(task.targets[task.supervised].any())  # without, either sign belongs to each symmetry
    turned = next(matching_permutations(task, -1), None) if has_targets else None
    return _Chain(tuple(reached), tuple(generators), () if turned is None else (tuple(turned.tolist()),))


def _orbit(pattern: int, generators: list[Permutation], patterns: int) -> dict[int, Permutation]:
    """The patterns that products of the generators carry a pattern to, each with such a product."""
    reached, fresh = {pattern: tuple(range(patterns))}, [pattern]
    while fresh:
        last = fresh.pop()
        for generator in generators:
            if generator[last] not in reached:
                reached[generator[last]] = _product(generator, reached[last])
                fresh.append(generator[last])
    return reached


def _product(one: Permutation, other: Permutation) -> Permutation:
    """First ``other``, then ``one``."""
    return tuple(one[mu] for mu in other)
