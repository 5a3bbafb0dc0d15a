"""The same calls on a GPU: ``python -m pytest -n0 -m gpu``. Without one, all are skipped."""

import json
import os
import subprocess
import sys

import arviz as az
import jax
import numpy as np
import pandas as pd
import pytest

import bayesnet as bn
from bayesnet.diagnostics import check_gates, summarise
from bayesnet.samplers.checkpoints import Lane

pytestmark = pytest.mark.gpu

TANH, TASK = bn.Network.rnn(256, activation="tanh"), bn.tasks.endpoint(3, 1.0, patterns=4)
RUN = {"num_warmup": 200, "num_samples": 500, "sampler": "hmc", "seed": 3, "progress": False}
ON_CPU = f"""
import sys
import bayesnet as bn
from bayesnet.diagnostics import summarise
network, task = bn.Network.rnn(256, activation="tanh"), bn.tasks.endpoint(3, 1.0, patterns=4)
summarise(bn.sample(network, task, "fields", **{RUN!r})).to_csv(sys.argv[1])
"""


@pytest.fixture(scope="module", autouse=True)
def _gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")


def test_a_gpu_samples_the_posterior_of_the_cpu(tmp_path):
    """Means of all observables within 4 combined MCSE of those drawn by a process that sees no GPU."""
    here = bn.sample(TANH, TASK, "fields", **RUN)
    assert "cpu" not in here.attrs["device"].lower()
    assert here["posterior"]["kernel"].dtype == np.float64
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_CPU, str(tmp_path / "cpu.csv")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there, table = pd.read_csv(tmp_path / "cpu.csv", index_col=0), summarise(here)
    gap = (table["mean"] - there["mean"]).abs() / np.hypot(table["mcse"], there["mcse"])
    assert gap.max() < 4, gap.idxmax()


def test_wide_kernels_agree_with_the_theory():
    """The chain above the transition (docs/reference_numbers.md) at N = 100 000: NUTS in lockstep."""
    tree = bn.sample(bn.Network.rnn(100_000), bn.tasks.chain(3, 4.3), num_samples=1000, seed=1, progress=False)
    assert json.loads(tree.attrs["settings"])["chain_method"] == "vectorized"
    for step, value in enumerate((2.26299, 5.71627, 14.43917)):
        draws = tree["posterior"]["kernel"].to_numpy()[:, :, step, 0, step, 0]
        assert abs(draws.mean() - value) < 4 * float(az.mcse(draws, method="mean"))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_wide_weights_run(precision):
    """A million weights: what a GPU is for. Every chain moves, nothing diverges."""
    settings = {"num_warmup": 50, "num_samples": 20, "sampler": "hmc", "precision": precision, "progress": False}
    tree = bn.sample(bn.Network.rnn(1024), bn.tasks.chain(3, 3.0), "weights", **settings)
    passed = {gate.name: gate.passed for gate in check_gates(tree)}
    assert passed["every chain moves"]
    assert passed["no divergences"]


def test_a_killed_run_goes_on_bitwise(tmp_path, monkeypatch):
    whole = bn.sample(TANH, TASK, "fields", **RUN)
    add = Lane.add

    def die(lane, *arguments, **records):
        if lane.blocks == 12:
            raise InterruptedError
        add(lane, *arguments, **records)

    monkeypatch.setattr(Lane, "add", die)
    with pytest.raises(InterruptedError):
        bn.sample(TANH, TASK, "fields", checkpoint=tmp_path, **RUN)
    monkeypatch.setattr(Lane, "add", add)
    resumed = bn.sample(TANH, TASK, "fields", checkpoint=tmp_path, **RUN)
    assert resumed["posterior"].equals(whole["posterior"])
