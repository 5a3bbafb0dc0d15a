"""Peak memory of large runs, in processes of their own (slow)."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import bayesnet as bn
{run}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
FIELDS = """
network, task = bn.Network.rnn(2048, activation="tanh"), bn.tasks.digits(patterns=8, steps=5, signal=2.0)
tree = bn.sample(network, task, "fields", num_warmup=20, max_tree_depth=2, progress=False)
assert tree["posterior"]["kernel"].shape == (4, 1000, 5, 8, 5, 8)
"""
WEIGHTS = """
network, task = bn.Network.rnn(512), bn.tasks.chain(3, 3.0)
tree = bn.sample(network, task, "weights", num_warmup=20, max_tree_depth=2, progress=False)
assert tree["latents"]["recurrent"].sizes["latent_draw"] == 4
"""


@pytest.mark.slow
@pytest.mark.parametrize(("run", "limit"), [(FIELDS, 2.0), (WEIGHTS, 1.5)], ids=["fields", "weights"])
def test_peak_memory_in_gib(run, limit):
    """Fields at N = 2048, n = 40; weights at N = 512, whose draws would take 8 GiB. Short trees: memory is the same."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(run=run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = float(done.stdout)
    print(f"{peak:.2f} GiB")
    assert peak < limit
