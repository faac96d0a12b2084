"""A verdict as a line of JSON and as the columns of a table; both follow from the fields of `Verdict`.

A new field of `Verdict` becomes a column of CSV, SQLite and Parquet automatically; its annotation gives the type.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from onspect.runtime.inspection.verdict import Verdict, parse_verdict


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
    """Encode text as UTF-8; bytes of a file name that are not UTF-8 become JSON escapes.

    Parameters
    ----------
    text
        The text.

    Returns
    -------
    bytes
        The bytes.
    """
    return text.encode(errors="backslashreplace")


def encode_verdict(verdict: Verdict) -> bytes:
    """Encode one verdict as JSON, as files and receivers get it.

    Parameters
    ----------
    verdict
        The verdict.

    Returns
    -------
    bytes
        JSON in UTF-8, without the end of the line.
    """
    return encode_text(verdict.to_json())


def parse_line(line: bytes) -> Verdict | None:
    """Return the verdict that `encode_verdict` wrote.

    Parameters
    ----------
    line
        The line.

    Returns
    -------
    Verdict | None
        The verdict; None for another line, such as one of CSV, a damaged one or a person's note.
    """
    try:
        return parse_verdict(line)
    except ValueError:
        return None


def to_row(verdict: Verdict) -> dict[str, Any]:
    """Return the values of a verdict by column.

    Parameters
    ----------
    verdict
        The verdict.

    Returns
    -------
    dict[str, Any]
        Numbers and text that UTF-8 can encode, by name of the column; lists are JSON text.
    """
    return {name: _flat(value) for name, value in verdict.to_dict().items()}


def _flat(value: Any) -> Any:
    if isinstance(value, tuple):
        return json.dumps(value)
    return encode_text(value).decode() if isinstance(value, str) else value
