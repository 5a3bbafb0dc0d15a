"""Where networks lie: draws of the posterior score as standard normals, whatever is wrong is seen."""

import html
import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import bayesnet as bn
import theory
from bayesnet.comparison import judge
from bayesnet.diagnostics import evaluate_observables
from bayesnet.location import normal_scores
from bayesnet.location_remarks import _on_what_patterns_share, readout_size
from bayesnet.observables import default_observables
from bayesnet.predicted_spread import predicted_draws


@pytest.fixture(scope="module")
def digits(posteriors, solutions, small_task):
    """Sixteen networks drawn from the posterior of the RNN on three digits, N = 256, with their theory."""
    weights = [bn.draw_weights(posteriors["RNN"], chain, draw) for chain in range(4) for draw in range(4)]
    return weights, small_task, solutions["RNN"]


def test_draws_of_the_posterior_are_found_there(digits):
    weights, task, solution = digits
    network = solution.network
    for given in (weights, weights[:1]):
        location = bn.locate(bn.from_weights(network, task, given), solution)
        assert location.status == "posterior"
        assert location.p_value > 0.01
        assert location.lazy_p_value < 1e-3
        assert location.scores.sizes == {"network": len(given), "observable": len(location.table)}
        np.testing.assert_allclose(location.table["z_sd"], location.scores.mean("network"))
        np.testing.assert_allclose(location.table["z_mean"], np.sqrt(len(given)) * location.table["z_sd"])
        share, error = location.learned
        assert abs(share - 1) < 4 * error
        assert error < (0.1 if len(given) > 1 else 0.4)
        np.testing.assert_allclose(
            location.table["learned_error"] * np.abs(location.table["theory"] - location.table["lazy"]),
            (location.table["expected_sd"] / np.sqrt(len(given))).where(location.table["learned"].notna()),
        )
        assert location.sizes["recurrent"] == pytest.approx(1, abs=0.05)
        # The error on the task is as expected, and no weights are conspicuous.
        assert len(location.remarks) == 1, location.remarks
        assert "the task as precisely as the posterior" in location.remarks[0]
        for text in (repr(location), location._repr_html_()):
            assert location.message in text
            assert location.remarks[0] in text
    assert location.sizes["readout"] == pytest.approx(readout_size(solution, 256), rel=0.05)


def test_the_spread_of_the_share_learned_is_what_it_says(digits):
    """Of sixteen single draws of the posterior, in units of its error."""
    weights, task, solution = digits
    _, error = bn.locate(bn.from_weights(solution.network, task, weights[:1]), solution).learned
    trees = bn.from_weights(solution.network, task, weights)
    table = bn.locate(trees, solution).table
    values = pd.DataFrame(
        {
            label: one.ravel()
            for label, one in evaluate_observables(trees, default_observables(solution.network, task)).items()
        }
    )
    ways = (values - table["lazy"]) / (table["theory"] - table["lazy"])
    shares = (ways.loc[:, table["learned"].notna()].median(axis=1) - 1) / error
    low, high = scipy.stats.chi2.ppf([5e-4, 1 - 5e-4], 15) / 15
    assert low < np.var(shares, ddof=1) < high
    assert abs(np.mean(shares)) < 4 / np.sqrt(16)


@pytest.mark.parametrize(
    ("what", "change", "remark"),
    [
        ("V over N, as a linear layer has it", lambda w: {"readout": w.readout / 256}, "V is N times the weight of an"),
        ("V of variance 1/N", lambda w: {"readout": 16 * w.readout}, "scaling='standard'"),
        ("W without 1/sqrt(N)", lambda w: {"recurrent": 16 * w.recurrent}, "recurrent weights are 16"),
        ("U without 1/sqrt(D)", lambda w: {"input": 8 * w.input}, "input weights are 8"),
    ],
)
def test_a_wrong_scaling_is_seen(digits, what, change, remark):
    """By one network as by many, and it is said what to do."""
    weights, task, solution = digits
    wrong = [dict(one.items()) | change(one) for one in weights[:4]]
    for given in (wrong, wrong[:1]):
        location = bn.locate(bn.from_weights(solution.network, task, given), solution)
        assert location.status == "elsewhere", what
        assert location.table["z_sd"].abs().max() > 10
        assert sum(remark in one for one in location.remarks) == 1, location.remarks
        assert any("not solve" in one or "less precisely" in one for one in location.remarks), location.remarks
    assert "differ" in bn.compare(bn.from_weights(solution.network, task, wrong), solution)["verdict"].to_numpy()


def test_a_wrong_noise_or_gain_is_seen(digits):
    """The same networks are no draws of the posterior of another prior."""
    weights, task, solution = digits
    for change in ({"noise": 1.0}, {"recurrent_gain": 1.6}, {"input_gain": 0.6}):
        network = solution.network.replace(**change)
        other = theory.solve(network, task, starts=0)
        location = bn.locate(bn.from_weights(network, task, weights), other)
        assert location.p_value < 1e-3, change


def test_a_bias_that_the_model_has_not_is_named(digits):
    """All neurons push alike in all patterns: recordings of such networks, and weights with the bias as an input."""
    weights, task, solution = digits
    activity, outputs = [], []
    for number, one in enumerate(weights[:4]):
        found = bn.run(solution.network, one, task)
        bias = np.random.default_rng(number).normal(size=(256, 1, 1))
        activity.append(found["activity"].transpose("neuron", "step", "pattern").to_numpy() + bias)
        outputs.append(found["prediction"].to_numpy())
    tree = bn.from_activations(solution.network, task, np.array(activity), np.array(outputs))
    location = bn.locate(tree, solution)
    assert sum("bias_gain" in one for one in location.remarks) == 1, location.remarks
    with pytest.raises(ValueError, match=r"has 'bias'.*give it a bias_gain"):
        bn.from_weights(solution.network, task, dict(weights[0].items()) | {"bias": np.ones(256)})


def test_a_report_places_networks_and_fails_none(digits, tmp_path):
    """Nothing was sampled: neither PASS nor DIFFER, but where the networks lie and what differs, on the page too."""
    weights, task, solution = digits
    wrong = bn.from_weights(solution.network, task, [dict(w.items()) | {"readout": w.readout / 256} for w in weights])
    location = bn.locate(wrong, solution)
    report = bn.report(wrong, solution, tmp_path / "report.html")
    page = report.path.read_text()
    assert report.status == "PLACED"
    assert report.message == location.message
    assert json.loads(report.summary_path.read_text())["networks"]["RNN"]["remarks"] == list(location.remarks)
    assert all(html.escape(remark.split(":")[0]) in page for remark in location.remarks)
    assert "differ from the infinite-width theory" not in page


def test_networks_that_fit_too_well_are_told_so(digits):
    weights, task, solution = digits
    found = [bn.run(solution.network, one, task)["activity"] for one in weights[:4]]
    activity = [one.transpose("neuron", "step", "pattern").to_numpy() for one in found]
    exact = np.broadcast_to(np.nan_to_num(task.targets), (4, *task.targets.shape))
    location = bn.locate(bn.from_activations(solution.network, task, np.array(activity), exact), solution)
    assert "fit the targets more closely" in location.remarks[0]
    assert "noise kappa" in location.remarks[0]


def test_untrained_networks_are_found_at_the_lazy_limit(digits):
    """Activities of the prior, the readout fitted to them as well as it can be: nothing but the readout has learned."""
    _, task, solution = digits
    network, rng, outputs, activity = solution.network, np.random.default_rng(0), [], []
    for _ in range(12):
        w = rng.normal(size=(256, 256)) / 16
        u = rng.normal(size=(256, task.input_dim)) / np.sqrt(task.input_dim)
        found = bn.run(network, {"recurrent": w, "input": u, "readout": np.zeros((task.output_dim, 256))}, task)
        h = found["activity"].to_numpy().reshape(task.entries, 256)
        rows, y = task.supervised_entries, task.supervised_targets
        gram = h[rows] @ h[rows].T / 256 + network.noise * np.eye(len(rows))
        # A draw of V given the activities and the targets.
        v = rng.normal(size=(256, task.output_dim))
        noise = np.sqrt(network.noise / 256) * rng.normal(size=y.shape)
        v = v + h[rows].T @ np.linalg.solve(gram, y - h[rows] @ v / 256 - noise)
        f = (h @ v / 256).reshape(task.steps, task.patterns, -1).swapaxes(0, 1)
        outputs.append(f)
        activity.append(h.T.reshape(256, task.steps, task.patterns))
    location = bn.locate(bn.from_activations(network, task, np.array(activity), np.array(outputs)), solution)
    assert location.status == "lazy limit", location.message
    assert location.table["learned"].dropna().median() < 0.2


def test_scores_of_draws_are_standard_normal(solutions, small_task):
    """Every 20th of 2000 draws, squared overlaps among the observables: Kolmogorov and Smirnov agree.

    At N = 16384: kernels of 256 neurons are .45 of their spread below the theory's, a correction of the next order.
    The same draws at twice the spread, or shifted by most of it, they refuse.
    """
    width = 2**14
    network = solutions["RNN"].network.replace(width=width)
    posterior = bn.sample(network, small_task, num_warmup=200, num_samples=500, seed=1, progress=False)
    observables = default_observables(network, small_task)
    found = evaluate_observables(posterior, observables)
    values = np.stack([v[:, ::20].ravel() for v in found.values()], axis=-1)
    draws = predicted_draws(solutions["RNN"], width, width, observables, 4000)
    scores = normal_scores(values, draws)
    chances = [scipy.stats.kstest(column, "norm").pvalue for column in scores.T]
    assert min(chances) > 1e-3 / len(chances)
    middle, spread = draws.mean(axis=0), draws.std(axis=0)
    for wrong in (middle + 2 * (values - middle), values + 0.7 * spread):
        refused = [scipy.stats.kstest(column, "norm").pvalue for column in normal_scores(wrong, draws).T]
        assert np.median(refused) < 1e-3


def test_scores():
    """Quantiles in the middle, monotone and linear beyond, whatever the law of the draws is; constants."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=20_000)
    points = np.array([-8.0, -1.0, 0.0, 1.0, 8.0])
    ours = normal_scores(points[:, None], normal[:, None])[:, 0]
    np.testing.assert_allclose(ours, points, atol=0.2)
    skewed = np.exp(normal)
    np.testing.assert_allclose(normal_scores(np.exp(points[1:4, None]), skewed[:, None])[:, 0], points[1:4], atol=0.05)
    grid = np.linspace(0, 60, 400)
    assert (np.diff(normal_scores(grid[:, None], skewed[:, None])[:, 0]) >= 0).all()
    constant = normal_scores(np.array([[2.0], [2.1], [1.0]]), np.full((50, 1), 2.0))[:, 0]
    assert constant.tolist() == [0.0, 1e9, -1e9]


@pytest.mark.parametrize("scaling", ["mup", "standard"])
def test_the_size_of_the_readout_in_closed_form(scaling):
    """One supervised entry: the mean square of V grows by gv^2 Phi (y / A)^2, A = kappa + gv^2 Phi, over N."""
    network = bn.Network.rnn(50, scaling=scaling, readout_gain=1.3, noise=0.2)
    solve = theory.solve if scaling == "mup" else theory.nngp
    solution = solve(network, bn.tasks.chain(3, 1.5))
    signal = 1.3**2 * float(solution.kernel[2, 0, 2, 0])
    learned = signal * (1.5 / (0.2 + signal)) ** 2 / (1 if scaling == "mup" else 50)
    assert readout_size(solution, 50) == pytest.approx(np.sqrt(1 + learned), rel=1e-9)


@pytest.mark.parametrize(("beyond", "named"), [(0.99, False), (1.01, True)])
def test_what_patterns_share_counts_beyond_three_spreads(beyond, named):
    """Of the draws of the posterior, 0.2 and 0.1 either side."""
    remarks = _on_what_patterns_share(np.full(2, 0.2 + 0.3 * beyond), np.array([0.1, 0.2, 0.3]))
    assert [("in common, 20% in the posterior" in remark) for remark in remarks] == [True] * named


def test_refusals(digits, chain_posterior):
    weights, task, solution = digits
    tree = bn.from_weights(solution.network, task, weights[:1])
    own = theory.solve(bn.Network.rnn(64), bn.tasks.chain(2, 1.5), starts=0)
    with pytest.raises(ValueError, match=r"^networks are draws of a sampler; compare them with bayesnet.compare"):
        bn.locate(chain_posterior, own)
    with pytest.raises(ValueError, match=r"^solution is not a stable saddle point"):
        bn.locate(tree, theory.nngp(solution.network, task))
    with pytest.raises(ValueError, match=r"^solution belongs to another task"):
        bn.locate(tree, own)
    with pytest.raises(ValueError, match=r"^observables is empty"):
        bn.locate(tree, solution, [])
    with pytest.raises(ValueError, match=r"^seed is"):
        bn.locate(tree, solution, seed=-1)


def test_a_single_network_without_a_predicted_spread_is_not_judged(digits):
    weights, task, solution = digits
    lazy = theory.nngp(solution.network, task)
    one = bn.compare(bn.from_weights(solution.network, task, weights[:1]), lazy)
    assert set(one["verdict"]) <= {"unreliable", "agree"}
    assert "unreliable" in one["verdict"].to_numpy()
    many = bn.compare(bn.from_weights(solution.network, task, weights), lazy)
    assert "unreliable" not in many["verdict"].to_numpy()
    assert "differ" in many["verdict"].to_numpy()
    np.testing.assert_allclose(many["mcse"], many["sd"] / 4)
    for number, table in ((1, one), (16, many)):
        message = judge(bn.from_weights(solution.network, task, weights[:number]), table).message
        assert ("a single network cannot be judged" in message) == (number == 1)
