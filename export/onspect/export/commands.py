"""The export part's command: export."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from onspect.runtime.console import Command, say


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The model file, ending in .onnx.")
@click.option(
    "--score",
    type=click.Choice(["mse", "peak", "relative"]),
    help="mse: mean squared error; peak: maximum of the smoothed error map; relative: the same, each place divided by "
    "what good parts show there [default: mse with preset paper, else relative].",
)
@click.option("--split", is_flag=True, help="Also write OUTPUT.encoder.onnx and OUTPUT.decoder.onnx.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Compare scores with the trained model on all images below this folder too.",
)
def export(run: Path, output: Path, score: str | None, split: bool, images: Path | None) -> None:
    """Write the trained RUN as one ONNX model file.

    The file is run by onnxruntime on real images before it is kept: its scores must agree with the trained model's to
    1e-4 of their value. It has no threshold yet; 'onspect calibrate' gives it one.

    \b
    Example:
      onspect export run/ -o part.onnx
    """
    from onspect.export.write import export as write_model

    exported = write_model(run, output, score=score, split=split, images=images)
    for path in exported.paths:
        say(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    say(
        f"scores agree with the trained model to {exported.parity.difference:.1e} on {exported.parity.images} images\n"
        f"next: onspect calibrate {shlex.quote(str(output))} DATA"
    )


COMMANDS = (export,)
