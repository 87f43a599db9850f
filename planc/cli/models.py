"""Models on the command line: the options that describe one, its module and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from planc.cli.options import FILE, Command, literal, pairs
from planc.cli.terminal import status
from planc.errors import PlancError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from planc import StoredWeights

Shape = tuple[str, tuple[int, ...], str]
DEFAULT_INPUT = "1x3x224x224 for torchvision:NAME, by config.json for DIRECTORY, needed for others"


class InputMissing(click.ClickException):
    """The shape of an example input is needed and not given."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Given:
    """The values of :func:`model_options` and :func:`input_option`."""

    settings: tuple[tuple[str, Any], ...]
    weights: Path | None
    seed: int
    inputs: tuple[Shape, ...] = ()
    trust_pickle: bool = False
    trust_remote_code: bool = False

    def build(self, model: str, device: str = "cpu") -> nn.Module:
        """Build ``model`` with the given weights; on "meta", no weights are read."""
        from planc.cli.named import load_model
        from planc.cli.weights import assign_stored

        weights = self.weights_of(model)
        if weights is not None:
            weights.stat()  # known before the work
        with status(f"building {model}"):
            settings, trusted = dict(self.settings), self.trust_remote_code
            built = load_model(model, settings, self.seed, device, trusted)
        if weights is not None and device != "meta":
            assign_stored(built, weights, self.trust_pickle)
        return built

    def words(self, model: str, inputs: bool = False) -> tuple[str, ...]:
        """The words of a command that name the same model and weights, and its example inputs; none
        for a factory with arguments.
        """
        if self.settings:
            return ()
        weights = () if self.weights is None else ("--weights", str(self.weights))
        shapes = [word for spec in self.inputs if inputs for word in ("--input", shape_text(spec))]
        trusted = {
            "--trust-pickle": self.trust_pickle,
            "--trust-remote-code": self.trust_remote_code,
        }
        return (model, *shapes, *weights, *(option for option, said in trusted.items() if said))

    def weights_of(self, model: str) -> Path | None:
        """The weights given, else those in the directory that ``model`` names."""
        from planc.cli.weights import weights_in

        return weights_in(model) if self.weights is None else self.weights

    def stored(self, model: str, built: nn.Module) -> StoredWeights | None:
        """The weights of ``model`` for reading one by one, None where there are none."""
        import planc
        from planc.cli.weights import check_weights

        path = self.weights_of(model)
        if path is None:
            return None
        stored = planc.StoredWeights(path, model=built, trust_pickle=self.trust_pickle)
        check_weights(built, stored.meta, str(path))
        return stored

    def example_inputs(self, model: str) -> tuple[torch.Tensor, ...]:
        """Return random example inputs of the given shapes, or of the model's usual one.

        Raises:
            InputMissing: no shapes are given, and none is usual.
            PlancError: there is no such model.
        """
        from planc.cli.named import IMAGE, find_factory, usual_input
        from planc.modules.inputs import materialise

        usual = "" if self.inputs else usual_input(model)
        if not self.inputs and not usual:
            find_factory(model, self.trust_remote_code)
            raise InputMissing(
                f"{model}: name the shape of its example input with --input, such as "
                f"--input {IMAGE} for an image or --input 1x16:int64 for tokens"
            )
        items = self.inputs or (shape(usual),)
        args, _ = materialise(("tuple", ("tuple", *items), ("dict",)), seed=self.seed)
        return args


class _Model(click.types.StringParamType):
    """The name of a model; the shell completes those of torchvision and timm."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        library, colon, start = incomplete.partition(":")
        if not colon:
            libraries = (f"{name}:" for name in _LIBRARIES if name.startswith(library))
            return [*map(CompletionItem, libraries), CompletionItem(incomplete, type="file")]
        if library not in _LIBRARIES:
            return []
        try:
            known = import_module(_LIBRARIES[library]).list_models()
        except ImportError:  # timm is not installed everywhere
            return []
        return [CompletionItem(f"{library}:{name}") for name in known if name.startswith(start)]


_LIBRARIES = {"torchvision": "torchvision.models", "timm": "timm"}
MODEL = _Model()


def model_options(command: Command) -> Callable[..., Any]:
    """Add the options of a command that builds a model, passed to it as ``given``."""

    @wraps(command)
    def collected(
        settings: tuple[tuple[str, Any], ...],
        weights: Path | None,
        seed: int,
        trust_pickle: bool,
        trust_remote_code: bool,
        inputs: tuple[Shape, ...] = (),
        **options: Any,
    ) -> Any:
        trusted = trust_pickle, trust_remote_code
        return command(given=Given(settings, weights, seed, inputs, *trusted), **options)

    options = (
        click.option(
            "--set",
            "settings",
            multiple=True,
            callback=pairs(literal),
            metavar="KEY=VALUE",
            help="A keyword argument of MODEL, a Python literal; may be repeated.",
        ),
        click.option(
            "--weights",
            type=FILE,
            metavar="PATH",
            help="Weights: a safetensors file, a directory of shards, or a .pt or .bin file.",
        ),
        click.option(
            "--trust-pickle",
            is_flag=True,
            help="Read weights that are pickles (.pt, .bin, native torch.distributed.checkpoint).",
        ),
        click.option(
            "--trust-remote-code",
            is_flag=True,
            help="Run the code in a directory of transformers that its config.json names.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            callback=_seed,
            default=0,
            show_default=True,
            help="Of random weights (where none are given), inputs and scores.",
        ),
    )
    result: Callable[..., Any] = collected
    for option in reversed(options):
        result = option(result)
    return result


def shape(text: str) -> Shape:
    """Parse sizes and a dtype as a tensor's :mod:`planc.plan.specification`.

    >>> shape("2x16:int64")
    ('tensor', (2, 16), 'int64')
    """
    sizes, _, dtype = text.partition(":")
    if not all(size.isdecimal() for size in sizes.split("x")):
        raise ValueError(f"{text!r}: write sizes with x between, as 1x3x224x224 or 2x16:int64")
    return "tensor", tuple(map(int, sizes.split("x"))), dtype or "float32"


def shape_text(spec: Shape) -> str:
    """Return the text that :func:`shape` parses.

    >>> shape_text(("tensor", (2, 16), "int64")), shape_text(("tensor", (1, 3), "float32"))
    ('2x16:int64', '1x3')
    """
    _, sizes, dtype = spec
    return "x".join(map(str, sizes)) + ("" if dtype == "float32" else f":{dtype}")


def _seed(ctx: click.Context, param: click.Parameter, value: int) -> int:
    if value >= 1 << 63:
        raise click.BadParameter(f"{value}: write a number below 2**63", ctx, param)
    return value


def _shapes(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> Any:
    try:
        return tuple(map(shape, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def input_option(default: str) -> Callable[[Command], Command]:
    """Return the option for example inputs; ``default`` describes the inputs taken without it."""
    return click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="SHAPE[:DTYPE]",
        callback=_shapes,
        help=f"A positional example input, as 2x16:int64; once for each.  [default: {default}]",
    )


def on_device(
    model: nn.Module, args: tuple[torch.Tensor, ...], device: str
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Move a model and its inputs to a device.

    Raises:
        PlancError: there is no such device.
    """
    try:
        return model.to(device), tuple(arg.to(device) for arg in args)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise PlancError(f"--device {device}: {first}; name one that torch has here") from None
