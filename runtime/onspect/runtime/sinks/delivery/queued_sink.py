"""`QueuedSink`: delivers verdicts to a sink in its own thread, so that no sink delays the inspection."""

from __future__ import annotations

import logging
import math
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from onspect.runtime.credentials import redact
from onspect.runtime.errors import OnspectError, OutputError, RefusedError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.columns import encode_verdict, parse_line
from onspect.runtime.sinks.delivery.commit_barrier import CommitBarrier
from onspect.runtime.sinks.delivery.spool import Piece, Spool
from onspect.runtime.sinks.registry import show_sink
from onspect.runtime.status import Commands, LineStatus, SinkState

_LOG = logging.getLogger("onspect")

_BATCH = 100
_CAPACITY = 1000
_RECORD_CAPACITY = 100_000  # an hour of a full disk at nearly 30 parts a second
_VERDICT_BYTES, _REGION_BYTES = 1000, 300  # approximate memory
_EARLIER = 2000
"""Verdicts of the last run that are compared; no more can be between record and spool when a run is killed."""

_NOTHING = "0" * 16  # newest line of a spool that began before anything was recorded
_LEAVE_S = 1.0
_REMIND_EVERY_S = 60.0
_RECORD_PATIENCE_S = {"record": 0.0, "event": 30.0, "live": 0.5}
"""Longest wait in seconds for a verdict's record before the verdict is delivered without it."""


@dataclass(frozen=True)
class _Item:
    number: int
    inspection: Inspection
    queued_at: float
    size: int


@dataclass(frozen=True)
class _Batch:
    """The next delivery: inspections from the queue (number is that of the last one), or lines of the spool."""

    inspections: tuple[Inspection, ...] = ()
    number: int = 0
    piece: Piece | None = None
    lines: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.inspections) + len(self.lines)


@dataclass(frozen=True)
class Timing:
    """Intervals of a `QueuedSink`, in seconds."""

    first_pause: float = 0.1
    """Pause after the first failure; each further pause is twice as long, half of it at random."""

    longest_pause: float = 30.0
    """Longest pause after a failure of an ``event`` sink."""

    longest_record_pause: float = 2.0
    """Longest pause after a failure of a ``record`` sink; the others wait for it."""

    flush: float = 1.0
    """Interval between two flushes."""


class QueuedSink(Sink):
    """A sink in front of another: `write` only queues, and a thread delivers, with retries.

    If more verdicts wait than fit, `write` waits for room, and then gives up the oldest ``ok`` verdict (or the oldest
    of all): it is counted as failed and logged. Closing delivers the waiting verdicts.

    Parameters
    ----------
    sink
        The sink that gets the verdicts.
    name
        Name in states and messages, usually the address of the sink; its options are removed.
    spool
        Folder of this sink alone, used if the delivery is ``event``: verdicts wait there on disk, and the next run
        sends the remaining verdicts when the process ends or is killed. None to wait in memory.
    capacity
        Largest number of verdicts in memory; None for 1000, or 100,000 before a ``record`` sink.
    patience
        Longest wait of `write` for room, in seconds; `math.inf` if the source can wait.
    deadline
        Longest time of the delivery at closing, in seconds; with endless patience, the longest time without a delivery.
    barrier
        Sinks with the same barrier deliver nothing before its ``record`` sinks have it; None for no order.
    picture_bytes
        Largest memory of waiting verdicts with their frames and error maps, in bytes.
    timing
        Intervals.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        spool: Path | str | None = None,
        capacity: int | None = None,
        *,
        patience: float = 0.0,
        deadline: float = 10.0,
        barrier: CommitBarrier | None = None,
        picture_bytes: int = 256_000_000,
        timing: Timing = Timing(),
    ) -> None:
        self.name = re.split(r"[?#]" if "://" in name else r"[?]", show_sink(name))[0]
        self._sink = sink
        self.delivery = sink.delivery
        self.stale_after = sink.stale_after
        self._spool = Spool(Path(spool)) if spool is not None and self.delivery == "event" else None
        self.pictures = self._spool is None and sink.pictures
        self._capacity = capacity or (_RECORD_CAPACITY if self.delivery == "record" else _CAPACITY)
        self._patience = patience
        self._deadline = deadline
        self._picture_bytes = picture_bytes
        self._timing = timing
        self._barrier = barrier or CommitBarrier()
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._in_hand = 0
        self._number = 0
        self._delivered = 0
        self._lost = 0
        self._trouble = ""
        self._status: LineStatus | None = None
        self._reminded_at = -_REMIND_EVERY_S
        self._unflushed = False
        self._flush_trouble = ""
        self._ended = threading.Event()
        self._pause = 0.0
        self._end = math.inf
        self._closing = False
        self._given_up = False
        self._gone: BrokenPipeError | None = None
        self._threads: list[threading.Thread] = []
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._spool is not None:
                stack.enter_context(self._spool)
            stack.enter_context(self._sink)
            self._opened = stack.pop_all()
        if self.delivery == "record":
            self._barrier.join(self, self._read_earlier())
        if self._spool is not None:
            if len(self._spool):
                _LOG.info("%s: %s of an earlier run are sent first", self.name, _count(len(self._spool)))
            self._start("spool", self._keep_all)
        self._start("sink", self._deliver_all)
        if self.delivery == "record":
            self._start("flush", self._flush_all)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closing = True
            self._end = time.monotonic() + self._deadline
            self._changed.notify_all()
        for thread in self._threads:
            # _end may change in the meantime
            while thread.is_alive() and (left := self._end + _LEAVE_S - time.monotonic()) > 0:
                thread.join(left)
        self._barrier.leave(self)
        if any(thread.is_alive() for thread in self._threads):
            _LOG.warning("%s does not answer: it is left as it is, not closed", self.name)
        else:
            self._opened.close()
        self._take_stock()

    def probe(self) -> str:
        """Check whether the spool is free and the sink can work.

        Returns
        -------
        str
            One sentence about the receiver.

        Raises
        ------
        OutputError
            If the spool is in use or the sink cannot work.
        """
        if self._spool is not None:
            self._spool.probe()
        return self._sink.probe()

    def write(self, inspection: Inspection) -> None:
        """Queue one inspection; returns within `patience`, even if the sink hangs.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        BrokenPipeError
            If the sink is a pipe that nobody reads any more.
        """
        if self._gone is not None:
            raise self._gone
        if not self.pictures:
            inspection = replace(inspection, frame=None, error_map=None)
        size = sum(part.nbytes for part in (inspection.frame, inspection.error_map) if part is not None)
        size += _VERDICT_BYTES + _REGION_BYTES * len(inspection.verdict.regions)
        with self._changed:
            if self._is_full(size):
                patience = None if math.isinf(self._patience) else self._patience
                self._changed.wait_for(lambda: not self._is_full(size), patience)
            lost = []
            while self._is_full(size):
                lost.append(self._give_one_up())
            self._number += 1
            self._queue.append(_Item(self._number, inspection, time.monotonic(), size))
            self._bytes += size
            self._changed.notify_all()
        if lost:
            self._lose(len(lost), "they come faster than the sink accepts them")
            self._sink.note_lost(lost)

    def _read_earlier(self) -> list[bytes] | None:
        try:
            earlier = self._sink.read_recent(_EARLIER)
        except OutputError as error:
            _LOG.warning("%s: %s", self.name, error)
            return None
        return None if earlier is None else [encode_verdict(verdict) for verdict in earlier]

    def _is_full(self, size: int) -> bool:
        """Return whether a verdict with a picture of this size finds no room; a single verdict always does."""
        return bool(self._queue) and (len(self._queue) >= self._capacity or self._bytes + size > self._picture_bytes)

    def report(self, status: LineStatus) -> None:
        """Hand the line's status to a sink that uses it; it replaces a status that was not delivered yet.

        Parameters
        ----------
        status
            The status.
        """
        if self._sink.wants_status:
            with self._changed:
                self._status = status
                self._changed.notify_all()

    def note(self, change: Mapping[str, Any]) -> None:
        """Hand a person's change to the sink at once.

        Parameters
        ----------
        change
            JSON object (`labels.audit.Change`).
        """
        self._sink.note(change)

    def attach(self, commands: Commands) -> None:
        """Let the sink accept commands for a line, if it can.

        Parameters
        ----------
        commands
            The commands of the line.
        """
        self._sink.attach(commands)

    def state(self) -> SinkState:
        """Return the state of the sink; a verdict in delivery counts as waiting.

        Returns
        -------
        SinkState
            The state.
        """
        spool = self._spool
        with self._changed:
            return SinkState(
                name=self.name,
                delivered=self._delivered,
                queued=len(self._queue) + self._in_hand,
                spooled=0 if spool is None else len(spool) + spool.held,
                failed=self._lost + (0 if spool is None else spool.lost),
                message=self._trouble or self._flush_trouble or ("" if spool is None else spool.message),
            )

    def _start(self, role: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"{role} {self.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # Work of the thread "spool", which runs if there is a spool.

    def _keep_all(self) -> None:
        """Move verdicts from the queue to the spool as soon as they are recorded."""
        assert self._spool is not None
        caught_up = False
        while items := self._take(_BATCH):
            if not caught_up:  # not earlier: the record sinks may be opened after this one
                self._catch_up(self._spool)
                caught_up = True
            self._await_record(items[-1].number)
            self._spool.append([encode_verdict(item.inspection.verdict) for item in items])
            self._put_down()

    def _catch_up(self, spool: Spool) -> None:
        """Spool the verdicts that the last run recorded but could not spool before it was killed."""
        lines = self._barrier.earlier()
        prints = [fingerprint_bytes(line) for line in lines]
        if not spool.newest:  # a new spool begins here
            spool.begin_after(prints[-1] if prints else _NOTHING)
        elif spool.newest in (_NOTHING, *prints):
            missing = lines[([_NOTHING, *prints]).index(spool.newest) :]
            spool.append(missing)
            if missing:
                _LOG.warning("%s: sends %s that an earlier run recorded last", self.name, _count(len(missing)))

    def _take(self, count: int) -> list[_Item]:
        """Wait for verdicts in the queue and take up to `count`; none when the sink closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._take_now(count)

    def _take_now(self, count: int) -> list[_Item]:
        items = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
        self._bytes -= sum(item.size for item in items)
        self._in_hand = len(items)
        self._changed.notify_all()
        return items

    # Work of the thread "sink".

    def _deliver_all(self) -> None:
        try:
            while self._await_work():
                self._report()
                try:
                    batch = self._next_batch()
                except OutputError as error:  # the spool cannot be read
                    self._note_trouble(error)
                    self._rest(self._timing.longest_record_pause)
                    continue
                if len(batch) or batch.piece is not None:
                    self._deliver(batch)
                elif batch.number:
                    self._put_down()
        finally:
            self._ended.set()

    def _await_work(self) -> bool:
        """Wait for work; return False if everything is done or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting() or self._status is not None or self._closing)
            if not self._closing:
                return True
            over = self._given_up or time.monotonic() >= self._end
            return not over and bool(self._waiting() or self._queue or self._in_hand or self._status is not None)

    def _waiting(self) -> int:
        """Return the number of verdicts that can be delivered at once."""
        return len(self._queue) if self._spool is None else len(self._spool) + self._spool.held

    def _next_batch(self) -> _Batch:
        """Return the next delivery, which may be empty."""
        count = self._sink.batch
        if self._spool is not None:
            piece = self._spool.read(count)
            whole = tuple(line for line in piece.lines if parse_line(line) is not None)
            return _Batch(piece=piece, lines=whole) if piece.lines else _Batch()
        with self._changed:
            items = self._take_now(count)
        if not items:
            return _Batch()
        self._await_record(items[-1].number)
        fresh = tuple(item.inspection for item in items if time.monotonic() - item.queued_at <= self.stale_after)
        if len(fresh) < len(items):
            self._lose(len(items) - len(fresh), f"they waited for more than {self.stale_after:g} s")
            self._sink.note_lost([item.inspection for item in items if item.inspection not in fresh])
        return _Batch(fresh, items[-1].number)

    def _put_down(self) -> None:
        with self._changed:
            self._in_hand = 0
            self._changed.notify_all()

    def _await_record(self, number: int) -> None:
        patience = _RECORD_PATIENCE_S[self.delivery]
        if patience:
            self._barrier.wait(number, patience)

    def _deliver(self, batch: _Batch) -> None:
        """Deliver a batch with retries until it is delivered or given up; a batch of a spool comes again by itself."""
        while True:
            refused = None
            try:
                if batch.lines:
                    self._sink.write_lines(batch.lines)
                elif batch.inspections:
                    self._sink.write_many(batch.inspections)
            except RefusedError as error:
                refused = str(error)
            except Exception as error:  # noqa: BLE001 - an error of one sink must not stop the line or its other sinks
                self._note_trouble(error)
                if isinstance(error, BrokenPipeError) and self.delivery == "record":
                    self._gone, refused = error, "nobody reads it"
                elif self.delivery == "live":
                    refused = self._trouble
                elif self._rest_before_retry() and batch.piece is None:
                    continue
                else:
                    return
            self._settle(batch, refused)
            return

    def _settle(self, batch: _Batch, refused: str | None = None) -> None:
        """Count a batch as delivered or lost, and remove it from the queue or the spool."""
        count = len(batch)
        if refused is not None:
            self._lose(count, refused)
            self._sink.note_lost(batch.inspections)
        else:
            self._note_success()
        if batch.piece is not None and self._spool is not None:
            self._spool.advance(batch.piece)
            self._lose(len(batch.piece.lines) - count, "their lines in the spool are damaged")
        with self._changed:
            self._delivered += count if refused is None else 0
            if batch.piece is None:
                self._in_hand = 0
            self._unflushed = True
            if self._closing and math.isinf(self._patience):
                self._end = time.monotonic() + self._deadline
            self._changed.notify_all()
        if self.delivery == "record":
            self._barrier.recorded(self, batch.number)

    def _rest_before_retry(self) -> bool:
        """Wait with back-off and jitter; return False if the sink closes and must not try again."""
        timing = self._timing
        longest = timing.longest_record_pause if self.delivery == "record" else timing.longest_pause
        self._pause = min(max(2 * self._pause, timing.first_pause), longest)
        return self._rest(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret

    def _rest(self, seconds: float) -> bool:
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, seconds)
                return True
            if self._spool is None and time.monotonic() < self._end:
                self._changed.wait(min(seconds, self._timing.first_pause))
                return True
            self._given_up = True
            return False

    def _report(self) -> None:
        with self._changed:
            status, self._status = self._status, None
        if status is None:
            return
        try:
            self._sink.report(status)
        except Exception as error:  # noqa: BLE001 - as for verdicts
            self._note_trouble(error)
        else:
            if self.delivery == "live":  # for other sinks the delivery of verdicts decides
                self._note_success()

    # Work of the thread "flush": a disk may take seconds, and no verdict must wait for it.

    def _flush_all(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(self._timing.flush)
            with self._changed:
                due, self._unflushed = self._unflushed, False
            if not due:
                continue
            trouble = ""
            try:
                self._sink.flush()
            except Exception as error:  # noqa: BLE001 - as for verdicts
                trouble = redact(str(error) or type(error).__name__)
            if trouble and not self._flush_trouble:
                _LOG.warning("%s: %s", self.name, trouble)
            self._flush_trouble = trouble

    # Events, for the log and for `state`.

    def _note_trouble(self, error: Exception) -> None:
        words = str(error) if isinstance(error, OnspectError) else f"{type(error).__name__}: {error}"
        with self._changed:
            news, self._trouble = not self._trouble, redact(words)
        if self.delivery == "record":
            self._barrier.failing(self)
        if news:
            _LOG.warning("%s: %s", self.name, self._trouble)

    def _note_success(self) -> None:
        self._pause = 0.0
        with self._changed:
            recovered, self._trouble = bool(self._trouble), ""
        if recovered:
            _LOG.warning("%s: works again", self.name)

    def _give_one_up(self) -> Inspection:
        index = next((i for i, item in enumerate(self._queue) if item.inspection.verdict.verdict == "ok"), 0)
        item = self._queue[index]
        self._bytes -= item.size
        del self._queue[index]
        return item.inspection

    def _lose(self, count: int, reason: str) -> None:
        with self._changed:
            self._lost += count
            lost, now = self._lost, time.monotonic()
            due = count > 0 and now - self._reminded_at >= _REMIND_EVERY_S
            if due:
                self._reminded_at = now
        if due:
            _LOG.warning("%s: %s lost so far (%s)", self.name, _count(lost), redact(reason))

    def _take_stock(self) -> None:
        """Log the number of undelivered verdicts at the end."""
        with self._changed:
            left = len(self._queue) + self._in_hand
            self._lost += left
            self._queue.clear()
            self._in_hand = 0
        state = self.state()
        if state.failed:
            _LOG.warning("%s: %s lost in all", self.name, _count(state.failed))
        if state.spooled:
            _LOG.warning("%s: %s kept in its spool for the next run", self.name, _count(state.spooled))


def _count(number: int) -> str:
    return "1 verdict" if number == 1 else f"{number} verdicts"
