"""Models by name: of torchvision and timm, from modules and files of Python, and from directories.

torchvision:NAME, timm:NAME    a model of the library
package.module:factory         a function, a class, or an instance; file.py:factory likewise
DIRECTORY                      the config.json of transformers or timm in it
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from planc.cli.terminal import own_code
from planc.errors import PlancError
from planc.errors.text import near
from planc.files.disk.atomic import read_file
from planc.files.disk.limits import DEFAULT
from planc.files.formats.nature import nature, start_of

Factory = Callable[..., Any]
_CONFIG = "config.json"
IMAGE = "1x3x224x224"
FORMS = "torchvision:NAME, timm:NAME, package.module:factory, file.py:factory or a directory"


def load_model(
    name: str,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> nn.Module:
    """Build the model ``name`` in eval mode, with weights initialised from ``seed``.

    Args:
        name: a name in one of the forms of this module.
        kwargs: keyword arguments of the factory.
        seed: seed of torch's global generator, whose state is restored afterwards.
        device: device of the tensors; on "meta" they take no memory.
        trust_remote_code: run the code that lies in a directory beside its weights.

    Raises:
        PlancError: there is no such model, module or factory, or the factory failed.
    """
    given = ", ".join(f"{key}={value!r}" for key, value in (kwargs or {}).items())
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), own_code(name):
        warnings.simplefilter("ignore", FutureWarning)  # of googlenet and inception, about init
        torch.manual_seed(seed)  # for an instance made by the import
        factory = find_factory(name, trust_remote_code)
        if isinstance(factory, nn.Module):
            if given:
                raise PlancError(f"{name} is a model, not a factory: leave --set {given} out")
            factory = partial(_copied, factory, device)
        torch.manual_seed(seed)
        try:
            with torch.device(device):
                model = factory(**(kwargs or {}))
        except Exception as error:
            raise PlancError(
                f"{name}({given}) failed: {described(error)}; check the keyword arguments, or "
                "see its traceback with --debug"
            ) from error
    if not isinstance(model, nn.Module):
        raise PlancError(f"{name} returned {type(model).__name__}, not an nn.Module")
    return model.eval()


def described(error: BaseException) -> str:
    """An exception of other code in one line, with the place where it was raised."""
    first = (str(error).strip() or "no message").splitlines()[0]
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = last.filename == __file__ or isinstance(error, SyntaxError)  # says where by itself
    where = "" if own else f" ({Path(last.filename).name}:{last.lineno})"
    return f"{type(error).__name__}: {first}{where}"


def find_factory(name: str, trust_remote_code: bool = False) -> Factory:
    """The function, class or module that ``name`` stands for; nothing is built.

    Raises:
        PlancError: there is none.
    """
    with own_code(f"importing {name}"):
        return _factory(name, trust_remote_code)


def _factory(name: str, trust_remote_code: bool) -> Factory:
    if name and Path(name).is_dir():
        return _described_in(Path(name), trust_remote_code)
    library, colon, model = name.partition(":")
    if colon and library in _LIBRARIES:
        return _LIBRARIES[library](model)
    factory = _object(name)
    if not callable(factory):
        source, _, attribute = name.rpartition(":")
        raise PlancError(f"module {source!r} cannot call {attribute!r}")
    found: Factory = factory
    return found


def find_object(name: str) -> Any:
    """The object that ``file.py:name`` or ``package.module:name`` stands for.

    Raises:
        PlancError: there is none.
    """
    if ":" not in name.strip(":"):
        raise PlancError(f"{name!r} names no object: write file.py:NAME or package.module:NAME")
    with own_code(f"importing {name}"):
        return _object(name)


def load_batches(name: str, seed: int = 0) -> Iterator[Any]:
    """The batches of ``name``: an iterable, or what a function returns.

    Raises:
        PlancError: there is no such object, the function fails, or it gives no batches.
    """
    with torch.random.fork_rng(devices=[]), own_code(name):
        torch.manual_seed(seed)
        found = find_object(name)
        try:
            return iter(found() if callable(found) else found)
        except Exception as error:
            raise PlancError(
                f"{name} gives no batches: {described(error)}; name a list, a data loader or a "
                "function without arguments that returns one"
            ) from error


def find_loss(name: str | None) -> Callable[[nn.Module, Any], Any] | None:
    """The loss of that name: a function of torch on pairs (inputs, targets), or an object's.

    Raises:
        PlancError: there is none.
    """
    if name not in ("cross_entropy", "mse_loss"):
        return None if name is None else find_object(name)
    measure = getattr(nn.functional, name)
    return lambda model, batch: measure(model(batch[0]), batch[1])


def _object(name: str) -> Any:
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise _no_model(name)
    path = Path(source)
    if path.suffix == ".py":
        module = _module_in(path)
    elif path.is_dir() and (path / "__init__.py").is_file() and path.name != source:
        module = _module_in(path / "__init__.py")
    else:
        module = _imported(source)
    return _attribute(module, source, attribute)


def _no_model(name: str) -> PlancError:
    """The error for a name without a source or a factory."""
    path = Path(name)
    if path.suffix == ".py":
        return PlancError(f"{name!r} is no model: name the factory in it, such as {name}:build")
    if path.is_file():
        kind = nature(start_of(path))[0] or "a file"
        return PlancError(
            f"{name} is {kind}, not a model: MODEL is {FORMS}; weights are given with --weights"
        )
    bare = name.strip(":") or "NAME"
    return PlancError(
        f"{name!r} is no model: write torchvision:{bare} or package.module:factory, "
        "file.py:factory, timm:NAME or a directory that is there"
    )


def _from_torchvision(name: str) -> Factory:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise PlancError(f"torchvision has no model {name!r}{near(name, known)}")
    factory: Factory = models.get_model_builder(name)
    return factory


def _from_timm(name: str) -> Factory:
    timm = _library("timm", f"timm:{name}")
    if ":" not in name and not timm.is_model(name):
        raise PlancError(f"timm has no model {name!r}{near(name, timm.list_models())}")
    return partial(timm.create_model, name)


_LIBRARIES = {"torchvision": _from_torchvision, "timm": _from_timm}


def _read(path: Path) -> Any:
    try:
        return json.loads(read_file(path, DEFAULT.index))
    except (ValueError, RecursionError) as error:
        raise PlancError(f"{path}: not JSON: {error}") from None


def usual_input(name: str) -> str:
    """Return the shape of an example input by the kind of model: an image of torchvision's size, or
    by ``config.json`` an image or tokens; empty where nothing tells.
    """
    if name.startswith("torchvision:"):
        return IMAGE
    path = Path(name) / _CONFIG
    match _read(path) if name and path.is_file() else None:
        case {"is_encoder_decoder": True}:
            return ""
        case {"vocab_size": int()}:
            return "1x16:int64"
        case {"image_size": int(size), "num_channels": int(channels)}:
            return f"1x{channels}x{size}x{size}"
        case {"pretrained_cfg": {"input_size": [int(channels), int(height), int(width)]}}:
            return f"1x{channels}x{height}x{width}"
    return ""


def _described_in(directory: Path, trust_remote_code: bool) -> Factory:
    """The factory of the model that ``config.json`` describes."""
    path = directory / _CONFIG
    if not path.is_file():
        raise PlancError(
            f"{directory} is a directory without {_CONFIG}: name the code of its model, such as "
            f"file.py:factory, and give the directory as --weights"
        )
    match config := _read(path):
        case {"architectures": [str(name), *_]}:
            transformers = _library("transformers", str(directory))
            kind = getattr(transformers, name, None)
            if kind is None and isinstance(config.get("auto_map"), dict):
                return _own_class(directory, name, config["auto_map"], trust_remote_code)
            if kind is None:
                raise PlancError(
                    f"{path}: transformers {transformers.__version__} has no {name!r}; name the "
                    "code of the model, and give the directory as --weights"
                )
            return lambda **kwargs: kind(
                transformers.AutoConfig.from_pretrained(directory, local_files_only=True, **kwargs)
            )
        case {"architecture": str(name)}:
            sizes = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
            return partial(_from_timm(name), **{**sizes, **config.get("model_args", {})})
    raise PlancError(
        f"{path} names no architecture of transformers or timm; name the code of the model, and "
        "give the directory as --weights"
    )


def _own_class(
    directory: Path, name: str, places: Mapping[str, Any], trust_remote_code: bool
) -> Factory:
    """The factory of a class whose code lies in the directory."""
    path = directory / _CONFIG
    if not trust_remote_code:
        raise PlancError(
            f"{path}: {name} is built by code in the directory, which planc runs only if told so: "
            "read it, and add --trust-remote-code"
        )
    transformers = _library("transformers", str(directory))
    place = next((v for v in places.values() if str(v).rpartition(".")[2] == name), None)
    if place is None:
        raise PlancError(f"{path}: auto_map names no code for {name}; name the code of the model")
    find = importlib.import_module("transformers.dynamic_module_utils")
    kind = find.get_class_from_dynamic_module(place, directory, local_files_only=True)
    options = {"local_files_only": True, "trust_remote_code": True}
    return lambda **kwargs: kind(
        transformers.AutoConfig.from_pretrained(directory, **options, **kwargs)
    )


def _library(name: str, model: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PlancError(f"{model} needs {name}: {error}; pip install {name}") from error


def _module_in(path: Path) -> ModuleType:
    """Import a file of Python under the name that it has from the root of its package."""
    if not path.is_file():
        raise PlancError(f"there is no file {path}")
    path = path.resolve()
    parts = [] if path.name == "__init__.py" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # as `python file.py` does, for its own imports
    name = ".".join(parts)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if len(parts) > 1:
        return _imported(name)
    if loaded is not None or not name.isidentifier():
        name = "_" + re.sub(r"\W", "_", name)  # of another module, or no name of Python
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise _unimported(path.name, error) from error
        raise
    return module


def _imported(source: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # like `python -m`: the current directory
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise _unimported(source, error) from error
        raise PlancError(
            f"there is no module {source!r} (no {error.name!r} in this directory or among the "
            f"installed packages); MODEL is {FORMS}"
        ) from None
    except Exception as error:
        raise _unimported(source, error) from error


def _unimported(source: str, error: Exception) -> PlancError:
    return PlancError(f"importing {source} failed: {described(error)}; --debug shows where")


def _attribute(module: ModuleType, source: str, name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        public = [n for n, value in vars(module).items() if callable(value) and n[:1] != "_"]
        raise PlancError(f"module {source!r} has no factory {name!r}{near(name, public)}") from None


def _copied(model: nn.Module, device: str) -> nn.Module:
    """A copy, so that weights read into it leave the imported instance as it is."""
    made = copy.deepcopy(model)
    return made.to(device) if device == "meta" else made
