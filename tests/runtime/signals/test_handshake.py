from __future__ import annotations

import pytest

from onspect.runtime.signals.base import Inputs
from onspect.runtime.signals.handshake import (
    DISCONNECTED,
    ERRORS,
    NO_RESULT,
    NOT_ACKNOWLEDGED,
    NOT_RELEASED,
    WITHDRAWN,
    Handshake,
    HandshakeTimes,
    Ticket,
)

IDLE, TRIGGER, BOTH = Inputs(), Inputs(trigger=True, part="P-1"), Inputs(trigger=True, ack=True)
TIMES = HandshakeTimes(result=0.5, ack=1.0)


def begin(cameras: int = 1) -> tuple[Handshake, Ticket]:
    """Return a handshake in which a part was triggered at 1.0."""
    handshake = Handshake(TIMES, cameras=cameras)
    assert handshake.step(IDLE, 0.0) is None
    assert handshake.phase == "idle"
    ticket = handshake.step(TRIGGER, 1.0)
    assert ticket is not None
    assert (ticket.number, ticket.part, handshake.phase) == (1, "P-1", "busy")
    return handshake, ticket


def test_a_part_goes_through_all_phases_once() -> None:
    """Trigger, busy, valid, ack and release follow one another; the next trigger is another part."""
    handshake, ticket = begin()
    assert handshake.step(TRIGGER, 1.1) is None, "a trigger that stays set is no new part"
    assert handshake.settle(ticket.number, "ok", 0.25) is None
    handshake.step(TRIGGER, 1.2)
    assert handshake.phase == "valid"
    assert handshake.result is not None
    assert (handshake.result.number, handshake.result.verdict, handshake.result.score) == (1, "ok", 0.25)
    handshake.step(BOTH, 1.3)
    assert handshake.phase == "release"
    assert handshake.step(TRIGGER, 1.4) is None, "no new part before the inputs were cleared"
    handshake.step(IDLE, 1.5)
    second = handshake.step(TRIGGER, 1.6)
    assert second is not None
    assert second.number == 2
    assert (handshake.parts, handshake.acknowledged, handshake.failed, handshake.error) == (2, 1, 0, 0)


def test_a_trigger_that_is_set_at_the_start_is_no_part() -> None:
    """The age of such a trigger is not known; the line becomes ready once it is cleared."""
    handshake = Handshake(TIMES)
    assert [handshake.step(TRIGGER, time) for time in (0.0, 1.0, 2.0)] == [None] * 3
    assert handshake.phase == "release"
    handshake.step(IDLE, 3.0)
    assert handshake.phase == "idle"


def test_without_a_verdict_in_time_the_result_is_a_fault_and_a_late_ok_is_refused() -> None:
    """At the limit, and not before, the PLC gets a fault; the late verdict gets the reason."""
    handshake, ticket = begin()
    handshake.step(TRIGGER, 1.499)
    assert handshake.phase == "busy"
    handshake.step(TRIGGER, 1.5)
    assert (handshake.phase, handshake.error) == ("valid", NO_RESULT)
    assert handshake.result is not None
    assert (handshake.result.verdict, handshake.result.score) == ("fault", None)
    assert str(handshake.settle(ticket.number, "ok", 0.1)) == "no verdict came within 500 ms of the trigger (result_ms)"
    assert handshake.result.verdict == "fault"


def test_a_late_verdict_is_not_the_next_parts() -> None:
    """A verdict that comes when the next part is under way leaves that part alone."""
    handshake, first = begin()
    handshake.step(TRIGGER, 1.5)
    handshake.step(BOTH, 1.6)
    handshake.step(IDLE, 1.7)
    second = handshake.step(TRIGGER, 1.8)
    assert second is not None
    assert handshake.settle(first.number, "ok", 0.1) is not None
    assert handshake.phase == "busy"
    assert handshake.settle(second.number, "ng", 9.0) is None
    assert handshake.result is not None
    assert (handshake.result.number, handshake.result.verdict) == (2, "ng")


def test_a_result_without_ack_is_cleared_and_becomes_a_fault() -> None:
    """A PLC that reads late finds no valid result, and a fault in its place."""
    handshake, ticket = begin()
    handshake.settle(ticket.number, "ok", 0.1)
    handshake.step(TRIGGER, 1.1)
    handshake.step(TRIGGER, 2.0)
    assert handshake.phase == "valid"
    handshake.step(TRIGGER, 2.1)
    assert (handshake.phase, handshake.error, handshake.unacknowledged) == ("release", NOT_ACKNOWLEDGED, 1)
    assert handshake.result is not None
    assert handshake.result.verdict == "fault"
    assert handshake.step(TRIGGER, 2.2) is None, "the trigger that was never released is no new part"


def test_a_result_is_never_taken_for_the_next_part_s() -> None:
    """A PLC that was started again triggers its next part while a result is valid: the result goes, and is a fault."""
    handshake, ticket = begin()
    handshake.settle(ticket.number, "ok", 0.1)
    handshake.step(TRIGGER, 1.1)
    handshake.step(IDLE, 1.2)
    assert handshake.phase == "valid", "a PLC may clear the trigger once the result is valid"
    assert handshake.step(TRIGGER, 1.3) is None
    assert (handshake.phase, handshake.error, handshake.unacknowledged) == ("release", NOT_ACKNOWLEDGED, 1)
    assert handshake.result is not None
    assert (handshake.result.number, handshake.result.verdict) == (1, "fault")
    handshake.step(IDLE, 1.4)
    assert handshake.step(TRIGGER, 1.5) is not None


def test_a_late_verdict_says_its_kind() -> None:
    """A part without a verdict in time is `late`; a part that the PLC ended is `withdrawn`."""
    codes = []
    for end in (
        lambda one: one.step(TRIGGER, 1.5),
        lambda one: one.step(IDLE, 1.1),
        lambda one: one.step(Inputs(trigger=True, reset=True), 1.1),
        lambda one: one.lose(),
    ):
        handshake, ticket = begin()
        end(handshake)
        error = handshake.settle(ticket.number, "ok", 0.1)
        assert error is not None
        codes.append(error.code)
    assert codes == ["late", "withdrawn", "withdrawn", "withdrawn"]


def test_inputs_that_stay_set_keep_the_line_from_being_ready() -> None:
    """If trigger and ack are not cleared in time, the error says so, and the line waits."""
    handshake, ticket = begin()
    handshake.settle(ticket.number, "ok", 0.1)
    handshake.step(TRIGGER, 1.1)
    handshake.step(BOTH, 1.2)
    handshake.step(BOTH, 2.2)
    assert (handshake.phase, handshake.error) == ("release", NOT_RELEASED)
    handshake.step(IDLE, 9.0)
    assert handshake.phase == "idle"


def test_a_trigger_that_is_withdrawn_leaves_no_result() -> None:
    """The part is a fault; its verdict comes too late, and valid is never set."""
    handshake, ticket = begin()
    handshake.step(IDLE, 1.1)
    assert (handshake.phase, handshake.error) == ("release", WITHDRAWN)
    assert str(handshake.settle(ticket.number, "ok", 0.1)) == "the PLC cleared the trigger before the verdict came"


def test_a_reset_ends_the_part_and_clears_the_error() -> None:
    """The part under way is a fault without a result; only the rising edge counts."""
    handshake, ticket = begin()
    handshake.step(Inputs(trigger=True, reset=True), 1.1)
    assert (handshake.phase, handshake.error) == ("release", 0)
    assert handshake.settle(ticket.number, "ok", 0.1) is not None
    handshake.step(Inputs(reset=True), 1.2)
    assert handshake.phase == "idle", "a reset that stays set does not hold the line up"


def test_a_lost_connection_makes_a_fault_that_is_shown_afterwards() -> None:
    """The part under way is decided as a fault, and valid once the PLC can be reached again."""
    handshake, ticket = begin()
    handshake.lose()
    assert handshake.settle(ticket.number, "ok", 0.1) is not None
    handshake.step(TRIGGER, 1.2)
    assert (handshake.phase, handshake.error) == ("valid", DISCONNECTED)
    assert handshake.result is not None
    assert handshake.result.verdict == "fault"


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [(("ok", "ng"), "ng"), (("ng", "fault"), "ng"), (("ok", "fault"), "fault"), (("ok",) * 2, "ok")],
)
def test_the_worst_of_several_cameras_is_the_result(verdicts: tuple[str, str], worst: str) -> None:
    """The result waits for every camera."""
    handshake, ticket = begin(cameras=2)
    handshake.settle(ticket.number, verdicts[0], 0.1)  # type: ignore[arg-type]
    handshake.step(TRIGGER, 1.1)
    assert handshake.phase == "busy"
    handshake.settle(ticket.number, verdicts[1], 0.2)  # type: ignore[arg-type]
    handshake.step(TRIGGER, 1.2)
    assert handshake.result is not None
    assert handshake.result.verdict == worst


def test_a_camera_that_is_missing_makes_a_fault() -> None:
    """One ok of two cameras is not ok."""
    handshake, ticket = begin(cameras=2)
    handshake.settle(ticket.number, "ok", 0.1)
    handshake.step(TRIGGER, 1.5)
    assert handshake.result is not None
    assert handshake.result.verdict == "fault"


def test_every_error_is_described() -> None:
    """Each code has words."""
    assert sorted(ERRORS) == [1, 2, 3, 4, 5]
