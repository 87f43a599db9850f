"""Saving a pruned model with its plan as a checkpoint.

Everything is checked before the first byte is written. Every file is written under a temporary name
and renamed: after a return the new checkpoint is on the disk, after an error the old one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from planc.apply.matching import result_difference
from planc.errors import PlancError, StalePlan
from planc.files.checkpoint.contents import Content, content_of
from planc.files.checkpoint.extras import drop_old_extras, extra_name
from planc.files.checkpoint.optimizers import OPTIMIZER, optimizer_contents
from planc.files.checkpoint.values import encoded
from planc.files.checkpoint.values import modules_of as stored_modules
from planc.files.disk.atomic import replacing
from planc.files.disk.beside import locked
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats import encode_plan
from planc.files.formats.checkpoint import (
    KEY,
    Checkpoint,
    Part,
    StoredModule,
    StoredShard,
    StoredTensor,
    encode_checkpoint,
    encode_part,
)
from planc.files.tensors.header import Entry, Header, aligned, place, write_header
from planc.files.tensors.indexing import with_own_size, write_index
from planc.files.tensors.shards import (
    INDEX_SUFFIX,
    SHARD_SIZE,
    SUFFIX,
    Index,
    check_names,
)
from planc.files.tensors.writer import TensorWriter
from planc.modules.given import module
from planc.modules.memory import bytes_of
from planc.modules.tables import tensors_of
from planc.modules.tree import owned_tensors
from planc.plan.arguments import a_count, a_mapping, a_path, a_plan, instance, optional, takes
from planc.plan.fingerprint import first_difference, tensors_after
from planc.plan.origin import own_tensors
from planc.plan.plan import Plan

_FORMAT = {"format": "pt"}  # expected in the metadata by other readers


@takes(
    path=a_path,
    model=module,
    plan=a_plan,
    optimizer=optional(
        instance("an optimizer of torch.optim", torch.optim.Optimizer, advice="leave it out")
    ),
    metadata=optional(a_mapping),
    shard_size=a_count,
    limits=limits_given,
)
def save(
    path: str | os.PathLike[str],
    model: nn.Module,
    plan: Plan,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metadata: Mapping[str, Any] | None = None,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
) -> None:
    """Write a checkpoint of a model produced by ``plan``.

    The file holds the state dict, with tied tensors once. Non-persistent buffers and the
    optimizer's tensors go to a second file with the suffix ``.planc-extra``.

    Args:
        path: a name ending in ``.safetensors`` for one file, replaced if it exists; any other name
            for a directory of ``model.safetensors``, or shards and their index.
        model: the result of ``apply(plan, original)``, trained since or not.
        plan: the plan.
        optimizer: an optimizer of all or some of the model's own parameters, to be saved with its
            state; see :func:`planc.load_optimizer`.
        metadata: plain data of your own, returned by :func:`planc.inspect`; keys must not begin
            with ``planc.``.
        shard_size: maximum bytes of tensors in one file of a directory; a larger tensor has a file
            of its own.
        overwrite: replace an existing directory.
        limits: bounds on the record.

    Raises:
        StalePlan: the plan does not produce this model; names the first difference.
        PlancError: a tensor cannot be saved; a parameter of the optimizer is not the model's; the
            directory exists; a key is reserved; the file name is not valid on every system.
        FileError: the record is larger than ``limits``.
        OSError: a file cannot be written, for example because the disk is full.
    """
    target = Path(path)
    _check_result(plan, model)
    state, extra = _contents(model)
    user = tuple((str(name), encoded(value)) for name, value in sorted((metadata or {}).items()))
    for name, _ in user:
        if name.startswith("planc."):
            raise PlancError(f"metadata {name!r}: names that begin with 'planc.' are planc's own")
    if optimizer is not None:
        numbers, tensors = optimizer_contents(optimizer, model)
        user, extra = (*user, (OPTIMIZER, numbers)), [*extra, *tensors]
    draft = _Draft(plan, encode_plan(plan, limits=limits), stored_modules(model), user, limits)
    if target.name.endswith(SUFFIX):
        _write_file(target, draft, state, extra)
    else:
        with new_directory(target, overwrite) as directory:
            _write_directory(directory, draft, state, extra, shard_size)


@dataclass(frozen=True, slots=True)
class _Draft:
    """The record of the checkpoint before its tensors are written."""

    plan: Plan
    content: bytes  # bytes of the plan's file
    modules: tuple[StoredModule, ...]
    metadata: tuple[tuple[str, Any], ...]
    limits: Limits

    def record(
        self, tensors: Sequence[StoredTensor], shards: Sequence[StoredShard]
    ) -> dict[str, str]:
        """Return the metadata of the first file."""
        checkpoint = Checkpoint(
            self.plan, self.modules, tuple(tensors), tuple(shards), self.metadata
        )
        return {
            **_FORMAT,
            KEY: encode_checkpoint(checkpoint, plan=self.content, limits=self.limits),
        }


def _check_result(plan: Plan, model: nn.Module) -> None:
    if plan.target == "module":
        difference = result_difference(plan, model)
    else:  # a rewritten graph has modules and constants of its own
        tensors = own_tensors(plan, tensors_of(model))
        difference = first_difference(tensors_after(plan.tensors, plan.cuts), None, tensors)
    if difference is not None:
        raise StalePlan(
            f"the model is not what the plan produces: {difference}; save what "
            "apply(plan, ...) returned, with that plan"
        )


def _contents(model: nn.Module) -> tuple[list[Content], list[Content]]:
    """Return the tensors of the state dict, and those left out of it."""
    in_state = model.state_dict()
    state: list[Content] = []
    extra: list[Content] = []
    known: set[str] = set()
    for owned in owned_tensors(model):
        names = tuple(name for name in owned.names if name in in_state)
        known.update(owned.names)
        if not names and owned.kind == "parameter":
            raise PlancError(f"{owned.names[0]}: not in the model's state_dict(), cannot be saved")
        if not names and owned.tensor.layout is not torch.strided:
            continue  # a sparse, non-persistent buffer: a fresh model has its own
        role = "state" if names else "buffer"
        stored = names or tuple(f"buffer/{name}" for name in owned.names)
        content = content_of(owned.tensor, stored, role)
        (state if names else extra).append(content)
    for name in in_state:
        if name not in known:
            raise PlancError(
                f"{name}: in the model's state_dict(), but no parameter or buffer; a checkpoint "
                "holds tensors only: save it apart"
            )
    return state, extra


def _write_file(target: Path, draft: _Draft, state: list[Content], extra: list[Content]) -> None:
    """Write one file, and beside it the extra file under a new name.

    Until the rename of the main file, the old one keeps the extra file of its own save.
    """
    target = Path(os.path.realpath(target))
    # the record holds the name, and is not read with an invalid one
    check_names([target.name], str(target.parent))
    if not extra:
        with replacing(target) as descriptor:
            _write_first(descriptor, draft, state, target.name, [], [])
    else:
        with locked(target):  # so that no other save removes the extra file as an old one
            _write_with_extra(target, draft, state, extra)
    drop_old_extras(target, draft.limits)


def _write_with_extra(
    target: Path, draft: _Draft, state: list[Content], extra: list[Content]
) -> None:
    # a record over the limits is refused here, before there is a file to remove
    _first_shard(draft, state, target.name, [], [content.stored for content in extra])
    stem = target.name.removesuffix(SUFFIX)
    shard, done = _write_extra(target.parent, stem, draft, extra, 1)
    with replacing(target) as descriptor:
        _write_first(descriptor, draft, state, target.name, [shard], done)


def _write_directory(
    directory: Path,
    draft: _Draft,
    state: list[Content],
    extra: list[Content],
    shard_size: int,
) -> None:
    parts = _parts(state, shard_size)
    count = len(parts)
    names = [f"model-{i:05d}-of-{count:05d}{SUFFIX}" for i in range(1, count + 1)]
    if count == 1:
        names = [f"model{SUFFIX}"]
    others, done = list[StoredShard](), list[StoredTensor]()
    for i, (name, part) in enumerate(zip(names[1:], parts[1:], strict=True), 1):
        with replacing(directory / name) as descriptor:
            header, stored = _write_part(descriptor, draft, part)
        others.append(StoredShard(name, header.size, header.digest))
        done += [replace(tensor, shard=i) for tensor in stored]
    if extra:
        shard, stored = _write_extra(directory, "model", draft, extra, count)
        others, done = [*others, shard], [*done, *stored]
    with replacing(directory / names[0]) as descriptor:
        _write_first(descriptor, draft, parts[0], names[0], others, done)
    if count > 1:
        holder = {
            content.stored.name: name
            for name, part in zip(names, parts, strict=True)
            for content in part
        }
        total = {"total_size": sum(content.size for content in state)}
        index = Index(f"model{INDEX_SUFFIX}", dict(sorted(holder.items())), {"metadata": total})
        write_index(directory, index, place(content.spec for content in state))


def _parts(state: list[Content], shard_size: int) -> list[list[Content]]:
    """Split the tensors in order into shards of ``shard_size`` bytes; a larger one is alone."""
    parts: list[list[Content]] = [[]]
    size = 0
    for content in state:
        if parts[-1] and size + content.size > shard_size:
            parts.append([])
            size = 0
        parts[-1].append(content)
        size += content.size
    return parts


def _write_extra(
    directory: Path, stem: str, draft: _Draft, extra: list[Content], number: int
) -> tuple[StoredShard, list[StoredTensor]]:
    """Write the extra file, named by a digest of its content so it never replaces another."""
    content = sha256()
    for item in sorted(extra, key=lambda item: item.spec):
        content.update(repr(item.spec).encode())
        content.update(bytes_of(item.tensor).data)
    name = extra_name(stem, content.digest())
    with replacing(directory / name) as descriptor:
        header, stored = _write_part(descriptor, draft, extra)
    shard = StoredShard(name, header.size, header.digest)
    return shard, [replace(tensor, shard=number) for tensor in stored]


def _write_part(
    descriptor: int, draft: _Draft, contents: list[Content]
) -> tuple[Header, list[StoredTensor]]:
    """Write a file without the record; return its header and its tensors with their digests."""
    digest = sha256(draft.content).digest()

    def metadata(stored: Sequence[StoredTensor]) -> dict[str, str]:
        part = Part(digest, b"", tuple((t.name, t.digest) for t in stored))
        return {**_FORMAT, KEY: encode_part(part)}

    return _write(descriptor, contents, metadata)


def _write_first(
    descriptor: int,
    draft: _Draft,
    contents: list[Content],
    name: str,
    others: list[StoredShard],
    done: list[StoredTensor],
) -> None:
    """Write the file with the record, including its own size.

    Args:
        others: the other files.
        done: the tensors in the other files.
    """
    own = _first_shard(draft, contents, name, others, done)
    _write(descriptor, contents, lambda stored: draft.record([*stored, *done], [own, *others]))


def _first_shard(
    draft: _Draft,
    contents: list[Content],
    name: str,
    others: list[StoredShard],
    done: list[StoredTensor],
) -> StoredShard:
    """Return the first file's entry in the record, with the size of the file's own header."""
    ordered, entries = _laid_out(contents)
    tensors = [*(content.stored for content in ordered), *done]
    header = write_header(entries, _FORMAT)
    own = StoredShard(name, len(header), sha256(header).digest())
    own, _ = with_own_size(own, entries, lambda own: draft.record(tensors, [own, *others]))
    return own


def _laid_out(contents: list[Content]) -> tuple[list[Content], tuple[Entry, ...]]:
    """Return the tensors in file order: widest elements first, then by name."""
    by_name = {content.stored.name: content for content in contents}
    entries = place(aligned(sorted(content.spec for content in contents)))
    return [by_name[entry.name] for entry in entries], entries


def _write(
    descriptor: int,
    contents: list[Content],
    metadata: Callable[[Sequence[StoredTensor]], Mapping[str, str]],
) -> tuple[Header, list[StoredTensor]]:
    """Write a file with metadata of its tensors; return its header and the tensors' entries.

    Args:
        metadata: its length must not depend on the digests.
    """
    ordered, entries = _laid_out(contents)
    with TensorWriter(descriptor, entries, metadata([c.stored for c in ordered])) as writer:
        for content, entry in zip(ordered, entries, strict=True):
            writer.add(entry, [bytes_of(content.tensor)])
        digests = writer.digests()
        stored = [replace(c.stored, digest=d) for c, d in zip(ordered, digests, strict=True)]
        return writer.finish(metadata(stored)), stored
