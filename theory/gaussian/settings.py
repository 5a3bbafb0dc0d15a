"""The numbers that steer the search for saddle points of linear networks, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DescentSettings:
    """L-BFGS from many starts at once (`theory.gaussian.descent`).

    Attributes:
        memory: steps that the inverse Hessian is made of; more than 24 save no evaluations at n = 12.
        sufficient: decrease of a step, relative to what the slope promises; the usual one.
        rounding: of the value, relative: what a step may rise by all the same.
        least_length: of a step, in units of the direction, where a search ends.
        evaluations: at most, for each start; searches that end take some hundred.
        lanes: searches side by side; four fill the vector units.
    """

    memory: int = 24
    sufficient: float = 1e-4
    rounding: float = 1e-14
    least_length: float = 1e-10
    evaluations: int = 5000
    lanes: int = 4


@dataclass(frozen=True)
class NewtonSettings:
    """Newton's method on the gradient (`theory.gaussian.newton`).

    Attributes:
        steps: at most.
        stationary: root mean square gradient at which the search ends: rounding error.
        flat: curvature, relative to the largest, that counts as none.
        stale: what a step may leave of the gradient before the second derivatives are taken anew.
        directions: of the second derivatives at once: n = 12 takes one round.
    """

    steps: int = 30
    stationary: float = 1e-13
    flat: float = 1e-12
    stale: float = 0.1
    directions: int = 80


@dataclass(frozen=True)
class TrustRegionSettings:
    """Newton's method without second derivatives, for many entries (`theory.gaussian.trust_region`).

    Attributes:
        stationary: residual at which a search ends: rounding error.
        rough: residual at which a search is compared with what is known.
        products: second derivatives along directions in one search, at most.
        downhill, random: the same of a search from an unstable point, and from a random start: those that matter end
            before.
        in_step: the same in one step.
        forcing: of the gradient that a step may leave, at most; less near the end, so that it converges quadratically.
        accepted: decrease of a step, relative to what the quadratic model promises.
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
        as_few: entries for which random starts are as far from the lazy limit as in noise coordinates.
    """

    stationary: float = 1e-13
    rough: float = 1e-6
    products: int = 5000
    downhill: int = 500
    random: int = 150
    in_step: int = 300
    forcing: float = 0.1
    accepted: float = 1e-4
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
    as_few: int = 12


@dataclass(frozen=True)
class GaussianSettings:
    """The search for saddle points of linear networks (`theory.gaussian.search`).

    Attributes:
        descent, newton: of the search in noise coordinates.
        trust_region: of that on many entries.
        most_dense: entries up to which the search runs in noise coordinates; 30 have 465 of them, and the matrix of
            their second derivatives takes as long as everything else.
        starts: random ones, where nothing is asked for.
        at_once: starts in one batch; others of one shape need no new compilation.
        same: difference of kernels, relative to the largest entry, below which two saddle points are one; a curvature
            that is less negative counts as none.
        roughly: the same before polishing.
        gradient: largest component at which a descent ends.
        before_polishing: the same where Newton's method follows.
        unstable_directions: of an unstable point, along which a search goes on, at most.
        kick: along them, in noise coordinates.
        coherence: correlation between any two steps of the noise that a coherent start has.
        stronger: factor of the targets under which it comes to rest first: broken branches have no rival there.
    """

    descent: DescentSettings = DescentSettings()
    newton: NewtonSettings = NewtonSettings()
    trust_region: TrustRegionSettings = TrustRegionSettings()
    most_dense: int = 30
    starts: int = 4
    at_once: int = 8
    same: float = 1e-6
    roughly: float = 1e-4
    gradient: float = 1e-7
    before_polishing: float = 1e-5
    unstable_directions: int = 4
    kick: float = 0.1
    coherence: float = 0.6
    stronger: float = 1.5
