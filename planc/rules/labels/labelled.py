"""Atoms on the coordinates of a value: :class:`Layer` and :class:`Labelled`.

A coordinate is removed if any layer gives it a removed atom; the layer's ``target`` is the
dimension shortened by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planc.rules.labels.atoms import Atoms, canonical

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Atoms broadcasting to the value's shape, and the dimension that they shorten.

    In a dimension of size n other than the target, the array may have a divisor of n as its size:
    each entry then stands for a block of equal ones (:func:`dense` repeats them).

    ``zero`` is True if the coordinates of removed atoms are exactly zero in the masked model.
    ``whole`` is True if they are those of the original because no mask touches them
    (:func:`planc.ir.layers.whole`).
    """

    atoms: Atoms
    target: int
    zero: bool = True
    whole: bool = False

    @property
    def varying(self) -> tuple[int, ...]:
        """The dimensions along which the atoms differ."""
        return tuple(d for d, n in enumerate(self.atoms.shape) if n > 1)

    @property
    def ragged(self) -> bool:
        """True if the atoms differ along dimensions other than the target."""
        return bool(self.atoms.size > self.atoms.shape[self.target])

    def along(self) -> Atoms:
        """The atoms along the target, at the first place of all other dimensions."""
        atoms = self.atoms
        if atoms.size == atoms.shape[self.target]:
            return atoms.reshape(-1)
        first: Atoms = self.lines()[0]
        return first

    def lines(self) -> Atoms:
        """The atoms along the target, one line for each place outside it."""
        moved = np.moveaxis(self.atoms, self.target, -1)
        return moved.reshape(-1, moved.shape[-1])

    def fineness(self) -> int:
        """The number of distinct atoms along the target."""
        return int(canonical(self.along()).max(initial=0))


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A value's shape and its layers.

    ``constant`` is the content, where it is known. ``blank`` is True if the value is zero
    everywhere, so that its coordinates are interchangeable. ``positive`` is True if it is above
    zero everywhere, in the masked model as well.
    """

    shape: Shape
    layers: tuple[Layer, ...] = ()
    constant: Atoms | None = None
    blank: bool = False
    positive: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    def targeting(self, dim: int) -> tuple[Layer, ...]:
        """The layers that shorten dimension ``dim``, in no particular order."""
        return tuple(layer for layer in self.layers if layer.target == dim)

    def finest(self, dim: int) -> Layer | None:
        """The layer targeting ``dim`` with the most distinct atoms."""
        layers = self.targeting(dim)
        if len(layers) < 2:
            return layers[0] if layers else None
        return max(layers, key=Layer.fineness)

    def nonzero(self) -> Labelled:
        """The same labels, with no coordinate known to be zero in the masked model."""
        if not self.blank and not any(layer.zero or layer.whole for layer in self.layers):
            return self
        layers = (replace(layer, zero=False, whole=False) for layer in self.layers)
        return Labelled(self.shape, tuple(layers))
