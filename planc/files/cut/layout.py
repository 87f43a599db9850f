"""The layout of a result on files, known from headers alone: no tensor is read.

It has the position of every tensor and the content of every header.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from planc.errors import PlancError
from planc.files.cut.cutting import by_every_name
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
from planc.files.tensors.indexing import with_own_size
from planc.files.tensors.opened import inspect
from planc.files.tensors.shards import EXTRA_SUFFIX, Shard, ShardSet
from planc.plan.compose import compose
from planc.plan.depth import Depth, depth_of
from planc.plan.plan import Cut, Plan
from planc.plan.weights import expected_weights

_NO_DIGEST = bytes(32)


HASHED = 1 << 30
"""Bytes of a source up to which its weights are compared with the plan's, which takes a third more
time.
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """The cuts for each shard, and the record without its digests."""

    cutting: tuple[Cutting, ...]
    draft: Checkpoint
    plan: bytes  # bytes of the draft's plan file
    limits: Limits

    def entries(self) -> Iterator[Entry]:
        """Yield the tensors of all shards."""
        for cutting in self.cutting:
            yield from cutting.entries

    def first_header(self, done: Sequence[Done]) -> bytes:
        """Return the final header of the first shard, as long as the draft's; all are done."""
        digests = {name: digest for shard in done for name, digest in shard.digests}
        shards = zip(self.draft.shards[1:], done[1:], strict=True)
        checkpoint = replace(
            self.draft,
            tensors=tuple(replace(t, digest=digests[t.names[0]]) for t in self.draft.tensors),
            shards=(self.draft.shards[0], *(replace(s, header=d.header) for s, d in shards)),
        )
        return write_header(self.cutting[0].entries, self.first_metadata(checkpoint))

    def first_metadata(self, record: Checkpoint) -> dict[str, str]:
        """Return the metadata of the first shard with this record."""
        text = encode_checkpoint(record, plan=self.plan, limits=self.limits)
        return {**self.cutting[0].metadata, KEY: text}


def lay_out(plan: Plan, found: ShardSet, limits: Limits) -> Layout:
    """Return the layout of the result.

    Raises:
        PlancError: the source has tensors prunable only with the model's code.
        FileError: its record is damaged, or the result's would be too large.
    """
    recorded, modules = _recorded(plan, found.shards[0], limits)
    cuts = by_every_name(plan.tensors, plan.cuts)
    content = encode_plan(recorded, limits=limits)
    digest = sha256(content).digest()
    size = sum(shard.header.size - shard.header.data for shard in found.shards)
    hashed = size <= HASHED and expected_weights(plan) is not None
    depth = depth_of(plan)
    cutting = tuple(_cutting(shard, cuts, depth, digest, limits, hashed) for shard in found.shards)
    ties = _ties(plan, depth, found.entries())
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
    shard: Shard,
    cuts: Mapping[str, Cut],
    depth: Depth,
    digest: bytes,
    limits: Limits,
    hashed: bool,
) -> Cutting:
    names = {e.name: new for e in shard.header.entries if (new := depth.renamed(e.name))}
    own = {name: cuts[name] for name in names if name in cuts}
    entries = place(
        aligned(
            (names[e.name], e.dtype, own[e.name].shape if e.name in own else e.shape)
            for e in shard.header.entries
            if e.name in names
        )
    )
    part = Part(digest, shard.header.digest, tuple((e.name, _NO_DIGEST) for e in entries))
    metadata = dict(shard.header.metadata) | {KEY: encode_part(part)}
    old = {new: name for name, new in names.items() if new != name}
    return Cutting(shard.name, shard, entries, metadata, part, own, limits, hashed, old)


def _header(cutting: Cutting) -> Header:
    raw = write_header(cutting.entries, cutting.metadata)
    return Header(cutting.entries, cutting.metadata, raw)


def _with_record(layout: Layout) -> Layout:
    """Put the record into the first shard, in place of a part."""
    first, (own, *others) = layout.cutting[0], layout.draft.shards

    def draft(own: StoredShard) -> Checkpoint:
        return replace(layout.draft, shards=(own, *others))

    own, metadata = with_own_size(own, first.entries, lambda own: layout.first_metadata(draft(own)))
    first = replace(first, part=None, metadata=metadata)
    return replace(layout, cutting=(first, *layout.cutting[1:]), draft=draft(own))


def _ties(plan: Plan, depth: Depth, present: Container[str]) -> dict[str, tuple[str, ...]]:
    """Map stored tensors to the names tied to them in the model but absent from the files, all by
    their new names.
    """
    found: dict[str, tuple[str, ...]] = {}
    for spec in plan.tensors:
        match [name for name in spec.names if name in present]:
            case [stored]:
                others = (depth.renamed(name) for name in spec.names if name != stored)
                found[depth.renamed(stored) or ""] = tuple(filter(None, others))
    return found


def _recorded(plan: Plan, first: Shard, limits: Limits) -> tuple[Plan, tuple[StoredModule, ...]]:
    """Return the plan and modules of the result's record.

    Only the record of an earlier plan lists modules. After a second plan, the record speaks of the
    original model.
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
    depth = depth_of(plan)
    modules = tuple(
        replace(
            module,
            path=path,
            attributes=tuple(
                (name, changes.get((module.path, name), value)) for name, value in module.attributes
            ),
        )
        for module in earlier.modules
        if (path := depth.renamed(module.path)) is not None
    )
    return compose(earlier.plan, plan), modules
