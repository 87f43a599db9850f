"""Claims of files given by mistake: each is named by its kind, with its use."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import planc
from planc.errors import FileError, MalformedFile, NotAPlancFile
from planc.files.formats.envelope import KINDS, seal
from planc.files.formats.nature import is_pickle, nature
from tests.support.strategies import example_plan


def saved(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return stream.getvalue()


STATE = {"w": torch.zeros(3)}
FILES = {
    "a PyTorch file (.pt)": saved(STATE),
    "a zip archive": zipped(),
    "a safetensors file": save({"w": np.zeros(3, "f4")}),
    "JSON": json.dumps({"groups": []}, indent=1).encode(),
    "an HTML page": b"\n<!DOCTYPE html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a GGUF file": b"GGUF\3\0\0\0",
    "a gzip file": b"\x1f\x8b\x08",
    "an empty file": b"",
    "text": "a word, cut within the last letter: \u00e9".encode()[:-1],
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_program_is_named_where_a_plan_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(FILES[name])
    found, use = nature(FILES[name][:512])
    assert found == name
    with pytest.raises(NotAPlancFile) as refusal:
        planc.load_plan(tmp_path / "a")
    assert str(refusal.value) == f"{tmp_path / 'a'}: is {name}, not a plan; {use}"


@pytest.mark.parametrize("name", [name for name in FILES if name != "a safetensors file"])
def test_a_file_of_another_kind_is_named_where_weights_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(FILES[name])
    with pytest.raises(MalformedFile, match="not a safetensors file; ") as refusal:
        planc.inspect(tmp_path / "a")
    assert str(refusal.value).startswith(f"{tmp_path / 'a'}: is {name}, ")


def test_old_pickles_are_pytorch_files(tmp_path: Path) -> None:
    old = saved(STATE, _use_new_zipfile_serialization=False)
    assert nature(old)[0] == nature(pickle.dumps(STATE, 4))[0] == "a PyTorch file (.pt)"
    for content, expected in ((old, True), (FILES["a zip archive"], False), (b"", False)):
        (tmp_path / "a").write_bytes(content)
        assert is_pickle(tmp_path / "a") == expected
    assert not is_pickle(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_planc_files_are_named_where_others_are_read(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(seal(kind, b"body"))
    with pytest.raises(FileError, match="not a safetensors file"):
        planc.StoredWeights(tmp_path / "a")
    if kind != b"planc/plan":
        with pytest.raises(NotAPlancFile, match=f"is {KINDS[kind].name}, not a plan; "):
            planc.load_plan(tmp_path / "a")


@pytest.mark.parametrize("start", [bytes(3), b"\x80\6", b"\x80", b"PK\5\6", bytes(8), b"a\xff"])
def test_unknown_content_has_no_name(start: bytes) -> None:
    assert nature(start) == ("", "")


@pytest.mark.parametrize("length", [0x280, 0x580, 0x8B1F, 0x4B50, 0x3C, 0x7B])
def test_a_safetensors_file_is_one_whatever_its_length_looks_like(length: int) -> None:
    assert nature(length.to_bytes(8, "little") + b'{"w":')[0] == "a safetensors file"


def test_a_plan_is_read_as_before(tmp_path: Path) -> None:
    planc.save_plan(example_plan(), tmp_path / "p")
    assert planc.load_plan(tmp_path / "p") == example_plan()
