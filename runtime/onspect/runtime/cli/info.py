"""The command `onspect info`."""

from __future__ import annotations

from pathlib import Path

import click

from onspect.runtime.cli.base import Command, echo_json, wrap


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The whole card as JSON.")
def info(model: Path, as_json: bool) -> None:
    """Show MODEL's card: network, input, score, threshold with its evidence, and where it comes from.

    \b
    Example:
      onspect info part.onnx
    """
    from onspect.runtime.model.card import describe
    from onspect.runtime.model.file import read_model_file

    file = read_model_file(model)
    if as_json:
        echo_json(file.info.to_dict() | {"sha256": file.sha256})
    else:
        click.echo(wrap(describe(file), indent=13))
