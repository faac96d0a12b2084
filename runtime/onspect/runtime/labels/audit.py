"""The audit log: one row for each change by a person or a command, chained by hashes.

Each row has the SHA-256 of its own content and of the hash before it. A changed, removed or inserted row breaks the
chain. Rows that are cut off at the end, or the whole log of another line, are noticed only by a hash that was noted
elsewhere, such as in the messages of the MQTT sink.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = (
    (
        "CREATE TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, "
        "who TEXT NOT NULL, facts TEXT NOT NULL, hash TEXT NOT NULL)"
    ),
    (
        "CREATE TRIGGER IF NOT EXISTS audit_is_not_changed BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    ),
    (
        "CREATE TRIGGER IF NOT EXISTS audit_is_not_deleted BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    ),
)

START = "0" * 64
"""The hash before the first row."""


@dataclass(frozen=True)
class Change:
    """One row of the audit log."""

    id: int
    """Number of the row, from 1, without gaps."""

    time: str
    """ISO 8601, UTC."""

    kind: str
    """``label``, ``add``, ``undo``, ``threshold``, ``swap`` or ``teach``."""

    who: str
    """Name of the person; empty for a change that came to the line in another way."""

    facts: Mapping[str, Any]
    """The change, as a JSON object."""

    hash: str
    """SHA-256 of the row and of the hash before it, in hexadecimal."""

    def to_dict(self) -> dict[str, Any]:
        """Return the change as the JSON object that is published.

        Returns
        -------
        dict[str, Any]
            The fields.
        """
        return asdict(self)


def append(connection: sqlite3.Connection, time: str, kind: str, who: str, facts: Mapping[str, Any]) -> Change:
    """Add a row in the caller's transaction.

    Parameters
    ----------
    connection
        The database.
    time
        Time of the change, ISO 8601 in UTC.
    kind
        One of the kinds of `Change`.
    who
        Name of the person; empty for none.
    facts
        The change, as a JSON object.

    Returns
    -------
    Change
        The row.
    """
    last = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    number, before = (0, START) if last is None else last
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    digest = _hash_row(before, number + 1, time, kind, who, text)
    connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (number + 1, time, kind, who, text, digest))
    return Change(number + 1, time, kind, who, json.loads(text), digest)


def read_changes(connection: sqlite3.Connection, limit: int = -1, kinds: tuple[str, ...] = ()) -> list[Change]:
    """Return the newest changes.

    Parameters
    ----------
    connection
        The database.
    limit
        Largest number of changes; -1 for all.
    kinds
        Only changes of these kinds; empty for all.

    Returns
    -------
    list[Change]
        The changes, oldest first.
    """
    chosen = f"WHERE kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
    question = f"SELECT id, time, kind, who, facts, hash FROM audit {chosen} ORDER BY id DESC LIMIT ?"  # noqa: S608
    rows = connection.execute(question, (*kinds, limit)).fetchall()
    return [
        Change(number, time, kind, who, _read_facts(facts), digest)
        for number, time, kind, who, facts, digest in reversed(rows)
    ]


def verify_audit(connection: sqlite3.Connection) -> Iterator[str]:
    """Check log, labels and labelled pictures.

    Every label needs its row in the log, with the same label, name and picture.

    Parameters
    ----------
    connection
        The database.

    Returns
    -------
    Iterator[str]
        One sentence for each damaged place; empty if there is none.
    """
    expected, before = 1, START
    logged: dict[int, dict[str, Any]] = {}
    question = "SELECT id, time, kind, who, facts, hash FROM audit ORDER BY id"
    for number, time, kind, who, text, digest in connection.execute(question):
        if number != expected:
            yield f"row {expected} of the audit log is missing"
        if digest != _hash_row(before, number, time, kind, who, text):
            yield f"row {number} of the audit log was changed, or the row before it"
        expected, before = number + 1, digest
        facts = _read_facts(text)
        if kind == "label" and "id" in facts:
            logged[facts["id"]] = facts | {"who": who, "time": time}
    seen = set()
    question = (
        "SELECT labels.id, label, who, labels.time, sha256, png, pictures.time, number, source FROM labels "
        "JOIN pictures ON pictures.id = picture"
    )
    for number, label, who, time, sha256, png, *part in connection.execute(question):
        seen.add(number)
        known = logged.get(number)
        if known is None:
            yield f"label {number} is not in the audit log"
        elif [known.get(name) for name in ("label", "who", "time", "picture", "part")] != [
            *(label, who, time, sha256),
            dict(zip(("time", "index", "source"), part, strict=True)),
        ]:
            yield f"label {number} is not as the audit log has it"
        elif hashlib.sha256(png).hexdigest() != sha256:
            yield f"the picture of label {number} was changed"
    for number in sorted(set(logged) - seen):
        yield f"label {number} is in the audit log, and its row or picture is missing"


def _read_facts(text: str) -> dict[str, Any]:
    """Return the facts of a row; if they are damaged, their text, so that the rest can be read."""
    facts: Any = None
    with suppress(ValueError):
        facts = json.loads(text)
    return facts if isinstance(facts, dict) else {"unreadable": text}


def _hash_row(before: str, number: int, time: str, kind: str, who: str, facts: str) -> str:
    content = json.dumps([before, number, time, kind, who, facts], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
