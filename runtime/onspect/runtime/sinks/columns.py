"""A verdict as a line of JSON and as the columns of a table: the fields of `Verdict` decide both.

A new field of `Verdict` becomes a column of CSV, SQLite and Parquet by itself; its annotation gives the type.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from onspect.runtime.inspection.verdict import Verdict


def _kind(hint: Any) -> type:
    """Return the type of a column from a field's annotation."""
    if typing.get_origin(hint) is types.UnionType:
        return _kind(next(one for one in typing.get_args(hint) if one is not types.NoneType))
    if typing.get_origin(hint) is tuple:
        return tuple
    return hint if hint in (int, float) else str


_HINTS = typing.get_type_hints(Verdict)

COLUMNS: dict[str, type] = {field.name: _kind(_HINTS[field.name]) for field in dataclasses.fields(Verdict)}
"""The columns in order, each with its type: `int`, `float`, `str`, or `tuple` for a list of dataclasses."""


def encode_text(text: str) -> bytes:
    """Return text as UTF-8; bytes of a file name that are not UTF-8 become JSON escapes."""
    return text.encode(errors="backslashreplace")


def encode_verdict(verdict: Verdict) -> bytes:
    """Return the JSON of one verdict in UTF-8, without the line's end: what files hold and receivers get."""
    return encode_text(verdict.to_json())


def to_row(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict's values by column, as numbers and text that UTF-8 can hold; lists are JSON text."""
    return {name: _flat(value) for name, value in verdict.to_dict().items()}


def _flat(value: Any) -> Any:
    if isinstance(value, tuple):
        return json.dumps(value)
    return encode_text(value).decode() if isinstance(value, str) else value
