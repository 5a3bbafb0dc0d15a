"""Bayesian networks over sequences at infinite width: the posterior as a saddle point over kernels.

Needs JAX, NumPy, SciPy and xarray only, and imports nothing of ``bayesnet``.
"""

from theory.connections import Connection, Drift
from theory.continuation import continuation
from theory.differentiable import Followed, differentiable
from theory.evidence import Evidence, log_bayes_factor, log_evidence
from theory.finite_width import Fluctuations, fluctuations
from theory.fitting import Fit, fit
from theory.lazy import nngp
from theory.network import Network
from theory.predictor import Prediction, predict
from theory.saddle import solve
from theory.search.settings import Settings
from theory.sensitivity import Sensitivity, sensitivity
from theory.solution import Solution
from theory.symmetry import has_sign_symmetry
from theory.task import Task
from theory.transition import CriticalPoint, critical_point, critical_sharing, critical_signal
from theory.weight_spectrum import Spectrum, spectrum

__all__ = [
    "Connection",
    "CriticalPoint",
    "Drift",
    "Evidence",
    "Fit",
    "Fluctuations",
    "Followed",
    "Network",
    "Prediction",
    "Sensitivity",
    "Settings",
    "Solution",
    "Spectrum",
    "Task",
    "continuation",
    "critical_point",
    "critical_sharing",
    "critical_signal",
    "differentiable",
    "fit",
    "fluctuations",
    "has_sign_symmetry",
    "log_bayes_factor",
    "log_evidence",
    "nngp",
    "predict",
    "sensitivity",
    "solve",
    "spectrum",
]


def __dir__() -> list[str]:
    return __all__
