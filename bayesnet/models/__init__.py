"""The same posterior in three exact coordinate systems, as plain NumPyro models.

``weights``, ``fields`` and ``kernels`` are functions of (network, task, observed=True) that work with
``numpyro.infer.MCMC``, ``Predictive`` and ``SVI``.
"""

from bayesnet.models.field_space import fields
from bayesnet.models.kernel_space import kernels
from bayesnet.models.weight_space import weights

__all__ = ["fields", "kernels", "weights"]
