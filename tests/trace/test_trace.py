"""Tracing sees every operator of a run with where it stands, and leaves no trace of itself."""

from __future__ import annotations

import collections
import copy
import dataclasses
import inspect
import math
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import planc
from planc.errors import TraceError
from planc.ir.graph import Ref
from tests.support import small
from tests.support.small import MODELS, build, contents, several_call

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))  # the line of relu
        return self.last(x)  # the line of last


class Outer(nn.Module):
    def __init__(self, fn: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.inner = Inner()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> Any:
        return self.fn(self.inner(x))


def line_of(text: str, of: object = Inner) -> int:
    lines, first = inspect.getsourcelines(of)  # type: ignore[arg-type]
    return first + next(i for i, line in enumerate(lines) if text in line)


# -- what is recorded ------------------------------------------------------------------------


def test_each_call_says_its_module_and_its_line() -> None:
    graph = planc.trace(Outer(lambda x: x * 2).eval(), (X,))
    found = [(node.op, node.module, *node.source) for node in graph.nodes]
    here = __file__
    assert found == [
        ("aten.linear.default", "inner.first", here, line_of("the line of relu")),
        ("aten.relu.default", "inner", here, line_of("the line of relu")),
        ("aten.linear.default", "inner.last", here, line_of("the line of last")),
        ("aten.mul.Tensor", "", here, found[3][3]),
    ]
    assert "lambda x: x * 2" in Path(here).read_text().splitlines()[found[3][3] - 1]
    assert str(graph.nodes[1]) == f"aten.relu.default in inner ({here}:{found[1][3]})"


def test_parameters_and_buffers_have_all_their_names() -> None:
    model, inputs = build("tied")
    graph = planc.trace(model, inputs)
    assert graph.tensor("decode.weight") is graph.tensor("embed.weight")
    assert graph.tensor("embed.weight").names == ("embed.weight", "decode.weight")
    assert [t.name for t in graph.tensors] == list(dict(model.named_parameters()))
    model, inputs = build("residual")
    graph = planc.trace(model, inputs)
    assert {t.name: (t.shape, t.kind) for t in graph.tensors} == {
        **{n: (tuple(p.shape), "parameter") for n, p in model.named_parameters()},
        **{n: (tuple(b.shape), "buffer") for n, b in model.named_buffers()},
    }


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_a_real_run(name: str) -> None:
    model, inputs = build(name)
    graph = planc.trace(model, inputs)
    assert graph.frontend == "record (meta tensors)"
    expected = model(*inputs)
    (output,) = graph.outputs
    assert graph.values[output.id].shape == tuple(expected.shape)
    assert graph.values[output.id].dtype == str(expected.dtype).removeprefix("torch.")
    assert [graph.values[ref.id].shape for ref in graph.inputs] == [tuple(x.shape) for x in inputs]


def test_keyword_arguments_and_nested_inputs_are_inputs() -> None:
    model = small.randomised(small.Several())
    args, kwargs = several_call()
    graph = planc.trace(model, args, kwargs)
    shapes = [graph.values[ref.id].shape for ref in graph.inputs]
    assert shapes == [(2, 4), (2, 6), (3,)]
    assert graph.input_spec == (
        "tuple",
        ("tuple", ("tuple", ("tensor", (2, 4), "float32"), ("tensor", (2, 6), "float32"))),
        ("dict", ("bias", ("tensor", (3,), "float32")), ("double", ("value", True))),
    )


class Pair(NamedTuple):
    left: torch.Tensor
    right: Any


@pytest.mark.parametrize(
    ("wrap", "count"),
    [
        (lambda x: x, 1),
        (lambda x: (x, [x + 1, None], {"a": x + 2}), 3),
        (lambda x: Pair(x, Pair(x + 1, "text")), 2),
        (lambda x: small.Answer(x, {"h": (x + 1,)}), 2),
        (lambda x: collections.OrderedDict(out=x, other=3), 1),
        (lambda x: (x, x), 2),
    ],
)
def test_outputs_may_be_nested(wrap: Callable[[torch.Tensor], Any], count: int) -> None:
    model = small.randomised(Outer(wrap))
    graph = planc.trace(model, (X,))
    assert len(graph.outputs) == count
    assert type(graph.output_spec) is (Ref if count == 1 and wrap(X) is X else type(wrap(X)))
    for target in ("module", "graph"):
        plan = planc.compile(model, (X,), target=target)  # type: ignore[arg-type]
        smaller = planc.apply(plan, model)
        planc.verify(plan, model, smaller, (X,))
        found, expected = smaller(X), model(X)
        assert type(found) is type(expected)


def test_a_single_tensor_and_a_list_will_do_for_arguments() -> None:
    model = Outer(lambda x: x).eval()
    for args in (X, [X], (X,)):
        assert len(planc.trace(model, args).nodes) == 3


def test_equal_runs_give_equal_graphs() -> None:
    for name in ("residual", "vit"):
        model, inputs = build(name)
        first, again = planc.trace(model, inputs), planc.trace(copy.deepcopy(model), inputs)
        assert [str(node) for node in first.nodes] == [str(node) for node in again.nodes]
        assert [v.shape for v in first.values] == [v.shape for v in again.values]


# -- values ----------------------------------------------------------------------------------


class Deciding(nn.Module):
    """Its control flow depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.positive, self.negative = nn.Linear(4, 6), nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        x = self.positive(x) if x.sum() > 0 else self.negative(x)
        x = functional.dropout(self.norm(x), 0.1, self.training)
        return self.last(x + torch.rand(()))


def test_control_flow_that_depends_on_values_is_traced_on_real_ones() -> None:
    model = small.randomised(Deciding()).train()
    x = torch.ones(3, 4)
    before, state = contents(model), torch.get_rng_state()
    graph = planc.trace(model, (x,))
    assert graph.frontend == "record (real tensors)"
    used = {node.module for node in graph.nodes}
    assert "positive" in used
    assert "negative" not in used
    assert "negative" in {n.module for n in planc.trace(model, (-x,)).nodes}
    assert torch.equal(x, torch.ones(3, 4))
    assert contents(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_needs_values_is_pruned_and_verified() -> None:
    model = small.randomised(Deciding())
    x = torch.ones(3, 4)
    plan = planc.compile(model, (x,))
    smaller = planc.apply(plan, model, args=(x,))
    assert smaller.positive.out_features == 3
    assert smaller.negative.out_features == 6
    assert planc.verify(plan, model, smaller, (x,)).error is not None
    assert torch.equal(x, torch.ones(3, 4))


def test_sizes_that_depend_on_values_are_traced_on_real_ones() -> None:
    model = small.randomised(Outer(lambda x: x[x[:, 0] > -100].nonzero().shape[0] * x))
    graph = planc.trace(model, (X,))
    assert graph.frontend == "record (real tensors)"
    assert len(graph.outputs) == 1


def test_without_values_a_model_that_needs_them_is_refused() -> None:
    with torch.device("meta"):
        model = Deciding().eval()
    with pytest.raises(TraceError, match=r"Deciding: its control flow depends on the values"):
        planc.trace(model, (torch.ones(3, 4),))


# -- nothing is changed ----------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_tracing_changes_nothing(name: str, training: bool) -> None:
    model, inputs = build(name)
    model.train(training)
    seen: list[Any] = []
    hook = next(model.children()).register_forward_pre_hook(lambda *args: seen.append(args) or None)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, copies = contents(model), [x.clone() for x in inputs]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    sqrt, fast = math.sqrt, torch.backends.mha.get_fastpath_enabled()
    graph = planc.trace(model, inputs)
    assert graph.training is training
    assert contents(model) == before
    assert all(bool((p.grad == 1).all()) for p in model.parameters() if p.grad is not None)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert math.sqrt is sqrt
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert not torch.is_inference_mode_enabled()
    assert not any(args[0] is model for args in seen)
    hook.remove()


def fail(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("not today\nsecond line")  # the line of fail


@pytest.mark.parametrize("fast", [True, False])
def test_a_failure_changes_nothing_either(fast: bool) -> None:
    model = Outer(fail).eval()
    before, sqrt = contents(model), math.sqrt
    state, was = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        with pytest.raises(TraceError):
            planc.trace(model, (X,))
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
    assert contents(model) == before
    assert math.sqrt is sqrt
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_and_inference_mode_around_a_trace_do_not_matter() -> None:
    model, inputs = build("residual")
    plain = planc.compile(model, inputs)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            plan = planc.compile(model, inputs)
            smaller = planc.apply(plan, model)
            assert plan == plain
        assert all(p.requires_grad for p in smaller.parameters())


# -- the meta device -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "grouped", "vit", "attention"])
def test_models_on_the_meta_device_have_the_same_groups(name: str) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, criterion="random")
    empty = copy.deepcopy(model).to("meta")
    for given in (inputs, tuple(x.to("meta") for x in inputs)):
        assert planc.compile(empty, given, criterion="random") == plan
    smaller = planc.apply(plan, empty)
    assert all(p.is_meta for p in smaller.parameters())
    shapes = [p.shape for p in planc.apply(plan, model).parameters()]
    assert [p.shape for p in smaller.parameters()] == shapes


# -- what cannot be traced -------------------------------------------------------------------


def refusal(model: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TraceError) as error:
        planc.trace(model, args, kwargs)
    return str(error.value)


def test_a_failing_forward_is_named_with_its_line_and_reason() -> None:
    said = refusal(nn.Sequential(nn.Identity(), Outer(fail)).eval(), X)
    assert "Sequential could not be traced: in 1 (Outer" in said
    assert f"{__file__}:{line_of('the line of fail', fail)}" in said
    assert "ValueError: not today;" in said


@pytest.mark.parametrize(
    ("shape", "reason"), [((2, 5), "RuntimeError"), ((), "RuntimeError"), ((0,), "RuntimeError")]
)
def test_inputs_of_the_wrong_shape_are_named_with_the_module(
    shape: tuple[int, ...], reason: str
) -> None:
    said = refusal(Outer(lambda x: x).eval(), torch.zeros(shape))
    assert "in inner.first (Linear" in said
    assert f"{__file__}:{line_of('the line of relu')}" in said
    assert f"{reason}: " in said
    assert "check that the example inputs have the shapes and types that forward() expects" in said


def test_inputs_of_the_wrong_number_or_type_are_refused() -> None:
    model = Outer(lambda x: x).eval()
    assert "missing 1 required positional argument: 'x'" in refusal(model)
    assert "takes 2 positional arguments but 3 were given" in refusal(model, X, X)
    assert "unexpected keyword argument 'mask'" in refusal(model, X, mask=X)
    assert "in inner.first (Linear" in refusal(model, "text")
    for dtype, name in ((torch.int64, "int64"), (torch.float64, "float64")):
        said = refusal(model, X.to(dtype))
        assert "in inner.first (Linear" in said
        assert f"aten.linear.default of {name}, float32, float32, which must be of one type" in said
    embedding = nn.Sequential(nn.Embedding(4, 3)).eval()
    assert "in 0 (Embedding" in refusal(embedding, X)


def test_what_is_no_model_is_refused() -> None:
    assert refusal(Inner, X) == "model: expected an nn.Module, got type: build the model first"
    assert "got function" in refusal(fail, X)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = Outer(lambda x: x).eval()
    model.inner.lock = threading.Lock()
    said = refusal(model, X)
    assert "Outer could not be traced: it cannot be copied: TypeError: " in said
    assert "lock" in said


class Opaque:
    def __init__(self, x: Any) -> None:
        self.x = x


@dataclasses.dataclass
class Holder:
    inside: Any


@pytest.mark.parametrize(
    ("wrap", "what"),
    [
        (lambda x: 3, "int"),
        (lambda x: None, "NoneType"),
        (lambda x: Holder([Opaque("no tensor")]), "Holder"),
    ],
)
def test_a_model_that_returns_no_tensor_is_refused(
    wrap: Callable[[torch.Tensor], Any], what: str
) -> None:
    said = refusal(Outer(wrap).eval(), X)
    assert f"Outer could not be traced: it returns no tensor but a {what}" in said
    assert "tuples, lists, dicts or dataclasses" in said


def test_what_stand_ins_refuse_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TraceError, match="check that the example inputs"):
        planc.trace(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(3, 2)), torch.zeros(1, 3, 4, 4))
    assert not caplog.records
