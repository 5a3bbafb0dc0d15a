"""Theory beside posterior: the table, its verdicts, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

import bayesnet as bn
import theory
from bayesnet.comparison import COLUMNS, judge, standard_scores, theory_error
from bayesnet.diagnostics import summarise
from bayesnet.observables import Observable, default_observables, diagonal_kernel
from theory.solution import error_of_repetitions


@pytest.fixture(scope="module")
def chain_solution():
    return theory.solve(bn.Network.rnn(64), bn.tasks.chain(2, 1.5), starts=0)


def off(solution, factor):
    """The solution with its kernel scaled; called unstable, so that no fluctuations are computed."""
    return dataclasses.replace(solution, kernel=factor * solution.kernel, stable=False)


def test_table(posteriors, solutions):
    table = bn.compare(posteriors["DNN"], solutions["DNN"])
    assert tuple(table.columns) == COLUMNS
    np.testing.assert_allclose(table.loc["kernel[t=2, mu=3]", "theory"], solutions["DNN"].kernel[1, 2, 1, 2])
    gap = table["mean"] - table["theory"]
    np.testing.assert_allclose(table["z_sd"], gap / table["expected_sd"], atol=1e-9)
    np.testing.assert_allclose(table["z_mcse"], gap / table["mcse"], atol=1e-9)
    # Away from the transition the predicted spread is the posterior's, up to higher orders in 1/N.
    ratio = table["expected_sd"] / table["sd"]
    assert ratio.between(0.85, 1.18).all(), ratio


def test_widths_may_differ(chain_posterior, chain_solution):
    wide = dataclasses.replace(chain_solution, network=bn.Network.rnn(10_000), stable=False)
    table = bn.compare(chain_posterior, wide)
    assert table["expected_sd"].isna().all()
    np.testing.assert_allclose(table["z_sd"], (table["mean"] - table["theory"]) / table["sd"], atol=1e-9)


def test_other_tasks_and_networks_are_refused(chain_posterior, chain_solution):
    with pytest.raises(ValueError, match=r"^solution belongs to another task"):
        bn.compare(chain_posterior, dataclasses.replace(chain_solution, task=bn.tasks.chain(2, 1.6)))
    with pytest.raises(ValueError, match=r"^solution belongs to Network.*width only"):
        bn.compare(chain_posterior, dataclasses.replace(chain_solution, network=bn.Network.dnn(64)))


def test_verdicts_of_rows(chain_posterior, chain_solution):
    observable = [diagonal_kernel(1, 0)]
    row = summarise(chain_posterior, observable).iloc[0]
    value = chain_solution.kernel[1, 0, 1, 0]
    for shift, verdict in ((0, "agree"), (1, "within spread"), (5, "differ")):
        solution = off(chain_solution, (row["mean"] + shift * row["sd"]) / value)
        assert bn.compare(chain_posterior, solution, observable)["verdict"].tolist() == [verdict]
    few = chain_posterior.isel(draw=slice(0, 40), missing_dims="ignore")
    assert bn.compare(few, off(chain_solution, 1), observable)["verdict"].tolist() == ["unreliable"]


def test_constants(chain_posterior, chain_solution):
    hit = Observable("hit", lambda k, f: np.ones(k.shape[:-4]))
    missed = Observable("missed", lambda k, f: np.full(k.shape[:-4], 1.0 if k.ndim > 4 else 2.0))
    table = bn.compare(chain_posterior, off(chain_solution, 1), [hit, missed])
    assert table["verdict"].tolist() == ["agree", "differ"]
    assert table.loc["hit", ["z_sd", "z_mcse"]].tolist() == [0, 0]
    assert np.isfinite(table.loc["missed", ["z_sd", "z_mcse"]].astype(float)).all()


def test_judge(chain_posterior, chain_solution):
    good = bn.compare(chain_posterior, off(chain_solution, 1), [diagonal_kernel(0, 0)])
    verdict = judge(chain_posterior, good)
    assert verdict.status == "PASS"
    assert "1 of 1 observables" in verdict.message or "1 more within" in verdict.message
    far = judge(chain_posterior, bn.compare(chain_posterior, off(chain_solution, 9), [diagonal_kernel(0, 0)]))
    assert far.status == "DIFFER"
    assert "most of all kernel[t=1, mu=1]" in far.message
    alone = judge(chain_posterior, summarise(chain_posterior))
    assert (alone.status, alone.message) == ("PASS", "the sampler converged; no theory to compare with")


def test_a_failed_gate_comes_first_and_overrides_agreement(chain_posterior, chain_solution):
    few = chain_posterior.isel(draw=slice(0, 40), missing_dims="ignore")
    verdict = judge(few, bn.compare(few, off(chain_solution, 1)))
    assert verdict.status == "FAIL"
    assert verdict.message.startswith("the sampler did not converge: ")
    outcomes = [gate.passed for gate in verdict.gates]
    assert outcomes == sorted(outcomes)
    assert not outcomes[0]


def test_the_lazy_limit_predicts_no_spread(chain_posterior):
    table = bn.compare(chain_posterior, theory.nngp(bn.Network.rnn(64), bn.tasks.chain(2, 1.5)))
    assert table["expected_sd"].isna().all()


def test_the_theory_s_own_error_enters_the_verdict(chain_posterior, chain_solution):
    """A kernel entry off by 20 MCSE agrees if independent randomisations scatter as much."""
    observable = [diagonal_kernel(1, 0)]
    row = summarise(chain_posterior, observable).iloc[0]
    value = chain_solution.kernel[1, 0, 1, 0]
    shifted = off(chain_solution, (row["mean"] + 20 * row["mcse"]) / value)
    scatter = np.zeros((4, *shifted.kernel.shape))
    scatter[:, 1, 0, 1, 0] = np.array([-3, -1, 1, 3]) * row["mcse"] * 20 * 2 / np.sqrt(20 / 3)
    few = dataclasses.replace(shifted, repetitions=shifted.kernel + scatter, randomisations=4)
    np.testing.assert_allclose(theory_error(few, observable), 20 * row["mcse"])
    sure, unsure = (bn.compare(chain_posterior, solution, observable) for solution in (shifted, few))
    assert sure["z_mcse"].item() == pytest.approx(-20)
    assert -1 < unsure["z_mcse"].item() < 0
    assert unsure["verdict"].item() == "agree"


def test_an_error_that_repetitions_share_is_part_of_the_theory_s_own(chain_solution):
    """Entries that are said to be off by 3% besides the scatter: so are kernels, and predictions by what that makes."""
    observables = [diagonal_kernel(1, 0), *default_observables(chain_solution.network, chain_solution.task)[-1:]]
    assert observables[-1].label.startswith("prediction")
    scatter = 0.04 * np.array([-1, 1, -1, 1])[:, None, None, None, None] * chain_solution.kernel
    common, own = 0.03 * np.abs(chain_solution.kernel), error_of_repetitions(scatter, 4)
    few = dataclasses.replace(
        chain_solution,
        repetitions=chain_solution.kernel + scatter,
        randomisations=4,
        standard_error=np.hypot(common, own),
    )
    kernel, prediction = theory_error(few, observables)
    assert kernel == pytest.approx(few.standard_error[1, 0, 1, 0])
    scattering = theory_error(dataclasses.replace(few, standard_error=own), observables)[1]
    assert prediction > 1.1 * scattering > 0


def test_scores_are_normal_for_true_claims():
    """Theory from R = 3 randomisations: 2000 true gaps have normal scores, whichever error is the larger."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(3, 2000))
    own = draws.std(axis=0, ddof=1) / np.sqrt(3)
    for mcse in (0.0, 0.3, 3.0):
        gap = mcse * rng.normal(size=2000) - draws.mean(axis=0)
        scores = standard_scores(gap, np.full(2000, mcse), own, 3)
        assert scipy.stats.kstest(scores, "norm").pvalue > 1e-3
    assert standard_scores(np.array([1.0, 0.0]), np.zeros(2), np.zeros(2), 3).tolist() == [1e9, 0.0]
