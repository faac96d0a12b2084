"""The runtime's commands: score, run and info."""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.camera_commands import cameras
from onspect.runtime.console import Command, progress, say, usage_errors
from onspect.runtime.errors import DatasetError, OutputError, SourceError
from onspect.runtime.files import IMAGE_SUFFIXES, list_images
from onspect.runtime.upkeep_commands import UPKEEP_COMMANDS

if TYPE_CHECKING:
    from onspect.runtime.inspector import Inspector
    from onspect.runtime.sinks import Sink

_LOG = logging.getLogger("onspect")

_provider_option = click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="What onnxruntime runs on; falls back with a warning.",
)
_overlays_option = click.option(
    "--overlays",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each image with heat map, boxes and verdict into this folder.",
)


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
@_overlays_option
@_provider_option
@click.option("--workers", type=click.IntRange(min=1), help="Threads, each from file to verdict [default: all cores].")
def score(
    model: Path, images: tuple[str, ...], output: str, overlays: Path | None, provider: str, workers: int | None
) -> None:
    """Judge image files with MODEL, one verdict a line.

    IMAGES are files, folders (with all below them), globs such as 'parts/*.png', or - for a list of paths on stdin.
    A file that cannot be judged becomes a line with the verdict "fault" and its reason, and the others go on.

    \b
    Example:
      onspect score part.onnx parts/test -o verdicts.jsonl --overlays overlays/
    """
    from onspect.runtime.sinks import open_sink

    inspector = _open_inspector(model, provider)
    paths = expand_images(images)
    kind = "csv" if output.lower().endswith(".csv") else "jsonl"
    _refuse_target(output, [model, *paths])
    sinks = [
        open_sink(f"{kind}:{output}", append=False),
        *_overlay_sinks(overlays, inspector, _common_root(paths), paths),
    ]
    inspections = inspector.examine_many(paths, workers=workers)
    if not (output == "-" and sys.stdout.isatty()):  # there a bar would be torn apart by the verdicts' lines
        inspections = progress(inspections, len(paths), "scoring")
    _deliver(inspections, sinks)


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source")
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    default=("jsonl:-",),
    show_default=True,
    metavar="KIND:FILE",
    help="Where verdicts go: jsonl:FILE or csv:FILE, appended to; - is stdout. May be given several times.",
)
@_overlays_option
@_provider_option
def run(model: Path, source: str, sinks: tuple[str, ...], overlays: Path | None, provider: str) -> None:
    """Judge the frames of SOURCE, a video file or a folder of images, in order.

    \b
    Example:
      onspect run part.onnx line.mp4 --sink jsonl:verdicts.jsonl
    """
    from onspect.runtime.drift import warn_of_drift
    from onspect.runtime.line import inspect_source
    from onspect.runtime.sinks import open_sink
    from onspect.runtime.sources import open_source

    inspector = _open_inspector(model, provider)
    captures = open_source(source)
    root = Path(source).absolute()
    if overlays is not None and not root.is_dir():
        raise SourceError("--overlays draws on image files: give a folder of images as the source, not a video")
    with usage_errors():
        opened = [open_sink(text, append=True) for text in sinks]
    for text in sinks:
        _refuse_target(text.partition(":")[2], [model, root])
    images = [] if overlays is None else list_images(root)[0]
    inspections = warn_of_drift(inspect_source(inspector, captures), inspector.info)
    _deliver(inspections, [*opened, *_overlay_sinks(overlays, inspector, root, images)])


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


COMMANDS = (score, run, *UPKEEP_COMMANDS, cameras, info)


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


def _refuse_target(target: str, inputs: Iterable[Path]) -> None:
    """Raise OutputError where verdicts would replace an input, or an image, as the shell makes of ``-o *.png``."""
    path = Path(target)
    if path.suffix.lower() in IMAGE_SUFFIXES | {".onnx"} or any(_is_same_file(path, other) for other in inputs):
        raise OutputError(f"{target!r} is an input, not a file for verdicts; give one such as verdicts.jsonl")


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them is not there, or no file can have its name
        return False


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


def _overlay_sinks(folder: Path | None, inspector: Inspector, root: Path, images: list[Path]) -> list[Sink]:
    if folder is None:
        return []
    target = folder.resolve()
    if any(parent.resolve().is_relative_to(target) for parent in {image.parent for image in images}):
        raise OutputError(f"images to be judged lie in {str(folder)!r}; give another folder for the overlays")
    from onspect.runtime.sinks.overlays import OverlaySink

    recipe = inspector.info.preprocess
    return [
        OverlaySink(folder, root=root, map_threshold=inspector.threshold.map, white_level=recipe.white_level),
    ]


def _deliver(inspections: Iterator[Any], sinks: list[Sink]) -> None:
    from onspect.runtime.line import deliver

    with ExitStack() as stack:
        counts = deliver(inspections, [stack.enter_context(sink) for sink in sinks])
    total = sum(counts.values())
    parts = ", ".join(f"{counts[name]} {name}" for name in ("ok", "ng", "review", "fault") if counts[name])
    say(f"{total} image{'s' * (total != 1)}: {parts}" if total else "no frame was judged: the source is empty")
    if total and counts["fault"] == total:
        raise SourceError(f"none of the {total} images could be judged; each line's reason says why")
