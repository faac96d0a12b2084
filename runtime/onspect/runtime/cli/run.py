"""``onspect run``: judge the frames of a source until it ends."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.cli.base import PictureCommand, say, usage_errors, wrap
from onspect.runtime.cli.options import conclude, describe_reasons, overlay_options, overlay_sinks
from onspect.runtime.errors import SourceError
from onspect.runtime.images.files import list_images
from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.model.providers import CHOICES

if TYPE_CHECKING:
    from onspect.runtime.line.config import DashboardConfig, LineConfig
    from onspect.runtime.line.frame_queue import Policy
    from onspect.runtime.sinks.base import Sink


@click.command(cls=PictureCommand)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.argument("source", required=False)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Read the line from this TOML file (docs/line.md); options given here override it.",
)
@click.option(
    "--check",
    "check_file",
    type=click.Path(path_type=Path),
    help="Check everything that this TOML file names, print a table, and exit with 1 if a check fails.",
)
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="KIND:TARGET",
    help="Where verdicts go: jsonl:FILE or csv:FILE, appended to (- is stdout), sqlite:FILE, evidence:FOLDER and "
    "others. May be given several times.  [default: jsonl:-]",
)
@click.option(
    "--signal",
    metavar="ADDRESS",
    help="The PLC that triggers each part and gets its result (docs/plc.md): modbus://HOST, opcua://HOST?node=NODE or "
    "mqtt://HOST/TOPIC.",
)
@click.option(
    "--policy",
    type=click.Choice(["latest", "every", "wait"]),
    help="If frames come faster than they are judged: drop all but the latest, queue a few and report the rest as "
    "faults, or let the source wait.  [default: latest for cameras, every for triggered ones, wait for files]",
)
@click.option(
    "--frames-per-part",
    type=click.IntRange(min=1),
    help="Give one verdict for this number of frames, that of the worst.  [default: 1, or as the source says]",
)
@click.option(
    "--presence",
    metavar="learn=5s|FILE",
    help="For a camera that runs freely: judge each part once, and nothing between parts. The appearance of parts is "
    "learnt from the first seconds, or read from a file that 'onspect parts' wrote (docs/presence.md).",
)
@click.option(
    "--parts",
    type=click.IntRange(min=1),
    help="Number of parts in each frame, such as on a tray. Each part gets a verdict; a missing one is a fault.",
)
@click.option(
    "--dashboard",
    metavar="HOST:PORT",
    help="Show the line in a browser, such as 127.0.0.1:8080; an address that other computers reach needs a token.",
)
@click.option(
    "--dashboard-token",
    metavar="env:NAME|file:PATH",
    help="Where to read the token. A browser needs it to move the threshold; on other computers also to see the page.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="BASE",
    help="Where MODEL does not exist yet: teach it on a page at the dashboard's address first, with this base file "
    "(see 'onspect backbone'). Then the line runs.",
)
@click.option(
    "--white-level",
    type=click.IntRange(255, 65535),
    help="With --base: the 16-bit value that is white, 4095 for a 12-bit camera.  [default: presence's, or 65535]",
)
@overlay_options
@click.option(
    "--provider",
    type=click.Choice(CHOICES),
    help="The provider that runs the model, as for 'onspect score'.  [default: auto]",
)
def run(
    model: Path | None,
    source: str | None,
    config_file: Path | None,
    check_file: Path | None,
    overlays: Path | None,
    overlay_style: str,
    overlay_format: str,
    base: Path | None,
    white_level: int | None,
    **flags: Any,
) -> None:
    """Judge the frames of SOURCE with MODEL until the source ends or the line is stopped.

    SOURCE is a video file, a folder of images or a camera. A camera is a number, a device path
    ('/dev/video0?width=1280'), a URL (rtsp://.., http://..) or genicam:SERIAL (see 'onspect cameras').
    'watch:DIR?done=DIR' takes images as they arrive in a folder; env:NAME reads the address from the environment.
    docs/line.md has all sources.

    A lost camera is opened again. SIGTERM and Ctrl-C judge the frames already captured, then end. A changed model file
    is loaded between two parts; SIGHUP does the same.

    \b
    Example:
      onspect run part.onnx line.mp4 --sink jsonl:verdicts.jsonl
      onspect run part.onnx rtsp://10.0.0.5/stream --sink sqlite:history.db --dashboard 127.0.0.1:8080
      onspect run --config line.toml
      onspect run new.onnx 0 --base base.onnx --dashboard 127.0.0.1:8080 --dashboard-token env:TOKEN
    """
    file = config_file or check_file
    if config_file and check_file:
        raise click.UsageError("give --config to run a line, or --check to check it")
    if white_level is not None and base is None:
        raise click.UsageError("--white-level needs --base; a model file has its own white level")
    with usage_errors():
        config = _configure(file, model, source, **flags)
        if check_file is not None:
            _check(config)
        else:
            drawn = _draw_overlays(config, overlays, overlay_style, overlay_format)
            _run_line(config if base is None else _teach_first(config, base, white_level), drawn)


def _configure(
    file: Path | None,
    model: Path | None,
    source: str | None,
    *,
    sinks: tuple[str, ...],
    signal: str | None,
    policy: Policy | None,
    frames_per_part: int | None,
    presence: str | None,
    parts: int | None,
    provider: str | None,
    dashboard: str | None,
    dashboard_token: str | None,
) -> LineConfig:
    """Return the line of the file, or an empty one, with the flags in place of its values."""
    from onspect.runtime.line.config import LineConfig, SignalConfig, SourceConfig, read_config

    config = LineConfig(Path(), ()) if file is None else read_config(file)
    if model is not None:
        config = replace(config, model=model, recipes={}, recipe=None)
    if source is not None:
        config = replace(config, sources=(SourceConfig(source),))
    if policy is not None:
        config = replace(config, sources=tuple(replace(one, policy=policy) for one in config.sources))
    if frames_per_part is not None:
        config = replace(config, voting=replace(config.voting, frames=frames_per_part))
    if presence is not None:
        from onspect.runtime.presence.settings import parse_presence

        config = replace(config, presence=parse_presence(presence))
    if parts is not None:
        from onspect.runtime.presence.settings import PresenceSettings

        config = replace(config, presence=replace(config.presence or PresenceSettings(), parts=parts))
    config = replace(config, sinks=sinks or config.sinks, provider=provider or config.provider)
    if signal is not None:
        base = config.signal or SignalConfig(signal)
        config = replace(config, signal=replace(base, address=signal))
    config = replace(config, dashboard=_configure_dashboard(config.dashboard, dashboard, dashboard_token))
    if config.model == Path():
        raise click.UsageError("Missing argument 'MODEL', or a --config with [model] file.")
    if not config.sources:
        raise click.UsageError("Missing argument 'SOURCE', or a --config with [[source]] address.")
    return config


def _configure_dashboard(
    config: DashboardConfig | None, address: str | None, token: str | None
) -> DashboardConfig | None:
    from onspect.runtime.credentials import resolve_secret
    from onspect.runtime.line.config import DashboardConfig

    if address is not None:
        config = DashboardConfig(address, None if config is None else config.token)
    if token is None:
        return config
    if config is None:
        raise click.UsageError("--dashboard-token is for a dashboard; give --dashboard HOST:PORT too")
    if not token.startswith(("env:", "file:")):
        raise click.UsageError("a token on the command line can be read by every program; give env:NAME or file:PATH")
    return replace(config, token=resolve_secret(token))


def _check(config: LineConfig) -> None:
    from onspect.runtime.line.check import check_line

    logging.getLogger("onspect").setLevel(logging.ERROR)  # the table says it all
    failed = 0
    for finding in check_line(config):
        line = f"{finding.name:<12} {'ok' if finding.works else 'FAILS':<6} {finding.detail}"
        click.echo(wrap(line, indent=20))
        failed += not finding.works
    if failed:
        raise SourceError(f"{failed} {'check' if failed == 1 else 'checks'} of the line failed")


def _teach_first(config: LineConfig, base: Path, white_level: int | None) -> LineConfig:
    """Let a person teach the model file on a page if there is none; return the line with the address of the page."""
    model = Path(config.model)
    if model.exists():
        return config
    if config.dashboard is None or config.dashboard.token is None:
        raise click.UsageError("--base teaches on a page: give --dashboard HOST:PORT and --dashboard-token too")
    if model.suffix != ".onnx" or config.recipes:
        raise click.UsageError(f"--base makes one model file: give its name, ending in .onnx, not {model}")
    if len(config.sources) > 1:
        raise click.UsageError("--base teaches the parts of one camera: with several cameras, teach the file first")
    from onspect.runtime.dashboard.teach_page import TeachPage
    from onspect.runtime.labels.store import LabelStore, labels_path
    from onspect.runtime.presence.gate import check_presence
    from onspect.runtime.sinks.registry import open_sinks
    from onspect.runtime.sources.registry import open_source
    from onspect.runtime.teaching.base_file import read_base_file

    read_base_file(base)
    if config.presence is not None:
        check_presence(config.presence)
    history = next((sink.history for sink in open_sinks(config.sinks, append=True) if sink.history), None)
    store = None if history is None else LabelStore(labels_path(history))
    source = open_source(config.sources[0].address)
    dashboard = config.dashboard
    assert dashboard.token is not None
    where = (dashboard.listen, dashboard.token)
    with TeachPage(*where, source, model, base, store, presence=config.presence, white_level=white_level) as page:
        say(f"there is no {model} yet; teach it at {page.url}")
        page.wait()
    if store is not None:
        store.close()
    return replace(config, dashboard=replace(dashboard, listen=page.address))


def _run_line(config: LineConfig, drawn: list[Sink]) -> None:
    """Run a line to its end, and print its result."""
    from onspect.runtime.credentials import resolve_secret
    from onspect.runtime.line.build import (
        build_line,
        choose_health,
        list_inputs,
        open_dashboard,
        open_models,
        queue_sinks,
    )
    from onspect.runtime.line.memory import keep_memory_together
    from onspect.runtime.line.signals import obeying_signals
    from onspect.runtime.sinks.registry import open_sinks
    from onspect.runtime.sinks.targets import refuse_conflict
    from onspect.runtime.sources.registry import open_source

    keep_memory_together()
    sources = [open_source(one.address) for one in config.sources]
    models = open_models(config, choose_health(config, sources))
    targets = [resolve_secret(text) for text in config.sinks]
    opened = open_sinks(targets, append=True)
    for place in range(len(targets)):
        refuse_conflict(targets, opened, place, list_inputs(config))
    live = any(source.live for source in sources)
    queued = queue_sinks(list(zip(config.sinks, opened, strict=True)), config.spool, live=live)
    dashboard = open_dashboard(config.dashboard, opened)
    line = build_line(config, models, sources, [*queued, *drawn, *dashboard])
    for one in dashboard:
        say(f"the dashboard is at {one.url}")
    with obeying_signals(line):
        status = line.run()
    judged = status.ok + status.ng + status.review
    if live:
        empty = f", {status.empty} empty" if status.empty else ""
        say(
            f"{status.captured} frames: {status.judged} judged, {status.dropped} dropped, {status.faulted} faults"
            f"{empty}; {status.ok} ok, {status.ng} ng, {status.review} review, {status.fault} fault"
        )
        if status.fault and not judged:
            raise SourceError(f"no part could be judged; {describe_reasons(line.fault_reasons, status.fault)}")
    elif line.stopped:
        say(f"stopped after {judged + status.fault} images")
        raise click.exceptions.Exit(1)
    else:
        conclude({name: getattr(status, name) for name in JUDGEMENTS}, line.fault_reasons)


def _draw_overlays(config: LineConfig, folder: Path | None, style: str, ending: str) -> list[Sink]:
    root = Path(config.sources[0].address).absolute()
    if folder is not None and (len(config.sources) > 1 or not root.is_dir()):
        raise SourceError("--overlays draws on image files: give a folder of images as the source, not a video")
    images = [] if folder is None else list_images(root)[0]
    return [*overlay_sinks(folder, root, images, style=style, ending=ending)]
