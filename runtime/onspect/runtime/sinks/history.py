"""Queries of the history that `SqliteSink` writes; each opens the database for reading only, and closes it."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from onspect.runtime.errors import OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.verdict import Verdict, parse_verdict
from onspect.runtime.judgement import Judgement
from onspect.runtime.sinks.columns import COLUMNS


@dataclass(frozen=True)
class Record:
    """A verdict in the history."""

    id: int
    """Number of the row, 1 or more."""
    verdict: Verdict
    """The verdict."""
    evidence: str | None
    """Path of its picture in the folder of evidence; None if there is none. The quota may have removed the file."""


@dataclass(frozen=True)
class Hour:
    """Counts of parts in one hour."""

    start: str
    """Beginning of the hour, ISO 8601 in UTC."""
    ok: int = 0
    """Number of ok parts."""
    ng: int = 0
    """Number of ng parts."""
    review: int = 0
    """Number of parts for review."""
    fault: int = 0
    """Number of faults."""

    @property
    def total(self) -> int:
        """Number of parts of the hour."""
        return self.ok + self.ng + self.review + self.fault

    @property
    def good_share(self) -> float | None:
        """Share of ok parts, 0 to 1; None for an hour without parts."""
        return self.ok / self.total if self.total else None


def read_recent(path: Path | str, verdict: Judgement | None = None, limit: int = 50) -> list[Record]:
    """Return the newest records.

    Parameters
    ----------
    path
        The database.
    verdict
        Only records with this verdict; None for all.
    limit
        Largest number of records, 1 or more.

    Returns
    -------
    list[Record]
        The records, newest first.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    return read_records(Path(path), *match_verdict(verdict), limit)


def match_verdict(verdict: str | None) -> tuple[str, list[str]]:
    """Return an SQL condition for a verdict, in the words of the index of rejects.

    Parameters
    ----------
    verdict
        One of the four verdicts, ``reject`` for all but ``ok``, or None for all.

    Returns
    -------
    tuple[str, list[str]]
        The condition, and its values.
    """
    if verdict is None:
        return "1", []
    if verdict == "reject":
        return "verdict <> 'ok'", []
    return "verdict = ?" + (" AND verdict <> 'ok'" if verdict != "ok" else ""), [verdict]


def read_records(path: Path, condition: str, values: Sequence[object], limit: int) -> list[Record]:
    """Return the newest records that satisfy an SQL condition.

    Parameters
    ----------
    path
        The database.
    condition
        SQL condition with a question mark for each value.
    values
        The values.
    limit
        Largest number of records, 1 or more.

    Returns
    -------
    list[Record]
        The records, newest first.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    question = f"SELECT id, evidence, {names} FROM verdicts WHERE {condition} ORDER BY id DESC LIMIT ?"  # noqa: S608
    with reading(path) as connection:
        rows = connection.execute(question, (*values, limit)).fetchall()
    return [Record(row[0], _to_verdict(row[2:]), row[1]) for row in rows]


def yield_per_hour(path: Path | str, hours: int = 24, *, now: datetime | None = None) -> list[Hour]:
    """Return the counts of the last hours, including hours without parts.

    Parameters
    ----------
    path
        The database.
    hours
        Number of hours, 1 or more.
    now
        A time in the last hour; None for the current time.

    Returns
    -------
    list[Hour]
        One entry for each hour, oldest first.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    end = (now or datetime.now(UTC)).astimezone(UTC)
    starts = [(end - timedelta(hours=back)).strftime("%Y-%m-%dT%H") for back in reversed(range(hours))]
    with reading(Path(path)) as connection:
        rows = connection.execute(
            "SELECT hour, verdict, count FROM hours WHERE hour BETWEEN ? AND ?", (starts[0], starts[-1])
        ).fetchall()
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for hour, verdict, count in rows:
        counts[hour][verdict] = count
    return [Hour(f"{start}:00:00Z", **counts[start]) for start in starts]


def _to_verdict(row: tuple[object, ...]) -> Verdict:
    facts = dict(zip(COLUMNS, row, strict=True))
    facts["regions"] = json.loads(str(facts["regions"]))
    return parse_verdict(json.dumps(facts))


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for reading only.

    Parameters
    ----------
    path
        The database.

    Yields
    ------
    sqlite3.Connection
        The connection.

    Raises
    ------
    OutputError
        If the database cannot be read.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    with (
        explaining(OutputError, f"cannot read the history {str(path)!r}", "check the path", of=sqlite3.Error),
        closing(sqlite3.connect(address, uri=True, timeout=2.0)) as connection,
    ):
        yield connection
