"""The `onspect` command: the commands of every part, listed on any machine, each loading its work when it runs."""

from __future__ import annotations

import importlib
import importlib.metadata

import click

_PARTS = ("demo", "compare", "training", "export", "calibration", "runtime")
_ORDER = (
    "demo",
    "train",
    "export",
    "calibrate",
    "threshold",
    "evaluate",
    "compare",
    "score",
    "run",
    "recalibrate",
    "drift",
    "cameras",
    "bench",
    "info",
)


class _Group(click.Group):
    """Lists commands in the order in which a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: (_ORDER.index(name) if name in _ORDER else 99, name))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(importlib.metadata.version("onspect"), prog_name="onspect")
def main() -> None:
    """Screen parts for defects with an autoencoder trained on good ones.

    Train on a workstation, export one .onnx file, calibrate its threshold, and score images or a camera line with it.

    \b
    Example, from a folder of images to verdicts:
      onspect train parts/ -m cae -o run/
      onspect export run/ -o part.onnx
      onspect calibrate part.onnx parts/
      onspect score part.onnx parts/test -o verdicts.jsonl
    """


for _part in _PARTS:
    for _command in importlib.import_module(f"onspect.{_part}.commands").COMMANDS:
        main.add_command(_command)
