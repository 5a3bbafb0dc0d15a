"""Recurrent and deep networks as one Bayesian inference over sequences: NUTS samples beside the infinite-width theory."""

from bayesnet import models, tasks
from bayesnet.sampling import sample
from theory import Network, Task

__all__ = ["Network", "Task", "models", "sample", "tasks"]
