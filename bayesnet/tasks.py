"""Tasks ready to use: three synthetic ones, and two real data sets that ship inside the package.

All show their input at the first step only, where |x|^2/D is 1 (on average for the real data), and nothing later:
the answer has to be carried, or turned, by the recurrent weights. `chain`, `endpoint` and `digits` ask for it at the
last step; `rotation` and `co2` along the way, some steps being kept back as truth for scoring.

Sources and licences of the data: ``bayesnet/data/README.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from theory import arguments
from theory.arrays import plain_array, real_array
from theory.memory import require_memory
from theory.task import Task

LARGEST_SIZE = 100_000  # kernels hold (steps x patterns)^2 numbers
CALENDAR_SHIFT = 5  # months; prime to 12, so that windows that far apart come in all twelve phases of the year


def chain(steps: int, signal: float) -> Task:
    """One pattern, carried along: x_1 = 1 and no later input, y_T = ``signal``. Shapes (1, T, 1).

    Args:
        steps: T, at least 1.
        signal: the target at the last step.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    steps = _size("steps", steps)
    return _shown_first(np.ones((1, 1)), _at_last(steps, np.full(1, arguments.real("signal", signal))))


def endpoint(steps: int, signal: float, patterns: int = 2, inputs: Any = None) -> Task:
    """Patterns shown at step 1, told apart at step T: y_T = +signal, -signal, +signal, ... Shapes (P, T, D).

    Args:
        steps: T, at least 1.
        signal: the modulus of the targets.
        patterns: P. By default the patterns are orthogonal, D = P and x_mu . x_nu / D = delta_{mu nu}.
        inputs: real array (P, D), shown as it is in place of the orthogonal patterns; ``patterns`` is then its length
            and may be left out.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    steps, patterns = (
        _size("steps", steps),
        _size("patterns", patterns),
    )
    signal = arguments.real("signal", signal)
    if inputs is None:
        _require_room(steps, patterns, patterns)
        shown = math.sqrt(patterns) * np.eye(patterns)
    else:
        shown = _pattern_rows(inputs)
        if patterns not in (2, len(shown)):
            raise ValueError(
                f"patterns is {patterns} but inputs has {len(shown)} rows; leave one out or make them agree"
            )
    return _shown_first(shown, _at_last(steps, signal * (-1.0) ** np.arange(len(shown))))


def rotation(steps: int, period: float, patterns: int = 1, signal: float = 1.0, supervised: Any = None) -> Task:
    """A kick in the plane, then its rotation: y_t = signal cos(2 pi t / period + phase), t = 0..T-1 from the kick on.

    The kick at the first step is x = sqrt(2) (cos phase, sin phase), so that |x|^2/D = 1; the phases, one per pattern,
    are pi mu / P: spread over half a circle, since the other half is the same with the sign turned. A linear network
    that has found the rule has eigenvalues exp(+-2 pi i / period) in its recurrent weights. Shapes (P, T, 2).

    Args:
        steps: T, at least 1.
        period: steps per turn, any real number from 2 on.
        patterns: P, the number of phases.
        signal: the amplitude.
        supervised: the steps counted from 0, as a sequence of distinct integers, or a boolean mask (T,) or (P, T). By
            default all. The target at the other steps is kept as truth.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    steps, patterns = (
        _size("steps", steps),
        _size("patterns", patterns),
    )
    period, signal = arguments.real("period", period), arguments.real("signal", signal)
    if period < 2:
        raise ValueError(f"period is {period}; it must be at least 2 steps")
    _require_room(steps, patterns, 2)
    phases = math.pi * np.arange(patterns) / patterns
    kicks = math.sqrt(2) * np.stack([np.cos(phases), np.sin(phases)], axis=-1)
    targets = signal * np.cos(2 * math.pi * np.arange(steps) / period + phases[:, None])
    chosen = np.ones(steps, bool) if supervised is None else supervised
    return _shown_first(kicks, targets, _supervised_mask(chosen, patterns, steps))


def digits(classes: Iterable[int] = (0, 1), patterns: int = 8, steps: int = 3, signal: float = 3.0) -> Task:
    """Handwritten digits, 8 x 8 pixels, shown at step 1 and told apart at step T. Shapes (P, T, 64).

    The images are taken in the order of the file, one of each class in turn. The mean over ALL images of
    ``classes`` is subtracted, then one number scales them so that |x|^2/D is 1 on average over the ``patterns``
    images shown. `digits_test` goes on where this task stops.

    Two classes have one output, +signal for the first class and -signal for the second. K > 2 classes have one
    output each: signal for the own class, -signal/(K-1) for every other, so that each output averages to 0.

    Args:
        classes: two or more different digits out of 0..9.
        patterns: P, the number of images, up to about 174 per class.
        steps: T, at least 1.
        signal: size of the target.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.

    Source: Alpaydin and Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49 (CC BY 4.0).
    """
    images, answers = _digit_patterns(classes, patterns)
    steps, signal = _size("steps", steps), arguments.real("signal", signal)
    return _shown_first(images[:patterns], _at_last(steps, signal * answers[:patterns]))


def digits_test(
    classes: Iterable[int] = (0, 1),
    patterns: int = 8,
    steps: int = 3,
    signal: float = 3.0,
    test_patterns: int = 32,
) -> Task:
    """New images to test on: those that follow the ones of `digits` with the same first four arguments.

    Centred and scaled by the same numbers as those; their targets are the truth to score predictions against. Shapes
    (test_patterns, T, 64) for the inputs, the rest as in `digits`.

    Args:
        classes, patterns, steps, signal: as given to `digits`.
        test_patterns: the number of new images.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.
    """
    images, answers = _digit_patterns(classes, patterns, spare=1)
    steps, signal = _size("steps", steps), arguments.real("signal", signal)
    end = patterns + arguments.integer("test_patterns", test_patterns, most=len(images) - patterns)
    return _shown_first(images[patterns:end], _at_last(steps, signal * answers[patterns:end]))


def co2(windows: int = 4, steps: int = 12, history: int = 12, signal: float = 1.0, supervised: Any = None) -> Task:
    """The seasonal cycle of carbon dioxide at Mauna Loa, continued from its past. Shapes (windows, T, history).

    Monthly means from 1964 to 2001, minus their centred twelve-month average (ends at half weight), standardised to
    mean 0 and variance 1 over the 440 months that have one: the anomalies. A window is ``history`` months, shown as
    x_1, followed by the ``steps`` months to predict, y_t = signal times the anomaly. Windows do not overlap; each
    begins 5 months later in the year than the one before, so that they differ in phase.

    Args:
        windows: P, the number of windows (up to 15 at the default lengths).
        steps: T, the months to predict.
        history: D, the months shown.
        signal: what multiplies the standardised anomaly.
        supervised: the steps counted from 0, as a sequence of distinct integers, or a boolean mask (T,) or
            (windows, T). By default every third month, t = 2, 5, 8, ..., is unsupervised, the same ones in each
            window. The targets there are kept as truth.

    Raises:
        ValueError: naming the argument, what was wrong with it and what is allowed.

    Source: Keeling and Whorf 2004, Carbon Dioxide Information Analysis Center (public domain).
    """
    anomalies = _co2_anomalies()
    history = arguments.integer("history", history, most=len(anomalies) - 1)
    steps = arguments.integer("steps", steps, most=len(anomalies) - history)
    length = history + steps
    stride = length + (CALENDAR_SHIFT - length) % 12
    windows = arguments.integer("windows", windows, most=1 + (len(anomalies) - length) // stride)
    months = np.stack([anomalies[w * stride : w * stride + length] for w in range(windows)])
    chosen = np.arange(steps) % 3 != 2 if supervised is None else supervised
    targets = arguments.real("signal", signal) * months[:, history:]
    return _shown_first(months[:, :history], targets, _supervised_mask(chosen, windows, steps))


def _require_room(steps: int, patterns: int, input_dim: int) -> None:
    """Refuse a task whose own arrays do not fit into memory."""
    what = f"a task of steps {steps} with patterns {patterns} and {input_dim} input dimensions"
    require_memory(what, 16.0 * steps * patterns * input_dim, "give fewer steps or patterns")


def _shown_first(shown: np.ndarray, targets: np.ndarray, supervised: Any = None) -> Task:
    _require_room(targets.shape[1], *shown.shape)
    inputs = np.zeros((len(shown), targets.shape[1], shown.shape[1]))
    inputs[:, 0] = shown
    return Task(inputs, targets, supervised)


def _at_last(steps: int, answers: np.ndarray) -> np.ndarray:
    targets = np.full((len(answers), steps, *answers.shape[1:]), np.nan)
    targets[:, -1] = answers
    return targets


def _digit_patterns(classes: Any, patterns: Any, spare: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All images of the classes, taken in turn, as `digits` scales them, and their answers at signal 1."""
    labels, pixels = _digit_images()
    names = _digit_classes(classes)
    turns = min(int((labels == name).sum()) for name in names)
    order = np.stack([np.flatnonzero(labels == name)[:turns] for name in names], axis=1).ravel()
    count = arguments.integer("patterns", patterns, most=len(order) - spare)
    images = pixels[order] - pixels[np.isin(labels, names)].mean(0)
    own = np.tile(np.eye(len(names)), (turns, 1))
    answers = own[:, 0] - own[:, 1] if len(names) == 2 else own - (1 - own) / (len(names) - 1)
    return images / np.sqrt((images[:count] ** 2).mean()), answers


@cache
def _digit_images() -> tuple[np.ndarray, np.ndarray]:
    table = _read_table("digits.csv", columns=range(65))
    return table[:, 0].astype(int), table[:, 1:]


@cache
def _co2_anomalies() -> np.ndarray:
    level = _read_table("co2.csv", columns=[1])[:, 0]
    year = np.array([0.5, *np.ones(11), 0.5]) / 12
    anomalies = level[6:-6] - np.convolve(level, year, mode="valid")
    return (anomalies - anomalies.mean()) / anomalies.std()


def _read_table(name: str, columns: Iterable[int]) -> np.ndarray:
    with (files("bayesnet") / "data" / name).open(encoding="utf-8") as lines:
        return np.loadtxt(lines, delimiter=",", skiprows=1, usecols=tuple(columns), ndmin=2)


def _digit_classes(value: Any) -> list[int]:
    allowed = "allowed: two or more different integers from 0 to 9"
    try:
        names = [] if isinstance(value, str) else list(value)
    except TypeError:
        names = []
    integers = all(isinstance(n, int | np.integer) and not isinstance(n, bool) and 0 <= n <= 9 for n in names)
    if len(names) < 2 or not integers or len(set(names)) < len(names):
        raise ValueError(f"classes is {value!r}; {allowed}")
    return [int(n) for n in names]


def _pattern_rows(value: Any) -> np.ndarray:
    return real_array("inputs", value, "(patterns, input dimensions)", ranks=(2,))


def _supervised_mask(value: Any, patterns: int, steps: int) -> np.ndarray:
    allowed = f"distinct integers from 0 to {steps - 1}, or a boolean mask of shape ({steps},) or ({patterns}, {steps})"
    array = plain_array("supervised", value, f"of {allowed}")
    if array.dtype == np.bool_:
        if array.shape not in ((steps,), (patterns, steps)):
            raise ValueError(f"supervised has shape {array.shape}; allowed: {allowed}")
        return np.broadcast_to(array, (patterns, steps))
    steps_named = array.dtype.kind in "iu" and array.ndim == 1 and array.size > 0
    if not steps_named or array.min() < 0 or array.max() >= steps or len(np.unique(array)) < len(array):
        raise ValueError(f"supervised is {value!r}; allowed: {allowed}")
    return np.broadcast_to(np.isin(np.arange(steps), array), (patterns, steps))


def _size(name: str, value: Any) -> int:
    return arguments.integer(name, value, most=LARGEST_SIZE)
