"""Only the recurrent network correlates its time steps, and only above a critical signal.

Claim (Bauer, Fischer, Helias, Palmigiano, ICML 2026). A pattern is shown at step 1 and a target asked for at step T.
Raise the target's size, the signal. Below a critical signal the recurrent network (RNN, weights shared over steps) and
the deep one (DNN, a weight copy for each step) have the same kernels at infinite width. Above it the RNN's hidden
states at different steps correlate: sharing W breaks the symmetry W -> -W. The DNN's never do. For a linear network

    r_c = (T-1)/(T-2),  K_c = gv^2 gu^2 gw^{2(T-1)} r_c^T,  |y|_c = (kappa + K_c) / sqrt(K_c) * sqrt(r_c - 1).

Expected picture: above, the squared overlap of the last two steps against the signal, zero up to the dotted line and
rising beyond it for the RNN, zero throughout for the DNN; posterior points on the theory's curve, the rounding at the
transition sharper for the wider network. Below, the kernel at the last step: one curve up to the line, two beyond.

The verdict: every posterior mean of the wider network lies within 4 MCSE of the theory, allowing besides for what a
finite width rounds off, 10/N of the value, and 1/sqrt(N) within a quarter of the critical signal, where a continuous
transition is smeared; and wherever the theory's squared overlap exceeds .05 the RNN's exceeds the DNN's by 10 MCSE.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import bayesnet as bn
import theory
from bayesnet.diagnostics import check_gates, summarise
from bayesnet.observables import diagonal_kernel, overlap

COLORS = {"RNN": "#0072B2", "DNN": "#D55E00"}


def measure(network: bn.Network, signals: np.ndarray, steps: int, seed: int, draws: int) -> list[dict]:
    """Posterior mean and MCSE of the two observables at each signal."""
    wanted = [overlap(steps - 2, steps - 1, 0, squared=True), diagonal_kernel(steps - 1, 0)]
    rows = []
    for i, signal in enumerate(signals):
        posterior = bn.sample(
            network, bn.tasks.chain(steps, float(signal)), num_samples=draws, num_warmup=draws // 2, seed=seed + i
        )
        table = summarise(posterior, wanted)
        rows.append(
            {
                "signal": float(signal),
                "mean": table["mean"].tolist(),
                "mcse": table["mcse"].tolist(),
                "failed_gates": [gate.name for gate in check_gates(posterior, table) if not gate.passed],
            }
        )
    return rows


def predict(network: bn.Network, signals: np.ndarray, steps: int) -> np.ndarray:
    """The same two observables of the saddle point of smallest free energy, (signals, 2)."""
    wanted = [overlap(steps - 2, steps - 1, 0, squared=True), diagonal_kernel(steps - 1, 0)]
    solutions = [theory.solve(network, bn.tasks.chain(steps, float(signal))) for signal in signals]
    return np.array([[o.evaluate(s.kernel, s.prediction) for o in wanted] for s in solutions])


def judge(points: dict, curves: dict, signals: np.ndarray, critical: float, widths: list[int]) -> tuple[str, list[str]]:
    """PASS or FAIL, and what failed; the rule is in the module's docstring."""
    widest = max(widths)
    complaints = []
    for name in ("RNN", "DNN"):
        for i, row in enumerate(points[f"{name} {widest}"]):
            if row["failed_gates"]:
                complaints.append(f"{name}, signal {signals[i]:.2f}: {', '.join(row['failed_gates'])}")
            for k, what in enumerate(("overlap^2", "kernel")):
                scale = 1 if k == 0 else curves[name][i, 1]
                error = abs(row["mean"][k] - curves[name][i, k])
                near = abs(signals[i] / critical - 1) < 0.25
                rounding = 1 / np.sqrt(widest) if near else 10 / widest
                if error > 4 * row["mcse"][k] + rounding * scale:
                    complaints.append(f"{name}, signal {signals[i]:.2f}: {what} off by {error:.2g}")
    for rnn, dnn, curve in zip(points[f"RNN {widest}"], points[f"DNN {widest}"], curves["RNN"], strict=True):
        if curve[0] > 0.05 and rnn["mean"][0] - dnn["mean"][0] < 10 * (rnn["mcse"][0] + dnn["mcse"][0]):
            complaints.append(f"signal {rnn['signal']:.2f}: the RNN is no more coherent than the DNN")
    return ("FAIL" if complaints else "PASS"), complaints


def draw(points: dict, fine: np.ndarray, curves: dict, critical: float, widths: list[int], steps: int) -> Figure:
    """The figure described in the module's docstring."""
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for k, label in enumerate((rf"overlap$^2$ of steps {steps - 1}, {steps}", rf"kernel $\Phi_{{{steps}{steps}}}$")):
        axis = axes[k]
        for name, color in COLORS.items():
            style = "-" if name == "RNN" else "--"
            axis.plot(fine, curves[name][:, k], style, color=color, label=rf"{name}, theory ($N\to\infty$)")
            for width, marker in zip(sorted(widths), "os", strict=False):
                rows = points[f"{name} {width}"]
                x, y = [r["signal"] for r in rows], [r["mean"][k] for r in rows]
                bars = [2 * r["mcse"][k] for r in rows]
                filled = color if width == max(widths) else "white"
                axis.errorbar(
                    x, y, bars, fmt=marker, color=color, mfc=filled, ms=5, lw=1, capsize=2, label=f"{name}, N = {width}"
                )
        axis.axvline(critical, color="k", ls=":", lw=1)
        axis.set_ylabel(label)
    axes[0].text(critical, axes[0].get_ylim()[1], " critical signal", va="top", fontsize=9)
    axes[0].legend(fontsize=8)
    axes[1].set_xlabel(r"signal $|y|$")
    axes[0].set_title(rf"linear chain, T = {steps}, $\kappa$ = 0.1; bars: 2 Monte Carlo standard errors", fontsize=10)
    return figure


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; exit status 1 if the claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=100_000, help="width N of the wider network; the other has N/500")
    parser.add_argument("--steps", type=int, default=3, help="T, 3 or 4 (continuous transition)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("phase-transition"), help="output directory")
    parser.add_argument("--quick", action="store_true", help="few signals and draws, no verdict")
    arguments = parser.parse_args(argv)
    steps, noise = arguments.steps, 0.1
    critical = theory.critical_signal(
        bn.Network.rnn(arguments.width, noise=noise), bn.tasks.chain(steps, 1.0)
    ).instability
    relative = [0.7, 1.4] if arguments.quick else [0.5, 0.65, 0.8, 0.9, 0.97, 1.03, 1.1, 1.2, 1.35, 1.5]
    signals = critical * np.array(relative)
    fine = np.linspace(signals[0], signals[-1], 5 if arguments.quick else 60)
    draws = 50 if arguments.quick else 1500
    widths = sorted({max(16, arguments.width // 500), arguments.width})
    makers = {"RNN": bn.Network.rnn, "DNN": bn.Network.dnn}
    points = {
        f"{name} {width}": measure(make(width, noise=noise), signals, steps, arguments.seed, draws)
        for width in widths
        for name, make in makers.items()
    }
    curves = {name: predict(make(arguments.width, noise=noise), fine, steps) for name, make in makers.items()}
    at_points = {name: predict(make(arguments.width, noise=noise), signals, steps) for name, make in makers.items()}
    status, complaints = judge(points, at_points, signals, critical, widths)
    if arguments.quick:
        status, complaints = "NO VERDICT", ["too few draws for one"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure = draw(points, fine, curves, critical, widths, steps)
    write(arguments.out / "phase_transition.png", lambda path: figure.savefig(path, dpi=130, format="png"))
    results = {"status": status, "complaints": complaints, "critical_signal": critical, "points": points}
    results["theory"] = {name: {"signal": signals.tolist(), "observables": v.tolist()} for name, v in at_points.items()}
    write(arguments.out / "results.json", lambda path: path.write_text(json.dumps(results, indent=1)))
    print(f"{status}: " + ("; ".join(complaints) or "the RNN, and only the RNN, is coherent above the critical signal"))
    print(arguments.out / "phase_transition.png")
    return int(status == "FAIL")


def write(path: Path, fill) -> None:
    """Fill a temporary file, then rename it to ``path``."""
    partial = path.with_name(f".{path.name}.tmp")
    fill(partial)
    os.replace(partial, path)


if __name__ == "__main__":
    raise SystemExit(main())
