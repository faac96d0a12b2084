"""One verdict from several cameras that see the same part."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.judgement import WORST_FIRST

Join = Literal["part", "trigger"]
"""How the views of one part are recognised: by the part id, or by the time of their captures."""

_REMEMBERED = 256  # parts with a verdict whose late views are recognised


@dataclass(eq=False)
class _Group:
    """The views of one part that have come."""

    name: str | None
    captured: float
    opened: float
    views: dict[int, Inspection] = field(default_factory=dict)


class ViewJoiner:
    """Join the views of each part. The part's verdict is the worst of its views, and a missing view is a fault.

    Parameters
    ----------
    join
        ``part``: views with one part id belong together. ``trigger``: views that were captured within `within` seconds.
    sources
        The names of the cameras; each gives one view.
    within
        Seconds after a part's first view at which its other views are missing.
    """

    def __init__(self, join: Join, sources: Sequence[str], within: float) -> None:
        self._join, self._sources, self._within = join, list(sources), within
        self._open: list[_Group] = []
        self._given: deque[str] = deque(maxlen=_REMEMBERED)
        self._index = 0

    def add(self, source_index: int, view: Inspection, *, captured: float, now: float) -> list[Inspection]:
        """Add a view. A fault without a part id, such as a lost camera, is a part of its own if parts are joined by id.

        Parameters
        ----------
        source_index
            Index of the camera, 0 or more.
        view
            The inspection of the view.
        captured
            Time of the capture in seconds.
        now
            Time in seconds on a clock that never goes back.

        Returns
        -------
        list[Inspection]
            The parts that the view completes.
        """
        name = view.verdict.part
        if self._join == "part":
            if name is None:
                reason = view.verdict.reason or "the source gives no part id, so the views cannot be joined"
                return [self._number(as_fault(view, reason, view.verdict.code or "incomplete"))]
            if name in self._given:
                late = f"the view of {self._sources[source_index]} came after the verdict on part {name}"
                return [self._number(view if view.verdict.verdict == "ng" else as_fault(view, late, "late"))]
        group = self._find(source_index, name, captured)
        if group is None:
            group = _Group(name, captured, now)
            self._open.append(group)
        before = group.views.get(source_index)
        group.views[source_index] = view if before is None else _worst([before, view])
        return [self._close(group)] if len(group.views) == len(self._sources) else []

    def expire(self, now: float, waiting: Collection[int] = ()) -> list[Inspection]:
        """Return the parts whose other views are overdue.

        Parameters
        ----------
        now
            Time in seconds on a clock that never goes back.
        waiting
            Indices of the sources that have a frame in the queue.

        Returns
        -------
        list[Inspection]
            The parts: a fault, or ng if a view is ng.
        """
        late = [
            group
            for group in self._open
            if now - group.opened > self._within
            and not any(source in waiting for source in range(len(self._sources)) if source not in group.views)
        ]
        return [self._close(group) for group in late]

    def flush(self) -> list[Inspection]:
        """Return the parts that still wait for a view, when no more views come.

        Returns
        -------
        list[Inspection]
            The parts: a fault, or ng if a view is ng.
        """
        return [self._close(group) for group in list(self._open)]

    def _find(self, source_index: int, name: str | None, captured: float) -> _Group | None:
        if self._join == "part":
            return next((group for group in self._open if group.name == name), None)
        near = [
            group
            for group in self._open
            if source_index not in group.views and abs(group.captured - captured) <= self._within
        ]
        return min(near, key=lambda group: abs(group.captured - captured), default=None)

    def _close(self, group: _Group) -> Inspection:
        self._open.remove(group)
        if group.name is not None:
            self._given.append(group.name)
        worst = _worst(list(group.views.values()))
        missing = [name for place, name in enumerate(self._sources) if place not in group.views]
        if missing and worst.verdict.verdict != "ng":
            seen = f"{len(group.views)} of {len(self._sources)} views came"
            worst = as_fault(worst, f"the view of {', '.join(missing)} is missing: {seen}", "incomplete")
        return self._number(worst)

    def _number(self, part: Inspection) -> Inspection:
        index, self._index = self._index, self._index + 1
        return dataclasses.replace(part, verdict=dataclasses.replace(part.verdict, index=index))


def _worst(views: Sequence[Inspection]) -> Inspection:
    """Return the view with the worst verdict; among equals, the one with the highest score."""
    return min(views, key=lambda view: (WORST_FIRST.index(view.verdict.verdict), -(view.verdict.score or 0.0)))


def as_fault(view: Inspection, reason: str, code: str) -> Inspection:
    """Return an inspection that is a fault instead, without score and regions.

    Parameters
    ----------
    view
        The inspection.
    reason
        The reason of the fault.
    code
        Its code, one of `FAULT_CODES`.

    Returns
    -------
    Inspection
        The fault.
    """
    verdict = dataclasses.replace(view.verdict, verdict="fault", score=None, regions=(), reason=reason, code=code)
    return dataclasses.replace(view, verdict=verdict, error_map=None)
