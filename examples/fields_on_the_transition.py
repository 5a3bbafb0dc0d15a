"""Leak and biases act on the transition like a field on a magnet: they turn it into a crossover.

Claim. A recurrent network without leak and biases on a chain has the symmetry W -> -W, which a signal above the
critical one breaks: only there do its steps correlate. A leak carries a part of each pre-activation on to the next
step, and a shared bias adds the same to all steps,

    h_t = (1 - leak) h_{t-1} + leak (W phi(h_{t-1}) + U x_t + b),        b ~ N(0, gb^2),

and neither changes its sign with W. The symmetry is gone, and with it the transition: the steps correlate at any
signal. As in the mean-field theory of magnets the overlap m answers the field eps, which is 1 - leak or gb^2, as

    m ~ eps below the critical signal,        m ~ eps^{1/3} at it.

Expected picture: overlap of the last two steps against the signal for several leaks and for several sizes of the
bias; without a field it vanishes up to the dotted line, with one it rises smoothly. Right: overlap against the field,
on a line of slope 1 at half of the critical signal, and of slope 1/3 at the critical one.

The verdict: (1) the squared overlaps of the posterior, extrapolated from two widths, are the theory's at all signals
further than a tenth from the critical one, and with a field at every signal; below the critical signal those with a
field exceed zero and those without agree with it; (2) the theory's local exponents d ln m / d ln eps tend to 1 and to
1/3: within .02 of them at the weakest fields, and nearer there than a decade above.
"""

from __future__ import annotations

import numpy as np
from experiment import MORE_COLOURS, Experiment, expected, panels, points

import bayesnet as bn
import theory

STEPS = 3
RELATIVE = (0.5, 0.75, 1.0, 1.25, 1.5)  # signals, as multiples of the critical one without a field
AWAY = 0.1  # from the critical signal, relative: nearer, without a field, finite width is no series in 1/N
FIELDS = {"leak": (1.0, 0.95, 0.8), "bias_gain": (0.0, 0.1, 0.3)}
TITLES = {"leak": "leak", "bias_gain": "bias gain"}
WEAK = 10.0 ** -np.arange(1, 6)  # fields of the exponents
EXPONENTS = {0.5: 1.0, 1.0: 1 / 3}  # signal, as a multiple of the critical one -> d ln m / d ln eps
TOLERANCE = 0.02  # of an exponent at the weakest field, whose corrections are a power of it
OVERLAP = bn.observables.overlap(STEPS - 2, STEPS - 1, 0, squared=False)
SQUARED = bn.observables.overlap(STEPS - 2, STEPS - 1, 0, squared=True)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    run = Experiment(argv, __file__, __doc__, width=100_000, width_help="the wider of two widths; the other is a tenth")
    critical = theory.critical_signal(bn.Network.rnn(run.width), bn.tasks.chain(STEPS, 1.0)).instability
    figure, grid = panels(1, 3, 12.0, 4.0)
    results: dict = {"critical_signal": critical}
    for axes, (name, values) in zip(grid[0], FIELDS.items(), strict=False):
        for row, value in enumerate(values[::2] if run.quick else values):
            network = bn.Network.rnn(run.width, **{name: value})
            label = f"{TITLES[name]} {value:g}"
            label = "no field" if field_of(network) == 0 else label
            if label not in results:
                results[label] = sweep(run, network, critical, label)
            show(axes, results[label], MORE_COLOURS[row], f"{TITLES[name]} {value:g}")
        axes.axvline(critical, color="k", ls=":", lw=1)
        axes.set(xlabel=r"signal $|y|$", ylim=(0, 1))
        axes.legend(fontsize=8, frameon=False, title="lines: theory", title_fontsize=8)
    grid[0, 0].set_ylabel(rf"overlap of steps {STEPS - 1}, {STEPS} (posterior: root mean square)")
    grid[0, 0].set_title(f"T = {STEPS}, N = {run.width}; bars: 2 Monte Carlo standard errors", fontsize=9)
    grid[0, 1].set_title("dotted: critical signal without a field", fontsize=9)
    results["exponents"] = exponents(run, grid[0, 2], critical)
    run.save(figure)
    return run.finish(
        "leak and biases correlate the steps at any signal: they break the symmetry as a field does", results
    )


def field_of(network: bn.Network) -> float:
    """1 - leak + gb^2, of which one is zero here."""
    return 1 - network.leak + network.bias_gain**2


def sweep(run: Experiment, network: bn.Network, critical: float, label: str) -> dict:
    """Theory and posterior at multiples of the critical signal; the claims of the verdict's first part."""
    field = field_of(network)
    task = bn.tasks.chain(STEPS, 1.0)
    run.require(
        theory.has_sign_symmetry(network, task) == (field == 0), f"{label}: the sign symmetry is not what it should be"
    )
    widths = [run.width] if run.quick else [run.width // 10, run.width]
    ladders, limits, exact = [], [], []
    relative = RELATIVE[::4] if run.quick else RELATIVE
    for factor in relative:
        told = f"{label}, {factor} of the critical signal"
        at = task.scaled(factor * critical)
        ladder = run.climb(network, at, [SQUARED], widths, told, num_samples=800)
        solution = theory.solve(network, at)
        run.require(solution.converged, f"{told}: {solution.message}")
        ladders.append(ladder)
        limits.append([part[0] for part in ladder.limit()])
        exact.append(expected(solution, [OVERLAP])[0])
        if field > 0 or abs(factor - 1) > AWAY:
            run.agree(f"{told}: squared overlap", *limits[-1], exact[-1] ** 2)
        if field > 0 and factor < 1:
            run.exceed(f"{told}: squared overlap", *limits[-1], 0.0)
    return {
        "network": network.to_dict(),
        "signal": critical * np.array(relative),
        "posterior": ladders,
        "squared_overlap": limits,
        "overlap_in_theory": exact,
        "curve": curve(network, critical * np.linspace(RELATIVE[0], RELATIVE[-1], 5 if run.quick else 61)),
    }


def curve(network: bn.Network, signals: np.ndarray) -> dict:
    """The theory's overlap, each signal's solution followed from the one above it, where the symmetry is broken."""
    found = theory.continuation(network, bn.tasks.chain(STEPS, 1.0), signals).sel(direction="down")
    return {"signal": signals, "overlap": OVERLAP.evaluate(found["kernel"].to_numpy(), found["prediction"].to_numpy())}


def exponents(run: Experiment, axes, critical: float) -> dict:
    """The last panel: overlap against a weak field, theory alone; the claims of the verdict's second part."""
    results = {}
    weak = WEAK[:2] if run.quick else WEAK
    for row, name in enumerate(FIELDS):
        for factor, exponent in EXPONENTS.items():
            networks = [bn.Network.rnn(run.width, **setting(name, field)) for field in weak]
            task = bn.tasks.chain(STEPS, factor * critical)
            overlap = np.array([expected(theory.solve(network, task), [OVERLAP])[0] for network in networks])
            local = np.diff(np.log(overlap)) / np.diff(np.log(weak))
            gaps = abs(local - exponent)
            label = f"{TITLES[name]}, {factor} of the critical signal"
            run.require(
                bool(gaps[-1] < TOLERANCE and np.all(gaps[-1] < gaps[-2:-1])),
                f"{label}: local exponents {np.round(local, 3)} do not tend to {exponent:.3f}",
            )
            field = r"1 - leak" if name == "leak" else r"bias gain$^2$"
            told = f"{field}, signal {factor:g}" + r" $|y|_c$"
            axes.plot(weak, overlap, "os"[row], ms=4.5, color=MORE_COLOURS[3 if factor < 1 else 4], mfc="w", label=told)
            if name == "leak":
                axes.plot(weak, overlap[-1] * (weak / weak[-1]) ** exponent, "-", color="0.6", lw=0.9, zorder=0)
            results[label] = {"field": weak, "overlap": overlap, "local_exponents": local}
    axes.set(xscale="log", yscale="log", xlabel="field", ylabel=f"overlap of steps {STEPS - 1}, {STEPS}, theory")
    axes.legend(fontsize=7.5, frameon=False)
    axes.set_title("grey lines: slopes 1 and 1/3", fontsize=9)
    return results


def setting(name: str, field: float) -> dict:
    """The argument of the network that makes this field."""
    return {name: 1 - field if name == "leak" else float(np.sqrt(field))}


def show(axes, found: dict, colour: str, label: str) -> None:
    """Theory as a line; root mean square overlaps of the posterior at the largest width as points."""
    axes.plot(found["curve"]["signal"], found["curve"]["overlap"], "-", color=colour, lw=1.4, label=label)
    mean, error = (
        np.array([getattr(ladder, what)[-1, 0] for ladder in found["posterior"]]) for what in ("mean", "error")
    )
    points(axes, found["signal"], np.sqrt(mean), error / (2 * np.sqrt(mean)), color=colour)


if __name__ == "__main__":
    raise SystemExit(main())
