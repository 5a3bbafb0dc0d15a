"""The numbers of docs/reference_numbers.md, by samples: kernel coordinates where the 1/N bias is negligible."""

import numpy as np
import pytest

import bayesnet as bn
import theory
from bayesnet.diagnostics import summarise
from bayesnet.observables import directed_kernel, directed_overlap, prediction_at, target_direction

WIDE = 100_000
pytestmark = pytest.mark.slow


def test_digits_at_signal_3_agree_with_theory_to_three_digits():
    """Along the target direction: kernels 9.896, 23.253, 57.418 and rms overlaps .316, .598, .201."""
    task = bn.tasks.digits()
    rnn = bn.Network.rnn(WIDE)
    y = target_direction(task)
    observables = [directed_kernel(t, y) for t in range(3)]
    observables += [directed_overlap(*pair, y, squared=True) for pair in ((0, 1), (1, 2), (0, 2))]
    solution = theory.solve(rnn, task)
    exact = np.array([o.evaluate(solution.kernel, solution.prediction) for o in observables])
    np.testing.assert_allclose(exact[:3], [9.896, 23.253, 57.418], atol=5e-4)
    np.testing.assert_allclose(np.sqrt(exact[3:]), [0.316, 0.598, 0.201], atol=5e-4)
    table = summarise(bn.sample(rnn, task, num_samples=1500, seed=3), observables)
    assert (table["r_hat"] < 1.01).all()
    assert (np.abs(table["mean"] - exact) < 4 * table["mcse"]).all()
    np.testing.assert_allclose(table["mean"], exact, rtol=2e-3)


@pytest.mark.parametrize(("signal", "error"), [(1.0, 0.097), (2.0, 0.052)])
def test_rotation_is_filled_in_by_the_rnn_and_not_by_the_dnn(signal, error):
    """Relative error on the unsupervised steps; a DNN predicts zero there (error 1)."""
    task = bn.tasks.rotation(12, 8, signal=signal, supervised=[0, 1, 3, 4, 6, 9, 11])
    hidden = np.flatnonzero(~task.supervised[0])
    truth = task.targets[0, hidden, 0]
    rnn = bn.Network.rnn(WIDE, noise=0.01)
    observables = [prediction_at(0, int(t), 0) for t in hidden]
    table = summarise(bn.sample(rnn, task, num_samples=1500), observables)
    predicted = theory.solve(rnn, task).prediction[0, hidden, 0]
    assert (np.abs(table["mean"] - predicted) < 4 * table["mcse"]).all()
    relative = np.linalg.norm(table["mean"] - truth) / np.linalg.norm(truth)
    slack = 4 * np.linalg.norm(table["mcse"]) / np.linalg.norm(truth)
    assert abs(relative - error) < 5e-4 + slack
    dnn = summarise(bn.sample(bn.Network.dnn(WIDE, noise=0.01), task), observables)
    assert (np.abs(dnn["mean"]) < 4 * dnn["mcse"]).all()


def test_extrapolation_in_the_width_hits_the_theory():
    """The mean at N is theory + a/N + O(1/N^2): from N = 500 and 2000 the 1/N term is removed exactly."""
    task = bn.tasks.chain(3, 4.3)
    exact = np.array([2.26299, 5.71627, 14.43917, 0.340901**2, 0.610817**2, 0.208228])
    means, errors = [], []
    for width in (500, 2000):
        table = summarise(bn.sample(bn.Network.rnn(width), task, num_samples=4000, seed=width)).iloc[:6]
        means.append(table["mean"].to_numpy()[[0, 1, 2, 3, 5, 4]])
        errors.append(table["mcse"].to_numpy()[[0, 1, 2, 3, 5, 4]])
    estimate = (4 * means[1] - means[0]) / 3
    error = np.hypot(4 * errors[1], errors[0]) / 3
    assert (np.abs(estimate - exact) < 4 * error).all()


def test_the_largest_singular_value_of_drawn_weights_is_the_predicted_outlier():
    """2.127 at signal 4.3; the drawn ones fluctuate as 1/sqrt(N), their mean over 16 draws within 4 standard errors."""
    task, rnn = bn.tasks.chain(3, 4.3), bn.Network.rnn(1024)
    posterior = bn.sample(rnn, task, "kernels", num_samples=800)
    largest = np.array(
        [
            np.linalg.svd(bn.draw_weights(posterior, chain, draw).recurrent[0], compute_uv=False)[0]
            for chain in range(4)
            for draw in range(4)
        ]
    )
    (predicted,) = theory.spectrum(theory.solve(rnn, task)).singular_values[0]
    assert abs(predicted - 2.127) < 5e-4
    assert abs(largest.mean() - predicted) < 4 * largest.std(ddof=1) / 4
