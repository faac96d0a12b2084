"""The command roi: draw a region of interest on a page."""

from __future__ import annotations

import time
from pathlib import Path

import click

from onspect.runtime.cli.base import PictureCommand, say, usage_errors


@click.command(cls=PictureCommand)
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("roi.toml"),
    show_default=True,
    help="The file of the region. Regions in it are shown.",
)
@click.option(
    "--address",
    default="127.0.0.1:8081",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the page is served, on this computer only.",
)
def roi(source: str, output: Path, address: str) -> None:
    """Draw a region of interest on SOURCE, in a browser, and write it as a small TOML file.

    SOURCE is a picture, a folder of pictures, or a camera, stream or video as for 'onspect run'. The page draws
    rectangles, polygons, ignored areas, and the reference patch by which a part is found wherever it is. The
    commands teach and train take the file as --roi. Ctrl-C ends.

    \b
    Example:
      onspect roi parts/train/good -o roi.toml
      onspect teach parts/train/good --roi roi.toml -o part.onnx
    """
    from onspect.runtime.drawing import RegionPage
    from onspect.runtime.drawing.pictures import open_pictures

    with usage_errors():
        page = RegionPage(open_pictures(source), output, address=address)
    with page:
        say(f"draw at {page.url}, save there, and end with Ctrl-C")
        try:
            while True:
                time.sleep(0.5)
        except KeyboardInterrupt:
            say(f"wrote {output}" if page.saved.is_set() else "nothing was saved")
