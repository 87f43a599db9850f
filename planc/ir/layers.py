"""Structural attributes of torch.nn's own layers, as sizes of their tensors.

This is the only table of layers by name. Other attributes (``groups``, ``num_heads``,
``normalized_shape``, and all attributes of other modules) follow from size equations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from planc.ir.graph import Module


@dataclass(frozen=True, slots=True)
class Derived:
    """Attribute ``name`` is the size of dimension ``dim`` of a tensor, times attribute ``times``.

    ``tensors`` are the tensor's possible names in the module, in order of preference.
    """

    name: str
    tensors: tuple[str, ...]
    dim: int
    times: str = ""

    def sources(self, path: str) -> Iterator[str]:
        """Full names of the tensor in the module at ``path``.

        Hooks (torch.nn.utils.prune, spectral_norm, weight_norm) and parametrizations replace a
        tensor by others of equal shape; their names are included.
        """
        for tensor in self.tensors:
            name = f"{path}.{tensor}" if path else tensor
            outer, last = f"{path}." if path else "", f"parametrizations.{tensor}"
            yield from (name, f"{name}_orig", f"{outer}{last}.original", f"{outer}{last}.original1")
            yield f"{name}_v"

    def source(self, module: Module, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """The name among ``shapes`` with a size equal to the attribute of ``module``, None if
        absent.
        """
        times = module.attributes[self.times] if self.times else 1
        for name in self.sources(module.path):
            shape = shapes.get(name, ())
            if self.dim < len(shape) and shape[self.dim] * times == module.attributes[self.name]:
                return name
        return None


_LINEAR = (Derived("in_features", ("weight",), 1), Derived("out_features", ("weight",), 0))
_CONV = (
    Derived("in_channels", ("weight",), 1, times="groups"),
    Derived("out_channels", ("weight",), 0),
)
_TRANSPOSED = (
    Derived("in_channels", ("weight",), 0),
    Derived("out_channels", ("weight",), 1, times="groups"),
)
_PER_FEATURE = (Derived("num_features", ("weight", "running_mean"), 0),)
_EMBEDDING = (
    Derived("num_embeddings", ("weight",), 0),
    Derived("embedding_dim", ("weight",), 1),
)

_CELL = (
    Derived("input_size", ("weight_ih",), 1),
    Derived("hidden_size", ("weight_hh",), 1),
)

INDIVISIBLE = {
    "torch.nn.utils.parametrizations._Orthogonal": "part of an orthogonal weight is not orthogonal"
}

LAYERS: dict[str, tuple[Derived, ...]] = {
    "Linear": _LINEAR,
    "Bilinear": (
        Derived("in1_features", ("weight",), 1),
        Derived("in2_features", ("weight",), 2),
        Derived("out_features", ("weight",), 0),
    ),
    "_ConvTransposeNd": _TRANSPOSED,
    "_ConvNd": _CONV,
    "torchvision.ops.deform_conv.DeformConv2d": _CONV,
    "_NormBase": _PER_FEATURE,
    "GroupNorm": (Derived("num_channels", ("weight",), 0),),
    "PReLU": (Derived("num_parameters", ("weight",), 0),),
    "Embedding": _EMBEDDING,
    "EmbeddingBag": _EMBEDDING,
    "RNNBase": (
        Derived("input_size", ("weight_ih_l0",), 1),
        Derived("hidden_size", ("weight_hr_l0", "weight_hh_l0"), 1),
        Derived("proj_size", ("weight_hr_l0",), 0),
    ),
    "RNNCellBase": _CELL,
    "MultiheadAttention": (
        Derived("embed_dim", ("out_proj.weight",), 0),
        Derived("kdim", ("k_proj_weight", "in_proj_weight"), 1),
        Derived("vdim", ("v_proj_weight", "in_proj_weight"), 1),
    ),
}


_DIRECTIONS = (("_v", "_g"), (".original1", ".original0"))


def whole(tensors: Iterable[tuple[Sequence[str], tuple[int, ...]]]) -> dict[str, int]:
    """Dimensions left whole by a mask, by tensor name.

    A weight norm divides a direction by its norm and multiplies it by a magnitude. A mask zeroes
    the weight through the magnitude. The direction must keep a norm to divide by.

    Args:
        tensors: names and shapes, of a model or of a state dict.
    """
    shapes = {name: shape for names, shape in tensors for name in names}
    found: dict[str, int] = {}
    for name, shape in shapes.items():
        for ending, other in _DIRECTIONS:
            sizes = shapes.get(name.removesuffix(ending) + other, ())
            long = [dim for dim, size in enumerate(sizes) if size > 1]
            if not name.endswith(ending) or len(sizes) != len(shape) or len(long) != 1:
                continue
            if sizes[long[0]] == shape[long[0]] and sizes != shape:
                found[name] = long[0]
    return found


def indivisible(module: Module) -> str:
    """The reason why a parametrization's tensors are never pruned, or ""."""
    return next((INDIVISIBLE[name] for name in module.types if name in INDIVISIBLE), "")


def derived(module: Module) -> Iterator[Derived]:
    """The table's attributes for a module, by the most specific of its types."""
    for name in module.types:
        if name in LAYERS:
            yield from (d for d in LAYERS[name] if d.name in module.attributes)
            return


def known(module: Module) -> Iterator[str]:
    """Names of a torch.nn layer's constructor arguments and of the attributes derived from them."""
    for name in module.settings:
        if type(module.attributes.get(name)) in (int, str, tuple):
            yield name
    for entry in derived(module):
        yield entry.name
    for name, *_ in quotients(module):
        yield name


def quotients(module: Module) -> Iterator[tuple[str, str, str]]:
    """Attributes equal to the quotient of two others: (name, dividend, divisor)."""
    if "MultiheadAttention" in module.types and "head_dim" in module.attributes:
        yield "head_dim", "embed_dim", "num_heads"
