"""The figures of a report, each with its caption and what one sees in it.

A figure that cannot be made leaves the reason in its place.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesnet import figures
from bayesnet.diagnostics import evaluate_observables, summarise_draws
from bayesnet.eigenvalue_cloud import eigenvalue_cloud
from bayesnet.observables import (
    Observable,
    aligned_outputs,
    default_observables,
    diagonal_kernel,
    directed_kernel,
    directed_overlap,
    overlap,
    overlaps,
    reached_by,
    site_in_words,
    target_direction,
)
from bayesnet.report_content import NOTHING, Run
from bayesnet.results import from_outside, names_with_priors
from theory.model import build_model
from theory.solution import Solution
from theory.symmetry import flipped_pairs, has_sign_symmetry, mirror_signs
from theory.task import Task

PANELS = 6  # of kernels, of overlaps and of predictions
SLOWEST = 2  # invariants traced for each network
BAND = (5, 50, 95)  # percentiles
NO_INPUT = "no input reaches any entry: there is nothing to show"


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it; ``image`` is a data URI, or None where ``error`` says why there is none."""

    title: str
    image: str | None
    caption: str
    reading: str
    error: str = ""
    figure: Figure | None = None

    def files(self, name: str) -> dict[str, bytes]:
        """The figure as SVG and PDF, by file name; nothing where there is none."""
        made: dict[str, bytes] = {}
        if self.figure is None:
            return made
        for form in ("svg", "pdf"):
            buffer = io.BytesIO()
            date = {"Date": None} if form == "svg" else {"CreationDate": None}
            self.figure.savefig(buffer, format=form, dpi=300, metadata=date)
            made[f"{name}.{form}"] = buffer.getvalue()
        return made


def draw(title: str, caption: str, build: Callable[[], tuple[Figure, str]]) -> Picture:
    """Make one figure; ``build`` returns it with the sentence on what one sees."""
    try:
        figure, reading = build()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    except Exception as error:  # whatever it is, the reader has to see it in the figure's place
        return Picture(title, None, caption, "", f"{type(error).__name__}: {error}")
    image = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(title, f"data:image/svg+xml;base64,{image}", caption, reading, figure=figure)


def task_pictures(task: Task) -> list[Picture]:
    """The task: Gram matrix of the inputs, targets, inputs."""
    caption = (
        "Left: Gram matrix of the inputs, over pattern pairs at the steps that have input. Right: the targets of all "
        "outputs, grey where none is known; a dot marks what the likelihood sees. Below: the inputs themselves"
    )
    several = len(figures.input_steps(task)) > 1
    caption += " over the steps. " if several else ", at their only step (as images where D is a square number). "
    if not np.array_equal(figures.pattern_order(task), np.arange(task.patterns)):
        caption += "Patterns are sorted by their target. "
    if task.patterns > 8:
        caption += f"Inputs of {task.patterns - 8} further patterns are left out."

    def build() -> tuple[Figure, str]:
        if not task.has_input.any():
            raise ValueError(NO_INPUT)
        shown = np.flatnonzero(np.any(task.inputs != 0, axis=(0, 2))) + 1
        when = f"step {shown[0]} only" if len(shown) == 1 else f"{len(shown)} of {task.steps} steps"
        reading = (
            f"Inputs come at {when}; {task.supervised.sum()} of {task.entries} (step, pattern) entries are asked for."
        )
        return figures.task_overview(task), reading

    return [draw("Inputs and targets", caption, build)]


def result_pictures(runs: Sequence[Run]) -> list[Picture]:
    """What the posterior says beside the theory: kernels, densities, predictions, eigenvalues."""
    unknown = [run for run in runs if names_with_priors(run.posterior)]
    of_parameters = [_parameters(unknown)] if unknown else []
    return [*of_parameters, _kernels(runs), _densities(runs), _predictions(runs), _eigenvalues(runs)]


def sampler_pictures(runs: Sequence[Run]) -> list[Picture]:
    """How the sampler did: traces and ranks of the slowest invariants of each network, energies.

    Networks from outside had none.
    """
    runs = [run for run in runs if not from_outside(run.posterior)]
    dynamical = [run for run in runs if "energy" in run.posterior["sample_stats"]]  # Langevin has no momenta
    return [*(_traces(run) for run in runs), *([_energies(dynamical)] if dynamical else [])]


def invariants(runs: Sequence[Run]) -> list[Observable]:
    """The observables whose densities are shown: along the target direction where there is one, else of pattern 1.

    At most `PANELS` kernels and as many overlaps, of neighbouring steps where there are more.
    """
    task, layers = runs[0].task, runs[0].network.layers
    direction = target_direction(task)
    active = np.ones(1, bool) if direction is None else direction != 0
    reached = reached_by(runs[0].network, build_model(runs[0].network, task))[: len(active)][active]
    steps = [t for t in range(reached.shape[1]) if reached[:, t].any()]
    pairs = [(t, s) for t in steps for s in steps if t < s]
    if len(pairs) > PANELS:
        pairs = [(t, s) for t, s in pairs if s == t + 1]
    steps, pairs = _spaced(steps), _spaced(pairs)
    turned = [flipped_pairs(mirror_signs(run.network, task), reached.shape[1]) for run in runs]
    flips = [any(bool(one[pair]) for one in turned) for pair in pairs]
    if direction is None:
        chosen = [diagonal_kernel(t, 0, layers) for t in steps]
        return chosen + [overlap(t, s, 0, flip, layers) for (t, s), flip in zip(pairs, flips, strict=True)]
    chosen = [directed_kernel(t, direction, layers) for t in steps]
    return chosen + [directed_overlap(*pair, direction, flip, layers) for pair, flip in zip(pairs, flips, strict=True)]


def _parameters(runs: Sequence[Run]) -> Picture:
    caption = (
        "Posterior densities over all chains, each scaled to a peak of 1, of the numbers of the network that have "
        "priors; grey: these priors."
    )

    def build() -> tuple[Figure, str]:
        readings = []
        for run in runs:
            priors = run.posterior["priors"]
            parts = []
            for name in names_with_priors(run.posterior):
                low, middle, high = np.percentile(run.posterior["posterior"][name].to_numpy(), BAND)
                prior = float(priors[name].sel(probability=0.5, method="nearest"))
                parts.append(f"{name} {middle:.3g} ({low:.3g} to {high:.3g}; prior median {prior:.3g})")
            readings.append(f"{run.name}, median and central 90%: {', '.join(parts)}.")
        return figures.parameters(_posteriors(runs)), " ".join(readings)

    return draw("Numbers of the network", caption, build)


def _kernels(runs: Sequence[Run]) -> Picture:
    posteriors, solutions = _posteriors(runs), _solutions(runs)
    squared = _squared(runs)
    what = "squared overlaps Phi_ij² / (Phi_ii Phi_jj)" if squared else "overlaps Phi_ij / sqrt(Phi_ii Phi_jj)"
    layered = any(run.network.layers > 1 for run in runs)
    within = f"within a step over the {'layers and in each over the ' * layered}{runs[0].task.patterns} pattern(s)"
    caption = (
        f"Rows and columns run over the steps, {within}; shown are "
        f"{what}, 1 on the diagonal, dimensionless. Left: infinite width. Middle: the mean over all draws. Right: "
        "their difference, on its own scale."
    )
    if squared:
        caption += (
            " Squares, because W → −W is a symmetry of this posterior: its mirror modes would average odd-offset "
            "overlaps to zero. A square has a floor of about 1/N at finite width."
        )
    if not np.array_equal(figures.pattern_order(runs[0].task), np.arange(runs[0].task.patterns)):
        caption += " Patterns are sorted by their target."

    def build() -> tuple[Figure, str]:
        readings = []
        for run in runs:
            if run.solution is None:
                readings.append(f"{run.name}: there is no theory to compare with.")
                continue
            power = 2 if squared else 1
            mean = (run.posterior["posterior"]["overlap"].to_numpy() ** power).mean(axis=(0, 1))
            gap = np.abs(mean - overlaps(run.solution.kernel) ** power)
            t, mu, s, nu = (int(i) + 1 for i in np.unravel_index(gap.argmax(), gap.shape))
            one, other = (site_in_words(site - 1, run.network.layers) for site in (t, s))
            where = f"{one}, pattern {mu} against {other}, pattern {nu}"
            readings.append(f"{run.name}: posterior mean and {_kind(run)} differ by at most {gap.max():.2g} ({where}).")
        return figures.kernel_maps(posteriors, solutions, squared), " ".join(readings)

    return draw("Kernels", caption, build)


def _densities(runs: Sequence[Run]) -> Picture:
    chosen = invariants(runs)
    along = target_direction(runs[0].task) is not None
    left_out = _left_out(runs, chosen)
    caption = (
        "Posterior densities over all chains, each scaled to a peak of 1, of kernels and of overlaps between steps "
        + ("along the target direction over patterns (“_y”)" if along else "of pattern 1")
        + "; kernels are in units of the squared activity, overlaps dimensionless. Dashed lines: "
        "the infinite-width value, to which the densities shrink as 1/sqrt(N) while their centre moves by 1/N."
        + left_out
    )

    def build() -> tuple[Figure, str]:
        if not chosen:
            raise ValueError(NO_INPUT)
        readings = []
        for run in runs:
            if run.solution is None:
                readings.append(f"{run.name}: no theory, hence no line.")
                continue
            inside = 0
            for observable in chosen:
                draws = evaluate_observables(run.posterior, [observable])[observable.label]
                value = observable.evaluate(run.solution.kernel, run.solution.prediction)
                low, high = np.percentile(draws, [BAND[0], BAND[-1]])
                # The square of a fluctuating number is never zero: there only the upper end can tell.
                inside += bool(value <= high and (low <= value or abs(value) <= NOTHING * high))
            readings.append(
                f"{run.name}: in {inside} of {len(chosen)} panels the {_kind(run)} lies within the central 90% of the "
                "posterior."
            )
        return figures.densities(_posteriors(runs), _solutions(runs), chosen), " ".join(readings)

    return draw("Invariants of the posterior", caption, build)


def _predictions(runs: Sequence[Run]) -> Picture:
    task = runs[0].task
    every = [(mu, o) for mu in range(task.patterns) for o in range(task.output_dim)]
    panels = every[:PANELS]
    caption = (
        "Network output f, in the units of the targets. Line: posterior median; bar and band: central 90% of the "
        "posterior of f (without the noise of the targets). Dashed with crosses: infinite width. Grey: not supervised."
    )
    if _squared(runs):
        caption += (
            " Draws are turned into the mirror image (W → −W) whose neighbouring steps correlate positively, as the "
            "theory's."
        )
    if len(every) > len(panels):
        caption += f" {len(every) - len(panels)} of {len(every)} (pattern, output) pairs are left out."

    def build() -> tuple[Figure, str]:
        bands = {run.name: np.percentile(aligned_predictions(run), BAND, axis=(0, 1)) for run in runs}
        readings = [_prediction_error(run.name, task, bands[run.name][1]) for run in runs]
        return figures.predictions(bands, _solutions(runs), task, panels), " ".join(readings)

    return draw("Predictions", caption, build)


def aligned_predictions(run: Run) -> np.ndarray:
    """f (chain, draw, P, T, O), each draw in the mirror image whose neighbouring steps correlate positively."""
    group = run.posterior["posterior"]
    return aligned_outputs(run.network, run.task, group["kernel"].to_numpy(), group["prediction"].to_numpy())


def _prediction_error(name: str, task: Task, median: np.ndarray) -> str:
    known = np.isfinite(task.targets[..., 0])
    parts = []
    for told, what in ((task.supervised, "at supervised steps"), (known & ~task.supervised, "where kept as truth")):
        if told.any():
            error = np.sqrt(np.mean((median[told] - task.targets[told]) ** 2))
            size = np.sqrt(np.mean(task.targets[told] ** 2))
            parts.append(f"{error:.2g} {what} (targets: {size:.2g})")
    return f"{name}: the median misses the target by {' and by '.join(parts)}, root mean square over all patterns."


def _eigenvalues(runs: Sequence[Run]) -> Picture:
    caption = (
        "Eigenvalues of the recurrent weights W, drawn back from the posterior with their prior noise, "
        "in the complex plane (dimensionless). Prior noise fills the circle of radius recurrent_gain; its rim frays by "
        "about 1/sqrt(N). Squares: outliers that the infinite-width theory predicts. A mirror mode has all signs "
        "turned."
    )

    def build() -> tuple[Figure, str]:
        clouds = {run.name: eigenvalue_cloud(run.posterior, run.solution) for run in runs}
        readings = []
        for name, cloud in clouds.items():
            if cloud.values is None:
                readings.append(f"{name}: not shown, {cloud.note}.")
                continue
            text = f"{name}: {cloud.note}; largest modulus {np.abs(cloud.values).max():.3f}"
            if cloud.outliers is not None:
                number = len(cloud.outliers)
                text += f", by the theory {np.abs(cloud.outliers).max(initial=cloud.radius):.3f} ({number} outside)"
            if len(cloud.singular_values):
                text += f". Largest singular value {cloud.singular_values.mean():.3f}, bulk edge {cloud.edge:.3g}"
                if cloud.singular_outliers is not None:
                    text += f", by the theory {cloud.singular_outliers.max(initial=cloud.edge):.3f}"
            readings.append(text + ".")
        return figures.eigenvalues(clouds), " ".join(readings)

    return draw("Spectrum of the recurrent weights", caption, build)


def _traces(run: Run) -> Picture:
    caption = (
        f"The {SLOWEST} invariants with the smallest effective sample size. Left: value along each chain (a colour "
        "each, warm-up left out). Right: how often each chain takes each rank among all draws; 1 (dotted) if the "
        "chains have forgotten where they started."
    )

    def build() -> tuple[Figure, str]:
        draws = evaluate_observables(run.posterior, default_observables(run.network, run.task))
        if not draws:
            raise ValueError(NO_INPUT)
        moving = {label: values for label, values in draws.items() if np.ptp(values) > 0}
        if not moving:
            single = run.posterior["posterior"].sizes["draw"] == 1
            why = "there is one draw only" if single else "the sampler is frozen"
            raise ValueError(f"no observable ever changes along the chains: {why}")
        ess = summarise_draws(moving)["ess_bulk"].fillna(0).sort_values()
        slowest = [str(label) for label in ess.index[:SLOWEST]]
        total = next(iter(moving.values())).size
        reading = f"{run.name}: the slowest invariant, {slowest[0]}, has {ess.iloc[0]:.0f} effective of {total} draws."
        return figures.traces({label: moving[label] for label in slowest}), reading

    return draw(f"Slowest invariants, {run.name}", caption, build)


def _energies(runs: Sequence[Run]) -> Picture:
    caption = (
        "Energy of the Hamiltonian dynamics, centred per chain, beside its change from draw to draw. Where the change "
        "is much narrower than the marginal (E-BFMI below 0.3) the sampler does not reach the tails."
    )

    def build() -> tuple[Figure, str]:
        details = {run.name: gate.detail for run in runs for gate in run.verdict.gates if "BFMI" in gate.name}
        reading = "; ".join(f"{name}: E-BFMI {detail}" for name, detail in details.items())
        return figures.energies(_posteriors(runs)), f"{reading}."

    return draw("Energies", caption, build)


def _posteriors(runs: Sequence[Run]) -> Mapping[str, xr.DataTree]:
    return {run.name: run.posterior for run in runs}


def _solutions(runs: Sequence[Run]) -> Mapping[str, Solution]:
    return {run.name: run.solution for run in runs if run.solution is not None}


def _squared(runs: Sequence[Run]) -> bool:
    return any(has_sign_symmetry(run.network, run.task) for run in runs)


def _kind(run: Run) -> str:
    return "lazy limit" if run.solution is not None and run.solution.kind == "lazy limit" else "theory"


def _spaced(items: list) -> list:
    if len(items) <= PANELS:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, PANELS).astype(int)]


def _left_out(runs: Sequence[Run], chosen: Sequence[Observable]) -> str:
    number = max(len(run.table) for run in runs)
    return f" The table has all {number} observables." if number > len(chosen) else ""
