"""The command that lists the cameras: cameras."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.cli.base import PictureCommand, echo_json, say
from onspect.runtime.errors import SourceError

if TYPE_CHECKING:
    from onspect.runtime.sources.cameras.discovery import FoundCamera


@click.command(cls=PictureCommand)
@click.option(
    "--cti",
    "producers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A GenTL producer to use instead of the installed ones. May be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def cameras(producers: tuple[Path, ...], as_json: bool) -> None:
    """List the connected cameras: local ones, and industrial ones through the GenTL producers of their makers.

    The first column is what `onspect run` takes as its source.

    \b
    Example:
      onspect cameras
    """
    from onspect.runtime.sources.cameras.discovery import find_local_cameras

    found = [*find_local_cameras(), *_find_genicam(producers)]
    if as_json:
        echo_json([asdict(camera) for camera in found])
        return
    if not found:
        say("no camera was found")
        return
    rows = [("SOURCE", "STATUS", "CAMERA"), *((camera.source, camera.status, camera.name) for camera in found)]
    wide, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    for source, status, name in rows:
        click.echo(f"{source:<{wide}}  {status:<{middle}}  {name}".rstrip())


def _find_genicam(producers: tuple[Path, ...]) -> list[FoundCamera]:
    """Return the industrial cameras; a missing driver is an error only if a producer was named."""
    from onspect.runtime.sources.cameras.discovery import find_genicam_cameras

    try:
        return find_genicam_cameras(producers)
    except ModuleNotFoundError as error:
        if producers or error.name not in ("harvesters", "genicam"):
            raise
        say("industrial cameras are not listed: pip install 'onspect[genicam]'")
    except SourceError as error:
        if producers:
            raise
        say(f"industrial cameras are not listed: {error}")
    return []
