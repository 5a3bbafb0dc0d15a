"""Bayesian networks over sequences at infinite width: the posterior as a saddle point over kernels.

Needs JAX, NumPy, SciPy and xarray only, and imports nothing of ``bayesnet``.
"""

from theory.network import Network
from theory.task import Task

__all__ = ["Network", "Task"]
