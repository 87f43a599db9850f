"""Claims of state dicts that are pickles: read only where they are trusted, by ``weights_only``;
cut as they would be in memory, without ever being in it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import planc
from planc.cli import run
from planc.errors import FileError, MalformedFile, PlancError, ShardMismatch, StalePlan
from planc.files.pickles import archives
from tests.files.cut.test_files import PLAN, state_of

State = dict[str, torch.Tensor]


def state(dtype: str = "float32") -> State:
    return {name: torch.from_numpy(array) for name, array in state_of(PLAN, dtype).items()}


def applied(plan: planc.Plan, source: Path, target: Path) -> State:
    """The tensors of the one file that applying makes."""
    planc.apply_files(plan, source, target, trust_pickle=True)
    [path] = [target] if target.is_file() else target.glob("*.safetensors")
    return load_file(path)


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(as_bytes(found[name]), as_bytes(tensor)), name


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.pth", "a.ckpt"])
def test_a_pickle_is_read_only_when_it_is_trusted(tmp_path: Path, name: str) -> None:
    torch.save(state(), tmp_path / name)
    planc.save_plan(PLAN, tmp_path / "p.planc")
    command = ["apply", str(tmp_path / "p.planc"), "--weights", str(tmp_path / name)]
    out = tmp_path / "b.safetensors"
    with pytest.raises(FileError, match=rf"{name}: is a pickle.*run code.*--trust-pickle"):
        planc.apply_files(PLAN, tmp_path / name, out)
    assert run([*command, "-o", str(out)]) == 1
    assert not out.exists()
    assert run([*command, "--trust-pickle", "-o", str(out)]) == 0
    assert_same(load_file(out), planc.apply(PLAN, state()))
    assert planc.inspect(out).plan == PLAN


def test_it_gives_the_bytes_that_the_same_safetensors_file_gives(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pt")
    save_file(state(), tmp_path / "a.safetensors", {"format": "pt"})
    for source, target in (("a.pt", "b"), ("a.safetensors", "c")):
        out = tmp_path / f"{target}.safetensors"
        planc.apply_files(PLAN, tmp_path / source, out, trust_pickle=True)
    assert_same(load_file(tmp_path / "b.safetensors"), load_file(tmp_path / "c.safetensors"))


def sharded(directory: Path, whole: State) -> None:
    """As transformers wrote checkpoints before safetensors."""
    directory.mkdir()
    names, holder = list(whole), {}
    for i in range(3):
        file = f"pytorch_model-{i + 1:05d}-of-00003.bin"
        torch.save({name: whole[name] for name in names[2 * i : 2 * i + 2]}, directory / file)
        holder |= dict.fromkeys(names[2 * i : 2 * i + 2], file)
    table = {"metadata": {"total_size": 1}, "weight_map": holder}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(table))
    (directory / "config.json").write_text('{"inner": {"size": 16}}')


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_become_safetensors_with_their_index(tmp_path: Path, workers: int) -> None:
    whole = state("float16")
    sharded(tmp_path / "in", whole)
    out, kept = tmp_path / "out", tmp_path / "kept"
    with pytest.raises(FileError, match="is a pickle"):
        planc.apply_files(PLAN, tmp_path / "in", out)
    planc.apply_files(
        PLAN, tmp_path / "in", out, keep_removed=kept, workers=workers, trust_pickle=True
    )
    table = json.loads((out / "model.safetensors.index.json").read_text())
    expected = planc.apply(PLAN, whole)
    assert table["metadata"]["total_size"] == sum(t.nbytes for t in expected.values())
    files = set(table["weight_map"].values())
    assert files == {f"model-{i}-of-00003.safetensors" for i in ("00001", "00002", "00003")}
    assert {p.name for p in out.iterdir()} == {
        *files,
        "model.safetensors.index.json",
        "config.json",
    }
    found = {n: t for file in files for n, t in load_file(out / file).items()}
    assert_same({name: found[name] for name in expected}, expected)
    assert planc.restore_files(out, kept, tmp_path / "back")
    again = {n: t for file in files for n, t in load_file(tmp_path / "back" / file).items()}
    assert_same({name: again[name] for name in whole}, whole)


SHARDS: list[tuple[Callable[[Path], Any], type[PlancError]]] = [
    (lambda d: (d / "pytorch_model-00002-of-00003.bin").unlink(), ShardMismatch),
    (lambda d: torch.save({}, d / "pytorch_model-00002-of-00003.bin"), ShardMismatch),
    (lambda d: torch.save(state(), d / "pytorch_model-00002-of-00003.bin"), ShardMismatch),
    (lambda d: os.truncate(d / "pytorch_model-00002-of-00003.bin", 900), MalformedFile),
    (lambda d: (d / "other.bin.index.json").write_text("{}"), PlancError),
    (lambda d: (d / "pytorch_model.bin.index.json").unlink(), PlancError),
]


@pytest.mark.parametrize(("edit", "kind"), SHARDS)
def test_a_set_that_is_wrong_is_refused(
    tmp_path: Path, edit: Callable[[Path], Any], kind: type[PlancError]
) -> None:
    sharded(tmp_path / "in", state())
    edit(tmp_path / "in")
    with pytest.raises(kind):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", trust_pickle=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# what lies in memory in another way


def test_tensors_that_are_not_laid_out_in_c_order_are_read(tmp_path: Path) -> None:
    whole = state()
    for i, name in enumerate(whole):
        tensor = whole[name]
        if i % 3 == 0:
            whole[name] = tensor.t().contiguous().t()
        elif i % 3 == 1:
            whole[name] = torch.stack((tensor, tensor + 1), -1)[..., 0]
        else:
            whole[name] = torch.cat((tensor, tensor))[tensor.shape[0] :]
        assert torch.equal(whole[name], tensor)
    torch.save(whole, tmp_path / "a.pt")
    found = applied(PLAN, tmp_path / "a.pt", tmp_path / "b.safetensors")
    assert_same(found, planc.apply(PLAN, state()))


class Tied(nn.Module):
    """A weight with two names, buffers that no plan changes, a scalar and nothing at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(12, 8)
        self.inner = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 8))
        self.last = nn.Linear(8, 12, bias=False)
        self.last.weight = self.first.weight
        for name, value in (
            ("scalar", torch.tensor(3.5)),
            ("empty", torch.empty(0, 4)),
            ("flags", torch.tensor([True, False, True])),
            ("counts", torch.arange(5)),
            ("coarse", torch.randn(6).to(torch.float8_e4m3fn)),
        ):
            self.register_buffer(name, value)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(self.first(tokens)))


def build(dtype: torch.dtype = torch.bfloat16) -> Tied:
    torch.manual_seed(0)
    model = Tied().eval()
    model.inner.to(dtype)
    model.first.to(dtype)
    model.last.weight = model.first.weight
    return model


def test_ties_and_every_kind_of_tensor_keep_their_bits(tmp_path: Path) -> None:
    model = build()
    plan = planc.compile(model, torch.arange(4)[None], ratio=0.5)
    smaller = planc.apply(plan, model)
    assert smaller.last.weight is smaller.first.weight
    torch.save(model.state_dict(), tmp_path / "a.pt")
    save_file(
        {n: t for n, t in model.state_dict().items() if n != "last.weight"},
        tmp_path / "a.safetensors",
    )
    planc.save(tmp_path / "saved.safetensors", smaller, plan)
    expected = smaller.state_dict()
    for source, target in (("a.pt", "b.safetensors"), ("a.safetensors", "c.safetensors")):
        planc.apply_files(plan, tmp_path / source, tmp_path / target, trust_pickle=True)
    for file in ("saved.safetensors", "b.safetensors", "c.safetensors"):
        assert_same(
            load_file(tmp_path / file), {n: t for n, t in expected.items() if n != "last.weight"}
        )
        loaded = planc.load(tmp_path / file, build())
        assert loaded.last.weight is loaded.first.weight
        assert_same(dict(loaded.state_dict()), dict(expected))
        with torch.device("meta"):
            empty = build()
        assert_same(dict(planc.load(tmp_path / file, empty).state_dict()), dict(expected))


def test_pieces_of_every_kind_of_tensor_keep_their_bits(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    model = build()
    plan = planc.compile(model, torch.arange(4)[None], ratio=0.5)
    expected = planc.apply(plan, model).state_dict()
    state = dict(model.state_dict())
    dcp.save(state, checkpoint_id=tmp_path / "native", no_dist=True)  # a tied tensor, twice
    del state["last.weight"]
    writer = dcp.HuggingFaceStorageWriter(str(tmp_path / "pieces"), save_distributed=True)
    dcp.save(state, storage_writer=writer, no_dist=True)
    for form in ("native", "pieces"):
        planc.apply_files(plan, tmp_path / form, tmp_path / f"{form}2", trust_pickle=True)
        loaded = planc.load(tmp_path / f"{form}2", build())
        assert loaded.last.weight is loaded.first.weight
        assert_same(dict(loaded.state_dict()), dict(expected))


def test_a_tie_whose_names_hold_different_values_is_no_tie(tmp_path: Path) -> None:
    model = build()
    plan = planc.compile(model, torch.arange(4)[None], ratio=0.5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["last.weight"] += 1
    torch.save(state, tmp_path / "a.pt")
    planc.apply_files(plan, tmp_path / "a.pt", tmp_path / "b.safetensors", trust_pickle=True)
    with pytest.raises(planc.VerificationError, match="tied in the model, with several values"):
        planc.load(tmp_path / "b.safetensors", build())


def test_a_training_checkpoint_gives_its_state_dict(tmp_path: Path) -> None:
    whole = OrderedDict(state())
    held = {"epoch": 3, "nested": {"model": whole}, "optimizer": {"lr": 0.1, "momentum": [1.0]}}
    torch.save(held, tmp_path / "a.pt")
    done = planc.apply_files(PLAN, tmp_path / "a.pt", tmp_path / "b", trust_pickle=True)
    assert done.outside == ("epoch", "optimizer")
    assert_same(load_file(tmp_path / "b" / "a.safetensors"), planc.apply(PLAN, dict(whole)))
    torch.save(held | {"ema": dict(whole)}, tmp_path / "a.pt")
    with pytest.raises(PlancError, match=r"under 'nested\.model' and under 'ema'"):
        applied(PLAN, tmp_path / "a.pt", tmp_path / "c")


# what is damaged, hostile or strange


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


STRANGE = [
    ({**state(), "x": Bomb()}, MalformedFile),
    (state() | {"x": 3}, MalformedFile),
    (state() | {"x": torch.eye(3).to_sparse()}, MalformedFile),
    (state() | {"x": torch.zeros(3)}, StalePlan),
    ({name: tensor[:1] for name, tensor in state().items()}, StalePlan),
    ({"x": torch.zeros(3)}, StalePlan),
    ({}, StalePlan),
    (torch.zeros(3), (StalePlan, MalformedFile)),
    ([state()], (StalePlan, MalformedFile)),
    (nn.Linear(2, 2), MalformedFile),
    ({n: torch.complex(t, t).conj() for n, t in state().items()}, PlancError),
]


@pytest.mark.parametrize(("value", "kind"), STRANGE, ids=range(len(STRANGE)))
def test_what_is_no_state_dict_of_the_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, kind: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(kind):
        applied(PLAN, tmp_path / "a.pt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_the_format_of_old_torch_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(MalformedFile, match=r"a\.pt: not tensors in an archive of torch\.save"):
        applied(PLAN, tmp_path / "a.pt", tmp_path / "out")


def test_an_archive_that_was_compressed_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    with pytest.raises(MalformedFile, match="is compressed"):
        applied(PLAN, tmp_path / "b.pt", tmp_path / "out")


def test_what_an_archive_says_of_its_values_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state(), tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "big.pt").write_bytes(rewritten(tmp_path / "a.pt", "byteorder", b"big"))
    (tmp_path / "short.pt").write_bytes(rewritten(tmp_path / "a.pt", "data/0", b"short"))
    for name, words in (("big", "big-endian"), ("short", r"bytes at byte \d+, where the archive")):
        with pytest.raises(MalformedFile, match=words):
            applied(PLAN, tmp_path / f"{name}.pt", tmp_path / "out")
    assert (tmp_path / "a.pt").read_bytes() == content
    monkeypatch.setattr(archives, "getattr", lambda *_: None, raising=False)  # as torch once was
    with pytest.raises(PlancError, match="does not say where in"):
        applied(PLAN, tmp_path / "a.pt", tmp_path / "out")


def rewritten(path: Path, record: str, content: bytes) -> bytes:
    """An archive with another content of one of its records."""
    made = io.BytesIO()
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(made, "w") as other:
        for item in plain.infolist():
            new = content if item.filename.endswith(record) else plain.read(item)
            other.writestr(item.filename, new)
    return made.getvalue()


def test_files_that_differ_in_their_suffix_only_are_refused(tmp_path: Path) -> None:
    whole = state()
    sharded(tmp_path / "in", whole)
    index = tmp_path / "in" / "pytorch_model.bin.index.json"
    first, second = "pytorch_model-00001-of-00003", "pytorch_model-00002-of-00003"
    (tmp_path / "in" / f"{second}.bin").rename(tmp_path / "in" / f"{first}.pt")
    index.write_text(index.read_text().replace(f"{second}.bin", f"{first}.pt"))
    with pytest.raises(ShardMismatch, match="differ in their suffix only"):
        applied(PLAN, tmp_path / "in", tmp_path / "out")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "b.pt").write_bytes(content[:length])
        with pytest.raises(PlancError):
            applied(PLAN, tmp_path / "b.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_memory_does_not_grow_with_a_pickle(tmp_path: Path) -> None:
    """R12, by the peak of a process of its own: 192 MiB of tensors in a .bin file."""
    script = """
import torch, planc
from planc.plan.plan import TensorSpec, PlanGroup
from planc.ir.groups import Member, Run
from tests.support.strategies import complete
rows, width = 24 << 10, 2048
shapes = {"up": (rows, width), "down": (width, rows)}
torch.save({name: torch.zeros(shape).half() for name, shape in shapes.items()}, "a.bin")
tensors = tuple(TensorSpec((name,), shape, "parameter") for name, shape in shapes.items())
members = (Member("up", 0, (Run(0, rows, 0, 1),)), Member("down", 1, (Run(0, rows, 0, 1),)))
group = PlanGroup("up:0", "features", rows, 1, members, "", tuple(range(0, rows, 2)))
planc.save_plan(complete(tensors, (), (group,), ()), "p.planc")
"""
    measure = """
import torch
from planc.files.pickles.pickled import find_pickled
from planc.files.formats import load_plan
from planc.files.cut import apply_files
def peak():
    return int(next(l for l in open('/proc/self/status') if 'VmHWM' in l).split()[1])
plan = load_plan('p.planc')
before = peak()
apply_files(plan, 'a.bin', 'b.safetensors', trust_pickle=True)
print(peak() - before)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    for program in (script, measure):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert int(done.stdout) << 10 < 100 << 20
