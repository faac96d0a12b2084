"""The calibration part's commands: calibrate, threshold and evaluate."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.cli.base import Command, parse_rate, progress, say, usage_errors, wrap

if TYPE_CHECKING:
    from onspect.calibration.rules import OptionSpec
    from onspect.calibration.stamping import CalibrationResult

_LOG = logging.getLogger("onspect")

_SPLITS = click.Choice(["val", "test"])


def _parse_costs(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, float] | None:
    """Return the costs written ``1:50``; usage error if they are not valid."""
    if text is None:
        return None
    try:
        reject, escape = (float(part) for part in text.split(":"))
    except ValueError:
        reject, escape = 0.0, 0.0
    if not (0 < reject < float("inf") and 0 < escape < float("inf")):
        raise click.BadParameter(f"{text!r} is not a pair of costs above 0; write 1:50", context, option)
    return reject, escape


class _PolicyCommand(Command):
    """A command with an option for each policy and each review band.

    The options are made from the tables only when they are needed: the tables load numpy, which `onspect --help` must
    not.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's parameters, with the options of the rules after the leading ones.

        Parameters
        ----------
        ctx
            Context of the command.

        Returns
        -------
        list[click.Parameter]
            Parameters in the order of the help.
        """
        if not any(option.name == "strict" for option in self.params):
            from onspect.calibration.review import Band
            from onspect.calibration.thresholds import Policy

            rules = [_make_option(option) for kind in (Policy, Band) for option in kind.list_options().values()]
            first = 1 + max(
                place for place, option in enumerate(self.params) if option.name in ("model", "data", "value")
            )
            self.params[first:first] = [*rules, *_SHARED]
        return super().get_params(ctx)


def _make_option(spec: OptionSpec) -> click.Option:
    if not spec.metavar:
        return click.Option([spec.flag], is_flag=True, help=spec.help)
    parsers = {"FP:FN": _parse_costs, "RATE": functools.partial(parse_rate, no_limit=spec.no_limit)}
    return click.Option([spec.flag], metavar=spec.metavar, callback=parsers[spec.metavar], help=spec.help)


_SHARED = (
    click.Option(
        ["--strict"],
        is_flag=True,
        help="Fail if there are too few images for the request, a good image has an outlying score, or the model does "
        "not separate good from defective.",
    ),
    click.Option(["--trim"], is_flag=True, help="Leave out good images whose score is an outlier."),
)


_group_option = click.option(
    "--group",
    metavar="REGEX",
    help="Pictures of one part, by their names, such as '^(part\\d+)_': a part counts once, by its worst picture.",
)


@click.command(cls=_PolicyCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--pixel-fpr",
    metavar="RATE",
    callback=functools.partial(parse_rate, no_limit=(0, 1)),
    help="Regions: mark at most this share of the pixels of good parts.",
)
@click.option("--pixel-f1", is_flag=True, help="Regions: mark pixels with the highest F1 against the masks.")
@click.option(
    "--region-fpr",
    metavar="RATE",
    callback=functools.partial(parse_rate, no_limit=(1,)),
    help="Leave out small regions, so that at most this share of good parts has one.",
)
@click.option(
    "--region-area",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Leave out regions of fewer pixels of the error map.",
)
@click.option("--split", type=_SPLITS, default="val", show_default=True, help="The folder of DATA to calibrate on.")
@_group_option
@click.option("--skip-training-images", is_flag=True, help="Leave out images that the model was trained on.")
@click.option("--allow-training-images", is_flag=True, help="Use images that the model was trained on.")
def calibrate(
    model: Path,
    data: Path,
    split: str,
    group: str | None,
    strict: bool,
    trim: bool,
    skip_training_images: bool,
    allow_training_images: bool,
    **options: Any,
) -> None:
    """Set MODEL's threshold from the labelled images of DATA and stamp it into the file.

    DATA has val/good/ and val/DEFECT/ (or good/ and DEFECT/, or only good images). Rates are written 0.5% or 0.005.
    Without a policy, --max-f1 is used if there are defects, otherwise --quantile 99%.

    \b
    Example:
      onspect calibrate part.onnx parts/ --max-fpr 0.5%
    """
    if skip_training_images and allow_training_images:
        raise click.UsageError("--skip-training-images and --allow-training-images exclude each other; give one")
    from onspect.calibration.calibration import calibrate as run_calibration
    from onspect.runtime.images.decode import quieten_opencv

    quieten_opencv()
    with usage_errors():
        outcome = run_calibration(
            model,
            data,
            split=split,
            group=group,
            strict=strict,
            trim=trim,
            training="skip" if skip_training_images else "allow" if allow_training_images else "refuse",
            progress=progress,
            **options,
        )
    _report(outcome, model)


@click.command(cls=_PolicyCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--set", "value", type=float, metavar="SCORE", help="This score.")
@click.option("--undo", is_flag=True, help="Restore the previous threshold.")
def threshold(model: Path, value: float | None, strict: bool, trim: bool, undo: bool, **options: Any) -> None:
    """Move MODEL's threshold by the scores that its calibration recorded, without images.

    The graph does not change. The old threshold stays in the file's history.

    \b
    Example:
      onspect threshold part.onnx --max-fpr 0.5%
      onspect threshold part.onnx --undo
    """
    from onspect.calibration.review import Band
    from onspect.calibration.thresholds import Manual, Policy

    of_band = {name: options.pop(name) for name in Band.list_options()}
    with usage_errors():
        policy, band = Policy.from_options(options), Band.from_options(of_band)
    if [undo, value is not None, policy is not None].count(True) != 1:
        raise click.UsageError("give one of --set SCORE, a policy such as --max-fpr 0.5%, and --undo")
    if undo:
        if band is not None or strict or trim:
            raise click.UsageError("--undo restores the earlier threshold; give it alone")
        from onspect.runtime.model.file import read_model_file, undo_restamp

        restored = undo_restamp(read_model_file(model)).threshold
        assert restored is not None
        say(f"{model} is back at the threshold {restored.score:.6g}")
        return
    from onspect.calibration.calibration import move_threshold

    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite score", param_hint="--set")
    policy = Manual(value) if value is not None else policy
    assert policy is not None
    _report(move_threshold(model, policy, band=band, strict=strict, trim=trim), model)


def _parse_fields(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Return fields written ``lens=50 mm`` by name; usage error if a field has no name."""
    fields = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not name.strip() or not found:
            raise click.BadParameter(
                f"{text!r} is not a field; write name=value, such as lens='50 mm'", context, option
            )
        fields[name.strip()] = value.strip()
    return fields


@click.command(cls=Command)
@click.argument("models", nargs=-1, metavar="MODEL [OTHER]", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for report.html and metrics.json; an older report in it is replaced.",
)
@click.option("--split", type=_SPLITS, default="test", show_default=True, help="The folder of DATA to evaluate on.")
@click.option(
    "--max-fpr",
    metavar="RATE",
    callback=functools.partial(parse_rate, no_limit=(1,)),
    help="Required: reject at most this share of good parts. [default: as calibrated]",
)
@click.option(
    "--min-recall",
    metavar="RATE",
    callback=parse_rate,
    help="Required: reject, or send to a person, at least this share of defective parts. [default: as calibrated]",
)
@_group_option
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_fields,
    help="A fact for the head of the report, such as part, camera, lens, light or line; may be repeated.",
)
@click.option("--title", help="The report's heading. [default: the field part, else the model's name]")
@click.option(
    "--strict", is_flag=True, help="Fail if the model is not fit for use, or does not separate good from defective."
)
def evaluate(
    models: tuple[Path, ...],
    data: Path,
    output: Path,
    split: str,
    max_fpr: float | None,
    min_recall: float | None,
    group: str | None,
    fields: dict[str, str],
    title: str | None,
    strict: bool,
) -> None:
    """Measure MODEL on the labelled images of DATA and write a report, an acceptance sheet.

    With a second model, both judge the same images, and the report of MODEL says how they differ. A model without a
    threshold is measured without verdicts.

    \b
    Example:
      onspect evaluate part.onnx parts/ -o report/ --max-fpr 0.5% --min-recall 99%
      onspect evaluate new.onnx old.onnx parts/ -o report/
    """
    if len(models) not in (1, 2):
        raise click.UsageError(f"there are {len(models)} models; give one or two, and then the folder of images")
    from onspect.calibration.comparison import compare_models
    from onspect.calibration.evaluation import evaluate as run_evaluation
    from onspect.calibration.report.acceptance import list_broken_targets
    from onspect.runtime.errors import DatasetError
    from onspect.runtime.images.decode import quieten_opencv

    quieten_opencv()
    options: dict[str, Any] = {"max_fpr": max_fpr, "min_recall": min_recall, "group": group}
    options |= {"report": output, "title": title, "fields": fields, "split": split, "progress": progress}
    with usage_errors():
        if len(models) == 2:
            comparison = compare_models(*models, data, **options)
            evaluation, outcome = comparison.first, str(comparison)
        else:
            evaluation = run_evaluation(models[0], data, **options)
            outcome = str(evaluation)
    page = output / "report.html"
    _warn(evaluation.blindness, [*evaluation.list_warnings(), *list_broken_targets(evaluation)])
    click.echo(wrap(outcome))
    say(f"report: {page}")
    fitness = evaluation.fitness
    if strict and (evaluation.blindness or (fitness is not None and fitness.outcome == "FAIL")):
        reasons = evaluation.blindness or list_broken_targets(evaluation)
        raise DatasetError(f"--strict: {'; '.join(reasons)}; the report says more: {page}")


def _report(outcome: CalibrationResult, model: Path) -> None:
    _warn(outcome.blindness, outcome.notes)
    click.echo(wrap(str(outcome)))
    say(f"stamped into {model}")


def _warn(blindness: Sequence[str], notes: Sequence[str]) -> None:
    """Print the reasons why a result is less certain. Those that make the model useless are printed with -q too."""
    from onspect.calibration.fitness import NOT_SHOWN

    for sentence in blindness:
        label, colour = ("Not proven", "yellow") if sentence.startswith(NOT_SHOWN) else ("Not fit for use", "red")
        click.echo(click.style(wrap(f"{label}: {sentence}", err=True), fg=colour, bold=True), err=True)
    for note in notes:
        _LOG.warning("%s", note)
