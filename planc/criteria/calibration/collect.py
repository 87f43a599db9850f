"""Collection of sums while a model runs: gradients, inputs of weights, Kronecker factors.

The sums are kept under ``QUANTITY/PARAMETER``, and those of groups under ``QUANTITY/GROUP``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from planc.analysis import Analysis, analyze
from planc.criteria.changes import changes_of_batch
from planc.criteria.roles import base_name, channel, read
from planc.criteria.scores import broken
from planc.criteria.statistics import (
    ABSOLUTE_GRADIENT,
    CHANGES,
    INPUTS,
    KRONECKER,
    KRONECKER_OUT,
    SQUARED_GRADIENT,
)
from planc.errors import CalibrationError, PlancError
from planc.modules.copies import clone
from planc.modules.nesting import leaves
from planc.modules.tree import owned_tensors
from planc.trace import trace

_SAME = ("aten._to_copy", "aten.to", "aten.alias", "aten.detach", "aten.mul")
"""Operators returning the parameter itself: cast, or under a mask."""


class Collector:
    """Runs a copy of a model on one batch at a time and adds up; the model stays unchanged."""

    def __init__(
        self,
        model: nn.Module,
        needs: Iterable[str],
        loss: Callable[[nn.Module, Any], torch.Tensor] | None,
    ) -> None:
        for owned in owned_tensors(model):
            if owned.tensor.is_meta:
                raise CalibrationError(
                    f"{owned.names[0]} is on the meta device and has no values to run: load the "
                    "weights"
                )
        self.needs, self.loss, self.original = frozenset(needs), loss, model
        self.batches = 0
        self.sums: dict[str, torch.Tensor] = {}
        self.model = clone(model, _alias, apart=False)
        self.parameters = {
            owned.names[0]: owned.tensor
            for owned in owned_tensors(self.model)
            if owned.kind == "parameter" and owned.tensor.requires_grad
        }
        if KRONECKER in self.needs:
            self._watch_factors()
        self._called: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._analysis: Analysis | None = None
        if CHANGES in self.needs:
            self._noting = self.model.register_forward_pre_hook(
                self._note_call, prepend=True, with_kwargs=True
            )

    def add(self, number: int, batch: Any) -> None:
        """Add one batch.

        Raises:
            CalibrationError: the batch does not run, or its loss is not one finite number.
        """
        tensors = [leaf for leaf in leaves(batch) if isinstance(leaf, torch.Tensor)]
        if tensors and not any(tensor.numel() for tensor in tensors):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise CalibrationError(
                f"batch {number}: is empty, its tensors have shapes {shapes}: leave it out"
            )
        try:
            if INPUTS in self.needs:
                with torch.inference_mode(), _Reads(self):
                    self._run(batch)
            if self.needs - {INPUTS}:
                with torch.inference_mode(False), torch.enable_grad():
                    self._differentiate(self._run(batch))
        except PlancError as error:
            raise CalibrationError(f"batch {number}: {error}") from error
        except Exception as error:
            kind = type(self.model).__name__
            text = (str(error).strip() or "no message").splitlines()[0]
            called = "loss(model, batch)" if self.loss else f"{kind} on the batch"
            raise CalibrationError(
                f"batch {number}: {called} fails: {type(error).__name__}: {text}; give batches of "
                "the shapes and types that the model expects"
            ) from error
        self.batches += 1

    def put(self, quantity: str, name: str, value: torch.Tensor) -> None:
        """Add to the sum of a parameter."""
        key = f"{quantity}/{name}"
        if key in self.sums:
            self.sums[key].add_(value)
        else:
            self.sums[key] = value.detach().clone()

    # -- running ---------------------------------------------------------------------------

    def _run(self, batch: Any) -> Any:
        if self.loss is not None:
            return self.loss(self.model, batch)
        if isinstance(batch, tuple | list):
            return self.model(*batch)
        return self.model(batch)

    def _differentiate(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            kind = type(value).__name__
            found = f"{kind} of shape {tuple(value.shape)}" if hasattr(value, "shape") else kind
            raise CalibrationError(f"the loss is a {found}; return a tensor of one number")
        if not bool(value.isfinite()):
            raise CalibrationError(
                f"the loss is {value.item()}; check the batch and the model's weights"
            )
        if not value.requires_grad:
            raise CalibrationError(
                "the loss does not depend on the parameters of the model that it is given; call "
                "that model in it, with gradients enabled"
            )
        gradients = torch.autograd.grad(
            value.reshape(()), list(self.parameters.values()), allow_unused=True
        )
        dense = {}
        for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            if gradient.layout != torch.strided:
                gradient = gradient.to_dense()
            if gradient.dtype in (torch.float16, torch.bfloat16):
                gradient = gradient.float()
            if ABSOLUTE_GRADIENT in self.needs:
                self.put(ABSOLUTE_GRADIENT, name, gradient.abs())
            if SQUARED_GRADIENT in self.needs:
                self.put(SQUARED_GRADIENT, name, (gradient * gradient.conj()).real)
            dense[name] = gradient
        if CHANGES in self.needs:
            self._add_changes(dense)

    # -- changes of units --------------------------------------------------------------------

    def _note_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the arguments of the first call for the analysis of the model."""
        if self._called is None and not torch.is_inference_mode_enabled():
            self._called = args, kwargs

    def _add_changes(self, gradients: dict[str, torch.Tensor]) -> None:
        """Add the change of a batch's loss for each unit of the model."""
        if self._analysis is None:
            if self._called is None:
                raise CalibrationError(
                    "the loss does not call the model that it is given, but parts of it, and so "
                    "does not say which units it has; call model(...) in it"
                )
            self._analysis = analyze(trace(self.original, *self._called))
            self._noting.remove()
            self._called = None  # keep nothing of a batch
        for quantity, group, change in changes_of_batch(self._analysis, self.parameters, gradients):
            if not bool(change.isfinite().all()):
                _check_finite(gradients)
            self.put(quantity, group, change)

    # -- Kronecker factors -------------------------------------------------------------------

    def _watch_factors(self) -> None:
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for module in self.model.modules():
            if _has_factors(module) and id(module.weight) in names:
                name = names[id(module.weight)]
                module.register_forward_hook(self._factors(name, self.parameters[name]))

    def _factors(self, name: str, weight: torch.Tensor) -> Callable[..., None]:
        """A hook adding the Kronecker factors of one batch.

        For N examples with T positions each: A = 1/N sum a a^T of the rows a read by the weight,
        and S = N/T sum g g^T of the gradients g of its outputs (KFAC of a loss averaged over the
        batch).
        """

        def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:
                return
            rank, x = len(weight.shape), args[0].detach()
            if x.dim() < rank:  # one example without a batch dimension
                x = x.unsqueeze(0)
            rows, examples = _rows(module, x), len(x)
            self.put(KRONECKER, name, (rows.T @ rows).double() / examples)

            def outputs(gradient: torch.Tensor) -> None:
                made = gradient.detach().movedim(channel(gradient.dim(), rank), -1)
                flat = made.to(rows.dtype).reshape(-1, made.shape[-1])
                factor = (flat.T @ flat).double() * examples * examples / len(rows)
                self.put(KRONECKER_OUT, name, factor)

            output.register_hook(outputs)  # type: ignore[no-untyped-call]

        return hook


def _check_finite(gradients: Mapping[str, torch.Tensor]) -> None:
    for name, gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise CalibrationError(
                f"the gradient of {broken(name, gradient)}; check the batch, the loss and the "
                "model's weights"
            )


def _has_factors(module: nn.Module) -> bool:
    """True if the layer is one matrix product, so that its weight has Kronecker factors."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        padded = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module.groups == 1 and padded
    return isinstance(module, nn.Linear)


def _rows(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer's input as matrix rows: ``[positions, inputs]``."""
    wide = x if x.dtype == torch.float64 else x.float()
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        one = isinstance(module, nn.Conv1d)
        assert not isinstance(module.padding, str)
        patches = functional.unfold(
            wide.unsqueeze(2) if one else wide,
            kernel_size=(1, *module.kernel_size) if one else module.kernel_size,
            dilation=(1, *module.dilation) if one else module.dilation,
            padding=(0, *module.padding) if one else module.padding,
            stride=(1, *module.stride) if one else module.stride,
        )
        return patches.transpose(1, 2).flatten(0, 1)
    return wide.reshape(-1, wide.shape[-1])


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    """Adds up the inputs of each weight, operator by operator."""

    def __init__(self, collector: Collector) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.collector = collector
        self.names = {id(tensor): name for name, tensor in collector.parameters.items()}
        self.alive: list[torch.Tensor] = []  # kept alive, so that no id is reused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        op = str(func)
        for argument in args[:2] if base_name(op) in _SAME else ():
            if id(argument) in self.names and result.shape == argument.shape:
                self.names[id(result)] = self.names[id(argument)]
                self.alive.append(result)
        known = read(op)
        if known is not None and known[2].into is not None and len(args) > max(known[:2]):
            x, weight = args[known[0]], args[known[1]]
            name = self.names.get(id(weight))
            if name is not None and weight.dim() > 1 and not x.is_complex():
                inputs = x.movedim(channel(x.dim(), weight.dim()), -1)
                self.collector.put(INPUTS, name, _moments(inputs))
        return result


def _moments(x: torch.Tensor) -> torch.Tensor:
    """``[5, channels]``: count and sums of x, |x|, x^2, [x = 0], over the last dimension."""
    rows = x.reshape(-1, x.shape[-1])
    rows = rows if rows.dtype == torch.float64 else rows.float()
    count = torch.full_like(rows[0], len(rows)) if len(rows) else rows.new_zeros(x.shape[-1])
    sums = (count, rows.sum(0), rows.abs().sum(0), (rows * rows).sum(0), (rows == 0).sum(0))
    return torch.stack([part.double() for part in sums])


def _alias(tensor: torch.Tensor) -> torch.Tensor:
    """The copy's tensor: parameters share memory and require gradients, everything else is copied,
    because a run may change it.
    """
    if isinstance(tensor, nn.Parameter):
        differentiable = tensor.is_floating_point() or tensor.is_complex()
        return nn.Parameter(tensor.detach(), requires_grad=differentiable)
    return tensor.detach().clone()
