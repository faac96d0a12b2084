"""``onspect run``: judge what a source shows, for as long as it shows something."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.console import Command, say, usage_errors
from onspect.runtime.errors import SourceError
from onspect.runtime.files import list_images
from onspect.runtime.options import conclude, overlay_sinks, overlays_option, provider_option, refuse_target

if TYPE_CHECKING:
    from onspect.runtime.inspector import Inspector
    from onspect.runtime.line.config import LineConfig
    from onspect.runtime.sinks import Sink
    from onspect.runtime.status import LineStatus


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source")
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    default=("jsonl:-",),
    show_default=True,
    metavar="KIND:FILE",
    help="Where verdicts go: jsonl:FILE or csv:FILE, appended to; - is stdout. May be given several times.",
)
@click.option(
    "--policy",
    type=click.Choice(["latest", "every", "wait"]),
    help="Frames that come faster than they are judged: drop all but the latest, let a few wait and make a fault of "
    "those beyond, or let the source wait [default: latest for cameras, every for triggered ones, wait for files].",
)
@click.option(
    "--frames-per-part",
    type=click.IntRange(min=1),
    help="One verdict from so many frames: the worst of theirs [default: 1, or what the source says of its parts].",
)
@overlays_option
@provider_option
def run(
    model: Path,
    source: str,
    sinks: tuple[str, ...],
    policy: str | None,
    frames_per_part: int | None,
    overlays: Path | None,
    provider: str,
) -> None:
    """Judge what SOURCE shows, in order, until it ends or the line is stopped.

    SOURCE is a video file, a folder of images, or a camera: its number or device path (0, '/dev/video0?width=1280'), a
    URL (rtsp://.., http://..), genicam:SERIAL (see 'onspect cameras'), 'watch:DIR?done=DIR' for images that come into a
    folder, or env:NAME for an address that stands in the environment. A camera that is lost is opened again; SIGTERM
    and Ctrl-C judge what was captured and end; a changed model file, or SIGHUP, is taken up between two parts.

    \b
    Example:
      onspect run part.onnx line.mp4 --sink jsonl:verdicts.jsonl
      onspect run part.onnx rtsp://10.0.0.5/stream --sink csv:verdicts.csv
    """
    from onspect.runtime.line.config import LineConfig, SourceConfig
    from onspect.runtime.line.voting import Voting

    with usage_errors():
        config = LineConfig(
            model=model,
            sources=(SourceConfig(source, policy),),  # type: ignore[arg-type]  # click has checked the choice
            sinks=sinks,
            provider=provider,
            voting=Voting(frames=frames_per_part),
        )
    run_line(config, overlays)


def run_line(config: LineConfig, overlays: Path | None) -> None:
    """Run a line to its end, and say how it was."""
    from onspect.runtime.decode import quieten_opencv
    from onspect.runtime.line.build import build_line, choose_health, give_couriers, open_models
    from onspect.runtime.line.signals import obeying_signals
    from onspect.runtime.sinks import open_sinks
    from onspect.runtime.sources import open_source

    quieten_opencv()
    with usage_errors():
        sources = [open_source(one.address) for one in config.sources]
        models = open_models(config, choose_health(config, sources))
        drawn = _draw_overlays(overlays, config, models.current.inspector)
        named = list(zip(config.sinks, open_sinks(config.sinks, append=True), strict=True))
        inputs = [config.model, *(Path(one.address).absolute() for one in config.sources)]
        for text in config.sinks:
            refuse_target(text.partition(":")[2], inputs)
        live = any(source.live for source in sources)
        sinks = [*give_couriers(named, config.spool, live=live), *drawn]
        line = build_line(config, models, sources, sinks)
    with obeying_signals(line):
        status = line.run()
    if live:
        _say_farewell(status)
    elif line.stopped:
        say(f"stopped after {status.ok + status.ng + status.review + status.fault} images")
        raise click.exceptions.Exit(1)
    else:
        conclude({"ok": status.ok, "ng": status.ng, "review": status.review, "fault": status.fault})


def _draw_overlays(folder: Path | None, config: LineConfig, inspector: Inspector) -> list[Sink]:
    root = Path(config.sources[0].address).absolute()
    if folder is not None and (len(config.sources) > 1 or not root.is_dir()):
        raise SourceError("--overlays draws on image files: give a folder of images as the source, not a video")
    return overlay_sinks(folder, inspector, root, [] if folder is None else list_images(root)[0])


def _say_farewell(status: LineStatus) -> None:
    say(
        f"{status.captured} frames: {status.judged} judged, {status.dropped} dropped, {status.faulted} faults; "
        f"{status.ok} ok, {status.ng} ng, {status.review} review, {status.fault} fault"
    )
