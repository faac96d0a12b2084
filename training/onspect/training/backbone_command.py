"""The command backbone: the base file with which a device teaches."""

from __future__ import annotations

from pathlib import Path

import click

from onspect.runtime.atomic import write_together
from onspect.runtime.cli.base import Command, say, usage_errors
from onspect.runtime.errors import OutputError


@click.command(cls=Command)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The base file, ending in .onnx.")
@click.option(
    "--backbone",
    metavar="NAME",
    default="efficientnet-lite0",
    show_default=True,
    help="The pretrained network: efficientnet-lite0, an ONNX file with the outputs stride8, stride16 and stride32, or "
    "timm:MODEL where timm is installed.",
)
def backbone(output: Path, backbone: str) -> None:
    """Make the base file that lets a device without PyTorch teach: a pretrained network with an empty memory.

    The weights come from an installed package; nothing is downloaded.

    \b
    Example:
      onspect backbone -o base.onnx
      onspect teach good/ --base base.onnx -o part.onnx
    """
    if output.suffix.lower() != ".onnx":
        raise OutputError(f"the base file {str(output)!r} must end in .onnx")
    from onspect.training.features import make_base

    with usage_errors():
        content = make_base(backbone)
    write_together({output: content})
    say(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
    say(f"next: onspect teach GOOD --base {output} -o part.onnx")
