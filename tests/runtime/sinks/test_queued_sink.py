from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from onspect.runtime.errors import OutputError, RefusedError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.sinks.delivery.commit_barrier import CommitBarrier
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink, Timing
from onspect.runtime.sinks.delivery.spool import Spool
from onspect.runtime.sinks.lines import JsonlSink
from onspect.runtime.sinks.sqlite import SqliteSink
from onspect.runtime.status import Commands, LineStatus

from ..verdicts import inspection, line_status, wait_until

QUICK = Timing(first_pause=0.001, longest_pause=0.002, longest_record_pause=0.002, flush=0.01)


def open_queued(sink: Sink, name: str, spool: Path | None = None, **settings: Any) -> QueuedSink:
    """Return a queued sink that tries again at once."""
    return QueuedSink(sink, name, spool, timing=QUICK, **settings)


class FakeSink(Sink):
    """A sink that keeps its verdicts, fails while `error` is set, and waits while `gate` is closed."""

    pictures = False

    def __init__(self, delivery: Delivery = "event") -> None:
        self.delivery = delivery
        self.taken: list[Inspection] = []
        self.tries = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed = True

    def write(self, inspection: Inspection) -> None:
        """Take one inspection, or fail."""
        self.gate.wait()
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.taken.append(inspection)

    @property
    def indices(self) -> list[int]:
        """Return the indices of the accepted verdicts."""
        return [inspection.verdict.index for inspection in self.taken]


class BatchFake(FakeSink):
    """A fake that takes many at once."""

    batch = 100

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Take all, or fail."""
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.taken += inspections


class TalkingFake(FakeSink):
    """A fake that takes statuses, commands and flushes too."""

    wants_status = True

    def __init__(self, delivery: Delivery = "live") -> None:
        super().__init__(delivery)
        self.statuses: list[LineStatus] = []
        self.commands: Commands | None = None
        self.flushes = 0

    def report(self, status: LineStatus) -> None:
        """Keep the status."""
        self.statuses.append(status)

    def attach(self, commands: Commands) -> None:
        """Keep the commands."""
        self.commands = commands

    def flush(self) -> None:
        """Count."""
        self.flushes += 1


def write(queued: QueuedSink, indices: range, **facts: Any) -> None:
    """Write numbered inspections."""
    for index in indices:
        queued.write(inspection(index=index, **facts))


@pytest.mark.parametrize("kind", [FakeSink, BatchFake])
@pytest.mark.parametrize("delivery", ["record", "event", "live"])
@pytest.mark.parametrize("spooled", [False, True])
def test_everything_is_delivered_in_order(
    tmp_path: Path, kind: type[FakeSink], delivery: Delivery, spooled: bool
) -> None:
    """Verdicts arrive in order, and closing waits for them; then the sink is closed."""
    sink = kind(delivery)
    with open_queued(sink, "fake", tmp_path if spooled else None) as queued:
        write(queued, range(250))
    assert sink.indices == list(range(250))
    assert sink.closed
    state = queued.state()
    assert (state.delivered, state.queued, state.spooled, state.failed, state.message) == (250, 0, 0, 0, "")


def test_slow_sink_holds_nobody_up() -> None:
    """While a sink hangs, writing continues at once; excess verdicts are counted and reported, oldest ok first."""
    sink = FakeSink("live")
    sink.gate.clear()
    with open_queued(sink, "fake", capacity=10) as queued:
        queued.write(inspection(index=0))
        wait_until(lambda: len(queued._queue) == 0)
        write(queued, range(1, 6), verdict="ng")
        write(queued, range(6, 11), verdict="ok")
        started = time.perf_counter()
        write(queued, range(11, 18), verdict="ng")
        assert time.perf_counter() - started < 2
        assert (queued.state().failed, queued.state().queued) == (7, 11)
        sink.gate.set()
    assert sink.indices == [0, 3, 4, 5, *range(11, 18)]


def test_loss_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The log has one warning when the first verdict is lost, and one at the end with how many were."""
    sink = FakeSink("live")
    sink.gate.clear()
    with caplog.at_level(logging.WARNING), open_queued(sink, "fake", capacity=2) as queued:
        write(queued, range(20))
        sink.gate.set()
    assert [record.getMessage() for record in caplog.records] == [
        "fake: 1 verdict lost so far (they come faster than the sink accepts them)",
        f"fake: {queued.state().failed} verdicts lost in all",
    ]
    assert queued.state().failed >= 17


def test_patient_writer_loses_nothing() -> None:
    """With endless patience a writer waits for room, and every verdict arrives."""
    sink = FakeSink("record")
    with open_queued(sink, "fake", capacity=2, patience=math.inf) as queued:
        write(queued, range(300))
    assert sink.indices == list(range(300))


@pytest.mark.parametrize("delivery", ["record", "event"])
@pytest.mark.parametrize("spooled", [False, True])
def test_failed_delivery_is_tried_again(
    tmp_path: Path, delivery: Delivery, spooled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A sink that fails for a while gets everything in order afterwards; trouble and recovery are logged once each."""
    sink = FakeSink(delivery)
    sink.error = OutputError("the broker is gone")
    with caplog.at_level(logging.WARNING), open_queued(sink, "fake", tmp_path if spooled else None) as queued:
        write(queued, range(30))
        wait_until(lambda: sink.tries > 3)
        state = queued.state()
        assert (state.message, state.delivered, state.queued + state.spooled) == ("the broker is gone", 0, 30)
        sink.error = None
    assert sink.indices == list(range(30))
    assert [record.getMessage() for record in caplog.records] == ["fake: the broker is gone", "fake: works again"]


def test_live_sink_never_gets_the_past() -> None:
    """Verdicts that a live sink could not accept are lost and counted; after recovery it gets new ones only."""
    sink = FakeSink("live")
    sink.error = OutputError("no connection")
    with open_queued(sink, "fake") as queued:
        write(queued, range(5))
        wait_until(lambda: queued.state().failed == 5)
        sink.error = None
        write(queued, range(5, 8))
    assert sink.indices == [5, 6, 7]


def test_refused_verdict_does_not_block_the_others(tmp_path: Path) -> None:
    """A verdict that the receiver refuses for good is counted as failed, and the next ones arrive."""

    class Picky(FakeSink):
        def write(self, inspection: Inspection) -> None:
            if inspection.verdict.index == 1:
                raise RefusedError("400 Bad Request")
            super().write(inspection)

    sink = Picky()
    with open_queued(sink, "fake", tmp_path) as queued:
        write(queued, range(4))
    assert sink.indices == [0, 2, 3]
    assert (queued.state().delivered, queued.state().failed) == (3, 1)


def test_error_of_any_kind_is_survived() -> None:
    """An error that no sink should raise is reported with its kind, and the verdict is tried again."""
    sink = FakeSink("record")
    sink.error = ZeroDivisionError("division by zero")
    with open_queued(sink, "fake") as queued:
        write(queued, range(2))
        wait_until(lambda: queued.state().message)
        assert queued.state().message == "ZeroDivisionError: division by zero"
        sink.error = None
    assert sink.indices == [0, 1]


def test_next_run_sends_what_this_one_could_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Verdicts that could not be delivered until the end wait on disk, closing does not wait for them, and the next
    run sends them first, equal in all but the picture."""
    down, up = FakeSink(), FakeSink()
    down.error = OutputError("the broker is gone")
    started = time.monotonic()
    with caplog.at_level(logging.WARNING), open_queued(down, "fake", tmp_path) as queued:
        write(queued, range(20), source="Pr\udce4fling.png")
    assert time.monotonic() - started < 3
    assert queued.state().spooled == 20
    assert queued.state().failed == 0
    assert "20 verdicts kept in its spool for the next run" in caplog.text
    with open_queued(up, "fake", tmp_path) as queued:
        write(queued, range(20, 25))
    assert up.indices == list(range(25))
    assert up.taken[3].verdict == inspection(index=3, source="Pr\udce4fling.png").verdict


def test_without_a_spool_the_rest_is_counted_as_lost() -> None:
    """If a sink fails until the deadline of closing, remaining verdicts are counted as failed."""
    sink = FakeSink("record")
    sink.error = OutputError("no space left")
    with open_queued(sink, "fake", deadline=0.1) as queued:
        write(queued, range(7))
    assert (queued.state().failed, queued.state().queued) == (7, 0)


@pytest.mark.slow
def test_hung_sink_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """A sink that never returns is abandoned after the deadline, with a message."""
    sink = FakeSink("live")
    sink.gate.clear()
    with caplog.at_level(logging.WARNING), open_queued(sink, "fake", deadline=0.05) as queued:
        write(queued, range(3))
    assert not sink.closed
    assert "does not answer" in caplog.text
    assert queued.state().failed == 3
    sink.gate.set()
    wait_until(lambda: not any(thread.is_alive() for thread in queued._threads))


@pytest.mark.slow
@pytest.mark.parametrize(("patience", "lost"), [(math.inf, False), (0.0, True)])
def test_slow_sink_at_the_end_of_files_gets_everything(patience: float, lost: bool) -> None:
    """A source that can wait makes the end wait too, as long as the sink accepts verdicts; a line does not wait."""

    class Slow(FakeSink):
        def write(self, inspection: Inspection) -> None:
            time.sleep(0.05)
            super().write(inspection)

    sink = Slow("live")
    with open_queued(sink, "fake", patience=patience, deadline=0.3) as queued:
        write(queued, range(20))
    assert (queued.state().failed > 0) == lost
    assert len(sink.indices) == 20 - queued.state().failed


def test_damaged_line_in_the_spool_is_counted(tmp_path: Path) -> None:
    """A line that is not a verdict is counted as failed, once, and the others arrive, also after trying again."""
    tmp_path.joinpath("000000000001.jsonl").write_bytes(
        b"\n".join([inspection(index=0).verdict.to_json().encode(), b'{"source": ', b"[]", b"{}", b""])
    )
    sink = BatchFake()
    sink.error = OutputError("not now")
    with open_queued(sink, "fake", tmp_path) as queued:
        wait_until(lambda: queued.state().message)
        time.sleep(0.02)
        sink.error = None
        write(queued, range(1, 3))
    assert sink.indices == [0, 1, 2]
    assert queued.state().failed == 3


def test_nothing_is_told_before_it_is_on_record(tmp_path: Path) -> None:
    """With a barrier, a verdict reaches events and live sinks only after every record sink has it."""
    barrier = CommitBarrier()
    record, event, live = FakeSink("record"), FakeSink("event"), FakeSink("live")
    record.gate.clear()
    with (
        open_queued(event, "event", tmp_path, barrier=barrier) as first,
        open_queued(live, "live", barrier=barrier) as second,
        open_queued(record, "record", barrier=barrier) as third,
    ):
        for queued in (first, second, third):
            queued.write(inspection(index=0))
        time.sleep(0.05)
        assert (event.taken, live.taken) == ([], [])
        assert len(list(tmp_path.glob("*.jsonl"))) == 0, "not even in the spool: it would be sent after a crash"
        record.gate.set()
        wait_until(lambda: event.taken and live.taken)


def run_with_records(folder: Path, indices: range, *, stop_sending_at: int | None = None) -> list[int]:
    """Write to JSONL, SQLite and a spooled sink, which is killed before some verdict; return the delivered verdicts."""
    barrier, sink = CommitBarrier(), FakeSink()
    sinks = [
        open_queued(sink, "event", folder / "spool", barrier=barrier),
        open_queued(SqliteSink(folder / "h.db"), "sqlite", barrier=barrier),
        open_queued(JsonlSink(folder / "v.jsonl", append=True), "jsonl", barrier=barrier),
    ]
    with ExitStack() as stack:
        for queued in sinks:
            stack.enter_context(queued)
        for index in indices:
            for number, queued in enumerate(sinks):
                if number or stop_sending_at is None or index < stop_sending_at:
                    queued.write(inspection(index=index))
    return sink.indices


def test_what_was_recorded_and_not_spooled_is_sent_by_the_next_run(tmp_path: Path) -> None:
    """Verdicts that were on record when the process was killed, and not yet in the spool, are sent first."""
    assert run_with_records(tmp_path, range(3), stop_sending_at=0) == []
    assert run_with_records(tmp_path, range(3, 6), stop_sending_at=5) == [3, 4], "a new spool leaves the past alone"
    assert run_with_records(tmp_path, range(6, 8)) == [5, 6, 7]
    assert run_with_records(tmp_path, range(8, 9)) == [8]


def test_earlier_records_are_known_after_the_record_closed() -> None:
    """A run so short that the record sinks close first still sends what an earlier run recorded and did not send."""
    barrier = CommitBarrier()
    barrier.join("jsonl", [b"1", b"2"])
    barrier.join("sqlite", [b"2"])
    for sink in ("jsonl", "sqlite"):
        barrier.leave(sink)
    assert barrier.earlier() == [b"2"]


def test_what_only_one_record_has_is_not_sent(tmp_path: Path) -> None:
    """A verdict that the killed process had written to JSONL but not to SQLite is sent to no sink."""
    run_with_records(tmp_path, range(3))
    with JsonlSink(tmp_path / "v.jsonl", append=True) as sink:
        sink.write(inspection(index=3))
    assert run_with_records(tmp_path, range(4, 5)) == [4]


def test_spool_that_begins_with_the_record_sends_all_of_it(tmp_path: Path) -> None:
    """If a spool began with an empty record, all that was recorded before the kill is sent."""
    run_with_records(tmp_path, range(1))
    (tmp_path / "h.db").unlink()
    (tmp_path / "v.jsonl").unlink()
    for path in (tmp_path / "spool").iterdir():
        path.unlink()
    with Spool(tmp_path / "spool") as spool:
        spool.begin_after("0" * 16)
    with SqliteSink(tmp_path / "h.db") as first, JsonlSink(tmp_path / "v.jsonl") as second:
        for sink in (first, second):
            sink.write(inspection(index=0))
    assert run_with_records(tmp_path, range(1, 2)) == [0, 1]


def test_parts_are_rejected_where_they_cannot_be_recorded() -> None:
    """While a record sink fails, live sinks do not wait for it; once it has caught up they do again."""
    barrier = CommitBarrier()
    record, live = FakeSink("record"), FakeSink("live")
    record.error = OutputError("no space left")
    with open_queued(record, "record", barrier=barrier) as first, open_queued(live, "live", barrier=barrier) as second:
        for queued in (first, second):
            write(queued, range(5))
        wait_until(lambda: len(live.taken) == 5)
        record.error = None
        wait_until(lambda: len(record.taken) == 5)
        record.gate.clear()
        for queued in (first, second):
            queued.write(inspection(index=5))
        time.sleep(0.05)
        assert len(live.taken) == 5
        record.gate.set()


def test_hung_record_delays_live_sinks_once() -> None:
    """A record sink that hangs is waited for once, for the patience, and not again until it has caught up."""
    barrier = CommitBarrier()
    barrier.join("record")
    assert not barrier.wait(1, 0.05)
    started = time.monotonic()
    assert [barrier.wait(number, 60.0) for number in (2, 3)] == [False] * 2
    assert time.monotonic() - started < 30
    barrier.recorded("record", 2)
    assert not barrier.wait(4, 0.0)
    barrier.recorded("record", 4)
    assert barrier.wait(4, 0.0)


def test_pictures_are_kept_only_for_sinks_that_look_at_them(tmp_path: Path) -> None:
    """A waiting verdict keeps its frame in memory only for a sink that wants pictures."""
    frame = np.zeros((4, 4), np.uint8)
    plain, painter = FakeSink(), FakeSink()
    painter.pictures = True
    for sink in (plain, painter):
        with open_queued(sink, "fake") as queued:
            queued.write(inspection(frame=frame))
    assert (plain.taken[0].frame, plain.taken[0].error_map) == (None, None)
    assert painter.taken[0].frame is frame


@pytest.mark.slow
def test_records_wait_for_an_hour_of_a_full_disk() -> None:
    """Before a sink of records, as many verdicts wait as an hour brings at 25 a second."""
    sink = FakeSink("record")
    sink.gate.clear()
    with open_queued(sink, "fake") as queued:
        part = inspection(index=0)
        for _ in range(90_000):
            queued.write(part)
        assert queued.state().failed == 0
        sink.gate.set()
        wait_until(lambda: queued.state().delivered == 90_000, 60)


def test_waiting_pictures_take_no_more_memory_than_they_may() -> None:
    """If pictures wait for a slow sink, the oldest ok gives way before they take too much memory."""
    sink = FakeSink("live")
    sink.pictures = True
    sink.gate.clear()
    frame = np.zeros((100, 100), np.uint8)
    with open_queued(sink, "fake", picture_bytes=3 * 12_000) as queued:
        queued.write(inspection(index=0, frame=frame))
        wait_until(lambda: queued.state().queued == 1 and not queued._queue)
        write(queued, range(1, 3), frame=frame, verdict="ok")
        write(queued, range(3, 6), frame=frame)
        assert queued.state().failed == 2
        sink.gate.set()
    assert sink.indices == [0, 3, 4, 5]
    assert queued._bytes == 0


def test_stale_verdict_is_not_delivered() -> None:
    """A live sink that says how long a verdict is worth something gets none that waited longer; each is counted."""
    sink = FakeSink("live")
    sink.stale_after = 0.05  # type: ignore[attr-defined]
    sink.gate.clear()
    with open_queued(sink, "fake") as queued:
        write(queued, range(4))
        time.sleep(0.1)
        sink.gate.set()
        wait_until(lambda: queued.state().failed == 3)
        write(queued, range(4, 6))
    assert sink.indices == [0, 4, 5]
    assert (queued.state().delivered, queued.state().queued) == (3, 0)


def test_last_status_reaches_the_sink() -> None:
    """The status that is reported just before the end, as a line's last one is, reaches the sink."""
    for _ in range(20):
        sink = TalkingFake()
        with open_queued(sink, "fake") as queued:
            queued.report(line_status(running=False))
        assert [status.running for status in sink.statuses] == [False]


def test_status_commands_and_flush_reach_the_sink() -> None:
    """The line's status and commands are passed to a sink that accepts them, and written verdicts are flushed."""
    sink, commands = TalkingFake("record"), object()
    with open_queued(sink, "fake") as queued:
        queued.attach(commands)  # type: ignore[arg-type]
        queued.report(line_status(ok=7))
        wait_until(lambda: sink.statuses)
        queued.write(inspection())
    assert sink.statuses[0].ok == 7
    assert sink.commands is commands
    assert sink.flushes >= 1


def test_disk_that_takes_its_time_holds_up_no_verdict() -> None:
    """While a flush hangs, verdicts are recorded and delivered; one that fails is reported once, and is not a loss."""
    release = threading.Event()

    class SlowDisk(FakeSink):
        def flush(self) -> None:
            release.wait(60)
            raise OutputError("the disk is slow")

    record, live, barrier = SlowDisk("record"), FakeSink("live"), CommitBarrier()
    with open_queued(record, "record", barrier=barrier) as first, open_queued(live, "live", barrier=barrier) as second:
        for index in range(20):
            for queued in (first, second):
                queued.write(inspection(index=index))
            wait_until(lambda index=index: len(live.taken) == index + 1)  # type: ignore[misc]
        release.set()
        wait_until(lambda: first.state().message == "the disk is slow")
    assert (first.state().delivered, first.state().failed) == (20, 0)


def test_secrets_stay_out_of_names_messages_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Passwords in a sink's URL are in neither its name, nor its message, nor the log."""
    sink = FakeSink("record")
    sink.error = OutputError("cannot reach mqtt://me:geheim@host/line?password=geheim")
    with caplog.at_level(logging.DEBUG), open_queued(sink, "mqtt://me:geheim@host", deadline=0.0) as queued:
        queued.write(inspection())
        wait_until(lambda: queued.state().message)
        assert "geheim" not in str(queued.state())
    assert "geheim" not in caplog.text
    assert "cannot reach" in caplog.text


def test_pipe_without_a_reader_ends_the_writer() -> None:
    """If the record is a pipe whose reader has gone, writing raises BrokenPipeError, as the shell's tools expect."""
    sink = FakeSink("record")
    sink.error = BrokenPipeError()
    with open_queued(sink, "jsonl:-") as queued:
        queued.write(inspection())
        wait_until(lambda: queued.state().failed)
        with pytest.raises(BrokenPipeError):
            queued.write(inspection())
