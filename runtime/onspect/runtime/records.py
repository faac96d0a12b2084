"""Parse JSON objects into frozen dataclasses, checked field by field."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def parse_dataclass(kind: type[T], content: Any) -> T:
    """Build a frozen dataclass from its JSON object.

    Unknown keys are ignored; missing ones take their defaults.

    Parameters
    ----------
    kind
        The dataclass.
    content
        The JSON object.

    Returns
    -------
    T
        The dataclass.

    Raises
    ------
    TypeError
        If a value has the wrong type, or a field without a default is missing. The message names the field.
    ValueError
        If a value is out of its range.
    """
    if not isinstance(content, dict):
        raise TypeError(f"{kind.__name__} is {content!r}, not an object")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # only dataclasses come here
    return kind(**{name: _parse(hints[name], value, name) for name, value in content.items() if name in known})


def _all_finite(values: list[Any]) -> bool:
    """Return whether all values are finite floats. This is the usual case, and needs no check one by one."""
    return all(type(value) is float for value in values) and all(map(math.isfinite, values))


def _parse(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise TypeError(f"{name} is {value!r}, none of {', '.join(map(str, arguments))}")
    if origin is types.UnionType:
        return None if value is None else _parse(arguments[0], value, name)
    if dataclasses.is_dataclass(kind):
        return parse_dataclass(typing.cast("type[Any]", kind), value)
    fixed = Ellipsis not in arguments
    if arguments == (float, Ellipsis) and isinstance(value, list) and _all_finite(value):
        return tuple(value)
    if origin is tuple and isinstance(value, list) and not (fixed and len(value) != len(arguments)):
        return tuple(_parse(arguments[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _parse(arguments[1], item, name) for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise TypeError(f"{name} is {value!r}")
