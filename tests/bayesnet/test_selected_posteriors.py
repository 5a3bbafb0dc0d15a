"""Parts of posteriors: chains and draws may be selected; what else is selected away is named, with what to write."""

import re

import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
import theory

TASK = bn.tasks.chain(2, 1.5)
SHORT = {"num_warmup": 200, "num_samples": 100}


@pytest.fixture(scope="module")
def solution():
    return theory.solve(bn.Network.rnn(64), TASK)


def without(posterior, group, variable):
    cut = posterior.copy()
    cut[group] = xr.DataTree(posterior[group].to_dataset().drop_vars(variable))
    return cut


LOST = {
    "chain": (lambda p: p.isel(chain=0), "lost the dimension 'chain' .*isel(chain=[0]), which keeps it"),
    "draw": (lambda p: p.isel(draw=0), "lost the dimension 'draw' .*isel(draw=[0]), which keeps it"),
    "latent_draw": (lambda p: p.isel(latent_draw=0), "lost the dimension 'latent_draw' .*isel(latent_draw=[0])"),
    "step": (lambda p: p.isel(step=1), "lost the dimension 'step' of .*keep every step, and select from what"),
    "pattern": (lambda p: p.sel(pattern=1), "lost the dimension 'pattern' of .*keep every pattern, and select"),
    "some steps": (lambda p: p.isel(step=[1]), "has the steps [2] only; keep every step"),
    "first steps": (lambda p: p.isel(step=[0]), "lost patterns, steps or outputs, or some of its observations"),
    "transposed": (
        lambda p: p.map_over_datasets(lambda d: d.transpose(..., "draw") if "draw" in d.dims else d),
        "has the dims .*; they must be ('chain', 'draw', 'step', 'pattern', 'step_bis', 'pattern_bis'), in this order",
    ),
    "a variable": (lambda p: without(p, "posterior", "kernel"), "lacks the variable posterior/kernel"),
    "constants": (lambda p: p.filter(lambda node: node.name != "constant_data"), "lacks the group 'constant_data'"),
}


def functions(solution):
    return {
        "compare": lambda posterior: bn.compare(posterior, solution),
        "summarise": bn.diagnostics.summarise,
        "check_gates": bn.diagnostics.check_gates,
        "predict": lambda posterior: bn.predict(posterior, TASK),
        "draw_weights": bn.draw_weights,
        "draw_fields": bn.draw_fields,
        "log_evidence": bn.log_evidence,
        "weigh_phases": lambda posterior: bn.weigh_phases(posterior, solution),
    }


@pytest.mark.parametrize("name", functions(None))
@pytest.mark.parametrize(("select", "message"), LOST.values(), ids=LOST)
def test_what_is_lost_is_named(select, message, name, chain_posterior, solution):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(ValueError, match=f"^posterior .*{pattern}"):
        functions(solution)[name](select(chain_posterior))


@pytest.mark.parametrize("select", [LOST["chain"], LOST["some steps"]], ids=["chain", "some steps"])
def test_reports_too(select, chain_posterior, solution, tmp_path):
    with pytest.raises(ValueError, match=r"^posteriors is no posterior: it(s dim| has lost the dimension) "):
        bn.report(select[0](chain_posterior), solution, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["predict", "draw_weights", "draw_fields", "log_evidence"])
def test_posteriors_without_latent_numbers(name, chain_posterior, solution):
    cut = chain_posterior.filter(lambda node: node.name != "latents")
    with pytest.raises(ValueError, match=r"^posterior lacks the group 'latents'; it must be whole"):
        functions(solution)[name](cut)
    assert len(bn.compare(cut, solution)) == len(bn.compare(chain_posterior, solution))


def test_chains_and_draws_may_be_selected(chain_posterior, solution):
    half = chain_posterior.isel(chain=[0, 2], draw=slice(100, 300))
    mean = bn.compare(half, solution)["mean"]["kernel[t=1, mu=1]"]
    kernel = chain_posterior["posterior"]["kernel"].to_numpy()[[0, 2], 100:300, 0, 0, 0, 0]
    assert mean == pytest.approx(kernel.mean(), rel=1e-12)
    assert np.isfinite(bn.predict(half, TASK)["prediction"]).all()
    assert bn.diagnostics.check_gates(half)


@pytest.mark.parametrize(("chains", "draws"), [(1, 1), (4, 1), (1, 3), (2, 3), (1, 500), (4, 4)])
def test_few_chains_or_draws(chains, draws, chain_posterior, solution, tmp_path, caplog):
    """No warning of NumPy's (which are errors here), no line in the log of ArviZ, and no verdict."""
    few = chain_posterior.isel(chain=slice(chains), draw=slice(draws))
    table = bn.compare(few, solution)
    assert np.isfinite(table["mean"]).all()
    assert (table["verdict"] == "unreliable").all()
    assert table["r_hat"].isna().all() == (chains == 1 or draws < 4)
    gates = {gate.name: gate for gate in bn.diagnostics.check_gates(few)}
    if chains == 1:
        assert not gates["R-hat <= 1.01"].passed
        assert gates["R-hat <= 1.01"].detail.startswith("largest undefined (too few chains or draws) (kernel")
    bn.to_arviz(few)
    assert bn.report(few, solution, tmp_path / "report.html").status == "FAIL"
    assert caplog.records == []


def test_one_draw_of_one_chain():
    one = bn.sample(bn.Network.rnn(64), TASK, num_warmup=200, num_samples=1, num_chains=1, progress=False)
    assert np.isfinite(bn.diagnostics.summarise(one)["mean"]).all()


def test_the_evidence_has_an_error_or_is_refused(chain_posterior):
    with pytest.raises(ValueError, match=r"latent numbers of 4 draws of each chain; .* at least 8"):
        bn.log_evidence(chain_posterior)


@pytest.mark.parametrize("patterns", [pytest.param(1, marks=pytest.mark.slow), 2])  # one is a case of several
def test_nothing_to_observe(patterns, tmp_path):
    """No input ever: h = 0, and there is nothing to compare; everything still has an answer."""
    inputs, targets = np.zeros((patterns, 2, 1)), np.full((patterns, 2), np.nan)
    targets[:, 1] = 1.0
    network, task = bn.Network.rnn(16), bn.Task(inputs, targets)
    posterior = bn.sample(network, task, **SHORT, progress=False)
    solution = theory.solve(network, task)
    table = bn.compare(posterior, solution)
    assert len(table) == len(bn.diagnostics.summarise(posterior)) == 0
    assert {"theory", "mean", "verdict"} <= set(table.columns)
    outcome = bn.report(posterior, solution, tmp_path / "report.html")
    assert (outcome.status, outcome.message) == (
        "PASS",
        "the sampler converged; nothing to observe: no input reaches any entry",
    )
    assert "no input reaches any entry: there is nothing to show" in outcome.path.read_text(encoding="utf-8")
    swept = bn.sweep(network, task, {"noise": [0.1]}, "both", sampling=SHORT, progress=False)
    assert swept["outcome"].values.tolist() == ["done"]
    assert swept["order_parameter"].values.tolist() == [0.0]


@pytest.mark.parametrize("observables", [["x"], "kernel", 5, [None]])
def test_observables_are_observables(observables, chain_posterior, solution):
    for function in (bn.diagnostics.summarise, lambda p, o: bn.compare(p, solution, o)):
        with pytest.raises(ValueError, match=r"^observables is "):
            function(chain_posterior, observables)


def test_no_observables(chain_posterior, solution):
    assert len(bn.compare(chain_posterior, solution, [])) == 0
