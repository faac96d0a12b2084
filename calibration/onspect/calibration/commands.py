"""The calibration part's commands: calibrate, threshold and evaluate."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.cli.base import Command, parse_rate, say

if TYPE_CHECKING:
    from onspect.calibration.calibration import Outcome
    from onspect.calibration.regions import RegionDemand
    from onspect.calibration.review import Band
    from onspect.calibration.thresholds import Policy

_LOG = logging.getLogger("onspect")

_SPLITS = click.Choice(["val", "test"])


def _parse_costs(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, float] | None:
    """Return the costs written ``1:50``; a usage error where they are none."""
    if text is None:
        return None
    try:
        reject, escape = (float(part) for part in text.split(":"))
    except ValueError:
        reject, escape = 0.0, 0.0
    if not (0 < reject < float("inf") and 0 < escape < float("inf")):
        raise click.BadParameter(f"{text!r} is no pair of costs above 0; write 1:50", context, option)
    return reject, escape


def _policy_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose a threshold, the same for calibrate and threshold."""
    options = [
        click.option("--max-f1", is_flag=True, help="Highest F1."),
        click.option("--youden", is_flag=True, help="Highest recall minus false-reject rate."),
        click.option(
            "--cost",
            "costs",
            metavar="FP:FN",
            callback=_parse_costs,
            help="Lowest cost, of a false reject and of an escape, as 1:50.",
        ),
        click.option(
            "--prevalence",
            metavar="RATE",
            callback=parse_rate,
            help="With --cost: the line's share of defective parts. [default: the share among the images]",
        ),
        click.option("--max-fpr", metavar="RATE", callback=parse_rate, help="Reject at most this share of good parts."),
        click.option(
            "--min-recall", metavar="RATE", callback=parse_rate, help="Catch at least this share of defective parts."
        ),
        click.option(
            "--quantile",
            metavar="RATE",
            callback=parse_rate,
            help="Pass this share of good parts; needs no defects.",
        ),
        click.option(
            "--conformal",
            metavar="RATE",
            callback=parse_rate,
            help="Promise at most this rate of false rejects of new good parts, from good images alone.",
        ),
        click.option(
            "--review", is_flag=True, help="Send to a person what scores from the threshold's 95% interval on."
        ),
        click.option(
            "--review-recall",
            metavar="RATE",
            callback=parse_rate,
            help="Send to a person what scores below the threshold, down to where this share of defects is seen.",
        ),
        click.option(
            "--review-share",
            metavar="RATE",
            callback=parse_rate,
            help="Send at most this share of good parts to a person: those that score next to the threshold.",
        ),
        click.option(
            "--strict",
            is_flag=True,
            help="Fail where the images are too few for what is asked for, a good one's score stands alone, or the "
            "model does not tell good from defective.",
        ),
        click.option("--trim", is_flag=True, help="Leave out good images whose score stands alone."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@_policy_options
@click.option(
    "--pixel-fpr",
    metavar="RATE",
    callback=parse_rate,
    help="Regions: mark at most this share of the pixels of good parts.",
)
@click.option("--pixel-f1", is_flag=True, help="Regions: mark pixels with the highest F1 against the masks.")
@click.option(
    "--region-fpr",
    metavar="RATE",
    callback=parse_rate,
    help="Leave out regions so small that at most this share of good parts shows one.",
)
@click.option(
    "--region-area",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Leave out regions of fewer pixels of the error map.",
)
@click.option("--split", type=_SPLITS, default="val", show_default=True, help="The folder of DATA to calibrate on.")
@click.option("--skip-training-images", is_flag=True, help="Leave out images that the model was trained on.")
@click.option("--allow-training-images", is_flag=True, help="Use images that the model was trained on.")
def calibrate(
    model: Path,
    data: Path,
    costs: tuple[float, float] | None,
    prevalence: float | None,
    pixel_fpr: float | None,
    pixel_f1: bool,
    region_fpr: float | None,
    region_area: int | None,
    split: str,
    review: bool,
    review_recall: float | None,
    review_share: float | None,
    strict: bool,
    trim: bool,
    skip_training_images: bool,
    allow_training_images: bool,
    **policies: Any,
) -> None:
    """Set MODEL's threshold from the labelled images of DATA and stamp it into the file.

    DATA holds val/good/ and val/DEFECT/ (or good/ and DEFECT/, or only good images). Rates are written 0.5% or 0.005.
    Without a policy, --max-f1 is taken where there are defects, else --quantile 99%.

    \b
    Example:
      onspect calibrate part.onnx parts/ --max-fpr 0.5%
    """
    policy = _choose_policy(policies | {"cost": costs}, prevalence)
    band = _choose_band(review, review_recall, review_share)
    regions = _choose_regions(pixel_fpr, pixel_f1, region_fpr, region_area)
    if skip_training_images and allow_training_images:
        raise click.UsageError("--skip-training-images and --allow-training-images exclude each other; give one")
    from onspect.calibration.calibration import calibrate as run_calibration
    from onspect.runtime.images.decode import quieten_opencv

    quieten_opencv()
    outcome = run_calibration(
        model,
        data,
        split=split,
        policy=policy,
        band=band,
        regions=regions,
        strict=strict,
        trim=trim,
        training="skip" if skip_training_images else "allow" if allow_training_images else "refuse",
    )
    _report(outcome, model)


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--set", "value", type=float, metavar="SCORE", help="This very score.")
@_policy_options
@click.option("--undo", is_flag=True, help="Go back to the threshold before this one.")
def threshold(
    model: Path,
    value: float | None,
    costs: tuple[float, float] | None,
    prevalence: float | None,
    review: bool,
    review_recall: float | None,
    review_share: float | None,
    strict: bool,
    trim: bool,
    undo: bool,
    **policies: Any,
) -> None:
    """Move MODEL's threshold by the scores that its calibration left in it, without images.

    The graph's bytes stay as they are, and the old threshold stays in the file's history.

    \b
    Example:
      onspect threshold part.onnx --max-fpr 0.5%
      onspect threshold part.onnx --undo
    """
    policy = _choose_policy(policies | {"cost": costs}, prevalence)
    band = _choose_band(review, review_recall, review_share)
    if [undo, value is not None, policy is not None].count(True) != 1:
        raise click.UsageError("give one of --set SCORE, a policy such as --max-fpr 0.5%, and --undo")
    if undo:
        if band is not None or strict or trim:
            raise click.UsageError("--undo brings back a threshold as it was; give it alone")
        _undo(model)
        return
    from onspect.calibration.calibration import move_threshold
    from onspect.calibration.thresholds import Policy

    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite score", param_hint="--set")
    outcome = move_threshold(model, policy or Policy("manual", value=value), band=band, strict=strict, trim=trim)
    _report(outcome, model)


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for report.html and metrics.json; an older report in it is replaced.",
)
@click.option("--split", type=_SPLITS, default="test", show_default=True, help="The folder of DATA to evaluate on.")
@click.option("--title", help="The report's heading. [default: the model's and the data's names]")
@click.option("--strict", is_flag=True, help="Fail where the model does not tell good from defective images.")
def evaluate(model: Path, data: Path, output: Path, split: str, title: str | None, strict: bool) -> None:
    """Measure the calibrated MODEL on the labelled images of DATA and write a report.

    \b
    Example:
      onspect evaluate part.onnx parts/ -o report/
    """
    from onspect.calibration.evaluation import evaluate as run_evaluation
    from onspect.calibration.report.acceptance import list_broken_promises
    from onspect.calibration.report.page import write_report
    from onspect.calibration.report.tables import describe_evaluation
    from onspect.calibration.scores import find_images, name_source
    from onspect.runtime.atomic import make_folder
    from onspect.runtime.errors import DatasetError
    from onspect.runtime.images.decode import quieten_opencv
    from onspect.runtime.inspection.inspector import Inspector
    from onspect.runtime.model.file import read_model_file

    quieten_opencv()
    file = read_model_file(model)
    inspector = Inspector(file)
    _ = inspector.threshold  # an uncalibrated model is refused before any work
    images = find_images(data, split)
    make_folder(output)
    evaluation = run_evaluation(inspector, file, images, source=name_source(data, split))
    page = write_report(output, evaluation, inspector, title or f"{file.info.name} on {data.resolve().name}")
    _warn(evaluation.blindness, [*evaluation.list_warnings(), *list_broken_promises(evaluation)])
    click.echo(describe_evaluation(evaluation))
    say(f"report: {page}")
    if strict and evaluation.blindness:
        raise DatasetError(f"--strict: {'; '.join(evaluation.blindness)}; the report says more: {page}")


def _report(outcome: Outcome, model: Path) -> None:
    from onspect.calibration.report.tables import describe_outcome

    _warn(outcome.blindness, outcome.notes)
    click.echo(describe_outcome(outcome))
    say(f"stamped into {model}")


def _warn(blindness: Sequence[str], notes: Sequence[str]) -> None:
    """Print what makes a result less sure; that the model is of no use stands in red, whatever the command's -q."""
    for sentence in blindness:
        _LOG.error("%s", click.style(sentence, fg="red", bold=True))
    for note in notes:
        _LOG.warning("%s", note)


def _undo(model: Path) -> None:
    from onspect.runtime.model.file import read_model_file, undo_restamp

    info = undo_restamp(read_model_file(model))
    assert info.threshold is not None
    say(f"{model} is back at the threshold {info.threshold.score:.6g}")


def _choose_policy(policies: dict[Any, Any], prevalence: float | None) -> Policy | None:
    """Return the policy that the options name, None where they name none; a usage error where they clash."""
    from onspect.calibration.thresholds import Policy

    given = {name: value for name, value in policies.items() if value is not None and value is not False}
    if prevalence is not None and "cost" not in given:
        raise click.UsageError("--prevalence goes with --cost FP:FN; give both")
    if len(given) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{options} exclude each other; give one of them")
    if not given:
        return None
    ((name, value),) = given.items()
    if name == "cost":
        return Policy(name, costs=value, prevalence=prevalence)
    return Policy(name, None if value is True else value)


def _choose_band(review: bool, recall: float | None, share: float | None) -> Band | None:
    """Return the review band that the options name, None where they name none; a usage error where they clash."""
    from onspect.calibration.review import Band

    bands = [Band("review_interval")] if review else []
    bands += [] if recall is None else [Band("review_recall", recall)]
    bands += [] if share is None else [Band("review_share", share)]
    if len(bands) > 1:
        raise click.UsageError("--review, --review-recall and --review-share exclude each other; give one of them")
    return bands[0] if bands else None


def _choose_regions(
    pixel_fpr: float | None, pixel_f1: bool, region_fpr: float | None, region_area: int | None
) -> RegionDemand:
    """Return what the options ask of regions; a usage error where they clash."""
    from onspect.calibration.regions import RegionDemand
    from onspect.runtime.model.schema import Rule

    if pixel_f1 and pixel_fpr is not None:
        raise click.UsageError("--pixel-fpr and --pixel-f1 exclude each other; give one of them")
    if region_fpr is not None and region_area is not None:
        raise click.UsageError("--region-fpr and --region-area exclude each other; give one of them")
    pixels = Rule("pixel_f1") if pixel_f1 else None if pixel_fpr is None else Rule("pixel_fpr", rate=pixel_fpr)
    if region_fpr is not None:
        return RegionDemand(pixels, Rule("region_fpr", rate=region_fpr))
    return RegionDemand(pixels, None if region_area is None else Rule("region_area", value=region_area))
