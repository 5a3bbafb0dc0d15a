"""The numbers that steer the search for saddle points of linear networks, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass

from theory.display import ShortRepr


@dataclass(frozen=True, repr=False)
class TrustRegionSettings(ShortRepr):
    """Newton's method without second derivatives (`theory.gaussian.trust_region`).

    Attributes:
        stationary: residual at which a search ends: rounding error.
        rough: residual at which a search is compared with what is known.
        together: numbers in the kernels of searches that run together: on fewer entries NumPy's overhead takes longer
            than the products of matrices.
        products: second derivatives along directions in one search, at most.
        downhill, random: the same of a search from an unstable point, and from a random start: those that matter end
            before.
        in_step: the same in one step.
        forcing: of the gradient that a step may leave, at most; less near the end, so that it converges quadratically.
        accepted: decrease of a step, relative to what the quadratic model promises.
        trusted, doubted: the same from which the radius is doubled, and below which it becomes a quarter (Nocedal and
            Wright, algorithm 4.1).
        rounding: of the value, relative.
        shortest: radius, relative to sqrt(m), at which a search is given up.
        stalled: steps in a row that gain no more than rounding error and do not halve the smallest residual.
        close: residual from which the search may settle by Newton's method alone.
        settling: of the gradient that a step may leave there.
        newton: steps there, at most.
        lanczos: steps of Lanczos's method for the lowest curvatures, at most.
        checked: after so many of them the curvatures are looked at.
        precise, sign: relative precision of a curvature that is negative, whose direction counts, and of one whose sign
            does.
        exhausted: what is left of a new direction, relative to the largest curvature, where no more are found.
        nothing: component of a direction, relative to its largest, that counts as zero.
        kick: along a direction of descent, as a change of the Gram matrix of white noise.
    """

    stationary: float = 1e-13
    rough: float = 1e-6
    together: int = 4096
    products: int = 5000
    downhill: int = 500
    random: int = 150
    in_step: int = 300
    forcing: float = 0.1
    accepted: float = 1e-4
    trusted: float = 0.75
    doubted: float = 0.25
    rounding: float = 1e-13
    shortest: float = 1e-12
    stalled: int = 3
    close: float = 1e-5
    settling: float = 1e-3
    newton: int = 12
    lanczos: int = 300
    checked: int = 8
    precise: float = 1e-8
    sign: float = 1e-2
    exhausted: float = 1e-12
    nothing: float = 1e-5
    kick: float = 0.15


@dataclass(frozen=True, repr=False)
class GaussianSettings(ShortRepr):
    """The search for saddle points of linear networks (`theory.gaussian.search`).

    Attributes:
        trust_region: of each search.
        starts: random ones, where nothing is asked for.
        amplitudes: of the weights of white noise that random starts are made of, from the first to the last.
        as_few: entries up to which they are that large; more entries of smaller ones are as far from the lazy limit.
        same: difference of kernels, relative to the largest entry, below which two saddle points are one; a curvature
            that is less negative counts as none.
        roughly: the same before polishing.
        unstable_directions: of an unstable point, along which a search goes on, at most.
        coherence: correlation between any two steps of the noise that a coherent start has.
        stronger: factor of the targets under which that start comes to rest first: broken branches have no rival there.
        many: entries from which patterns are looked at in the few directions that the data act through first: below
            that the whole search takes less than half a second.
        fewer: of the entries that the few directions may have, at most: searches of half the entries cost an eighth.
        strengths: of the lazy kernels that the duals are guessed from: features that are learned are stronger. At 12
            steps of 20 patterns 755 second derivatives polish the lowest saddle point without the last, 33 with it.
        alike: singular value of the guessed duals, relative to the largest, below which a direction adds nothing: the
            saddle points that are found start residuals of 1e-3 or less.
        nearly: residual at which the searches in those directions end: less than `same` by far, and no more is needed.
    """

    trust_region: TrustRegionSettings = TrustRegionSettings()
    starts: int = 4
    amplitudes: tuple[float, float] = (0.1, 0.5)
    as_few: int = 12
    same: float = 1e-6
    roughly: float = 1e-4
    unstable_directions: int = 4
    coherence: float = 0.6
    stronger: float = 1.5
    many: int = 48
    fewer: float = 0.5
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    alike: float = 1e-3
    nearly: float = 1e-9
