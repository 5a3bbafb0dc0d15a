"""The numbers that steer the samplers beside the arguments of `bayesnet.sample`, each with the reason for its value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from theory import arguments
from theory.display import ShortRepr


@dataclass(frozen=True, repr=False)
class Tuning(ShortRepr):
    """How chains are warmed up and moved: no value changes what is sampled, only how soon.

    Attributes:
        rise: what the likelihood is weighted by in the first stages of an annealed warm-up, in all chains, by equal
            factors: from where the prior decides to nearly all of the likelihood.
        even, odd: the same in the stages that follow, of even and of odd chains. Odd ones go on to twice the signal,
            which is four times the weight, and come back, so that the chains meet a first-order transition from either
            side.
        trajectory: of split HMC, in units of time in which the prior has the period 2 pi: a quarter period decorrelates
            the prior completely.
        jitter: share by which its length is drawn longer or shorter, so that no direction is periodic.
        first_step: of split HMC, where adaptation begins.
        largest_step: of split HMC; where every proposal is accepted, adaptation would run away.
        divergence: error of the energy from which a trajectory counts as divergent; NumPyro's NUTS has the same.
        frame_rank: directions that a frame stretches, at most; more cost as much as the gradient.
        frame_softest: smaller curvatures than this are those of a few points: narrow posteriors that are no Gaussians
            diverge with them.
        frame_hessians: in the mean of a frame; one is enough where a posterior is wide and nearly Gaussian.
    """

    rise: tuple[float, ...] = tuple(np.geomspace(0.01, 0.7, 8).tolist())
    even: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    odd: tuple[float, ...] = (2.0, 4.0, 2.8, 1.4)
    trajectory: float = math.pi / 2
    jitter: float = 0.3
    first_step: float = 0.3
    largest_step: float = math.pi / 4
    divergence: float = 1000.0
    frame_rank: int = 64
    frame_softest: float = 0.2
    frame_hessians: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = f"tuning.{field.name}", getattr(self, field.name)
            if field.type == "int":
                checked: object = arguments.integer(name, value, 0)
            elif field.type == "float":
                checked = arguments.positive(name, value)
            else:
                checked = tuple(arguments.positive(name, each) for each in value)
            object.__setattr__(self, field.name, checked)
        if len(self.even) != len(self.odd):
            raise ValueError(
                f"tuning.even has {len(self.even)} stages and tuning.odd {len(self.odd)}; chains take them together, "
                "so that both must have the same number"
            )
        if self.jitter >= 1:
            raise ValueError(f"tuning.jitter is {self.jitter}; it must be below 1, for trajectories to have a length")

    @property
    def stages(self) -> list[tuple[float, float]]:
        """Weights of the likelihood in the stages of an annealed warm-up, of even and of odd chains."""
        return list(zip((*self.rise, *self.even), (*self.rise, *self.odd), strict=True))
