"""The commands for image files and for the model file itself: score and info."""

from __future__ import annotations

import codecs
import glob
import itertools
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.console import Command, progress, say, usage_errors
from onspect.runtime.engines.urls import expand_url, is_url
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.files import describe_left_out, walk_files
from onspect.runtime.options import conclude, overlay_sinks, overlays_option, provider_option, refuse_target
from onspect.runtime.secrets import redact

if TYPE_CHECKING:
    from onspect.runtime.inspector import Inspector
    from onspect.runtime.sinks.lines import JsonlSink
    from onspect.runtime.sinks.overlays import OverlaySink
    from onspect.runtime.verdict import Verdict

_LOG = logging.getLogger("onspect")


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    help="Verdicts go here: .csv for CSV, any other name for JSONL, - for JSONL on stdout. An old file is replaced. "
    "With Ray a folder of partitions, or its URL: .parquet for Parquet, any other name for JSONL.",
)
@overlays_option
@provider_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads, each from file to verdict; with Ray processes [default: all cores].",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Ray: for archives, on one machine or many; images may be URLs such as s3://bucket/images.",
)
@click.option("--address", help="With Ray: the running cluster to join, auto or HOST:PORT [default: one of its own].")
@click.option(
    "--resume", is_flag=True, help="Go on where an interrupted run into the same JSONL file (or folder) stopped."
)
def score(
    model: Path,
    images: tuple[str, ...],
    output: str,
    overlays: Path | None,
    provider: str,
    workers: int | None,
    engine: str,
    address: str | None,
    resume: bool,
) -> None:
    """Judge image files with MODEL, one verdict a line.

    IMAGES are files, folders (with all below them), globs such as 'parts/*.png', or - for a list of paths on stdin.
    A file that cannot be judged becomes a line with the verdict "fault" and its reason, and the others go on. The exit
    code is 0 as long as one image could be judged.

    Ctrl-C leaves whole lines. With --resume the same command goes on behind them, as long as images, model and
    threshold are the same.

    \b
    Example:
      onspect score part.onnx parts/test -o verdicts.jsonl --overlays overlays/
      onspect score part.onnx s3://plant/2026/ -o verdicts.parquet --engine ray
    """
    if engine == "ray":
        if output == "-" or overlays is not None:
            raise click.UsageError("--engine ray writes partitions: give their folder with -o, and no --overlays")
        _score_on_ray(model, images, output, provider, workers, address, resume)
        return
    if address is not None:
        raise click.UsageError("--address is of a Ray cluster: add --engine ray")
    with usage_errors():
        _check_resume(output, resume)
    inspector = _open_inspector(model, provider)
    from onspect.runtime.batch import choose_batch
    from onspect.runtime.sinks.lines import CsvSink, JsonlSink

    with usage_errors():
        paths = expand_images(images)
    kind = CsvSink if output.lower().endswith(".csv") else JsonlSink
    refuse_target(output, itertools.chain([model], paths))
    counts: Counter[str] = _count_judged(Path(output), paths, inspector) if resume else Counter()
    done = counts.total()
    sink = kind(None if output == "-" else Path(output), append=resume)
    drawing = overlay_sinks(overlays, _common_root(paths), paths)
    verdicts = _judge(inspector, paths, drawing, workers, done)
    if not (output == "-" and sys.stdout.isatty()):  # there a bar would be torn apart by the verdicts' lines
        verdicts = progress(verdicts, len(paths) - done, "scoring")
    size = 1 if drawing else choose_batch(inspector.info.preprocess, inspector.provider)
    reasons: Counter[str] = Counter()
    try:
        _deliver(verdicts, sink, size, counts, reasons)
    except KeyboardInterrupt:
        cure = "; the same command with --resume goes on" if kind is JsonlSink and output != "-" else ""
        say(f"stopped after {counts.total()} of {len(paths)} images, whose lines are whole{cure}")
        raise
    conclude(counts, reasons)


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


def expand_images(arguments: tuple[str, ...]) -> list[str]:
    """Return the paths of the image files that the arguments name, in their order.

    Raises DatasetError where one of them names nothing, ChoiceError where it is a URL; a file named outright is taken
    whatever its ending, so that what was asked for is judged or is a fault.
    """
    paths: list[str] = []
    for argument in arguments:
        named = _read_list() if argument == "-" else [argument]
        if url := next(filter(is_url, named), None):
            raise ChoiceError(
                f"{redact(url)!r} is a URL, which 'onspect score --engine ray' reads (pip install 'onspect[ray]'); "
                "give a file or a folder"
            )
        paths += [str(Path(line)) for line in named] if argument == "-" else _expand(argument)
    return paths


def expand_sources(arguments: tuple[str, ...]) -> list[str]:
    """Return the images that the arguments name as paths and URLs, in their order; errors as `expand_images`."""
    sources: list[str] = []
    for argument in arguments:
        if argument == "-":
            sources += _read_list()
        else:
            sources += expand_url(argument) if is_url(argument) else _expand(argument)
    return sources


def _read_list() -> list[str]:
    """Return the paths on stdin, one a line: UTF-8 with or without a mark at its start, or UTF-16 with one."""
    data = sys.stdin.buffer.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DatasetError("the list on stdin begins as UTF-16 and is none; write it as UTF-8") from error
    elif max(data[::2].count(0), data[1::2].count(0)) > len(data) // 4:
        raise DatasetError("the list on stdin has zero bytes, as UTF-16 without a mark does; write it as UTF-8")
    else:
        data = data.removeprefix(codecs.BOM_UTF8)
        text = data.decode(sys.stdin.encoding, "surrogateescape")  # a file's name may be any bytes
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise DatasetError("the list on stdin names no image; give one path a line")
    return lines


def _expand(argument: str) -> list[str]:
    path = Path(argument)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a parent may not be read
        return _list_folder(path, argument)
    if os.path.lexists(path) or not glob.has_magic(argument):
        return [str(path)]
    matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [str(match) for match in matches if not match.is_dir()]
    if not files:
        raise DatasetError(f"no file matches {argument!r}")
    if len(files) < len(matches) and "**" not in argument:
        count = len(matches) - len(files)
        _LOG.warning(
            "%d folder%s matched by %r %s left out; name %s",
            count,
            "s" * (count != 1),
            argument,
            "is" if count == 1 else "are",
            "it" if count == 1 else "them",
        )
    return files


def _list_folder(folder: Path, argument: str) -> list[str]:
    images: list[str] = []
    others: list[str] = []
    for path, is_image in walk_files(folder):
        (images if is_image else others).append(path)
    words = describe_left_out(others, folder)
    if not images:
        left_out = words or "0 other files"
        raise DatasetError(f"there are no images in {argument!r} (left out: {left_out}); check the path")
    if words:
        _LOG.warning("left out in %r: %s", argument, words)
    return images


def _common_root(paths: list[str]) -> Path:
    parents = {os.path.dirname(os.path.abspath(path)) for path in paths}  # noqa: PTH100, PTH120 - Path keeps '..'
    try:
        return Path(os.path.commonpath(parents))
    except ValueError:  # several drives on Windows
        return Path(min(parents))


def _open_inspector(model: Path, provider: str) -> Inspector:
    """Load a calibrated model: it is read while onnxruntime is loaded, and opened while OpenCV and all others are."""
    from concurrent.futures import ThreadPoolExecutor

    from onspect.runtime.model_file import read_model_file

    # numpy's linear algebra, of which nothing is used here, else spins on all cores for a tenth of a second
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_model_file, model)
        from onspect.runtime.session import load_model

        loading = pool.submit(load_model, reading.result(), provider=provider)
        import onspect.runtime.batch
        import onspect.runtime.sinks.lines  # noqa: F401 - needed soon
        from onspect.runtime.decode import quieten_opencv
        from onspect.runtime.inspector import Inspector

        quieten_opencv()
        inspector = Inspector(loading.result())
    _ = inspector.threshold
    return inspector


def _check_resume(output: str, resume: bool) -> None:
    if resume and (output == "-" or output.lower().endswith(".csv")):
        raise ChoiceError(f"--resume goes on with a JSONL file, and the output is {output!r}; give one with -o")


def _count_judged(output: Path, paths: list[str], inspector: Inspector) -> Counter[str]:
    from onspect.runtime.resume import count_judged

    counts = count_judged(output, paths, inspector)
    say(f"{counts.total()} of {len(paths)} images have been judged already")
    return counts


def _judge(
    inspector: Inspector, paths: list[str], drawing: list[OverlaySink], workers: int | None, done: int
) -> Iterator[Verdict]:
    """Judge the paths behind the first so many, and draw them where there is a sink for that."""
    from onspect.runtime.batch import draw_files, judge_files

    if not drawing:
        return judge_files(inspector, paths[done:], workers=workers, first_index=done)
    (sink,) = drawing
    for path in paths[:done]:
        sink.place(path)  # so that no later one takes its file
    return draw_files(inspector, paths[done:], sink.place, sink.draw, workers=workers, first_index=done)


def _score_on_ray(
    model: Path,
    images: tuple[str, ...],
    output: str,
    provider: str,
    workers: int | None,
    address: str | None,
    resume: bool,
) -> None:
    from onspect.runtime.decode import quieten_opencv
    from onspect.runtime.engines.on_ray import load_ray, score_on_ray
    from onspect.runtime.model_file import read_model_file

    load_ray(address)  # that it is missing is said before the images are listed, which may take long
    quieten_opencv()
    file = read_model_file(model)
    refuse_target(output, [model])
    with usage_errors():
        sources = expand_sources(images)
        verdicts = score_on_ray(
            file, sources, output, provider=provider, workers=workers, address=address, resume=resume
        )
    try:
        conclude(Counter(progress(verdicts, len(sources), "scoring")))
    except KeyboardInterrupt:
        say(f"stopped; what is written in {output!r} stays: --resume goes on")
        raise


def _deliver(
    verdicts: Iterator[Verdict], sink: JsonlSink, size: int, counts: Counter[str], reasons: Counter[str]
) -> None:
    """Write verdicts in groups of so many, and count those that are written and the reasons of faults."""
    from onspect.runtime.batch import batched
    from onspect.runtime.inspector import Inspection

    with sink:
        for some in batched(verdicts, size):
            sink.write_many([Inspection.without_picture(verdict) for verdict in some])
            counts.update(verdict.verdict for verdict in some)
            reasons.update(verdict.reason or "" for verdict in some if verdict.verdict == "fault")
