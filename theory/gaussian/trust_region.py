r"""Newton's method without second derivatives: conjugate gradients within a trust region, from many starts at once.

Each step minimises the quadratic model of the free energy within a radius by preconditioned conjugate gradients, which
ask for second derivatives along single directions only. Where one of negative curvature is met the step follows it to
the edge, so that the search descends; near its end it converges quadratically. A search never leaves a subspace that a
symmetry keeps the gradient and the second derivatives along it in: so it ends at unstable stationary points as well.

Searches take their steps together, and each leaves when it has ended.

Sources: Steihaug 1983; Nocedal and Wright, Numerical Optimization, 2006, chapter 7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theory.clock import report, time_is_up
from theory.gaussian.kernel_energy import Points, overlap
from theory.gaussian.settings import TrustRegionSettings
from theory.gaussian.site_maps import back


class _Search(NamedTuple):
    """Where searches are; the first axis of everything is theirs.

    Attributes:
        points: where they are.
        best, least: the best kernel that each has seen, and the residual there.
        radius: of the trust region.
        idle: steps in a row that gained nothing.
        taken: second derivatives along directions so far.
        number: which search each is.
    """

    points: Points
    best: np.ndarray
    least: np.ndarray
    radius: np.ndarray
    idle: np.ndarray
    taken: np.ndarray
    number: np.ndarray

    def at(self, which: np.ndarray) -> _Search:
        """Some of them."""
        return _Search(self.points.at(which), *(each[which] for each in self[1:]))


def descend(
    starts: Points,
    settings: TrustRegionSettings = TrustRegionSettings(),
    residual: float | None = None,
    most: np.ndarray | None = None,
) -> Points:
    """Where searches come to rest from points of finite value, or the last points that they have seen.

    Args:
        starts: where they start.
        settings: of the searches.
        residual: at which they end; by default that of the settings.
        most: second derivatives along directions, about, after which each is given up, (S,); likewise.
    """
    count, size = len(starts), float(starts.kernel.shape[-1])
    residual = settings.stationary if residual is None else residual
    most = np.full(count, settings.products) if most is None else most
    none, radius = np.zeros(count, int), np.full(count, 0.5 * size**0.5)
    search = _Search(starts, starts.kernel, starts.residual, radius, none, none, np.arange(count))
    ends = np.empty_like(starts.kernel)
    while True:
        report(f"{len(search.number)} searches, largest residual {search.points.residual.max():.1e}")
        ended = ~(search.points.residual > residual) | (search.idle >= settings.stalled)
        ended |= (search.taken >= most[search.number]) | (search.radius < settings.shortest * size)
        ended |= time_is_up()
        if ended.any():
            ends[search.number[ended]] = search.best[ended]
            if ended.all():
                break
            search = search.at(~ended)
        search = _stepped(search, settings)
    return _settled(Points(starts.problem, ends), residual, settings)


def _stepped(search: _Search, settings: TrustRegionSettings) -> _Search:
    """After one step of each search, which stays where it is with a smaller radius where the step did not descend."""
    points, best, least, radius, idle, taken, number = search
    forcing = np.minimum(settings.forcing, (points.slope / points.kernel.shape[-1]) ** 0.5)
    step, relative, promised, length, products = _step(points, radius, forcing, settings)
    trial = points.moved(step, relative)
    slack = settings.rounding * (1 + np.abs(points.value))
    gained = points.value - trial.value
    accepted = gained >= settings.accepted * promised - slack
    larger = np.where((length > 0.9 * radius) & (gained > settings.trusted * promised), 2 * radius, radius)
    # Numbers that are none count as no gain.
    radius = np.where(gained >= settings.doubted * promised - slack, larger, np.fmin(radius, length) / 4)
    if not accepted.any():
        return search._replace(radius=radius, taken=taken + products)
    if accepted.all():
        points = trial
    else:
        points = Points(points.problem, np.where(accepted[:, None, None], trial.kernel, points.kernel))
    gains = accepted & (gained > slack)
    idle = np.where(gains | (accepted & (points.residual < least / 2)), 0, idle + accepted)
    better = gains | (points.residual < least)
    best = np.where(better[:, None, None], points.kernel, best)
    least = np.where(better, points.residual, least)
    return _Search(points, best, least, radius, idle, taken + products, number)


def _settled(points: Points, residual: float, settings: TrustRegionSettings) -> Points:
    """Steps of Newton's method judged by the residual alone, which sees differences that the value does not."""
    settling = (points.residual > residual) & (points.residual <= settings.close)
    for _ in range(settings.newton):
        if not settling.any():
            break
        before, some = points.residual, np.flatnonzero(settling)
        step, relative = _newton(points.at(some), settings)
        trial = points.at(some).moved(step, relative)
        better = np.isfinite(trial.value)
        better[better] = trial.at(better).residual < before[some[better]] / 2
        settling[some] = better
        kernels = points.kernel.copy()
        kernels[some[better]] = trial.kernel[better]
        points = Points(points.problem, kernels)
        settling &= points.residual > residual
    return points


def newton_step(points: Points, settings: TrustRegionSettings) -> np.ndarray:
    """About what Newton's step changes of the kernels, (S, m, m), and no more than the trust region allows."""
    return _newton(points, settings)[0]


def _newton(points: Points, settings: TrustRegionSettings) -> tuple[np.ndarray, np.ndarray]:
    step, relative, *_ = _step(points, np.ones(len(points)), np.full(len(points), settings.settling), settings)
    return step, relative


def _step(
    points: Points, radius: np.ndarray, forcing: np.ndarray, settings: TrustRegionSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps E (S, m, m) within the radii, E Phi^{-1}, the decreases that the model promises, the lengths, products."""
    left = -points.gradient
    direction = points.precondition(left)
    step, relative = np.zeros_like(left), np.zeros_like(left)
    square = overlap(left, direction)
    goal, promised, inner = forcing**2 * square, np.zeros(len(left)), np.zeros(len(left))
    products, unfinished = np.zeros(len(left), int), np.ones(len(left), bool)
    for _ in range(settings.in_step):
        products += unfinished
        curved, change = points.curve(direction)
        curvature = overlap(direction, curved)
        # |S|^2 of step + length direction, a polynomial.
        change_back = back(change)
        own, mixed = overlap(change, change_back), overlap(relative, change_back)
        edge = (-mixed + np.sqrt(np.maximum(mixed**2 + own * (radius**2 - inner), 0.0))) / own
        inside = (curvature > 0) & (square < edge * curvature)
        length = np.where(inside, square / np.where(inside, curvature, 1.0), edge) * unfinished
        promised += length * square - length**2 * curvature / 2
        along = length[:, None, None]
        step, relative = step + along * direction, relative + along * change
        inner += 2 * length * mixed + length**2 * own
        unfinished &= inside
        if not unfinished.any():
            break
        left = left - along * curved
        towards = points.precondition(left)
        before, square = square, overlap(left, towards)
        unfinished &= square > goal
        if not unfinished.any():
            break
        # Directions of finished steps stay as they are, so that they do not grow beyond bounds.
        direction = np.where(
            unfinished[:, None, None], towards + (square / before)[:, None, None] * direction, direction
        )
    return step, relative, promised, inner**0.5, products
