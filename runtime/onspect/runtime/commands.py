"""The runtime's commands: score, run and info."""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.bench_command import bench
from onspect.runtime.camera_commands import cameras
from onspect.runtime.console import Command, progress
from onspect.runtime.errors import DatasetError
from onspect.runtime.files import list_images
from onspect.runtime.options import conclude, overlay_sinks, overlays_option, provider_option, refuse_target
from onspect.runtime.run_command import run
from onspect.runtime.upkeep_commands import UPKEEP_COMMANDS

if TYPE_CHECKING:
    from onspect.runtime.inspector import Inspection, Inspector
    from onspect.runtime.sinks import Sink

_LOG = logging.getLogger("onspect")


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    help="Verdicts go here: .csv for CSV, any other name for JSONL, - for JSONL on stdout. An old file is replaced.",
)
@overlays_option
@provider_option
@click.option("--workers", type=click.IntRange(min=1), help="Threads, each from file to verdict [default: all cores].")
def score(
    model: Path, images: tuple[str, ...], output: str, overlays: Path | None, provider: str, workers: int | None
) -> None:
    """Judge image files with MODEL, one verdict a line.

    IMAGES are files, folders (with all below them), globs such as 'parts/*.png', or - for a list of paths on stdin.
    A file that cannot be judged becomes a line with the verdict "fault" and its reason, and the others go on. The exit
    code is 0 as long as one image could be judged.

    \b
    Example:
      onspect score part.onnx parts/test -o verdicts.jsonl --overlays overlays/
    """
    from onspect.runtime.sinks import open_sink

    inspector = _open_inspector(model, provider)
    paths = expand_images(images)
    kind = "csv" if output.lower().endswith(".csv") else "jsonl"
    refuse_target(output, [model, *paths])
    sinks = [
        open_sink(f"{kind}:{output}", append=False),
        *overlay_sinks(overlays, inspector, _common_root(paths), paths),
    ]
    inspections = inspector.examine_many(paths, workers=workers)
    if not (output == "-" and sys.stdout.isatty()):  # there a bar would be torn apart by the verdicts' lines
        inspections = progress(inspections, len(paths), "scoring")
    conclude(_deliver(inspections, sinks))


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The whole card as JSON.")
def info(model: Path, as_json: bool) -> None:
    """Show MODEL's card: network, input, score, threshold with its evidence, and where it comes from.

    \b
    Example:
      onspect info part.onnx
    """
    from onspect.runtime.card import describe
    from onspect.runtime.model_file import read_model_file

    file = read_model_file(model)
    if as_json:
        click.echo(json.dumps(file.info.to_dict() | {"sha256": file.sha256}, indent=2, ensure_ascii=False))
    else:
        click.echo(describe(file))


COMMANDS = (score, run, *UPKEEP_COMMANDS, cameras, bench, info)


def expand_images(arguments: tuple[str, ...]) -> list[Path]:
    """Return the image files that the arguments name, in their order.

    Raises DatasetError where one of them names nothing; a file named outright is taken whatever its ending, so that
    what was asked for is judged or is a fault.
    """
    paths: list[Path] = []
    for argument in arguments:
        paths += _read_list() if argument == "-" else _expand(argument)
    return paths


def _read_list() -> list[Path]:
    text = sys.stdin.buffer.read().decode(sys.stdin.encoding, "surrogateescape")  # a file's name may be any bytes
    paths = [Path(line.rstrip("\r")) for line in text.split("\n") if line.strip()]
    if not paths:
        raise DatasetError("the list on stdin names no image; give one path a line")
    return paths


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a parent may not be read
        images, others = list_images(path)
        if not images:
            raise DatasetError(f"there are no images in {argument!r} ({len(others)} other files); check the path")
        if others:
            endings = ", ".join(sorted({other.suffix or other.name for other in others})[:5])
            _LOG.warning("%d files in %r are not taken for images (%s)", len(others), argument, endings)
        return images
    if os.path.lexists(path) or not glob.has_magic(argument):
        return [path]
    matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [match for match in matches if not match.is_dir()]
    if not files:
        raise DatasetError(f"no file matches {argument!r}")
    if len(files) < len(matches) and "**" not in argument:
        _LOG.warning("%d folders match %r and are not looked into; name them", len(matches) - len(files), argument)
    return files


def _common_root(paths: list[Path]) -> Path:
    parents = {os.path.dirname(os.path.abspath(path)) for path in paths}  # noqa: PTH100, PTH120 - Path keeps '..'
    try:
        return Path(os.path.commonpath(parents))
    except ValueError:  # several drives on Windows
        return Path(min(parents))


def _open_inspector(model: Path, provider: str) -> Inspector:
    from onspect.runtime.decode import quieten_opencv
    from onspect.runtime.inspector import Inspector

    quieten_opencv()
    inspector = Inspector(model, provider=provider)
    _ = inspector.threshold
    return inspector


def _deliver(inspections: Iterable[Inspection], sinks: list[Sink]) -> Counter[str]:
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        for inspection in inspections:
            counts[inspection.verdict.verdict] += 1
            for sink in sinks:
                sink.write(inspection)
    return counts
