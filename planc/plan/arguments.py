"""Checks of the arguments of public functions, as a table of checks for each function.

A check takes the name of a parameter and the given value, and returns the value to use. Wrong types
and swapped arguments raise a one-line error naming the parameter, the type and the remedy.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from planc.errors import PlancError, PolicyError
from planc.plan.plan import Plan

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Check = Callable[[str, Any], Any]


def takes(
    **checks: Check,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """A decorator passing every given argument through the check of its name."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            given = signature.bind(*args, **kwargs)
            for name, value in given.arguments.items():
                if name in checks:
                    given.arguments[name] = checks[name](name, value)
            return function(*given.args, **given.kwargs)

        return checked

    return decorate


def instance(
    expected: str, *kinds: type, advice: str, error: type[PlancError] = PlancError
) -> Check:
    """A check for objects of some types; ``expected`` and ``advice`` appear in its message."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, kinds):
            return value
        raise error(f"{name}: expected {expected}, got {described(value)}; {advice}")

    return check


def optional(check: Check) -> Check:
    """The same check, with None accepted."""

    def checked(name: str, value: Any) -> Any:
        return None if value is None else check(name, value)

    return checked


def a_plan(name: str, value: Any) -> Plan:
    """A plan, or an object with a plan, such as the result of :func:`planc.from_masks`."""
    held = value if isinstance(value, Plan) else getattr(value, "plan", None)
    if isinstance(held, Plan):
        return held
    advice = "give what planc.compile or planc.load_plan returns"
    if isinstance(value, str | os.PathLike):
        advice = f"read it with planc.load_plan({os.fspath(value)!r})"
    elif type(value).__name__ == "MaskPlan":
        advice = "for mask plans there are planc.masks.apply and its neighbours"
    elif _is_model(value):
        advice = "the plan comes before the model"
    raise PlancError(f"{name}: expected a planc.Plan, got {described(value)}; {advice}")


def a_path(name: str, value: Any) -> Any:
    """A path as text or as an object with ``__fspath__``."""
    if isinstance(value, str | os.PathLike):
        return value
    advice = "give a string or a pathlib.Path"
    if isinstance(value, Plan) or _is_model(value):
        advice += "; the order of the arguments may be another"
    raise PlancError(f"{name}: expected a path, got {described(value)}; {advice}")


def options(*allowed: str, error: type[PlancError] = PlancError) -> Check:
    """A check for one of several words."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str) and value in allowed:
            return value
        several = len(allowed) > 2
        words = ", ".join(allowed) if several else " or ".join(f'"{word}"' for word in allowed)
        raise error(f"{name} {shown(value)}: choose {'one of ' * several}{words}")

    return check


def a_count(name: str, value: Any) -> int:
    """A positive integer."""
    if type(value) is int and value > 0:
        return value
    raise PlancError(f"{name} {shown(value)} is not a whole number from 1 on")


def a_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise PolicyError(f"{name}: expected text, got {described(value)}")


def a_digest(name: str, value: Any) -> str | None:
    """A SHA-256 in hexadecimal, or None."""
    if value is None or (isinstance(value, str) and len(value) == 64):
        return value
    raise PolicyError(f"{name} has 64 hexadecimal digits, {shown(value)} is none")


def function_of(*parameters: str) -> Check:
    """A check for functions accepting these parameters. Classes and models are rejected."""

    def check(name: str, value: Any) -> Any:
        fits = callable(value) and not isinstance(value, type) and not _is_model(value)
        with suppress(ValueError):  # some built-in functions have no signature
            fits = fits and _binds(inspect.signature(value), parameters)
        if fits:
            return value
        raise PolicyError(
            f"{name}: expected a function of ({', '.join(parameters)}), got {described(value)}"
        )

    return check


def _binds(signature: inspect.Signature, parameters: Sequence[str]) -> bool:
    try:
        signature.bind(*parameters)
    except TypeError:
        return False
    return True


def _is_model(value: Any) -> bool:
    return hasattr(value, "named_parameters")


def a_flag(name: str, value: Any) -> bool:
    """True or False."""
    if isinstance(value, int) or type(value).__name__ == "bool":  # numpy's, too
        return bool(value)
    raise PlancError(f"{name}: expected True or False, got {described(value)}")


def no_array(name: str, value: Any) -> Any:
    """Any argument except arrays and tensors, given in place of a number."""
    if hasattr(value, "__array__") and not isinstance(value, float):
        raise PolicyError(f"{name}: expected a number, got {described(value)}")
    return value


def a_number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise PlancError(f"{name} {shown(value)} is not a finite number")


def some_patterns(name: str, value: Any) -> tuple[str, ...]:
    """One pattern of names, or several, as a tuple."""
    several = (value,) if isinstance(value, str) else value
    if isinstance(several, Iterable) and not isinstance(several, bytes | Mapping):
        several = tuple(several)
        if all(isinstance(one, str) for one in several):
            return several
    raise PolicyError(
        f"{name}: expected patterns of names, got {described(value)}; give a string or several"
    )


def a_mapping(name: str, value: Any) -> Mapping[str, Any]:
    """A mapping from names."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return value
    raise PolicyError(f"{name}: expected a mapping from names, got {described(value)}")


def described(value: Any) -> str:
    """The type of an argument, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def shown(value: Any) -> str:
    """An argument for a message: at most one line."""
    text = repr(value).splitlines()[0]
    return text if len(text) <= 60 else f"of type {type(value).__name__}"
