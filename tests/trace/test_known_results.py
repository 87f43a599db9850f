"""What the recorder knows of results is what torch's own kernels on meta tensors say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import planc
from planc.errors import TraceError
from planc.trace.known_results import known_result

aten = torch.ops.aten


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def norm(x: torch.Tensor, *sizes: int | None, training: bool = False, **kind: Any) -> Any:
    parameters = [None if n is None else empty(n, **kind) for n in sizes]
    return aten.batch_norm.default, (x, *parameters, training, 0.1, 1e-5, False)


def layer(x: torch.Tensor, shape: list[int], *parameters: Any) -> Any:
    return aten.layer_norm.default, (x, shape, *parameters)


HALF = torch.float16
X4 = empty(2, 3, 5, 5)
UNARY = (
    *("abs", "cos", "elu", "erf", "exp", "leaky_relu", "log", "mish", "neg", "reciprocal", "relu"),
    *("rsqrt", "sigmoid", "sin", "softplus", "sqrt", "square", "tanh", "hardtanh", "gelu", "silu"),
)
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
KNOWN = {
    "batch norm": norm(empty(2, 3, 4, 4), 3, 3, 3, 3),
    "batch norm of features": norm(empty(2, 3), 3, 3, 3, 3),
    "without scale and shift": norm(empty(2, 3, 4), None, None, 3, 3),
    "batch norm in half precision": norm(empty(2, 3, 4, dtype=HALF), 3, 3, 3, 3, dtype=HALF),
    "layer norm": layer(empty(2, 5, 3), [3], empty(3), empty(3), 1e-5, False),
    "layer norm over two dimensions": layer(empty(2, 5, 3), [5, 3], empty(5, 3)),
    "layer norm alone": layer(empty(2, 5, 3), [3]),
    "linear": (aten.linear.default, (empty(2, 5, 3), empty(4, 3), empty(4))),
    "linear of a vector": (aten.linear.default, (empty(3), empty(4, 3))),
    "linear in half precision": (
        aten.linear.default,
        (empty(2, 3, dtype=HALF), empty(4, 3, dtype=HALF), empty(4, dtype=HALF)),
    ),
    "gelu": (aten.gelu.default, (empty(2, 3),)),
    "silu": (aten.silu.default, (empty(0, 3),)),
    "hardswish": (aten.hardswish.default, (empty(2, 3),)),
    "hardsigmoid": (aten.hardsigmoid.default, (empty(),)),
}
OTHERS = {
    "statistics of the batch": norm(empty(2, 3, 4, 4), 3, 3, 3, 3, training=True),
    "no statistics": norm(empty(2, 3, 4, 4), 3, 3, None, None, training=True),
    "statistics of two types": norm(empty(2, 3, 4), 3, 3, 3, 3, dtype=torch.float64),
    "other channels": norm(empty(2, 3, 4), 3, 3, 4, 3),
    "channels last": norm(empty(2, 3, 4, 4).to(memory_format=torch.channels_last), 3, 3, 3, 3),
    "one dimension": norm(empty(3), 3, 3, 3, 3),
    "another shape": layer(empty(2, 5, 3), [5], empty(5)),
    "a scale of another shape": layer(empty(2, 5, 3), [3], empty(5)),
    "a shift of another shape": layer(empty(2, 5, 3), [3], empty(3), empty(1)),
    "a transposed layer": layer(empty(3, 5, 2).transpose(0, 2), [3]),
    "inputs that do not fit": (aten.linear.default, (empty(2, 5), empty(4, 3))),
    "a bias that does not fit": (aten.linear.default, (empty(2, 3), empty(4, 3), empty(3))),
    "a weight of one dimension": (aten.linear.default, (empty(2, 3), empty(3))),
    "a weight of three dimensions": (aten.linear.default, (empty(2, 3), empty(4, 3, 1))),
    "weights of another type": (aten.linear.default, (empty(2, 3), empty(4, 3, dtype=HALF))),
    "weights elsewhere": (aten.linear.default, (empty(2, 3), torch.zeros(4, 3))),
    "a real input": (aten.gelu.default, (torch.zeros(2, 3),)),
    "integers": (aten.silu.default, (empty(2, dtype=torch.int64),)),
    "a parameter": (aten.gelu.default, (torch.nn.Parameter(empty(2)),)),
    "another operator": (aten.erfinv.default, (empty(2, 3),)),
    "a convolution of other channels": (aten.conv2d.default, (X4, empty(5, 4, 1, 1))),
    "a convolution of uneven groups": (
        aten.conv2d.default,
        (empty(2, 4, 5, 5), empty(5, 2, 1, 1), None, [1], [0], [1], 2),
    ),
    "a kernel beyond the image": (aten.conv2d.default, (X4, empty(5, 3, 9, 9))),
    "a step of zero": (aten.conv2d.default, (X4, empty(5, 3, 1, 1), None, [0, 0])),
    "a negative padding": (aten.conv2d.default, (X4, empty(5, 3, 1, 1), None, [1], [-1])),
    "three steps for two dimensions": (aten.conv2d.default, (X4, empty(5, 3, 1, 1), None, [1] * 3)),
    "a convolution without a batch": (aten.conv2d.default, (empty(3, 5, 5), empty(5, 3, 1, 1))),
    "a convolution of another rank": (aten.conv1d.default, (X4, empty(5, 3, 1, 1))),
    "a bias of another size": (aten.conv2d.default, (X4, empty(5, 3, 1, 1), empty(4))),
    "a kernel of another type": (aten.conv2d.default, (X4, empty(5, 3, 1, 1, dtype=HALF))),
    "no images": (aten.conv2d.default, (empty(0, 3, 5, 5), empty(5, 3, 1, 1))),
    "sizes that do not match": (aten.add.Tensor, (empty(2, 3), empty(2, 4))),
    "a sum of two types": (aten.add.Tensor, (empty(2), empty(2, dtype=HALF))),
    "a product with a transposed tensor": (aten.mul.Tensor, (empty(2, 3), empty(3, 2).t())),
    "a product with a real tensor": (aten.mul.Tensor, (empty(2, 3), torch.ones(3))),
    "a product with a complex number": (aten.mul.Tensor, (empty(2, 3), 2j)),
    "bounds in the wrong order": (aten.hardtanh.default, (empty(2), 1.0, -1.0)),
    "a missing dimension": (aten.mean.dim, (empty(2, 3), [2])),
    "one dimension twice": (aten.mean.dim, (empty(2, 3), [1, -1])),
    "all dimensions": (aten.mean.dim, (empty(2, 3), None)),
    "a softmax over a missing dimension": (aten.softmax.int, (empty(2, 3), 2)),
    "a softmax in another precision": (aten.softmax.int, (empty(2, 3), 1, torch.float64)),
    "parts of other sizes": (aten.cat.default, ([empty(2, 3), empty(2, 4)], 0)),
    "parts of two types": (aten.cat.default, ([empty(2), empty(2, dtype=HALF)],)),
    "parts of two ranks": (aten.cat.default, ([empty(2, 3), empty(2)],)),
    "an empty part": (aten.cat.default, ([empty(2, 3), empty(0)],)),
    "no parts": (aten.cat.default, ([],)),
    "a stack of other sizes": (aten.stack.default, ([empty(2), empty(3)],)),
    "a stack over a missing dimension": (aten.stack.default, ([empty(2)] * 2, 2)),
    "rolled over all dimensions": (aten.roll.default, (empty(2, 3), [1])),
    "pooling of a vector": (aten.adaptive_avg_pool2d.default, (empty(3, 5), [1, 1])),
    "a stride of its own": (
        aten.relu.default,
        (torch.empty_strided((2, 1, 3), (3, 9, 1), device="meta"),),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("inference", [False, True])
def test_a_result_looks_as_torch_says(name: str, inference: bool) -> None:
    func, args = KNOWN[name]
    with torch.inference_mode(inference):
        found, expected = known_result(func, args), func(*args)
    assert found is not None
    assert found is not args[0]
    assert _looks(found) == _looks(expected)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_results_of_any_shape_look_as_torch_says(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 4), max_size=5))
    dtype = data.draw(st.sampled_from(TYPES))
    x = empty(*shape, dtype=dtype)
    calls: list[Any] = [(getattr(aten, name).default, (x,)) for name in UNARY]
    calls += [(aten.clamp_min.default, (x, 0.5)), (aten.pow.Tensor_Scalar, (x, 2))]
    other = [n if data.draw(st.booleans()) else 1 for n in shape][data.draw(st.integers(0, 4)) :]
    y = empty(*other, dtype=dtype)
    for name in ("add", "sub", "mul", "div"):
        func = getattr(aten, name).Tensor
        calls += [
            (func, (x, y)),
            (func, (y, x)),
            (func, (x, 3)),
            (func, (x, torch.nn.Parameter(y))),
        ]
    for dim in range(-len(shape), len(shape)):
        calls += [(aten.softmax.int, (x, dim)), (aten.log_softmax.int, (x, dim))]
        calls += [(aten.cat.default, ([x, x, x], dim)), (aten.stack.default, ([x, x], dim))]
        calls += [(aten.mean.dim, (x, [dim], keep)) for keep in (False, True)]
        calls += [(aten.roll.default, (x, [1], [dim])), (aten.mean.dim, (x, [*range(len(shape))]))]
    for func, args in calls:
        found = known_result(func, args)
        assert found is not None or 0 in shape or (args[0] is y and 0 in other), func
        assert found is None or _looks(found) == _looks(func(*args)), func


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_convolutions_and_pooling_look_as_torch_says(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 6), min_size=n, max_size=n)
    few = st.lists(st.integers(1, 3), min_size=n, max_size=n)
    one = st.lists(st.integers(1, 3), min_size=1, max_size=1)
    batch, groups, into, out = data.draw(st.tuples(*[st.integers(1, 3)] * 4))
    x = empty(batch, groups * into, *data.draw(sizes))
    weight = empty(groups * out, into, *data.draw(few))
    bias = data.draw(st.sampled_from([None, empty(groups * out)]))
    args = (x, weight, bias, *(data.draw(few | one) for _ in range(3)), groups)
    func = getattr(aten, f"conv{n}d").default
    try:
        expected = func(*args)
    except RuntimeError:
        assert known_result(func, args) is None
    else:
        found = known_result(func, args)
        assert found is not None
        assert _looks(found) == _looks(expected)
    if n == 2:
        pooled = aten.adaptive_avg_pool2d.default, (x, data.draw(few))
        found = known_result(*pooled)
        assert found is not None
        assert _looks(found) == _looks(pooled[0](*pooled[1]))


def _looks(x: torch.Tensor) -> Any:
    return x.shape, x.stride(), x.dtype, x.device, x.is_inference()


@pytest.mark.parametrize("name", ["gelu_", "silu_", "hardswish_", "hardsigmoid_", "hardtanh_"])
def test_in_place_operators_give_what_they_were_given(name: str) -> None:
    x = empty(2, 3)
    assert known_result(getattr(aten, name).default, (x,)) is x


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_plain_is_left_to_torch(name: str) -> None:
    assert known_result(*OTHERS[name]) is None


@pytest.mark.parametrize(
    "model",
    [
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(5)),
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.LayerNorm(4)),
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 2)),
    ],
)
def test_what_does_not_fit_fails_as_it_would_in_a_run(model: torch.nn.Module) -> None:
    with pytest.raises(TraceError, match=r"could not be traced: in 1 \("):
        planc.trace(model.eval(), torch.zeros(1, 3, 8, 8))
