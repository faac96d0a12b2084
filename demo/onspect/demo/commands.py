"""The demo part's command: demo."""

from __future__ import annotations

import logging
import shlex
from importlib.util import find_spec
from pathlib import Path

import click

from onspect.runtime.cli.base import Command, say
from onspect.runtime.errors import OutputError

_LOG = logging.getLogger("onspect")

_SIZE = 256  # pixels; a place of the error map has 1/16 of the part's side
_TRAIN = 100  # good pictures; 99 are enough for teach to promise 1% false rejects


@click.command(cls=Command)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("onspect-demo"),
    show_default=True,
    help="A new or empty folder for all results.",
)
@click.option("--epochs", type=click.IntRange(min=1), hidden=True)  # accepted because 0.1.0 had it
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the drawn parts and of the memory.",
)
def demo(output: Path, epochs: int | None, seed: int) -> None:
    """Do the whole job on synthetic parts: teach, calibrate, evaluate, score.

    Draws turned-steel parts, good ones and ones with scratches, dents and stains. Then runs the commands that you would
    run on your own images, and prints each of them. Takes less than a minute on two CPU cores.

    \b
    Example:
      onspect demo
    """
    from onspect.demo.overview import draw_overview
    from onspect.demo.parts import draw_dataset
    from onspect.runtime.atomic import make_folder, new_folder
    from onspect.runtime.cli import main

    if find_spec("torch") is None:  # say so before anything is drawn
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    if epochs is not None:
        _LOG.warning("--epochs is ignored: the demo teaches a memory and trains nothing")
    if output.is_file():
        raise OutputError(f"{str(output)!r} is a file; give a folder with -o")
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{str(output)!r} is not empty; remove it, or give another folder with -o")
    parts, base, model = output / "parts", output / "base.onnx", output / "part.onnx"
    report, verdicts, overlays = output / "report", output / "verdicts.jsonl", output / "overlays"
    with new_folder(output):
        make_folder(parts)
        say(f"drawing synthetic parts into {parts}")
        draw_dataset(parts, seed=seed, train=_TRAIN, size=_SIZE)
        for arguments in (
            ("backbone", "-o", base),
            ("teach", parts / "train" / "good", "--base", base, "-o", model, "--seed", seed),
            ("calibrate", model, parts),
            ("evaluate", model, parts, "-o", report),
            ("score", model, parts / "test", "-o", verdicts, "--overlays", overlays),
        ):
            words = [*(str(argument) for argument in arguments), *click.get_current_context().meta["onspect.flags"]]
            say(f"\n$ onspect {shlex.join(words)}")
            main.main(words, prog_name="onspect", standalone_mode=False)
        draw_overview(model, parts, output / "overview.png")
    say(
        f"\nThese parts are drawn. The figures show that the pipeline works. They do not predict its accuracy on your "
        f"parts.\n"
        f"report     {report / 'report.html'}\n"
        f"model      {model}  (the only file that the line needs)\n"
        f"base file  {base}  (for 'onspect teach --base' on a device without PyTorch)\n"
        f"verdicts   {verdicts}\n"
        f"overlays   {overlays}\n"
        f"overview   {output / 'overview.png'}"
    )
