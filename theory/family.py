"""Families of problems: a network on a task, as one of its numbers changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from theory import arguments
from theory.model import Model, build_model
from theory.network import Network
from theory.parameters import NUMBERS, Parameters
from theory.sharing import SHARED
from theory.task import Task

SIGNAL = "signal"


@dataclass(frozen=True)
class Family:
    """A network on a task as a function of one parameter.

    Args:
        network, task: where the parameter has its own value.
        along: the parameter: "signal", which multiplies the targets; a number of the `Network` ("recurrent_gain",
            "noise", "leak" and so on); or the degree of sharing of weights, "shared.recurrent" and so on.

    Raises:
        ValueError: if there is no such parameter.
    """

    network: Network
    task: Task
    along: str = SIGNAL

    def __post_init__(self) -> None:
        arguments.instance("network", self.network, Network)
        arguments.instance("task", self.task, Task)
        shares = [SHARED + name for name in self.network.weights] if self.network.connections is None else []
        numbers = [name for name in NUMBERS if getattr(self.network, name)]
        if self.network.layers == 1:
            numbers.remove("feedforward_gain")
        arguments.one_of("along", self.along, (SIGNAL, *numbers, *shares))

    @property
    def largest(self) -> float:
        """The largest value that the parameter can have."""
        return 1.0 if self.along == "leak" or self.along.startswith(SHARED) else math.inf

    def at(self, value: float) -> tuple[Network, Task]:
        """Network and task where the parameter has a value.

        Raises:
            ValueError: if it cannot have that value.
        """
        if self.along == SIGNAL:
            return self.network, self.task.scaled(value)
        return self.network.with_parameter(self.along, value), self.task

    def model(self, value: float) -> Model:
        """The `theory.model.Model` where the parameter has a value; call it in float64.

        In a degree of sharing covariances are linear, and so continued beyond 1, where a search may step.
        """
        if self.along == SIGNAL:
            return build_model(*self.at(value)).on_device()
        return self._parameters.model({self.along: value}).on_device()

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.network, self.task, [self.along])
