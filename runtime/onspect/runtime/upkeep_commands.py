"""The commands that keep a calibrated line true: recalibrate and drift."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from onspect.runtime.console import Command, say
from onspect.runtime.plurals import count_of

_LOG = logging.getLogger("onspect")


@click.command(cls=Command)
@click.argument("verdicts", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def drift(verdicts: Path, model: Path, as_json: bool) -> None:
    """Tell whether a line's scores still come as the calibration's, from its VERDICTS.

    VERDICTS is the JSONL file of a line that ran MODEL. A sequential test with a stated false-alarm rate: says where a
    change began, and whether scores rose or fell. Falling scores are the more dangerous: defects pass. Drift that is
    found is an answer, with exit code 0.

    \b
    Example:
      onspect drift verdicts.jsonl part.onnx
    """
    from onspect.runtime.drift_log import compare_log, describe_comparison
    from onspect.runtime.model_file import read_model_file

    file = read_model_file(model)
    comparison = compare_log(verdicts, file)
    if comparison.unread:
        _LOG.warning("%s of %r left out: no verdict", count_of(comparison.unread, "line"), str(verdicts))
    if comparison.other_files:
        _LOG.warning(
            "%d of the parts were judged before the model file was last stamped; they are compared all the same",
            comparison.other_files,
        )
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
    else:
        assert file.info.calibration is not None
        click.echo(describe_comparison(comparison, file.info.calibration.data))


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@click.option("--count", type=click.IntRange(min=10), default=20, show_default=True, help="Good frames to take.")
@click.option("--undo", is_flag=True, help="Go back to the threshold before this one.")
def recalibrate(model: Path, source: str | None, count: int, undo: bool) -> None:
    """Carry MODEL's threshold over to good frames of SOURCE, after a change of lamp or lens.

    SOURCE is a folder of images, or what 'onspect run' takes; all frames taken from it must show good parts. Where the
    scores have only moved, the threshold moves along, and the old one is kept for --undo. Where it is not shown that
    defects can still be told from good parts, which is tried with marks drawn on the frames, nothing is changed.

    \b
    Example:
      onspect recalibrate part.onnx good_frames/
      onspect recalibrate part.onnx --undo
    """
    from onspect.runtime.model_file import read_model_file, undo_restamp

    if undo == (source is not None):
        raise click.UsageError("give either a source of good frames or --undo")
    file = read_model_file(model)
    if source is None:
        info = undo_restamp(file)
        assert info.threshold is not None
        say(f"{model} is back at the threshold {info.threshold.score:.6g}")
        return
    from onspect.runtime.decode import quieten_opencv
    from onspect.runtime.inspector import Inspector
    from onspect.runtime.recalibration import describe_recalibration, find_base
    from onspect.runtime.recalibration import recalibrate as carry_over
    from onspect.runtime.secrets import redact
    from onspect.runtime.sources import open_source

    quieten_opencv()
    find_base(file)  # refused before a camera is opened
    name = Path(source).resolve().name if Path(source).exists() else redact(source)
    with open_source(source) as captures:
        found = carry_over(file, Inspector(file), captures, count=count, source=name)
    click.echo(describe_recalibration(found))
    if found.changed:
        say(f"stamped into {model}; 'onspect recalibrate {model} --undo' goes back")
    else:
        say(f"{model} stays as it was")
