"""The command `onspect score`."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.cli.base import Command, progress, say, usage_errors
from onspect.runtime.cli.images import common_root, expand_images, expand_sources
from onspect.runtime.cli.options import conclude, overlay_options, overlay_sinks, provider_option
from onspect.runtime.sinks.targets import refuse_target

if TYPE_CHECKING:
    from onspect.runtime.inspection.inspector import Inspector
    from onspect.runtime.inspection.verdict import Verdict
    from onspect.runtime.sinks.lines import JsonlSink
    from onspect.runtime.sinks.overlays import OverlaySink

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
@overlay_options
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
@click.option("--resume", is_flag=True, help="Continue an interrupted run into the same JSONL file (or folder).")
def score(
    model: Path,
    images: tuple[str, ...],
    output: str,
    overlays: Path | None,
    overlay_style: str,
    overlay_format: str,
    provider: str,
    workers: int | None,
    engine: str,
    address: str | None,
    resume: bool,
) -> None:
    """Judge image files with MODEL, one verdict a line.

    IMAGES are files, folders (with all below them), globs such as 'parts/*.png', or - for a list of paths on stdin.
    A file that cannot be judged becomes a line with the verdict "fault" and its reason; the others are judged. The exit
    code is 0 if at least one image could be judged.

    Ctrl-C leaves whole lines. With --resume the same command continues after them, if images, model and threshold have
    not changed.

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
    if resume and (output == "-" or output.lower().endswith(".csv")):
        raise click.UsageError(f"--resume continues a JSONL file, and the output is {output!r}; give one with -o")
    inspector = _open_inspector(model, provider)
    from onspect.runtime.inspection.batch import choose_batch
    from onspect.runtime.sinks.lines import CsvSink, JsonlSink

    with usage_errors():
        paths = expand_images(images)
    kind = CsvSink if output.lower().endswith(".csv") else JsonlSink
    refuse_target(output, itertools.chain([model], paths))
    counts: Counter[str] = Counter()
    if resume:
        from onspect.runtime.inspection.resume import count_judged

        counts = count_judged(Path(output), paths, inspector)
        say(f"{counts.total()} of {len(paths)} images have been judged already")
    done = counts.total()
    sink = kind(None if output == "-" else Path(output), append=resume)
    drawing = overlay_sinks(overlays, common_root(paths), paths, style=overlay_style, ending=overlay_format)
    verdicts = _judge(inspector, paths, drawing, workers, done)
    if not (output == "-" and sys.stdout.isatty()):  # the lines of the verdicts would break the bar on a terminal
        verdicts = progress(verdicts, len(paths) - done, "scoring")
    size = 1 if drawing else choose_batch(inspector.info.preprocess, inspector.provider)
    reasons: Counter[str] = Counter()
    try:
        _deliver(verdicts, sink, size, counts, reasons)
    except KeyboardInterrupt:
        cure = "; the same command with --resume continues" if kind is JsonlSink and output != "-" else ""
        say(f"stopped after {counts.total()} of {len(paths)} images; their lines are complete{cure}")
        raise
    conclude(counts, reasons)


def _open_inspector(model: Path, provider: str) -> Inspector:
    """Load a calibrated model. The file is read while onnxruntime is loaded, and opened while OpenCV and others are."""
    from concurrent.futures import ThreadPoolExecutor

    from onspect.runtime.model.file import read_model_file

    # otherwise numpy's linear algebra, which is not used here, keeps all cores busy for a tenth of a second
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_model_file, model)
        from onspect.runtime.model.session import load_model

        loading = pool.submit(load_model, reading.result(), provider=provider)
        import onspect.runtime.inspection.batch
        import onspect.runtime.sinks.lines  # noqa: F401 - needed soon
        from onspect.runtime.images.decode import quieten_opencv
        from onspect.runtime.inspection.inspector import Inspector

        quieten_opencv()
        inspector = Inspector(loading.result())
    _ = inspector.threshold
    return inspector


def _judge(
    inspector: Inspector, paths: list[str], drawing: list[OverlaySink], workers: int | None, done: int
) -> Iterator[Verdict]:
    """Judge the paths after those that are done, and draw them if there is a sink for overlays."""
    from onspect.runtime.inspection.batch import draw_files, judge_files

    if not drawing:
        return judge_files(inspector, paths[done:], workers=workers, first_index=done)
    (sink,) = drawing
    for path in paths[:done]:
        sink.place(path)  # so that no later image gets its file
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
    from onspect.runtime.images.decode import quieten_opencv
    from onspect.runtime.model.file import read_model_file
    from onspect.runtime.ray.judge import load_ray, score_on_ray

    load_ray(address)  # report a missing package before the images are listed, which may take long
    quieten_opencv()
    file = read_model_file(model)
    refuse_target(output, [model])
    with usage_errors():
        sources = expand_sources(images)
        verdicts = score_on_ray(
            file, sources, output, provider=provider, workers=workers, address=address, resume=resume, tell=say
        )
    try:
        conclude(Counter(progress(verdicts, len(sources), "scoring")))
    except KeyboardInterrupt:
        say(f"stopped; the verdicts in {output!r} are kept: --resume continues")
        raise


def _deliver(
    verdicts: Iterator[Verdict], sink: JsonlSink, size: int, counts: Counter[str], reasons: Counter[str]
) -> None:
    """Write verdicts in groups, and count the written ones and the reasons of faults."""
    from onspect.runtime.inspection.batch import batched
    from onspect.runtime.inspection.inspector import Inspection

    with sink:
        for some in batched(verdicts, size):
            sink.write_many([Inspection.without_picture(verdict) for verdict in some])
            counts.update(verdict.verdict for verdict in some)
            reasons.update(verdict.reason or "" for verdict in some if verdict.verdict == "fault")
