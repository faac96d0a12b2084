from __future__ import annotations

from collections.abc import Iterator

import pytest

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.registry import open_sink

from ..services import Plc, free_port
from ..verdicts import inspection, line_status, wait_until


@pytest.fixture
def plc() -> Iterator[Plc]:
    """Return a running PLC."""
    with Plc() as plc:
        yield plc


def open_modbus(plc: Plc, coil: int = 8, register: int = 20) -> Sink:
    """Return a sink that writes to the PLC."""
    return open_sink(f"modbus://127.0.0.1:{plc.port}?unit=7&coil={coil}&register={register}", append=True)


@pytest.mark.parametrize(
    ("verdict", "coils", "code"),
    [("ok", [0, 0, 0], 1), ("ng", [1, 0, 0], 2), ("review", [0, 1, 0], 3), ("fault", [1, 0, 1], 4)],
)
def test_verdict_is_in_coils_and_registers(plc: Plc, verdict: str, coils: list[int], code: int) -> None:
    """Each verdict sets its coils, then all its registers at once; a fault is rejected and has the score -1."""
    score = None if verdict == "fault" else 0.5
    with open_modbus(plc) as sink:
        sink.write(
            inspection(verdict=verdict, score=score, regions=() if verdict == "fault" else inspection().verdict.regions)
        )
    assert plc.writes[0] == (8, coils)
    assert plc.writes[1][0] == 20
    parts, found, regions, value, threshold, *counts = plc.registers()
    assert (parts, found, regions) == (1, code, 0 if verdict == "fault" else 1)
    assert (value, threshold) == (-1.0 if verdict == "fault" else 0.5, 0.25)
    assert counts == [int(number == code) for number in (1, 2, 3, 4)]


def test_parts_count_up(plc: Plc) -> None:
    """The count of parts rises by one with each, and the counts of each verdict add up to it."""
    with open_modbus(plc) as sink:
        for verdict in ("ok", "ng", "ok"):
            sink.write(inspection(verdict=verdict))
            parts, *_, ok, ng, review, fault = plc.registers()
            assert parts == ok + ng + review + fault
    assert plc.registers()[0] == 3
    assert plc.connections == 1


def test_state_and_fault_code_have_registers_of_their_own(plc: Plc) -> None:
    """With `state` a part writes both before its other registers; a status writes the state of the moment alone."""
    with open_sink(f"modbus://127.0.0.1:{plc.port}?unit=7&register=20&state=36", append=True) as sink:
        sink.write(inspection(verdict="fault", score=None, code="black"))
        sink.write(inspection(verdict="ok"))
        for now in ("waiting", "ng", "lost"):
            sink.report(line_status(now=now))
        assert "unit 7 answers" in sink.check()
    written = [(address, values[:2]) for address, values in plc.writes if address in (20, 36)]
    assert written == [(36, [4, 4]), (20, [0, 1]), (36, [1, 0]), (20, [0, 2]), (36, [0]), (36, [2]), (36, [5])]


def test_check_tells_where_the_plc_lacks_the_state(plc: Plc) -> None:
    """A check reads the registers of the state too."""
    with (
        open_sink(f"modbus://127.0.0.1:{plc.port}?unit=7&state=63", append=True) as sink,
        pytest.raises(OutputError, match="read_holding_registers at 63"),
    ):
        sink.check()


def test_large_counts_take_two_registers(plc: Plc) -> None:
    """A count beyond 65535 has its high word first."""
    with open_modbus(plc) as sink:
        sink._counts["ok"] = 70_000  # type: ignore[attr-defined]
        sink.write(inspection(verdict="ng"))
    assert plc.registers()[0] == 70_001


def test_heartbeat_changes_with_each_status(plc: Plc) -> None:
    """While the line reports its status the heartbeat changes, and a verdict leaves it as it is."""
    with QueuedSink(open_modbus(plc), "plc") as queued:
        for expected in (1, 0, 1):
            count = len(plc.writes)
            queued.report(line_status())
            wait_until(lambda count=count: len(plc.writes) > count)  # type: ignore[misc]
            assert plc.writes[-1] == (11, [expected, 0])
        queued.write(inspection())
        wait_until(lambda: queued.state().delivered == 1)
    assert [address for address, _ in plc.writes] == [11, 11, 11, 8, 20]


def test_heartbeat_of_a_line_that_hangs_stands_still(plc: Plc) -> None:
    """If frames wait and none is judged, or the line has ended, the heartbeat does not change; the alarm is set."""
    statuses = [
        line_status(judged=5, waiting=3),
        line_status(judged=5, waiting=3),
        line_status(judged=5, waiting=3, alarm="five ng"),
        line_status(judged=6, waiting=3),
        line_status(judged=6, running=False),
    ]
    with open_modbus(plc) as sink:
        for status in statuses:
            sink.report(status)  # type: ignore[attr-defined]
    assert [values for _, values in plc.writes] == [[1, 0], [1, 0], [1, 1], [0, 0], [0, 0]]


def test_restarted_plc_gets_new_parts_only(plc: Plc) -> None:
    """While the PLC is away parts are counted as failed, the line continues, and afterwards it gets the new ones."""
    with QueuedSink(open_modbus(plc), "plc") as queued:
        queued.write(inspection(index=0))
        wait_until(lambda: queued.state().delivered == 1)
        plc.stop()
        for index in range(1, 4):
            queued.write(inspection(index=index))
        wait_until(lambda: queued.state().failed == 3)
        assert "no connection" in queued.state().message
        plc.start()
        queued.write(inspection(index=4))
        wait_until(lambda: queued.state().delivered == 2)
        assert queued.state().message == ""
    assert plc.registers()[0] == 5, "parts that were lost are seen as a gap in the count"


def test_connection_closed_by_the_plc_is_opened_again(plc: Plc) -> None:
    """A PLC that has closed the idle connection gets the next part over a new one, without a loss."""
    with open_modbus(plc) as sink:
        sink.write(inspection())
        plc.stop()
        plc.start()
        sink.write(inspection())
    assert plc.registers()[0] == 2


def test_wrong_address_is_told(plc: Plc) -> None:
    """A PLC that has no such registers gives a message with the settings to check."""
    with open_modbus(plc, register=60) as sink, pytest.raises(OutputError, match="check unit, coil and register"):
        sink.write(inspection())


def test_check_reads_and_writes_nothing(plc: Plc) -> None:
    """Checking reaches the PLC without a write, and reports missing registers."""
    with open_modbus(plc) as sink:
        assert "unit 7 answers" in sink.check()  # type: ignore[attr-defined]
    with open_modbus(plc, register=60) as sink, pytest.raises(OutputError, match="read_holding_registers at 60"):
        sink.check()  # type: ignore[attr-defined]
    assert plc.writes == []


def test_unreachable_plc_is_an_output_error() -> None:
    """A PLC that is not there raises OutputError for a part and for a status."""
    with open_sink(f"modbus://127.0.0.1:{free_port()}", append=True) as sink:
        with pytest.raises(OutputError, match="no connection"):
            sink.write(inspection())
        with pytest.raises(OutputError, match="no connection"):
            sink.report(line_status())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modbus://", "names no host"),
        ("modbus://plc/register", "has a path"),
        ("modbus://plc?unit=256", "unit is '256'; give a whole number from 0 to 255"),
        ("modbus://plc?register=65530", "from 0 to 65520"),
        ("modbus://plc?coil=65532", "from 0 to 65531"),
        ("modbus://plc?register=100&state=99", "state=99 is among the registers 100 to 115"),
        ("modbus://plc?register=100&state=115", "give another, such as state=116"),
        ("modbus://plc?slave=1", "has the option 'slave'"),
    ],
)
def test_wrong_url_is_refused(text: str, message: str) -> None:
    """An address that cannot work is refused when it is opened."""
    with pytest.raises(ChoiceError) as caught:
        open_sink(text, append=True)
    assert message in str(caught.value)
