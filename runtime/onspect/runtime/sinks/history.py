"""Questions to the history that `SqliteSink` writes; each opens the database for reading only, and closes it."""

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
from onspect.runtime.inspection.verdict import Judgement, Verdict, parse_verdict
from onspect.runtime.sinks.columns import COLUMNS


@dataclass(frozen=True)
class Record:
    """A verdict in the history, with its number there and its picture's place in the folder of evidence.

    evidence is None where no evidence was kept; the picture may be gone since, for its quota.
    """

    id: int
    verdict: Verdict
    evidence: str | None


@dataclass(frozen=True)
class Hour:
    """How many parts of each verdict one hour had; start is its beginning, ISO 8601 in UTC."""

    start: str
    ok: int = 0
    ng: int = 0
    review: int = 0
    fault: int = 0

    @property
    def total(self) -> int:
        """All parts of the hour."""
        return self.ok + self.ng + self.review + self.fault

    @property
    def good_share(self) -> float | None:
        """The share of parts that were ok, from 0 to 1; None for an hour without parts."""
        return self.ok / self.total if self.total else None


def read_recent(path: Path, verdict: Judgement | None = None, limit: int = 50) -> list[Record]:
    """Return the newest records (of one verdict), newest first; raises OutputError where there is no history."""
    if verdict is None:
        return read_records(path, "1", (), limit)
    condition = "verdict = ?" + (" AND verdict <> 'ok'" if verdict != "ok" else "")  # as the index has it
    return read_records(path, condition, (verdict,), limit)


def read_records(path: Path, condition: str, values: Sequence[object], limit: int) -> list[Record]:
    """Return the newest records that meet an SQL condition with its values; raises OutputError as `read_recent`."""
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    question = f"SELECT id, evidence, {names} FROM verdicts WHERE {condition} ORDER BY id DESC LIMIT ?"  # noqa: S608
    with reading(path) as connection:
        rows = connection.execute(question, (*values, limit)).fetchall()
    return [Record(row[0], _to_verdict(row[2:]), row[1]) for row in rows]


def yield_per_hour(path: Path, hours: int = 24, *, now: datetime | None = None) -> list[Hour]:
    """Return the counts of this hour and those before it, oldest first, also where an hour had no part.

    Raises OutputError where there is no history.
    """
    end = (now or datetime.now(UTC)).astimezone(UTC)
    starts = [(end - timedelta(hours=back)).strftime("%Y-%m-%dT%H") for back in reversed(range(hours))]
    with reading(path) as connection:
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
    """Open the database for reading only; raises OutputError if it cannot be read."""
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=2.0)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise OutputError(f"cannot read the history {str(path)!r}: {error}; check the path") from error
