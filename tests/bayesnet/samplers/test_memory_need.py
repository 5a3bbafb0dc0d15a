"""Runs that cannot fit into memory are refused at once; where memory runs out all the same, the caller is told."""

import re
import subprocess
import sys

import pytest

import bayesnet as bn
from bayesnet.samplers.engine import Machine
from bayesnet.samplers.memory_need import require_state_memory
from bayesnet.sampling import make_settings
from bayesnet.sweeping.sweep_config import build_sweep_config
from theory import memory

TASK = bn.tasks.chain(2, 1.0)


@pytest.mark.parametrize(
    ("width", "arguments", "word"),
    [
        (2**40, {"coordinates": "fields"}, "width 1099511627776"),
        (10**6, {"coordinates": "weights"}, "width 1000000"),
        (64, {"num_samples": 2**31 - 1}, "num_samples 2147483647"),
        (64, {"num_chains": 10**9}, "num_chains 1000000000"),
        (64, {"num_warmup": 10**12}, "num_warmup is 1000000000000; it must be"),
        (64, {"num_samples": 10**12}, "num_samples is 1000000000000; it must be"),
        (64, {"max_tree_depth": 31}, "max_tree_depth is 31; it must be"),
    ],
)
def test_sampling_is_refused_before_anything_is_compiled(width, arguments, word, monkeypatch):
    monkeypatch.setattr(Machine, "__init__", lambda *arguments: pytest.fail("compiled"))
    monkeypatch.setattr(memory, "memory_limit", lambda: 64e9)
    with pytest.raises(ValueError, match=re.escape(word)):
        bn.sample(bn.Network.rnn(width), TASK, **arguments)


def test_prior_draws_are_refused_too():
    with pytest.raises(ValueError, match="num_samples 10000000000000 "):
        bn.sample_prior(bn.Network.rnn(64), TASK, 10**13)
    with pytest.raises(ValueError, match="at width 1099511627776"):
        bn.sample_prior(bn.Network.rnn(2**40), TASK, coordinates="fields")


def test_states_of_chains_at_once(monkeypatch):
    """Four chains of 10^7 neurons: 2 x 10^7 numbers, 24 times, in each; one at a time needs a fourth."""
    network = bn.Network.rnn(10**7, activation="tanh")

    def settings(method):
        chosen = dict.fromkeys(["num_warmup", "num_samples", "num_chains"], 4)
        chosen |= {"coordinates": "fields", "sampler": "nuts", "target_accept": 0.8, "max_tree_depth": 10}
        chosen |= {"anneal": True, "num_latents": 1, "precision": "float64", "chain_method": method}
        return make_settings(network, TASK, **chosen)

    monkeypatch.setattr("bayesnet.samplers.memory_need.memory_limit", lambda: 15.3e9)
    require_state_memory(settings("sequential"), network, TASK)
    with pytest.raises(ValueError, match=re.escape("4 chain(s) at once in fields at width 10000000 ")):
        require_state_memory(settings("vectorized"), network, TASK)


OUT_OF_MEMORY = """
import math, resource
import bayesnet as bn
from bayesnet.samplers import memory_need
from theory import memory
memory.memory_limit = memory_need.memory_limit = lambda: math.inf
resource.setrlimit(resource.RLIMIT_AS, (12 * 10**9, 12 * 10**9))
network, task = bn.Network.rnn(10**8, activation="tanh"), bn.tasks.chain(2, 1.0)
try:
    bn.sample(network, task, "fields", 20, 20, num_chains={chains}, chain_method="{method}", progress=False)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize(("chains", "method"), [(1, "parallel"), (2, "vectorized")])
def test_memory_that_runs_out_is_an_error_and_no_hang(chains, method):
    program = OUT_OF_MEMORY.format(chains=chains, method=method)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("memory ran out while sampling (RESOURCE_EXHAUSTED"), done.stderr


def test_grids_that_cannot_be_meant(monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: 64e9)
    network = bn.Network.rnn(64)
    with pytest.raises(ValueError, match="axis 'noise' with 10000000000 values takes"):
        bn.sweep(network, TASK, {"noise": range(1, 10**10 + 1)})
    with pytest.raises(ValueError, match="a grid of 10000000000 points takes"):
        bn.sweep(network, TASK, {"noise": range(1, 10**5 + 1), "seed": range(10**5)})
    grid = {"noise": {"start": 1.0, "stop": 2.0, "num": 10**10}}
    with pytest.raises(ValueError, match=re.escape("[grid] noise.num 10000000000 takes")):
        build_sweep_config({"task": {"name": "chain", "steps": 2, "signal": 1.0}, "grid": grid})


@pytest.mark.parametrize(
    "make",
    [
        lambda: bn.tasks.endpoint(100_000, 1.0, 100_000),
        lambda: bn.tasks.rotation(100_000, 4.0, 100_000),
        lambda: bn.tasks.digits(patterns=300, steps=100_000),
    ],
)
def test_tasks_that_cannot_be_meant(make, monkeypatch):
    monkeypatch.setattr("theory.memory.memory_limit", lambda: 1e9)
    with pytest.raises(ValueError, match=r"a task of steps 100000 with patterns .* takes at least"):
        make()
