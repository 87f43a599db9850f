"""Parts that cannot be seen into end in a TraceError that names them and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributed, nn

import planc
from planc.errors import TraceError
from tests.support.small import build
from tests.trace.test_wrappers import group

__all__ = ["group"]


class Doubled(torch.Tensor):
    """A tensor that holds its values in another one."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Doubled:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, size: Any, stride: Any) -> Doubled:
        return Doubled(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(f"{func}")


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def scripted() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), torch.jit.script(plain()))


def jit_traced() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), torch.jit.trace(nn.Linear(8, 4), torch.zeros(2, 8)))


def quantized() -> Any:
    return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})


def held_apart() -> nn.Module:
    model = plain()
    model[2].weight = nn.Parameter(Doubled(torch.zeros(4, 8)), requires_grad=False)
    return model


def faked() -> nn.Module:
    with torch._subclasses.FakeTensorMode():
        return plain()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))


class Offloading:
    """The hook of accelerate, as far as planc looks."""

    offload = True


class Several:
    """A sequence of such hooks."""

    hooks = (object(), Offloading())


def offloaded() -> nn.Module:
    model = plain()
    vars(model[2])["_hf_hook"] = Offloading()
    return model


def offloaded_by_several() -> nn.Module:
    model = plain()
    vars(model[0])["_hf_hook"] = Several()
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "where", "remedy"),
    [
        (scripted, "1 (RecursiveScriptModule) is compiled by torch.jit", "pass the nn.Module"),
        (jit_traced, "1 (TopLevelTracedModule) is compiled by torch.jit", "pass the nn.Module"),
        (quantized, "0 (Linear) is quantized", "prune the floating-point model"),
        (held_apart, "2.weight is a Doubled", "prune the model of plain tensors"),
        (faked, "0.weight is a FakeTensor", "on the meta device"),
        (lazy, "0.weight is not initialised", "run the lazy module once"),
        (offloaded, "2 has its weights offloaded by accelerate", "without device_map"),
        (offloaded_by_several, "0 has its weights offloaded", "remove_hook_from_submodules"),
    ],
)
def test_a_part_that_cannot_be_seen_into_is_named_with_the_remedy(
    make: Callable[[], nn.Module], where: str, remedy: str
) -> None:
    model, x, other = make(), torch.zeros(2, 8), plain()
    plan = planc.compile(other, x)
    for call in (
        lambda: planc.trace(model, x),
        lambda: planc.compile(model, x, ratio=0.5),
        lambda: planc.apply(plan, model),
        lambda: planc.mask(plan, model),
        lambda: planc.verify(plan, model, other, x),
        lambda: planc.fold(model, x),
        lambda: planc.compile(nn.DataParallel(model), x),
    ):
        with pytest.raises(TraceError) as refusal:
            call()
        assert where in str(refusal.value)
        assert remedy in str(refusal.value)


def test_a_model_sharded_by_torch_is_refused_with_the_remedy(group: None) -> None:
    from torch.distributed.fsdp import fully_shard

    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    sharded = fully_shard(model, mesh=distributed.init_device_mesh("cpu", (1,)))
    for call in (lambda: planc.compile(sharded, inputs), lambda: planc.apply(plan, sharded)):
        with pytest.raises(TraceError, match=r"is sharded \(a DTensor\); plan with the"):
            call()


def test_a_sharded_parameter_is_named(group: None) -> None:
    from torch.distributed.tensor import distribute_tensor

    model = plain()
    mesh = distributed.init_device_mesh("cpu", (1,))
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh))
    with pytest.raises(TraceError, match=r"0\.weight is sharded \(a DTensor\); plan with"):
        planc.compile(model, torch.zeros(2, 8))
