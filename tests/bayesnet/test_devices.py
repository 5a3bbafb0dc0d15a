"""Several devices: chains in lockstep are shared out, in a sweep too, and draw what they draw on one."""

import functools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import tqdm

from bayesnet import Network, sample, sampling, tasks
from bayesnet.samplers import engine

RUN = {"num_warmup": 0, "num_samples": 6, "num_latents": 6, "sampler": "hmc", "chain_method": "vectorized", "seed": 3}
SWEPT = {name: value for name, value in RUN.items() if name != "seed"}
TWO_DEVICES = f"""
import sys
import types
import jax
import numpy as np
from bayesnet import Network, sample, sweep, tasks
from bayesnet.samplers import chains
from bayesnet.samplers import engine
from bayesnet.samplers.checkpoints import Lane

assert len(jax.local_devices()) == 2
network, task = Network(8, activation="tanh"), tasks.chain(2, 1.5)
seen = []

def build_watched(*arguments):
    machine = engine.build_machine(*arguments)

    def advance(*values):
        state, record = machine.advance(*values)
        seen.append(len(record["kernel"].sharding.device_set))
        return state, record

    return types.SimpleNamespace(start=machine.start, advance=advance, latents=machine.latents)

chains.build_machine = build_watched
tree = sample(network, task, **{RUN!r})
assert seen == [2] * 6, seen

# Killed after three blocks, it goes on bitwise.
add = Lane.add
def die(lane, *arguments, **records):
    if lane.blocks == 3:
        raise InterruptedError
    add(lane, *arguments, **records)
Lane.add = die
try:
    sample(network, task, checkpoint=sys.argv[1] + "/checkpoint", **{RUN!r})
    raise AssertionError("not interrupted")
except InterruptedError:
    Lane.add = add
resumed = sample(network, task, checkpoint=sys.argv[1] + "/checkpoint", **{RUN!r})
assert resumed["posterior"].equals(tree["posterior"])
assert len(seen) == 6 + 4 + 3 and set(seen) == {{2}}, seen

# So do the chains of every point of a sweep.
del seen[:]
settings = {SWEPT!r}
swept = sweep(network, task, {{"noise": [0.1, 0.2]}}, "posterior", sampling=settings, progress=False)
assert list(swept["outcome"].values) == ["done"] * 2, swept["error"].values
assert seen == [2] * 12, seen

np.savez(sys.argv[1] + "/two.npz", kernel=tree["posterior"]["kernel"], lp=tree["sample_stats"]["lp"])
"""


def test_chains_on_two_devices_draw_what_they_draw_on_one(tmp_path, capsys, monkeypatch):
    """Two forced host devices in a process of their own. Equal up to rounding, which depends on the batch."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = np.load(tmp_path / "two.npz")
    monkeypatch.setattr(sampling, "progress_bar", functools.partial(tqdm.tqdm, mininterval=0, miniters=1))
    one = sample(Network(8, activation="tanh"), tasks.chain(2, 1.5), progress=True, **RUN)
    assert "24/24" in capsys.readouterr().err  # the draws of all chains are counted
    np.testing.assert_allclose(two["kernel"], one["posterior"]["kernel"], rtol=1e-9)
    np.testing.assert_allclose(two["lp"], one["sample_stats"]["lp"], rtol=1e-9)


def test_chains_are_shared_out_evenly(monkeypatch):
    """The largest number of devices that divides the number of chains; one for chains in threads."""
    monkeypatch.setattr(engine.jax, "local_devices", lambda: list(range(4)))
    settings = engine.Settings("fields", "hmc", 0, 1, 1, 0.8, 10, True, 1, "float64", "vectorized")
    for chains, devices in ((1, 1), (2, 2), (3, 3), (4, 4), (6, 3), (8, 4), (7, 1)):
        assert engine.count_devices(replace(settings, num_chains=chains)) == devices
        assert engine.count_devices(replace(settings, num_chains=chains, chain_method="parallel")) == 1
