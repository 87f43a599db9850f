"""R6: a model that is not the one a plan was made for is refused, and what was changed is named;
what does not matter to the plan is accepted.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, count

import pytest
import torch
from torch import nn

import planc
from planc.modules.tree import structural_attributes
from planc.plan.plan import CLASS
from tests.programs import write
from tests.scripts.promises import Goal
from tests.support import small

STALE, SAME = 16, 8  # of each small model
PARTS, EDITS_OF_ONE, SAME_OF_ONE = 10, 10, 4  # of random models
Edit = Callable[[nn.Module, planc.Plan, random.Random], str]
NAMES = [name for name in small.MODELS if name != "swin"]


@cache
def planned(name: str) -> tuple[nn.Module, planc.Plan]:
    model, args = small.build(name)
    return model, planc.compile(model, args, ratio=0.5)


def an_attribute(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    """A number or word that the plan depends on is another one."""
    places = [(m.path, name) for m in plan.modules for name, _ in m.attributes if name != CLASS]
    path, name = chance.choice(places)
    attributes = vars(model.get_submodule(path))
    attributes[name] = edited(attributes[name])
    return f"{path or 'the model itself'}: expected {name} ="


def a_class(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    """A module is of a class derived from its own."""
    path, module = chance.choice(list(model.named_modules()))
    kind = type(module).__name__
    module.__class__ = type("Other", (type(module),), {})
    return f"{path or 'the model itself'}: expected a {kind}, found a Other"


def edited(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, tuple | list):
        return type(value)((*value[:-1], edited(value[-1])) if value else (1,))
    return f"{value}x"


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return model.get_submodule(path), last


def a_shape(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    """A parameter is one longer in some dimension, or has one dimension more."""
    name, tensor = chance.choice(list(model.named_parameters()))
    holder, last = owner(model, name)
    sizes = list(tensor.shape)
    if chance.random() < 0.3:
        sizes.append(1)
    else:
        sizes[chance.randrange(len(sizes))] += 1
    setattr(holder, last, nn.Parameter(torch.zeros(sizes)))
    return name.rpartition(".")[2]


def a_missing_tensor(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    named = [*model.named_parameters(), *model.named_buffers()]
    name, _ = chance.choice(named)
    holder, last = owner(model, name)
    delattr(holder, last)
    return last


def another_module(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    chance.choice(list(model.modules())).add_module("extra", nn.Linear(2, 2))
    return "extra"


def a_kind(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    """A parameter is a buffer."""
    name, tensor = chance.choice(list(model.named_parameters()))
    holder, last = owner(model, name)
    delattr(holder, last)
    holder.register_buffer(last, tensor.detach().clone())
    return last


def another_name(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    holders = [module for module in model.modules() if module._modules]
    holder = chance.choice(holders)
    name = chance.choice(list(holder._modules))
    holder._modules["renamed"] = holder._modules.pop(name)
    return name


def two_exchanged(model: nn.Module, plan: planc.Plan, chance: random.Random) -> str:
    """Two modules that differ have each other's names."""
    pairs = [
        (holder, a, b)
        for holder in model.modules()
        for a, b in combinations(holder._modules, 2)
        if not alike(holder._modules[a], holder._modules[b])
    ]
    if not pairs:
        return another_name(model, plan, chance)
    holder, a, b = chance.choice(pairs)
    modules = holder._modules
    modules[a], modules[b] = modules[b], modules[a]
    return f"{a}|{b}"


def alike(one: nn.Module | None, other: nn.Module | None) -> bool:
    """Whether two modules have tensors of the same shapes, and the same structural attributes."""
    if one is None or other is None:
        return one is other
    first, second = (
        (
            {
                name: (tuple(t.shape), type(t))
                for name, t in module.state_dict(keep_vars=True).items()
            },
            {path: structural_attributes(m) for path, m in module.named_modules()},
        )
        for module in (one, other)
    )
    return first == second


EDITS: list[Edit] = [
    an_attribute,
    a_class,
    a_shape,
    a_missing_tensor,
    another_module,
    a_kind,
    another_name,
    two_exchanged,
]


def refused(model: nn.Module, plan: planc.Plan, edit: Edit, chance: random.Random) -> None:
    """An edited copy of the model is refused, what was edited is named, and nothing is changed."""
    other = copy.deepcopy(model)
    words = edit(other, plan, chance)
    before = small.contents(other)
    with pytest.raises(planc.StalePlan) as caught:
        planc.apply(plan, other)
    assert re.search("|".join(map(re.escape, words.split("|"))), str(caught.value))
    assert before.keys() == small.contents(other).keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_structural_edit_makes_a_plan_stale_and_is_named(name: str) -> None:
    model, plan = planned(name)
    chance = random.Random(name)
    for number in range(STALE):
        refused(model, plan, EDITS[number % len(EDITS)], chance)


def random_models(part: int, many: int) -> Iterator[tuple[nn.Module, planc.Plan, random.Random]]:
    """``many`` random models of a part, those with something to prune, with plans for them."""
    for seed in count(part, PARTS):
        program = write(seed, 2 + seed % 5)
        model = program.model()
        plan = planc.compile(model, program.inputs(), ratio=0.5)
        if any(group.removed for group in plan.groups):
            yield model, plan, random.Random(seed)
            many -= 1
        if not many:
            return


@pytest.mark.promise("R6 stale")
@pytest.mark.parametrize("part", range(PARTS))
def test_edits_of_random_models_are_refused(part: int, goal: Goal) -> None:
    cases, tried = goal.share(PARTS), 0
    for model, plan, chance in random_models(part, -(-cases // EDITS_OF_ONE)):
        for edit in chance.choices(EDITS, k=EDITS_OF_ONE):
            refused(model, plan, edit, chance)
            tried += 1
    goal.count(tried)


def weights(model: nn.Module, chance: random.Random) -> nn.Module:
    torch.manual_seed(chance.randrange(1 << 30))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def without_memory(model: nn.Module) -> nn.Module:
    """The model on the meta device, where torch can take it there without untying weights."""
    every = list(model.named_parameters(remove_duplicate=False))
    return model.to("meta") if len(every) == len(list(model.parameters())) else model


def channels_last(model: nn.Module) -> nn.Module:
    """The model in another memory format, where torch has it for all its tensors."""
    of_images = all(tensor.dim() != 5 for tensor in model.parameters())
    return model.to(memory_format=torch.channels_last) if of_images else model


def left_by_a_run(model: nn.Module, chance: random.Random) -> nn.Module:
    """Some module has a counter, a flag, a path, a remembered size, a cache or an object more."""
    values: list[object] = [3, True, "/weights/a", (4, 5), torch.Size([2]), 0.5, {}, {"a": 1}, len]
    for number in range(3):
        module = chance.choice(list(model.modules()))
        vars(module)[f"left{number}"] = chance.choice([*values, {"at": torch.zeros(2)}, object()])
    return model


IMMATERIAL: list[Callable[[nn.Module, random.Random], nn.Module]] = [
    weights,
    lambda model, chance: model.double(),
    lambda model, chance: model.bfloat16(),
    lambda model, chance: model.train(),
    lambda model, chance: model.requires_grad_(False),
    lambda model, chance: without_memory(model),
    lambda model, chance: channels_last(model),
    left_by_a_run,
]


def accepted(model: nn.Module, plan: planc.Plan, number: int, chance: random.Random) -> None:
    other = IMMATERIAL[number % len(IMMATERIAL)](copy.deepcopy(model), chance)
    smaller = planc.apply(plan, other, validate=False)
    shapes = {n: tuple(p.shape) for n, p in smaller.named_parameters(remove_duplicate=False)}
    cut = {n: c.shape for n, c in plan.cuts.items() if n in shapes}
    assert cut
    assert cut == {n: shapes[n] for n in cut}


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_matter_is_accepted(name: str) -> None:
    model, plan = planned(name)
    for number in range(SAME):
        accepted(model, plan, number, random.Random(name))


@pytest.mark.promise("R6 same")
@pytest.mark.parametrize("part", range(PARTS))
def test_what_does_not_matter_to_random_models_is_accepted(part: int, goal: Goal) -> None:
    cases, tried = goal.share(PARTS), 0
    for model, plan, chance in random_models(part, -(-cases // SAME_OF_ONE)):
        for _ in range(SAME_OF_ONE):
            accepted(model, plan, chance.randrange(len(IMMATERIAL)), chance)
            tried += 1
    goal.count(tried)
