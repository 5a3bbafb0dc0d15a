"""Pictures one call away: each function draws one quantity of one source into one pair of axes, and returns the axes.

A source is what says something of a network on a task:

- a `theory.Solution` (infinite width; drawn dashed),
- what `sample`, `from_weights` or `from_activations` returned (draws),
- what `sample_prior` returned (draws from the prior).

Call a function again with another source and the same ``ax`` to lay them over each other: colours follow one another
and are told apart by colour-blind readers; ``color`` gives theory and draws of one network the same. Without ``ax`` a
new figure is made. Theory has a white rim, so that it can be seen where it coincides with draws. Reports draw with
these functions.
"""

from bayesnet.plots.curves import density, prediction
from bayesnet.plots.maps import kernel, overlaps
from bayesnet.plots.phases import free_energy, overlap_along
from bayesnet.plots.spectra import spectrum

__all__ = ["density", "free_energy", "kernel", "overlap_along", "overlaps", "prediction", "spectrum"]


def __dir__() -> list[str]:
    return __all__
