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

import numpy as np

from theory import arguments
from theory.display import in_digits
from theory.evidence_climb import GAIN, best_start, climb, free_parameters
from theory.evidence_curve import EvidenceCurve
from theory.evidence_width import changes_phase, spread_of
from theory.fit_arguments import listed_tasks, parameter_bounds, parameters_to_fit
from theory.network import Network
from theory.parameters import Parameters, network_at
from theory.saddle import check_settings
from theory.sensitivity import current_values
from theory.solution import Solution
from theory.task import Task

ORDERS = ("full", "leading")
SCAN = 8  # starting points looked at for each parameter: a phase that has an optimum of its own is wider than 1/8


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
    tasks = listed_tasks(task)
    names = parameters_to_fit(network, over)
    arguments.one_of("order", order, ORDERS)
    scan, seed = arguments.integer("scan", scan, 0), arguments.seed("seed", seed)
    for one in tasks:
        Parameters(network, one, names)
        check_settings(network, one, points=points, randomisations=randomisations, tolerance=tolerance)
    ranges = parameter_bounds(network, names, bounds)
    settings = {"points": points, "randomisations": randomisations, "tolerance": tolerance, "seed": seed}
    coordinates = EvidenceCurve(network, tasks, names, np.zeros((len(names), 2)), order == "leading", settings)
    ends = [coordinates.coordinates({name: ranges[name][end] for name in names}) for end in (0, 1)]
    curve = EvidenceCurve(network, tasks, names, np.transpose(ends), order == "leading", settings)
    own = current_values(network)
    start = curve.coordinates({name: float(np.clip(own[name], *ranges[name])) for name in names})
    return _described(curve, order, ranges, climb(curve, best_start(curve, start, scan, seed)))


def _described(curve: EvidenceCurve, order: str, ranges: dict[str, tuple[float, float]], at: np.ndarray) -> Fit:
    """What is found at the end of the climb."""
    names, point = curve.names, curve.at(at)
    width = curve.bounds[:, 1] - curve.bounds[:, 0]
    slope, free = curve.slope(at), free_parameters(curve, at)
    inverse, undetermined, maximum = spread_of(curve.curvature(at, free), width[free])
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
    transition = changes_phase(curve, at, np.sqrt(np.diagonal(covariance)) / by_parameter)
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
