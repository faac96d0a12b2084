"""The command `onspect split`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from onspect.runtime.cli.base import Command, progress, say, usage_errors
from onspect.runtime.errors import OutputError

_LOG = logging.getLogger("onspect")


def _read_shares(context: click.Context, option: click.Parameter, text: str) -> tuple[float, float, float]:
    try:
        train, val, test = (float(word) for word in text.split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not three shares such as 60:20:20", context, option) from None
    return train, val, test


def _read_defects(context: click.Context, option: click.Parameter, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        kind, _, pattern = text.partition("=")
        if not kind or not pattern:
            raise click.BadParameter(f"{text!r} is not a kind and a pattern such as 'scratch=*_scr*'", context, option)
        pairs.append((kind, pattern))
    return tuple(pairs)


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder for train, val and test."
)
@click.option(
    "--labels", type=click.Path(path_type=Path), help="A CSV file with the columns file and label [default: see below]."
)
@click.option("--good", multiple=True, metavar="PATTERN", help="File names of good parts, such as 'IMG_1*'.")
@click.option(
    "--defect",
    "defects",
    metavar="KIND=PATTERN",
    callback=_read_defects,
    multiple=True,
    help="File names of a defect: 'scratch=*_scr*'.",
)
@click.option("--group", metavar="REGEX", help="Keep pictures with the same match, such as '^(part\\d+)_', together.")
@click.option(
    "--shares",
    metavar="TRAIN:VAL:TEST",
    callback=_read_shares,
    default="60:20:20",
    show_default=True,
    help="Shares of the good pictures.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random choice.")
@click.option("--link", is_flag=True, help="Symbolic links to the pictures instead of copies.")
def split(
    folder: Path,
    output: Path,
    labels: Path | None,
    good: tuple[str, ...],
    defects: tuple[tuple[str, str], ...],
    group: str | None,
    shares: tuple[float, float, float],
    seed: int,
    link: bool,
) -> None:
    """Split the pictures of FOLDER into train, val and test.

    Without --labels, --good and --defect, FOLDER itself says which parts are good: by names such as good_1.png and
    bad_1.png, by a labels.csv, by masks, or by folders such as good/ and scratch/. Train gets good parts only.
    Equal files stay on one side; give --group if a part has several pictures. Nothing is overwritten.

    \b
    Example:
      onspect split photos/ -o parts/
      onspect split photos/ --labels list.csv --group '^(part\\d+)_' -o parts/
      onspect split photos/ --good '*' --defect 'scratch=*_scr*' -o parts/
    """
    from onspect.runtime.dataset.split import NamePatterns, describe_split, plan_split, write_split

    if output.exists() and output.resolve() == folder.resolve():
        raise OutputError(f"{str(output)!r} is the folder of the pictures; give another one with -o")
    with usage_errors():
        plan = plan_split(
            folder,
            labels=labels,
            patterns=NamePatterns(good, defects) if good or defects else None,
            group=group,
            shares=shares,
            seed=seed,
        )
    if not any(placed.image.defective for placed in plan):
        words = "no label or name marks any of the %d pictures as defective: all are taken as good parts"
        _LOG.warning(words, len(plan))
    write_split(plan, output, link=link, progress=progress)
    say(f"{output}: {describe_split(plan)}")
    grouped = "" if group is None else f" --group {shlex.quote(group)}"
    say(f"next: onspect teach {shlex.quote(str(output / 'train' / 'good'))}{grouped} -o part.onnx")
