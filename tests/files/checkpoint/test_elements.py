"""Claims of tensors as the elements of files: dtypes have the names that safetensors gives them,
values are bytes in C order, and what has neither is refused by name.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save
from torch import nn

from planc.errors import PlancError
from planc.files.checkpoint.elements import dtype_name, dtypes_of, torch_dtype
from planc.modules.memory import bytes_of, memory_of


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2).to_sparse(), "w: a torch.sparse_coo tensor cannot be saved"),
        (torch.zeros(2, device="meta"), "w: is on the meta device and has no values to save"),
        (torch.zeros(2, dtype=torch.complex128), "w: safetensors has no torch.complex128"),
        (torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), "w: a torch.strided"),
    ],
)
def test_a_tensor_without_plain_values_is_refused(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(PlancError, match=words):
        dtype_name(tensor, "w")


@pytest.mark.parametrize(
    "name",
    [
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    ],
)
def test_dtypes_have_the_names_that_safetensors_writes(name: str) -> None:
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip("an older torch has fewer")
    content = save({"w": torch.empty(2, dtype=dtype)})
    length = int.from_bytes(content[:8], "little")
    written = json.loads(content[8 : 8 + length])["w"]["dtype"]
    assert dtype_name(torch.empty(1, dtype=dtype), "w") == written
    assert torch_dtype(written, "w") is dtype


def test_a_dtype_that_torch_lacks_is_named() -> None:
    with pytest.raises(PlancError, match=r"w: torch 2\..* has no dtype for F4"):
        torch_dtype("F4", "w")


def test_an_older_torch_has_fewer_dtypes() -> None:
    older = SimpleNamespace(bool=torch.bool, float32=torch.float32)
    assert dtypes_of(older) == {"BOOL": torch.bool, "F32": torch.float32}


def test_values_are_bytes_in_c_order_whatever_the_layout() -> None:
    plain = torch.arange(6, dtype=torch.int16).reshape(2, 3)
    twisted = plain.t().contiguous().t()
    assert bytes(bytes_of(twisted)) == bytes(bytes_of(plain)) == b"\0\0\1\0\2\0\3\0\4\0\5\0"
    conjugate = torch.tensor([1 + 2j]).conj()
    assert bytes(bytes_of(conjugate)) == bytes(bytes_of(torch.tensor([1 - 2j])))
    assert bytes(bytes_of(conjugate.imag)) == bytes(bytes_of(torch.tensor([-2.0])))
    assert bytes(bytes_of(torch.zeros(0, 3))) == b""
    assert bytes(bytes_of(torch.tensor(7, dtype=torch.uint8))) == b"\7"
    assert bytes(bytes_of(nn.Parameter(torch.zeros(1)))) == bytes(4)


def test_memory_to_write_into_is_that_of_the_tensor() -> None:
    tensor = torch.zeros(2, 2, dtype=torch.int16)
    memory = memory_of(tensor)
    assert memory is not None
    memory[:] = range(8)
    assert tensor.tolist() == [[256, 770], [1284, 1798]]
    one = torch.zeros(4)[::4]  # whose stride says nothing
    memory = memory_of(one)
    assert memory is not None
    memory[:] = list(bytes_of(torch.ones(1)))
    assert one.tolist() == [1]
    assert memory_of(tensor.t()) is None
    assert memory_of(tensor[:0]) is None
    assert memory_of(tensor.to("meta")) is None
    assert memory_of(nn.Parameter(torch.zeros(1))) is not None
