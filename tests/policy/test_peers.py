"""The calls beside those of other tools, in the examples: each does what the other does."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import planc
from planc.compile.schedule import Step
from planc.criteria import Magnitude, Normalized
from planc.plan.plan import Plan
from tests.support.small import randomised
from tests.test_documents import EXAMPLES, Net

tp = pytest.importorskip("torch_pruning")
IMAGES = torch.zeros(1, 3, 16, 16)


def rows() -> dict[str, str]:
    """planc's call for each entry of the table that has one."""
    table = EXAMPLES.read_text().partition("| Torch-Pruning, NNI | planc |")[2].partition("\n\n")[0]
    found = re.findall(r"^\| (.*) \| `(planc\..*)` \|$", table, re.MULTILINE)
    assert len(found) > 10
    return dict(found)


def result(entry: str) -> Plan:
    (call,) = (call for name, call in rows().items() if entry in name)
    names: dict[str, Any] = {"planc": planc, "Normalized": Normalized, "Magnitude": Magnitude}
    found = eval(call, names | {"model": model(), "images": IMAGES})
    return found.plan if isinstance(found, Step) else found


def model() -> Net:
    return randomised(Net(), seed=1)  # type: ignore[return-value]


def removed(plan: Plan) -> dict[str, list[int]]:
    return {
        group.name.removesuffix(".weight:0"): sorted(group.removed)
        for group in plan.groups
        if group.removed
    }


@pytest.mark.parametrize("entry", rows())
def test_every_call_of_the_table_makes_a_plan(entry: str) -> None:
    plan = result(entry)
    assert removed(plan)
    planc.apply(plan, model())


def counts(**options: Any) -> dict[str, int]:
    """The number of channels that Torch-Pruning removes from each layer."""
    net = model()
    by_name = dict(net.named_modules())
    pruned = {by_name[name]: r for name, r in options.pop("pruning_ratio_dict", {}).items()}
    pruner = tp.pruner.BasePruner(
        net,
        IMAGES,
        tp.importance.GroupMagnitudeImportance(p=2),
        ignored_layers=[net.fc],
        pruning_ratio_dict=pruned,
        **options,
    )
    paths = {module: path for path, module in net.named_modules()}
    found = pruner.step(interactive=True)
    return {paths[group[0].dep.target.module]: len(group[0].idxs) for group in found}


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        ("ignored_layers", {}),
        ("pruning_ratio_dict", {"pruning_ratio_dict": {"conv1": 0.25}}),
        ("`round_to=8`", {"pruning_ratio": 0.25, "round_to": 8}),
    ],
)
def test_ratios_remove_as_many_channels_as_the_peer(entry: str, options: dict[str, Any]) -> None:
    ours = {name: len(units) for name, units in removed(result(entry)).items()}
    assert ours == counts(**options)


@pytest.mark.parametrize(("layer", "prune"), [("conv1", "out"), ("conv2", "in")])
def test_chosen_indices_are_those_of_the_peer(layer: str, prune: str) -> None:
    net = model()
    graph = tp.DependencyGraph().build_dependency(net, IMAGES)
    function = getattr(tp, f"prune_conv_{prune}_channels")
    graph.get_pruning_group(net.get_submodule(layer), function, idxs=[2, 6, 9]).prune()
    smaller = planc.apply(result(f"model.{layer}, prune_conv_{prune}"), model())
    theirs = net.state_dict()
    assert all(torch.equal(theirs[name], own) for name, own in smaller.state_dict().items())
