"""Build a line from its configuration: open everything that it names, or refuse it with the reason."""

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
from onspect.runtime.line.voting import Voting
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.delivery.commit_barrier import CommitBarrier
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.registry import show_sink
from onspect.runtime.sources.base import Source

if TYPE_CHECKING:
    from onspect.runtime.dashboard import Dashboard

_PART_TIMEOUT = 2.0  # seconds that a live part waits for its next frame, if the configuration gives none


def open_models(config: LineConfig, health: Health | None) -> Models:
    """Load the models of a configuration.

    Parameters
    ----------
    config
        The configuration; its `recipes`, or its `model` if there are none.
    health
        Checks of the frames; None to judge every frame that can be read.

    Returns
    -------
    Models
        The loaded models.

    Raises
    ------
    ModelFileError
        If a model file cannot be used.
    """
    paths: dict[str | None, Path] = {name: Path(path) for name, path in config.recipes.items()}
    if not paths:
        paths[None] = Path(config.model)
    return Models(paths, config.recipe, lambda path: Inspector(path, provider=config.provider), health)


def choose_health(config: LineConfig, sources: Sequence[Source]) -> Health | None:
    """Return the checks of frames: the configured ones, else all for cameras and none for files.

    Parameters
    ----------
    config
        The configuration.
    sources
        The sources of the line.

    Returns
    -------
    Health | None
        The checks; None to judge every frame that can be read.
    """
    return config.health or (Health() if any(source.live for source in sources) else None)


def queue_sinks(named: Sequence[tuple[str, Sink]], spool: str | Path, *, live: bool) -> list[Sink]:
    """Put a queue before each sink, so that no slow sink delays the line.

    The line itself writes the records of files: if one cannot be written, the run ends, and everything judged until
    then is recorded. Records come first, so that no receiver learns a verdict that is not recorded.

    Parameters
    ----------
    named
        Text and sink, one pair for each sink.
    spool
        Folder for verdicts whose receiver is away; each sink has a folder of its own in it.
    live
        Whether a source of the line has no end of its own.

    Returns
    -------
    list[Sink]
        The sinks in the order in which the line writes to them.
    """
    barrier = CommitBarrier()
    named = sorted(named, key=lambda one: one[1].delivery != "record")
    return [
        sink
        if not live and sink.delivery == "record"
        else QueuedSink(sink, name, _folder_for(name, Path(spool)), patience=0.0 if live else math.inf, barrier=barrier)
        for name, sink in named
    ]


def list_inputs(config: LineConfig) -> list[Path]:
    """Return the files that a line reads; none of its sinks may write to them.

    Parameters
    ----------
    config
        The configuration.

    Returns
    -------
    list[Path]
        The model files and the files of the sources.
    """
    paths = [config.model, *config.recipes.values(), *(Path(one.address).absolute() for one in config.sources)]
    return [Path(path) for path in paths]


def open_dashboard(config: DashboardConfig | None, sinks: Sequence[Sink]) -> list[Dashboard]:
    """Return the configured dashboard, with the history and the evidence of the line's own sinks.

    Parameters
    ----------
    config
        The configuration of the dashboard; None for no dashboard.
    sinks
        The sinks of the line.

    Returns
    -------
    list[Dashboard]
        One dashboard, or an empty list.

    Raises
    ------
    ChoiceError
        If the address is not valid, or if others could reach the dashboard without a token.
    """
    if config is None:
        return []
    from onspect.runtime.dashboard import Dashboard

    history = next((sink.history for sink in sinks if sink.history), None)
    evidence = next((sink.evidence for sink in sinks if sink.evidence), None)
    return [Dashboard(config.listen, token=config.token, history=history, evidence=evidence)]


def choose_voting(config: LineConfig, sources: Sequence[Source]) -> Voting:
    """Return how frames become parts; a live part always has a time limit.

    Parameters
    ----------
    config
        The configuration.
    sources
        The sources of the line.

    Returns
    -------
    Voting
        The configured rule. If a source is live and no timeout is configured, the timeout is 2 s.
    """
    if config.voting.timeout is None and any(source.live for source in sources):
        return dataclasses.replace(config.voting, timeout=_PART_TIMEOUT)
    return config.voting


def choose_policies(config: LineConfig, sources: Sequence[Source]) -> list[Policy]:
    """Return the policy of each source: the configured one, else the default of the source.

    Parameters
    ----------
    config
        The configuration.
    sources
        The sources, in the order of the configuration.

    Returns
    -------
    list[Policy]
        One policy for each source.
    """
    followed = config.presence is not None and config.presence.parts is None
    given = zip(config.sources, sources, strict=True)
    return [one.policy or default_policy(source, presence=followed) for one, source in given]


def build_line(config: LineConfig, models: Models, sources: Sequence[Source], sinks: Sequence[Sink]) -> Line:
    """Build the line.

    Parameters
    ----------
    config
        The configuration.
    models
        The loaded models.
    sources
        The sources, in the order of the configuration.
    sinks
        The sinks, in the order in which the line writes to them.

    Returns
    -------
    Line
        The line, ready for `run`.

    Raises
    ------
    ChoiceError
        If policies, voting, presence and the PLC's signal do not fit together.
    """
    voting = choose_voting(config, sources)
    presence = config.presence
    if presence is not None:
        from onspect.runtime.presence.gate import check_presence

        check_presence(presence)
    signals = None
    if config.signal is not None:
        from onspect.runtime.line.triggered import TriggeredSource
        from onspect.runtime.signals.controller import SignalController
        from onspect.runtime.signals.registry import open_signal

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
    """Refuse a PLC-triggered line that also follows parts by itself or joins views.

    Parameters
    ----------
    config
        The configuration.

    Raises
    ------
    ChoiceError
        If [presence] has no 'parts', or [voting] has views.
    """
    if config.presence is not None and config.presence.parts is None:
        raise ChoiceError(
            "[signal] says when a part is in view, and [presence] without 'parts' decides this itself: give parts = 1 "
            "to find the part in each triggered frame, or leave one of the two out"
        )
    if config.voting.views is not None:
        raise ChoiceError("[signal] joins the views of its cameras by itself; leave [voting] views out")


def _folder_for(name: str, spool: Path) -> Path:
    """Return the folder of a sink, the same at every start; the folder of an earlier version is used again."""
    readable = "".join(letter if letter.isalnum() else "-" for letter in show_sink(name))[:40]
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return next(spool.glob(f"*-{digest}"), spool / f"{readable}-{digest}")
