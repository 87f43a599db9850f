"""The result of applying a plan to files, as far as headers tell it: a plan and a set of shards in,
where every tensor will lie and what every header will say out. No tensor is read.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from planc.errors import PlancError
from planc.files.cut.shard import Cutting, Done
from planc.files.disk.limits import Limits
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
    plan_value,
)
from planc.files.tensors.header import Entry, Header, aligned, place, write_header
from planc.files.tensors.opened import inspect
from planc.files.tensors.shards import EXTRA_SUFFIX, Shard, ShardSet
from planc.plan.compose import compose
from planc.plan.plan import Cut, Plan

_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes: what to cut into each shard, and the record without its digests."""

    cutting: tuple[Cutting, ...]
    draft: Checkpoint
    plan: bytes  # the content of the file of the draft's plan
    limits: Limits

    def entries(self) -> Iterator[Entry]:
        """The tensors of all shards."""
        for cutting in self.cutting:
            yield from cutting.entries

    def first_header(self, done: Sequence[Done]) -> bytes:
        """The final header of the first shard, when all are done; as long as the draft's was."""
        digests = {name: digest for shard in done for name, digest in shard.digests}
        shards = zip(self.draft.shards[1:], done[1:], strict=True)
        checkpoint = replace(
            self.draft,
            tensors=tuple(replace(t, digest=digests[t.names[0]]) for t in self.draft.tensors),
            shards=(self.draft.shards[0], *(replace(s, header=d.header) for s, d in shards)),
        )
        first = self.cutting[0]
        text = encode_checkpoint(checkpoint, plan=self.plan, limits=self.limits)
        return write_header(first.entries, {**first.metadata, KEY: text})


def lay_out(plan: Plan, found: ShardSet, limits: Limits) -> Layout:
    """The layout of the result.

    Raises:
        PlancError: the source has tensors that only the model's code can prune.
        FileError: its record is damaged, or the result's would be too large.
    """
    recorded, modules = _recorded(plan, found.shards[0], limits)
    cuts = {name: plan.cuts.get(spec.name) for spec in plan.tensors for name in spec.names}
    content = encode_plan(recorded, limits=limits)
    digest = sha256(content).digest()
    cutting = tuple(_cutting(shard, cuts, digest, limits) for shard in found.shards)
    ties = _ties(plan, found.entries())
    tensors = tuple(
        StoredTensor((e.name, *ties.get(e.name, ())), e.dtype, e.shape, _NO_DIGEST, "state", number)
        for number, shard in enumerate(cutting)
        for e in shard.entries
    )
    shards = tuple(
        StoredShard(
            shard.name,
            _header(shard).size,
            _NO_DIGEST if number else _header(shard).digest_without(KEY),
        )
        for number, shard in enumerate(cutting)
    )
    draft = Checkpoint(recorded, modules, tensors, shards)
    return _with_record(Layout(cutting, draft, content, limits))


def _cutting(
    shard: Shard, cuts: Mapping[str, Cut | None], digest: bytes, limits: Limits
) -> Cutting:
    own = {e.name: cut for e in shard.header.entries if (cut := cuts.get(e.name)) is not None}
    entries = place(
        aligned(
            (e.name, e.dtype, own[e.name].shape if e.name in own else e.shape)
            for e in shard.header.entries
        )
    )
    part = Part(digest, shard.header.digest, tuple((e.name, _NO_DIGEST) for e in entries))
    metadata = dict(shard.header.metadata) | {KEY: encode_part(part)}
    return Cutting(shard.name, shard, entries, metadata, part, own, limits)


def _header(cutting: Cutting) -> Header:
    raw = write_header(cutting.entries, cutting.metadata)
    return Header(cutting.entries, cutting.metadata, raw)


def _with_record(layout: Layout) -> Layout:
    """The first shard gets the record in the place of a part. Its own size stands in there, and
    depends on the length of the number: it settles at once.
    """
    first, shards = layout.cutting[0], layout.draft.shards
    while True:
        draft = replace(layout.draft, shards=shards)
        text = encode_checkpoint(draft, plan=layout.plan, limits=layout.limits)
        first = replace(first, part=None, metadata={**first.metadata, KEY: text})
        size = _header(first).size
        if size == shards[0].size:
            return Layout((first, *layout.cutting[1:]), draft, layout.plan, layout.limits)
        shards = (replace(shards[0], size=size), *shards[1:])


def _ties(plan: Plan, present: Container[str]) -> dict[str, tuple[str, ...]]:
    """The names that the model ties to that of a tensor, where no file has them."""
    found: dict[str, tuple[str, ...]] = {}
    for spec in plan.tensors:
        match [name for name in spec.names if name in present]:
            case [stored]:
                found[stored] = tuple(name for name in spec.names if name != stored)
    return found


def _recorded(plan: Plan, first: Shard, limits: Limits) -> tuple[Plan, tuple[StoredModule, ...]]:
    """The plan and the modules that the result's record lists. Without the model there are no
    modules but those of the plan; after a second plan, the record speaks of the original.
    """
    if KEY not in first.header.metadata:
        return plan, ()
    earlier = inspect(first.path, limits=limits)
    if any(shard.name.endswith(EXTRA_SUFFIX) for shard in earlier.shards):
        raise PlancError(
            f"{first.path}: has buffers or an optimizer in a {EXTRA_SUFFIX} file, which only the "
            "model's code can prune: load it, apply the plan, save the result"
        )
    changes = {(c.module, c.name): plan_value(c.after) for c in plan.attributes}
    modules = tuple(
        replace(
            module,
            attributes=tuple(
                (name, changes.get((module.path, name), value)) for name, value in module.attributes
            ),
        )
        for module in earlier.modules
    )
    return compose(earlier.plan, plan), modules
