"""What a line counts: the verdicts that it handed on, why parts were faults, and how long frames took."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.status import Latency, Moment, describe_moment

_LOG = logging.getLogger("onspect")

_RECENT = 1000  # frames over which latency is told
_ALL_FAULTS = 30  # parts at the start that are all faults, of which a line warns
_MOST_REASONS = 100  # of faults that are counted apart


class Tally:
    """Counts parts and latencies; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._last: tuple[Verdict, float] | None = None

    def add(self, verdict: Verdict) -> None:
        """Count a part that goes to the sinks; warn if all parts from the start were faults."""
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
        """Count how long a frame took."""
        with self._lock:
            self._latencies.append(milliseconds)

    @property
    def verdicts(self) -> Counter[str]:
        """How many parts there were of each verdict."""
        with self._lock:
            return self._verdicts.copy()

    @property
    def reasons(self) -> dict[str, int]:
        """How many parts were faults for each reason; of very many reasons only the first are counted."""
        with self._lock:
            return dict(self._reasons)

    @property
    def latency(self) -> Latency:
        """How long the last frames took."""
        with self._lock:
            latencies = list(self._latencies)
        return _summarize(latencies)

    def describe_moment(self, lost: Sequence[str], *, ended: bool) -> Moment:
        """Return what a display shows now. lost: the cameras that are away. ended: whether no part will come."""
        with self._lock:
            last = self._last
        if last is None:
            return describe_moment(lost, None, None)
        verdict, came = last
        moment = describe_moment(lost, (verdict.verdict, verdict.source), time.monotonic() - came)
        return dataclasses.replace(moment, now="waiting") if ended else moment


def _summarize(latencies: list[float]) -> Latency:
    if not latencies:
        return Latency()
    p50, p95, p99, worst = (float(value) for value in np.percentile(latencies, [50, 95, 99, 100]))
    return Latency(p50, p95, p99, worst, len(latencies))
