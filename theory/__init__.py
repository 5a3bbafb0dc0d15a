"""Bayesian networks over sequences at infinite width: the posterior as a saddle point over kernels.

Needs JAX, NumPy, SciPy and xarray only, and imports nothing of ``bayesnet``.
"""

from theory.connections import Connection, Drift
from theory.evidence import Evidence, log_bayes_factor, log_evidence
from theory.finite_width import Fluctuations, fluctuations
from theory.hysteresis import continuation
from theory.lazy import nngp
from theory.network import Network
from theory.predictor import Prediction, predict
from theory.saddle import solve
from theory.solution import Solution
from theory.symmetry import has_sign_symmetry
from theory.task import Task
from theory.transition import CriticalSignal, critical_signal
from theory.weight_spectrum import Spectrum, spectrum

__all__ = [
    "Connection",
    "CriticalSignal",
    "Drift",
    "Evidence",
    "Fluctuations",
    "Network",
    "Prediction",
    "Solution",
    "Spectrum",
    "Task",
    "continuation",
    "critical_signal",
    "fluctuations",
    "has_sign_symmetry",
    "log_bayes_factor",
    "log_evidence",
    "nngp",
    "predict",
    "solve",
    "spectrum",
]
