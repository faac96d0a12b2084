"""Check of everything that a line's configuration names, before the line runs: ``onspect run --check``."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from onspect.runtime.credentials import redact, resolve_secret
from onspect.runtime.errors import ChoiceError, ImageError, OnspectError
from onspect.runtime.extras import describe_missing
from onspect.runtime.inspection.verdict import FrameContext
from onspect.runtime.line.build import (
    choose_health,
    choose_policies,
    choose_voting,
    list_inputs,
    open_dashboard,
    open_models,
    queue_sinks,
    refuse_triggered,
)
from onspect.runtime.line.config import DashboardConfig, LineConfig, SignalConfig
from onspect.runtime.line.frame_check import FrameCheck, Limits
from onspect.runtime.line.models import Model, Models
from onspect.runtime.line.voting import refuse_policies
from onspect.runtime.signals.registry import open_signal
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.registry import open_sink, show_sink
from onspect.runtime.sinks.targets import is_same_port, refuse_conflict
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.sources.registry import open_source

_FIRST_FRAME = 10.0  # seconds to wait for the first frame of a source
_QUIET = 3.0  # seconds

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """Result of the check of one thing."""

    name: str
    """The thing, such as ``source 1``."""
    works: bool
    """Whether the line can use it."""
    detail: str
    """One sentence about its state, or the error."""


def check_line(config: LineConfig, *, quiet: float = _QUIET) -> Iterator[Finding]:
    """Load the models, judge one frame of each source, and check each sink.

    The check refuses everything that `run` refuses. It writes nothing and sends nothing to a receiver.

    Parameters
    ----------
    config
        The configuration.
    quiet
        Seconds after which a lost source counts as lost, and a triggered camera or a watched folder as idle.

    Returns
    -------
    Iterator[Finding]
        One finding after the other: models, sources, sinks, policies, PLC and dashboard. A missing package of an
        extra is a finding of the part that needs it.

    Raises
    ------
    ImportError
        If a package is missing that no extra brings.
    """
    sources = [_try(partial(open_source, one.address)) for one in config.sources]
    opened = [source for source in sources if not isinstance(source, OnspectError)]
    loaded = _try(partial(open_models, config, choose_health(config, opened)))
    models = None if isinstance(loaded, OnspectError) else loaded
    if models is None:
        yield Finding("model", False, str(loaded))
    else:
        for name in models.names:
            model = models.find(name)
            assert model is not None
            yield Finding("model" if name is None else f"recipe {name}", True, _describe_model(model))
    if not sources:
        yield Finding("source", False, "no source is given: give one as [[source]] address, or on the command line")
    for place, (one, source) in enumerate(zip(config.sources, sources, strict=True), 1):
        name = f"source {place}"
        if isinstance(source, OnspectError):
            yield Finding(name, False, str(source))
        else:
            yield _check_source(name, source, None if config.presence else models, one.recipe, quiet)
    sinks = [_try(partial(open_sink, text, append=True)) for text in config.sinks]
    usable = [None if isinstance(sink, OnspectError) else sink for sink in sinks]
    for place, sink in enumerate(sinks):
        live = any(source.live for source in opened)
        found = _find(f"sink {place + 1}", partial(_check_sink, config, place, sink, usable, live=live))
        yield dataclasses.replace(found, detail=f"{show_sink(config.sinks[place])}: {found.detail}")
    if len(opened) == len(sources) and (refusal := _try(partial(_refuse_policies, config, opened))) is not None:
        yield Finding("policies", False, str(refusal))
    if config.signal is not None:
        yield _find("signal", partial(_check_signal, config.signal))
    if config.dashboard is not None:
        yield _find("dashboard", partial(_check_dashboard, config.dashboard, usable))


def _refuse_policies(config: LineConfig, sources: Sequence[Source]) -> None:
    if config.signal is not None:
        refuse_triggered(config)  # triggered sources lose no frame
    else:
        refuse_policies(choose_voting(config, sources), choose_policies(config, sources))


def _check_signal(config: SignalConfig) -> str:
    with closing(open_signal(config.address)) as signal:
        inputs = signal.read()
    trigger = "set: the line waits until it is cleared" if inputs.trigger else "not set"
    return f"{signal.name}: answers; trigger is {trigger}"


def _check_dashboard(config: DashboardConfig, sinks: Sequence[Sink | None]) -> str:
    (dashboard,) = open_dashboard(config, [])
    for number, sink in enumerate(sinks, 1):
        if sink is not None and dashboard.listens is not None and is_same_port(dashboard.listens, sink.listens):
            raise ChoiceError(f"it needs the port of sink {number}; give one of them another port")
    with dashboard:
        return f"{dashboard.url}, {'with' if config.token else 'without'} a token"


def _find(name: str, check: Callable[[], str]) -> Finding:
    found = _try(check)
    return Finding(name, True, found) if isinstance(found, str) else Finding(name, False, redact(str(found)))


def _try(work: Callable[[], T]) -> T | OnspectError:
    try:
        return work()
    except OnspectError as error:
        return error
    except ImportError as error:
        if (reason := describe_missing("it", error)) is None:
            raise
        return ChoiceError(reason)


def _describe_model(model: Model) -> str:
    inspector = model.inspector
    preprocess, threshold = inspector.info.preprocess, inspector.threshold
    review = "" if threshold.review is None else f", review from {threshold.review:.6g}"
    facts = [
        f"{inspector.label} on {inspector.provider}",
        f"{preprocess.width}x{preprocess.height} {'mono' if preprocess.channels == 1 else 'colour'}",
        f"ng from {threshold.score:.6g}{review}",
        "frames are not checked" if model.limits is None else _describe_limits(model.limits),
    ]
    return "; ".join(facts)


def _describe_limits(limits: Limits) -> str:
    if limits.brightness is None and limits.sharpness is None:
        return (
            "brightness and sharpness are not checked: the model file does not say how its training images looked "
            "(export it again, or set them in [health])"
        )
    brightness = "any" if limits.brightness is None else f"{limits.brightness[0]:.1f} to {limits.brightness[1]:.1f}"
    sharpness = "any" if limits.sharpness is None else f"from {limits.sharpness:.2f}"
    return f"brightness {brightness}, sharpness {sharpness}"


def _check_source(name: str, source: Source, models: Models | None, recipe: str | None, quiet: float) -> Finding:
    captures: list[Capture] = []
    got = threading.Event()

    def read() -> None:
        for capture in source:
            captures.append(capture)
            if not isinstance(capture.frame, ImageError):
                break
        got.set()

    thread = threading.Thread(target=read, name="onspect-check", daemon=True)
    with source:
        thread.start()
        started = time.monotonic()
        while not got.wait(0.05) and time.monotonic() - started < _FIRST_FRAME:
            if time.monotonic() - started > quiet and (captures or source.patience is None):
                break
    thread.join(1.0)
    state = source.state()
    if captures:
        return _judge(name, state.name, captures[-1], models, recipe)
    if source.patience is None and state.connected:
        return Finding(name, True, f"{state.name}: connected; no frame came within {quiet:g} s, so none was judged")
    return Finding(name, False, f"{state.name}: {state.message or f'no frame came within {_FIRST_FRAME:g} s'}")


def _judge(name: str, source: str, capture: Capture, models: Models | None, recipe: str | None) -> Finding:
    if isinstance(capture.frame, ImageError):
        return Finding(name, False, f"{source}: {capture.frame}")
    height, width = capture.frame.shape[:2]
    colour = "mono" if capture.frame.ndim == 2 else "colour"
    seen = f"{source}: {width}x{height} {colour} {capture.frame.dtype}"
    model = None if models is None else models.find(recipe)
    if models is None or model is None:
        return Finding(name, True, f"{seen}, not judged")
    inspector, limits, health = model.inspector, model.limits, models.health
    context = FrameContext(source)
    prepared = inspector.prepare_frame(capture.frame)
    if limits is not None and health is not None and prepared.image is not None:
        fault = FrameCheck(health).find_fault(capture.frame, limits, prepared.image)
        prepared = dataclasses.replace(prepared, error=fault)
    verdict = inspector.judge([prepared], inspector.infer_frames([prepared]), [context])[0].verdict
    words = f"fault: {verdict.reason}"
    if verdict.score is not None:
        words = f"{verdict.verdict} with score {verdict.score:.6g} in {verdict.latency_ms:.1f} ms"
    return Finding(name, verdict.verdict != "fault", f"{seen}, {words}")


def _check_sink(
    config: LineConfig, place: int, sink: Sink | OnspectError, sinks: Sequence[Sink | None], *, live: bool
) -> str:
    if isinstance(sink, OnspectError):
        raise sink
    targets = [resolve_secret(one) for one in config.sinks[: place + 1]]
    refuse_conflict(targets, sinks, place, list_inputs(config))
    (queued,) = queue_sinks([(config.sinks[place], sink)], config.spool, live=live)
    return queued.probe()
