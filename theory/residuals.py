"""What a residual of the stationarity equations means, relative to sqrt(Phi_ii Phi_jj)."""

from __future__ import annotations

EXACT = 1e-9  # of a solution of a linear network, at most: rounding errors of long chains reach a tenth of it
STATED = 1e-8  # of a solution of another network, at most
ANYWHERE = 1e-2  # above it nothing was found, as opposed to something not quite solved
