"""What differs between networks from outside and the posterior, in sentences that somebody can act on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bayesnet.observables import Observable
from theory.kernels import flat_of
from theory.network import Network
from theory.solution import Solution
from theory.task import Task

SIZE_LIMIT = 2.0  # factor between weights and the size expected of them that is pointed out
RARE = 0.01  # share of the posterior's networks beyond which an error counts as another one
UNSOLVED = 0.5  # of the error of a network that answers zero: more, and the task is not solved
COMMON_LIMIT = 3.0  # spreads by which patterns must have more in common than the posterior gives them
CHANGEABLE = ("recurrent", "input", "bias", "feedforward")


def side_observables(network: Network, task: Task) -> list[Observable]:
    """What the sentences need besides the observables compared: the error, and what patterns have in common."""
    return [task_error(task), *([common_part(network, task)] if task.patterns > 1 else [])]


def task_error(task: Task) -> Observable:
    """The root mean square of y - f over the supervised entries and outputs."""
    asked = task.supervised
    targets = task.targets[asked]

    def evaluate(kernel, prediction):
        return np.sqrt(np.mean((prediction[..., asked, :] - targets) ** 2, axis=(-2, -1)))

    return Observable("error", evaluate)


def common_part(network: Network, task: Task) -> Observable:
    """The share of the activity that all patterns have in common: mean over pairs of patterns over mean over patterns,
    at the same site, for all sites together."""
    sites = network.layers * task.steps

    def evaluate(kernel, prediction):
        blocks = [kernel[..., site, :, site, :] for site in range(sites)]
        whole = sum(np.mean(block, axis=(-2, -1)) for block in blocks)
        own = sum(np.einsum("...mm->...", block) for block in blocks) / task.patterns
        return np.divide(whole, own, out=np.zeros_like(np.asarray(own)), where=own > 0)

    return Observable("common part", evaluate)


def remarks(solution: Solution, width: int, sizes: Mapping[str, float], side: np.ndarray, drawn: np.ndarray) -> list:
    """Sentences about what the networks do on the task, the sizes of their weights, and what patterns share.

    Args:
        solution: the saddle point that they are compared with.
        width: N of the networks.
        sizes: of the weights by kind, relative to those of the prior; empty where weights are not known.
        side: `side_observables` of the networks, (networks, K).
        drawn: the same of single networks of the posterior, (draws, K).
    """
    network, task = solution.network, solution.task
    several = len(side) > 1
    found = [] if not task.supervised.any() else [_on_the_task(task, side[:, 0], drawn[:, 0], several)]
    if "readout" in sizes:
        found += _on_the_readout(network, width, sizes["readout"], readout_size(solution, width))
    found += [_on_the_size(name, sizes[name]) for name in CHANGEABLE if name in sizes and _is_odd(sizes[name])]
    if side.shape[1] > 1 and not network.has_bias:
        found += _on_what_patterns_share(side[:, 1], drawn[:, 1])
    return found


def readout_size(solution: Solution, width: int) -> float:
    """Root mean square of V over that of its prior, at the saddle point.

    The posterior mean of V is gv^2 dual_t phi(h_t), so that the mean square grows by sum_o dual_o^T (gv^2 Mv o Phi)
    dual_o / (copies x outputs), over N in standard scaling.
    """
    network, task, model = solution.network, solution.task, solution.model
    dual = np.zeros((model.sites, task.patterns, task.output_dim))
    dual[np.array(model.outputs)] = np.asarray(solution.dual).swapaxes(0, 1)
    rows = dual.reshape(model.entries, task.output_dim)
    learned = np.einsum("io,ij,jo->", rows, np.asarray(model.readout) * flat_of(solution.kernel), rows)
    copies = network.wiring(task.steps).readout.copy_factor.shape[1]
    numbers = copies * task.output_dim * (1 if network.scaling == "mup" else width)
    return math.sqrt(1 + float(learned) / numbers)


def _is_odd(ratio: float) -> bool:
    return not 1 / SIZE_LIMIT <= ratio <= SIZE_LIMIT


def _on_the_task(task: Task, errors: np.ndarray, drawn: np.ndarray, several: bool) -> str:
    error, usual = float(np.sqrt(np.mean(errors**2))), float(np.median(drawn))
    low, high = np.quantile(drawn, [RARE, 1 - RARE])
    silent = float(np.sqrt(np.mean(task.supervised_targets**2)))
    who, whose = ("These networks", "their") if several else ("This network", "its")
    plural = "" if several else "s"
    numbers = (
        f"{whose} error on the supervised entries (root mean square) is {error:.3g}, that of a network of the "
        f"posterior {usual:.3g}"
    )
    if error < low:
        return (
            f"{who} fit{plural} the targets more closely than the posterior: {numbers}; a smaller noise kappa "
            "describes such a training"
        )
    if error <= high:
        return f"{who} solve{plural} the task as precisely as the posterior: {numbers}"
    if error <= UNSOLVED * silent:
        return f"{who} solve{plural} the task less precisely than the posterior: {numbers}"
    return (
        f"{who} do{'' if several else 'es'} not solve the task: {numbers}, that of a network that answers zero "
        f"{silent:.3g}; train longer, or look at the units of the targets and of the readout"
    )


def _on_the_readout(network: Network, width: int, size: float, expected: float) -> list[str]:
    ratio = size / expected
    if not _is_odd(ratio):
        return []
    sentence = f"the readout V is {ratio:.3g} times as large as in the posterior"
    if network.scaling == "mup" and _is_near(ratio, math.sqrt(width)):
        return [
            f"{sentence}, about sqrt(N) times: the weights of an ordinary readout have the variance 1/N, and "
            "Network(..., scaling='standard') describes it"
        ]
    if _is_near(ratio, 1 / width) or _is_near(ratio, 1 / math.sqrt(width)):
        factor = "N" if network.scaling == "mup" else "sqrt(N)"
        return [
            f"{sentence}: f = V phi(h) / {factor} here, so that V is {factor} times the weight of an ordinary linear "
            "layer"
        ]
    return [f"{sentence}: another readout_gain or readout scale than the network's"]


def _is_near(ratio: float, number: float) -> bool:
    return abs(math.log(ratio / number)) <= math.log(SIZE_LIMIT) if ratio > 0 else False


def _on_the_size(name: str, size: float) -> str:
    gain = {"recurrent": "recurrent_gain", "input": "input_gain", "bias": "bias_gain"}.get(name, f"gain of {name}")
    if size == 0:
        return f"the {name} weights are all zero, while the network's prior has the size of its {gain}"
    return (
        f"the {name} weights are {size:.3g} times as large as their prior: is their scaling right, or is {gain} "
        "another one?"
    )


def _on_what_patterns_share(values: np.ndarray, drawn: np.ndarray) -> list[str]:
    middle, spread = float(drawn.mean()), float(drawn.std(ddof=1))
    if not values.mean() > middle + COMMON_LIMIT * spread + 1e-9:
        return []
    return [
        f"patterns have {values.mean():.0%} of their activity in common, {middle:.0%} in the posterior: a bias of the "
        "neurons does that, which this network has not (bias_gain)"
    ]
