"""Every example runs at small size; what they share is tested on cases with a known outcome."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pytest

import bayesnet as bn

EXAMPLES = Path(__file__).parent.parent / "examples"
SHARED = "experiment"
SCRIPTS = [pytest.param(path, id=path.stem) for path in sorted(EXAMPLES.glob("*.py")) if path.stem != SHARED]


def load(name):
    """A script as a module; scripts find what they share beside them, as Python does when it runs one."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def experiment():
    return load(SHARED)


@pytest.mark.parametrize("path", SCRIPTS)
def test_script_runs_quickly_without_a_verdict(path, tmp_path, capsys):
    assert load(path.stem).main(["--quick", "--width", "64", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("NO VERDICT")
    assert json.loads((tmp_path / "results.json").read_text())["status"] == "NO VERDICT"
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 0
    assert not list(tmp_path.glob(".*"))


def start(experiment, tmp_path, *arguments):
    return experiment.Experiment(["--out", str(tmp_path), *arguments], "thing.py", "A claim.", width=64)


def test_extrapolation_is_exact_on_a_polynomial_and_its_error_bar_covers(experiment):
    widths = np.array([64, 256, 1024, 4096])
    exact = 2.0 + 30.0 / widths - 100.0 / widths**2
    coefficients, _ = experiment.extrapolate(widths, exact[:, None], np.full((4, 1), 0.1), order=2)
    np.testing.assert_allclose(coefficients[:, 0], [2.0, 30.0, -100.0], rtol=1e-9)
    noise = 0.1 / np.sqrt(widths)[:, None] * np.ones(4000)
    noisy = exact[:, None] + noise * np.random.default_rng(0).normal(size=noise.shape)
    coefficients, error = experiment.extrapolate(widths, noisy, noise, order=2)
    scatter = (coefficients[0] - 2.0) / error
    # 4000 standard normal numbers: mean and variance within 4 standard errors.
    assert abs(scatter.mean()) < 4 / np.sqrt(4000)
    assert abs(scatter.var() - 1) < 4 * np.sqrt(2 / 4000)


def test_extrapolation_from_two_widths_removes_the_first_order(experiment):
    coefficients, error = experiment.extrapolate(
        np.array([100, 400]), np.array([[1.5], [1.2]]), np.array([[3.0], [4.0]])
    )
    np.testing.assert_allclose(coefficients[0], (4 * 1.2 - 1.5) / 3)
    np.testing.assert_allclose(error, np.hypot(4 * 4.0, 3.0) / 3)


def test_constants_extrapolate_without_error(experiment):
    coefficients, error = experiment.extrapolate(np.array([100, 400]), np.ones((2, 1)), np.zeros((2, 1)))
    np.testing.assert_allclose(coefficients[0], 1.0)
    assert error == 0


def test_the_verdict_allows_for_the_number_of_claims(experiment, tmp_path, capsys):
    assert 3.2 < experiment.family_limit(1) < experiment.family_limit(100) < 4.5
    for number, status in ((1, "FAIL"), (100, "PASS")):
        run = start(experiment, tmp_path)
        run.agree("zeros", np.zeros(number - 1), 1.0, 0.0)
        run.agree("one", 4.0, 1.0, 0.0)
        assert run.finish("all is well", {"odd": np.array([np.nan, 1])}) == (status == "FAIL")
        assert capsys.readouterr().out.startswith(f"{status}: ")
        record = json.loads((tmp_path / "results.json").read_text())
        assert record["status"] == status
        assert record["results"]["odd"] == [None, 1.0]


@pytest.mark.parametrize(
    ("kind", "numbers", "passes"),
    [
        ("agree", (1.0, 0.0, 1.0), True),
        ("agree", (1.0, 0.0, 1.001), False),
        ("agree", (np.nan, 1.0, 0.0), False),
        ("exceed", (1.0, 0.1, 0.0), True),
        ("exceed", (1.0, 0.5, 0.0), False),  # two standard errors prove nothing
        ("exceed", (-1.0, 0.1, 0.0), False),
        ("exceed", (1.0, np.nan, 0.0), False),
    ],
)
def test_single_claims(experiment, tmp_path, kind, numbers, passes):
    run = start(experiment, tmp_path)
    getattr(run, kind)("claim", *numbers)
    assert (run.verdict()[0] == "PASS") == passes


def test_a_failed_gate_fails_the_script_but_not_a_quick_run(experiment, tmp_path):
    run = start(experiment, tmp_path)
    run.require(False, "R-hat 1.3")
    assert run.verdict() == ("FAIL", ["R-hat 1.3"])
    quick = start(experiment, tmp_path, "--quick")
    quick.require(False, "R-hat 1.3")
    assert quick.verdict()[0] == "NO VERDICT"


def test_seeds_differ_between_calls_and_repeat_between_runs(experiment, tmp_path):
    one, other, third = (start(experiment, tmp_path, *a) for a in ((), (), ("--seed", "1")))
    seeds = [one.seed() for _ in range(3)]
    assert len(set(seeds)) == 3
    assert seeds == [other.seed() for _ in range(3)]
    assert third.seed() not in seeds


@pytest.mark.parametrize("arguments", [["--width", "3"], ["--width", "wide"], ["--seed", "-1"]])
def test_bad_arguments_end_in_one_line(experiment, tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        start(experiment, tmp_path, *arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]


def test_an_output_path_that_is_a_file_ends_in_one_line(experiment, tmp_path, capsys):
    (tmp_path / "taken").touch()
    with pytest.raises(SystemExit):
        start(experiment, tmp_path / "taken")
    assert "--out" in capsys.readouterr().err.splitlines()[-1]


def test_the_gallery_shows_figures_that_exist_with_the_scripts_that_made_them():
    text = (EXAMPLES.parent / "docs" / "gallery.md").read_text()
    figures = re.findall(r"\{figure\} (images/\S+)", text)
    commands = re.findall(r"python examples/(\w+)\.py", text)
    assert set(commands) == {path.stem for path in EXAMPLES.glob("*.py")} - {SHARED}
    assert {Path(figure).stem for figure in figures} >= set(commands)
    for command in commands:
        assert (EXAMPLES / f"{command}.py").exists()
    for figure in figures:
        assert 0 < (EXAMPLES.parent / "docs" / figure).stat().st_size < 200_000


def test_training_is_inference_offers_the_paper_s_width(tmp_path, monkeypatch, capsys):
    script = load("training_is_inference")
    widths = []

    def remember(run, axes, network, task):
        widths.append(network.width)
        return {}

    monkeypatch.setattr(script, "watch", remember)
    monkeypatch.setattr(script, "equilibrate", remember)
    for option, width in ((["--width", "64"], 64), (["--width", "64", "--paper-width"], 2048)):
        assert script.main(["--quick", "--out", str(tmp_path), *option]) == 0
        assert set(widths) == {width}
        widths.clear()


def test_the_jackknife_of_a_correlation_covers_its_scatter():
    script = load("endpoint_scale")
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=12)
    found = []
    for _ in range(100):
        one, other = (pattern + rng.normal(size=(4, 60, 12)) for _ in range(2))
        found.append(script.jackknife(one, other))
    values, errors = np.array(found).T
    # The scatter of 100 repetitions is known to 7%; a jackknife's error bar errs on the large side.
    assert 0.75 < errors.mean() / values.std() < 1.4


def test_convergence_is_asked_of_the_usual_observables_where_none_are_named(experiment, tmp_path, monkeypatch):
    """And of the numbers with priors; draws that are too few are thrown away, and more are drawn, from another seed."""
    network, task = bn.Network.rnn(16), bn.tasks.chain(1, 1.5)
    prior = {"noise": dist.LogNormal(-2.0, 1.0)}
    whole = bn.sample(network, task, num_warmup=200, num_samples=1500, priors=prior, progress=False)
    asked = []

    def sample(network, task, num_samples, priors):
        asked.append(num_samples)
        return whole.isel(draw=slice(num_samples))

    run = start(experiment, tmp_path)
    monkeypatch.setattr(run, "sample", sample)
    posterior, table = run.converge(network, task, None, "a chain", num_samples=60, priors=prior)
    assert 120 <= asked[1] <= 600
    assert posterior["posterior"].sizes["draw"] == min(asked[-1], 1500)
    labels = [observable.label for observable in bn.observables.default_observables(network, task)]
    assert table.index.to_list() == bn.diagnostics.summarise(whole).index.to_list()
    assert set(labels) | {"noise"} == set(table.index)
    assert run.complaints == []


def test_neurons_fall_into_the_clusters_that_they_were_made_of():
    """Of three kinds of neurons, apart at different steps, all are told apart; of one kind nothing is."""
    script = load("coding")
    rng = np.random.default_rng(0)
    centres = np.array([[[1, -1], [1, -1]], [[-1, 1], [1, -1]], [[-1, 1], [-1, 1]]], float)  # (kinds, steps, classes)
    kind = rng.choice(3, size=600, p=[0.5, 0.3, 0.2])
    activity = centres[kind] + 0.15 * rng.normal(size=(600, 2, 2))
    found = script.clusters(activity, seed=0)
    assert len(found.share) == 3
    np.testing.assert_allclose(np.sort(found.share), [0.2, 0.3, 0.5], atol=0.07)
    order = np.argsort(-found.share)
    np.testing.assert_allclose(found.centre[order], centres[..., 0] - centres[..., 1], atol=0.1)
    assert np.mean(found.member == order[kind]) > 0.99
    assert len(script.clusters(0.3 * rng.normal(size=(600, 2, 2)), seed=0).share) == 1
