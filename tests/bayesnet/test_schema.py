"""What is damaged or missing in a posterior or a solution is named, wherever it is handed in."""

import numpy as np
import pytest
import xarray as xr

import bayesnet as bn
import theory
from bayesnet.schema import GROUPS, MOMENTS, MOMENTS_GROUP, RECORDED, check_draws, check_solution


def assign(tree, group, change):
    tree[group] = xr.DataTree(change(tree[group].to_dataset()))


def without(group, name):
    return lambda tree: assign(tree, group, lambda dataset: dataset.drop_vars(name))


def attribute(name, value):
    return lambda tree: tree.attrs.update({name: value})


DAMAGES = {
    "no network": (lambda tree: tree.attrs.pop("network"), "'network'"),
    "network no JSON": (attribute("network", "{"), "'network'"),
    "network a list": (attribute("network", "[]"), "'network'"),
    "network a number": (attribute("network", 3), "'network'"),
    "network nested": (attribute("network", "[" * 100_000), "'network'"),
    "network of no width": (attribute("network", '{"noise": 1}'), "width"),
    "network of a bad width": (attribute("network", '{"width": "8"}'), "width is '8'"),
    "network of no activation": (attribute("network", '{"width": 8, "activation": 3}'), "activation is 3"),
    "no settings": (lambda tree: tree.attrs.pop("settings"), "'settings'"),
    "settings empty": (attribute("settings", "{}"), "coordinates"),
    "settings of other types": (attribute("settings", '{"coordinates": []}'), "coordinates"),
    "seed text": (attribute("seed", "x"), "'seed'"),
    "seed below zero": (attribute("seed", -1), "'seed'"),
    "versions empty": (attribute("versions", "{}"), "'versions'"),
    "no device": (lambda tree: tree.attrs.pop("device"), "'device'"),
    "wall time text": (attribute("wall_time", "long"), "'wall_time'"),
    "wall time nan": (attribute("wall_time", float("nan")), "'wall_time'"),
    "dims in another order": (
        lambda tree: assign(tree, "posterior", lambda dataset: dataset.transpose("draw", "chain", ...)),
        "has the dims .* of posterior/kernel; they must be",
    ),
    "text": (lambda tree: assign(tree, "sample_stats", lambda dataset: dataset.astype(str)), "must hold numbers"),
    "fewer draws": (lambda tree: assign(tree, "sample_stats", lambda dataset: dataset.isel(draw=slice(3))), "dim"),
    "fewer observations": (
        lambda tree: assign(tree, "observed_data", lambda dataset: dataset.isel(observation=slice(0))),
        "dim observed_data/observation has the size 0",
    ),
    "one chain picked": (
        lambda tree: assign(tree, "posterior", lambda dataset: dataset.isel(chain=0)),
        "lost the dimension 'chain' of posterior/",
    ),
    "no targets": (
        lambda tree: assign(tree, "constant_data", lambda dataset: dataset.assign(targets=dataset["targets"] * np.nan)),
        "supervised is True",
    ),
    "no latents": (lambda tree: tree.__delitem__("latents"), "the group 'latents'"),
    "no posterior": (lambda tree: tree.__delitem__("posterior"), "neither a group 'posterior'"),
}
DAMAGES |= {
    f"no {group}/{name}": (without(group, name), f"{group}/{name}$")
    for group, variables in GROUPS.items()
    if not group.startswith("prior") and group != MOMENTS_GROUP
    for name in variables
}


@pytest.fixture(scope="module")
def moments():
    """Two draws by the program of the smallest posterior: the moments of the kernels in place of each."""
    run = {"num_warmup": 200, "num_samples": 2, "num_chains": 1, "kernels": "moments", "progress": False}
    return bn.sample(bn.Network.rnn(64), bn.tasks.chain(1, 1.5), **run)


@pytest.mark.parametrize(
    ("group", "name"), [("posterior", name) for name in RECORDED] + [(MOMENTS_GROUP, name) for name in MOMENTS]
)
def test_damaged_moments(moments, tmp_path, group, name):
    tree = moments.copy(deep=True)
    check_draws(tree)
    without(group, name)(tree)
    with pytest.raises(ValueError, match=f"{group}/{name}$"):
        check_draws(tree)
    with pytest.raises(ValueError, match=f"{group}/{name}; it must be whole"):
        bn.diagnostics.summarise(tree)


@pytest.mark.parametrize(("change", "words"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_posteriors(one_step_posterior, tmp_path, change, words):
    tree = one_step_posterior.copy(deep=True)
    check_draws(tree, ("latents",))
    change(tree)
    with pytest.raises(ValueError, match=rf"^it.*{words}"):
        check_draws(tree, ("latents",))
    with pytest.raises(ValueError, match=r"^posteriors is no posterior: it"):
        bn.report(tree, None, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def solution_data():
    return theory.nngp(bn.Network.rnn(64), bn.tasks.chain(2, 1.5)).to_xarray()


def test_damaged_solutions(solution_data):
    check_solution(solution_data)
    optional = {"residual_limit", "branch_residual_limit"}  # which earlier files do not have
    check_solution(solution_data.drop_vars(optional))
    for name in set(solution_data.data_vars) - optional:
        with pytest.raises(ValueError, match=f"it lacks the variable {name}$"):
            check_solution(solution_data.drop_vars(name))
    for name in ("kernel", "branch_dual", "message"):
        with pytest.raises(ValueError, match=f"it has (the dims|lost the dimension) .* of {name};"):
            check_solution(solution_data.assign({name: ("other", [1.0])}))
    for name in ("kind", "network"):
        with pytest.raises(ValueError, match=f"its attribute '{name}'"):
            check_solution(solution_data.assign_attrs({name: 3}))
    with pytest.raises(ValueError, match="its dim step_bis has the size 1, not the 2 of task"):
        check_solution(solution_data.isel(step_bis=slice(1)))
