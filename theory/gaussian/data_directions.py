r"""The few directions of patterns that the data act through, where patterns are many.

At a saddle point Phi^{-1} = C^{-1} + Phihat, and Phihat holds the data only through the duals r_so = (A^{-1} y)_so, one
vector of patterns for each supervised site s and output o: Phihat = c^T Q - Mv o sum_o r_o r_o^T and
Q = Phihat (1 + C Phihat)^{-1} begin at the last sites, where there is nothing but r, and c acts on sites only. So the
rows and columns of Phihat and Q lie in the span of the duals at each site. With V (P, k) an orthonormal basis of that
span, V^T Phi V obeys the equations of the same network on k directions in place of P patterns, because

    V^T C V  =  V^T D V + c [ V^T Phi V ],        Phi = C - C Q C.

The duals are those of an unknown kernel. They are guessed from lazy kernels of several strengths: what the network does
in the guessed directions is a small problem with nearly the same saddle points. Each of them starts a search in the
whole one, with the patterns' other directions as the prior has them given V,

    Phi  =  C + B ( Phi_V - C_V ) B^T,        B = C V C_V^{-1},        C the kernel of the prior.
"""

from __future__ import annotations

import numpy as np

from theory.gaussian.reduced import Reduced, data_of
from theory.gaussian.settings import GaussianSettings
from theory.model import Model


def data_directions(model: Model, reduced: Reduced, settings: GaussianSettings) -> np.ndarray | None:
    """V along the reduced directions of patterns, (r, k), or None where too little would be saved."""
    if reduced.entries < settings.many:
        return None
    lazy = reduced.expand(reduced.lazy_kernel())
    guessed = np.hstack([_duals(model, reduced, strength * lazy) for strength in settings.strengths])
    guessed = guessed / np.maximum(np.linalg.norm(guessed, axis=0), np.finfo(float).tiny)
    left, values, _ = np.linalg.svd(guessed, full_matrices=False)
    kept = values > settings.alike * values[0]
    worth = 0 < model.sites * np.count_nonzero(kept) <= settings.fewer * reduced.entries
    return left[:, kept] if worth else None


def _duals(model: Model, reduced: Reduced, kernel: np.ndarray) -> np.ndarray:
    """r of a kernel (sites r, sites r), along the reduced directions of patterns, (r, supervised sites x outputs)."""
    data = data_of(model, reduced.patterns, None)
    read = data["read"] if data["read"].ndim == 2 else np.eye(len(kernel))[data["read"]]
    cov = data["readout"] * (read @ kernel @ read.T) + data["noise"] * np.eye(len(read))
    dual = np.linalg.solve(cov, data["targets"])
    at_sites = read.reshape(len(read), model.sites, -1).transpose(1, 2, 0)
    return np.hstack([block @ dual for block in at_sites if block.any()])


def lifted(kernel: np.ndarray, directions: np.ndarray, reduced: Reduced) -> np.ndarray:
    """The kernel (sites r, sites r) of a network that has ``kernel`` (sites k, sites k) in directions V (r, k)."""
    prior = reduced.expand(reduced.lazy_kernel())
    every = np.kron(np.eye(len(prior) // len(directions)), directions)
    cross = prior @ every
    small = every.T @ cross
    regression = cross @ np.linalg.pinv(small, hermitian=True)
    return prior + regression @ (kernel - small) @ regression.T
