"""Loading a checkpoint into a new model; the given model is only read.

``replay`` takes the unpruned model and applies the plan's structure to it; ``verify`` takes a model
with the pruned structure. Memory is allocated for the pruned tensors only, so a model of any size
may be given on the meta device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Literal

import torch
from torch import nn

from planc.apply.depth import take_out
from planc.apply.matching import check_model
from planc.apply.module import check_objects, named_tensors, rebuilt
from planc.apply.renewal import Change, Renewal, cutting
from planc.errors import CorruptFile, PlancError, StalePlan, VerificationError
from planc.files.checkpoint.differences import differences, model_names
from planc.files.checkpoint.elements import torch_dtype
from planc.files.checkpoint.optimizers import OPTIMIZER
from planc.files.checkpoint.values import decoded
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checkpoint import StoredTensor
from planc.files.tensors.opened import Opened, open_checkpoint, steady
from planc.files.tensors.reader import TensorFile, open_tensors
from planc.modules.attributes import set_attributes
from planc.modules.given import device_given, module
from planc.modules.memory import memory_of
from planc.modules.tree import tensors_by_name
from planc.plan.arguments import a_flag, a_path, a_plan, optional, options, takes
from planc.plan.depth import Depth, depth_of
from planc.plan.plan import Cut, Plan, TensorSpec

Mode = Literal["replay", "verify"]
_PIECE = 16 << 20
_SHOWN = 20


@takes(
    path=a_path,
    model=module,
    mode=options("replay", "verify"),
    plan=optional(a_plan),
    device=optional(device_given),
    check_digests=a_flag,
    limits=limits_given,
)
def load(
    path: str | os.PathLike[str],
    model: nn.Module,
    mode: Mode = "replay",
    *,
    plan: Plan | None = None,
    device: torch.device | str | None = None,
    check_digests: bool = True,
    limits: Limits = DEFAULT,
) -> nn.Module:
    """Return a new model with the structure and tensors of a checkpoint.

    Tensors have the dtype of the saved ones. The class, memory format, ``requires_grad``, hooks and
    training mode are those of ``model``.

    Args:
        path: a file, directory or index written by :func:`planc.save` or ``planc apply``.
        model: for "replay" the unpruned model, freshly built, on any device including meta; for
            "verify" a model with the pruned structure.
        mode: "replay" applies the plan in the checkpoint to the structure of ``model``; "verify"
            sets no attribute.
        plan: the plan expected in the checkpoint, to be compared with its own.
        device: the device of the new tensors; by default those of ``model``, or the CPU for meta
            tensors.
        check_digests: compare every tensor's bytes with its digest.
        limits: bounds on the record and headers of the files.

    Raises:
        StalePlan: "replay": the plan was made for another model, or differs from ``plan``.
        AlreadyApplied: "replay": the model has the pruned structure already.
        VerificationError: the structure differs from the checkpoint's; lists the differences.
        ShardMismatch, CorruptFile, FileError: the files do not belong together, are damaged, or
            are not a checkpoint.
        PlancError: neither checkpoint nor model has values of a tensor, or this torch has no such
            dtype.
    """

    def read() -> nn.Module:
        opened = open_checkpoint(path, limits=limits)
        recorded = opened.checkpoint.plan
        if mode == "verify":
            _raise_all(differences(opened.checkpoint, model, plan), path)
            loaded = rebuilt(model, _Allocation(opened, model, {}, device))
        else:
            if plan is not None and plan != recorded:
                raise StalePlan(f"{path}: was made with another plan than the one given")
            if recorded.target != "module":
                raise PlancError(
                    f"{path}: holds a rewritten graph (target={recorded.target!r}): apply its plan "
                    "to the model and load with mode='verify'"
                )
            check_model(recorded, model)
            depth = depth_of(recorded)
            loaded = rebuilt(model, _Allocation(opened, model, recorded.cuts, device, depth))
            check_objects(model, loaded)
            set_attributes(loaded, recorded.attributes, depth.shortened)
            take_out(loaded, depth)
            _raise_all(differences(opened.checkpoint, loaded), path)
        _fill(opened, loaded, check_digests, limits)
        return loaded

    return steady(path, read)


@takes(path=a_path, limits=limits_given, check_digests=a_flag)
def load_optimizer(
    path: str | os.PathLike[str], *, check_digests: bool = True, limits: Limits = DEFAULT
) -> dict[str, Any]:
    """Return the state of the optimizer in a checkpoint, for ``optimizer.load_state_dict``.

    Args:
        path: a checkpoint written by :func:`planc.save` with an ``optimizer``.
        check_digests: compare every tensor's bytes with its digest.
        limits: bounds on the record and headers of the files.

    Raises:
        PlancError: the checkpoint was saved without an optimizer.
        FileError: as for :func:`load`.
    """

    def read() -> dict[str, Any]:
        opened = open_checkpoint(path, limits=limits)
        numbers = dict(opened.checkpoint.metadata).get(OPTIMIZER)
        if numbers is None:
            raise PlancError(f"{path}: was saved without an optimizer")
        tensors = {
            stored.name: torch.empty(stored.shape, dtype=torch_dtype(stored.dtype, stored.name))
            for stored in opened.checkpoint.tensors
            if stored.role == "optimizer"
        }
        read_tensors(opened, lambda stored: tensors.get(stored.name), check_digests, limits)
        state: dict[str, Any] = decoded(numbers, tensors)
        return state

    return steady(path, read)


class _Allocation(Renewal):
    """Replaces each tensor of the checkpoint by memory for it, and cuts the others."""

    def __init__(
        self,
        opened: Opened,
        model: nn.Module,
        cuts: Mapping[str, Cut],
        device: torch.device | str | None,
        depth: Depth | None = None,
    ) -> None:
        named = named_tensors(model)
        super().__init__(opened.checkpoint.plan.tensors, named, self._allocating)
        self._cutting = cutting(cuts, depth)
        self._renamed = depth.renamed if depth else str
        self._device = device
        self._stored = {
            name: tensor for tensor in opened.checkpoint.tensors for name in model_names(tensor)
        }

    def renew(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """Return memory of the stored dtype, in the memory format of the cut tensor."""
        if name is not None and self._renamed(name) is None:
            return super().renew(tensor, name)
        stored = self._stored_as(name)
        if stored is None:
            if tensor.is_meta:
                raise PlancError(
                    f"{name or 'a tensor that is a plain attribute of a module'}: neither the "
                    "checkpoint nor the model has its values; build the model on a real device"
                )
            return super().renew(tensor, name).to(device=self._device)
        dtype = torch_dtype(stored.dtype, stored.name)
        if tensor.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
            raise VerificationError(
                f"{name}: {stored.dtype} in the checkpoint, a trainable {tensor.dtype} in the "
                "model; build the model for these weights"
            )
        return super().renew(tensor, name)

    def _allocating(self, name: str, spec: TensorSpec) -> Change:
        stored, change = self._stored_as(name), self._cutting(name, spec)
        if stored is None:
            return change
        dtype = torch_dtype(stored.dtype, stored.name)

        def make(tensor: torch.Tensor) -> torch.Tensor:
            device = self._device or ("cpu" if tensor.is_meta else tensor.device)
            return torch.empty_like(change.make(tensor.to("meta")), dtype=dtype, device=device)

        return Change(change.key, make)

    def _stored_as(self, name: str | None) -> StoredTensor | None:
        if name is None:  # a tensor in a plain attribute
            return None
        spec = self._specs.get(name)
        names = map(self._renamed, (name,) if spec is None else (name, *spec.names))
        return next((self._stored[n] for n in names if n in self._stored), None)


def _fill(opened: Opened, model: nn.Module, check_digests: bool, limits: Limits) -> None:
    owner = tensors_by_name(model)

    def target(stored: StoredTensor) -> torch.Tensor | None:
        if stored.role == "optimizer":
            return None
        name, *_ = model_names(stored)
        return owner[name]

    with torch.no_grad():
        read_tensors(opened, target, check_digests, limits)


def read_tensors(
    opened: Opened,
    target: Callable[[StoredTensor], torch.Tensor | None],
    check_digests: bool,
    limits: Limits,
) -> None:
    """Read every tensor with a target, file by file in the order of the bytes.

    Args:
        opened: the checkpoint.
        target: returns the tensor to fill, or None to skip a stored one.
        check_digests: compare the bytes with their digests.
        limits: bounds on the headers of the files.

    Raises:
        CorruptFile: the bytes of a tensor differ from the saved ones.
    """
    for number, path in enumerate(opened.paths):
        with open_tensors(path, limits) as file:
            stored = [t for t in opened.checkpoint.tensors if t.shard == number]
            for tensor in sorted(stored, key=lambda t: opened.places[t.name].start):
                into = target(tensor)
                if into is not None:
                    _read_tensor(file, opened, tensor, into, check_digests)


def _read_tensor(
    file: TensorFile,
    opened: Opened,
    stored: StoredTensor,
    into: torch.Tensor,
    check_digests: bool,
) -> None:
    entry = opened.places[stored.name]
    plain = into.detach()
    staged = plain
    memory = memory_of(plain)
    if memory is None:  # another device, or another order in memory
        staged = torch.empty(tuple(plain.shape), dtype=plain.dtype)
        memory = memory_of(staged)
    digest = sha256()
    if memory is not None:
        for start in range(0, len(memory), _PIECE):
            piece = memory[start : start + _PIECE]
            file.read_into(entry, start, piece)
            if check_digests:
                digest.update(piece.data)
    if check_digests and digest.digest() != stored.digest:
        raise CorruptFile(
            f"{file.path}: {stored.name}: the bytes have digest {digest.hexdigest()[:16]}..., "
            f"the record lists {stored.digest.hex()[:16]}...; the file is damaged: copy it again"
        )
    if staged is not plain:
        plain.copy_(staged)


def _raise_all(found: Iterable[str], path: str | os.PathLike[str]) -> None:
    found = list(found)
    if found:
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines = "".join(f"\n  {line}" for line in found[:_SHOWN])
        raise VerificationError(
            f"{path}: the model is not the one that was saved, {len(found)} differences:{lines}"
            f"{more}\nbuild the model as it was built for the checkpoint"
        )
