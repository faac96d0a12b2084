"""Counts of a line: verdicts, reasons of faults, and latencies."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.status import FADE_S, Latency, Moment, describe_moment

_LOG = logging.getLogger("onspect")

_RECENT = 1000  # frames whose latency is reported
_ALL_FAULTS = 30  # warn if this many parts at the start are all faults
_MOST_REASONS = 100  # largest number of reasons that are counted


class Tally:
    """Count parts and latencies; may be used from any thread.

    Parameters
    ----------
    fade
        Seconds after which the last verdict is no longer shown.
    """

    def __init__(self, fade: float = FADE_S) -> None:
        self._fade = fade
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._last: tuple[Verdict, float] | None = None

    def add(self, verdict: Verdict) -> None:
        """Count a part that goes to the sinks; warn if all parts from the start were faults.

        Parameters
        ----------
        verdict
            Verdict of the part.
        """
        with self._lock:
            self._verdicts[verdict.verdict] += 1
            self._last = verdict, time.monotonic()
            reason = verdict.reason
            if reason and (reason in self._reasons or len(self._reasons) < _MOST_REASONS):
                self._reasons[reason] += verdict.verdict == "fault"
            total, faults = self._verdicts.total(), self._verdicts["fault"]
        if total == faults == _ALL_FAULTS:
            reason, count = max(self.reasons.items(), key=lambda item: item[1])
            _LOG.warning("none of the first %d parts could be judged; %d of them: %r", total, count, reason)

    def add_latency(self, milliseconds: float) -> None:
        """Record the latency of one frame.

        Parameters
        ----------
        milliseconds
            Time from capture to verdict in ms.
        """
        with self._lock:
            self._latencies.append(milliseconds)

    @property
    def verdicts(self) -> Counter[str]:
        """Number of parts for each verdict."""
        with self._lock:
            return self._verdicts.copy()

    @property
    def reasons(self) -> dict[str, int]:
        """Number of faults for each reason; only the first 100 reasons are counted."""
        with self._lock:
            return dict(self._reasons)

    @property
    def latency(self) -> Latency:
        """Latency of the last 1000 frames."""
        with self._lock:
            latencies = list(self._latencies)
        if not latencies:
            return Latency()
        p50, p95, p99, worst = (float(value) for value in np.percentile(latencies, [50, 95, 99, 100]))
        return Latency(p50, p95, p99, worst, len(latencies))

    def describe_moment(self, lost: Sequence[str], *, ended: bool) -> Moment:
        """Return what a display shows now.

        Parameters
        ----------
        lost
            Names of the cameras that are away.
        ended
            Whether no more parts will come.

        Returns
        -------
        Moment
            Current state, source and age of the last verdict.
        """
        with self._lock:
            last = self._last
        if last is None:
            return describe_moment(lost, None, None)
        verdict, came = last
        moment = describe_moment(lost, (verdict.verdict, verdict.source), time.monotonic() - came, fade=self._fade)
        return dataclasses.replace(moment, now="waiting") if ended else moment
