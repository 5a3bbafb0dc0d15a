"""The report: complete, self-contained, honest about failures and about what is missing, never half-written."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import bayesnet as bn
import theory
from bayesnet import figures, reporting
from bayesnet.report_content import formatted
from bayesnet.reporting import Report

QUICK = {"num_warmup": 100, "num_samples": 100, "progress": False}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = ("task", "results", "sampler", "comparison", "gates", "settings")


@pytest.fixture(scope="module")
def chain_solution():
    return theory.solve(bn.Network.rnn(64), bn.tasks.chain(2, 1.5), starts=0)


@pytest.fixture(scope="module")
def written(posteriors, solutions, tmp_path_factory):
    """RNN and DNN with their theory, as the command line writes them."""
    return bn.report(posteriors, solutions, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def without_figures(monkeypatch):
    """For what does not depend on them."""
    for name in ("task_pictures", "result_pictures", "sampler_pictures"):
        monkeypatch.setattr(figures, name, lambda runs: [])


def off(solution, factor):
    """The solution with its kernel scaled; called unstable, so that no fluctuations are computed."""
    return dataclasses.replace(solution, kernel=factor * solution.kernel, stable=False)


def refuse(constant):
    raise AssertionError(f"{constant} is not strict JSON")


def strict(path):
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def assert_self_contained(page):
    assert "<script" not in page
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:|//|file:)""", page, re.IGNORECASE)
    assert "@import" not in page
    assert not re.search(r"url\(", page)


def test_the_page_is_complete_and_self_contained(written):
    page = written.path.read_text(encoding="utf-8")
    assert_self_contained(page)
    assert "could not be made" not in page
    places = [page.index(f'id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    assert page.index(f"<strong>{written.status}</strong>") < places[0]
    assert page.count("<img ") == page.count("data:image/svg+xml;base64,") == 8
    assert all(f"All {n} observables" in page for n in {len(t["table"]) for t in strict_tables(written)})
    assert written.path.stat().st_size < 2_000_000


def strict_tables(written):
    return strict(written.summary_path)["networks"].values()


def test_summary(written, posteriors):
    summary = strict(written.summary_path)
    assert (summary["status"], summary["message"]) == (written.status, written.message)
    assert set(summary["networks"]) == {"RNN", "DNN"}
    for name, network in summary["networks"].items():
        assert network["seed"] == 1
        assert network["settings"]["num_samples"] == 500
        assert network["network"] == json.loads(posteriors[name].attrs["network"])
        assert network["wall_time"] > 0
        assert {"python", "bayesnet", "jax"} <= set(network["versions"])
        assert {"name", "passed", "detail"} == set(network["gates"][0])
        assert {"observable", "theory", "mean", "verdict"} <= set(network["table"][0])
        assert network["theory"]["converged"] is True
    assert list(written.path.parent.iterdir()) != []
    assert sorted(p.name for p in written.path.parent.iterdir()) == ["report.html", "summary.json"]


@pytest.mark.parametrize("unit", [1e-100, 1.0, 1e100])
def test_rounding_errors_are_shown_as_nothing_in_any_unit(unit):
    row = pd.Series({"theory": 1e-17, "mean": 0.02, "sd": 0.1, "mcse": 0.001}) * unit
    assert formatted("theory", row) == "0"
    assert float(formatted("mcse", row)) == pytest.approx(0.001 * unit)
    assert formatted("z_sd", pd.Series({"mean": unit, "z_sd": 2.0})) == "+2.00"
    assert formatted("mean", pd.Series({"mean": 0.0, "sd": 0.0})) == "0"


def test_names_are_escaped(chain_posterior, tmp_path):
    name = "<script>alert(1)</script> $x_1 & \"y'"
    outcome = bn.report({name: chain_posterior, "_hidden": chain_posterior}, None, tmp_path / "r.html")
    page = outcome.path.read_text(encoding="utf-8")
    assert_self_contained(page)
    assert "&lt;script&gt;" in page
    assert "could not be made" not in page
    assert name in strict(outcome.summary_path)["networks"]


def test_a_failed_gate_is_said_first(chain_posterior, tmp_path, without_figures):
    broken = chain_posterior.copy(deep=True)
    diverging = np.zeros_like(broken["sample_stats/diverging"].to_numpy())
    diverging[0, 0] = True
    broken["sample_stats/diverging"] = broken["sample_stats/diverging"].copy(data=diverging)
    outcome = bn.report({"good": chain_posterior, "broken": broken}, None, tmp_path / "r.html")
    assert outcome.status == "FAIL"
    assert outcome.message.startswith("broken: the sampler did not converge: no divergences: 1 divergent draws")
    body = outcome.path.read_text(encoding="utf-8").split("<body>")[1]
    banner = body.index('class="banner FAIL"')
    assert banner < body.index("no divergences") < body.index('id="task"')
    assert body.index('class="card FAIL"') < body.index('class="card PASS"')


def test_without_theory(chain_posterior, tmp_path):
    outcome = bn.report(chain_posterior, None, tmp_path / "r.html")
    assert isinstance(outcome, Report)
    assert (outcome.status, outcome.path) == ("PASS", tmp_path / "r.html")
    page = outcome.path.read_text(encoding="utf-8")
    assert "There is no theory for this network" in page
    assert "could not be made" not in page
    network = strict(outcome.summary_path)["networks"]["RNN"]
    assert network["theory"] is None
    assert "theory" not in network["table"][0]


def test_why_there_is_no_theory(chain_posterior, tmp_path, without_figures):
    outcome = bn.report(chain_posterior, {"RNN": "the solver gave up at <3>"}, tmp_path / "r.html")
    page = outcome.path.read_text(encoding="utf-8")
    assert page.count("the solver gave up at &lt;3&gt;") == 2
    assert strict(outcome.summary_path)["networks"]["RNN"]["no_theory"] == "the solver gave up at <3>"


def test_a_comparison_that_fails_is_a_sentence(chain_posterior, chain_solution, tmp_path, monkeypatch, without_figures):
    monkeypatch.setattr(reporting, "compare", mock.Mock(side_effect=np.linalg.LinAlgError("singular")))
    outcome = bn.report(chain_posterior, chain_solution, tmp_path / "r.html")
    network = strict(outcome.summary_path)["networks"]["RNN"]
    assert network["no_theory"] == "the theory cannot be compared with the posterior: LinAlgError: singular"
    assert "verdict" not in network["table"][0]


def test_some_names_without_theory(chain_posterior, chain_solution, tmp_path):
    both = {"one": chain_posterior, "other": chain_posterior}
    outcome = bn.report(both, {"other": off(chain_solution, 1)}, tmp_path / "r.html")
    page = outcome.path.read_text(encoding="utf-8")
    assert page.count("There is no theory for this network in this report") == 1
    assert "could not be made" not in page
    rows = strict(outcome.summary_path)["networks"]["other"]["table"]
    assert all(row["expected_sd"] is None for row in rows)


def test_differ(chain_posterior, chain_solution, tmp_path, without_figures):
    outcome = bn.report(chain_posterior, off(chain_solution, 9), tmp_path / "r.html")
    assert outcome.status == "DIFFER"
    assert 'class="banner DIFFER"' in outcome.path.read_text(encoding="utf-8")


def test_the_lazy_limit_is_shown_but_not_judged_by(chain_posterior, tmp_path):
    lazy = theory.nngp(bn.Network.rnn(64), bn.tasks.chain(2, 1.5))
    outcome = bn.report(chain_posterior, {"RNN": lazy}, tmp_path / "r.html")
    assert outcome.status == "PASS"
    assert "only the lazy limit" in outcome.message
    assert "Only the lazy limit is at hand" in outcome.path.read_text(encoding="utf-8")
    assert "verdict" not in strict(outcome.summary_path)["networks"]["RNN"]["table"][0]


def test_an_unsolved_theory_fails(chain_posterior, chain_solution, tmp_path, without_figures):
    unsolved = dataclasses.replace(off(chain_solution, 1), converged=False, message="residual 1e-2")
    outcome = bn.report(chain_posterior, unsolved, tmp_path / "r.html")
    assert outcome.status == "FAIL"
    assert outcome.message.startswith("the theory is not solved: residual 1e-2")


def test_several_outputs_and_a_nonlinear_network(tmp_path):
    task = bn.tasks.digits(classes=(0, 1, 2), patterns=3, steps=2)
    posterior = bn.sample(bn.Network.dnn(16, activation="tanh"), task, **QUICK)
    outcome = bn.report({"three": posterior}, {}, tmp_path / "r.html")
    assert "could not be made" not in outcome.path.read_text(encoding="utf-8")


def test_one_step_says_that_there_is_no_spectrum(one_step_posterior, tmp_path):
    page = bn.report(one_step_posterior, None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert "a task of one step uses no recurrent weights" in page
    assert "could not be made" not in page


def test_a_figure_that_fails_says_why_in_its_place(chain_posterior, tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("no <ink> left")

    monkeypatch.setattr("bayesnet.plots.overlaps", fail)
    page = bn.report(chain_posterior, None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert "This figure could not be made." in page
    assert "RuntimeError: no &lt;ink&gt; left" in page
    assert page.count("<img ") == 6


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("disk full")])
def test_an_interrupted_write_leaves_the_old_files(chain_posterior, tmp_path, monkeypatch, without_figures, failure):
    bn.report(chain_posterior, None, tmp_path / "r.html")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 2

    def fail(*arguments, **settings):
        raise failure

    for victim in ("os.replace", "os.fsync", "bayesnet.reporting._render"):
        with monkeypatch.context() as patch:
            patch.setattr(victim, fail)
            with pytest.raises(type(failure)):
                bn.report(chain_posterior, None, tmp_path / "r.html")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_summary_says_which_page_it_belongs_to(chain_posterior, tmp_path, monkeypatch, without_figures):
    """Also where a process ends between the two files."""

    def belongs():
        digest = hashlib.sha256((tmp_path / "r.html").read_bytes()).hexdigest()
        return json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["report_sha256"] == digest

    bn.report(chain_posterior, None, tmp_path / "r.html")
    assert belongs()
    rename, done = os.replace, []

    def only_once(*paths):
        if done:
            raise KeyboardInterrupt
        done.append(rename(*paths))

    monkeypatch.setattr(os, "replace", only_once)
    with pytest.raises(KeyboardInterrupt):
        bn.report({"other": chain_posterior}, None, tmp_path / "r.html")
    assert not belongs()


def test_bad_posteriors_are_refused(chain_posterior, posteriors, tmp_path):
    path = tmp_path / "r.html"
    for value, fault in (
        ([], r"^posteriors is list"),
        ({}, r"^posteriors is empty"),
        ({"a": 3}, r"^posteriors\['a'\] is int"),
        ({1: chain_posterior}, r"^posteriors has the name 1"),
        ({" ": chain_posterior}, r"^posteriors has the name ' '"),
        (chain_posterior["posterior"], r"^posteriors is no posterior: it has neither a group 'posterior'"),
        ({"a": chain_posterior, "b": posteriors["RNN"]}, r"^posteriors\['b'\] belongs to another task"),
    ):
        with pytest.raises(ValueError, match=fault):
            bn.report(value, None, path)
    assert list(tmp_path.iterdir()) == []


def test_bad_solutions_are_refused(chain_posterior, chain_solution, tmp_path):
    path = tmp_path / "r.html"
    other = dataclasses.replace(chain_solution, task=bn.tasks.chain(2, 1.6))
    both = {"a": chain_posterior, "b": chain_posterior}
    for value, fault in (
        (3, r"^solutions is int"),
        ({"DNN": chain_solution}, r"^solutions has the name 'DNN'; allowed .*RNN"),
        ({"RNN": 3}, r"^solutions\['RNN'\] is int"),
        (other, r"^solutions\['RNN'\]: solution belongs to another task"),
        (dataclasses.replace(chain_solution, network=bn.Network.dnn(64)), r"^solutions\['RNN'\]: .* width only"),
    ):
        with pytest.raises(ValueError, match=fault):
            bn.report(chain_posterior, value, path)
    with pytest.raises(ValueError, match=r"^solutions is one Solution but there are 2"):
        bn.report(both, chain_solution, path)
    assert list(tmp_path.iterdir()) == []


def test_bad_paths_are_refused(chain_posterior, tmp_path):
    for path, fault in (
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "r.html", "does not exist"),
        (tmp_path / "summary.json", "name of the summary"),
        (None, r"^path is None"),
        (3.5, r"^path is 3.5"),
    ):
        with pytest.raises(ValueError, match=fault):
            bn.report(chain_posterior, None, path)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found")
def test_it_renders_without_console_errors(written, tmp_path):
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    switches += " disable-component-update disable-sync hide-scrollbars window-size=1200,3000 enable-logging=stderr"
    command = [CHROMIUM, *(f"--{switch}" for switch in switches.split()), f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--screenshot={tmp_path / 'page.png'}", written.path.resolve().as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert "CONSOLE" not in done.stderr
    assert (tmp_path / "page.png").stat().st_size > 50_000
