"""What the recorder knows of results is what torch's own kernels on meta tensors say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
    "another operator": (aten.erf.default, (empty(2, 3),)),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("inference", [False, True])
def test_a_result_looks_as_torch_says(name: str, inference: bool) -> None:
    func, args = KNOWN[name]
    with torch.inference_mode(inference):
        found, expected = known_result(func, args), func(*args)
    assert found is not None
    assert found is not args[0]
    assert (found.shape, found.stride(), found.dtype, found.device, found.is_inference()) == (
        *(expected.shape, expected.stride(), expected.dtype, expected.device),
        expected.is_inference(),
    )


@pytest.mark.parametrize("name", ["gelu_", "silu_", "hardswish_", "hardsigmoid_"])
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
