"""Helpers for the tests of sinks and sources: sink, inspections, status of a line, and waiting for another thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.sinks.base import Sink
from onspect.runtime.status import LineStatus

REGION = Region(1, 2, 3, 4, 0.75, 12)


def inspection(source: str = "a.png", index: int = 0, frame: NDArray[Any] | None = None, **facts: Any) -> Inspection:
    """Return an inspection of a part that is ng."""
    common: dict[str, Any] = {"time": "2026-01-01T00:00:00.000Z", "verdict": "ng", "score": 0.5, "threshold": 0.25}
    verdict = Verdict(source, index, **(common | {"regions": (REGION,), "latency_ms": 1.5, "model": "m"} | facts))
    return Inspection(verdict, frame, np.ones((4, 4), np.float32), map_threshold=0.5, white_level=4095)


def line_status(**facts: Any) -> LineStatus:
    """Return the status of a line that has just begun."""
    common: dict[str, Any] = {
        "started": "2026-01-01T00:00:00.000Z",
        "time": "2026-01-01T00:00:01.000Z",
        "running": True,
        "model": "tiny@0123456789ab",
        "recipe": None,
        "threshold": 0.25,
        "review_from": None,
    }
    return LineStatus(**(common | facts))


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition is true; raise AssertionError if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Keeper(Sink):
    """A sink that keeps the verdicts."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, inspection: Inspection) -> None:
        self.verdicts.append(inspection.verdict)

    @property
    def judged(self) -> int:
        """Number of verdicts that are not a fault."""
        return sum(verdict.verdict != "fault" for verdict in self.verdicts)

    def faults(self, reason: str) -> int:
        """How many verdicts have these words in their reason."""
        return sum(reason in (verdict.reason or "") for verdict in self.verdicts)
