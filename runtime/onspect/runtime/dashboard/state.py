"""The data of the page, kept for all clients."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.status import FADE_S, LineStatus, describe_moment

View = Literal["latest", "rejected"]

_SCORES = 240  # verdicts in the plot of scores
_HOURS = 24
_LETTERS = 300


@dataclass(frozen=True)
class DisplayedInspection:
    """An inspection on the page."""

    number: int
    """Its number, 1 or more."""
    inspection: Inspection
    """The inspection."""
    came: float
    """Time of its arrival on `time.monotonic`, in seconds."""


ScorePoint = tuple[int, str, float | None, float, float | None]
"""One point of the plot: number, verdict, score, threshold, and the score from which a part was for review."""


class DashboardState:
    """The latest inspection, the latest that was not ``ok``, the last scores and the status; for many threads.

    A write takes microseconds and never waits for a reader.

    Parameters
    ----------
    fade
        Seconds after which the last verdict is no longer shown as the current state.
    """

    def __init__(self, fade: float = FADE_S) -> None:
        self._fade = fade
        self._lock = threading.Lock()
        self.number = 0
        """Number of inspections until now."""
        self._shown: dict[View, DisplayedInspection] = {}
        self._points: deque[ScorePoint] = deque(maxlen=_SCORES)
        self._hours: dict[str, Counter[str]] = {}
        self._status: tuple[LineStatus, float] | None = None

    def add(self, inspection: Inspection) -> DisplayedInspection:
        """Add an inspection.

        Parameters
        ----------
        inspection
            The inspection.

        Returns
        -------
        DisplayedInspection
            The inspection with its number.
        """
        verdict = inspection.verdict
        with self._lock:
            self.number += 1
            shown = DisplayedInspection(self.number, inspection, time.monotonic())
            self._shown["latest"] = shown
            if verdict.verdict != "ok":
                self._shown["rejected"] = _copy_map(shown)
            self._points.append(
                (self.number, verdict.verdict, verdict.score, verdict.threshold, verdict.review_threshold)
            )
            self._count_hour(verdict)
        return shown

    def report(self, status: LineStatus) -> None:
        """Replace the status of the line.

        Parameters
        ----------
        status
            The status.
        """
        with self._lock:
            self._status = (status, time.monotonic())

    def find(self, view: View) -> DisplayedInspection | None:
        """Return the inspection of a view.

        Parameters
        ----------
        view
            ``latest`` or ``rejected``.

        Returns
        -------
        DisplayedInspection | None
            The inspection; None before the first one.
        """
        with self._lock:
            return self._shown.get(view)

    def hours(self) -> list[dict[str, Any]]:
        """Return the counts of each hour since the start, at most a day.

        Returns
        -------
        list[dict[str, Any]]
            Start of the hour (ISO 8601 in UTC) and number of parts by verdict, oldest first.
        """
        with self._lock:
            hours = self._hours.items()
            return [{"hour": hour, **{name: counts[name] for name in JUDGEMENTS}} for hour, counts in hours]

    def describe(self, after: int) -> dict[str, Any]:
        """Return the JSON object for the page: status, both views, and new scores.

        Ages are in seconds, because the browser's clock may differ.

        Parameters
        ----------
        after
            Number of the last inspection whose score the page has.

        Returns
        -------
        dict[str, Any]
            The JSON object.
        """
        now = time.monotonic()
        with self._lock:
            return {
                "number": self.number,
                "status": None if self._status is None else self._status[0].to_dict(),
                "status_age": None if self._status is None else round(now - self._status[1], 1),
                "now": self._describe_now(now),
                "latest": describe_shown(self._shown.get("latest"), now),
                "rejected": describe_shown(self._shown.get("rejected"), now),
                "scores": [point for point in self._points if point[0] > after],
            }

    def _describe_now(self, now: float) -> dict[str, Any]:
        """Return the current state, which is newer than that of the status."""
        shown, status = self._shown.get("latest"), None if self._status is None else self._status[0]
        lost = [] if status is None or not status.running else [one.name for one in status.sources if not one.connected]
        if shown is None:
            moment = describe_moment(lost, None, None)
        else:
            verdict = shown.inspection.verdict
            moment = describe_moment(
                lost, (verdict.verdict, verdict.source[:_LETTERS]), now - shown.came, fade=self._fade
            )
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
    """Return the inspection with an error map of its own.

    The original map is memory of the model's runtime, which cannot free a block of megabytes while a map in it is kept.
    """
    inspection = shown.inspection
    if inspection.error_map is None:
        return shown
    own = dataclasses.replace(inspection, error_map=inspection.error_map.copy())
    return dataclasses.replace(shown, inspection=own)


def describe_shown(shown: DisplayedInspection | None, now: float) -> dict[str, Any] | None:
    """Return the JSON object of an inspection with its age.

    Parameters
    ----------
    shown
        The inspection; None before the first one.
    now
        Time on `time.monotonic`.

    Returns
    -------
    dict[str, Any] | None
        The verdict with the number of its regions, with shortened texts and ``age`` in seconds; None for no inspection.
    """
    if shown is None:
        return None
    verdict = shown.inspection.verdict
    content = verdict.to_dict() | {"number": shown.number, "regions": len(verdict.regions)}
    for key in ("reason", "source", "part"):
        if content[key] is not None:
            content[key] = content[key][:_LETTERS]
    return content | {"age": round(now - shown.came, 1)}
