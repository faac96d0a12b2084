from __future__ import annotations

import dataclasses
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, ImageError, ModelFileError, OutputError, SourceError
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.line import AlarmRule, Health, Line, Models, Timing, Voting
from onspect.runtime.model.schema import Threshold
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.fake import FakeFault, FakeSource
from onspect.runtime.sources.reopen import Device, LiveSource
from onspect.runtime.status import LineStatus

Draw = Callable[[int], np.ndarray]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so, for four seconds at most."""
    for _ in range(800):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not become so")


def accounts(status: LineStatus) -> bool:
    """Return whether every captured frame of an ended line is accounted for."""
    return status.captured == status.judged + status.dropped + status.faulted and status.waiting == 0


QUICK = Timing(tick=0.02, report=0.05)
"""Looks after sources, models and sinks all the time."""

FAULTS = {
    5: FakeFault("black"),
    10: FakeFault("white"),
    15: FakeFault("frozen", frames=2),
    20: FakeFault("corrupt"),
    25: FakeFault("lost", seconds=0.01),
}


def test_every_frame_is_accounted_for_and_no_spoilt_one_is_ok(models: Models, keeper: Any, noisy: Draw) -> None:
    """A camera with faults gives a verdict for every frame; the spoilt ones are faults with their reasons."""
    source = FakeSource(noisy, count=40, rate=0, faults=FAULTS)
    status = Line(models, [source], [keeper], policies=["wait"]).run()
    assert accounts(status)
    assert (status.captured, status.ok, status.fault) == (41, 35, 6)
    assert [v.index for v in keeper.verdicts if v.verdict == "fault"] == [5, 10, 15, 16, 20, 25]
    for word, reason in zip(
        ["black", "saturated", "does not change", "2 frames", "damaged", "lost"], keeper.reasons, strict=True
    ):
        assert word in reason
    assert status.reconnects == 1
    assert not status.running


def test_live_view_drops_and_counts(models: Models, keeper: Any, noisy: Draw) -> None:
    """Under the policy latest, frames that come too fast are dropped, and counted."""
    source = FakeSource(noisy, count=500, rate=0)
    status = Line(models, [source], [keeper], policies=["latest"]).run()
    assert accounts(status)
    assert status.captured == 500
    assert status.dropped > 0
    assert len(keeper.verdicts) == status.judged


def test_triggered_parts_beyond_what_may_wait_are_faults(models: Models, keeper: Any, noisy: Draw) -> None:
    """Under the policy every, each frame gets a verdict, and those that found no room are faults."""
    status = Line(models, [FakeSource(noisy, count=500, rate=0)], [keeper], policies=["every"]).run()
    assert accounts(status)
    assert (status.captured, status.dropped, len(keeper.verdicts)) == (500, 0, 500)
    assert status.faulted > 0
    assert "16 frames were already waiting" in keeper.reasons[0]


def test_a_hung_read_is_a_fault_and_the_camera_is_opened_again(models: Models, keeper: Any, noisy: Draw) -> None:
    """If a read does not return, a fault says so and the frames after it are judged."""
    source = FakeSource(noisy, count=6, rate=0, faults={3: FakeFault("hang")}, patience=0.2)
    status = Line(models, [source], [keeper], policies=["every"]).run()
    assert keeper.seen == ["ok"] * 3 + ["fault"] + ["ok"] * 3
    assert "nothing came for 0." in keeper.reasons[0]
    assert accounts(status)


def test_a_camera_that_is_away_for_long_is_one_fault(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """However long a camera is away, it is tried again and again, and its absence is reported once."""
    source = FakeSource(noisy, faults={0: FakeFault("lost")}, patience=0.1)
    with running(Line(models, [source], [keeper])):
        time.sleep(0.5)  # ten tries and more
    assert len(keeper.reasons) == 1


def test_opening_that_hangs_is_noticed(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """If a camera cannot even be opened, because the driver hangs, a fault says so and the line tries again."""
    free = threading.Event()
    tries = []

    def hang() -> Device:
        tries.append(1)
        free.wait()
        raise SourceError("free again")

    source = LiveSource("stuck", hang, patience=0.1, retry=Retry(first=0.01, longest=0.05))
    with running(Line(models, [source], [keeper])):
        wait_for(lambda: len(tries) > 1)
        free.set()
    assert "nothing came" in keeper.reasons[0]


def test_a_picture_that_stands_still_is_opened_again(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """A camera that sends one picture for longer than its patience is opened again, and that picture is never ok."""
    source = FakeSource(noisy, rate=100, faults={3: FakeFault("frozen", frames=10**9)}, patience=0.3)
    with running(Line(models, [source], [keeper])):
        wait_for(lambda: sum("did not change" in reason for reason in keeper.reasons) > 1)
    assert "ok" not in keeper.seen[4:]


def test_two_cameras_are_judged_in_turns(models: Models, keeper: Any, noisy: Draw) -> None:
    """Frames of two sources both get verdicts, each with its name."""
    sources = [FakeSource(noisy, count=20, rate=0, name=name) for name in ("left", "right")]
    status = Line(models, sources, [keeper], policies=["wait", "wait"]).run()
    assert sorted(verdict.source for verdict in keeper.verdicts) == ["left"] * 20 + ["right"] * 20
    assert accounts(status)


def test_stopping_judges_what_was_captured(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """A line that is stopped gives every frame captured until then its verdict."""
    line = Line(models, [FakeSource(noisy, rate=0)], [keeper], policies=["wait"])
    with running(line):
        wait_for(lambda: len(keeper.verdicts) > 20)
    assert accounts(line.status())
    assert len(keeper.verdicts) == line.status().captured


def test_counts_add_up_at_every_moment(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """While the line runs, captured frames are those judged, dropped, faulted and waiting."""
    line = Line(models, [FakeSource(noisy, rate=0)], [keeper], policies=["latest"])
    with running(line):
        for _ in range(200):
            status = line.status()
            assert status.captured == status.judged + status.dropped + status.faulted + status.waiting
            time.sleep(0.001)


def test_a_changed_model_file_is_taken_up(
    calibrated: Path, write_tiny_model: Callable[..., Path], models: Models, keeper: Any, noisy: Draw, running: Any
) -> None:
    """A new model file judges from then on, and a bad one leaves it running, with a message that says so."""
    line = Line(models, [FakeSource(noisy, rate=200)], [keeper], timing=QUICK)
    with running(line):
        wait_for(lambda: "ok" in keeper.seen)
        write_tiny_model(calibrated, gain=1e6, threshold=Threshold(0.0062, 0.0062))
        wait_for(lambda: "ng" in keeper.seen)
        assert line.status().swaps == 1
        swapped = line.status().model
        calibrated.write_bytes(calibrated.read_bytes()[:-10])
        wait_for(lambda: "continuing" in line.status().message)
        with pytest.raises(ModelFileError, match="truncated"):
            line.swap(calibrated)
        assert line.status().model == swapped
    assert "fault" not in keeper.seen


def test_reload_reads_a_file_again(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """A reload reads the model file, although it has not changed."""
    line = Line(models, [FakeSource(noisy, rate=200)], [keeper], timing=QUICK)
    with running(line):
        loads = models.loads
        line.reload()
        wait_for(lambda: models.loads == loads + 1)
        wait_for(lambda: "read again as asked: 1 of 1 model files, 0 with other content" in line.status().message)


def test_a_model_with_other_channels_is_not_taken_up(
    calibrated: Path, write_tiny_model: Callable[..., Path], models: Models
) -> None:
    """A model of colour images in the place of one of grey ones is refused, and the old one continues."""
    before = models.current.inspector.label
    write_tiny_model(calibrated, channels=3, threshold=Threshold(0.0062, 0.0062))
    models.watch()
    with pytest.raises(ModelFileError, match="colour images, and the line runs with grey"):
        models.swap(calibrated)
    models.apply()
    assert models.current.inspector.label == before
    assert f"continuing with {before}" in models.message


def test_recipes_are_chosen_by_command_and_by_part(
    tmp_path: Path, write_tiny_model: Callable[..., Path], keeper: Any, noisy: Draw
) -> None:
    """A recipe judges if the capture or the command names it; an unknown one is a fault and a refused command."""
    strict = write_tiny_model(tmp_path / "strict.onnx", threshold=Threshold(1e-9, 1e-9))
    loose = write_tiny_model(tmp_path / "loose.onnx", threshold=Threshold(1.0, 1.0))
    models = Models({"strict": strict, "loose": loose}, "loose", Inspector, None)

    class Parts(FakeSource):
        def __iter__(self):
            for number, capture in enumerate(super().__iter__()):
                yield dataclasses.replace(capture, recipe=["strict", None, "none such"][number % 3])

    line = Line(models, [Parts(noisy, count=6, rate=0)], [keeper], policies=["wait"])
    with pytest.raises(ChoiceError, match="'strict', 'loose'"):
        line.recipe("none such")
    line.run()
    assert keeper.seen == ["ng", "ok", "fault"] * 2
    models.choose("strict")
    models.apply()
    assert models.current.inspector.path == strict


def test_a_moved_threshold_is_finite_and_above_the_review_band(
    tmp_path: Path, write_tiny_model: Callable[..., Path]
) -> None:
    """A threshold that no model can have is refused, and the old one stays."""
    path = write_tiny_model(tmp_path / "a.onnx", threshold=Threshold(0.5, 0.5, review=0.4))
    models = Models({None: path}, None, Inspector, None)
    for score in (float("nan"), 0.3):
        with pytest.raises(ChoiceError, match="threshold"):
            models.set_threshold(score)
    models.apply()
    assert models.current.inspector.threshold.score == 0.5


def test_a_late_frame_is_a_fault(calibrated: Path, keeper: Any, noisy: Draw) -> None:
    """A frame whose verdict would come too late to act on is a fault."""

    class Late(FakeSource):
        def __iter__(self):
            for capture in super().__iter__():
                yield dataclasses.replace(capture, captured=time.perf_counter() - 1.0)

    models = Models({None: calibrated}, None, Inspector, Health(late_ms=500))
    line = Line(models, [Late(noisy, count=3, rate=0)], [keeper], policies=["wait"])
    assert accounts(line.run())
    assert keeper.seen == ["fault"] * 3
    assert "500 ms" in keeper.reasons[0]


def test_a_model_that_fails_gives_faults(models: Models, keeper: Any, noisy: Draw, monkeypatch: Any) -> None:
    """If the model itself fails on a frame, that is a fault and the line continues."""
    runs = iter(range(100))
    infer = Inspector.infer

    def fail_once(self: Inspector, batch: np.ndarray) -> Any:
        if next(runs) == 1:
            raise RuntimeError("out of memory")
        return infer(self, batch)

    monkeypatch.setattr(Inspector, "infer", fail_once)
    Line(models, [FakeSource(noisy, count=3, rate=0)], [keeper], policies=["wait"]).run()
    assert keeper.seen == ["ok", "fault", "ok"]
    assert "out of memory" in keeper.reasons[0]


def test_a_verdict_is_made_once(models: Models, keeper: Any, noisy: Draw, monkeypatch: Any) -> None:
    """A frame that is a part has one verdict, made with all that it says, also where it is a fault."""
    made: list[Verdict] = []
    init = Verdict.__init__

    def note(self: Verdict, *arguments: Any, **facts: Any) -> None:
        init(self, *arguments, **facts)
        made.append(self)

    monkeypatch.setattr(Verdict, "__init__", note)
    sources = [FakeSource(noisy, count=6, rate=0, faults={2: FakeFault("black")}, name=name) for name in ("a", "b")]
    Line(models, sources, [keeper], policies=["wait", "wait"]).run()
    assert len(made) == 12
    assert all(one is kept for one, kept in zip(made, keeper.verdicts, strict=True))
    assert [verdict.index for verdict in keeper.verdicts] == list(range(12))
    assert keeper.seen.count("fault") == 2


def test_a_failing_camera_driver_does_not_end_the_line(models: Models, keeper: Any, noisy: Draw) -> None:
    """Any error of a live source becomes a fault, and the source is opened again."""

    class Fragile(FakeSource):
        tries = 0

        def __iter__(self):
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("segment fault in the driver, nearly")
            yield from super().__iter__()

    Line(models, [Fragile(noisy, count=2, rate=0)], [keeper], policies=["wait"]).run()
    assert keeper.seen == ["fault", "ok", "ok"]
    assert "nearly" in keeper.reasons[0]


def test_part_ids_group_frames(unchecked: Models, keeper: Any) -> None:
    """Frames with one part id get one verdict, the worst, with the part's id."""
    frames = [128, 128, 250, 128]
    source = FakeSource(
        lambda number: np.full((16, 16), frames[number], np.uint8),
        count=4,
        rate=0,
        part=lambda number: f"p{number // 2}",
    )
    status = Line(unchecked, [source], [keeper], policies=["wait"]).run()
    assert [(verdict.part, verdict.verdict) for verdict in keeper.verdicts] == [("p0", "ok"), ("p1", "ng")]
    assert (status.judged, status.ok, status.ng) == (4, 1, 1)


def test_a_live_part_does_not_wait_for_ever(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """A part whose last frames do not come is a fault once its time is over."""
    source = FakeSource(noisy, rate=0, faults={5: FakeFault("gap")}, patience=None)
    line = Line(models, [source], [keeper], policies=["every"], voting=Voting(frames=3, timeout=0.05))
    with running(line):
        wait_for(lambda: len(keeper.verdicts) == 2)
    assert keeper.seen == ["ok", "fault"]
    assert "only 2 of the part's 3 frames" in keeper.reasons[0]


def test_parts_of_several_frames_refuse_a_policy_that_drops(models: Models, noisy: Draw) -> None:
    """Voting is refused if frames may be dropped."""
    with pytest.raises(ChoiceError, match="'every'"):
        Line(models, [FakeSource(noisy)], [], policies=["latest"], voting=Voting(frames=3))


def test_an_alarm_is_raised_and_cleared(unchecked: Models, keeper: Any, running: Any) -> None:
    """Bad parts raise the alarm in the status, and good ones clear it."""
    brightness = [250]

    def draw(number: int) -> np.ndarray:
        return np.full((16, 16), brightness[0], np.uint8)

    line = Line(unchecked, [FakeSource(draw, rate=200)], [keeper], alarm=AlarmRule(3, 5, 1))
    with running(line):
        wait_for(lambda: "of the last" in (line.status().alarm or ""))
        brightness[0] = 128
        wait_for(lambda: line.status().alarm is None)


def test_a_source_that_is_away_raises_an_alarm(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """While a camera is lost, the alarm names it."""
    line = Line(models, [FakeSource(noisy, faults={0: FakeFault("lost")}, name="left")], [keeper])
    with running(line):
        wait_for(lambda: line.status().alarm == "left is away")
    assert line.status().alarm is None


def test_status_is_reported_to_sinks(models: Models, keeper: Any, noisy: Draw) -> None:
    """A sink that takes reports has the last one, with every frame counted, when the line has ended."""
    Line(models, [FakeSource(noisy, count=3, rate=0)], [keeper], policies=["wait"]).run()
    last = keeper.reports[-1]
    assert (last.captured, last.judged, last.running) == (3, 3, False)
    assert last.latency.count == 3
    assert 0 < last.latency.p50 <= last.latency.p99 <= last.latency.worst
    json.dumps(last.to_dict())


def test_a_sink_that_fails_ends_a_run_over_files(models: Models, noisy: Draw) -> None:
    """A sink without a queue that cannot take a verdict ends the line with its error, and leaves no thread."""

    class Full(Sink):
        def __enter__(self):
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def write(self, inspection: object) -> None:
            raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="disk is full"):
        Line(models, [FakeSource(noisy, rate=0)], [Full()], policies=["wait"]).run()


def test_a_line_that_is_stopped_leaves_a_hung_read_behind(
    models: Models, keeper: Any, noisy: Draw, running: Any
) -> None:
    """A read that does not return does not delay the end of a stopped line."""
    free = threading.Event()

    class Stuck(FakeSource):
        def __iter__(self):
            yield Capture("x", noisy(0))
            free.wait()

    line = Line(models, [Stuck(noisy)], [keeper], policies=["every"], timing=Timing(farewell=0.2))
    with running(line):
        wait_for(lambda: keeper.seen)
    assert accounts(line.status())
    free.set()


def test_a_sink_that_fails_frees_a_source_that_waits(unchecked: Models, noisy: Draw) -> None:
    """If the line ends with an error, a source that waited for room ends too, and its frames are counted."""

    class FullAfterAWhile(Sink):
        def __enter__(self):
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def write(self, inspection: Inspection) -> None:
            time.sleep(0.2)  # the source fills the hand-over meanwhile
            raise OutputError("the disk is full")

    line = Line(unchecked, [FakeSource(noisy, rate=0)], [FullAfterAWhile()], policies=["wait"])
    with pytest.raises(OutputError):
        line.run()
    assert line.status().dropped >= 16
    assert accounts(line.status())


def test_a_failing_report_does_not_end_the_watch(models: Models, keeper: Any, noisy: Draw, running: Any) -> None:
    """Sources that hang are noticed although a sink's report raises an error."""

    def fail(status: LineStatus) -> None:
        raise RuntimeError("a sink's mistake")

    keeper.report = fail
    source = FakeSource(noisy, rate=100, faults={20: FakeFault("hang")}, patience=0.3)
    with running(Line(models, [source], [keeper], policies=["every"], timing=QUICK)):
        wait_for(lambda: any("nothing came" in reason for reason in keeper.reasons))


def test_a_capture_with_an_error_keeps_its_reason(models: Models, keeper: Any) -> None:
    """An ImageError in a frame's place is a fault with its words."""

    class Broken(FakeSource):
        def __iter__(self):
            yield Capture("x", ImageError("half a picture"))

    Line(models, [Broken(lambda _: None)], [keeper], policies=["wait"]).run()
    assert (keeper.seen, keeper.reasons) == (["fault"], ["half a picture"])


def test_no_thread_is_made_for_a_frame(models: Models, keeper: Any, noisy: Draw) -> None:
    """A line of many frames starts a handful of threads."""
    started = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    threading.Thread.start = note  # type: ignore[method-assign]
    try:
        Line(models, [FakeSource(noisy, count=300, rate=0)], [keeper], policies=["wait"]).run()
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
    assert sorted(started) == ["onspect-frame-check_0", "onspect-keeper", "onspect-source-0"]


@pytest.mark.slow
def test_frames_that_are_faults_are_let_go(models: Models, keeper: Any, noisy: Draw) -> None:
    """A fault keeps no frame alive until Python looks for circles, at one megabyte a frame."""
    frames: list[weakref.ref[Any]] = []

    def draw(number: int) -> Any:
        frame = noisy(0) if number < 20 else np.zeros((8, 8, 4), np.uint8)  # it stops, then it has four channels
        frames.append(weakref.ref(frame))
        return frame

    gc.collect()
    gc.disable()
    try:
        Line(models, [FakeSource(draw, count=40, rate=0)], [keeper], policies=["wait"]).run()
        alive = sum(frame() is not None for frame in frames)
    finally:
        gc.enable()
    assert keeper.seen.count("fault") == 39
    assert alive <= 3
