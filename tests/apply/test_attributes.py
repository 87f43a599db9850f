"""Setting attributes is where a file acts on live objects: everything not plain is refused, and
nothing is set unless everything is.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from planc.errors import MalformedFile, StalePlan
from planc.modules.attributes import set_attributes
from planc.plan.plan import AttributeChange
from tests.scripts.promises import Goal


class Loud(int):
    """An integer that would run code when it is compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = int.__hash__


class Inner(nn.Module):
    __slots__ = ("slot",)
    shared = 7
    default = 3
    table: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.free = 1
        self.width = 8
        self.scale = 0.5
        self.flag = True
        self.mode = "fan"
        self.nothing = None
        self.shape = (2, 4)
        self.sizes = [2, [4, (8,)]]
        self.extent = torch.Size([2, 4])
        self.default = 4
        self.loud = Loud(8)
        self.lookup = {"a": 1}
        self.act = torch.relu
        self.kind = nn.Linear
        self.dtype = torch.float32
        self.plain_tensor = torch.zeros(2)
        self.weight = nn.Parameter(torch.zeros(2))
        self.empty = nn.Parameter(torch.zeros(1))
        self.register_parameter("absent", None)
        self.register_buffer("stats", torch.zeros(2))
        self.child = nn.Identity()
        self.slot = 5
        self._hidden = 8
        vars(self)["area"] = 8  # what a property of that name hides
        vars(self)["forward"] = 8

    @property
    def area(self) -> int:
        return 64

    @area.setter
    def area(self, value: int) -> None:
        raise AssertionError("a property was set")

    def method(self) -> int:
        return 1

    def __setattr__(self, name: str, value: Any) -> None:
        if vars(self).get("sealed"):
            raise AssertionError("code of the class ran")
        super().__setattr__(name, value)


def model() -> nn.Module:
    built = nn.Sequential()
    built.inner = Inner()
    vars(built.inner)["sealed"] = True
    return built


def state(module: nn.Module) -> dict[str, Any]:
    """All that the inner module holds, by identity where it is not plain."""
    return dict(vars(module.get_submodule("inner")))


MALFORMED = [
    ("__class__", 8, 4),
    ("__dict__", 8, 4),
    ("__init__", 8, 4),
    ("_parameters", 8, 4),
    ("_modules", 8, 4),
    ("_forward_hooks", 8, 4),
    ("_hidden", 8, 4),
    ("", 8, 4),
    ("two words", 8, 4),
    ("child.width", 8, 4),
    ("width\0", 8, 4),
    ("8", 8, 4),
    (b"width", 8, 4),
    (8, 8, 4),
    ([], 8, 4),
    ("training", True, False),
    ("forward", 8, 4),
    ("train", 8, 4),
    ("dump_patches", False, True),
    ("call_super_init", False, True),
    ("method", 8, 4),
    ("area", 8, 4),
    ("slot", 5, 4),
    ("table", 8, 4),
    ("weight", 8, 4),
    ("absent", None, None),
    ("stats", 8, 4),
    ("child", 8, 4),
    ("plain_tensor", 8, 4),
    ("lookup", 8, 4),
    ("act", 8, 4),
    ("kind", 8, 4),
    ("dtype", 8, 4),
    ("loud", 8, 4),
    ("width", 8, True),
    ("width", 8, 4.0),
    ("width", 8, "4"),
    ("width", 8, None),
    ("width", 8, (4,)),
    ("width", 8, Loud(4)),
    ("width", Loud(8), 4),
    ("width", 8, {"a": 1}),
    ("width", 8, torch.tensor(4)),
    ("width", 8, nn.Identity()),
    ("flag", True, 0),
    ("scale", 0.5, 1),
    ("mode", "fan", b"fan"),
    ("nothing", None, 0),
    ("shape", (2, 4), (2, 4, 8)),
    ("shape", (2, 4), (2, True)),
    ("shape", (2, 4), (2, (4,))),
    ("sizes", (2, (4, (8,))), (2, 4, 8)),
]

STALE = [
    ("missing", 8, 4),
    ("shared", 7, 4),  # held by the class alone
    ("width", 9, 4),
    ("width", True, False),
    ("flag", 1, 0),
    ("scale", 1, 2),
    ("mode", "other", "fan"),
    ("shape", (2, 5), (1, 5)),
    ("shape", (2,), (1,)),
    ("sizes", (2, (4, 8)), (2, (4, 4))),
    ("width", (8,), (4,)),
    ("nothing", 0, 0),
]


@pytest.mark.promise("R17 attributes")
@pytest.mark.parametrize(("name", "before", "after"), MALFORMED)
def test_what_no_plan_may_set_is_refused(name: Any, before: Any, after: Any) -> None:
    hostile = model()
    held = state(hostile)
    good = AttributeChange("inner", "free", 1, 2)
    with pytest.raises(MalformedFile):
        set_attributes(hostile, [good, AttributeChange("inner", name, before, after)])
    found = state(hostile)
    assert found.keys() == held.keys()
    assert all(found[key] is value for key, value in held.items())
    assert type(hostile.get_submodule("inner")) is Inner
    assert (Inner.shared, Inner.default, Inner.table) == (7, 3, {})


@pytest.mark.promise("R17 attributes")
def test_no_name_that_a_module_has_of_its_class_can_be_set(goal: Goal) -> None:
    """R17: more than a hundred names, with the values they have, as far as these are plain."""
    names = sorted({*dir(nn.Module()), *dir(type), *vars(nn.Module())})
    assert len(names) > 100
    for name in names:
        hostile = model()
        held = state(hostile)
        for before, after in ((8, 4), (True, False), ("a", "b"), (None, None), ((), ())):
            with pytest.raises((MalformedFile, StalePlan)):
                set_attributes(hostile, [AttributeChange("inner", name, before, after)])
        found = state(hostile)
        assert found.keys() == held.keys()
        assert all(found[key] is value for key, value in held.items())
    goal.count(len(names))


@pytest.mark.promise("R17 attributes")
@pytest.mark.parametrize(("name", "before", "after"), STALE)
def test_another_value_than_before_is_stale(name: str, before: Any, after: Any) -> None:
    other = model()
    held = state(other)
    good = AttributeChange("inner", "free", 1, 2)
    with pytest.raises(StalePlan, match=rf"inner\.{name}"):
        set_attributes(other, [good, AttributeChange("inner", name, before, after)])
    assert all(state(other)[key] is value for key, value in held.items())


@pytest.mark.parametrize(
    "path", ["outer", "inner.weight", "inner.area", "inner.", ".", "inner.0", 0, None]
)
def test_a_path_that_is_no_module_is_stale(path: Any) -> None:
    with pytest.raises(StalePlan, match="no module"):
        set_attributes(model(), [AttributeChange(path, "width", 8, 4)])


def test_one_attribute_cannot_be_changed_twice() -> None:
    twice = [AttributeChange("inner", "width", 8, 4), AttributeChange("inner", "width", 8, 2)]
    whole = model()
    with pytest.raises(MalformedFile, match="twice"):
        set_attributes(whole, twice)
    assert whole.get_submodule("inner").width == 8


@pytest.mark.parametrize(
    ("name", "before", "after", "result"),
    [
        ("width", 8, 4, 4),
        ("scale", 0.5, 0.25, 0.25),
        ("flag", True, False, False),
        ("mode", "fan", "in", "in"),
        ("nothing", None, None, None),
        ("shape", (2, 4), (2, 3), (2, 3)),
        ("sizes", (2, (4, (8,))), (1, (3, (7,))), [1, [3, (7,)]]),
        ("extent", (2, 4), (2, 3), torch.Size([2, 3])),
        ("default", 4, 2, 2),  # the module's own value, over a default of the class
    ],
)
def test_plain_values_are_exchanged_in_their_own_containers(
    name: str, before: Any, after: Any, result: Any
) -> None:
    changed = model()
    set_attributes(changed, [AttributeChange("inner", name, before, after)])
    value = vars(changed.get_submodule("inner"))[name]
    assert type(value) is type(result)
    assert value == result
    assert Inner.default == 3


def test_the_lists_of_the_original_are_left_alone() -> None:
    whole = nn.Module()
    whole.sizes = [2, [4]]
    copied = copy.copy(whole)
    set_attributes(copied, [AttributeChange("", "sizes", (2, (4,)), (2, (3,)))])
    assert (whole.sizes, copied.sizes) == ([2, [4]], [2, [3]])
