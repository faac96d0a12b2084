"""The `onspect` command: the commands of every part, listed on any machine, each loading its work when it runs."""

from __future__ import annotations

import importlib
import os

import click

# Work is spread over threads of our own; numpy's threads inside them would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_HOMES = {
    "demo": "demo.commands",
    "roi": "runtime.cli.roi",
    "parts": "runtime.cli.parts",
    "teach": "runtime.cli.teach",
    "backbone": "training.backbone_command",
    "train": "training.commands",
    "export": "export.commands",
    "calibrate": "calibration.commands",
    "threshold": "calibration.commands",
    "evaluate": "calibration.commands",
    "compare": "compare.commands",
    "score": "runtime.cli.score",
    "run": "runtime.cli.run",
    "fleet": "runtime.cli.fleet",
    "recalibrate": "runtime.cli.recalibrate",
    "drift": "runtime.cli.drift",
    "cameras": "runtime.cli.cameras",
    "bench": "runtime.cli.bench",
    "info": "runtime.cli.info",
}
"""The module below ``onspect`` that holds each command, in the order in which a user meets them.

Only the one that is called is loaded: a process that gives one verdict would else spend a tenth of its time on the
options of commands that it does not run.
"""


class _Group(click.Group):
    """Knows the commands by name and loads each when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click gives it
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click gives it
        if cmd_name not in _HOMES:
            return None
        command: click.Command = getattr(importlib.import_module(f"onspect.{_HOMES[cmd_name]}"), cmd_name)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onspect", prog_name="onspect")
def main() -> None:
    """Screen parts for defects with a model that knows good ones.

    Teach a memory of good parts in seconds, or train an autoencoder; both give one .onnx file. Calibrate its threshold,
    and score images or a camera line with it.

    \b
    Example, from a folder of images to verdicts:
      onspect teach parts/train/good -o part.onnx
      onspect calibrate part.onnx parts/
      onspect score part.onnx parts/test -o verdicts.jsonl
    """
