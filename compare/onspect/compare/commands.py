"""The compare part's command: compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.export.scores import MEMORY, SCORES
from onspect.runtime.cli.base import Command, say, usage_errors
from onspect.training.config import VARIANTS
from onspect.training.presets import DEFAULT, NAMES, describe_defaults

if TYPE_CHECKING:
    from onspect.compare.experiments import Experiment

_COMPARED = tuple(name for name, spec in SCORES.items() if spec.is_compared)


def _parse_variants(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip().lower() for part in value.split(",") if part.strip()))
    if not chosen or not set(chosen) <= set(VARIANTS):
        raise click.BadParameter(f"{value!r} names no variants; give some of {','.join(VARIANTS)}")
    return chosen


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="A folder for runs and tables."
)
@click.option(
    "--variants",
    callback=_parse_variants,
    default=",".join(VARIANTS),
    show_default=True,
    metavar="LIST",
    help="Comma-separated.",
)
@click.option(
    "--normal",
    multiple=True,
    metavar="CLASS",
    help="The normal class; may be given several times [default: 1 of MNIST, dog of CIFAR-10, good parts].",
)
@click.option("--every-class", is_flag=True, help="Each class in turn is normal: one against the rest.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="COUNT",
    help="Trainings of each variant; tables then say mean and standard deviation.",
)
@click.option("--epochs", type=click.IntRange(min=1), help=f"[default: {describe_defaults('epochs')}]")
@click.option(
    "--preset",
    type=click.Choice(NAMES),
    help=f"[default: one with networks for the images' size, otherwise {DEFAULT}]",
)
@click.option(
    "--score",
    "scores",
    multiple=True,
    type=click.Choice(["all", *_COMPARED]),
    metavar="SCORE",
    help="A score of 'onspect export' to measure, or all; may be given several times. All are of the same trained "
    f"networks [default: {describe_defaults('score')}; and {MEMORY}].",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Use at most this number of images of each class, for a quick look."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Trainings at the same time, each in a process with its share of the cores [default: one for each core].",
)
def compare(
    data: Path,
    folder: Path,
    variants: tuple[str, ...],
    normal: tuple[str, ...],
    every_class: bool,
    seeds: int,
    epochs: int | None,
    preset: str | None,
    scores: tuple[str, ...],
    limit: int | None,
    jobs: int | None,
) -> None:
    """Train the variants in the same manner on DATA, and measure them side by side.

    DATA is a folder of IDX files (MNIST, compressed or not), of CIFAR-10's files (binary or Python version; nothing in
    a pickle is executed), or of parts with train/good and test/. Each variant is trained on the normal class alone with
    the same epochs, learning rate, batch size and seeds, exported, and the test set is scored by the exported file.
    OUTPUT gets the tables as Markdown, CSV, JSON and a page of HTML, inputs beside reconstructions, and ROC and PR
    curves. The same command continues an interrupted comparison.

    \b
    Example:
      onspect compare mnist/ -o mnist-1/ --normal 1 --seeds 3
      onspect compare cifar-10-batches-bin/ -o cifar-all/ --every-class --variants cae
    """
    from onspect.compare.experiments import InterruptedExperimentError
    from onspect.compare.run import Plan
    from onspect.compare.run import compare as run_comparison

    if every_class and normal:
        raise click.UsageError("--every-class makes each class normal in turn; leave out --normal")
    if "all" in scores:
        scores = _COMPARED
    plan = Plan(data, folder, variants, normal, every_class, seeds, epochs, preset, scores, limit, jobs)
    try:
        with usage_errors():
            paths = run_comparison(plan, _tell)
    except InterruptedExperimentError as error:
        raise click.ClickException("interrupted and saved; the same command continues") from error
    click.echo(paths[0].read_text(encoding="utf-8"), nl=False)
    say("wrote " + ", ".join(str(path) for path in paths))


def _tell(experiment: Experiment, place: int, count: int, words: str) -> None:
    say(f"[{place}/{count}] {experiment}: {words}")
