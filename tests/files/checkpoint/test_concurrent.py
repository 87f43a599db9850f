"""Any number of threads and processes save to one path; a reader sees one checkpoint, never two."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.criteria.statistics import Statistics
from planc.errors import ShardMismatch
from planc.files.checkpoint.statistics import load_statistics, save_statistics
from planc.files.formats.latency import load_latency, save_latency
from planc.files.formats.masks import load_masks, save_masks
from planc.files.tensors import opened as module
from tests.crash.test_crash import Net
from tests.files.formats.test_latency_files import TABLE
from tests.masks.test_files import MASKS
from tests.support.strategies import example_plan

Work = Callable[[], object]
WRITERS, SAVES = 3, 8


def trained(seed: int) -> tuple[nn.Module, planc.Plan]:
    """One of several models of one structure; a buffer outside the state dict says which."""
    torch.manual_seed(seed)
    model = Net().eval()
    plan = planc.compile(model, torch.zeros(1, 4), ratio=0.5)
    smaller = planc.apply(plan, model)
    with torch.no_grad():
        smaller.get_parameter("up.weight").fill_(seed)
        smaller.get_buffer("scale").fill_(seed)
    return smaller, plan


MODELS = [trained(seed) for seed in range(WRITERS)]


def save(path: Path, number: int) -> None:
    planc.save(path, *MODELS[number], overwrite=True, shard_size=100)


def load(path: Path) -> None:
    found = planc.load(path, Net().eval())
    assert {*found.get_parameter("up.weight").unique().tolist()} == {float(found.scale[0])}


def statistics(number: int) -> Statistics:
    return Statistics(number + 1, (), {"inputs/w": torch.full((5, 3), float(number))})


CASES: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], Any]]] = {
    "a.planc": (lambda path, _: planc.save_plan(example_plan(), path), planc.load_plan),
    "a.masks": (lambda path, _: save_masks(MASKS, path), load_masks),
    "a.latency": (lambda path, _: save_latency(TABLE, path), load_latency),
    "a.stats": (lambda path, number: save_statistics(statistics(number), path), load_statistics),
    "a.safetensors": (save, load),
    "directory": (save, load),
}


def works(path: Path, errors: list[str]) -> list[Work]:
    write, read = CASES[path.name]
    write(path, 0)

    def often(work: Work) -> None:
        try:
            for _ in range(SAVES):
                work()
        except Exception:
            errors.append(traceback.format_exc())

    writers = [partial(often, partial(write, path, number)) for number in range(WRITERS)]
    return [*writers, partial(often, partial(read, path))]


@pytest.mark.parametrize("name", CASES)
def test_threads_save_to_one_path(name: str, tmp_path: Path) -> None:
    errors: list[str] = []
    threads = [threading.Thread(target=work) for work in works(tmp_path / name, errors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert_one(tmp_path / name)


@pytest.mark.parametrize("name", CASES)
def test_processes_save_to_one_path(name: str, tmp_path: Path) -> None:
    errors: list[str] = []
    children = []
    for work in works(tmp_path / name, errors):
        child = os.fork()
        if not child:
            work()
            (tmp_path.parent / f"{tmp_path.name}.{os.getpid()}").write_text("".join(errors))
            os._exit(bool(errors))
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    said = [(tmp_path.parent / f"{tmp_path.name}.{child}").read_text() for child in children]
    assert ended == [0] * len(children), "".join(said)
    assert_one(tmp_path / name)


def assert_one(path: Path) -> None:
    """A whole checkpoint, and nothing beside it but its own extra file."""
    CASES[path.name][1](path)
    own = {path.name}
    if path.suffix == ".safetensors":
        own = {shard.name for shard in planc.inspect(path).shards}
    assert {found.name for found in path.parent.iterdir()} == own


def test_a_checkpoint_that_is_replaced_meanwhile_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save(path, 0)
    real, count = module.decode_checkpoint, [0]

    def replaced(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] == 1:
            save(path, 1)  # whose extra file takes the place of the first
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, "decode_checkpoint", replaced)
        load(path)
    assert count[0] > 1


@pytest.mark.parametrize("name", ["a.safetensors", "directory"])
def test_what_stays_broken_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save(path, 0)
    next(tmp_path.rglob("*.planc-extra")).unlink()
    with pytest.raises(ShardMismatch, match="is missing"):
        load(path)
    with pytest.raises(FileNotFoundError):
        planc.inspect(tmp_path / "none")


def test_extra_files_of_others_stay(tmp_path: Path) -> None:
    others = [f"a-{'0' * 16}.planc-extra", f"a-{'0' * 15}.planc-extra", "a-b.planc-extra"]
    for name in others:
        (tmp_path / name).write_bytes(b"another's")
    save(tmp_path / "b.safetensors", 0)
    [extra] = tmp_path.glob("b-*.planc-extra")
    (tmp_path / f"a-{'1' * 16}.planc-extra").symlink_to(extra)
    save(tmp_path / "a.safetensors", 0)
    save(tmp_path / "a.safetensors", 1)
    found = {path.name for path in tmp_path.glob("a-*")}
    assert found >= {*others, f"a-{'1' * 16}.planc-extra"}
    assert len(found) == len(others) + 2


@pytest.mark.parametrize("length", [55, 56, 243])
def test_extra_files_of_long_names_fit_a_file_system(length: int, tmp_path: Path) -> None:
    one, other = (tmp_path / f"{'x' * (length - 1)}{end}.safetensors" for end in "ab")
    for number in (0, 1):
        save(one, number)
        save(other, number)
    for path in (one, other):
        load(path)
    assert len(list(tmp_path.iterdir())) == 4


def test_an_extra_file_stays_where_the_checkpoint_became_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from planc.files.checkpoint import extras
    from planc.files.disk.limits import DEFAULT

    save(tmp_path / "a.safetensors", 0)
    (tmp_path / "a.safetensors").write_bytes(b"another program's")
    before = sorted(tmp_path.iterdir())
    extras.drop_old_extras(tmp_path / "a.safetensors", DEFAULT)
    assert sorted(tmp_path.iterdir()) == before
