r"""The predictor at infinite width, and its spread at finite width: unsupervised steps, new patterns, what they cost.

    f_* = K_*s A^{-1} y,    K = gv^2 (Mv o Phi),    A = kappa I + K_ss,
    Var f_* = scale [ K_** - K_*s A^{-1} K_s* ]  +  (1/N) Var[ g_* ]

The first part of the variance is that of the readout given the kernels, the second that of the kernels: g_* is the
influence function of f_*, what one more neuron (h_g, xi) adds to it, and its variance is taken under the fluctuations
of the neurons at width N, those of the training fields being the posterior's (`theory.kernel_action`).

Source: DESIGN.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import xarray as xr

from theory import arguments
from theory.causal_reach import needed_task
from theory.covariance import covariance_terms
from theory.extension import new_patterns, predictors
from theory.finite_width import draw_sets, kernel_covariance, require_stable, second_variation
from theory.influence import linear_variance, sampled_variance
from theory.jax_settings import own_settings
from theory.lazy import prior_kernel
from theory.network import WEIGHTS
from theory.nonlinear.neuron import live_entries
from theory.prediction import predict_given_kernel
from theory.response import NEGLIGIBLE, factorise
from theory.solution import OUTPUT_DIMS, Solution, entry_coords, outputs_of
from theory.task import Task

NEURONS = 8192


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
        coords = {name: values for name, values in entry_coords(self.task).items() if not name.endswith("_bis")}
        return xr.Dataset({**data, "scored": (OUTPUT_DIMS[:2], self.scored)}, coords)


def predict(solution: Solution, task: Task | None = None, *, neurons: int = NEURONS, seed: int = 0) -> Prediction:
    """What the posterior of a solved network says on the inputs of a task; no new solve.

    New patterns carry no data: given the training fields their pre-activations follow the prior conditional
    (`theory.extension`). Linear networks and the lazy limit are done exactly, others on neurons drawn from q. Where the
    sign symmetry W -> -W is broken, the prediction is that of the solution's own one of two mirror images.

    Args:
        solution: a stable saddle point or a lazy limit. The variance is that at the width of its network.
        task: any number of patterns; their inputs are seen one pattern at a time, their targets only score the result.
            By default the training task itself: all its steps, also the unsupervised ones.
        neurons: how many to draw from q, four times over. Nonlinear networks only.
        seed: of the draws.

    Raises:
        ValueError: if the input or output dimensions differ from the training task's, if the task is longer and a
            weight is not shared over the steps, if the solution is unstable, or if an argument is out of its range.
    """
    arguments.instance("solution", solution, Solution)
    seed = arguments.seed("seed", seed)
    task = solution.task if task is None else task
    _check(solution, task)
    known = ~np.isnan(task.targets).any(axis=-1)
    scored = known & ~task.supervised if task == solution.task else known
    if solution.kind != "lazy limit":
        require_stable(solution)
    # float64 within this call only, as everywhere in the theory.
    with own_settings():
        if solution.kind == "lazy limit":
            means, variances = _lazy_prediction(solution, task)
        else:
            means, variances = _saddle_prediction(_restricted(solution), task, neurons, seed)
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
    unshared = [name for name in WEIGHTS if name not in solution.network.shared]
    if task.steps > trained.steps and unshared:
        raise ValueError(
            f"task has {task.steps} steps, the solution's {trained.steps}; longer sequences need every weight shared, "
            f"but {', '.join(unshared)} is not"
        )


def _restricted(solution: Solution) -> Solution:
    """The solution on the entries that a supervised one depends on: the others carry no data."""
    needed, kept = needed_task(solution.task)
    n, shape = solution.task.entries, (needed.steps, needed.patterns) * 2
    names = ("kernel", "conjugate", "preactivation_cov", "standard_error", "repetitions")
    whole = {name: getattr(solution, name) for name in names}
    rows, columns = np.ix_(kept, kept)
    parts = {
        name: value.reshape(*value.shape[:-4], n, n)[..., rows, columns].reshape(*value.shape[:-4], *shape)
        for name, value in whole.items()
    }
    return replace(solution, task=needed, **parts, branches=())


def _saddle_prediction(solution: Solution, task: Task, neurons: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances (R, P, T, O), one for each set of neurons."""
    network, trained = solution.network, solution.task
    k = trained.entries
    terms = jax.tree.map(jnp.asarray, covariance_terms(network, trained))
    cov = solution.preactivation_cov.reshape(k, k)
    new = jax.tree.map(jnp.asarray, new_patterns(network, trained, task))
    phi = network.phi.function
    factor = factorise(cov) if network.activation == "linear" else factorise(cov, NEGLIGIBLE)
    layout = {"phi": phi, "patterns": trained.patterns, "live": live_entries(factor)}
    means, variances = [], []
    rng = np.random.default_rng(seed)
    for drawn in draw_sets(solution, neurons, seed):
        action = second_variation(solution, drawn)
        if drawn is None:
            kernel = solution.kernel.reshape(k, k)
            unit = np.eye(k + task.steps)
            law = (scipy.linalg.block_diag(kernel, np.eye(task.steps)), unit[:, :k], unit[:, k:])
            found, influence = predictors(*map(jnp.asarray, law), terms, new, **layout)
            of_kernels = linear_variance(np.asarray(influence), kernel, kernel_covariance(action))
        else:
            law = (drawn.weights, drawn.preactivation, rng.normal(size=(neurons, task.steps)))
            found, influence = predictors(*map(jnp.asarray, law), terms, new, **layout)
            of_kernels = sampled_variance(np.asarray(influence), drawn, cov, action, terms, trained.patterns, phi)
        means.append(np.asarray(found.mean))
        variances.append(float(terms.scale) * np.asarray(found.variance)[..., None] + of_kernels / network.width)
    return np.array(means), np.array(variances)


def _lazy_prediction(solution: Solution, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The same for a lazy limit, exactly: the kernel of both tasks together is the prior's."""
    joint = _joined(solution.task, task)
    terms = covariance_terms(solution.network, joint)
    law = predict_given_kernel(terms, prior_kernel(solution.network, joint))
    new = slice(solution.task.patterns, None)
    mean = outputs_of(law.mean, joint)[new, : task.steps]
    variance = outputs_of(np.diagonal(law.cov), joint)[new, : task.steps]
    return mean[None], np.broadcast_to(variance, mean.shape)[None]


def _joined(trained: Task, task: Task) -> Task:
    """The patterns of both tasks, those of ``task`` unsupervised; silence after the shorter one's last step."""
    steps = max(trained.steps, task.steps)

    def padded(array: np.ndarray, value: float) -> np.ndarray:
        missing = [(0, 0), (0, steps - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(array, missing, constant_values=value)

    return Task(
        np.concatenate([padded(trained.inputs, 0), padded(task.inputs, 0)]),
        np.concatenate([padded(trained.targets, np.nan), padded(np.full_like(task.targets, np.nan), np.nan)]),
        np.concatenate([padded(trained.supervised, False), np.zeros((task.patterns, steps), bool)]),
    )
