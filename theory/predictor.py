r"""The predictor at infinite width, and its spread at finite width: unsupervised steps, new patterns, what they cost.

    f_* = K_*s A^{-1} y,    K = gv^2 (Mv o Phi),    A = kappa I + K_ss,
    Var f_* = scale [ K_** - K_*s A^{-1} K_s* ]  +  (1/N) Var[ g_* ]

The first part of the variance is that of the readout given the kernels, the second that of the kernels: g_* is the
influence function of f_*, what one more neuron (h_g, xi) adds to it, and its variance is taken under the fluctuations
of the neurons at width N, those of the training fields being the posterior's (`theory.kernel_action`).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import xarray as xr

from theory import arguments
from theory.extension import joined, joint_model, predictors, same_model
from theory.finite_width import draw_sets, kernel_covariance, require_stable, second_variation
from theory.influence import linear_variance, sampled_variance
from theory.jax_settings import own_settings
from theory.kernels import OUTPUT_DIMS, entry_coords, outputs_of
from theory.laws.law import live_entries
from theory.lazy import prior_kernel
from theory.model import build_model, output_law
from theory.response import NEGLIGIBLE, factorise
from theory.solution import Solution
from theory.task import Task
from theory.units import times


@dataclass(frozen=True, eq=False)
class Prediction:
    """The posterior of the predictor f at width N, to leading order, on the inputs of a task.

    Attributes:
        task: its inputs were seen; its targets score the prediction.
        mean: of f, (P, T, O), off by O(1/N) at width N.
        variance: of f at width N, (P, T, O), of order 1/N in muP scaling.
        observation_variance: of a noisy observation y of f, (P, T, O): kappa/N (standard scaling: kappa) more.
        standard_error: statistical error of ``mean``, (P, T, O), from independent sets of neurons; zero where exact.
        scored: boolean (P, T): the entries whose target is known and was not trained on.
    """

    task: Task
    mean: np.ndarray
    variance: np.ndarray
    observation_variance: np.ndarray
    standard_error: np.ndarray
    scored: np.ndarray

    @property
    def squared_bias(self) -> float:
        """(mean - y)^2, averaged over the scored entries and the outputs.

        Raises:
            ValueError: if no entry is scored.
        """
        return float(np.mean((self.mean - self.task.targets)[self._scored()] ** 2))

    @property
    def mean_variance(self) -> float:
        """The variance of f, averaged over the scored entries and the outputs. Raises as `squared_bias`."""
        return float(np.mean(self.variance[self._scored()]))

    @property
    def generalisation_error(self) -> float:
        """<(f - y)^2> of a network drawn from the posterior: `squared_bias` + `mean_variance`. Raises as they do."""
        return self.squared_bias + self.mean_variance

    def _scored(self) -> np.ndarray:
        if not self.scored.any():
            raise ValueError("task has no known target that was not trained on; there is nothing to score")
        return self.scored

    def to_xarray(self) -> xr.Dataset:
        """A labelled Dataset with dims (pattern, step, output), counted from 1."""
        arrays = {name: getattr(self, name) for name in ("mean", "variance", "observation_variance", "standard_error")}
        data = {name: (OUTPUT_DIMS, values) for name, values in arrays.items()}
        coords = entry_coords(self.task)
        return xr.Dataset({**data, "scored": (OUTPUT_DIMS[:2], self.scored)}, coords)


def predict(solution: Solution, task: Task | None = None, *, neurons: int | None = None, seed: int = 0) -> Prediction:
    """What the posterior of a solved network says on the inputs of a task; no new solve.

    New patterns carry no data: given the training fields their pre-activations follow the prior conditional
    (`theory.extension`). Linear networks and the lazy limit are done exactly, others on neurons drawn from q. Where the
    sign symmetry W -> -W is broken, the prediction is that of the solution's own one of two mirror images.

    Args:
        solution: a stable saddle point or a lazy limit. The variance is that at the width of its network.
        task: any number of patterns; their inputs are seen one pattern at a time, their targets only score the result.
            By default the training task itself: all its steps, also the unsupervised ones. With process noise that is
            not the same as its inputs seen anew: there the patterns meet noise that they have not met in training.
        neurons: how many to draw from q, four times over; 8192 by default. Not for linear networks.
        seed: of the draws.

    Raises:
        ValueError: if the input or output dimensions differ from the training task's, if the task is longer and a
            weight is not shared over the steps, if the solution is unstable, or if an argument is out of its range.
    """
    arguments.instance("solution", solution, Solution)
    seed = arguments.seed("seed", seed)
    given, task = task, solution.task if task is None else task
    _check(solution, task)
    known = ~np.isnan(task.targets).any(axis=-1)
    scored = known & ~task.supervised if task == solution.task else known
    if solution.kind != "lazy limit":
        require_stable(solution)
    # float64 within this call only, as everywhere in the theory.
    with own_settings():
        if solution.kind == "lazy limit":
            means, variances = _lazy_prediction(solution, given)
        else:
            means, variances = _saddle_prediction(solution, given, neurons, seed)
    mean, variance = means.mean(axis=0), variances.mean(axis=0)
    error = means.std(axis=0, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.zeros_like(mean)
    noise = solution.network.noise * solution.network.target_variance_scale
    return Prediction(task, mean, variance, variance + noise, error, scored)


def _check(solution: Solution, task: Task) -> None:
    arguments.instance("task", task, Task)
    trained = solution.task
    for name in ("input_dim", "output_dim"):
        if getattr(task, name) != getattr(trained, name):
            raise ValueError(f"task has {name} {getattr(task, name)}; the solution's is {getattr(trained, name)}")
    solution.network.require_extendable(task.steps, trained.steps)


def _saddle_prediction(
    solution: Solution, task: Task | None, neurons: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances (R, P, T, O), one for each set of neurons; without a task, of the trained patterns."""
    saddle, kept = solution.saddle.needed()  # the other entries carry no data
    joint = joint_model(solution.network, solution.task, task) if task else same_model(solution.model, kept)
    saddle, units = saddle.natural()
    model = units.model(joint.model).on_device()
    factor = factorise(saddle.cov) if saddle.linear else factorise(saddle.cov, NEGLIGIBLE)
    layout = {
        "phi": saddle.phi.function,
        "known": tuple(map(int, joint.trained[kept])),
        "live": live_entries(factor),
        "new": joint.new,
        "outputs": joint.outputs,
    }
    k, extra = len(kept), len(joint.new)
    means, variances = [], []
    rng = np.random.default_rng(seed)
    for drawn in draw_sets(saddle, neurons, seed):
        action = second_variation(saddle, drawn)
        if drawn is None:
            unit = np.eye(k + extra)
            law = (scipy.linalg.block_diag(saddle.kernel, np.eye(extra)), unit[:, :k], unit[:, k:])
        else:
            law = (drawn.weights, drawn.preactivation, rng.normal(size=(len(drawn.weights), extra)))
        found, influence = predictors(*map(jnp.asarray, law), model, **layout)
        if drawn is None:
            of_kernels = linear_variance(np.asarray(influence), saddle.kernel, kernel_covariance(action))
        else:
            of_kernels = sampled_variance(np.asarray(influence), drawn, saddle, action)
        means.append(times(found.mean, units.output))
        given_kernels = float(model.scale) * np.asarray(found.variance)[..., None]
        variances.append(times(given_kernels + of_kernels / solution.network.width, 2 * units.output))
    if task is None:
        means, variances = ([outputs_of(part[0], solution.task) for part in parts] for parts in (means, variances))
    return np.array(means), np.array(variances)


def _lazy_prediction(solution: Solution, task: Task | None) -> tuple[np.ndarray, np.ndarray]:
    """The same for a lazy limit, exactly: the kernel of both tasks together is the prior's."""
    if task is None:
        both, new, steps = solution.task, slice(None), solution.task.steps
    else:
        both, new, steps = joined(solution.task, task, slice(None)), slice(solution.task.patterns, None), task.steps
    model = build_model(solution.network, both)
    law = output_law(model, prior_kernel(model, solution.network.phi))
    mean = outputs_of(model.read_out(law.mean), both)[new, :steps]
    variance = outputs_of(model.read_out(np.diagonal(law.cov)[:, None]), both)[new, :steps]
    return mean[None], np.broadcast_to(variance, mean.shape)[None]
