"""Queries of the history: parts, places on the part, scores, and the summary of a shift."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onspect.runtime.errors import ChoiceError
from onspect.runtime.judgement import JUDGEMENTS, Judgement
from onspect.runtime.sinks.history import Record, match_verdict, read_records, reading

COLUMNS, ROWS = 8, 6
"""Number of columns and rows of the grid in which regions are counted."""

_MOST_PARTS = 20_000  # newest parts that are counted by place and by score
_SCORE_STEPS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)  # of the threshold
_DIGITS = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Filter:
    """Conditions for parts of the history; None leaves a condition out. Raises ChoiceError for an unknown verdict."""

    verdict: str | None = None
    """One of the four verdicts, or ``reject`` for all but ``ok``."""
    since: str | None = None
    """First time, ISO 8601 in UTC."""
    until: str | None = None
    """End of the time, ISO 8601 in UTC; not included."""
    source: str | None = None
    """Name of the camera."""
    part: str | None = None
    """Beginning of the part id."""
    region: tuple[float, float, float, float] | None = None
    """x, y, width and height in pixels of the source image; a part matches if one of its regions overlaps it."""

    def __post_init__(self) -> None:
        if self.verdict not in (None, "reject", *JUDGEMENTS):
            raise ChoiceError(f"the verdict is {self.verdict!r}; give reject or one of {', '.join(JUDGEMENTS)}")

    def to_sql(self) -> tuple[str, list[Any]]:
        """Return the filter as SQL.

        Returns
        -------
        tuple[str, list[Any]]
            Condition of a WHERE clause, and its values.
        """
        condition, matched = match_verdict(self.verdict)
        terms, values = [condition], list[Any](matched)
        for column, sign, value in (
            ("time", ">=", self.since),
            ("time", "<", self.until),
            ("source", "=", self.source),
        ):
            if value is not None:
                terms.append(f"{column} {sign} ?")
                values.append(value)
        if self.part is not None:
            terms.append("substr(part, 1, ?) = ?")
            values += [len(self.part), self.part]
        if self.region is not None:
            x, y, width, height = self.region
            terms.append(_OVERLAPS)
            values += [x + width, x, y + height, y]
        return " AND ".join(terms), values


_OVERLAPS = (
    "EXISTS (SELECT 1 FROM json_each(regions) WHERE json_extract(value, '$.x') < ? AND "
    "json_extract(value, '$.x') + json_extract(value, '$.width') > ? AND json_extract(value, '$.y') < ? AND "
    "json_extract(value, '$.y') + json_extract(value, '$.height') > ?)"
)


@dataclass(frozen=True)
class Place:
    """A cell of the grid over the part."""

    x: int
    """Left edge in pixels of the source image."""
    y: int
    """Top edge in pixels."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    parts: int
    """Number of parts whose highest region is in the cell."""


@dataclass(frozen=True)
class ScoreBand:
    """Number of parts in a range of scores."""

    lowest: float
    """Lower end, as a multiple of the threshold of each part; included."""
    highest: float | None
    """Upper end, not included; None for the last range."""
    parts: int
    """Number of parts."""


@dataclass(frozen=True)
class Summary:
    """Counts of the parts of a filter."""

    counts: dict[Judgement, int]
    """Number of parts by verdict."""

    sources: dict[str, dict[Judgement, int]]
    """Number of parts by camera and verdict."""

    faults: dict[str, int]
    """Number of faults by code, most frequent first; by reason without its numbers if an older version wrote no code.
    """

    @property
    def total(self) -> int:
        """Number of parts."""
        return sum(self.counts.values())

    @property
    def good_share(self) -> float | None:
        """Share of ok parts, 0 to 1; None without parts."""
        return self.counts["ok"] / self.total if self.total else None


def search(path: Path, wanted: Filter, *, limit: int = 50, before: int | None = None) -> list[Record]:
    """Return the newest records of a filter.

    Parameters
    ----------
    path
        The database.
    wanted
        The filter.
    limit
        Largest number of records, 1 or more.
    before
        Only records with a smaller number; None for all.

    Returns
    -------
    list[Record]
        The records, newest first.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    condition, values = wanted.to_sql()
    if before is not None:
        condition, values = f"id < ? AND {condition}", [before, *values]
    return read_records(path, condition, values, limit)


def rank_places(path: Path, wanted: Filter) -> list[Place]:
    """Count the places of the highest region of each part, over the newest 20,000 parts.

    The grid spans from 0 to the farthest region.

    Parameters
    ----------
    path
        The database.
    wanted
        The filter.

    Returns
    -------
    list[Place]
        The cells with a part, the most frequent first.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    boxes = [regions[0] for (text,) in _read(path, "regions", wanted) if (regions := json.loads(text or "[]"))]
    if not boxes:
        return []
    width = max(box["x"] + box["width"] for box in boxes) / COLUMNS
    height = max(box["y"] + box["height"] for box in boxes) / ROWS
    cells = Counter(
        (
            min(COLUMNS - 1, int((box["x"] + box["width"] / 2) / width)),
            min(ROWS - 1, int((box["y"] + box["height"] / 2) / height)),
        )
        for box in boxes
    )
    return [
        Place(round(column * width), round(row * height), round(width), round(height), count)
        for (column, row), count in cells.most_common()
    ]


def count_scores(path: Path, wanted: Filter) -> list[ScoreBand]:
    """Count parts by score, as multiples of their threshold, over the newest 20,000 parts; faults are left out.

    Parameters
    ----------
    path
        The database.
    wanted
        The filter.

    Returns
    -------
    list[ScoreBand]
        All ranges, lowest first.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    edges = (0.0, *_SCORE_STEPS)
    counts = [0] * len(edges)
    for score, threshold in _read(path, "score, threshold", wanted):
        if score is not None and threshold and threshold > 0:
            counts[sum(score / threshold >= edge for edge in edges[1:])] += 1
    return [ScoreBand(low, high, count) for low, high, count in zip(edges, (*edges[1:], None), counts, strict=True)]


def summarize(path: Path, wanted: Filter) -> Summary:
    """Count the parts of a filter.

    Parameters
    ----------
    path
        The database.
    wanted
        The filter.

    Returns
    -------
    Summary
        The counts.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    condition, values = wanted.to_sql()
    with reading(path) as connection:
        rows = connection.execute(
            f"SELECT source, verdict, count(*) FROM verdicts WHERE {condition} GROUP BY source, verdict",  # noqa: S608
            values,
        ).fetchall()
        reasons = connection.execute(
            f"SELECT code, reason, count(*) FROM verdicts WHERE {condition} AND verdict = 'fault' "  # noqa: S608
            "GROUP BY code, reason",
            values,
        ).fetchall()
    counts: dict[Judgement, int] = dict.fromkeys(JUDGEMENTS, 0)
    sources: dict[str, dict[Judgement, int]] = {}
    for source, verdict, count in rows:
        counts[verdict] += count
        sources.setdefault(source, dict.fromkeys(JUDGEMENTS, 0))[verdict] += count
    faults: Counter[str] = Counter()
    for code, reason, count in reasons:
        faults[code or _DIGITS.sub("#", reason or "no reason")] += count
    return Summary(counts, sources, dict(faults.most_common()))


def list_sources(path: Path) -> list[str]:
    """Return the cameras of the newest 20,000 parts.

    Parameters
    ----------
    path
        The database.

    Returns
    -------
    list[str]
        The names, sorted.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    with reading(path) as connection:
        question = "SELECT DISTINCT source FROM (SELECT source FROM verdicts ORDER BY id DESC LIMIT ?) ORDER BY source"
        return [source for (source,) in connection.execute(question, (_MOST_PARTS,))]


def _read(path: Path, columns: str, wanted: Filter) -> Sequence[tuple[Any, ...]]:
    condition, values = wanted.to_sql()
    question = f"SELECT {columns} FROM verdicts WHERE {condition} ORDER BY id DESC LIMIT ?"  # noqa: S608 - own names
    with reading(path) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(question, (*values, _MOST_PARTS)).fetchall()
    return rows
