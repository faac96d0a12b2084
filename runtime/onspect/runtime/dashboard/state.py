"""What the page shows of the line, kept for whoever asks."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import JUDGEMENTS, Verdict
from onspect.runtime.status import LineStatus, describe_moment

View = Literal["latest", "rejected"]

_SCORES = 240  # verdicts in the strip of scores
_HOURS = 24
_LETTERS = 300


@dataclass(frozen=True)
class DisplayedInspection:
    """An inspection on the board: its number among all, from 1, and when it came, on `time.monotonic`."""

    number: int
    inspection: Inspection
    came: float


@dataclass(frozen=True)
class ScorePoint:
    """One verdict in the strip of scores; score is None for a fault."""

    number: int
    verdict: str
    score: float | None
    threshold: float
    review: float | None


class DashboardState:
    """The latest inspection, the latest that was not ``ok``, the last scores and the status; for many threads.

    Putting something up takes microseconds and never waits for a reader.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._shown: dict[View, DisplayedInspection] = {}
        self._marks: deque[ScorePoint] = deque(maxlen=_SCORES)
        self._hours: dict[str, Counter[str]] = {}
        self._status: tuple[LineStatus, float] | None = None

    @property
    def number(self) -> int:
        """How many inspections were put up."""
        return self._number

    def add(self, inspection: Inspection) -> DisplayedInspection:
        """Put an inspection up."""
        verdict = inspection.verdict
        with self._lock:
            self._number += 1
            shown = DisplayedInspection(self._number, inspection, time.monotonic())
            self._shown["latest"] = shown
            if verdict.verdict != "ok":
                self._shown["rejected"] = _copy_map(shown)
            self._marks.append(
                ScorePoint(self._number, verdict.verdict, verdict.score, verdict.threshold, verdict.review_threshold)
            )
            self._count_hour(verdict)
        return shown

    def report(self, status: LineStatus) -> None:
        """Put the line's status up."""
        with self._lock:
            self._status = (status, time.monotonic())

    def find(self, view: View) -> DisplayedInspection | None:
        """Return the inspection that a view shows, None before there is one."""
        with self._lock:
            return self._shown.get(view)

    def hours(self) -> list[dict[str, Any]]:
        """Return the verdicts of each hour (ISO 8601, UTC) since the start, oldest first, at most a day."""
        with self._lock:
            return [{"hour": hour, **_verdicts(counts)} for hour, counts in self._hours.items()]

    def describe(self, after: int) -> dict[str, Any]:
        """Return the JSON object that the page is told: status, both views, and the scores after a number.

        Ages are in seconds, since the browser's clock may be another one.
        """
        now = time.monotonic()
        with self._lock:
            return {
                "number": self._number,
                "status": None if self._status is None else self._status[0].to_dict(),
                "status_age": None if self._status is None else round(now - self._status[1], 1),
                "now": self._describe_now(now),
                "latest": describe_shown(self._shown.get("latest"), now),
                "rejected": describe_shown(self._shown.get("rejected"), now),
                "scores": [
                    [mark.number, mark.verdict, mark.score, mark.threshold, mark.review]
                    for mark in self._marks
                    if mark.number > after
                ],
            }

    def _describe_now(self, now: float) -> dict[str, Any]:
        """Return what the page says first: of this moment, not of the status's, which is up to a second old."""
        shown, status = self._shown.get("latest"), None if self._status is None else self._status[0]
        lost = [] if status is None or not status.running else [one.name for one in status.sources if not one.connected]
        if shown is None:
            moment = describe_moment(lost, None, None)
        else:
            verdict = shown.inspection.verdict
            moment = describe_moment(lost, (verdict.verdict, verdict.source[:_LETTERS]), now - shown.came)
        number = None if shown is None or moment.now in ("lost", "waiting") else shown.number
        return {"state": moment.now, "source": moment.source, "age": moment.age, "number": number}

    def _count_hour(self, verdict: Verdict) -> None:
        hour = datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00Z")
        if hour not in self._hours:
            self._hours[hour] = Counter()
            while len(self._hours) > _HOURS:
                del self._hours[next(iter(self._hours))]
        self._hours[hour][verdict.verdict] += 1


def _copy_map(shown: DisplayedInspection) -> DisplayedInspection:
    """Return the same with an error map of its own.

    The model's one is memory of its runtime, which cannot give back a block of megabytes while a map in it is kept.
    """
    inspection = shown.inspection
    if inspection.error_map is None:
        return shown
    own = dataclasses.replace(inspection, error_map=inspection.error_map.copy())
    return dataclasses.replace(shown, inspection=own)


def _verdicts(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in JUDGEMENTS}


def describe_part(shown: DisplayedInspection) -> dict[str, Any]:
    """Return what the page needs of an inspection, however many regions or words it has."""
    verdict = shown.inspection.verdict
    content = verdict.to_dict() | {"number": shown.number, "regions": len(verdict.regions)}
    for key in ("reason", "source", "part"):
        if content[key] is not None:
            content[key] = content[key][:_LETTERS]
    return content


def describe_shown(shown: DisplayedInspection | None, now: float) -> dict[str, Any] | None:
    """Return the same with the age in seconds; now is on `time.monotonic`."""
    return None if shown is None else describe_part(shown) | {"age": round(now - shown.came, 1)}
