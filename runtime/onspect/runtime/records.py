"""Frozen dataclasses: parsed from JSON and checked field by field, or made quickly."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")


def quick_init(kind: type[D]) -> type[D]:
    """Decorate a frozen dataclass, so that an instance is made in less than half of the time.

    The usual `__init__` of a frozen dataclass calls `object.__setattr__` for each field. This one has the same
    parameters and stores the fields in the instance's dictionary. It is for classes that are made for each frame.

    Parameters
    ----------
    kind
        The dataclass.

    Returns
    -------
    type[D]
        The same class.

    Raises
    ------
    TypeError
        If the class has what this `__init__` does not do: `__post_init__`, slots, a default factory, or a field that is
        given by keyword only or not at all.
    """
    known = dataclasses.fields(kind)
    plain = all(field.init and not field.kw_only and field.default_factory is dataclasses.MISSING for field in known)
    if not plain or hasattr(kind, "__post_init__") or "__slots__" in vars(kind):
        raise TypeError(f"{kind.__name__} does more than store its fields; use dataclass alone")
    names = [field.name for field in known]
    lines = [f"def __init__(self, {', '.join(names)}):", "  facts = self.__dict__"]
    made: dict[str, Any] = {}
    exec("\n".join([*lines, *(f"  facts[{name!r}] = {name}" for name in names)]), made)  # noqa: S102 - as dataclass does
    usual, quick = vars(kind)["__init__"], made["__init__"]
    quick.__defaults__, quick.__annotations__ = usual.__defaults__, usual.__annotations__
    quick.__qualname__, quick.__module__ = usual.__qualname__, kind.__module__
    type.__setattr__(kind, "__init__", quick)
    return kind


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


def to_float(value: object) -> float | None:
    """Return a number of a JSON or TOML file as a float.

    Parameters
    ----------
    value
        The value.

    Returns
    -------
    float or None
        The number, infinite if a whole number is too large for a float; None if the value is not a number.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


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
    if kind is float and (number := to_float(value)) is not None and math.isfinite(number):
        return number
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise TypeError(f"{name} is {value!r}")
