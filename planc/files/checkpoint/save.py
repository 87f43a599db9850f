"""Saving: a pruned model and the plan it came from in, a checkpoint on the disk out.

Everything is looked at before the first byte is written, and every file is written beside its place
and renamed: on return the new checkpoint is on the disk, on an error the old one is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from planc.apply.matching import result_difference
from planc.errors import PlancError, StalePlan
from planc.files.checkpoint.contents import Content, content_of
from planc.files.checkpoint.elements import bytes_of
from planc.files.checkpoint.extras import drop_old_extras, extra_name
from planc.files.checkpoint.optimizers import OPTIMIZER, optimizer_contents
from planc.files.checkpoint.values import encoded
from planc.files.checkpoint.values import modules_of as stored_modules
from planc.files.disk.atomic import replacing, write_file
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats import encode_plan
from planc.files.formats.beside import locked
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
from planc.files.tensors.shards import (
    INDEX_SUFFIX,
    SHARD_SIZE,
    SUFFIX,
    check_names,
)
from planc.files.tensors.writer import TensorWriter
from planc.modules.given import module
from planc.modules.tables import tensors_of
from planc.modules.tree import owned_tensors
from planc.plan.arguments import a_count, a_mapping, a_path, a_plan, instance, optional
from planc.plan.fingerprint import first_difference, tensors_after
from planc.plan.origin import own_tensors
from planc.plan.plan import Plan

_FORMAT = {"format": "pt"}  # what others look for in the metadata


_optimizer = optional(
    instance("an optimizer of torch.optim", torch.optim.Optimizer, advice="leave it out")
)
_metadata = optional(a_mapping)


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
    """Writes a checkpoint of a model that ``plan`` produced.

    The file holds the state dict, tied tensors once. Buffers that are not persistent, and the
    optimiser's tensors, go to a second file with the suffix ``.planc-extra``.

    Args:
        path: a name that ends in ``.safetensors`` for one file, which is replaced if it is there;
            any other name for a directory of ``model.safetensors``, or shards and their index.
        model: what ``apply(plan, original)`` returned, trained since or not.
        optimizer: one of the model's own parameters, all or some of them, whose state is saved too;
            see :func:`planc.load_optimizer`.
        metadata: plain data of your own, found again by :func:`planc.inspect`.
        shard_size: bytes that one file of a directory holds at most.
        overwrite: replace a directory that is there.

    Raises:
        StalePlan: the model is not what the plan produces; names the first difference.
        PlancError: a tensor cannot be saved; the optimizer has a parameter that is not the model's;
            the directory exists; a key is reserved; the name of the file is none that every system
            can have.
        FileError: the record is larger than ``limits``.
        OSError: the disk is full, ...
    """
    target = Path(a_path("path", path))
    model, plan = module("model", model), a_plan("plan", plan)
    limits, shard_size = limits_given("limits", limits), a_count("shard_size", shard_size)
    optimizer, metadata = _optimizer("optimizer", optimizer), _metadata("metadata", metadata)
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
    """What is known of the checkpoint before its tensors are written."""

    plan: Plan
    content: bytes  # of the plan's file
    modules: tuple[StoredModule, ...]
    metadata: tuple[tuple[str, Any], ...]
    limits: Limits

    def record(
        self, tensors: Sequence[StoredTensor], shards: Sequence[StoredShard]
    ) -> dict[str, str]:
        """The metadata of the first file."""
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
    """The tensors of the state dict, and those that it leaves out."""
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
            continue  # a sparse one that is not persistent: a fresh model has its own
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
    """One file, and beside it the extra one under a name of its own: until the first is renamed,
    the old one still has the extra file that it was saved with.
    """
    target = Path(os.path.realpath(target))
    check_names([target.name], str(target.parent))  # the record has it, and is read with it only
    if not extra:
        with replacing(target) as descriptor:
            _write_first(descriptor, draft, state, target.name, [], [])
    else:
        with locked(target):  # no other save takes the extra file for an old one meanwhile
            _write_with_extra(target, draft, state, extra)
    drop_old_extras(target, draft.limits)


def _write_with_extra(
    target: Path, draft: _Draft, state: list[Content], extra: list[Content]
) -> None:
    drafts = [content.stored for content in (*state, *extra)]
    # raises what the record is refused for, while there is nothing to remove
    _first_shard(draft, _laid_out(state)[1], drafts, target.name, [])
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
        write_file(directory / f"model{INDEX_SUFFIX}", _index(names, parts))


def _parts(state: list[Content], shard_size: int) -> list[list[Content]]:
    """The tensors in order, as many in each shard as fit; a larger one has a shard of its own."""
    parts: list[list[Content]] = [[]]
    size = 0
    for content in state:
        if parts[-1] and size + content.size > shard_size:
            parts.append([])
            size = 0
        parts[-1].append(content)
        size += content.size
    return parts


def _index(names: list[str], parts: list[list[Content]]) -> bytes:
    """The index as other tools write it."""
    shard_of = {
        content.stored.name: name
        for name, part in zip(names, parts, strict=True)
        for content in part
    }
    total = sum(content.size for part in parts for content in part)
    table = {"metadata": {"total_size": total}, "weight_map": dict(sorted(shard_of.items()))}
    return (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode()


def _write_extra(
    directory: Path, stem: str, draft: _Draft, extra: list[Content], number: int
) -> tuple[StoredShard, list[StoredTensor]]:
    """Writes the extra file, named by what is in it, so that it never replaces another."""
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
    """Writes a file that has no record; returns its header and its tensors with their digests."""
    ordered, entries = _laid_out(contents)
    digest = sha256(draft.content).digest()

    def metadata(stored: Sequence[StoredTensor]) -> dict[str, str]:
        part = Part(digest, b"", tuple((t.name, t.digest) for t in stored))
        return {**_FORMAT, KEY: encode_part(part)}

    with TensorWriter(descriptor, entries, metadata([c.stored for c in ordered])) as writer:
        stored = _write_tensors(writer, ordered, entries)
        return writer.finish(metadata(stored)), stored


def _write_first(
    descriptor: int,
    draft: _Draft,
    contents: list[Content],
    name: str,
    others: list[StoredShard],
    done: list[StoredTensor],
) -> None:
    """Writes the file that has the record, in which its own size stands too; ``others`` are the
    other files, ``done`` the tensors in them.
    """
    ordered, entries = _laid_out(contents)
    drafts = [*(content.stored for content in ordered), *done]
    shards = [_first_shard(draft, entries, drafts, name, others), *others]
    with TensorWriter(descriptor, entries, draft.record(drafts, shards)) as writer:
        stored = _write_tensors(writer, ordered, entries)
        writer.finish(draft.record([*stored, *done], shards))


def _first_shard(
    draft: _Draft,
    entries: tuple[Entry, ...],
    tensors: list[StoredTensor],
    name: str,
    others: list[StoredShard],
) -> StoredShard:
    """The size of the first file depends on the length of its record, which holds that size."""
    header = write_header(entries, _FORMAT)
    own = StoredShard(name, len(header), sha256(header).digest())

    def size() -> int:
        record = draft.record(tensors, [own, *others])
        return Header(entries, {}, write_header(entries, record)).size

    while own.size != (found := size()):  # a longer number may make the record longer
        own = replace(own, size=found)
    return own


def _laid_out(contents: list[Content]) -> tuple[list[Content], tuple[Entry, ...]]:
    """The tensors in the order of the file: widest elements first, then by name."""
    by_name = {content.stored.name: content for content in contents}
    entries = place(aligned(sorted(content.spec for content in contents)))
    return [by_name[entry.name] for entry in entries], entries


def _write_tensors(
    writer: TensorWriter, contents: list[Content], entries: tuple[Entry, ...]
) -> list[StoredTensor]:
    for content, entry in zip(contents, entries, strict=True):
        writer.add(entry, [bytes_of(content.tensor)])
    digests = writer.digests()
    return [replace(c.stored, digest=d) for c, d in zip(contents, digests, strict=True)]
