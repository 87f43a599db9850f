"""Labels under operations along a dimension: coordinates picked, reduced, tied to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planc.rules.labels.facts import Atoms, Facts
from planc.rules.labels.labelled import Labelled
from planc.rules.labels.shape import collapse, dense, squeeze


def even(cx: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    """Ties layers along ``dims`` that they do not target: the operation looks along ``dims``."""
    if not any(n > 1 for layer in x.layers for n in (layer.atoms.shape[d] for d in dims)):
        return x
    layers = (collapse(cx, la, [d for d in dims if d != la.target]) for la in x.layers)
    return Labelled(x.shape, tuple(layers))


def reduce(cx: Facts, x: Labelled, dims: Sequence[int], keepdim: bool) -> Labelled:
    """Drops the layers that target ``dims``; the result has size 1 there, or no such dimension."""
    gone = set(dims)
    x = even(cx, x, dims)
    cx.end([layer for layer in x.layers if layer.target in gone])
    layers = tuple(layer for layer in x.layers if layer.target not in gone)
    kept = Labelled(tuple(1 if d in gone else n for d, n in enumerate(x.shape)), layers)
    return kept if keepdim else squeeze(cx, kept, dims)


def take(cx: Facts, x: Labelled, dim: int, index: Atoms) -> Labelled:
    """The coordinates ``index`` of dimension ``dim``, in that order."""
    x = dense(x)
    shape = (*x.shape[:dim], len(index), *x.shape[dim + 1 :])
    layers = []
    for layer in x.layers:
        atoms = layer.atoms if layer.atoms.shape[dim] == 1 else layer.atoms.take(index, axis=dim)
        if layer.target == dim and len(index) < 2:
            cx.pin([replace(layer, atoms=atoms)], "a single coordinate is picked")
        else:
            layers.append(replace(layer, atoms=atoms))
    return Labelled(shape, tuple(layers))


def window(x: Labelled, dim: int, start: int, stop: int) -> Labelled:
    """The coordinates ``start <= i < stop`` of dimension ``dim``, to measure their width."""
    x = dense(x)
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    layers = []
    for layer in x.layers:
        if layer.atoms.shape[dim] > 1:
            layer = replace(layer, atoms=layer.atoms.take(np.arange(start, stop), axis=dim))
        layers.append(layer)
    return Labelled(shape, tuple(layers))


def merge(cx: Facts, x: Labelled, dim: int) -> Labelled:
    """Ties the coordinates along ``dim``, so that only whole lines of it can go."""
    x = dense(x)
    layers = []
    for layer in x.layers:
        rest = [d for d in layer.varying if d != dim]
        if layer.target != dim:
            layers.append(collapse(cx, layer, [dim]))
        elif rest:
            layers.append(replace(collapse(cx, layer, [dim]), target=rest[-1]))
        else:
            cx.pin([layer], "all of the dimension is needed")
    return Labelled(x.shape, tuple(layers))


def bind(cx: Facts, x: Labelled, dim: int, size: int) -> None:
    """Ties the coordinates in each of the equal blocks of ``size`` of a dimension to one another,
    so that only whole blocks can go.
    """
    for layer in dense(x).targeting(dim):
        atoms = layer.atoms
        apart = atoms.reshape((*atoms.shape[:dim], -1, size, *atoms.shape[dim + 1 :]))
        cx.tie(apart, np.broadcast_to(apart.take([0], axis=dim + 1), apart.shape))


def fold(cx: Facts, x: Labelled, dim: int, count: int) -> Labelled:
    """Ties ``count`` equal blocks of a dimension, index by index; one block is left. Unlike after
    a reshape, no block can go by itself, so no row family is asked for.
    """
    x = dense(x)
    size = x.shape[dim] // count
    layers = []
    for layer in x.layers:
        atoms = layer.atoms
        if atoms.shape[dim] > 1:
            apart = atoms.reshape((*atoms.shape[:dim], count, size, *atoms.shape[dim + 1 :]))
            first = apart.take([0], axis=dim)
            cx.tie(apart, np.broadcast_to(first, apart.shape))
            atoms = first.squeeze(dim)
        if layer.target == dim and (atoms == atoms.take([0], axis=dim)).all():
            cx.pin([layer], "a dimension of one coordinate")
        else:
            layers.append(replace(layer, atoms=atoms))
    return Labelled((*x.shape[:dim], size, *x.shape[dim + 1 :]), tuple(layers))
