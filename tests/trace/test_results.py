"""Results in any object: the tensors in it stay whole, and what cannot be seen is refused."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical, Independent, Normal

import planc
from planc.errors import PolicyError, TraceError, VerificationError
from planc.trace.rebuilding import Rebuilt
from planc.verify.outputs import difference, run
from tests.trace.heads import CLASSES, X, head, pruned, reason, width

Wrap = Callable[[torch.Tensor], Any]


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slots:
    __slots__ = ("_first", "never_set")

    def __init__(self, first: torch.Tensor) -> None:
        self._first = first


class Results(list[Any]):
    """A list with a name."""


class Hidden(list[Any]):
    """A list that shows nothing of itself."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class OneByOne:
    def __init__(self, *items: torch.Tensor) -> None:
        self.items = list(items)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        if not self.items:
            raise StopIteration
        return self.items.pop()


@dataclasses.dataclass(frozen=True)
class Frozen:
    inside: Any


Named = collections.namedtuple("Named", "first rest")


def generated(y: torch.Tensor) -> Iterator[torch.Tensor]:
    yield y * 2


def recursive(y: torch.Tensor) -> Callable[[int], torch.Tensor]:
    def down(n: int) -> torch.Tensor:
        return down(n - 1) if n else y

    return down


def itself(y: torch.Tensor) -> list[Any]:
    found: list[Any] = [y]
    found.append(found)
    return found


def defaults(y: torch.Tensor) -> Callable[..., Any]:
    def function(one: Any = y, *, other: Any = None) -> Any:
        return one

    function.note = "attribute"  # type: ignore[attr-defined]
    return function


REBUILT: dict[str, Wrap] = {
    "object": lambda y: Plain(scores=y),
    "objects": lambda y: Plain(inner=Plain(scores=[y])),
    "slots": Slots,
    "list subclass": lambda y: Results([y]),
    "default dictionary": lambda y: collections.defaultdict(list, {1: [y]}),
    "chained dictionaries": lambda y: collections.ChainMap({"scores": y}),
    "user dictionary": lambda y: collections.UserDict(scores=y),
    "key": lambda y: {y: "scores"},
    "deque": lambda y: collections.deque([y]),
    "set": lambda y: {y, y * 2},
    "frozen set": lambda y: frozenset([y]),
    "named tuple": lambda y: Named(y, [y * 2]),
    "dataclass of an object": lambda y: Frozen(Plain(scores=y)),
    "the same twice": lambda y: (y, Plain(scores=y)),
    "namespace": lambda y: types.SimpleNamespace(scores=y),
    "packed sequence": lambda y: nn.utils.rnn.pack_padded_sequence(y[None], [2], batch_first=True),
    "generator": generated,
    "generators": lambda y: ((z for z in [w]) for w in [y]),
    "map": lambda y: map(torch.neg, [y]),
    "zip": lambda y: zip([y], [y * 2], strict=True),
    "filter": lambda y: filter(torch.is_tensor, [y]),
    "iterator": lambda y: iter([y]),
    "iterator class": lambda y: OneByOne(y, y * 2),
    "closure": lambda y: lambda: y,
    "recursive closure": recursive,
    "default argument": defaults,
    "partial": lambda y: functools.partial(torch.add, y),
    "method": lambda y: Plain(scores=y).__init__,
    "exception": lambda y: ValueError(y),
    "cycle": itself,
}
SEEN: dict[str, Wrap] = {
    "list that hides its items": lambda y: Hidden([y]),
    "built-in method": lambda y: [y].append,
    "property": lambda y: property(lambda self: y),
    "mapping proxy": lambda y: types.MappingProxyType({"scores": y}),
    "weak reference": lambda y: (weakref.ref(y), y),
    "array of objects": lambda y: np.array([y, None], dtype=object),
    "attribute of a tensor": lambda y: with_attribute(y * 1, y),
    "distribution": lambda y: Categorical(logits=y),
    "distributions": lambda y: Independent(Normal(y, torch.ones_like(y)), 1),
}


def with_attribute(tensor: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    tensor.scores = y * 3  # type: ignore[attr-defined]
    return tensor


def model_of(wrap: Wrap) -> nn.Module:
    return head(lambda self, h: (wrap(self.scores(h)), self.value(h)))


@pytest.mark.long
@pytest.mark.parametrize("name", [*REBUILT, *SEEN])
def test_scores_stay_whole_in_any_object(name: str) -> None:
    _, smaller, report = pruned(model_of((REBUILT | SEEN)[name]))
    assert (width(smaller, "first"), width(smaller, "scores")) == (8, CLASSES)
    assert report.error is not None


@pytest.mark.long
@pytest.mark.parametrize("name", [*REBUILT, *SEEN])
def test_an_output_that_is_cut_by_hand_is_found_in_any_object(name: str) -> None:
    model = model_of((REBUILT | SEEN)[name])
    _, smaller, _ = pruned(model)
    smaller.scores = nn.Linear(8, 5)
    outputs, expected = (run(m, ((X,), {})) for m in (smaller, model))
    with pytest.raises(VerificationError, match=r"shape|\d parts|outputs"):
        difference(outputs, expected, 10.0, "the original")


@pytest.mark.long
@pytest.mark.parametrize("name", REBUILT)
def test_the_rewritten_graph_returns_the_same_object(name: str) -> None:
    _, smaller, report = pruned(model_of(REBUILT[name]), target="graph")
    assert width(smaller, "scores") == CLASSES
    assert any("rewritten graph's" in check for check in report.checks)
    first, second = smaller(X), smaller(X)
    assert first[0] is not second[0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("built-in method", "copies hold the same result"),
        ("mapping proxy", "the tuple cannot be copied"),
        ("attribute of a tensor", "copies of the tuple lose what it holds"),
        ("list that hides its items", "copies of the tuple lose what it holds"),
    ],
)
def test_an_object_that_cannot_be_copied_is_no_result_of_a_graph(name: str, why: str) -> None:
    with pytest.raises(PolicyError, match=f'target "graph": .*{why}.*choose target "module"'):
        planc.compile(model_of(SEEN[name]), X, ratio=0.5, target="graph")
    _, _, report = pruned(model_of(SEEN[name]))
    assert any(f"not compared with the rewritten graph: {why}" in c for c in report.checks)


def test_a_result_that_leads_to_a_module_is_none_of_a_graph() -> None:
    model = head(lambda self, h: (functools.partial(self.value, h), self.scores(h)))
    with pytest.raises(PolicyError, match="is a Linear of the model's own"):
        planc.compile(model, X, ratio=0.5, target="graph")
    _, smaller, _ = pruned(model)
    assert width(smaller, "first") == 16


async def later(y: torch.Tensor) -> torch.Tensor:
    return y


def future(y: torch.Tensor) -> Any:
    found: Any = torch.futures.Future()  # type: ignore[no-untyped-call]
    found.set_result(y)
    return found


class Endless:
    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 1


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (future, r"result\[0\] is a torch.jit.Future, which cannot be looked into"),
        (later, r"result\[0\] is a coroutine, which cannot be looked into"),
        (torch.utils.dlpack.to_dlpack, r"result\[0\] is a PyCapsule, which cannot be looked into"),
        (lambda y: np.zeros(1, "f4,O"), r"result\[0\] is a numpy.ndarray"),
        (lambda y: Endless(), r"result\[0\] is a \S*Endless that has not ended after 10000 items"),
        (lambda y: Plain(it=itertools.count()), r"result\[0\].it is a \S*count that has not ended"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_by_its_type_and_place(wrap: Wrap, said: str) -> None:
    with pytest.raises(TraceError, match=f"Head could not be traced: {said}"):
        planc.trace(model_of(wrap), X)


def test_sizes_that_are_returned_stay_what_they_are() -> None:
    _, smaller, _ = pruned(head(lambda self, h: (self.value(h), h.shape[-1])))
    assert width(smaller, "first") == 16
    _, smaller, _ = pruned(head(lambda self, h: Plain(value=self.value(h), at=h.shape[0])))
    assert width(smaller, "first") == 8


def test_a_graph_computes_the_sizes_in_the_objects_that_it_returns() -> None:
    model = head(lambda self, h: Plain(y=self.value(h), batch=(h.shape[0], torch.Size([len(h)]))))
    _, smaller, _ = pruned(
        head(lambda self, h: Plain(y=self.value(h), shape=(h.shape[0], h.shape[0] + 1))),
        target="graph",
    )
    found = smaller(torch.cat([X, X]))
    assert found.y.shape == (4, 3)
    assert found.shape == (4, 5)
    assert pruned(model)[2].error is not None


class Settings:
    """Plain data that a model holds."""

    def __init__(self) -> None:
        self.hidden = 16
        self.name = "settings"


class Configured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()
        self.first, self.last = nn.Linear(8, self.settings.hidden), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.tanh(self.first(x)).reshape(-1, self.settings.hidden)
        return Plain(settings=self.settings, y=self.last(y))


@pytest.mark.long
def test_a_configuration_in_a_result_is_the_models_own() -> None:
    model = Configured().eval()
    _, smaller, report = pruned(model)
    assert width(smaller, "first") == 8
    assert any("a Settings of the model's own" in check for check in report.checks)


class State:
    """Something that a model takes back."""

    def __init__(self, h: torch.Tensor) -> None:
        self.h = h


@dataclasses.dataclass
class Step:
    y: torch.Tensor
    state: State | None = None


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, state: State | None = None) -> Step:
        h = torch.tanh(self.first(x))
        return Step(self.last(h), State(h))


class Other(Recurrent):
    def forward(self, x: torch.Tensor, state: int | None = None) -> Step:
        return super().forward(x)


@pytest.mark.parametrize("target", ["module", "graph"])
def test_state_that_a_module_takes_back_is_no_output(target: Any) -> None:
    _, smaller, report = pruned(Recurrent().eval(), target=target)
    assert width(smaller, "first") == 8
    assert report.error is not None
    _, smaller, _ = pruned(Other().eval(), target=target)
    assert width(smaller, "first") == 16


def test_a_run_that_returns_only_numbers_of_its_values_is_traced() -> None:
    model = head(lambda self, h: {"best": self.scores(h).argmax(-1).tolist()})
    _, smaller, _ = pruned(model)
    assert (width(smaller, "first"), width(smaller, "scores")) == (8, CLASSES)


def test_outputs_in_no_order_stand_in_that_of_the_run() -> None:
    model = head(lambda self, h: {self.scores(h), self.value(h), h})
    graphs = [planc.trace(model, X) for _ in range(5)]
    assert {graph.outputs for graph in graphs} == {graphs[0].outputs}
    assert isinstance(graphs[0].output_spec, Rebuilt)


LEAVES = st.sampled_from(["scores", "value", "number", "text", "none"])
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "list": list,
    "dict": lambda items: dict(enumerate(items)),
    "deque": collections.deque,
    "iterator": iter,
    "object": lambda items: Plain(items=items),
    "closure": lambda items: lambda: items,
    "partial": lambda items: functools.partial(print, *items),
    "dataclass": Frozen,
    "list subclass": Results,
    "named tuple": lambda items: Named(items[0], items[1:]),
}
TREES = st.recursive(
    LEAVES,
    lambda inner: st.tuples(
        st.sampled_from([*CONTAINERS]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(TREES)
def test_whatever_tensor_a_result_holds_is_an_output(tree: Any) -> None:
    def built(node: Any, tensors: Mapping[str, Any]) -> Any:
        if isinstance(node, str):
            return {"number": 3, "text": "a", "none": None, **tensors}[node]
        kind, inner = node
        return CONTAINERS[kind]([built(item, tensors) for item in inner])

    def result(self: Any, h: torch.Tensor) -> Any:
        y, z = self.scores(h), self.value(h)
        return built(tree, {"scores": y, "value": z}), h.sum()

    model = head(result)
    assert (reason(model) == "an output of the model") == ("scores" in str(tree))
    pruned(model)
