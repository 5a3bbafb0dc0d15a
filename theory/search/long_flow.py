r"""Long flows of neurons (`theory.search.flow`), until their means are known, by steps that do not heat them.

The stiff directions of the flow are the collective motions z_i -> z_i + s z_j of all neurons: the more entries and
targets there are, the stiffer. In equilibrium their momentum has mean square one. Steps that are too long heat them
without bound, which shows here, and are halved.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from theory.activations import Activation
from theory.causal import kernel_of_noise
from theory.clock import report, time_is_up
from theory.kernels import scale_of
from theory.model import Model
from theory.search.flow import Course, Ensemble, Pull, advance, ensemble_of, no_pull
from theory.search.settings import Settings
from theory.search.starts import Start
from theory.seeds import key_of, part
from theory.ties import tied_entries


@dataclass(frozen=True)
class Rest:
    """Where a flow came to rest.

    Attributes:
        kernel, response: mean kernel and response Q, (n, n).
        noise: of its neurons in the end, z (n, M).
        step: that it took.
        settled: whether the time sufficed.
    """

    kernel: np.ndarray
    response: np.ndarray
    noise: np.ndarray
    step: float
    settled: bool


def rest_of_flow(
    model: Model,
    phi: Activation,
    settings: Settings,
    seed: int,
    noise: np.ndarray,
    step: float,
    start: Start | None = None,
) -> Rest:
    """Where neurons of noise z (n, M) come to rest; the step is halved while they run hot.

    Args:
        model, phi: the network on the task.
        settings: of the search.
        seed: of the momenta.
        noise: where to start.
        step: the longest.
        start: how targets and pull change at first; of neurons that are near their rest, None.
    """
    flows, pull, first = settings.long_flow, no_pull(model.entries), 1.0
    if start is not None:
        first = start.first_targets
    if start is not None and start.kernel is not None:
        scale = scale_of(start.kernel)
        stiffness = np.linalg.norm(start.kernel / np.outer(scale, scale), 2) ** 2
        pull = Pull(jnp.asarray(start.kernel), jnp.asarray(scale), jnp.asarray(flows.pull / stiffness))
    while True:
        steps = int((flows.time if start is None else flows.first_time) / step)
        ramp, settled = (1, steps // 3) if start is None else (steps // 4, steps // 2)
        course = Course(ramp, settled, step, first, pull, settings.flow.friction)
        ensemble, heats, at = ensemble_of(jnp.asarray(noise), key_of(part(seed, steps))), [], 0
        while at < steps and not time_is_up():
            end = min(at + flows.chunk, steps)
            ensemble, at = advance(model, ensemble, at, end, course, phi.function, _by_site(model)), end
            ensemble.noise.block_until_ready()  # the clock is for what has been done
            report(f"long flow: {at} of {steps} steps of {step:g}")
            if at > settled // 2:
                heats.append(_heat(ensemble))
                if not np.mean(heats, axis=0).max() < 2 * flows.hottest:  # a single look scatters
                    break
        hot = bool(heats) and not np.mean(heats, axis=0).max() < flows.hottest
        if not hot or step / 2 < flows.least_step or time_is_up():
            break
        step /= 2
    if at > settled:
        kernel, response = (np.asarray(total) / (at - settled) for total in (ensemble.kernel, ensemble.response))
    else:
        kernel = np.asarray(kernel_of_noise(model, ensemble.noise, phi.function, noise.shape[1]))
        response = np.zeros_like(kernel)
    if not np.isfinite(kernel).all():
        raise ValueError(
            "network and task lead to kernels that are not finite; lower the gains or the targets, "
            "or use an activation that grows more slowly"
        )
    return Rest(kernel, response, np.asarray(ensemble.noise), step, at == steps and not hot)


def _heat(ensemble: Ensemble) -> np.ndarray:
    """The mean square momentum of the collective motions z_i -> z_i + s z_j, over j; one in equilibrium, (n,)."""
    noise, momentum = np.asarray(ensemble.noise), np.asarray(ensemble.momentum)
    along = (momentum @ noise.T) / np.linalg.norm(noise, axis=1)
    return np.mean(along**2, axis=1)


def _by_site(model: Model) -> bool:
    """Whether no two sites are tied."""
    return all(len(set(np.asarray(entries) // model.patterns)) == 1 for entries in tied_entries(model))
