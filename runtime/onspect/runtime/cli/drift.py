"""The command `onspect drift`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from onspect.runtime.cli.base import Command, echo_json, wrap
from onspect.runtime.text import count_of

_LOG = logging.getLogger("onspect")


@click.command(cls=Command)
@click.argument("verdicts", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def drift(verdicts: Path, model: Path, as_json: bool) -> None:
    """Check in VERDICTS whether a line's scores have drifted since calibration.

    VERDICTS is the JSONL file of a line that ran MODEL. A sequential test with a stated false-alarm rate reports where
    a change began, and whether scores rose or fell. Falling scores are more dangerous, because defects pass. The exit
    code is 0, with or without drift.

    \b
    Example:
      onspect drift verdicts.jsonl part.onnx
    """
    from onspect.runtime.drift.log import compare_log, describe_comparison
    from onspect.runtime.model.file import read_model_file

    file = read_model_file(model)
    comparison = compare_log(verdicts, file)
    if comparison.unread:
        _LOG.warning("%s of %r left out: no verdict", count_of(comparison.unread, "line"), str(verdicts))
    if comparison.other_files:
        others = count_of(comparison.other_files, "part")
        _LOG.warning("the comparison includes %s from before the last change of the model file", others)
    if as_json:
        echo_json(comparison.to_dict())
    else:
        assert file.info.calibration is not None
        click.echo(wrap(describe_comparison(comparison, file.info.calibration.data), indent=13))
