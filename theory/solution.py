"""Solution: what the infinite-width theory says of a network on a task, and how well it was solved."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from theory import arguments, display, residuals
from theory.activations import Activation
from theory.clock import ran_out
from theory.jax_settings import own_settings
from theory.kernels import OUTPUT_DIMS, entry_coords, flat_of, kernel_labels, largest_relative
from theory.laws.neurons import draw_neurons
from theory.memory import require_memory
from theory.model import Model, build_model
from theory.network import Network
from theory.task import Task
from theory.ties import needed_part
from theory.units import Units, natural_units, times


class Saddle(NamedTuple):
    """A saddle point in flat arrays.

    Attributes:
        model: the network on the task.
        phi: the activation.
        linear: whether that is linear, so that everything has a closed form.
        kernel, conjugate, cov: Phi, Phihat and C, (n, n).
    """

    model: Model
    phi: Activation
    linear: bool
    kernel: np.ndarray
    conjugate: np.ndarray
    cov: np.ndarray

    def needed(self) -> tuple[Saddle, np.ndarray]:
        """The part that a supervised entry depends on, and its flat entries: the others carry no data."""
        part, kept = needed_part(self.model)
        window = np.ix_(kept, kept)
        arrays = (array[window] for array in (self.kernel, self.conjugate, self.cov))
        return Saddle(part, self.phi, self.linear, *arrays), kept

    def natural(self) -> tuple[Saddle, Units]:
        """The same in natural units (`theory.units`), and these."""
        units = natural_units(self.model, self.phi, self.kernel, self.cov)
        if not any(units):
            return self, units
        arrays = (
            times(self.kernel, -2 * units.activity),
            times(self.conjugate, 2 * units.activity),
            times(self.cov, -2 * units.preactivation),
        )
        # float64 within this call only, as everywhere in the theory.
        with own_settings():
            return Saddle(units.model(self.model).on_device(), units.activation(self.phi), self.linear, *arrays), units


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """A saddle point of the kernel theory (N -> infinity). Arrays are float64.

    Attributes:
        network, task: what was solved.
        kernel: Phi = <phi(h) phi(h)^T>, (T, P, T, P).
        conjugate: Phihat, (T, P, T, P); zero at the lazy limit.
        preactivation_cov: C[Phi], (T, P, T, P).
        free_energy: F = KL + 1/2 sum_o y_o^T A^{-1} y_o, minus the log evidence per neuron at leading order.
        prediction: f = gv^2 (Mv o Phi)_{*,sup} r at every entry, (P, T, O).
        dual: r = A^{-1} y on supervised entries, zero elsewhere, (P, T, O).
        residual: largest violation of the stationarity equations, |Phi - Phi[C, Phihat]|_ij / sqrt(Phi_ii Phi_jj); of
            long flows (`theory.search.flow_branches`) the root mean square of the first of them.
        stable: whether the free energy has no direction of descent here (all saddle points are listed, stable or not).
        converged: whether the residual reached its tolerance, and the search a stable saddle point.
        message: what happened, in words.
        kind: "saddle point" or "lazy limit".
        standard_error: of the kernel entries, (T, P, T, P), from the scatter of the repetitions; zero where the
            solution is exact up to its residual.
        repetitions: kernels of R independent randomisations, whose mean ``kernel`` is, (R, T, P, T, P); those of two
            grids, the finest first, where ``randomisations`` is 1; R = 0 where the solution is exact.
        randomisations: how many independent ones; t intervals have one degree of freedom less.
        free_energy_error: standard error of the free energy.
        effective_sample_size: of the importance weights, as a fraction of the points; the smallest met. 1 if exact.
        branches: every saddle point found, this one first, by increasing free energy; of long flows stable ones only.
        residual_limit: what the residual may be for the equations to count as solved; 1e-2 of long flows.
    """

    network: Network
    task: Task
    kernel: np.ndarray
    conjugate: np.ndarray
    preactivation_cov: np.ndarray
    free_energy: float
    prediction: np.ndarray
    dual: np.ndarray
    residual: float
    stable: bool
    converged: bool
    message: str
    kind: str = "saddle point"
    standard_error: np.ndarray | None = None
    repetitions: np.ndarray | None = None
    randomisations: int = 1
    free_energy_error: float = 0.0
    effective_sample_size: float = 1.0
    branches: tuple[Solution, ...] = ()
    residual_limit: float = residuals.STATED

    def __post_init__(self) -> None:
        if self.standard_error is None:
            object.__setattr__(self, "standard_error", np.zeros_like(self.kernel))
        if self.repetitions is None:
            object.__setattr__(self, "repetitions", np.empty((0, *self.kernel.shape)))

    def __repr__(self) -> str:
        return display.solution_text(self)

    def _repr_html_(self) -> str:
        return display.solution_html(self)

    @property
    def relative_error(self) -> float:
        """The largest standard error of a kernel entry, relative to sqrt(Phi_ii Phi_jj): what a tolerance is set to."""
        return largest_relative(flat_of(self.standard_error), flat_of(self.kernel))

    @property
    def solved(self) -> bool:
        """Whether the residual is within its limit."""
        return self.residual <= self.residual_limit

    @property
    def status(self) -> str:
        """What the search came to, for programs: "converged"; "unstable" (no stable saddle point was found); "unsolved"
        (the residual exceeds its tolerance); "imprecise" (the statistical error exceeds its tolerance)."""
        if self.converged:
            return "converged"
        if not self.stable and self.residual <= residuals.ANYWHERE:
            return "unstable"
        return "imprecise" if self.solved and self.relative_error > 0 else "unsolved"

    @cached_property
    def model(self) -> Model:
        """The network on the task in arrays (`theory.model`), float64."""
        # float64 within this call only, as everywhere in the theory.
        with own_settings():
            return build_model(self.network, self.task).on_device()

    @property
    def saddle(self) -> Saddle:
        """The same in flat arrays."""
        flat = (flat_of(array) for array in (self.kernel, self.conjugate, self.preactivation_cov))
        return Saddle(self.model, self.network.phi, self.network.activation == "linear", *flat)

    def sample_neurons(self, num: int, seed: int = 0) -> np.ndarray:
        """Independent draws of a neuron's pre-activations h, (num, T, P), from its law

            q(h) ~ exp( -1/2 h^T C^{-1} h - 1/2 phi(h)^T Phihat phi(h) ).

        Args:
            num: how many, a positive integer.
            seed: of the draws.

        Raises:
            ValueError: if ``num`` is not a positive integer or ``seed`` no seed, or if no
                such law can be drawn from (a solution that has not converged).
        """
        num, seed = arguments.integer("num", num), arguments.seed("seed", seed)
        n = self.model.entries
        require_memory(f"num {num} for sites x patterns = {n}", 16.0 * num * n, "draw fewer neurons")
        # float64 within this call only, as everywhere in the theory.
        with own_settings():
            _, phi, _, _, conjugate, cov = self.saddle
            drawn = draw_neurons(self.model, cov, conjugate, phi.function, num, seed)
        return drawn.preactivation.reshape(num, *self.kernel.shape[:2])

    def to_xarray(self) -> xr.Dataset:
        """A labelled Dataset; kernels have dims (step, pattern, step_bis, pattern_bis), all counted from 1.

        The branches lie along an extra dim "branch" of the variables named ``branch_...``; network, task and verdicts
        are attributes and variables, so that `from_xarray` restores the Solution.
        """
        family = self.branches or (self,)
        dataset = xr.Dataset(
            {
                **_labelled(self, ""),
                "inputs": (("pattern", "step", "input_dim"), self.task.inputs),
                "targets": (OUTPUT_DIMS, self.task.targets),
                "supervised": (("pattern", "step"), self.task.supervised),
            },
            coords={
                **entry_coords(self.task),
                **kernel_labels(self.task, len(self.kernel))[1],
                **_numbered(self),
                "branch": np.arange(1, len(family) + 1),
            },
            attrs={"kind": self.kind, "network": json.dumps(self.network.to_dict())},
        )
        branches = [xr.Dataset(_labelled(branch, "branch_"), _numbered(branch)) for branch in family]
        return dataset.merge(xr.concat(branches, dim="branch", join="outer"), join="outer")

    @classmethod
    def from_xarray(cls, dataset: xr.Dataset, activations: Any = ()) -> Solution:
        """The inverse of `to_xarray`; ``activations`` as for `Network.from_dict`."""
        task = Task(dataset.inputs.values, dataset.targets.values, dataset.supervised.values.astype(bool))
        network = Network.from_dict(json.loads(dataset.attrs["network"]), activations)

        def restore(source: xr.Dataset, prefix: str, branches: tuple[Solution, ...]) -> Solution:
            values: dict[str, Any] = {
                name: source[prefix + name].values for name in (*KERNELS, *OUTPUTS, *SCALAR_KINDS)
            }
            scalars = {name: kind(values.pop(name)) for name, kind in SCALAR_KINDS.items()}
            if prefix + "residual_limit" in source:  # files of 0.1.0 have none
                scalars["residual_limit"] = float(source[prefix + "residual_limit"])
            # Branches with fewer repetitions than others were filled up.
            repetitions = source[prefix + "repetitions"].dropna("repetition").values
            arrays = {**values, "repetitions": repetitions}
            return cls(network, task, **arrays, **scalars, kind=dataset.attrs["kind"], branches=branches)

        family = tuple(restore(dataset.isel(branch=i), "branch_", ()) for i in range(dataset.sizes["branch"]))
        return restore(dataset, "", family)


KERNELS = ("kernel", "conjugate", "preactivation_cov", "standard_error")
OUTPUTS = ("prediction", "dual")
SCALAR_KINDS = {
    "free_energy": float,
    "free_energy_error": float,
    "residual": float,
    "effective_sample_size": float,
    "randomisations": int,
    "stable": bool,
    "converged": bool,
    "message": str,
}


def error_of_repetitions(values: np.ndarray, randomisations: int) -> np.ndarray:
    """Standard error of what takes these values (R, ...) on a solution's repetitions; zero where there are none."""
    if len(values) == 0:
        return np.zeros(values.shape[1:])
    if randomisations == 1:
        return np.abs(values[0] - values[-1])
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def only_stable(best: Solution) -> Solution:
    """The outcome of a search: not converged if all it found is unstable, since something of lower F was missed."""
    if best.stable:
        return best
    reason = "no stable one, try another seed"
    if ran_out() is not None:
        reason = "no stable one by then"
    elif not best.residual <= residuals.ANYWHERE:
        reason = "the search came to rest nowhere; targets or noise are too far from the prior for double precision"
    return replace(best, converged=False, message=f"{best.message}; NOT CONVERGED: {reason}")


def _labelled(solution: Solution, prefix: str) -> dict[str, Any]:
    dims = kernel_labels(solution.task, len(solution.kernel))[0]
    arrays = {prefix + name: (dims, getattr(solution, name)) for name in KERNELS}
    arrays |= {prefix + name: (OUTPUT_DIMS, getattr(solution, name)) for name in OUTPUTS}
    arrays[prefix + "repetitions"] = (("repetition", *dims), solution.repetitions)
    return {**arrays, **{prefix + name: ((), getattr(solution, name)) for name in (*SCALAR_KINDS, "residual_limit")}}


def _numbered(solution: Solution) -> dict[str, np.ndarray]:
    return {"repetition": np.arange(1, len(np.asarray(solution.repetitions)) + 1)}
