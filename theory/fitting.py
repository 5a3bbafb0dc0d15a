r"""Fitting: the numbers of a network that make the evidence largest (type-II maximum likelihood, empirical Bayes).

    theta* = argmax  sum over tasks of  ln p(y | theta),        Cov(theta) = [ - d^2 ln p / dtheta dtheta ]^{-1}

With all terms that do not vanish at large width, or with -N F alone. The two differ much: F falls with the noise
whatever the task, so that by -N F alone noise has no optimum, and mostly gains have none either; the likelihood's
normalisation holds them back. Degrees of sharing can have one by -N F alone.

Source: MacKay 1992 (evidence maximisation); Laplace's method for its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from theory import arguments
from theory.display import in_digits
from theory.evidence_curve import EvidenceCurve, in_unit_interval
from theory.network import Network
from theory.parameters import Parameters, network_at, parameter_names
from theory.saddle import check_settings
from theory.sensitivity import current_values
from theory.solution import Solution
from theory.task import Task

ORDERS = ("full", "leading")
REACH = 1e3  # a positive number is looked for this many times below and above its value in the network
LEAST_LEAK = 1e-3  # at zero leak a network never moves
SCANNED = 10.0  # the part of that range, up and down, in which starting points lie: values far off are rarely meant
SCAN = 8  # starting points looked at for each parameter: a phase that has an optimum of its own is wider than 1/8
MOST = 4  # parameters; the second derivatives take of the order of MOST^2 solutions
POLISH = 5  # Newton steps after the search, at most
GAIN = 1e-2  # of the log evidence that a further step may still promise at a converged optimum: no conclusion changes
SHARE = 0.05  # of a direction without curvature: a parameter with less of it, squared, is determined all the same
EDGE = 1e-6  # of the range of a parameter: as close as this is at its end


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """The numbers of a network at which its evidence is largest.

    Attributes:
        network: with these numbers.
        tasks: what was fitted.
        order: "full" or "leading".
        values: theta*, by name.
        standard_errors: by name: the root of the diagonal of ``covariance``. Infinite where the data determine none.
        covariance: of theta, in the order of ``values``: minus the inverse of the second derivative of the log
            evidence. At the end of a range the evidence makes an exponential law of the parameter, of standard
            deviation 1/|slope|, which stands in its place, without correlations.
        log_evidence: its value there, summed over tasks; -N F for the order "leading".
        log_evidence_error: its standard error; zero for linear networks.
        bounds: least and largest value, by name.
        at_boundary: names of the parameters that came to rest at the end of their range, where the log evidence still
            rises outwards. Their values are those of ``bounds``, and say nothing but the direction.
        undetermined: names of the parameters whose standard error would exceed their range, alone or along a
            combination of several that changes nothing.
        at_transition: whether within a standard error the saddle point breaks another symmetry, or another phase
            competes with it (its evidence more than e^-3 of the best one's). A Gaussian law then describes neither
            the kernels nor the parameters: sample them (`bayesnet.sample` with priors).
        converged: whether it is a maximum along every parameter that is neither undetermined nor at the end of its
            range.
        message: all this in words.
        solutions: the saddle point on each task.
        evaluations: how often the log evidence was computed.
    """

    network: Network
    tasks: tuple[Task, ...]
    order: str
    values: dict[str, float]
    standard_errors: dict[str, float]
    covariance: np.ndarray
    log_evidence: float
    log_evidence_error: float
    bounds: dict[str, tuple[float, float]]
    at_boundary: tuple[str, ...]
    undetermined: tuple[str, ...]
    at_transition: bool
    converged: bool
    message: str
    solutions: tuple[Solution, ...]
    evaluations: int

    def __repr__(self) -> str:
        numbers = (
            f"{name}={in_digits(value)} +- {self.standard_errors[name]:.2g}" for name, value in self.values.items()
        )
        return f"Fit({', '.join(numbers)}; ln p(y) = {in_digits(self.log_evidence)} ({self.order}); {self.message})"


def fit(
    network: Network,
    task: Task | Sequence[Task],
    over: Sequence[str],
    *,
    order: str = "full",
    bounds: Mapping[str, Sequence[float]] | None = None,
    scan: int = SCAN,
    seed: int = 0,
    points: int | None = None,
    randomisations: int | None = None,
    tolerance: float | None = None,
) -> Fit:
    """The numbers of a network that make the evidence of one task or several largest, with standard errors.

    The log evidence is looked at in the network's own values and at ``scan`` starting points for each parameter, and
    climbed from the best by L-BFGS-B and Newton steps.

    Args:
        network: in muP scaling its width counts, since targets have the variance kappa/N.
        task: one task, or a list of them whose log evidences are added: weights independent, numbers the same.
        over: names of one to four parameters: "noise", "recurrent_gain", "leak" and so on, or "shared.recurrent" and
            so on, as in `theory.sensitivity`.
        order: "full" for all terms of `theory.log_evidence`, "leading" for -N F alone, by which noise and mostly
            gains have no optimum at finite values.
        bounds: least and largest value by name. By default [0, 1] for degrees of sharing, [0.001, 1] for the leak, and
            for other numbers from a thousandth to a thousand times their value in ``network``.
        scan: starting points for each parameter, 0 or more.
        seed: of the starting points and of `theory.solve`.
        points, randomisations, tolerance: as for `theory.solve`; not for linear networks.

    Returns:
        A `Fit`. Costs some thirty solutions for one parameter and a hundred for four: a second or a few for linear
        networks, some minutes for others.

    Raises:
        ValueError: if an argument is out of its range, or a parameter is zero in ``network`` and has no bounds.
        RuntimeError: if the log evidence could be computed nowhere.
    """
    arguments.instance("network", network, Network)
    tasks = _tasks(task)
    names = _names(network, over)
    arguments.one_of("order", order, ORDERS)
    scan, seed = arguments.integer("scan", scan, 0), arguments.seed("seed", seed)
    for one in tasks:
        Parameters(network, one, names)
        check_settings(network, one, points=points, randomisations=randomisations, tolerance=tolerance)
    ranges = _bounds(network, names, bounds)
    settings = {"points": points, "randomisations": randomisations, "tolerance": tolerance, "seed": seed}
    coordinates = EvidenceCurve(network, tasks, names, np.zeros((len(names), 2)), order == "leading", settings)
    ends = [coordinates.coordinates({name: ranges[name][end] for name in names}) for end in (0, 1)]
    curve = EvidenceCurve(network, tasks, names, np.transpose(ends), order == "leading", settings)
    own = current_values(network)
    start = curve.coordinates({name: float(np.clip(own[name], *ranges[name])) for name in names})
    return _described(curve, order, ranges, _climb(curve, _best_start(curve, start, scan, seed)))


def _best_start(curve: EvidenceCurve, start: np.ndarray, scan: int, seed: int) -> np.ndarray:
    """The best of the network's own values and of points spread over what is near them."""
    low, high = curve.bounds.T
    positive = np.array([not in_unit_interval(name) for name in curve.names])
    low = np.where(positive, np.maximum(low, start - np.log(SCANNED)), low)
    high = np.where(positive, np.minimum(high, start + np.log(SCANNED)), high)
    size = len(start)
    candidates = [start]
    if scan and size == 1:
        candidates += list(np.linspace(low, high, scan))
    elif scan:
        exponent = int(np.ceil(np.log2(scan * size)))  # Sobol sets are even at powers of two
        import scipy.stats  # not before it is needed: it takes a third of a second

        spread = scipy.stats.qmc.Sobol(size, rng=np.random.default_rng(seed)).random_base2(exponent)
        candidates += list(low + (high - low) * spread)
    values = [curve.at(candidate).value for candidate in candidates]
    if not np.isfinite(values).any():
        raise RuntimeError(f"no value of {', '.join(curve.names)} has a log evidence: {curve.at(start).trouble}")
    return candidates[int(np.argmax(values))]


def _climb(curve: EvidenceCurve, start: np.ndarray) -> np.ndarray:
    """The maximum uphill of a point."""
    base = curve.at(start).value

    def cost(at: np.ndarray) -> tuple[float, np.ndarray]:
        value = curve.at(at).value
        if not np.isfinite(value):
            return abs(base) + 1e3, np.zeros_like(at)  # a wall that a line search turns back from
        return base - value, -curve.slope(at)

    found = scipy.optimize.minimize(cost, start, jac=True, method="L-BFGS-B", bounds=curve.bounds)
    at = np.clip(found.x, *curve.bounds.T)
    for _ in range(POLISH):
        free = _free(curve, at)
        slope = curve.slope(at)[free]
        hessian = curve.curvature(at, free)
        if not free or not np.all(np.linalg.eigvalsh(hessian) < 0):
            break
        step = np.zeros_like(at)
        step[free] = -np.linalg.solve(hessian, slope)
        moved = np.clip(at + step, *curve.bounds.T)
        if slope @ step[free] / 2 < GAIN / 100 or curve.at(moved).value < curve.at(at).value:
            break
        at = moved
    return at


def _free(curve: EvidenceCurve, at: np.ndarray) -> list[int]:
    """The places of the parameters that are not held by the end of their range."""
    low, high = curve.bounds.T
    slope, edge = curve.slope(at), EDGE * (high - low)
    held = ((at <= low + edge) & (slope < 0)) | ((at >= high - edge) & (slope > 0))
    return list(np.flatnonzero(~held))


def _described(curve: EvidenceCurve, order: str, ranges: dict[str, tuple[float, float]], at: np.ndarray) -> Fit:
    """What is found at the end of the climb."""
    names, point = curve.names, curve.at(at)
    width = curve.bounds[:, 1] - curve.bounds[:, 0]
    slope, free = curve.slope(at), _free(curve, at)
    inverse, undetermined, maximum = _spread(curve.curvature(at, free), width[free])
    covariance = np.zeros((len(names), len(names)))
    covariance[np.ix_(free, free)] = inverse
    told = [k for k, lost in zip(free, undetermined, strict=True) if not lost]
    vague = [k for k in free if k not in told]
    gain = float(slope[told] @ covariance[np.ix_(told, told)] @ slope[told]) / 2 if maximum else 0.0
    held = [k for k in range(len(names)) if k not in free]
    covariance[held, held] = 1 / slope[held] ** 2
    by_parameter = curve.by_parameter(at)
    outer = np.outer(by_parameter, by_parameter)
    covariance = np.where(covariance == 0, 0.0, covariance * outer)
    values = curve.values(at)
    for k in held:  # the ends exactly
        low, high = ranges[names[k]]
        values[names[k]] = low if slope[k] < 0 else high
    transition = _changes_phase(curve, at, np.sqrt(np.diagonal(covariance)) / by_parameter)
    solved = all(solution.converged for solution in point.solutions)
    converged = maximum and gain < GAIN and solved
    words = ["converged"] if converged else ["NOT CONVERGED"]
    if not maximum:
        words.append("no maximum: the log evidence is not curved downwards")
    elif gain >= GAIN:
        words.append(f"another step would gain {gain:.2g}")
    if not solved:
        words.append("a solution there did not converge")
    if held:
        listed = ", ".join(f"{names[k]} at {values[names[k]]:g}" for k in held)
        words.append(f"at the end of its range: {listed}, where the log evidence still rises outwards")
    if vague:
        words.append(f"the data do not determine {', '.join(names[k] for k in vague)}")
    if transition:
        words.append("at a transition, where the errors are not those of a Gaussian law")
    errors = np.sqrt(np.diagonal(covariance))
    return Fit(
        network=network_at(curve.network, values),
        tasks=curve.tasks,
        order=order,
        values=values,
        standard_errors=dict(zip(names, map(float, errors), strict=True)),
        covariance=covariance,
        log_evidence=point.value,
        log_evidence_error=point.error,
        bounds=ranges,
        at_boundary=tuple(names[k] for k in held),
        undetermined=tuple(names[k] for k in vague),
        at_transition=transition,
        converged=converged,
        message="; ".join(words),
        solutions=point.solutions,
        evaluations=curve.evaluations,
    )


def _spread(hessian: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The covariance -H^{-1} (k, k), which parameters are not determined (k,), and whether H is that of a maximum.

    A direction along which the standard error would exceed the range has no variance; what has a share in it gets
    infinite variance.
    """
    values, vectors = np.linalg.eigh(hessian * np.outer(width, width))  # in units of the ranges
    flat, rising = np.abs(values) < 1, values >= 1
    lost = (vectors[:, flat | rising] ** 2).sum(axis=1) > SHARE
    kept = vectors[:, ~(flat | rising)] * width[:, None]
    covariance = (kept / -values[~(flat | rising)]) @ kept.T
    covariance[lost] = 0.0
    covariance[:, lost] = 0.0
    covariance[lost, lost] = np.inf
    return covariance, lost, not rising.any()


def _changes_phase(curve: EvidenceCurve, at: np.ndarray, errors: np.ndarray) -> bool:
    """Whether the symmetry changes, or another phase competes, within a standard error and a step of differences."""
    here = curve.at(at).phases
    if any(competing for _, competing in here):
        return True
    for k, error in enumerate(errors):
        reach = max(curve.step, error if np.isfinite(error) else 0.0)
        for sign in (-1, 1):
            moved = at + sign * reach * np.eye(len(at))[k]
            point = curve.at(moved)
            if not np.isfinite(point.value) or [m for m, _ in point.phases] != [m for m, _ in here]:
                return True
    return False


def _tasks(given: Any) -> tuple[Task, ...]:
    if isinstance(given, Task):
        return (given,)
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not listed or not all(isinstance(one, Task) for one in listed):
        raise ValueError(f"task is {type(given).__name__}; it must be a Task or a list of them")
    return tuple(listed)


def _names(network: Network, over: Any) -> tuple[str, ...]:
    single = current_values(network)
    names = tuple(over) if isinstance(over, Sequence) and not isinstance(over, str) else ()
    fine = 1 <= len(names) <= MOST and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if not fine:
        raise ValueError(f"over is {over!r}; it must be a list of one to {MOST} different names of parameters")
    for name in names:
        if name not in single:
            listed = "is not a single number in this network" if name in parameter_names(network) else "is no parameter"
            raise ValueError(f"over has {name!r}, which {listed}; allowed are {', '.join(single)}")
    return names


def _bounds(network: Network, names: Sequence[str], given: Any) -> dict[str, tuple[float, float]]:
    """Least and largest value by name."""
    if given is not None and not (isinstance(given, Mapping) and set(given) <= set(names)):
        raise ValueError(f"bounds is {given!r}; it must map names of over to pairs of numbers")
    own, bounds = current_values(network), {}
    for name in names:
        unit = in_unit_interval(name)
        if given is not None and name in given:
            try:
                low, high = (arguments.real(f"bounds[{name!r}]", end) for end in given[name])
            except (TypeError, ValueError):
                raise ValueError(f"bounds[{name!r}] is {given[name]!r}; it must be two finite numbers") from None
        elif unit:
            low, high = (LEAST_LEAK if name == "leak" else 0.0), 1.0
        elif own[name] == 0:
            raise ValueError(f"over has {name!r}, which is 0 in the network; give it bounds, or a value to start from")
        else:
            low, high = own[name] / REACH, own[name] * REACH
        allowed = 0 <= low < high <= 1 if unit else 0 < low < high
        if not allowed or (name == "leak" and low == 0):
            within = "within 0 and 1" if unit else "above 0"
            raise ValueError(f"bounds[{name!r}] is {(low, high)!r}; it must be a smaller and a larger number {within}")
        bounds[name] = (low, high)
    return bounds
