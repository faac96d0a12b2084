"""The demo part's command: demo."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from onspect.runtime.console import Command, say
from onspect.runtime.errors import OutputError


@click.command(cls=Command)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("onspect-demo"),
    show_default=True,
    help="A folder for everything; it must not hold anything yet.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True, help="Passes over the good parts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of parts and training.")
def demo(output: Path, epochs: int, seed: int) -> None:
    """Do the whole job on synthetic parts: train, export, calibrate, evaluate, score.

    Draws turned-steel parts, good ones and ones with scratches, dents and stains, then runs the commands that you
    would run on your own images and says each of them. Takes one to three minutes on two CPU cores.

    \b
    Example:
      onspect demo
    """
    import torch as _torch  # noqa: F401 - where it is missing, say so before anything is drawn

    from onspect.demo.overview import draw_overview
    from onspect.demo.parts import draw_dataset
    from onspect.runtime.cli import main
    from onspect.runtime.files import make_folder

    if output.is_file():
        raise OutputError(f"{str(output)!r} is a file; give a folder with -o")
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{str(output)!r} is not empty; remove it, or give another folder with -o")
    parts, run, model = output / "parts", output / "run", output / "part.onnx"
    report, verdicts, overlays = output / "report", output / "verdicts.jsonl", output / "overlays"
    chosen = ("--preset", "fast", "--epochs", epochs, "--seed", seed)
    make_folder(parts)
    say(f"drawing synthetic parts into {parts}")
    draw_dataset(parts, seed=seed)
    for arguments in (
        ("train", parts, "-m", "cae", "-o", run, *chosen),
        ("export", run, "-o", model),
        ("calibrate", model, parts),
        ("evaluate", model, parts, "-o", report),
        ("score", model, parts / "test", "-o", verdicts, "--overlays", overlays),
    ):
        words = [*(str(argument) for argument in arguments), *click.get_current_context().meta["onspect.flags"]]
        say(f"\n$ onspect {shlex.join(words)}")
        main.main(words, prog_name="onspect", standalone_mode=False)
    draw_overview(model, parts, output / "overview.png")
    say(
        f"\nThese parts are drawn, not photographed: the figures say that the pipeline works, not how well it does "
        f"on yours.\n"
        f"report     {report / 'report.html'}\n"
        f"model      {model}  (all that the line needs)\n"
        f"verdicts   {verdicts}\n"
        f"overlays   {overlays}\n"
        f"overview   {output / 'overview.png'}"
    )
