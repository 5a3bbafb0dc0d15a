"""The numbers that steer the search for saddle points, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass

from theory.display import ShortRepr
from theory.gaussian.settings import GaussianSettings
from theory.laws.drawn import DrawSettings
from theory.laws.grid import GridSettings


@dataclass(frozen=True, repr=False)
class RootSettings(ShortRepr):
    """How roots of the stationarity equations are found on laws that stay put (`theory.search.roots`).

    Attributes:
        tolerance: on the largest violation, in scaled unknowns: four digits below what any statistical error leaves.
        exact_tolerance: the same where all laws are Gaussian and nothing but rounding limits it.
        hopeless: a violation above it is no saddle point at all.
        steps: of Broyden's and Newton's method together.
        least_steps: of Broyden's that are taken where the time is up: cheap beside the laws that they are taken on.
        least_overlap: of a step with what the slope makes of it, below which the slope is not brought up to date.
        least_step: to which a step is halved before another method takes over.
        least_trust: the effective sample size that a step may lead to.
        krylov: directions in which Newton's step is sought.
        inexact: what may be left of the equation for Newton's step, relative.
        slope_points, slope_points_with_kinks: draws on which the slope is evaluated: points that stay put blur it far
            more where phi has kinks.
        first_order, bearable: what may be left of the equation for a set's own root where several share one
            (`theory.search.common_root`): what is aimed at, and what an error bar can bear.
    """

    tolerance: float = 1e-9
    exact_tolerance: float = 1e-12
    hopeless: float = 1e-3
    steps: int = 60
    least_steps: int = 15
    least_overlap: float = 0.05
    least_step: float = 1 / 32
    least_trust: float = 0.3
    krylov: int = 80
    inexact: float = 1e-3
    slope_points: int = 2048
    slope_points_with_kinks: int = 16384
    first_order: float = 1e-6
    bearable: float = 1e-2


@dataclass(frozen=True, repr=False)
class RefreshSettings(ShortRepr):
    """When laws are made anew on the way to a saddle point (`theory.search.problem.settle`).

    Attributes:
        floor: conditional variance of an entry, relative to its own, below which the entry counts as following from
            earlier ones: from 1e-6 down to 1e-10 kernels of two patterns on a line did not change.
        coarser: the same, one after the other, where a search with ``floor`` gets nowhere. Strong signals drive deep
            networks to a fixed point, where a step adds nothing to those before: the equations are ill-conditioned by
            the inverse of its conditional variance, and neurons that are draws make steps that C does not survive.
        amplified: how much more than the floor kernels change where entries are left out, which happens on chains at a
            fixed point only: each step adds to what those before it add; four times have been seen.
        rounds: at most.
        retreats: halfway back to where laws were made before.
        good: effective sample size at which laws serve to the end.
        improvement: of the effective sample size, short of which laws made anew are not worth another search.
        crowd: times as many draws where a search on the way stays stuck.
    """

    floor: float = 1e-8
    coarser: tuple[float, ...] = (1e-4, 1e-3)
    amplified: float = 5.0
    rounds: int = 8
    retreats: int = 5
    good: float = 0.8
    improvement: float = 0.05
    crowd: int = 4


@dataclass(frozen=True, repr=False)
class FlowSettings(ShortRepr):
    """The mean-field Langevin flow that finds starts (`theory.search.flow`).

    Attributes:
        neurons: their number M; kernels come out with errors of 1/sqrt(M), near enough for a start.
        steps, step: their number and length at the first attempt; 800 of 0.2 let slow modes relax.
        friction: of the dynamics; of order one mixes fastest where the prior's own frequency is one.
        attempts: flows from other noise, at half the step each, where the end of one does not lead to a saddle point:
            small observation noise makes the forces stiff.
        coherence: correlation between any two steps of the noise that a coherent flow starts from.
        first_targets: of a coherent flow, relative to the task's: under stronger ones broken branches have no rival.
        pull: at first, of a flow towards a kernel: some times the entropy that a neuron loses on the way, not so strong
            that steps of the length above overshoot.
    """

    neurons: int = 2048
    steps: int = 800
    step: float = 0.2
    friction: float = 1.0
    attempts: int = 3
    coherence: float = 0.64
    first_targets: float = 2.0
    pull: float = 8.0


@dataclass(frozen=True, repr=False)
class LongFlowSettings(ShortRepr):
    """The flows that take the place of roots where too many entries are tied (`theory.search.flow_branches`).

    Attributes:
        points_per_neuron: the points of a set are so many times the neurons of a flow: over its time a flow is averaged
            over more than that many independent states of each neuron.
        first_time: how long a first flow runs: a quarter for the targets to rise, another to settle, and half to
            average over.
        time: of those that start where it ends: a third to part from it, the rest to average over.
        step: of the first flow; 0.2 is stable where few patterns are supervised.
        hottest: mean square, relative to the one of equilibrium, of the momentum of a collective motion z -> S z above
            which the step is halved: these motions are the stiff ones, and too long a step heats them without bound.
        least_step: to which the step is halved.
        pull: as in `FlowSettings`, times the square of the largest eigenvalue of the kernel that it leads to, relative
            to its scale: the motion along it is as stiff as that.
        chunk: steps between two looks at the clock and at the heat.
    """

    points_per_neuron: int = 8
    first_time: float = 80.0
    time: float = 60.0
    step: float = 0.2
    hottest: float = 1.5
    least_step: float = 0.01
    pull: float = 72.0
    chunk: int = 20


@dataclass(frozen=True, repr=False)
class BranchSettings(ShortRepr):
    """What counts as a branch, and as another one (`theory.search.branches`).

    Attributes:
        broken: overlap between sites of opposite sign above which a start counts as broken: far above the flow's own
            scatter.
        same: difference of kernels, relative to their scale, below which two branches count as one.
        kept_neurons: draws of each law that are kept for extending kernels.
        grid_draws: independent sets of them from a grid.
        most_unknowns: of the stationarity equations, n (n + 1) for n tied entries; the square of 12,000 takes 1.2 GB.
            Beyond, long flows take the place of roots.
        dense_unknowns: up to which all eigenvalues of the stability map are taken; beyond, they take longer than the
            rest of the solution, and Arnoldi's method takes the largest.
        arnoldi: its relative precision.
    """

    broken: float = 0.1
    same: float = 0.1
    kept_neurons: int = 16384
    grid_draws: int = 4
    most_unknowns: int = 12_000
    dense_unknowns: int = 100
    arnoldi: float = 1e-12


@dataclass(frozen=True, repr=False)
class PathSettings(ShortRepr):
    """How the symmetric and the broken branch are followed to a transition.

    Attributes:
        first_pull: strength of the targets, relative to the prior of a neuron, at the first factor tried: the symmetric
            branch is next to the prior there.
        scan: ratio between the factors tried; a symmetric branch is stable on one side of its instability only.
        largest: ratio of the largest factor tried to the first.
        slack: by which a bracket of the instability is widened on either side, for the scatter between sets of draws.
        precision: of the instability, relative.
        rounds: laws made at the middle of the bracket, then at the threshold that these give.
        first_amplitude, first_amplitude_of_draws: of the broken branch. On draws it is large: their scatter unfolds the
            pitchfork, and shifts factors by itself over the amplitude.
        amplitude_ratio, least_step: of the steps in the amplitude.
        largest_step, largest_step_of_draws: likewise; splines between the first are good to a millionth, and those
            between the others to less than the scatter.
        past: times the instability: a path that has come that far does not turn back, it is assumed.
        steps: in the amplitude, at most.
        redraws: of the laws at an amplitude.
        difference: relative step of central differences in the parameter; in a factor of the targets, which enters
            squared, they are exact.
        hysteresis: a transition whose broken branch reaches less than this below the instability counts as continuous.
    """

    first_pull: float = 0.1
    scan: float = 1.25
    largest: float = 1e4
    slack: float = 1.05
    precision: float = 1e-7
    rounds: int = 2
    first_amplitude: float = 0.05
    first_amplitude_of_draws: float = 0.3
    amplitude_ratio: float = 1.4
    largest_step: float = 0.075
    largest_step_of_draws: float = 0.15
    least_step: float = 0.01
    past: float = 1.02
    steps: int = 60
    redraws: int = 3
    difference: float = 1e-3
    hysteresis: float = 1e-3


@dataclass(frozen=True, repr=False)
class SetSettings(ShortRepr):
    """How many draws make a set where the user asks for no number (`theory.solve`).

    Attributes:
        first: of the first sets.
        enough: up to which sets grow until a solution converges; beyond, for the statistical error alone.
        most: draws in a set.
        growth: factor by which sets grow.
        most_numbers: that make one set precise (`theory.laws.stein`), which must fit into memory: 3.2 GB.
        randomisations: how many independent sets; four know their own error to some 40%.
        tolerance: on the standard error of the kernels, relative; plots do not show less.
        safety: share of the tolerance that is aimed at: four sets know their own error to some 40%.
    """

    first: int = 16384
    enough: int = 65536
    most: int = 262144
    growth: int = 4
    most_numbers: float = 4e8
    randomisations: int = 4
    tolerance: float = 1e-2
    safety: float = 0.8


@dataclass(frozen=True, repr=False)
class Settings(ShortRepr):
    """All numbers that steer the search for saddle points; the defaults serve.

    Attributes:
        draws: how laws are drawn from.
        grids: how laws are put on grids.
        sets: how many draws make a set.
        roots: how roots of the stationarity equations are found.
        refreshes: when laws are made anew.
        flow: how starts are found.
        long_flow: how saddle points of many tied entries are found.
        branches: what counts as a branch.
        paths: how branches are followed to a transition.
        gaussian: how linear networks are solved.
    """

    draws: DrawSettings = DrawSettings()
    grids: GridSettings = GridSettings()
    sets: SetSettings = SetSettings()
    roots: RootSettings = RootSettings()
    refreshes: RefreshSettings = RefreshSettings()
    flow: FlowSettings = FlowSettings()
    long_flow: LongFlowSettings = LongFlowSettings()
    branches: BranchSettings = BranchSettings()
    paths: PathSettings = PathSettings()
    gaussian: GaussianSettings = GaussianSettings()


DEFAULT = Settings()
