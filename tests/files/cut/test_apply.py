"""Claims of applying a plan to files as a whole: what is said of it, what stands beside it, what an
interrupted run is about, and that ranks agree.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import FileError, LimitExceeded, PlancError, ShardMismatch, StalePlan
from planc.files.cut import Applied, apply
from planc.files.cut.ranks import Ranks
from planc.files.disk import staging
from planc.files.disk.limits import Limits
from planc.files.tensors.opened import open_checkpoint
from planc.files.tensors.shards import find_shards
from tests.files.cut import test_layout
from tests.files.cut.test_layout import FILES, PLAN, WHOLE, plan_of
from tests.files.cut.threads import in_threads

source = test_layout.source  # a fixture
INDEX = "m.safetensors.index.json"
BEFORE = sum(array.nbytes for array in WHOLE.values())
AFTER = 12 + 2 + 40 + 3


class Interrupted(BaseException):
    """What a run is stopped with."""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def one(folder: Path) -> Path:
    """A single file, beside others."""
    (folder / "one").mkdir()
    save_file(WHOLE, folder / "one" / "a.safetensors")
    (folder / "one" / "config.json").write_text('{"width": 9}')
    return folder / "one" / "a.safetensors"


def test_a_run_says_what_it_has_done(source: Path, tmp_path: Path) -> None:
    done = planc.apply_files(PLAN, source, tmp_path / "out")
    assert done == Applied(BEFORE, AFTER, 3, 3, described=True, outside=())
    (source / "config.json").write_text("{}")
    done = planc.apply_files(PLAN, source, tmp_path / "two")
    assert done == Applied(BEFORE, AFTER, 3, 3, described=False, outside=())
    done = planc.apply_files(PLAN, one(tmp_path), tmp_path / "a.safetensors")
    assert done == Applied(BEFORE, AFTER, 1, 1, described=True, outside=())


@pytest.mark.parametrize("key", ["architectures", "architecture", "model_type"])
def test_a_configuration_of_another_model_is_written_only_if_told(
    key: str, source: Path, tmp_path: Path
) -> None:
    (source / "config.json").write_text(json.dumps({key: "Net"}))
    with pytest.raises(PlancError, match=r"config\.json cannot describe the result of this plan"):
        planc.apply_files(PLAN, source, tmp_path / "two")
    assert not (tmp_path / "two").exists()
    assert not planc.apply_files(PLAN, source, tmp_path / "two", stale_config=True).described
    (source / "config.json").write_text("no JSON")
    assert not planc.apply_files(PLAN, source, tmp_path / "three").described


def test_one_file_becomes_a_file_or_a_directory_of_its_own(tmp_path: Path) -> None:
    path = one(tmp_path)
    planc.apply_files(PLAN, path, tmp_path / "b.safetensors")
    assert load_file(tmp_path / "b.safetensors")["bias"].tolist() == [0, 3]
    opened = open_checkpoint(tmp_path / "b.safetensors")
    digests = {t.names[0]: t.digest for t in opened.checkpoint.tensors}
    assert digests["bias"] == sha256(bytes([0, 3])).digest()
    planc.apply_files(PLAN, path, tmp_path / "b.safetensors")  # files are replaced
    planc.apply_files(PLAN, path, tmp_path / "b")
    assert names(tmp_path / "b") == ["a.safetensors"]  # what stands beside it is not its own
    content = (tmp_path / "b" / "a.safetensors").read_bytes()
    assert load_file(tmp_path / "b" / "a.safetensors")["bias"].tolist() == [0, 3]
    planc.apply_files(PLAN, path.parent, tmp_path / "c.safetensors")
    assert names(tmp_path / "c.safetensors") == ["a.safetensors", "config.json"]
    assert (tmp_path / "c.safetensors" / "a.safetensors").read_bytes() == content


def test_an_index_leads_to_its_directory(source: Path, tmp_path: Path) -> None:
    (source / "vocab.txt").write_text("a b")
    done = planc.apply_files(PLAN, source / INDEX, tmp_path / "out.safetensors")
    assert done.shards == 3
    assert names(tmp_path / "out.safetensors") == sorted([*FILES, INDEX, "vocab.txt"])


def test_what_is_there_is_refused_before_anything_is_kept(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(PlancError, match="out exists"):
        planc.apply_files(PLAN, source, tmp_path / "out", keep_removed=tmp_path / "kept")
    assert names(tmp_path) == ["in", "out"]
    planc.apply_files(PLAN, source, tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == sorted([*FILES, INDEX])


def test_what_is_read_is_not_replaced(source: Path, tmp_path: Path) -> None:
    path = one(tmp_path)
    for place, target in ((source, source), (path, path), (source, source / "1.safetensors")):
        with pytest.raises(PlancError, match=f"{target} is what is read"):
            planc.apply_files(PLAN, place, target, overwrite=True)


def test_a_pickle_is_not_read_without_trust(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"code")
    with pytest.raises(FileError, match="is a pickle"):
        planc.apply_files(PLAN, tmp_path / "a.pt", tmp_path / "b.safetensors")


def test_files_of_another_model_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StalePlan, match=f"^{source}: .*up: expected shape"):
        planc.apply_files(plan_of(8), source, tmp_path / "out")


def test_a_result_through_a_link_goes_where_it_leads(source: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "kept").mkdir()
    (tmp_path / "also").symlink_to(tmp_path / "kept")
    planc.apply_files(PLAN, source, tmp_path / "link", keep_removed=tmp_path / "also")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == sorted([*FILES, INDEX])
    assert "removed.planc" in names(tmp_path / "kept")


def test_a_configuration_beyond_the_limits_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "config.json").write_text(json.dumps({"x": "y" * 1000}))
    planc.apply_files(PLAN, source, tmp_path / "out", limits=Limits(index=1100))
    with pytest.raises(LimitExceeded, match=r"config\.json"):
        planc.apply_files(PLAN, source, tmp_path / "more", limits=Limits(index=900))


# interrupted runs


def interrupted(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has cut all shards."""

    def stop(*_: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(apply, "finish_first", stop)
        with pytest.raises(Interrupted):
            planc.apply_files(PLAN, source, target)
    assert not target.exists()


def test_the_next_run_goes_on_where_one_was_interrupted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(source, tmp_path / "out", monkeypatch)
    assert planc.apply_files(PLAN, source, tmp_path / "out").cut == 1  # which has the record
    planc.apply_files(PLAN, source, tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert names(tmp_path) == ["in", "out", "whole"]


@pytest.mark.parametrize("change", ["plan", "time", "name", "header"])
def test_a_run_about_something_else_begins_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    interrupted(source, tmp_path / "out", monkeypatch)
    plan, file = PLAN, source / "2.safetensors"
    if change == "plan":
        plan = plan_of(removed=(0, 1))
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "name":
        file.rename(source / "4.safetensors")
        table = json.loads((source / INDEX).read_text())
        table["weight_map"]["down"] = "4.safetensors"
        (source / INDEX).write_text(json.dumps(table))
    else:
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        save_file({"down": WHOLE["down"]}, file, {"format": "np", "of": "2.safetensors"})
        os.utime(file, ns=times)
    assert planc.apply_files(plan, source, tmp_path / "out").cut == 3


def test_what_a_run_is_about_names_the_files_as_they_are(source: Path) -> None:
    found = find_shards(source)
    seen = {apply._identity(b"plan", found), apply._identity(b"other", found)}
    assert apply._identity(b"plan", found) in seen
    for file in FILES:
        with (source / file).open("ab") as grown:
            grown.write(b"x")
        os.utime(source / file, ns=(5, 5))
        seen.add(apply._identity(b"plan", found))
    assert len(seen) == 5


# ranks


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_write_what_one_process_writes(source: Path, tmp_path: Path, size: int) -> None:
    (source / "vocab.txt").write_text("a b")
    target, kept = tmp_path / "out", tmp_path / "kept"
    found = in_threads(
        size, lambda r: planc.apply_files(PLAN, source, target, ranks=r, keep_removed=kept)
    )
    assert found == [Applied(BEFORE, AFTER, 3, 3)] * size
    planc.apply_files(PLAN, source, tmp_path / "whole", keep_removed=tmp_path / "kept2")
    for one_of, other in ((target, tmp_path / "whole"), (kept, tmp_path / "kept2")):
        assert names(one_of) == names(other)
        for path in other.iterdir():
            assert (one_of / path.name).read_bytes() == path.read_bytes()
    assert names(tmp_path) == ["in", "kept", "kept2", "out", "whole"]


def test_the_first_of_ranks_writes_a_single_file(tmp_path: Path) -> None:
    path, target = one(tmp_path), tmp_path / "b.safetensors"
    found = in_threads(2, lambda r: planc.apply_files(PLAN, path, target, ranks=r))
    assert found == [Applied(BEFORE, AFTER, 1, 1)] * 2
    assert load_file(target)["bias"].tolist() == [0, 3]


@pytest.mark.parametrize(("size", "others"), [(1, 0), (2, 1)])
def test_only_processes_of_a_job_are_let_in(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, others: int
) -> None:
    real_joining, real_finish, target = apply.joining, apply.finish_first, tmp_path / "out"
    joined: list[Path] = []
    refused: list[bool] = []

    def joining(place: Path) -> Any:
        joined.append(place)
        return real_joining(place)

    def finish(*arguments: Any) -> None:
        try:
            with real_joining(target):
                refused.append(False)
        except PlancError:
            refused.append(True)
        real_finish(*arguments)

    monkeypatch.setattr(apply, "joining", joining)
    monkeypatch.setattr(apply, "finish_first", finish)
    found = in_threads(size, lambda r: planc.apply_files(PLAN, source, target, ranks=r))
    assert found == [Applied(BEFORE, AFTER, 3, 3)] * size
    assert joined == [target] * others
    assert refused == [size == 1]


def test_a_result_that_cannot_take_its_place_is_none_on_any_rank(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(*_: Any) -> None:
        raise OSError("the rename failed")

    monkeypatch.setattr(staging, "settle", settle)
    found = in_threads(2, lambda r: planc.apply_files(PLAN, source, tmp_path / "out", ranks=r))
    assert [str(error) for error in found] == ["the rename failed", "rank 0: the rename failed"]


@pytest.mark.parametrize("differs", ["plan", "files"])
def test_ranks_about_different_things_are_refused(
    source: Path, tmp_path: Path, differs: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file, held in FILES.items():
        save_file({name: WHOLE[name] for name in held}, other / file, {"format": "np"})
    (other / INDEX).write_text((source / INDEX).read_text())

    def work(ranks: Ranks) -> Any:
        last = ranks.rank == 2
        plan = plan_of(removed=(0, 1)) if last and differs == "plan" else PLAN
        place = other if last and differs == "files" else source
        return planc.apply_files(plan, place, tmp_path / "out", ranks=ranks)

    found = in_threads(3, work)
    words = "rank 2: has another plan or other files than rank 0; start all with the same"
    assert [str(error) for error in found] == [words] * 3
    assert not (tmp_path / "out").exists()


def test_a_failure_of_one_rank_is_one_of_all(source: Path, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> Any:
        limits = Limits(tensors=1) if ranks.rank else Limits()
        return planc.apply_files(PLAN, source, tmp_path / "out", ranks=ranks, limits=limits)

    first, second = in_threads(2, work)
    assert isinstance(second, LimitExceeded)
    assert str(first) == f"rank 1: {second}"


def test_a_shard_that_changes_meanwhile_leaves_no_result(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = apply.lay_out

    def changing(*arguments: Any) -> Any:
        layout = real(*arguments)
        save_file({"same": np.zeros(3, np.uint8)}, source / "3.safetensors")
        return layout

    monkeypatch.setattr(apply, "lay_out", changing)
    with pytest.raises(ShardMismatch, match=r"3\.safetensors: was changed"):
        planc.apply_files(PLAN, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
