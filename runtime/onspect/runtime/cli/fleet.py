"""The commands about many lines: fleet status."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from onspect.runtime.cli.base import Command, usage_errors
from onspect.runtime.errors import FleetError

if TYPE_CHECKING:
    from onspect.runtime.fleet.listen import FleetListener

_REDRAW_S = 1.0  # seconds between two pictures, so that a stale line is noticed


@click.group()
def fleet() -> None:
    """Show the state of many lines in one place.

    \b
    Example:
      onspect fleet status mqtt://broker.plant/onspect --watch
    """


@fleet.command(cls=Command)
@click.argument("broker")
@click.option("--watch", is_flag=True, help="Update the table at every change, until Ctrl-C.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The lines as JSON; with --watch, one object per change, each on its own line.",
)
def status(broker: str, *, watch: bool, as_json: bool) -> None:
    """Show the lines that publish with the MQTT sink: model, threshold, yield, faults, drift, and since when.

    BROKER is mqtt://HOST[:PORT][/PREFIX] or mqtts://.., with the options of the MQTT sink (docs/sinks.md). With PREFIX,
    only the lines below it are shown. Needs the extra mqtt.

    The exit code is 0 if every line runs without alarm or drift, or was stopped normally. It is 1 if a line is lost,
    stale or unreadable, has an alarm or drift, or if there is no line.

    \b
    Example:
      onspect fleet status mqtt://127.0.0.1/factory
      onspect fleet status 'mqtts://broker.factory/halle-2?username=env:LINE_USER&password=env:LINE_PASSWORD' --watch
    """
    from onspect.runtime.fleet.listen import open_fleet
    from onspect.runtime.fleet.table import draw_table, to_json

    with usage_errors():
        listener = open_fleet(broker)
    with listener:
        listener.await_welcome()
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                _watch(listener, as_json=as_json)
            return
        listener.await_lines()
        reports = listener.board.reports()
    if not reports:
        raise FleetError(
            f"no line has published its status at {listener.shown}; a line does with --sink mqtt://HOST/PREFIX/LINE"
        )
    click.echo(to_json(reports, indent=2) if as_json else "\n".join(draw_table(reports)))
    if not all(report.is_well for report in reports):
        raise click.exceptions.Exit(1)


def _watch(listener: FleetListener, *, as_json: bool) -> None:
    """Draw until the user ends the command."""
    from onspect.runtime.fleet.table import draw_table, to_json

    drawn: str | None = None
    listener.await_lines()
    while True:
        listener.changed.clear()
        reports = listener.board.reports()
        if as_json:
            picture = to_json(reports)
        else:
            lines = draw_table(reports)
            if listener.trouble:
                lines.insert(0, f"! {listener.shown}: {listener.trouble}; trying again")
            picture = "\n".join(_fit(lines) if sys.stdout.isatty() else lines)
        if picture != drawn:
            _draw(picture, first=drawn is None)
            drawn = picture
        time.sleep(_REDRAW_S)
        listener.changed.wait(_REDRAW_S)


def _fit(lines: list[str]) -> list[str]:
    """Return as many lines as the terminal has; the lines that need a person come first."""
    width, height = shutil.get_terminal_size()
    shown = lines if len(lines) < height else [*lines[: height - 2], f"... {len(lines) - height + 2} more rows"]
    return [line[:width] for line in shown]


def _draw(picture: str, *, first: bool) -> None:
    if sys.stdout.isatty():  # draw over the old picture line by line, so that it does not flicker
        clear = "\x1b[2J" if first else ""
        erased = picture.replace("\n", "\x1b[K\n")
        click.echo(f"{clear}\x1b[H{erased}\x1b[K\n\x1b[J", nl=False, color=True)
    else:
        click.echo(picture)
