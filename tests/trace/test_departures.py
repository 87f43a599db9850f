"""Values that leave torch or are kept after the run: they stay whole, with the reason."""

from __future__ import annotations

import copy
import ctypes
import io
import pickle
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.dlpack import from_dlpack, to_dlpack

import planc
from planc.compile.lossless import lossless
from planc.errors import PolicyError, TraceError, VerificationError
from planc.verify.outputs import difference, run
from tests.support.proving import randomise, reasons
from tests.trace.heads import CLASSES, Head, X, head, pruned, reason, width

Leave = Callable[[Any, torch.Tensor], Any]


def saved(tensor: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.save(tensor, file)
    return file.getvalue()


LEAVING: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "numpy": (lambda y: y.numpy(), "numpy()"),
    "forced": (lambda y: y.numpy(force=True), "numpy()"),
    "asarray": (np.asarray, "__array__()"),
    "ufunc": (lambda y: float(np.add.reduce(np.array(y), axis=None)), "__array__()"),
    "tolist": (lambda y: y.tolist(), "tolist()"),
    "text": (lambda y: str(y.numpy().shape), "numpy()"),
    "memory view": (lambda y: memoryview(y.numpy()), "numpy()"),
    "bytes": (lambda y: y.numpy().tobytes(), "numpy()"),
    "dlpack": (lambda y: np.from_dlpack(y), "DLPack"),
    "storage": (lambda y: y.untyped_storage(), "its storage"),
    "pickle": (pickle.dumps, "its storage"),
    "save": (saved, "its storage"),
    "pointer": (lambda y: bool(y.data_ptr()), "data_ptr()"),
}


@pytest.mark.parametrize("name", LEAVING)
def test_what_leaves_torch_stays_whole_where_it_leaves(name: str) -> None:
    way, how = LEAVING[name]
    if name == "save" and torch.save.__module__ != "torch.serialization":
        pytest.skip("another library has put its own function in place of torch.save")
    model = head(lambda self, h: (self.value(h), way(self.scores(h).detach())))
    plan, smaller, report = pruned(model)
    assert (width(smaller, "first"), width(smaller, "scores")) == (8, CLASSES)
    said = reason(model)
    assert said.startswith(f"leaves torch by {how} in the model (")
    assert re.search(rf"{Path(__file__).name}:\d+\)$", said)
    assert f"not compared with the rewritten graph: a value {said}" in report.checks
    assert report.error is not None
    assert planc.apply(plan, model.state_dict())["scores.weight"].shape == (CLASSES, 8)


@pytest.mark.parametrize("name", LEAVING)
def test_no_graph_holds_what_leaves_torch(name: str) -> None:
    way, how = LEAVING[name]
    if name == "save" and torch.save.__module__ != "torch.serialization":
        pytest.skip("another library has put its own function in place of torch.save")
    model = head(lambda self, h: (self.value(h), way(self.scores(h).detach())))
    with pytest.raises(PolicyError, match=f'target "graph": a value leaves.*{re.escape(how)}'):
        planc.compile(model, X, ratio=0.5, target="graph")


def test_explain_says_where_a_value_leaves() -> None:
    model = head(lambda self, h: (self.value(h), self.scores(h).tolist()))
    lines = planc.analyze(planc.trace(model, X)).explain("scores.weight", 0)
    assert any("leaves torch by tolist() in the model" in line for line in lines)


def sorted_outside(y: torch.Tensor) -> float:
    return float(np.sort(y.detach().numpy(), axis=None)[-1])


BETWEEN: dict[str, Leave] = {
    "a number": lambda self, h: self.value(h) + sorted_outside(self.scores(h)),
    "an array": lambda self, h: (
        self.value(h) * torch.from_numpy(np.tanh(self.scores(h).detach().numpy()[:, :3]))
    ),
    "a list": lambda self, h: self.value(h) * torch.tensor(self.scores(h).tolist())[:, :3],
    "a capsule": lambda self, h: (
        self.value(h) * from_dlpack(to_dlpack(self.scores(h).detach()))[:, :3]
    ),
    "an object with DLPack": lambda self, h: (
        self.value(h) * torch.from_dlpack(self.scores(h).detach())[:, :3]
    ),
    "pickled": lambda self, h: (
        self.value(h) * pickle.loads(pickle.dumps(self.scores(h).detach()))[:, :3]
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_goes_through_python_between_layers_stays_whole(name: str) -> None:
    model = head(BETWEEN[name])
    plan, smaller, report = pruned(model)
    assert (width(smaller, "first"), width(smaller, "scores")) == (8, CLASSES)
    assert report.error is not None
    assert torch.allclose(smaller(X), planc.mask(plan, model)(X), atol=1e-5)


def scaled_in_place(self: Any, h: torch.Tensor) -> torch.Tensor:
    h = h.detach()
    h.numpy()[:] *= np.arange(h.shape[1], dtype=h.numpy().dtype)
    return self.value(h)


def scaled_by_capsule(self: Any, h: torch.Tensor) -> torch.Tensor:
    h = h.detach()
    from_dlpack(to_dlpack(h)).mul_(torch.arange(16.0))
    return self.value(h)


def zeroed_by_pointer(self: Any, h: torch.Tensor) -> torch.Tensor:
    h = h.detach()
    ctypes.memset(h.data_ptr(), 0, 4)
    return self.value(h)


def filled(self: Any, h: torch.Tensor) -> torch.Tensor:
    empty = torch.zeros(2, 16)
    empty.numpy()[:] = h.detach().numpy()
    return self.value(empty)


def through_a_view(self: Any, h: torch.Tensor) -> torch.Tensor:
    h = h.detach()
    h.view(4, 8).numpy()[:] += np.arange(8, dtype=np.float32)
    return self.value(h)


@pytest.mark.parametrize(
    "leave", [scaled_in_place, scaled_by_capsule, zeroed_by_pointer, filled, through_a_view]
)
def test_what_is_written_outside_torch_stays_whole(leave: Leave) -> None:
    model = head(leave)
    _, smaller, report = pruned(model)
    assert width(smaller, "first") == 16
    assert torch.allclose(smaller(X), model(X), atol=1e-6)
    assert report.error is not None


def written_constant(self: Any, h: torch.Tensor) -> torch.Tensor:
    factors = torch.zeros(16)
    factors.numpy()[:] = np.arange(16)
    return self.value(h * factors)


def test_zeros_that_are_written_outside_torch_are_no_zeros() -> None:
    model = head(written_constant)
    ready, plan = lossless(model, X)
    assert torch.allclose(planc.apply(plan, ready)(X), model(X), atol=1e-6)
    assert width(planc.apply(plan, ready), "first") >= 15


def picked(self: Any, h: torch.Tensor) -> torch.Tensor:
    order = torch.zeros(16, dtype=torch.long)
    order.numpy()[:] = np.argsort(-h.detach().numpy()[0])
    return self.value(h[:, order])


def picked_by_array(self: Any, h: torch.Tensor) -> torch.Tensor:
    order = np.argsort(-h.detach().numpy()[0]).copy()
    return self.value(h[:, torch.from_numpy(order)])


@pytest.mark.parametrize("leave", [picked, picked_by_array])
def test_an_index_that_comes_from_outside_is_not_known(leave: Leave) -> None:
    model = head(leave)
    _, smaller, _ = pruned(model)
    assert width(smaller, "first") == 16
    assert torch.allclose(smaller(-X), model(-X), atol=1e-6)


def known(self: Any, h: torch.Tensor) -> torch.Tensor:
    table = torch.from_numpy(np.arange(3, dtype=np.float32))
    return self.value(h) * table + sum(torch.arange(4).tolist()) + float(torch.arange(3).numpy()[1])


def test_constants_that_leave_and_come_back_are_constants() -> None:
    _, smaller, report = pruned(head(known))
    assert width(smaller, "first") == 8
    assert "outputs equal the rewritten graph's" in str(report)
    assert not planc.trace(head(known), X).departures


def caught(self: Any, h: torch.Tensor) -> Any:
    try:
        return self.value(h), self.scores(h).detach().numpy()
    except Exception:
        return self.value(h)


def test_a_model_that_catches_the_error_of_stand_ins_is_run_on_real_tensors() -> None:
    graph = planc.trace(head(caught), X)
    assert graph.frontend == "record (real tensors)"
    assert len(graph.departures) == 1


def test_a_value_that_leaves_a_model_on_the_meta_device_is_refused() -> None:
    with pytest.raises(TraceError, match="on the meta device"):
        planc.trace(head(BETWEEN["an array"]).to("meta"), X.to("meta"))


def test_a_pruned_array_is_found() -> None:
    model = head(lambda self, h: (self.value(h), self.scores(h).detach().numpy()))
    _, smaller, _ = pruned(model)
    smaller.scores = nn.Linear(8, 5)
    outputs, expected = (run(m, ((X,), {})) for m in (smaller, model))
    with pytest.raises(VerificationError, match=r"output 1 \(result\[1\]\) has shape \(2, 5\)"):
        difference(outputs, expected, 10.0, "the original")


# -- what is kept ----------------------------------------------------------------------------------


class Keeping(Head):
    """Has places where something can be kept."""

    def __init__(self, leave: Leave) -> None:
        super().__init__(leave)
        self.last: Any = None
        self._last: Any = None
        self.store: list[Any] = []
        self._store: list[Any] = []
        self.named: dict[str, Any] = {}
        self.box = types.SimpleNamespace()
        self.inner = nn.Identity()


def keeping(leave: Leave) -> Keeping:
    model = Keeping(leave)
    randomise(model, seed=0)
    return model.eval()


KEPT: dict[str, tuple[Leave, str]] = {
    "attribute": (lambda self, h: setattr(self, "last", self.scores(h)), "last"),
    "list": (lambda self, h: self.store.append(self.scores(h)), "store[0]"),
    "dictionary": (lambda self, h: self.named.update(y=(self.scores(h),)), "named['y'][0]"),
    "object": (lambda self, h: setattr(self.box, "y", self.scores(h)), "box.y"),
    "part": (lambda self, h: setattr(self.inner, "seen", self.scores(h)), "inner.seen"),
    "closure": (
        lambda self, h: setattr(self, "later", (lambda y: lambda: y)(self.scores(h))),
        "later.<y>",
    ),
    "generator": (
        lambda self, h: setattr(self, "later", (y for y in [self.scores(h)])),
        "later.<tuple_iterator>.<tuple>[0]",
    ),
}


def and_value(keep: Leave) -> Leave:
    def leave(self: Any, h: torch.Tensor) -> torch.Tensor:
        keep(self, h)
        return self.value(h)

    return leave


@pytest.mark.parametrize("name", KEPT)
def test_what_modules_keep_of_a_run_stays_whole(name: str) -> None:
    keep, place = KEPT[name]
    model = keeping(and_value(keep))
    _, smaller, _ = pruned(model)
    assert (width(smaller, "first"), width(smaller, "scores")) == (8, CLASSES)
    assert reason(model) == f"kept after the run: {place}"


def test_what_a_hook_keeps_stays_whole() -> None:
    found: list[Any] = []

    def hook(module: nn.Module, args: Any, result: torch.Tensor) -> None:
        found.append(result)

    model = keeping(and_value(lambda self, h: self.scores(h)))
    model.scores.register_forward_hook(hook)
    assert reason(model) == "kept after the run: a hook of scores.<found>[0]"


FREE: dict[str, Leave] = {
    "private attribute": lambda self, h: setattr(self, "_last", self.scores(h)),
    "private list": lambda self, h: self._store.append(self.scores(h)),
    "private name in an object": lambda self, h: setattr(self.box, "_y", self.scores(h)),
    "something of the weights": lambda self, h: (
        self.named.update(w=self.scores.weight * 2),
        self.scores(h),
    ),
    "shapes and constants": lambda self, h: (
        self.named.update(shape=h.shape[:1], grid=torch.arange(3)),
        self.scores(h),
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_what_is_private_or_not_of_the_run_stays_free(name: str) -> None:
    model = keeping(and_value(FREE[name]))
    _, smaller, _ = pruned(model)
    assert (width(smaller, "first"), width(smaller, "scores")) == (8, 5)


class Batch:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.scores = nn.Linear(8, 16), nn.Linear(16, CLASSES)
        self.value = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, found: Any) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        if isinstance(found, dict):
            found["scores"] = self.scores(h)
        else:
            found.scores = self.scores(h)
        y: torch.Tensor = self.value(h)
        return y


@pytest.mark.parametrize("make", [dict, lambda: types.SimpleNamespace(n=1)])
def test_what_an_argument_holds_after_the_run_stays_whole(make: Callable[[], Any]) -> None:
    model = Writing().eval()
    plan = planc.compile(model, (X, make()), ratio=0.5)
    analysis = planc.analyze(planc.trace(model, (X, make())))
    assert plan.cuts["first.weight"].shape == (8, 8)
    assert plan.cuts["scores.weight"].shape == (CLASSES, 8)
    said = reasons(analysis, "scores.weight", 0)
    assert said.startswith("kept after the run: argument found")


def test_a_model_is_traced_as_before_its_copy_has_kept_anything() -> None:
    model = keeping(and_value(KEPT["list"][0]))
    before = copy.deepcopy(model.store)
    assert planc.trace(model, X).departures == planc.trace(model, X).departures
    assert model.store == before
