"""Labels under operations along a dimension: picking, reducing and tying coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planc.rules.labels.atoms import Atoms
from planc.rules.labels.labelled import Labelled
from planc.rules.labels.shape import collapse, dense, squeeze

if TYPE_CHECKING:
    from planc.rules.labels.facts import Facts


def even(facts: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    """Tie layers along ``dims`` other than their target, for an operation that combines positions
    along ``dims``.
    """
    if not any(n > 1 for layer in x.layers for n in (layer.atoms.shape[d] for d in dims)):
        return x
    layers = (collapse(facts, la, [d for d in dims if d != la.target]) for la in x.layers)
    return Labelled(x.shape, tuple(layers))


def reduce(facts: Facts, x: Labelled, dims: Sequence[int], keepdim: bool) -> Labelled:
    """Drop the layers that target ``dims``; the result has size 1 there, or no such dimension."""
    gone = set(dims)
    x = even(facts, x, dims)
    facts.end([layer for layer in x.layers if layer.target in gone])
    layers = tuple(layer for layer in x.layers if layer.target not in gone)
    kept = Labelled(tuple(1 if d in gone else n for d, n in enumerate(x.shape)), layers)
    return kept if keepdim else squeeze(facts, kept, dims)


def take(facts: Facts, x: Labelled, dim: int, index: Atoms) -> Labelled:
    """The coordinates ``index`` of dimension ``dim``, in that order."""
    x = dense(x)
    shape = (*x.shape[:dim], len(index), *x.shape[dim + 1 :])
    layers = []
    for layer in x.layers:
        atoms = layer.atoms if layer.atoms.shape[dim] == 1 else layer.atoms.take(index, axis=dim)
        if layer.target == dim and len(index) < 2:
            facts.pin([replace(layer, atoms=atoms)], "a single coordinate is picked")
        else:
            layers.append(replace(layer, atoms=atoms))
    return Labelled(shape, tuple(layers))


def window(x: Labelled, dim: int, start: int, stop: int) -> Labelled:
    """The coordinates ``start <= i < stop`` of dimension ``dim``, used to measure their width."""
    x = dense(x)
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    layers = []
    for layer in x.layers:
        if layer.atoms.shape[dim] > 1:
            layer = replace(layer, atoms=layer.atoms.take(np.arange(start, stop), axis=dim))
        layers.append(layer)
    return Labelled(shape, tuple(layers))


def merge(facts: Facts, x: Labelled, dim: int) -> Labelled:
    """Tie the coordinates along ``dim``, so that only whole lines of it can be removed."""
    x = dense(x)
    layers = []
    for layer in x.layers:
        rest = [d for d in layer.varying if d != dim]
        if layer.target != dim:
            layers.append(collapse(facts, layer, [dim]))
        elif rest:
            layers.append(replace(collapse(facts, layer, [dim]), target=rest[-1]))
        else:
            facts.pin([layer], "all of the dimension is needed")
    return Labelled(x.shape, tuple(layers))


def bind(facts: Facts, x: Labelled, dim: int, size: int) -> None:
    """Tie the coordinates within each block of ``size`` along ``dim``, so that only whole blocks
    can be removed.
    """
    for layer in dense(x).targeting(dim):
        atoms = layer.atoms
        apart = atoms.reshape((*atoms.shape[:dim], -1, size, *atoms.shape[dim + 1 :]))
        facts.tie(apart, np.broadcast_to(apart.take([0], axis=dim + 1), apart.shape))


def fold(facts: Facts, x: Labelled, dim: int, count: int) -> Labelled:
    """Tie ``count`` equal blocks of a dimension, index by index, and keep one block. Unlike after a
    reshape, no block can be removed by itself, so no row family is requested.
    """
    x = dense(x)
    size = x.shape[dim] // count
    layers = []
    for layer in x.layers:
        atoms = layer.atoms
        if atoms.shape[dim] > 1:
            apart = atoms.reshape((*atoms.shape[:dim], count, size, *atoms.shape[dim + 1 :]))
            first = apart.take([0], axis=dim)
            facts.tie(apart, np.broadcast_to(first, apart.shape))
            atoms = first.squeeze(dim)
        if layer.target == dim and (atoms == atoms.take([0], axis=dim)).all():
            facts.pin([layer], "a dimension of one coordinate")
        else:
            layers.append(replace(layer, atoms=atoms))
    return Labelled((*x.shape[:dim], size, *x.shape[dim + 1 :]), tuple(layers))
