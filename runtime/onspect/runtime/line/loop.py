"""The line itself: sources, frame queue, frame check, model, voting, sinks."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onspect.runtime.drift.watch import DriftWatch
from onspect.runtime.errors import ChoiceError, GapError, ImageError
from onspect.runtime.inspection.inspector import Inspection, Inspector, Prepared
from onspect.runtime.inspection.verdict import FrameContext, now
from onspect.runtime.line.alarm import Alarm, AlarmRule
from onspect.runtime.line.frame_check import FrameCheck, Health
from onspect.runtime.line.frame_queue import FrameQueue, Policy, QueuedFrame, default_policy
from onspect.runtime.line.grabber import Grabber
from onspect.runtime.line.memory import give_memory_back
from onspect.runtime.line.models import Model, Models
from onspect.runtime.line.voting import Voter, Voting
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.status import Latency, LineStatus, SignalState, SourceState

_LOG = logging.getLogger("onspect")

_RECENT = 1000  # frames over which latency is told
_ALL_FAULTS = 30  # parts at the start that are all faults, of which a line warns
_MOST_REASONS = 100  # of faults that are counted apart


@dataclass(frozen=True)
class Timing:
    """How often a line looks after its parts, and how long it waits for them; all in seconds."""

    tick: float = 0.2
    """Between two looks at sources that may hang."""

    report: float = 1.0
    """Between two reports to sinks, and two looks at the model files."""

    farewell: float = 5.0
    """For which a source may take to end once the line is stopped."""


class Line:
    """Judges what its sources capture, hands each part's verdict to every sink, and says how it does.

    `run` works in the thread that calls it, until every source has ended or `stop` is called; a line runs once. All
    other methods may be called from any thread, and are those of `status.Commands`.

    models: what to judge with, or the path of one model file. policies: one for each source, by default the one that
    fits it (`default_policy`). voting: how frames become parts. recipes: each source's own, None for the active one.
    alarm: None raises one only where a source is away. timing: how often the line looks after its parts. signals: the
    PLC that triggers the sources, each of which is a `TriggeredSource`. Raises ChoiceError where policies and voting do
    not go together.
    """

    def __init__(
        self,
        models: Models | str | Path,
        sources: Sequence[Source],
        sinks: Sequence[Sink],
        *,
        policies: Sequence[Policy] | None = None,
        voting: Voting | None = None,
        alarm: AlarmRule | None = None,
        recipes: Sequence[str | None] | None = None,
        timing: Timing = Timing(),
        signals: SignalController | None = None,
    ) -> None:
        if not isinstance(models, Models):
            models = Models({None: Path(models)}, None, Inspector)
        chosen = list(policies or map(default_policy, sources))
        self._voting = voting or Voting()
        if (self._voting.frames or 1) > 1 and "latest" in chosen:
            raise ChoiceError("parts of several frames need the policy 'every': 'latest' drops some of their frames")
        self.live = any(source.live for source in sources)
        """Whether a source is a camera, so that the line has no end of its own."""
        self._timing = timing
        self._models = models
        self._sinks = list(sinks)
        self._recipes = list(recipes or [None] * len(sources))
        health = models.health or Health()
        self._late_ms = health.late_ms
        self._part_models: list[Model | None] = [None] * len(sources)
        self._frame_checks = [_make_frame_check(source, health) for source in sources]
        self._check_thread = ThreadPoolExecutor(1, "onspect-frame-check")
        self._queue = FrameQueue(chosen)
        self._grabbers = [Grabber(source, number, self._queue) for number, source in enumerate(sources)]
        self._voter = Voter(self._voting, len(sources))
        self._alarm_rule = alarm
        self._alarm = Alarm(alarm) if alarm is not None else None
        self._signals = signals
        if signals is not None:
            signals.attach(can_judge=self._cameras_are_there, on_reset=self._clear_alarm)
        self._drift = DriftWatch()
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()
        self._stop_asked = 0.0
        self._left_behind = False
        self._ended = threading.Event()
        self._reload = threading.Event()
        self._started = now()

    def run(self) -> LineStatus:
        """Judge until the sources end or `stop` is called, flush, and return the last status.

        What was captured before is judged. Raises OutputError where a sink cannot take a verdict (one in a `QueuedSink`
        never raises), and what a source that is not live raises.
        """
        keeper = threading.Thread(target=self._keep, name="onspect-keeper", daemon=True)
        try:
            with ExitStack() as stack:
                for grabber in self._grabbers:
                    stack.enter_context(grabber.source)
                for sink in self._sinks:
                    stack.enter_context(sink)
                    sink.attach(self)
                if self._signals is not None:
                    stack.enter_context(self._signals)
                for grabber in self._grabbers:
                    grabber.start()
                keeper.start()
                try:
                    self._judge_all()
                finally:
                    self._end(keeper)
        finally:
            self._ended.set()
            self._check_thread.shutdown()
        for grabber in self._grabbers:
            if grabber.error is not None:
                raise grabber.error
        return self.status()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, so that a source may not have come to its end."""
        return self._stop_asked > 0.0

    @property
    def fault_reasons(self) -> dict[str, int]:
        """How many parts were faults for each reason; of very many reasons only the first are counted."""
        with self._lock:
            return dict(self._reasons)

    def stop(self) -> None:
        """Judge what was captured, flush the sinks and end."""
        self._stop_asked = self._stop_asked or time.monotonic()
        for grabber in self._grabbers:
            grabber.stop()

    def swap(self, path: Path | str) -> None:
        """Judge with another model file from the next part on; raises ModelFileError, and goes on, for a bad one."""
        self._models.swap(path)

    def recipe(self, name: str) -> None:
        """Judge with a recipe's model from the next part on; raises ChoiceError where there is no such recipe."""
        self._models.choose(name)

    def set_threshold(self, score: float) -> None:
        """Move the running threshold from the next part on; raises ChoiceError where it cannot lie there."""
        self._models.set_threshold(score)

    def model_path(self) -> Path:
        """Return the model file that the next part is judged with."""
        return self._models.path

    def announce(self, change: Mapping[str, Any]) -> None:
        """Tell every sink of a change that a person made."""
        for sink in self._sinks:
            try:
                sink.note(change)
            except Exception:  # noqa: BLE001 - a sink's trouble is not the person's
                _LOG.warning("a sink cannot take a change", exc_info=True)

    def reload(self) -> None:
        """Read every model file again, in a thread of its own; a bad one leaves the old one running."""
        self._reload.set()

    def status(self) -> LineStatus:
        """Return how the line is at this moment."""
        with self._lock:
            verdicts, latencies = self._verdicts.copy(), list(self._latencies)
        counts, inspector = self._queue.counts, self._models.current.inspector
        sources = tuple(grabber.source.state() for grabber in self._grabbers)
        away = [source for source in sources if not source.connected and not self._ended.is_set()]
        alarm = self._alarm.reason if self._alarm is not None else None
        signals = None if self._signals is None else self._signals.state()
        lost: list[SourceState | SignalState] = [*away]
        if signals is not None and not signals.connected and not self._ended.is_set():
            lost.append(signals)
        return LineStatus(
            started=self._started,
            time=now(),
            running=not self._ended.is_set(),
            model=inspector.label,
            recipe=self._models.active,
            threshold=inspector.threshold.score,
            review_from=inspector.threshold.review,
            captured=counts.captured,
            judged=counts.judged,
            dropped=counts.dropped,
            faulted=counts.faulted,
            waiting=counts.waiting,
            ok=verdicts["ok"],
            ng=verdicts["ng"],
            review=verdicts["review"],
            fault=verdicts["fault"],
            swaps=self._models.swaps,
            sources=sources,
            sinks=tuple(sink.state() for sink in self._sinks),
            signals=signals,
            latency=_summarize(latencies),
            alarm="; ".join([*([alarm] if alarm else []), *(f"{one.name} is away" for one in lost)]) or None,
            drift=self._drift.message,
            message=self._models.message,
        )

    def _judge_all(self) -> None:
        while not self._queue.done:
            self._leave_behind_what_hangs()
            queued = self._queue.take(self._timing.tick)
            if queued is None:
                self._models.apply()
            else:
                for part in self._judge(queued):
                    self._deliver(part)
                self._tell_source(queued)
            for part in self._voter.expire(time.monotonic(), self._queue.waiting_sources()):
                self._deliver(part)
        for part in self._voter.flush():
            self._deliver(part)

    def _leave_behind_what_hangs(self) -> None:
        """After a while, end without sources that were asked to stop and hang in a read."""
        if self._stop_asked and time.monotonic() - self._stop_asked > self._timing.farewell:
            self._left_behind = True
            for source_index in range(len(self._grabbers)):
                self._queue.finish(source_index)

    def _judge(self, queued: QueuedFrame) -> Iterator[Inspection]:
        """Judge a frame; yield the part that ended before it, and the part that ends with it."""
        capture, source_index = queued.capture, queued.source_index
        gap = isinstance(capture.frame, GapError)
        yield from self._voter.begin(source_index, capture.part, gap=gap)
        if self._voter.is_between_parts(source_index):
            self._models.apply()
            self._part_models[source_index] = self._models.find(capture.recipe or self._recipes[source_index])
        model = self._part_models[source_index] or self._models.current
        inspection = self._examine(model, source_index, capture)
        if capture.ticket is not None:
            inspection = dataclasses.replace(inspection, ticket=capture.ticket)
        self._drift.update(model.inspector, inspection.verdict.score)
        self._queue.task_done(judged=inspection.verdict.verdict != "fault")
        with self._lock:
            self._latencies.append(inspection.verdict.latency_ms)
        yield from self._voter.add(source_index, inspection, gap=gap, now=time.monotonic())

    def _tell_source(self, queued: QueuedFrame) -> None:
        """Tell a source that wants to know it that a capture of its own has been judged."""
        if not isinstance(queued.capture.frame, GapError):
            self._grabbers[queued.source_index].source.task_done(queued.capture)

    def _examine(self, model: Model, source_index: int, capture: Capture) -> Inspection:
        captured = time.perf_counter() if capture.captured is None else capture.captured
        context = FrameContext(capture.source, self._voter.next_index, capture.part, captured)
        frame, inspector = capture.frame, model.inspector
        if self._part_models[source_index] is None:
            frame = ImageError(f"there is no recipe {capture.recipe!r} in the configuration")
        elif self._is_late(captured):
            frame = ImageError(f"the frame waited for longer than {self._late_ms:g} ms (late_ms)")
        try:
            prepared = inspector.prepare_frame(frame)
            check = self._start_check(
                model, source_index, prepared
            )  # as late as possible: inference frees the interpreter
            scored = inspector.infer_frames([prepared])
            if check is not None:
                prepared = dataclasses.replace(prepared, error=check.result())
            (inspection,) = inspector.judge([prepared], scored, [context], late_ms=self._late_ms)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class, and the line must go on
            _LOG.exception("the model failed")
            (inspection,) = inspector.judge([ImageError(f"the model failed: {error}")], None, [context])
        return inspection

    def _start_check(self, model: Model, source_index: int, prepared: Prepared) -> Future[ImageError | None] | None:
        """Check a frame in a second thread, while the model runs; None if there is nothing to check."""
        if model.limits is None or prepared.image is None or prepared.frame is None:
            return None
        find_fault = self._frame_checks[source_index].find_fault
        return self._check_thread.submit(find_fault, prepared.frame, model.limits, prepared.image)

    def _is_late(self, captured: float) -> bool:
        return self._late_ms is not None and (time.perf_counter() - captured) * 1000.0 > self._late_ms

    def _cameras_are_there(self) -> bool:
        return all(grabber.source.state().connected for grabber in self._grabbers)

    def _clear_alarm(self) -> None:
        """Begin to count bad parts anew; called from the thread of the signals."""
        if self._alarm_rule is not None:
            self._alarm = Alarm(self._alarm_rule)

    def _deliver(self, part: Inspection) -> None:
        if self._signals is not None:
            part = self._signals.settle(part)
        name = part.verdict.verdict
        with self._lock:
            self._verdicts[name] += 1
            reason = part.verdict.reason
            if reason and (reason in self._reasons or len(self._reasons) < _MOST_REASONS):
                self._reasons[reason] += name == "fault"
            total, faults = self._verdicts.total(), self._verdicts["fault"]
        if total == faults == _ALL_FAULTS:
            reason, count = max(self.fault_reasons.items(), key=lambda item: item[1])
            _LOG.warning("none of the first %d parts could be judged; %d of them: %r", total, count, reason)
        if self._alarm is not None:
            self._alarm.add(name)
        for sink in self._sinks:
            sink.write(part)

    def _keep(self) -> None:
        """Look after sources that hang, model files that change and sinks that want to know how the line is."""
        due, loads, leftovers = 0.0, self._models.loads, False
        while not self._ended.wait(self._timing.tick):
            try:
                self._watch_sources()
                if time.monotonic() < due and not self._reload.is_set():
                    continue
                due = time.monotonic() + self._timing.report
                if leftovers or loads != self._models.loads:
                    give_memory_back()
                leftovers = loads != self._models.loads  # the model before may be in use still, and be free next time
                loads = self._models.loads
                self._models.watch(always=self._reload.is_set())
                self._reload.clear()
                self._report()
            except Exception:  # noqa: BLE001 - without it nobody would notice a source that hangs
                _LOG.exception("the line's keeper failed, and goes on")

    def _watch_sources(self) -> None:
        for grabber, frame_check in zip(self._grabbers, self._frame_checks, strict=True):
            grabber.check()
            patience = grabber.source.patience
            if patience is not None and frame_check.frozen_for > patience:
                frame_check.wait_anew()
                grabber.restart(
                    f"{grabber.source.state().name}: its picture stood still for {patience:g} s, so it is opened again"
                )

    def _report(self) -> None:
        status = self.status()
        for sink in self._sinks:
            try:
                sink.report(status)
            except Exception:  # noqa: BLE001 - a sink's trouble is not the line's
                _LOG.warning("a sink cannot take the line's status", exc_info=True)

    def _end(self, keeper: threading.Thread) -> None:
        self._queue.close()
        for grabber in self._grabbers:
            grabber.stop()
            if not grabber.join(0.1 if self._left_behind else self._timing.farewell):
                _LOG.warning("%s hangs in a read and is left behind", grabber.source.state().name)
        self._ended.set()
        keeper.join()
        self._report()


def _make_frame_check(source: Source, health: Health) -> FrameCheck:
    return FrameCheck(
        dataclasses.replace(health, identical=0) if source.can_wait else health
    )  # two files may well be equal


def _summarize(latencies: list[float]) -> Latency:
    if not latencies:
        return Latency()
    p50, p95, p99, worst = (float(value) for value in np.percentile(latencies, [50, 95, 99, 100]))
    return Latency(p50, p95, p99, worst, len(latencies))
