"""Recurrent and deep networks as one Bayesian inference over sequences.

NUTS samples the posterior of networks with weights shared over time (RNN) or not (DNN); `theory` solves it at infinite
width; comparisons and reports lay the two side by side.
"""

import importlib
from typing import TYPE_CHECKING, Any

import theory

if not hasattr(theory, "CriticalPoint"):  # before anything is looked for in it
    raise ImportError(
        f"bayesnet comes with a package theory, but `import theory` finds {getattr(theory, '__file__', theory)}; "
        "rename that file or folder, or take its place off the path"
    )

from bayesnet import quiet_imports  # noqa: F401  # isort: skip  # before what imports them
from bayesnet import diagnostics, models, observables, tasks
from bayesnet.arviz_bridge import to_arviz
from bayesnet.bridge_sampling import LogEvidence, log_evidence
from bayesnet.comparison import compare
from bayesnet.forward_pass import run
from bayesnet.location import Location, locate
from bayesnet.models.weight_space import Weights
from bayesnet.outside import from_activations, from_weights
from bayesnet.phases import weigh_phases
from bayesnet.prediction import predict
from bayesnet.prior_draws import sample_prior
from bayesnet.results import version_of
from bayesnet.samplers.tuning import Tuning
from bayesnet.sampling import sample
from bayesnet.storage import load, save
from bayesnet.sweeping import executors
from bayesnet.sweeping.sweeps import sweep
from bayesnet.weight_draws import draw_fields, draw_weights
from theory import Network, Task

if TYPE_CHECKING:
    from bayesnet import plots
    from bayesnet.reporting import report
    from bayesnet.sweeping.phase_diagrams import phase_diagram

__version__ = version_of("bayesnet")

__all__ = [
    "Location",
    "LogEvidence",
    "Network",
    "Task",
    "Tuning",
    "Weights",
    "__version__",
    "compare",
    "diagnostics",
    "draw_fields",
    "draw_weights",
    "executors",
    "from_activations",
    "from_weights",
    "load",
    "locate",
    "log_evidence",
    "models",
    "observables",
    "phase_diagram",
    "plots",
    "predict",
    "report",
    "run",
    "sample",
    "sample_prior",
    "save",
    "sweep",
    "tasks",
    "theory",
    "to_arviz",
    "weigh_phases",
]


# What draws pictures is imported where it is first asked for: matplotlib takes as long as much of the rest.
_LATER = {"plots": None, "report": "bayesnet.reporting", "phase_diagram": "bayesnet.sweeping.phase_diagrams"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _LATER[name]
    if module is None:
        return importlib.import_module(f"{__name__}.{name}")
    globals()[name] = getattr(importlib.import_module(module), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
