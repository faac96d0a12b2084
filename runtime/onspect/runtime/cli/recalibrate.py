"""The command `onspect recalibrate`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from onspect.runtime.cli.base import PictureCommand, say, wrap

_LOG = logging.getLogger("onspect")


@click.command(cls=PictureCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@click.option("--count", type=click.IntRange(min=10), default=20, show_default=True, help="Good frames to take.")
@click.option("--undo", is_flag=True, help="Go back to the threshold before this one.")
def recalibrate(model: Path, source: str | None, count: int, undo: bool) -> None:
    """Adapt MODEL's threshold to good frames of SOURCE, after a change of lamp or lens.

    SOURCE is a folder of images, or any source of 'onspect run'; all frames must show good parts. If the scores have
    only moved, the threshold moves with them, and the old one is kept for --undo. The command draws marks on the frames
    to test whether the model still separates defects from good parts. If the test fails, nothing is changed.

    \b
    Example:
      onspect recalibrate part.onnx good_frames/
      onspect recalibrate part.onnx --undo
    """
    from onspect.runtime.model.file import read_model_file, undo_restamp

    if undo == (source is not None):
        raise click.UsageError("give either a source of good frames or --undo")
    file = read_model_file(model)
    if source is None:
        info = undo_restamp(file)
        assert info.threshold is not None
        say(f"{model} is back at the threshold {info.threshold.score:.6g}")
        return
    from onspect.runtime.credentials import show_address
    from onspect.runtime.inspection.inspector import Inspector
    from onspect.runtime.recalibration.recalibrate import describe_recalibration, find_base
    from onspect.runtime.recalibration.recalibrate import recalibrate as carry_over
    from onspect.runtime.sources.registry import open_source

    find_base(file)  # refuse the file before a camera is opened
    name = Path(source).resolve().name if Path(source).exists() else show_address(source)
    with open_source(source) as captures:
        found = carry_over(file, Inspector(file), captures, count=count, source=name)
    click.echo(wrap(describe_recalibration(found), indent=13))
    if found.changed:
        say(f"written into {model}; 'onspect recalibrate {model} --undo' goes back")
    else:
        say(f"{model} was not changed")
