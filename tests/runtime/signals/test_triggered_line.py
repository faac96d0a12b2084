from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import GapError, ImageError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line import AlarmRule, Line, Models, Voting
from onspect.runtime.line.triggered import TriggeredSource
from onspect.runtime.model.schema import SourceLimits, Threshold
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.signals.base import Inputs
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.signals.ejector import EjectorRule
from onspect.runtime.signals.handshake import HandshakeTimes
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.sources.fake import FakeFault, FakeSource
from onspect.runtime.status import SourceState

from ...tiny_model import write_model
from ..verdicts import wait_until
from .plc import MemoryPlc, Program, program_of

Draw = Callable[[int], np.ndarray]

GOOD, BAD = 128, 250


class Pictures(Source):
    """A source that can wait: gives what `draw` returns for 0, 1, 2 and so on, or ends with None."""

    def __init__(self, draw: Callable[[int], Any], count: int | None = None) -> None:
        super().__init__("pictures")
        self.asked = 0
        self._draw = draw
        self._count = count

    def __iter__(self) -> Iterator[Capture]:
        while not self._stopped.is_set() and (self._count is None or self.asked < self._count):
            self.asked += 1
            yield Capture("pictures", self._draw(self.asked - 1))


class Hardware(Source):
    """A camera with a hardware trigger: sends a frame when the test says so."""

    live = True
    can_wait = False

    def __init__(self) -> None:
        super().__init__("hardware")
        self.frames: list[Any] = []

    def __iter__(self) -> Iterator[Capture]:
        while not self._stopped.is_set():
            if self.frames:
                yield Capture("hardware", self.frames.pop(0), captured=time.perf_counter())
            time.sleep(0.001)

    def state(self) -> SourceState:
        return SourceState("hardware", connected=True)


@dataclass
class Cell:
    """A line, its PLC and the PLC's program."""

    line: Line
    plc: MemoryPlc
    program: Program


def make_cell(
    models: Models,
    sources: list[Source],
    sink: Any,
    *,
    result: float = 5.0,
    ejector: EjectorRule | None = None,
    frames: int = 1,
    **settings: Any,
) -> Cell:
    """Return a line whose sources a PLC in memory triggers, as `build_line` puts it together."""
    plc = MemoryPlc()
    signals = SignalController(
        plc,
        cameras=len(sources),
        times=HandshakeTimes(result, 1.0),
        ejector=ejector,
        recipes=settings.pop("recipes", ()),
    )
    triggered = [TriggeredSource(one, signals, camera, frames=frames) for camera, one in enumerate(sources)]
    line = Line(models, triggered, [sink], voting=Voting(frames=frames), signals=signals, **settings)
    return Cell(line, plc, program_of(plc))


def flat(value: int) -> np.ndarray:
    return np.full((16, 16), value, np.uint8)


def test_each_trigger_gives_one_verdict_with_its_part(
    unchecked: Models, keeper: Any, noisy: Draw, running: Any
) -> None:
    """Every part gets its own result, in the record and on the wire, and the source is read once a part."""
    source = Pictures(noisy)
    cell = make_cell(unchecked, [source], keeper)
    with running(cell.line):
        results = [cell.program.run_part(f"P-{number}") for number in range(20)]
        assert source.asked == 20
        wait_until(lambda: cell.line.status().signals.acknowledged == 20)  # type: ignore[union-attr]
    assert [one.sequence for one in results] == list(range(1, 21))
    assert [one.part for one in results] == [f"P-{number}" for number in range(20)]
    assert [v.part for v in keeper.verdicts] == [f"P-{number}" for number in range(20)]
    codes = {"ok": 1, "ng": 2, "review": 3, "fault": 4}
    assert [one.verdict for one in results] == [codes[v.verdict] for v in keeper.verdicts]
    assert [one.score for one in results] == [v.score for v in keeper.verdicts]
    assert not cell.plc.outputs.ready, "a line that has ended is not ready"


def test_the_picture_is_the_triggered_parts(unchecked: Models, keeper: Any, running: Any) -> None:
    """Verdicts follow the pictures: a part that differs is ng, and only this one."""
    cell = make_cell(unchecked, [Pictures(lambda number: flat(BAD if number % 3 == 1 else GOOD))], keeper)
    with running(cell.line):
        verdicts = [cell.program.run_part().verdict for _ in range(9)]
    assert verdicts == [1, 2, 1] * 3


def test_a_running_camera_gives_the_first_frame_after_the_trigger(
    unchecked: Models, keeper: Any, noisy: Draw, running: Any
) -> None:
    """Frames between the parts are not judged: one verdict for each trigger, each with its own frame."""
    source = FakeSource(noisy, rate=200, patience=5.0)
    cell = make_cell(unchecked, [source], keeper)
    with running(cell.line):
        for number in range(5):
            cell.program.run_part(str(number))
            time.sleep(0.03)
        assert cell.line.status().captured == 5
    assert [v.part for v in keeper.verdicts] == list("01234")
    assert "fault" not in keeper.seen


@pytest.mark.slow
def test_no_frame_in_time_is_a_fault_for_plc_and_record(
    unchecked: Models, keeper: Any, noisy: Draw, running: Any
) -> None:
    """A camera that goes silent makes the part a fault in time, and the next part is judged again."""
    source = FakeSource(noisy, rate=200, patience=5.0)
    cell = make_cell(unchecked, [source], keeper, result=1.5)
    with running(cell.line):
        assert cell.program.run_part("a").verdict in (1, 2)
        source.inject(FakeFault("gap", seconds=3.0))
        time.sleep(0.1)
        started = time.monotonic()
        result = cell.program.run_part("b")
        assert (result.verdict, result.error, result.score) == (4, 1, -1.0)
        assert time.monotonic() - started < 2.8, "the result did not wait for the frame"
        time.sleep(1.5)
        assert cell.program.run_part("c").verdict in (1, 2)
    assert [v.part for v in keeper.verdicts] == ["a", "b", "c"]
    assert keeper.verdicts[1].verdict == "fault"
    assert "no frame of the camera came in time" in str(keeper.verdicts[1].reason)


@pytest.mark.slow
def test_a_verdict_that_comes_too_late_is_a_fault_in_the_record_too(
    unchecked: Models, keeper: Any, running: Any
) -> None:
    """The PLC was told a fault, so the record must not say ok."""

    told = threading.Event()

    def draw(number: int) -> np.ndarray:
        if number == 1:
            told.wait(10.0)
        return flat(GOOD)

    cell = make_cell(unchecked, [Pictures(draw)], keeper, result=1.5)
    with running(cell.line):
        verdicts = [cell.program.run_part(str(number)).verdict for number in range(2)]
        told.set()
        assert [*verdicts, cell.program.run_part("2").verdict] == [1, 4, 1]
    assert keeper.seen == ["ok", "fault", "ok"]
    assert keeper.verdicts[1].reason == "no verdict came within 1500 ms of the trigger (result_ms)"
    assert keeper.verdicts[1].score is None


def test_damaged_frames_are_faults_and_the_next_part_is_its_own(unchecked: Models, keeper: Any, running: Any) -> None:
    """A damaged frame, or a gap, spoils its own part alone."""
    spoilt = {1: ImageError("damaged"), 3: GapError("lost")}
    cell = make_cell(unchecked, [Pictures(lambda number: spoilt.get(number, flat(GOOD)))], keeper)
    with running(cell.line):
        assert [cell.program.run_part(str(number)).verdict for number in range(6)] == [1, 4, 1, 4, 1, 1]
    assert [v.part for v in keeper.verdicts] == list("012345")


def test_parts_of_several_frames_and_cameras(unchecked: Models, keeper: Any, running: Any) -> None:
    """Two cameras with three frames each give one result: the worst; each camera has its verdict in the record."""
    first = Pictures(lambda number: flat(GOOD))
    second = Pictures(lambda number: flat(BAD if number == 4 else GOOD))  # the second part's second frame
    cell = make_cell(unchecked, [first, second], keeper, frames=3)
    with running(cell.line):
        assert [cell.program.run_part(str(number)).verdict for number in range(3)] == [1, 2, 1]
    assert (first.asked, second.asked) == (9, 9)
    assert len(keeper.verdicts) == 6
    assert sorted(str(v.part) for v in keeper.verdicts if v.verdict == "ng") == ["1"]


def test_a_frame_of_a_hardware_trigger_may_be_ahead_of_its_signal(unchecked: Models, keeper: Any, running: Any) -> None:
    """A frame belongs to the signal that follows it at once; one that no signal follows is a fault in the record."""
    source = Hardware()
    cell = make_cell(unchecked, [source], keeper)
    with running(cell.line):
        cell.program.wait(lambda outputs: outputs.ready)
        source.frames.append(flat(BAD))
        time.sleep(0.02)
        assert cell.program.run_part("a").verdict == 2
        source.frames.append(flat(GOOD))
        wait_until(lambda: len(keeper.verdicts) == 2)
        source.frames.append(flat(GOOD))
        time.sleep(0.02)
        assert cell.program.run_part("b").verdict == 1
    assert [(v.part, v.verdict) for v in keeper.verdicts] == [("a", "ng"), (None, "fault"), ("b", "ok")]
    assert "without a trigger of the PLC" in str(keeper.verdicts[1].reason)


def test_the_line_is_not_ready_while_a_camera_is_away(
    unchecked: Models, keeper: Any, noisy: Draw, running: Any
) -> None:
    """Ready is cleared with the loss of the camera, and set again when it is back."""
    source = FakeSource(noisy, rate=200, patience=5.0)
    cell = make_cell(unchecked, [source], keeper)
    with running(cell.line):
        cell.program.run_part()
        cell.program.wait(lambda outputs: outputs.ready)
        source.inject(FakeFault("lost", seconds=0.3))
        cell.program.wait(lambda outputs: not outputs.ready)
        cell.program.run_part()
    assert "lost" in "".join(keeper.reasons)


def test_the_recipe_comes_with_the_trigger(calibrated: Path, keeper: Any, running: Any) -> None:
    """By name or by number; an unknown one makes the part a fault, and never one that another model judged."""
    models = Models({"left": calibrated, "right": calibrated}, "left", Inspector)
    cell = make_cell(models, [Pictures(lambda _: flat(GOOD))], keeper, recipes=["left", "right"])
    with running(cell.line):
        given = (None, "right", "1", "2", "3", "middle")
        assert [cell.program.run_part(str(recipe), recipe).verdict for recipe in given] == [1, 1, 1, 1, 4, 4]
    assert [v.part for v in keeper.verdicts if v.verdict == "fault"] == ["3", "middle"]
    assert "no recipe 'middle'" in keeper.reasons[1]


def test_shift_and_reset_reach_the_line(unchecked: Models, keeper: Any, running: Any) -> None:
    """The shift is in the status, and a reset clears the alarm and the error."""
    rule = AlarmRule(count=2, of=5, clear=1)
    cell = make_cell(unchecked, [Pictures(lambda _: flat(BAD))], keeper, alarm=rule)
    with running(cell.line):
        cell.program.set(shift="late")
        for _ in range(2):
            cell.program.run_part()
        assert cell.line.status().alarm is not None
        cell.program.set(reset=True)
        wait_until(lambda: cell.line.status().alarm is None)
        cell.program.set(reset=False)
        signals = cell.line.status().signals
        assert signals is not None
        assert (signals.shift, signals.parts) == ("late", 2)


def test_the_coil_is_set_for_each_bad_part_at_the_gate(unchecked: Models, keeper: Any, running: Any) -> None:
    """With the gate three parts behind the camera, the coil at part k is that of part k - 3, faults included."""
    kinds = [int(value) for value in np.random.default_rng(1).integers(0, 4, 40)]
    frames = {0: flat(GOOD), 1: flat(BAD), 2: ImageError("damaged"), 3: flat(GOOD)}
    cell = make_cell(unchecked, [Pictures(lambda number: frames[kinds[number]])], keeper, ejector=EjectorRule(parts=3))
    with running(cell.line):
        coils = [cell.program.run_part().reject for _ in kinds]
    assert coils == [False] * 3 + [kind in (1, 2) for kind in kinds[:-3]]


def test_a_part_at_the_gate_before_its_verdict_is_rejected_and_a_fault(
    unchecked: Models, keeper: Any, running: Any
) -> None:
    """The gate cannot wait: the part is rejected, the PLC gets a fault, and so does the record."""

    def draw(number: int) -> np.ndarray:
        time.sleep(0.4)
        return flat(GOOD)

    cell = make_cell(unchecked, [Pictures(draw)], keeper, ejector=EjectorRule(seconds=0.1, pulse=0.1))
    with running(cell.line):
        assert cell.program.run_part().verdict == 4
        wait_until(lambda: len(keeper.verdicts) == 1)
    assert any(outputs.reject for outputs in cell.plc.written)
    assert keeper.verdicts[0].reason == "the part was at the gate before its verdict came"


@pytest.mark.slow
def test_the_coil_by_time_is_served_after_the_last_part(unchecked: Models, keeper: Any) -> None:
    """A line that ends lets no bad part pass that is on its way to the gate."""
    cell = make_cell(
        unchecked, [Pictures(lambda _: flat(BAD), count=1)], keeper, ejector=EjectorRule(seconds=0.5, pulse=0.05)
    )
    thread = threading.Thread(target=cell.line.run)
    thread.start()
    assert cell.program.run_part().verdict == 2
    cell.program.wait(lambda outputs: outputs.ready)
    cell.plc.set(Inputs(trigger=True))  # no more images: the line ends
    thread.join(10.0)
    assert not thread.is_alive()
    assert any(outputs.reject for outputs in cell.plc.written)
    assert not cell.plc.outputs.reject


def test_a_broken_connection_is_a_fault_and_the_line_goes_on(unchecked: Models, keeper: Any, running: Any) -> None:
    """The part under way is a fault; afterwards the PLC finds it as one, and the next part is judged."""

    broken = threading.Event()

    def draw(number: int) -> np.ndarray:
        if number == 1:
            broken.wait(10.0)
        return flat(GOOD)

    cell = make_cell(unchecked, [Pictures(draw)], keeper)
    with running(cell.line):
        assert cell.program.run_part("a").verdict == 1
        cell.program.wait(lambda outputs: outputs.ready)
        cell.program.set(trigger=True, part="b")
        cell.program.wait(lambda outputs: outputs.busy)
        cell.plc.broken = True
        wait_until(lambda: cell.line.status().alarm == "plc is away")
        broken.set()
        wait_until(lambda: len(keeper.verdicts) == 2)
        cell.plc.broken = False
        result = cell.program.wait(lambda outputs: outputs.valid)
        assert (result.verdict, result.error, result.part) == (4, 5, "b")
        cell.program.set(ack=True)
        cell.program.wait(lambda outputs: not outputs.valid)
        cell.program.set(trigger=False, ack=False)
        assert cell.program.run_part("c").verdict == 1
        assert cell.line.status().reconnects == 0
    assert keeper.seen == ["ok", "fault", "ok"]
    assert "connection to the PLC broke" in keeper.reasons[0]


def test_the_last_result_is_delivered_when_the_source_ends(unchecked: Models, keeper: Any, noisy: Draw) -> None:
    """The line waits for the acknowledgement of its last part, then clears every output."""
    cell = make_cell(unchecked, [Pictures(noisy, count=2)], keeper)
    thread = threading.Thread(target=cell.line.run)
    thread.start()
    for _ in range(2):
        assert cell.program.run_part().verdict in (1, 2)
    assert cell.program.run_part().verdict == 4, "there is no image for the third part"
    thread.join(10.0)
    assert not thread.is_alive()
    assert (cell.plc.outputs.ready, cell.plc.outputs.valid, cell.plc.outputs.busy) == (False, False, False)


def test_cameras_end_together(unchecked: Models, keeper: Any, noisy: Draw) -> None:
    """If one of two folders has no more images, the part is a fault, and the line ends."""
    cell = make_cell(unchecked, [Pictures(noisy), Pictures(noisy, count=1)], keeper)
    thread = threading.Thread(target=cell.line.run)
    thread.start()
    assert cell.program.run_part().verdict in (1, 2)
    assert cell.program.run_part().verdict == 4
    thread.join(10.0)
    assert not thread.is_alive()


def test_bad_parts_before_the_gate_are_told_at_the_end(
    unchecked: Models, keeper: Any, running: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With a distance in parts the belt no longer counts, so the log has the number of bad parts on it."""
    cell = make_cell(unchecked, [Pictures(lambda _: flat(BAD))], keeper, ejector=EjectorRule(parts=5))
    with running(cell.line):
        for _ in range(3):
            cell.program.run_part()
    assert "3 parts before the gate would be rejected; remove them" in caplog.text


@pytest.mark.parametrize("recipe", [None, "x"])
def test_a_trigger_while_the_line_stops_gets_no_ok(
    unchecked: Models, keeper: Any, noisy: Draw, recipe: str | None
) -> None:
    """After stop, ready is cleared, and a trigger gets no result that is ok."""
    cell = make_cell(unchecked, [Pictures(noisy)], keeper)
    thread = threading.Thread(target=cell.line.run)
    thread.start()
    cell.program.wait(lambda outputs: outputs.ready)
    cell.line.stop()
    cell.program.set(trigger=True, recipe=recipe)
    thread.join(10.0)
    assert not any(outputs.valid and outputs.verdict == 1 for outputs in cell.plc.written)
    assert not cell.plc.outputs.ready


@pytest.fixture
def crops(tmp_path: Path) -> Models:
    """Return a model that judges crops of 32x32 pixels."""
    limits = SourceLimits((1,), (32, 32), (32, 32))
    path = write_model(tmp_path / "crops.onnx", threshold=Threshold(score=0.05, map=0.1), source=limits)
    return Models({None: path}, None, Inspector)


def tray(*greys: int | None) -> np.ndarray:
    """Draw a frame with a disc of a grey at each place, None for no disc."""
    frame = np.full((60, 50 * len(greys)), GOOD, np.uint8)
    for place, grey in enumerate(greys):
        if grey is not None:
            cv2.circle(frame, (25 + 50 * place, 30), 12, (grey,), -1)
    return frame


def test_presence_finds_the_part_of_each_triggered_frame(crops: Models, keeper: Any, running: Any) -> None:
    """The trigger says when a part is in view, presence where it is; without one part in view it is a fault."""
    frames: list[Any] = [tray(160, None), tray(None, 255), tray(None, None), tray(160, 160), ImageError("damaged")]
    cell = make_cell(crops, [Pictures(frames.__getitem__)], keeper, presence=PresenceSettings(parts=1))
    with running(cell.line):
        results = [cell.program.run_part(name) for name in "abcde"]
    assert [(one.part, one.verdict) for one in results] == [("a", 1), ("b", 2), ("c", 4), ("d", 4), ("e", 4)]
    told = [(one.part, one.verdict) for one in keeper.verdicts]
    assert told == [("a", "ok"), ("b", "ng"), ("c", "fault"), ("d", "fault"), ("e", "fault")]
    missing, many, _ = keeper.reasons
    assert missing == "only 0 of 1 parts are in the frame"
    assert many == "2 parts are in the frame, and 1 is expected"
    status = cell.line.status()
    assert (status.captured, status.empty) == (5, 0)
    assert status.judged + status.faulted == 5


def test_the_plc_gets_the_worst_part_of_a_tray(crops: Models, keeper: Any, running: Any) -> None:
    """One trigger takes one frame with three parts; each has its own verdict, and the PLC gets the worst of them."""
    frames = [tray(160, 160, 160), tray(160, 255, 160), tray(160, None, 160), tray(160, None, 255)]
    cell = make_cell(crops, [Pictures(frames.__getitem__)], keeper, presence=PresenceSettings(parts=3))
    with running(cell.line):
        results = [cell.program.run_part(name) for name in ("a", "b", "", "d")]
    assert [one.verdict for one in results] == [1, 2, 4, 2]
    assert [one.part for one in keeper.verdicts][:6] == ["a.1", "a.2", "a.3", "b.1", "b.2", "b.3"]
    assert [one.part for one in keeper.verdicts][6:9] == ["3.1", "3.2", "3.3"]
    assert [one.verdict for one in keeper.verdicts][3:] == [
        *("ok", "ng", "ok"),
        *("ok", "ok", "fault"),
        *("ok", "ng", "fault"),
    ]
    signals = cell.line.status().signals
    assert signals is not None
    assert (signals.parts, signals.failed) == (4, 0)
