"""The command parts: cut each part out of the frames of a free-running camera."""

from __future__ import annotations

from pathlib import Path

import click

from onspect.runtime.cli.base import PictureCommand, say, usage_errors
from onspect.runtime.cli.options import presence_white_option


@click.command(cls=PictureCommand)
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder for the pictures; it must be empty or new. The files presence.toml and background.png go beside "
    "the pictures' folder 'parts'.",
)
@click.option(
    "--presence",
    default="learn=5s",
    show_default=True,
    metavar="learn=5s|FILE",
    help="Learn the appearance of parts from the first seconds, or read it from a file.",
)
@presence_white_option
@click.option(
    "--count", type=click.IntRange(min=1), help="Stop after this number of parts.  [default: at the source's end]"
)
def parts(source: str, output: Path, presence: str, white_level: int | None, count: int | None) -> None:
    """Cut each part that passes in SOURCE out of its sharpest frame, once, and write it as a PNG file.

    SOURCE is a video, a folder of frames, or a camera as for 'onspect run'. The pictures are those that
    'onspect run --presence presence.toml' judges, so teach, calibrate and score take them as they are. Ctrl-C ends the
    pictures of a camera.

    \b
    Example:
      onspect parts line.mp4 -o taught
      onspect teach taught/parts -o part.onnx
      onspect run part.onnx line.mp4 --presence taught/presence.toml
    """
    from onspect.runtime.errors import DatasetError
    from onspect.runtime.presence.cut import cut_parts
    from onspect.runtime.presence.gate import check_presence
    from onspect.runtime.presence.settings import parse_presence
    from onspect.runtime.sources.registry import open_source

    with usage_errors():
        settings = parse_presence(presence, white_level)
        check_presence(settings)
        found = cut_parts(open_source(source), settings, output, count)
    for name, reason in found.faults[:5]:
        say(f"part {name}: {reason}")
    if not found.written:
        raise DatasetError(
            f"no part was found in {found.frames} frames of {source!r}; give the frames of a line on which parts pass "
            "one by one"
        )
    say(f"{found.frames} frames: {found.written} parts written to {output / 'parts'}, {len(found.faults)} faults")
