"""The command `onspect drift`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from onspect.runtime.cli.base import Command
from onspect.runtime.text import count_of

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
    from onspect.runtime.drift.log import compare_log, describe_comparison
    from onspect.runtime.model.file import read_model_file

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
