"""The state of each line of a fleet, from the messages that it has published."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.records import parse_dataclass

State = Literal["running", "stopped", "lost", "stale", "unreadable"]

SILENCE_S = 10.0
"""An online line reports about once a second; without a message for this time it is stale."""

_FORMAT = 1  # newest format of status messages that is read
_LARGEST_MESSAGE = 100_000
_LARGEST_COUNT = 2**53
_MOST_LINES = 10_000  # so that other users of the broker cannot fill the memory
_LONGEST_WORDS = 300


@dataclass(frozen=True)
class LineReport:
    """One line of a fleet."""

    topic: str
    """Topic of the sink, under which the line publishes."""

    line: str
    """The same below the prefix."""

    state: State
    """``running``, ``stopped``, ``lost``, ``stale`` or ``unreadable``."""

    since: str | None = None
    """Beginning of this state by the line's clock, ISO 8601 and UTC. For ``lost`` and ``stale`` the time of the last
    message. None if it is not known."""

    model: str | None = None
    """Name and checksum of the model."""

    recipe: str | None = None
    """Name of the recipe, None without recipes."""

    threshold: float | None = None
    """Threshold of the score."""

    parts: int = 0
    """Number of verdicts since the line started."""

    ok_share: float | None = None
    """Share of ``ok``, 0 to 1; None without verdicts."""

    ok: int = 0
    """Number of ``ok``."""

    ng: int = 0
    """Number of ``ng``."""

    review: int = 0
    """Number of ``review``."""

    fault: int = 0
    """Number of ``fault``."""

    drift: str | None = None
    """The drift as text, None without drift."""

    alarm: str | None = None
    """The reason of the alarm, None without an alarm."""

    trouble: str | None = None
    """Why a line is unreadable, and sinks that do not deliver; None without trouble."""

    @property
    def is_well(self) -> bool:
        """Whether the line needs no attention: it runs without alarm and drift, or was stopped in order."""
        return self.state == "stopped" or (self.state == "running" and self.alarm is None and self.drift is None)


_SAME = ("model", "recipe", "threshold", *JUDGEMENTS, "drift", "alarm")
"""Fields that status message and report share."""


@dataclass(frozen=True)
class _Sink:
    name: str
    failed: int = 0
    message: str = ""


@dataclass(frozen=True)
class _Status:
    """A status message (docs/sinks.md). An offline message without the reason of its end counts as a loss."""

    online: bool
    lost: bool = True
    running: bool = True
    started: str | None = None
    time: str | None = None
    model: str | None = None
    recipe: str | None = None
    threshold: float | None = None
    ok: int = 0
    ng: int = 0
    review: int = 0
    fault: int = 0
    drift: str | None = None
    alarm: str | None = None
    sinks: tuple[_Sink, ...] = ()


@dataclass
class _Line:
    """The messages of one line.

    status: a message, or the reason why it cannot be read. heard: when the line itself sent the last one.
    """

    status: _Status | str | None = None
    last: _Status | None = None
    heard: float | None = None


class FleetBoard:
    """Takes the messages of lines below a prefix, from any thread, and reports the state of each line.

    Parameters
    ----------
    prefix
        Prefix of the topics.
    clock
        Function that returns seconds without jumps.
    now
        Function that returns the time of day.
    """

    def __init__(
        self,
        prefix: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._prefix = prefix
        self._clock = clock
        self._now = now
        self._began = clock()
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()

    def receive(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message. An empty message withdraws the retained one.

        Parameters
        ----------
        topic
            A topic that ends in ``status`` or ``last``.
        payload
            Content of the message.
        retained
            Whether the broker stored it earlier. Then it does not show that the line is online now.
        """
        name, _, kind = topic.rpartition("/")
        with self._lock:
            if name not in self._lines and len(self._lines) >= _MOST_LINES:
                return
            line = self._lines.setdefault(name, _Line())
            if kind == "last":
                read = _read(payload)
                line.last = read if isinstance(read, _Status) else None
                return
            line.status = _read(payload) if payload else None
            if not retained:
                line.heard = self._clock()

    def reports(self) -> list[LineReport]:
        """Return the state of every line that has published its status.

        Returns
        -------
        list[LineReport]
            The lines in the order of their topics.
        """
        with self._lock:
            known = [(name, line) for name, line in sorted(self._lines.items()) if line.status is not None]
            return [self._describe(name, line) for name, line in known]

    @property
    def is_waiting(self) -> bool:
        """Whether a line that is online by its retained message has not sent one itself yet."""
        with self._lock:
            lines = list(self._lines.values())
        return any(isinstance(one.status, _Status) and one.status.online and one.heard is None for one in lines)

    def _describe(self, name: str, line: _Line) -> LineReport:
        topic = _clean(name)
        below = topic.removeprefix(self._prefix).strip("/") or topic
        if not isinstance(line.status, _Status):
            return LineReport(topic, below, "unreadable", trouble=line.status)
        state = self._judge(line.status, line.heard)
        told = line.status.online or line.status.model is not None  # a last will only reports the loss
        facts = line.status if told else line.last or line.status
        parts = facts.ok + facts.ng + facts.review + facts.fault
        return LineReport(
            topic,
            below,
            state,
            since=facts.started if state == "running" else facts.time,
            parts=parts,
            ok_share=facts.ok / parts if parts else None,
            trouble=_describe_sinks(facts),
            **{name: getattr(facts, name) for name in _SAME},
        )

    def _judge(self, status: _Status, heard: float | None) -> State:
        if not status.online:
            return "lost" if status.lost else "stopped"
        if not status.running:
            return "stopped"
        silent = self._clock() - (self._began if heard is None else heard)
        # two clocks, which may differ: only until the line itself is heard
        if heard is None and status.time is not None:
            silent = max(silent, (self._now() - datetime.fromisoformat(status.time)).total_seconds())
        return "stale" if silent > SILENCE_S else "running"


def _read(payload: bytes) -> _Status | str:
    """Return the content of a message, or why it cannot be read. Anybody may publish anything."""
    if len(payload) > _LARGEST_MESSAGE:
        return f"the message has {len(payload)} bytes; at most {_LARGEST_MESSAGE} are allowed"
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return "the message is not JSON"
    if not isinstance(content, dict) or "online" not in content:
        return "the message is not the status of a line"
    version = content.get("format", 1)
    if not isinstance(version, int) or not 1 <= version <= _FORMAT:
        return f"the message has the format {_clean(repr(version))}; this release reads {_FORMAT}"
    try:
        status = parse_dataclass(_Status, {name: _cleaned(value) for name, value in content.items()})
        _check(status)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return _clean(f"the message cannot be read: {error}")
    return status


def _check(status: _Status) -> None:
    for count in (status.ok, status.ng, status.review, status.fault):
        if not 0 <= count <= _LARGEST_COUNT:
            raise ValueError("a count is out of its range")
    for moment in (status.started, status.time):
        if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError(f"the time {moment!r} has no time zone")


def _cleaned(value: Any) -> Any:
    return _clean(value) if isinstance(value, str) else value


def _clean(text: str) -> str:
    """Return text without control characters and of limited length, safe for a terminal."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: _LONGEST_WORDS + 1])
    return shown if len(shown) <= _LONGEST_WORDS else f"{shown[:_LONGEST_WORDS]}..."


def _describe_sinks(status: _Status) -> str | None:
    broken = [_clean(f"{sink.name}: {sink.message}") for sink in status.sinks if sink.message]
    return "; ".join(broken) or None
