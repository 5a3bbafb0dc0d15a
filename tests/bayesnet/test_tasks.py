"""The tasks that ship with the package: shapes, scaling, truth, and what they refuse."""

import numpy as np
import pytest

from bayesnet import tasks
from theory import Task


def input_gram(task):
    return task.input_kernel[0, :, 0, :]


def assert_shown_at_the_first_step_only(task):
    assert not task.inputs[:, 1:].any()
    assert task.input_kernel[0, :, 0, :].any()


def assert_asked_at_the_last_step_only(task):
    assert task.supervised[:, -1].all()
    assert not task.supervised[:, :-1].any()
    assert np.isnan(task.targets[:, :-1]).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_chain(steps):
    task = tasks.chain(steps, signal=4.3)
    assert task.inputs.shape == (1, steps, 1)
    assert_shown_at_the_first_step_only(task)
    assert_asked_at_the_last_step_only(task)
    assert input_gram(task) == 1
    assert task.supervised_targets == 4.3


@pytest.mark.parametrize("patterns", [1, 2, 5])
def test_endpoint_with_orthogonal_patterns(patterns):
    task = tasks.endpoint(3, 2.0, patterns)
    assert task.inputs.shape == (patterns, 3, patterns)
    assert_shown_at_the_first_step_only(task)
    assert_asked_at_the_last_step_only(task)
    np.testing.assert_allclose(input_gram(task), np.eye(patterns), atol=1e-15)
    np.testing.assert_array_equal(task.supervised_targets[:, 0], 2 * (-1.0) ** np.arange(patterns))


def test_endpoint_with_given_patterns():
    inputs = np.random.default_rng(0).normal(size=(3, 7))
    task = tasks.endpoint(2, 1, inputs=inputs)
    assert task == tasks.endpoint(2, 1, patterns=3, inputs=inputs.tolist())
    np.testing.assert_array_equal(task.inputs[:, 0], inputs)
    with pytest.raises(ValueError, match=r"^patterns is 4 but inputs has 3 rows"):
        tasks.endpoint(2, 1, patterns=4, inputs=inputs)


def test_rotation():
    task = tasks.rotation(12, 8, patterns=3, signal=2, supervised=[0, 1, 3, 4, 6, 9, 11])
    assert_shown_at_the_first_step_only(task)
    assert task.inputs.shape == (3, 12, 2)
    np.testing.assert_allclose(np.diag(input_gram(task)), 1)
    turn = np.exp(2j * np.pi * np.arange(12) / 8)
    kicks = task.inputs[:, 0] @ [1, 1j] / np.sqrt(2)
    np.testing.assert_allclose(task.targets[:, :, 0], 2 * (kicks[:, None] * turn).real, atol=1e-14)
    assert not np.isnan(task.targets).any()
    assert (np.flatnonzero(task.supervised[2]) == [0, 1, 3, 4, 6, 9, 11]).all()


def test_rotation_of_two_phases_is_a_quadrature():
    np.testing.assert_allclose(input_gram(tasks.rotation(4, 5.5, patterns=2)), np.eye(2), atol=1e-15)


def test_choice_of_supervised_steps():
    per_step = np.array([True, False, True, False])
    per_pattern = np.stack([per_step, ~per_step])
    assert tasks.rotation(4, 3).supervised.all()
    assert tasks.rotation(4, 3, 2, supervised=per_step) == tasks.rotation(4, 3, 2, supervised=range(0, 4, 2))
    assert (tasks.rotation(4, 3, 2, supervised=per_pattern).supervised == per_pattern).all()
    assert (tasks.co2(2, 4, supervised=per_pattern).supervised == per_pattern).all()


def test_digits():
    task = tasks.digits()
    assert task.inputs.shape == (8, 3, 64)
    assert_shown_at_the_first_step_only(task)
    assert_asked_at_the_last_step_only(task)
    np.testing.assert_allclose(np.trace(input_gram(task)) / 8, 1)
    np.testing.assert_array_equal(task.supervised_targets[:, 0], 3.0 * np.tile([1, -1], 4))


def test_all_digits_are_there():
    labels, pixels = tasks._digit_images()
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert pixels.shape == (1797, 64)
    assert set(np.unique(pixels)) == set(range(17))


def test_digits_against_the_source():
    datasets = pytest.importorskip("sklearn.datasets")
    source = datasets.load_digits()
    labels, pixels = tasks._digit_images()
    np.testing.assert_array_equal(labels, source.target)
    np.testing.assert_array_equal(pixels, source.data)
    shown = pixels[[np.flatnonzero(labels == c)[i] for i in range(4) for c in (0, 1)]]
    centred = shown - pixels[labels < 2].mean(0)
    np.testing.assert_allclose(tasks.digits().inputs[:, 0], centred / np.sqrt((centred**2).mean()), atol=1e-13)


def test_digits_of_several_classes():
    task = tasks.digits(classes=[7, 1, 3], patterns=7, steps=2, signal=1.0)
    assert task.targets.shape == (7, 2, 3)
    np.testing.assert_array_equal(task.supervised_targets[:4], 1.5 * np.eye(3)[[0, 1, 2, 0]] - 0.5)


def test_test_digits_follow_those_shown():
    whole = tasks.digits(patterns=20)
    task, test = tasks.digits(patterns=8), tasks.digits_test(patterns=8, test_patterns=12)
    joined = np.concatenate([task.inputs[:, 0], test.inputs[:, 0]])
    scale = np.linalg.norm(joined) / np.linalg.norm(whole.inputs)
    np.testing.assert_allclose(joined, scale * whole.inputs[:, 0], atol=1e-13)
    np.testing.assert_array_equal(test.supervised_targets[:2, 0], [3, -3])
    assert tasks.digits_test().patterns == 32
    assert_asked_at_the_last_step_only(test)


def test_co2():
    task = tasks.co2()
    assert task.inputs.shape == (4, 12, 12)
    assert_shown_at_the_first_step_only(task)
    assert not np.isnan(task.targets).any()
    assert (np.flatnonzero(~task.supervised[3]) == [2, 5, 8, 11]).all()
    assert 0.6 < np.trace(input_gram(task)) / 4 < 1.2
    assert np.linalg.cond(input_gram(task)) < 100
    np.testing.assert_array_equal(tasks.co2(signal=-2).targets, -2 * task.targets)
    # November 1964 is the first anomaly: from low in autumn to the maximum in spring, six months on.
    assert task.inputs[0, 0].argmax() in (5, 6, 7)
    assert np.corrcoef(task.inputs[0, 0], task.targets[0, :, 0])[0, 1] > 0.95


def test_co2_windows_do_not_overlap():
    anomalies = tasks._co2_anomalies()
    assert len(anomalies) == 440
    assert anomalies.mean() == pytest.approx(0, abs=1e-12)
    assert anomalies.std() == pytest.approx(1)
    task = tasks.co2(windows=15, steps=9, history=14)
    seen = np.concatenate([np.concatenate([task.inputs[w, 0], task.targets[w, :, 0]]) for w in range(15)])
    starts = [int(np.flatnonzero(anomalies == task.inputs[w, 0, 0])[0]) for w in range(15)]
    assert len(seen) == 15 * 23
    assert min(np.diff(starts)) >= 23
    assert {start % 12 for start in starts} == set(range(12))


def test_co2_against_the_source():
    co2 = pytest.importorskip("statsmodels.datasets.co2")
    weekly = co2.load_pandas().data["co2"]
    monthly = weekly.resample("MS").mean()["1964-05":]
    np.testing.assert_allclose(tasks._read_table("co2.csv", [1])[:, 0], monthly, atol=6e-4)


GOOD = {
    tasks.chain: {"steps": 3, "signal": 1.0},
    tasks.endpoint: {"steps": 3, "signal": 1.0},
    tasks.rotation: {"steps": 4, "period": 8},
    tasks.digits: {},
    tasks.digits_test: {},
    tasks.co2: {},
}
SIZES = {
    tasks.chain: ["steps"],
    tasks.endpoint: ["steps", "patterns"],
    tasks.rotation: ["steps", "patterns"],
    tasks.digits: ["steps", "patterns"],
    tasks.digits_test: ["steps", "patterns", "test_patterns"],
    tasks.co2: ["windows", "steps", "history"],
}


@pytest.mark.parametrize(("make", "name"), [(make, name) for make in SIZES for name in SIZES[make]])
def test_sizes_must_be_positive_integers(make, name):
    for value in (0, -1, 2.0, True, "3", None, np.nan, [3], np.array([3]), np.array(3.0), 10**30):
        with pytest.raises(ValueError, match=f"^{name} is .*; it must be an integer from 1 to "):
            make(**{**GOOD[make], name: value})


@pytest.mark.parametrize(("make", "name"), [(make, "signal") for make in GOOD] + [(tasks.rotation, "period")])
def test_numbers_must_be_finite_and_real(make, name):
    for value in (np.nan, np.inf, True, "3", None, 1j, [3.0], np.array([3.0]), 10**400):
        with pytest.raises(ValueError, match=f"^{name} is .*; it must be a finite real number"):
            make(**{**GOOD[make], name: value})


@pytest.mark.parametrize("make", GOOD)
def test_signal_scales_the_targets(make):
    once, none = (make(**{**GOOD[make], "signal": signal}) for signal in (1.0, 0))
    np.testing.assert_allclose(make(**{**GOOD[make], "signal": -2.5}).targets, -2.5 * once.targets)
    assert not none.supervised_targets.any()
    assert isinstance(once, Task)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (tasks.rotation, {"period": 1.9}, "period is 1.9; it must be at least 2"),
        (tasks.rotation, {"period": -8}, "period is -8"),
        (tasks.digits, {"patterns": 357}, "patterns is 357; it must be an integer from 1 to 356"),
        (tasks.digits_test, {"patterns": 356}, "patterns is 356; it must be an integer from 1 to 355"),
        (tasks.digits_test, {"test_patterns": 349}, "test_patterns is 349; it must be an integer from 1 to 348"),
        (tasks.co2, {"windows": 16}, "windows is 16; it must be an integer from 1 to 15"),
        (tasks.co2, {"history": 440}, "history is 440; it must be an integer from 1 to 439"),
        (tasks.co2, {"steps": 429}, "steps is 429; it must be an integer from 1 to 428"),
    ],
)
def test_limits(make, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(**{**GOOD[make], **arguments})


@pytest.mark.parametrize("classes", [(0,), (), (0, 10), (-1, 2), (3, 3), (0, 1.0), (0, True), "01", 1, None, (0, [1])])
def test_unknown_classes(classes):
    with pytest.raises(ValueError, match=r"^classes is .*two or more different integers from 0 to 9"):
        tasks.digits(classes=classes)


@pytest.mark.parametrize(
    "inputs",
    [np.ones(3), 3.0, "ab", [[1j]], [[1.0], [1.0, 2.0]], np.ma.masked_equal([[1, 2]], 2), np.ones((2, 0)), [[np.nan]]],
    ids=repr,
)
def test_bad_patterns(inputs):
    with pytest.raises(ValueError, match=r"^inputs "):
        tasks.endpoint(3, 1.0, inputs=inputs)


BAD_CHOICES = [[4], [-1], [0, 0], [1.0], [], np.array([], int), 2, "all", [[0, 1]], [[0], [0, 1]], {0, 1}]
BAD_CHOICES += [np.ones(3, bool), np.ones((4, 2), bool), np.ma.masked_equal([0, 1], 0), True, np.zeros(4, bool)]


@pytest.mark.parametrize("supervised", BAD_CHOICES, ids=repr)
@pytest.mark.parametrize("make", [tasks.rotation, tasks.co2])
def test_bad_choice_of_supervised_steps(make, supervised):
    arguments = {**GOOD[make], "steps": 4, "supervised": supervised}
    with pytest.raises(ValueError, match=r"^supervised "):
        make(**arguments)
