"""How networks, tasks, solutions and settings show themselves: a line of text, and a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from theory.network import Network
    from theory.solution import Solution
    from theory.task import Task


class ShortRepr:
    """Settings, a dataclass with ``repr=False``, as the call that makes them: with what is not the default only."""

    def __repr__(self) -> str:
        fields = getattr(self, "__dataclass_fields__", {})
        changed = {name: getattr(self, name) for name, field in fields.items() if getattr(self, name) != field.default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


MOST_BRANCHES = 12  # shown in a table; more hide the rest of a notebook


def in_digits(value: Any) -> str:
    """A number in six significant digits; anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def html_table(title: str, rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Rows of cells as an HTML table under a title; without a header the first cell of each row names the row."""
    named = not header
    head = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr></thead>" if header else ""
    lines = []
    for row in rows:
        first, *others = (escape(in_digits(cell)) for cell in row)
        opening = f"<th style='text-align: left'>{first}</th>" if named else f"<td>{first}</td>"
        lines.append(f"<tr>{opening}{''.join(f'<td>{cell}</td>' for cell in others)}</tr>")
    caption = f"<div><strong>{escape(title)}</strong></div>" if title else ""
    return f"{caption}<table>{head}<tbody>{''.join(lines)}</tbody></table>"


def network_settings(network: Network) -> dict[str, str]:
    """The arguments of a network that are not the default, as they are written down; sharing where `kind` leaves it
    open."""
    fields = type(network).__dataclass_fields__
    settings = {"width": str(network.width)}
    for name, field in fields.items():
        value = getattr(network, name)
        if name in ("width", "shared", "connections") or value == field.default:
            continue
        settings[name] = repr(value) if isinstance(value, str | int | float | tuple) else str(value)
    if network.connections is not None:
        listed = ", ".join(f"{one.name!r} reads {one.reads!r}" for one in network.connections)
        settings["connections"] = f"[{listed}]"
    elif network.kind == "network":
        settings["shared"] = repr(network.plain_degrees())
    return settings


def network_text(network: Network) -> str:
    """One line: ``Network.rnn(width=64, noise=1.0)``, with what is not the default only."""
    maker = {"RNN": "Network.rnn", "DNN": "Network.dnn"}.get(network.kind, "Network")
    if network.connections is not None:
        maker = "Network"
    return f"{maker}({', '.join(f'{name}={value}' for name, value in network_settings(network).items())})"


def network_html(network: Network) -> str:
    """A table of what is not the default."""
    rows = list(network_settings(network).items())
    rows.insert(1, ("activation", str(network.activation)))
    rows = [*dict(rows).items(), ("weights", ", ".join(network.weights))]
    return html_table(network.kind if network.kind != "network" else "Network", rows)


def task_text(task: Task) -> str:
    """One line: the sizes, and how many entries are supervised."""
    return f"Task({_sizes(task)}, {len(task.supervised_entries)} of {task.entries} entries supervised)"


def task_html(task: Task) -> str:
    """A table of the sizes, and for each step what enters and what is asked for."""
    seen = np.sqrt((task.inputs**2).mean(axis=(0, 2)))
    asked = task.supervised.sum(axis=0)
    targets = np.where(task.supervised[..., None], task.targets, np.nan)
    rows = []
    for step in range(task.steps):
        values = targets[:, step][task.supervised[:, step]]
        span = f"{values.min():.4g} to {values.max():.4g}" if values.size else "none"
        rows.append((step + 1, f"{seen[step]:.4g}", f"{asked[step]} of {task.patterns}", span))
    return html_table(f"Task: {_sizes(task)}", rows, ("step", "rms input", "patterns supervised", "targets"))


def _sizes(task: Task) -> str:
    sizes = {"pattern": task.patterns, "step": task.steps, "input": task.input_dim, "output": task.output_dim}
    return ", ".join(f"{size} {name}{'' if size == 1 else 's'}" for name, size in sizes.items())


def solution_text(solution: Solution) -> str:
    """One line: the network, the free energy, and whether to believe it."""
    more = f", {len(solution.branches)} branches" if len(solution.branches) > 1 else ""
    return (
        f"Solution({solution.kind} of {network_text(solution.network)}: F = {_with_error(solution)}, "
        f"{'stable' if solution.stable else 'NOT STABLE'}, "
        f"{'converged' if solution.converged else 'NOT CONVERGED'}{more})"
    )


def solution_html(solution: Solution) -> str:
    """Free energy and verdicts, the kernel along the steps, and the branches as a table."""
    rows = [
        ("network", network_text(solution.network)),
        ("task", task_text(solution.task)),
        ("free energy F", _with_error(solution)),
        ("stable", _yes(solution.stable)),
        ("converged", _yes(solution.converged)),
        ("residual", f"{solution.residual:.1e}"),
        ("message", solution.message),
    ]
    made = html_table(f"Solution: {solution.kind}", rows)
    if len(solution.branches) < 2:
        return made
    shown = solution.branches[:MOST_BRANCHES]
    table = [
        (number, _with_error(branch), _yes(branch.stable), _yes(branch.converged), f"{_coherence(branch):.4f}")
        for number, branch in enumerate(shown, 1)
    ]
    left_out = len(solution.branches) - len(shown)
    title = "Branches" + (f" (the first {MOST_BRANCHES} of {len(solution.branches)})" if left_out else "")
    header = ("", "free energy F", "stable", "converged", "largest overlap of two steps, squared")
    return made + html_table(title, table, header)


def _with_error(solution: Solution) -> str:
    error = solution.free_energy_error
    return f"{solution.free_energy:.6g}" + (f" +- {error:.1g}" if error > 0 else "")


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _coherence(solution: Solution) -> float:
    """The largest squared overlap of a pattern at two different sites."""
    sites, patterns = solution.kernel.shape[:2]
    largest = 0.0
    for pattern in range(patterns):
        block = solution.kernel[:, pattern, :, pattern]
        scale = np.sqrt(np.maximum(np.diagonal(block), 0.0))
        sizes = np.outer(scale, scale)
        overlap = np.divide(block, sizes, out=np.zeros_like(block), where=sizes > 0)
        largest = max(largest, float(np.max(overlap[~np.eye(sites, dtype=bool)] ** 2, initial=0.0)))
    return largest
