"""The line: it reads sources, checks and judges frames, joins them to parts, and writes verdicts to sinks."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onspect.runtime.drift.watch import DriftWatch
from onspect.runtime.errors import ChoiceError, GapError, ImageError
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.inspection.verdict import now
from onspect.runtime.judgement import JUDGEMENTS, WORST_FIRST
from onspect.runtime.line.alarm import Alarm, AlarmRule
from onspect.runtime.line.examiner import Examiner
from onspect.runtime.line.frame_check import Health
from onspect.runtime.line.frame_queue import FrameQueue, Policy, QueuedFrame, default_policy
from onspect.runtime.line.grabber import Grabber
from onspect.runtime.line.memory import give_memory_back
from onspect.runtime.line.models import Model, Models
from onspect.runtime.line.tally import Tally
from onspect.runtime.line.views import ViewJoiner
from onspect.runtime.line.voting import Voter, Voting, refuse_policies
from onspect.runtime.log_limit import limit_repeats
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.status import FADE_S, LineStatus, SignalState, SourceState

if TYPE_CHECKING:
    from onspect.runtime.presence.gate import PartView, PresenceGate, Step
    from onspect.runtime.presence.settings import PresenceSettings
    from onspect.runtime.signals.controller import SignalController

_LOG = logging.getLogger("onspect")

_VIEWS_WITHIN = 2.0  # seconds


@dataclass(frozen=True)
class Timing:
    """Intervals of a line, in seconds."""

    tick: float = 0.2
    """Seconds between two checks for sources that hang."""

    report: float = 1.0
    """Seconds between two reports to sinks, and between two checks of the model files."""

    farewell: float = 5.0
    """Seconds that a source has to end after the line is stopped."""

    fade: float = FADE_S
    """Seconds after which the status no longer shows the last part's verdict."""


class Line:
    """Judge the captures of the sources, write the verdict of each part to every sink, and report the status.

    `run` works in the calling thread until every source has ended or `stop` is called. A line runs once. All other
    methods may be called from any thread; they are those of `status.Commands`.

    Parameters
    ----------
    models
        The models, or the path of one model file.
    sources
        The sources.
    sinks
        The sinks, in the order in which they get each verdict.
    policies
        One policy for each source; None for the defaults (`default_policy`).
    voting
        How frames become parts; None for one part for each frame.
    alarm
        When an alarm is raised; None for lost sources only.
    recipes
        The recipe of each source, None for the active one; None if no source has its own.
    presence
        How parts are found in the frames of free-running cameras; None if each frame shows one part.
    timing
        Intervals.
    signals
        The PLC that triggers the sources; each of them is a `TriggeredSource`.

    Raises
    ------
    ChoiceError
        If policies, voting and presence do not fit together.
    ModelFileError
        If a model file cannot be used.
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
        presence: PresenceSettings | None = None,
        timing: Timing = Timing(),
        signals: SignalController | None = None,
    ) -> None:
        if not isinstance(models, Models):
            models = Models({None: Path(models)}, None, Inspector)
        followed = presence is not None and presence.parts is None
        chosen = list(policies or [default_policy(source, presence=followed) for source in sources])
        self._voting = voting or Voting()
        _check_parts(self._voting, followed=followed, presence=presence is not None, policies=chosen)
        if presence is not None or self._voting.views is not None:
            self._voting = dataclasses.replace(self._voting, frames=1)
        refuse_policies(self._voting, chosen)
        self.live = any(source.live for source in sources)
        """Whether a source is a camera, so that the line has no end of its own."""
        self._timing = timing
        self._models = models
        self._sinks = list(sinks)
        self._recipes = list(recipes or [None] * len(sources))
        self._part_models: list[Model | None] = [None] * len(sources)
        self._examiner = Examiner(sources, models.health or Health())
        self._queue = FrameQueue(chosen)
        self._grabbers = [Grabber(source, number, self._queue) for number, source in enumerate(sources)]
        self._voter = Voter(self._voting, len(sources))
        self._gates = [None if presence is None else _open_gate(presence, source) for source in sources]
        self._seen = [0] * len(sources)
        names = [source.state().name for source in sources]
        within = _VIEWS_WITHIN if self._voting.timeout is None else self._voting.timeout
        self._joiner = None if self._voting.views is None else ViewJoiner(self._voting.views, names, within)
        self._alarm_rule = alarm
        self._alarm = Alarm(alarm) if alarm is not None else None
        self._signals = signals
        if signals is not None:
            signals.attach(can_judge=self._cameras_are_there, on_reset=self._clear_alarm)
        self._drift = DriftWatch()
        self._tally = Tally(timing.fade)
        self._stop_asked = 0.0
        self._left_behind = False
        self._ended = threading.Event()
        self._reload = threading.Event()
        self._started = now()

    def run(self) -> LineStatus:
        """Judge until the sources end or `stop` is called, then flush the sinks. Everything captured before is judged.

        Returns
        -------
        LineStatus
            The last status.

        Raises
        ------
        OutputError
            If a sink cannot take a verdict; a sink in a `QueuedSink` never raises.
        OnspectError
            If a source that is not live ended early.
        """
        keeper = threading.Thread(target=self._keep, name="onspect-keeper", daemon=True)
        try:
            with ExitStack() as stack:
                stack.enter_context(limit_repeats())
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
            self._examiner.close()
        for grabber in self._grabbers:
            if grabber.error is not None:
                raise grabber.error
        return self.status()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, so that a source may not have reached its end."""
        return self._stop_asked > 0.0

    @property
    def fault_reasons(self) -> dict[str, int]:
        """Number of faults for each reason; only the first 100 reasons are counted."""
        return self._tally.reasons

    def stop(self) -> None:
        """Judge the captured frames, flush the sinks and end."""
        self._stop_asked = self._stop_asked or time.monotonic()
        for grabber in self._grabbers:
            grabber.stop()

    def swap(self, path: Path | str) -> None:
        """Judge with another model file from the next part on. If the file is bad, the old model stays.

        Parameters
        ----------
        path
            The model file.

        Raises
        ------
        ModelFileError
            If the file cannot be used.
        """
        self._models.swap(path)

    def recipe(self, name: str) -> None:
        """Judge with the model of a recipe from the next part on.

        Parameters
        ----------
        name
            Name of the recipe.

        Raises
        ------
        ChoiceError
            If there is no such recipe.
        """
        self._models.choose(name)

    def set_threshold(self, score: float) -> float:
        """Move the threshold from the next part on.

        Parameters
        ----------
        score
            The new threshold, a tenth to ten times that of the model file.

        Returns
        -------
        float
            The threshold before.

        Raises
        ------
        ChoiceError
            If the value is out of range.
        """
        return self._models.set_threshold(score)

    def model_path(self) -> Path:
        """Return the model file of the next part.

        Returns
        -------
        Path
            Path of the file.
        """
        return self._models.path

    def announce(self, change: Mapping[str, Any]) -> None:
        """Write a change that a person made to every sink.

        Parameters
        ----------
        change
            JSON object that describes the change.
        """
        self._tell_sinks(lambda sink: sink.note(change), "a change")

    def undo_threshold(self) -> tuple[float, float]:
        """Undo the last move of the threshold.

        Returns
        -------
        tuple[float, float]
            The threshold until then, and the threshold from now on.

        Raises
        ------
        ChoiceError
            If there is no move to undo.
        """
        return self._models.undo_threshold()

    def reload(self) -> None:
        """Read every model file again, in its own thread. If a file is bad, its old model stays."""
        self._reload.set()

    def status(self) -> LineStatus:
        """Return the current status of the line.

        Returns
        -------
        LineStatus
            The status.
        """
        verdicts, inspector = self._tally.verdicts, self._models.current.inspector
        sources = tuple(grabber.source.state() for grabber in self._grabbers)
        away = [source for source in sources if not source.connected and not self._ended.is_set()]
        moment = self._tally.describe_moment([source.name for source in away], ended=self._ended.is_set())
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
            **dataclasses.asdict(self._queue.counts),
            **{name: verdicts[name] for name in JUDGEMENTS},
            swaps=self._models.swaps,
            sources=sources,
            sinks=tuple(sink.state() for sink in self._sinks),
            signals=signals,
            latency=self._tally.latency,
            alarm="; ".join([*([alarm] if alarm else []), *(f"{one.name} is away" for one in lost)]) or None,
            drift=self._drift.message,
            message=self._models.message,
            moved=self._models.moved,
            now=moment.now,
            now_source=moment.source,
            now_age=moment.age,
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
            now, waiting = time.monotonic(), self._queue.waiting_sources()
            overdue = [] if self._joiner is None or not self.live else self._joiner.expire(now, waiting)
            for part in (*self._voter.expire(now, waiting), *overdue):
                self._deliver(part)
        for part in self._end_parts():
            self._deliver(part)

    def _end_parts(self) -> Iterator[Inspection]:
        """Yield the parts that are undecided when no more frames come."""
        for source_index, gate in enumerate(self._gates):
            if gate is not None:
                model = self._part_models[source_index] or self._models.current
                yield from self._judge_step(source_index, gate.flush(model.inspector.info.preprocess))
        yield from self._voter.flush()
        if self._joiner is not None:
            yield from self._joiner.flush()

    def _leave_behind_what_hangs(self) -> None:
        """End without the sources that hang in a read some time after `stop`."""
        if self._stop_asked and time.monotonic() - self._stop_asked > self._timing.farewell:
            self._left_behind = True
            for source_index in range(len(self._grabbers)):
                self._queue.finish(source_index)

    def _judge(self, queued: QueuedFrame) -> Iterator[Inspection]:
        """Judge a frame; yield the part that ended before it and the part that ends with it."""
        capture, source_index = queued.capture, queued.source_index
        gate = self._gates[source_index]
        if gate is not None:
            yield from self._judge_parts(gate, source_index, capture)
            return
        gap = isinstance(capture.frame, GapError)
        yield from self._voter.begin(source_index, capture.part, gap=gap)
        if self._voter.is_between_parts(source_index):
            self._models.apply()
            self._part_models[source_index] = self._models.find(capture.recipe or self._recipes[source_index])
        inspection = self._examine(source_index, capture)
        if capture.ticket is not None:
            inspection = dataclasses.replace(inspection, ticket=capture.ticket)
        self._queue.task_done("faulted" if inspection.verdict.verdict == "fault" else "judged")
        yield from self._add(source_index, inspection, capture, gap=gap)
        self._tell_source(source_index, capture)

    def _add(self, source_index: int, inspection: Inspection, capture: Capture, *, gap: bool) -> list[Inspection]:
        """Add a frame's inspection to its part; return the parts that it completes."""
        parts = self._voter.add(source_index, inspection, gap=gap, now=time.monotonic())
        if self._joiner is None:
            return parts
        captured = time.perf_counter() if capture.captured is None else capture.captured
        now = time.monotonic()
        return [done for part in parts for done in self._joiner.add(source_index, part, captured=captured, now=now)]

    def _judge_parts(self, gate: PresenceGate, source_index: int, capture: Capture) -> Iterator[Inspection]:
        """Judge the parts that a frame of a free-running camera decides; there may be none or several."""
        from onspect.runtime.presence.gate import hold  # most lines need none

        self._models.apply()
        recipe = capture.recipe or self._recipes[source_index]
        model = self._part_models[source_index] = self._models.find(recipe)
        known = model or self._models.current
        self._seen[source_index] += 1
        if known.limits is not None and not isinstance(capture.frame, ImageError):
            fault = self._examiner.checks[source_index].watch(capture.frame)
            if fault is not None:
                capture = dataclasses.replace(capture, frame=fault)
        held = hold(capture, self._seen[source_index], live=self._grabbers[source_index].source.live)
        yield from self._judge_step(source_index, gate.feed(held, known.inspector.info.preprocess))

    def _judge_step(self, source_index: int, step: Step) -> Iterator[Inspection]:
        """Judge the parts that presence decided, and count the frames that no part needs any more."""
        inspections: Iterable[tuple[Inspection, Capture]] = (
            (self._judge_view(source_index, view), view.held.capture) for view in step.views
        )
        if self._signals is not None:
            inspections = _give_ticket(list(inspections))
        for inspection, capture in inspections:
            yield from self._add(source_index, inspection, capture, gap=False)
        for held in step.released:
            self._queue.task_done(held.outcome)
            self._tell_source(source_index, held.capture)

    def _judge_view(self, source_index: int, view: PartView) -> Inspection:
        inspection = self._examine(source_index, dataclasses.replace(view.held.capture, part=view.part), view)
        view.held.note(judged=inspection.verdict.verdict != "fault")
        return inspection

    def _tell_source(self, source_index: int, capture: Capture) -> None:
        """Tell a source that one of its captures was judged."""
        if not isinstance(capture.frame, GapError):
            self._grabbers[source_index].source.task_done(capture)

    def _examine(self, source_index: int, capture: Capture, view: PartView | None = None) -> Inspection:
        """Judge one frame with the model of its part."""
        model, current = self._part_models[source_index], self._models.current
        inspection = self._examiner.examine(model, current, source_index, capture, self._voter.next_index, view)
        self._drift.update((model or current).inspector, inspection.verdict.score)
        self._tally.add_latency(inspection.verdict.latency_ms)
        return inspection

    def _cameras_are_there(self) -> bool:
        return all(grabber.source.state().connected for grabber in self._grabbers)

    def _clear_alarm(self) -> None:
        """Start a new count of rejected parts; called from the thread of the signals."""
        if self._alarm_rule is not None:
            self._alarm = Alarm(self._alarm_rule)

    def _deliver(self, part: Inspection) -> None:
        if self._signals is not None:
            part = self._signals.settle(part)
        self._tally.add(part.verdict)
        if self._alarm is not None:
            self._alarm.add(part.verdict.verdict)
        for sink in self._sinks:
            sink.write(part)

    def _keep(self) -> None:
        """Check for sources that hang and model files that changed, and report the status to the sinks."""
        due, loads, leftovers = 0.0, self._models.loads, False
        while not self._ended.wait(self._timing.tick):
            try:
                self._watch_sources()
                if time.monotonic() < due and not self._reload.is_set():
                    continue
                due = time.monotonic() + self._timing.report
                if leftovers or loads != self._models.loads:
                    give_memory_back()
                leftovers = loads != self._models.loads  # the old model may still be in use, and be free next time
                loads = self._models.loads
                self._models.watch(always=self._reload.is_set())
                self._reload.clear()
                self._report()
            except Exception:  # noqa: BLE001 - if this thread ended, no source that hangs would be noticed
                _LOG.exception("the line's supervisor failed, and continues")

    def _watch_sources(self) -> None:
        for grabber, frame_check in zip(self._grabbers, self._examiner.checks, strict=True):
            grabber.check()
            patience = grabber.source.patience
            if patience is not None and frame_check.frozen_for > patience:
                frame_check.wait_anew()
                grabber.restart(
                    f"{grabber.source.state().name}: its picture did not change for {patience:g} s, so it is opened "
                    f"again"
                )

    def _report(self) -> None:
        status = self.status()
        self._tell_sinks(lambda sink: sink.report(status), "the line's status")

    def _tell_sinks(self, tell: Callable[[Sink], None], what: str) -> None:
        for sink in self._sinks:
            try:
                tell(sink)
            except Exception:  # noqa: BLE001 - an error of a sink must not stop the line or fail a person's change
                _LOG.warning("a sink cannot take %s", what, exc_info=True)

    def _end(self, keeper: threading.Thread) -> None:
        self._queue.close()
        for grabber in self._grabbers:
            grabber.stop()
            if not grabber.join(0.1 if self._left_behind else self._timing.farewell):
                _LOG.warning("%s hangs in a read and is left behind", grabber.source.state().name)
        self._ended.set()
        keeper.join()
        self._report()


def _open_gate(presence: PresenceSettings, source: Source) -> PresenceGate:
    from onspect.runtime.presence.gate import PresenceGate  # most lines need none

    return PresenceGate(presence, live=source.live)


def _check_parts(voting: Voting, *, followed: bool, presence: bool, policies: Sequence[Policy]) -> None:
    """Raise ChoiceError if presence or views do not fit voting or policies."""
    if followed and "latest" in policies:
        raise ChoiceError(
            "presence follows parts from frame to frame, and the policy 'latest' drops frames; use 'every'"
        )
    if (presence or voting.views is not None) and (voting.frames or 1) > 1:
        words = "presence judges each part by one frame" if presence else "each camera gives one view of a part"
        raise ChoiceError(f"{words}, and voting asks for {voting.frames} frames; leave one of them out")
    if voting.views is not None and len(policies) < 2:
        raise ChoiceError("views are joined from several cameras, and the line has one source; give another [[source]]")


def _give_ticket(parts: list[tuple[Inspection, Capture]]) -> list[tuple[Inspection, Capture]]:
    """Give the trigger's ticket to the worst part of one triggered frame, so the PLC gets its verdict."""
    if not parts or parts[0][1].ticket is None:
        return parts
    worst = min(range(len(parts)), key=lambda place: WORST_FIRST.index(parts[place][0].verdict.verdict))
    inspection, capture = parts[worst]
    parts[worst] = dataclasses.replace(inspection, ticket=capture.ticket), capture
    return parts
