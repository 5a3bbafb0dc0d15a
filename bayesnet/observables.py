"""Observables: numbers read off a kernel and a prediction, the same way from a draw and from the saddle point.

An observable is a label and a function of (kernel, prediction) that accepts any leading axes: none for a
`theory.Solution`, (chain, draw) for a posterior. Only invariants of the posterior are offered by default: where the
sign symmetry holds (`theory.has_sign_symmetry`), what it flips enters squared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from theory.model import Model, build_model
from theory.network import Network
from theory.symmetry import flipped_pairs, mirror_signs, sign_changes
from theory.task import Task
from theory.ties import reached_entries

CANCELLED = 64  # rounding errors of the terms of a sum: less than that is left where they cancel

Evaluate = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Observable:
    """A number that kernel and prediction determine.

    Attributes:
        label: its name in tables.
        evaluate: (kernel (..., T, P, T, P), prediction (..., P, T, O)) -> (...).
    """

    label: str
    evaluate: Evaluate


def unit_of(observable: Observable, network: Network, kernel: np.ndarray, output_dim: int) -> float:
    """What an observable is like where kernels are of the size of ``kernel`` (S, P, S, P): rounding is judged by it.

    Its modulus at a generic kernel and prediction of that size, so that it has the units of the observable.
    """
    sites, patterns = kernel.shape[:2]
    n, rng = sites * patterns, np.random.default_rng(0)
    rows = rng.normal(size=(n, n))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    size = np.max(np.diagonal(kernel.reshape(n, n)), initial=0.0) or 1.0
    outputs = network.readout_gain * np.sqrt(size) * rng.normal(size=(patterns, sites // network.layers, output_dim))
    return float(np.abs(observable.evaluate(size * (rows @ rows.T).reshape(kernel.shape), outputs)))


def check_observables(observables: Any) -> None:
    """A list of observables.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(observables, Sequence) or not all(isinstance(one, Observable) for one in observables):
        raise ValueError(f"observables is {observables!r}; it must be a list of bayesnet.observables.Observable")


def overlaps(kernel: np.ndarray) -> np.ndarray:
    """The kernel normalised to unit diagonal, Phi_ij / sqrt(Phi_ii Phi_jj), for kernels (..., T, P, T, P).

    An entry without variance (no input has reached it) has no overlap; zero stands in its place.
    """
    shape = kernel.shape
    n = shape[-2] * shape[-1]
    flat = kernel.reshape(*shape[:-4], n, n)
    deviation = np.sqrt(np.diagonal(flat, axis1=-2, axis2=-1))
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return (flat * inverse[..., :, None] * inverse[..., None, :]).reshape(shape)


def target_direction(task: Task) -> np.ndarray | None:
    """Unit vector over patterns along which the targets lie, (P,); None for one pattern or without any target signal.

    The leading left singular vector of the supervised targets (patterns by steps and outputs): y / |y| where a single
    step and output is supervised.
    """
    if task.patterns == 1:
        return None
    targets = np.where(task.supervised[..., None], task.targets, 0.0).reshape(task.patterns, -1)
    left, strengths, _ = np.linalg.svd(targets, full_matrices=False)
    if strengths[0] == 0:
        return None
    direction = left[:, 0]
    return direction * np.sign(direction[np.argmax(np.abs(direction))])


def default_observables(network: Network, task: Task, apart: int | None = None) -> list[Observable]:
    """Diagonal kernels, overlaps between steps (per pattern and along the target direction) and predictions.

    Where the sign symmetry holds, odd-offset overlaps and the predictions at an odd offset from the supervised steps
    change sign between mirror modes: they enter squared.

    Entries that no input has reached are left out. Steps, patterns and outputs are counted from 1 in the labels.
    ``apart``: overlaps are those between sites that are at most so far apart; by default all.
    """
    return [row.observable for row in default_rows(network, task, apart)]


class Row(NamedTuple):
    """A default observable and what a symmetry of the task makes of it.

    Attributes:
        observable: it.
        kind: what it is an observable of, whatever the pattern.
        pattern: which, counted from 0; None for the direction of the targets, which all symmetries keep.
        signed: whether it changes sign with the targets.
    """

    observable: Observable
    kind: tuple
    pattern: int | None
    signed: bool = False


def default_rows(network: Network, task: Task, apart: int | None = None) -> list[Row]:
    """The `default_observables`, each as a `Row`."""
    model, layers = build_model(network, task), network.layers
    images = sign_changes(model) if network.phi.odd else np.ones((0, model.sites))
    flips = flipped_pairs(images, model.sites)
    reached = reached_by(network, model)
    sites, patterns = range(model.sites), range(task.patterns)
    table = [Row(diagonal_kernel(t, mu, layers), (t, t), mu) for t in sites for mu in patterns if reached[mu, t]]
    pairs = [(t, s) for t in sites for s in sites if t < s and (apart is None or s - t <= apart)]
    for t, s in pairs:
        table += [Row(overlap(t, s, mu, flips[t, s], layers), (t, s), mu) for mu in patterns if reached[mu, t]]
    direction = target_direction(task)
    if direction is not None:
        active = [t for t in sites if reached[direction != 0, t].any()]
        table += [Row(directed_kernel(t, direction, layers), (t, t), None) for t in active]
        directed = [(t, s) for t, s in pairs if t in active]
        table += [Row(directed_overlap(t, s, direction, flips[t, s], layers), (t, s), None) for t, s in directed]
    flipped = flipped_outputs(images, model) if len(images) else np.zeros((1, task.steps), bool)
    turned = np.any(flipped, axis=0).tolist()
    for mu in patterns:
        for t, site in enumerate(model.outputs):
            outputs = range(task.output_dim) if reached[mu, site] else ()
            table += [Row(prediction_at(mu, t, o, turned[t]), ("f", t, o), mu, not turned[t]) for o in outputs]
    return table


def flipped_outputs(images: np.ndarray, model: Model) -> np.ndarray:
    """Boolean (images, T): the outputs that change sign in each of the `theory.symmetry.mirror_signs`.

    A readout that a supervised step shares keeps the sign that makes the targets right there.
    """
    outputs = np.array(model.outputs)
    first = np.asarray(model.supervised)[0] // model.patterns
    shared = np.asarray(model.readout)[outputs * model.patterns, first * model.patterns] != 0
    return (images[:, outputs] != images[:, [first]]) & shared


def aligned_outputs(network: Network, task: Task, kernels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Predictions (..., P, T, O), each draw in the mirror image whose neighbouring steps correlate positively.

    Args:
        network, task: what the draws are of.
        kernels: of the draws, (..., T, P, T, P).
        outputs: their predictions, (..., P, T, O).
    """
    images = mirror_signs(network, task)
    if not len(images):
        return outputs
    along = [np.einsum("...mm->...", kernels[..., s, :, s + 1, :]) for s in range(kernels.shape[-2] - 1)]
    options = np.concatenate([np.ones((1, images.shape[1])), images])
    best = np.argmax(np.stack(along, axis=-1) @ (options[:, :-1] * options[:, 1:]).T, axis=-1)
    turned = flipped_outputs(options, build_model(network, task))
    return np.where(turned[best][..., None, :, None], -outputs, outputs)


def order_parameter(network: Network, task: Task) -> Observable:
    """The largest squared overlap between two different steps (sites): of each pattern, and along the target direction.

    At infinite width it vanishes where the steps do not correlate; at width N each squared overlap is then of order
    1/N. It is 0 for a single site.
    """
    model = build_model(network, task)
    reached = reached_by(network, model)
    direction = target_direction(task)
    pairs = [(t, s) for t in range(model.sites) for s in range(t + 1, model.sites)]
    squares = [overlap(t, s, mu, squared=True) for t, s in pairs for mu in range(task.patterns) if reached[mu, t]]
    if direction is not None:
        squares += [directed_overlap(t, s, direction, squared=True) for t, s in pairs]

    def evaluate(kernel, prediction):
        values = [square.evaluate(kernel, prediction) for square in squares]
        return np.max(values, axis=0) if values else np.zeros(kernel.shape[:-4])

    return Observable("order parameter", evaluate)


def diagonal_kernel(step: int, pattern: int, layers: int = 1) -> Observable:
    """Phi at (step, pattern), 0-based; of several layers at a site."""
    label = f"kernel[{_site_name(layers, step)}, mu={pattern + 1}]"
    return Observable(label, lambda k, f: k[..., step, pattern, step, pattern])


def overlap(step: int, other: int, pattern: int, squared: bool, layers: int = 1) -> Observable:
    """Normalised kernel between two steps (sites) of a pattern."""

    def evaluate(kernel, prediction):
        cross, own, others = (
            kernel[..., t, pattern, s, pattern] for t, s in ((step, other), (step, step), (other, other))
        )
        return _normalised(cross, own, others, squared)

    return Observable(f"{_overlap_name(squared)}[{_site_name(layers, step, other)}, mu={pattern + 1}]", evaluate)


def directed_kernel(step: int, direction: np.ndarray, layers: int = 1) -> Observable:
    """y^T Phi_tt y along the unit vector y over patterns."""
    return Observable(f"kernel_y[{_site_name(layers, step)}]", lambda k, f: _directed(k, step, step, direction))


def directed_overlap(step: int, other: int, direction: np.ndarray, squared: bool, layers: int = 1) -> Observable:
    """y^T Phi_ts y, normalised."""

    def evaluate(kernel, prediction):
        cross = _directed(kernel, step, other, direction)
        own, others = _directed(kernel, step, step, direction), _directed(kernel, other, other, direction)
        return _normalised(cross, own, others, squared)

    return Observable(f"{_overlap_name(squared)}_y[{_site_name(layers, step, other)}]", evaluate)


def prediction_at(pattern: int, step: int, output: int, squared: bool = False) -> Observable:
    """f at (pattern, step, output), 0-based."""
    label = f"prediction{'^2' if squared else ''}[t={step + 1}, mu={pattern + 1}, o={output + 1}]"
    return Observable(label, lambda k, f: f[..., pattern, step, output] ** (2 if squared else 1))


def reached_by(network: Network, model: Model) -> np.ndarray:
    """Boolean (P, sites): where activity has variance. With phi(0) != 0 the network stirs without input."""
    silent = float(network.phi.function(np.zeros(1))[0])
    return reached_entries(model, silent).reshape(model.sites, model.patterns).T


def _site_name(layers: int, *sites: int) -> str:
    """The step of each site; of several layers also the layer."""
    steps = ",".join(str(site // layers + 1) for site in sites)
    return f"t={steps}" if layers == 1 else f"t={steps}, l={','.join(str(site % layers + 1) for site in sites)}"


def site_in_words(site: int, layers: int) -> str:
    """Step and, of several layers, layer of a site, which is counted from 0."""
    return f"step {site + 1}" if layers == 1 else f"step {site // layers + 1}, layer {site % layers + 1}"


def _overlap_name(squared: bool) -> str:
    return "overlap^2" if squared else "overlap"


def _directed(kernel: np.ndarray, step: int, other: int, direction: np.ndarray) -> np.ndarray:
    terms = kernel[..., step, :, other, :] * np.outer(direction, direction)
    total, size = terms.sum(axis=(-2, -1)), np.abs(terms).sum(axis=(-2, -1))
    # What cancels up to rounding errors is nothing: errors have neither an R-hat nor an overlap.
    return np.where(np.abs(total) <= CANCELLED * np.finfo(terms.dtype).eps * size, 0.0, total)


def _normalised(cross: np.ndarray, one: np.ndarray, other: np.ndarray, squared: bool) -> np.ndarray:
    # Not the root of a product, which may overflow.
    size = np.asarray(np.sqrt(np.maximum(one, 0)) * np.sqrt(np.maximum(other, 0)))
    overlap = np.divide(cross, size, out=np.zeros_like(size), where=size > 0)
    return overlap**2 if squared else overlap
