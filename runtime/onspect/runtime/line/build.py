"""A line from its configuration: everything that it names is opened, or refused with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line.config import DashboardConfig, LineConfig
from onspect.runtime.line.frame_check import Health
from onspect.runtime.line.frame_queue import Policy, default_policy
from onspect.runtime.line.loop import Line
from onspect.runtime.line.models import Models
from onspect.runtime.line.triggered import TriggeredSource
from onspect.runtime.line.voting import Voting
from onspect.runtime.presence.gate import check_presence
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.signals.registry import open_signal
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.delivery.commit_barrier import CommitBarrier
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.registry import show_sink
from onspect.runtime.sources.base import Source

if TYPE_CHECKING:
    from onspect.runtime.dashboard import Dashboard

_PART_TIMEOUT = 2.0  # seconds for which a live part waits for its next frame, unless the configuration says otherwise


def open_models(config: LineConfig, health: Health | None) -> Models:
    """Load the models of a configuration; raises ModelFileError where one cannot be used."""
    paths: dict[str | None, Path] = dict(config.recipes.items())
    if not paths:
        paths[None] = config.model
    return Models(paths, config.recipe, lambda path: Inspector(path, provider=config.provider), health)


def choose_health(config: LineConfig, sources: Sequence[Source]) -> Health | None:
    """Return the checks of frames: as configured, else none for files that somebody chose, and all for cameras."""
    return config.health or (Health() if any(source.live for source in sources) else None)


def queue_sinks(named: Sequence[tuple[str, Sink]], spool: Path, *, live: bool) -> list[Sink]:
    """Put a queue before each sink, so that none holds up the line.

    Before the end of files, the records are kept by the line itself: where one cannot be written, the run ends there,
    with everything judged until then on record. They stand first, so that nothing is told that is not on record.
    """
    barrier = CommitBarrier()
    named = sorted(named, key=lambda one: one[1].delivery != "record")
    return [
        sink
        if not live and sink.delivery == "record"
        else QueuedSink(sink, name, _folder_for(name, spool), patience=0.0 if live else math.inf, barrier=barrier)
        for name, sink in named
    ]


def list_inputs(config: LineConfig) -> list[Path]:
    """Return the files that a line reads, which none of its sinks may write."""
    return [config.model, *config.recipes.values(), *(Path(one.address).absolute() for one in config.sources)]


def open_dashboard(config: DashboardConfig | None, sinks: Sequence[Sink]) -> list[Dashboard]:
    """Return the dashboard that is asked for, with the history and the evidence that the line's own sinks keep.

    Raises ChoiceError where its address is none, or would show the line to others without a token.
    """
    if config is None:
        return []
    from onspect.runtime.dashboard import Dashboard

    history = next((sink.history for sink in sinks if sink.history), None)
    evidence = next((sink.evidence for sink in sinks if sink.evidence), None)
    return [Dashboard(config.listen, token=config.token, history=history, evidence=evidence)]


def choose_voting(config: LineConfig, sources: Sequence[Source]) -> Voting:
    """Return how frames become parts: as configured, and a live part does not wait for ever."""
    if config.voting.timeout is None and any(source.live for source in sources):
        return dataclasses.replace(config.voting, timeout=_PART_TIMEOUT)
    return config.voting


def choose_policies(config: LineConfig, sources: Sequence[Source]) -> list[Policy]:
    """Return each source's policy: as configured, else the one that fits it."""
    followed = config.presence is not None and config.presence.parts is None
    given = zip(config.sources, sources, strict=True)
    return [one.policy or default_policy(source, presence=followed) for one, source in given]


def build_line(config: LineConfig, models: Models, sources: Sequence[Source], sinks: Sequence[Sink]) -> Line:
    """Put a line together; raises ChoiceError where policies and voting do not go together."""
    voting = choose_voting(config, sources)
    presence = config.presence
    if presence is not None:
        check_presence(presence)
    signals = None
    if config.signal is not None:
        refuse_triggered(config)
        voting = dataclasses.replace(voting, frames=voting.frames or 1, timeout=None)  # each trigger gives all frames
        signals = SignalController(
            open_signal(config.signal.address),
            cameras=len(sources),
            times=config.signal.times,
            ejector=config.ejector,
            recipes=list(config.recipes),
        )
        frames = voting.frames or 1
        sources = [TriggeredSource(one, signals, camera, frames=frames) for camera, one in enumerate(sources)]
    return Line(
        models,
        sources,
        sinks,
        policies=choose_policies(config, sources),
        recipes=[one.recipe for one in config.sources],
        voting=voting,
        alarm=config.alarm,
        presence=presence,
        signals=signals,
    )


def refuse_triggered(config: LineConfig) -> None:
    """Raise ChoiceError if a line that a PLC triggers follows parts by itself, or has joined views."""
    if config.presence is not None and config.presence.parts is None:
        raise ChoiceError(
            "[signal] says when a part is in view, and [presence] without 'parts' decides it by itself: give parts = 1 "
            "to find the part in each triggered frame, or leave one of the two out"
        )
    if config.voting.views is not None:
        raise ChoiceError("[signal] joins the views of its cameras by itself; leave [voting] views out")


def _folder_for(name: str, spool: Path) -> Path:
    """Return a sink's folder, the same at every start and different for every sink; an earlier version's is kept."""
    readable = "".join(letter if letter.isalnum() else "-" for letter in show_sink(name))[:40]
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return next(spool.glob(f"*-{digest}"), spool / f"{readable}-{digest}")
