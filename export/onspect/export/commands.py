"""The export part's command: export."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.export.scores import SCORES, describe_scores
from onspect.runtime.cli.base import Command, progress, say, usage_errors

if TYPE_CHECKING:
    from onspect.runtime.images.region import RegionFile

_LOG = logging.getLogger("onspect")


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The model file, ending in .onnx.")
@click.option("--int8", is_flag=True, help="Convert layers to 8-bit integers, as far as the verdicts stay the same.")
@click.option("--fp16", is_flag=True, help="Convert layers to float16, for GPUs.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A dataset on whose val/ verdicts are compared; --int8 also takes the layers' ranges from its train/good.",
)
@click.option(
    "--max-flips",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="Verdicts that may differ [default: 0; with --int8 or --fp16, 1 for each 500 images].",
)
@click.option(
    "--score",
    type=click.Choice(list(SCORES)),
    metavar="SCORE",
    help=describe_scores(),
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="A black-and-white image of the part: white areas are inspected, black areas are ignored.",
)
@click.option(
    "--roi",
    multiple=True,
    metavar="X,Y,W,H|FILE",
    help="For a run on whole frames: places outside this region are ignored. To crop to a region, train with --roi.",
)
@click.option("--parts", is_flag=True, help="Also write OUTPUT.encoder.onnx and OUTPUT.decoder.onnx.")
def export(
    source: Path,
    output: Path,
    int8: bool,
    fp16: bool,
    data: Path | None,
    max_flips: int | None,
    score: str | None,
    mask: Path | None,
    roi: tuple[str, ...],
    parts: bool,
) -> None:
    """Write SOURCE, a trained run, as one ONNX model file; or convert a calibrated model file with --int8 or --fp16.

    Before the file is kept, onnxruntime runs it on real images. Its scores must agree with the trained model's to 1e-4
    of their value; with --data, its verdicts must agree too. It has no threshold yet; 'onspect calibrate' chooses one.

    --int8 and --fp16 change the scores, so the threshold is chosen again: by the policy of SOURCE's calibration, on the
    same images. At most --max-flips verdicts may differ from SOURCE's.

    \b
    Example:
      onspect export run/ -o part.onnx
      onspect calibrate part.onnx parts/ --max-fpr 0.5%
      onspect export part.onnx -o part-int8.onnx --int8 --data parts/
    """
    if roi and source.is_file():
        raise click.UsageError("--roi is for a trained run: a model file has its region already")
    precision = _check_usage(
        source, int8=int8, fp16=fp16, data=data, max_flips=max_flips, of_run=bool(score or parts or mask)
    )
    if precision != "fp32" and parts:
        raise click.UsageError(f"--parts and --{precision} exclude each other; export the parts in float32")
    options: dict[str, Any] = {
        "score": score,
        "max_flips": max_flips,
        "mask": mask,
        "region": _read_roi(roi),
        "progress": progress,
    }
    if precision != "fp32" and data is not None:
        _export_quantized(source, output, precision, data, options)
        return
    from onspect.export.onnx_writer import export as write_model

    exported = write_model(source, output, parts=parts, data=data, **options)
    for path in exported.paths:
        say(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    parity, agreement = exported.parity, exported.info.provenance.agreement
    if exported.info.score.inspected < 1.0:
        say(f"{exported.info.score.inspected:.2%} of the image is inspected")
    say(f"score {exported.info.score.name}")
    say(f"scores agree with the trained model to {parity.difference:.1e} on {parity.images} images")
    if agreement is not None:
        say(f"{agreement.flips} of {agreement.images} verdicts differ ({agreement.policy})")
    _say_next(output, source)


def _read_roi(roi: tuple[str, ...]) -> RegionFile | None:
    from onspect.runtime.images.region import parse_region

    with usage_errors():
        return parse_region(roi) if roi else None


def _check_usage(
    source: Path, *, int8: bool, fp16: bool, data: Path | None, max_flips: int | None, of_run: bool
) -> str:
    """Return the precision; raise a usage error if options exclude each other."""
    if int8 and fp16:
        raise click.UsageError("--int8 and --fp16 exclude each other; give one of them")
    precision = "int8" if int8 else "fp16" if fp16 else "fp32"
    if data is None and (precision != "fp32" or max_flips is not None):
        what = "--max-flips" if precision == "fp32" else f"--{precision}"
        raise click.UsageError(f"{what} needs --data DATA: the images on which verdicts are compared")
    if source.is_file() and precision == "fp32":
        raise click.UsageError(f"{str(source)!r} is a model file already; convert it with --int8 or --fp16")
    if source.is_file() and of_run:
        raise click.UsageError("--score, --mask and --parts are for a trained run: a model file has them in its graph")
    return precision


def _export_quantized(source: Path, output: Path, precision: str, data: Path, options: dict[str, Any]) -> None:
    from onspect.export.precision.tables import describe_quantized
    from onspect.runtime.images.decode import quieten_opencv

    quieten_opencv()
    if source.is_file():
        from onspect.export.precision.search import quantize

        reduced = quantize(source, output, precision, data, max_flips=options["max_flips"], progress=progress)
    else:
        from onspect.export.onnx_writer import export_quantized

        reduced = export_quantized(source, output, precision, data, **options)
    click.echo(describe_quantized(reduced))
    if options["score"] is None and not source.is_file():
        _LOG.warning(
            "a run in %s has the score %r of its autoencoder and no memory: to keep the memory, export and calibrate "
            "it in float32, then convert that file",
            precision,
            reduced.info.score.name,
        )
    if reduced.share < 0.5:
        _LOG.warning(
            "only %.0f%% of the weights could be reduced without more verdicts flipping, so the file gains little: "
            "keep float32, or allow more with --max-flips",
            100 * reduced.share,
        )
    say(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)")
    if reduced.info.threshold is None:
        _say_next(output, source)


def _say_next(output: Path, source: Path) -> None:
    say(f"next: onspect calibrate {shlex.quote(str(output))} {shlex.quote(_find_labelled(source))}")


def _find_labelled(source: Path) -> str:
    """Return the run's dataset folder if it has labelled images, otherwise the word DATA."""
    from onspect.runtime.dataset.folder import has_split
    from onspect.training.checkpoint import read_record

    if not source.is_dir():
        return "DATA"
    folder = Path(read_record(source).data.folder)
    if not has_split(folder, "val"):
        return "DATA"
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
