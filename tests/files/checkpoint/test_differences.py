"""Each difference between a checkpoint and a model, one at a time, in its words; what is no
difference; and what cannot be saved or loaded at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import planc
from planc.errors import (
    CorruptFile,
    PlancError,
    StalePlan,
    VerificationError,
)
from planc.files.checkpoint.differences import attribute_differences, differences
from planc.files.formats.checkpoint import Checkpoint, StoredModule, StoredTensor
from planc.files.tensors.opened import open_checkpoint
from tests.files.checkpoint.small import INPUT, PLAN, Small, pruned, small
from tests.support.proving import Net


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("saved") / "small.safetensors"
    planc.save(found, pruned(), PLAN)
    return found


@pytest.fixture(scope="module")
def checkpoint(path: Path) -> Checkpoint:
    return planc.inspect(path)


# -- tensors --------------------------------------------------------------------------------------


def changed(checkpoint: Checkpoint, name: str, **changes: Any) -> Checkpoint:
    """The checkpoint with one tensor changed."""
    return replace(
        checkpoint,
        tensors=tuple(
            replace(t, **changes) if t.names[0] == name else t for t in checkpoint.tensors
        ),
    )


def without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    return replace(checkpoint, tensors=tuple(t for t in checkpoint.tensors if t.names[0] != name))


def test_a_checkpoint_and_its_model_do_not_differ(checkpoint: Checkpoint) -> None:
    assert differences(checkpoint, pruned()) == []
    assert differences(checkpoint, pruned(), PLAN) == []
    assert differences(without(checkpoint, "buffer/steps"), pruned()) == []
    momentum = StoredTensor(("optimizer/state/0",), "F32", (9,), bytes(32), "optimizer")
    more = replace(checkpoint, tensors=(momentum, *checkpoint.tensors))
    assert differences(more, pruned()) == []


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda c: changed(c, "up.bias", names=("up.other",)),
            [
                "up.other: in the checkpoint with shape (2,), not in the model",
                "up.bias: a parameter of shape (2,) of the model, not in the checkpoint",
            ],
        ),
        (
            lambda c: changed(c, "up.bias", shape=(3,)),
            ["up.bias: shape (3,) in the checkpoint, (2,) in the model"],
        ),
        (
            lambda c: changed(without(c, "down.bias"), "up.bias", names=("up.bias", "down.bias")),
            ["down.bias: tied to up.bias in the checkpoint, not in the model"],
        ),
        (
            lambda c: without(c, "empty"),
            ["empty: a buffer of shape (0, 2) of the model, not in the checkpoint"],
        ),
        (
            lambda c: changed(c, "buffer/steps", names=("buffer/count",)),
            ["count: in the checkpoint with shape (), not in the model"],
        ),
        (
            lambda c: changed(c, "buffer/steps", shape=(1,)),
            ["steps: shape (1,) in the checkpoint, () in the model"],
        ),
        (
            lambda c: changed(c, "up.bias", names=("none", "up.bias")),
            ["none: in the checkpoint with shape (2,), not in the model"],
        ),
    ],
)
def test_a_tensor_that_differs_is_named(
    checkpoint: Checkpoint, edit: Callable[[Checkpoint], Checkpoint], words: list[str]
) -> None:
    assert differences(edit(checkpoint), pruned()) == words


def test_ties_of_the_model_that_the_checkpoint_lacks_are_named(checkpoint: Checkpoint) -> None:
    model = pruned()
    model.down.bias = model.up.bias
    assert differences(checkpoint, model) == [
        "up.bias, down.bias: tied in the model, with several values in the checkpoint"
    ]
    assert differences(without(checkpoint, "down.bias"), model) == [
        "down.bias: tied to up.bias in the model, not in the checkpoint"
    ]
    equal = next(t.digest for t in checkpoint.tensors if t.names[0] == "up.bias")
    assert differences(changed(checkpoint, "down.bias", digest=equal), model) == []
    model.register_buffer("count", model.steps, persistent=False)
    assert len(differences(without(checkpoint, "down.bias"), model)) == 1
    neither = without(without(checkpoint, "up.bias"), "down.bias")
    assert differences(neither, model) == [
        "up.bias: a parameter of shape (2,) of the model, not in the checkpoint"
    ]


def test_of_many_names_that_are_tied_the_first_are_named(checkpoint: Checkpoint) -> None:
    model = pruned()
    for name in ("c", "d"):
        model.register_parameter(name, model.up.bias)
    model.down.bias = model.up.bias
    two = changed(without(checkpoint, "down.bias"), "up.bias", names=("up.bias", "d"))
    assert differences(two, model) == ["c: tied to d in the model, not in the checkpoint"]


# -- attributes -----------------------------------------------------------------------------------


def with_attributes(checkpoint: Checkpoint, path: str, **values: Any) -> Checkpoint:
    """The checkpoint with attributes of a module set, or left out where they are None."""

    def edited(module: StoredModule) -> StoredModule:
        if module.path != path:
            return module
        attributes = dict(module.attributes) | values
        return replace(
            module,
            attributes=tuple((n, v) for n, v in sorted(attributes.items()) if v is not None),
        )

    return replace(checkpoint, modules=tuple(map(edited, checkpoint.modules)))


@pytest.mark.parametrize(
    ("where", "values", "words"),
    [
        ("up", {"in_features": 5}, "up.in_features: 5 in the checkpoint, 3 in the model (torch"),
        ("up", {"in_features": True}, "up.in_features: True in the checkpoint, 3 in the model"),
        ("up", {"in_features": ("type", "a.B")}, "up.in_features: ('type', 'a.B') in the check"),
        ("up", {"in_features": "y" * 90}, f"'{'y' * 56}... in the checkpoint"),
        ("up", {"in_features": "y" * 58}, f"'{'y' * 58}' in the checkpoint"),
        ("up", {"in_features": "y" * 59}, f"'{'y' * 56}... in the checkpoint"),
    ],
)
def test_an_attribute_that_differs_is_named(
    checkpoint: Checkpoint, where: str, values: dict[str, Any], words: str
) -> None:
    found = differences(with_attributes(checkpoint, where, **values), pruned())
    assert len(found) == 1
    assert words in found[0]


def test_what_no_size_depends_on_is_no_difference(checkpoint: Checkpoint) -> None:
    """Counters, words, remembered sizes, caches: whatever the plan does not list."""
    assert differences(with_attributes(checkpoint, "", mode="y", new=3, sizes=None), pruned()) == []
    model = pruned()
    model.calls, model.up.path, model.down.shape = 3, "/weights", torch.Size([1, 3])
    model.rates, model.sizes = {"a": torch.zeros(2)}, [2]
    del model.mode
    assert differences(checkpoint, model) == []


def test_what_layers_of_torch_compute_with_is_compared(checkpoint: Checkpoint) -> None:
    model = pruned()
    model.add_module("norm", nn.LayerNorm(2, eps=1e-3))
    model.add_module("drop", nn.Dropout(0.25))
    stored = (
        StoredModule("drop", "torch.nn.modules.dropout.Dropout", (("p", 0.5),)),
        StoredModule("norm", "torch.nn.modules.normalization.LayerNorm", (("eps", 1e-5),)),
    )
    more = replace(checkpoint, modules=(*checkpoint.modules, *stored))
    (found,) = attribute_differences(more, model)
    assert found.startswith("norm.eps: 1e-05 in the checkpoint, 0.001 in the model (torch")
    model.norm.eps = 1e-5
    assert list(attribute_differences(more, model)) == []


def test_an_attribute_that_one_side_lacks_is_named(checkpoint: Checkpoint) -> None:
    kind = "(torch.nn.modules.linear.Linear)"
    assert differences(with_attributes(checkpoint, "up", in_features=None), pruned()) == [
        f"up.in_features: not in the checkpoint, 3 in the model {kind}"
    ]
    model = pruned()
    del model.up.in_features
    assert differences(checkpoint, model) == [
        f"up.in_features: 3 in the checkpoint, not in the model {kind}"
    ]


def test_another_class_is_named(checkpoint: Checkpoint) -> None:
    model = pruned()
    model.up.__class__ = type("Layer", (nn.Linear,), {})
    (found,) = differences(checkpoint, model)
    assert found.startswith("up: a torch.nn.modules.linear.Linear in the checkpoint, a ")
    assert found.endswith(".Layer in the model")
    (found,) = differences(replace(checkpoint, modules=()), model)
    assert found.startswith("up: a Linear in the checkpoint, a ")
    model.up.__class__ = type("Linear", (nn.Linear,), {})  # the same name, from another file
    assert differences(checkpoint, model) == []


def test_other_modules_are_named(checkpoint: Checkpoint) -> None:
    model = pruned()
    model.drop = nn.Dropout()
    found = differences(checkpoint, model)
    assert found == ["drop: a torch.nn.modules.dropout.Dropout in the model, not in the checkpoint"]
    fewer = replace(checkpoint, modules=checkpoint.modules[:-1])
    assert differences(fewer, pruned()) == [
        "down: a torch.nn.modules.linear.Linear in the model, not in the checkpoint"
    ]
    more = replace(checkpoint, modules=(StoredModule("z", "a.Z", ()), *checkpoint.modules))
    assert differences(more, pruned()) == ["z: a a.Z in the checkpoint, not in the model"]


def test_without_modules_the_plan_says_what_they_have(checkpoint: Checkpoint) -> None:
    alone = replace(checkpoint, modules=())
    assert differences(alone, pruned()) == []
    model = pruned()
    model.up.out_features = 4
    model.more = 1
    assert differences(alone, model) == [
        "up.out_features: 2 in the checkpoint, 4 in the model (torch.nn.modules.linear.Linear)",
    ]
    del model.down
    found = differences(alone, model)
    assert "down: a Linear in the checkpoint, not in the model" in found
    older = PLAN.replace(
        modules=tuple(replace(m, attributes=m.attributes[1:]) for m in PLAN.modules)
    )
    found = differences(replace(alone, plan=older), model)
    assert "down: a module in the checkpoint, not in the model" in found


def test_another_plan_is_named_with_how_it_was_made(checkpoint: Checkpoint) -> None:
    other = PLAN.replace(
        provenance=(PLAN.provenance[0], replace(PLAN.provenance[0], policy="again", seed=7))
    )
    (found,) = differences(checkpoint, pruned(), other)
    first, second = (f"l2, {policy}, seed" for policy in ("uniform(0.5)", "again"))
    assert found.startswith(f"the plan: the checkpoint has {PLAN.fingerprint[:16]}..., made by ")
    assert found.endswith(f"made by {first} 0, then {second} 7")


# -- loading --------------------------------------------------------------------------------------


def test_a_load_that_cannot_be_is_refused(path: Path, tmp_path: Path) -> None:
    other = planc.compile(small(), INPUT, ratio=0.25)
    with pytest.raises(StalePlan, match="was made with another plan than the one given"):
        planc.load(path, small(), plan=other)
    assert type(planc.load(path, small(), plan=PLAN)) is Small
    graph = planc.compile(small(), INPUT, ratio=0.5, target="graph")
    planc.save(tmp_path / "g.safetensors", planc.apply(graph, small()), graph)
    with pytest.raises(PlancError, match=r"holds a rewritten graph \(target='graph'\)"):
        planc.load(tmp_path / "g.safetensors", small())
    rewritten = planc.apply(graph, small(seed=3))
    loaded = planc.load(tmp_path / "g.safetensors", rewritten, "verify")
    assert torch.equal(loaded(INPUT + 1), planc.apply(graph, small())(INPUT + 1))


def test_a_long_list_of_differences_is_cut(path: Path) -> None:
    model = pruned()
    for i in range(17):
        model.add_module(f"extra{i}", nn.Identity())
    with pytest.raises(VerificationError) as caught:
        planc.load(path, model, "verify")
    assert "17 differences:\n" in str(caught.value)
    assert "more" not in str(caught.value)
    for i in range(17, 25):
        model.add_module(f"extra{i}", nn.Identity())
    with pytest.raises(VerificationError) as caught:
        planc.load(path, model, "verify")
    lines = str(caught.value).splitlines()
    assert "25 differences:" in lines[0]
    assert len(lines) == 1 + 20 + 1 + 1
    assert lines[-2:] == [
        "  and 5 more",
        "build the model as it was built for the checkpoint",
    ]


def test_digests_are_compared_unless_told_not_to(path: Path, tmp_path: Path) -> None:
    for file in path.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = tmp_path / path.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    places = open_checkpoint(copy).places
    last = max((name for name in places if name != "empty"), key=lambda name: places[name].start)
    with pytest.raises(CorruptFile, match=rf"{last}: the bytes have digest .*: copy it again"):
        planc.load(copy, small())
    loaded = planc.load(copy, small(), check_digests=False).state_dict()
    for name, tensor in pruned().state_dict().items():
        assert torch.equal(loaded[name], tensor) == (name != last)


def test_a_rewritten_graph_is_saved_with_the_constants_it_holds(tmp_path: Path) -> None:
    shift = torch.randn(6)  # no parameter and no buffer of the model: the graph captures it
    model = Net(
        lambda m, x: m.b(m.a(x) + m.c(x) * shift),
        a=nn.Linear(4, 6),
        c=nn.Linear(4, 6),
        b=nn.Linear(6, 2),
    ).eval()
    x = torch.randn(3, 4)
    plan = planc.compile(model, x, ratio=0.5, target="graph")
    graph = planc.apply(plan, model)
    planc.save(tmp_path / "g.safetensors", graph, plan)
    loaded = planc.load(tmp_path / "g.safetensors", planc.apply(plan, model), mode="verify")
    assert torch.equal(loaded(x), graph(x))


def test_an_integer_cannot_become_a_trainable_parameter(tmp_path: Path) -> None:
    state = dict(small().state_dict())
    state["up.bias"] = state["up.bias"].to(torch.int32)
    save_file(state, tmp_path / "whole.safetensors")
    planc.apply_files(PLAN, tmp_path / "whole.safetensors", tmp_path / "i.safetensors")
    with pytest.raises(
        VerificationError, match=r"up\.bias: I32 in the checkpoint, a trainable torch\.float32"
    ):
        planc.load(tmp_path / "i.safetensors", small())
    frozen = small()
    frozen.up.bias.requires_grad_(False)
    assert planc.load(tmp_path / "i.safetensors", frozen).up.bias.dtype is torch.int32


def test_a_device_can_be_named(path: Path) -> None:
    loaded = planc.load(path, small().to("meta"), device="cpu")
    assert {t.device.type for t in loaded.state_dict().values()} == {"cpu"}
    assert loaded.steps.item() == 1


# -- saving ---------------------------------------------------------------------------------------


class Stateful(Small):
    """Its state dict has more than tensors, or less than its parameters."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.extra = extra

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        if self.extra:
            state["_extra_state"] = 5
        else:
            del state["down.weight"]
        return state


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (True, r"_extra_state: in the model's state_dict\(\), but no parameter or buffer"),
        (False, r"down\.weight: not in the model's state_dict\(\), cannot be saved"),
    ],
)
def test_a_state_dict_of_its_own_kind_cannot_be_saved(
    extra: bool, words: str, tmp_path: Path
) -> None:
    model = Stateful(extra).eval()
    plan = planc.compile(model, INPUT, ratio=0.5)
    with pytest.raises(PlancError, match=words):
        planc.save(tmp_path / "a.safetensors", planc.apply(plan, model), plan)
    assert list(tmp_path.iterdir()) == []


def test_an_optimiser_of_more_than_plain_data_cannot_be_saved(tmp_path: Path) -> None:
    model = pruned()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["schedule"] = {1, 2}
    with pytest.raises(
        PlancError, match=r"optimizer/param_groups/0/schedule: a builtins\.set is no plain data"
    ):
        planc.save(tmp_path / "a.safetensors", model, PLAN, optimizer=optimizer)
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_an_optimiser_comes_back_as_it_was(tmp_path: Path) -> None:
    model = pruned().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=float("inf"), momentum=0.5)
    optimizer.param_groups[0]["betas"] = (0.5, [1, None], torch.float16)
    model(INPUT + 1).sum().backward()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    optimizer.param_groups[0]["lr"] = float("inf")
    planc.save(tmp_path / "a.safetensors", model, PLAN, optimizer=optimizer, metadata={"b": 1})
    found, state = planc.load_optimizer(tmp_path / "a.safetensors"), optimizer.state_dict()
    assert found["param_groups"] == state["param_groups"]
    assert found["state"].keys() == state["state"].keys()
    for key, slots in state["state"].items():
        assert torch.equal(found["state"][key]["momentum_buffer"], slots["momentum_buffer"])
    assert dict(planc.inspect(tmp_path / "a.safetensors").metadata)["b"] == 1
    model.steps.add_(1)  # of the model: the optimiser's tensors are not the model's
    assert planc.load(tmp_path / "a.safetensors", small()).steps.item() == 1


@pytest.mark.parametrize("size", range(0, 400, 7))
def test_the_first_file_says_its_own_size(size: int, tmp_path: Path) -> None:
    """Which a longer number changes, wherever the header is padded."""
    planc.save(tmp_path / "a.safetensors", pruned(), PLAN, metadata={"note": "x" * size})
    first = planc.inspect(tmp_path / "a.safetensors").shards[0]
    assert first.size == (tmp_path / "a.safetensors").stat().st_size
    assert type(planc.load(tmp_path / "a.safetensors", small())) is Small


def test_a_shard_holds_as_much_as_it_may(tmp_path: Path) -> None:
    """The sizes of the tensors are 0, 8, 8, 16 and 24 bytes."""
    for limit, files in ((1, 5), (16, 4), (24, 3), (31, 3), (32, 2), (55, 2), (56, 1)):
        planc.save(tmp_path / str(limit), pruned(), PLAN, shard_size=limit)
        found = sorted(p.name for p in (tmp_path / str(limit)).glob("*.safetensors"))
        assert len(found) == files, limit
        assert type(planc.load(tmp_path / str(limit), small())) is Small


def test_a_model_without_other_tensors_has_no_other_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    plan = planc.compile(model, INPUT, ratio=0.5)
    smaller = planc.apply(plan, model)
    for limit, files in ((1, 5), (1000, 1)):
        planc.save(tmp_path / str(limit), smaller, plan, shard_size=limit)
        assert len(list((tmp_path / str(limit)).iterdir())) == files
        loaded = planc.load(tmp_path / str(limit), model)
        assert torch.equal(loaded(INPUT), smaller(INPUT))


class Caching(Small):
    """Keeps what a run computed: in a dictionary that is there from the start, in one that is not,
    and in place of None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Any] = {}
        self.state: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cache[str(x.device)] = self.lazy = {"deep": {"er": x}}
        self.state = x
        return super().forward(x)


def test_a_cache_that_runs_fill_is_no_difference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plan = planc.compile(Caching().eval(), INPUT, ratio=0.5)
    fresh, used = (planc.apply(plan, Caching().eval()) for _ in range(2))
    used(INPUT)
    for kept, other in ((fresh, used), (used, fresh), (used, used)):
        planc.save(tmp_path / "kept.safetensors", kept, plan)
        loaded = planc.load(tmp_path / "kept.safetensors", other, mode="verify")
        assert torch.equal(loaded(INPUT), kept(INPUT))
