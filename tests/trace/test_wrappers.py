"""Wrappers are seen through: plans are those of the model inside, with its names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel

import planc
import planc.masks
from planc.errors import StalePlan
from planc.files.formats import encode_plan
from planc.modules.wrappers import bare, prefix_of
from tests.support import small
from tests.support.small import build


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


WRAPPERS: tuple[Callable[[nn.Module], Any], ...] = (
    compiled,
    nn.DataParallel,
    AveragedModel,
    lambda model: compiled(nn.DataParallel(model)),
    lambda model: nn.DataParallel(compiled(model)),
)


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of one."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def seen_through(model: nn.Module, wrapped: Any, inputs: Any) -> None:
    """All public functions do with the wrapper as they do with the model."""
    plan = planc.compile(model, inputs, ratio=0.5)
    assert encode_plan(planc.compile(wrapped, inputs, ratio=0.5)) == encode_plan(plan)
    analysis = planc.analyze(planc.trace(wrapped, inputs))
    scores = [planc.score(analysis, held, "l1").units[0] for held in (model, wrapped)]
    assert scores[0].tolist() == scores[1].tolist()
    smaller, removed = planc.apply(plan, wrapped, keep_removed=True)
    expected = planc.apply(plan, model)
    assert type(bare(smaller)) is type(model)
    assert torch.equal(smaller(*inputs), expected(*inputs))
    assert list(bare(smaller).state_dict()) == list(model.state_dict())
    planc.verify(plan, wrapped, smaller, inputs)
    planc.verify(plan, model, smaller)
    assert torch.equal(planc.restore(plan, smaller, removed)(*inputs), model(*inputs))
    assert torch.equal(planc.mask(plan, wrapped)(*inputs), planc.mask(plan, model)(*inputs))
    statistics = planc.calibrate(wrapped, [inputs], "wanda", progress=False)
    assert planc.compile(wrapped, inputs, criterion="wanda", statistics=statistics)
    policy = planc.masks.PerTensor(0.5)
    assert planc.masks.select(wrapped, policy) == planc.masks.select(model, policy)


@pytest.mark.long
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_is_seen_through(wrap: Callable[[nn.Module], Any]) -> None:
    model, inputs = build("residual")
    seen_through(model, wrap(model), inputs)


def test_a_distributed_wrapper_is_seen_through(group: None) -> None:
    model, inputs = build("residual")
    parallel = nn.parallel.DistributedDataParallel(model)
    seen_through(model, parallel, inputs)
    seen_through(model, compiled(parallel), inputs)


def test_a_subclass_of_a_wrapper_is_one() -> None:
    class Parallel(nn.DataParallel):  # type: ignore[type-arg]
        """A wrapper of another name."""

    model, inputs = build("residual")
    seen_through(model, Parallel(model), inputs)


class Holder(nn.Module):
    """A model with a part called module."""

    def __init__(self) -> None:
        super().__init__()
        self.module = small.Residual()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.module(x)
        return result


def test_a_part_called_module_is_no_wrapper() -> None:
    _, inputs = build("residual")
    model = Holder().eval()
    plan = planc.compile(model, inputs, ratio=0.5)
    assert all(spec.name.startswith("module.") for spec in plan.tensors)
    assert list(planc.apply(plan, model.state_dict())) == list(model.state_dict())
    wrapped = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    assert list(planc.apply(plan, wrapped)) == list(wrapped)


def test_what_torch_compile_wraps_comes_back_compiled() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    smaller = planc.apply(plan, compiled(model))
    assert type(smaller) is type(compiled(model))
    assert smaller._orig_mod is not model
    assert torch.equal(smaller(*inputs), smaller._orig_mod(*inputs))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefix_of_a_state_dict_is_taken_and_kept(prefix: str) -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    state = OrderedDict((prefix + name, t) for name, t in model.state_dict().items())
    expected = planc.apply(plan, model.state_dict())
    smaller, removed = planc.apply(plan, state, keep_removed=True)
    assert list(smaller) == list(state)
    assert isinstance(smaller, OrderedDict)
    assert all(torch.equal(smaller[prefix + name], t) for name, t in expected.items())
    back = planc.restore(plan, smaller, removed)
    assert all(torch.equal(back[name], t) for name, t in state.items())
    zeroed = planc.mask(plan, model.state_dict())
    assert all(torch.equal(planc.mask(plan, state)[prefix + n], t) for n, t in zeroed.items())
    masks = planc.masks.select(model, planc.masks.PerTensor(0.5))
    sparse, gone = planc.masks.apply(masks, state, keep_removed=True)
    assert list(sparse) == list(state)
    assert all(map(torch.equal, planc.masks.restore(masks, sparse, gone).values(), state.values()))


def test_the_state_dict_of_an_averaged_model_keeps_its_count() -> None:
    model, inputs = build("residual")
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    plan = planc.compile(averaged, inputs, ratio=0.5)
    smaller = planc.apply(plan, averaged.state_dict())
    assert list(smaller) == list(averaged.state_dict())
    assert int(smaller["n_averaged"]) == 1
    AveragedModel(planc.apply(plan, averaged)).load_state_dict(smaller)


def test_a_state_dict_of_another_model_is_stale_with_a_prefix_too() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    for wrong in (
        state | {"module.head.weight": torch.zeros(1)},
        {name: tensor for name, tensor in state.items() if "head" not in name},
        state | {"other": torch.zeros(1)},
        {f"net.{name}": tensor for name, tensor in model.state_dict().items()},
    ):
        with pytest.raises(StalePlan):
            planc.apply(plan, wrong)


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.from_regex(r"[a-z]{1,3}(\.(module|[a-z]{1,3}))?", fullmatch=True), min_size=1),
    st.sampled_from(["", "module.", "_orig_mod.", "_orig_mod.module.", "module.module."]),
)
def test_a_prefix_is_found_wherever_the_names_are_known(names: set[str], prefix: str) -> None:
    found = prefix_of([prefix + name for name in sorted(names)], names)
    assert {(prefix + name)[len(found) :] for name in names} == names
