"""The report of an evaluation: metrics.json for machines, and report.html, an acceptance sheet for people."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from onspect.calibration.comparison import Comparison
from onspect.calibration.figures import Evaluation
from onspect.calibration.fitness import MISTAKES, NOT_SHOWN
from onspect.calibration.metrics.image import IMAGE_METRICS, CostCurve, Curves, trace_cost, trace_curves
from onspect.calibration.metrics.pixel import PIXEL_METRICS
from onspect.calibration.report.acceptance import describe_operating_point, list_fingerprints, list_threshold_records
from onspect.calibration.report.gallery import draw_gallery
from onspect.calibration.report.plots import plot_cost, plot_precision_recall, plot_review, plot_roc, plot_scores
from onspect.calibration.review import ReviewCurve, tabulate_review, trace_review
from onspect.calibration.scores import count_kinds, part_scores
from onspect.runtime.atomic import write_together
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.card import list_facts

FIELDS = ("part", "camera", "lens", "light", "line")
"""Fields of the sheet that are always shown, with or without a value."""

_MOST_FAULTS = 50


def write_report(
    folder: Path,
    evaluation: Evaluation,
    inspector: Inspector,
    title: str | None = None,
    *,
    fields: Mapping[str, str],
    comparison: Comparison | None = None,
) -> Path:
    """Write report.html and metrics.json into a folder, both or none.

    A failure leaves an earlier report unchanged, and no new folder.

    Parameters
    ----------
    folder
        The folder; it is created. Files of an earlier report are replaced.
    evaluation
        The evaluation.
    inspector
        The model, ready to run.
    title
        Heading; None for the field ``part``, otherwise the model's name.
    fields
        Names and values for the head of the sheet, such as part, camera and lens.
    comparison
        Comparison with another model, or None.

    Returns
    -------
    Path
        Path of report.html.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    DatasetError
        If an image can no longer be read.
    """
    title = title or fields.get("part") or evaluation.model.info.name
    page = render_page(evaluation, inspector, title, fields=fields, comparison=comparison).encode()
    metrics = _dump(
        {"title": title, "fields": dict(fields)}
        | list_metrics(evaluation)
        | {"comparison": None if comparison is None else comparison.to_dict()}
    )
    path = folder / "report.html"
    write_together({path: page, folder / "metrics.json": f"{metrics}\n".encode()})
    return path


def render_page(
    evaluation: Evaluation,
    inspector: Inspector,
    title: str,
    *,
    fields: Mapping[str, str],
    comparison: Comparison | None = None,
) -> str:
    """Return the page of a report as HTML that needs no other file, no network and no script.

    Parameters
    ----------
    evaluation
        The evaluation.
    inspector
        The model, ready to run.
    title
        Heading.
    fields
        Names and values for the head of the sheet.
    comparison
        Comparison with another model, or None.

    Returns
    -------
    str
        The page.
    """
    environment = open_templates("onspect.calibration.report")
    environment.filters |= {"figure": format_figure, "percent": format_percent, "span": format_span, "css": format_css}
    return environment.get_template("report.html.j2").render(
        title=title,
        evaluation=evaluation,
        counts=count_kinds([result.image for result in evaluation.results]),
        operating_point=describe_operating_point(evaluation),
        fields={name: fields.get(name, "") for name in FIELDS} | dict(fields),
        comparison=comparison,
        not_shown=NOT_SHOWN,
        targets=evaluation.targets,
        mistakes=MISTAKES,
        parts=evaluation.count_parts(),
        records=list_threshold_records(evaluation.model),
        image_metrics=IMAGE_METRICS,
        pixel_metrics=PIXEL_METRICS,
        fingerprints=list_fingerprints(evaluation),
        review=_zip_review(_trace(evaluation).table),
        plots=_draw_plots(evaluation),
        gallery=draw_gallery(evaluation, inspector),
        facts=list_facts(dataclasses.replace(evaluation.model, path=Path(evaluation.model.path.name))),
        faults=evaluation.faults[:_MOST_FAULTS],
    )


def open_templates(package: str) -> jinja2.Environment:
    """Return the page templates of a package, which escape what they show and refuse unknown names.

    Parameters
    ----------
    package
        Full name of the package.

    Returns
    -------
    jinja2.Environment
        The templates in its folder.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def list_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """Return every number of the page, with the points of its plots, as a JSON object.

    Parameters
    ----------
    evaluation
        The evaluation.

    Returns
    -------
    dict[str, Any]
        Content of metrics.json.
    """
    good, defective = part_scores(evaluation.results, evaluation.group)
    traces = _trace(evaluation)
    return evaluation.to_dict() | {
        "operating_point": describe_operating_point(evaluation),
        "promises": [dataclasses.asdict(target) for target in evaluation.targets],
        "stamps": [dataclasses.asdict(record) for record in list_threshold_records(evaluation.model)],
        "fingerprints": [dataclasses.asdict(fingerprint) for fingerprint in list_fingerprints(evaluation)],
        "review": _zip_review(traces.table),
        "curves": {
            name: None if curve is None else {key: values.tolist() for key, values in vars(curve).items()}
            for name, curve in (("image", traces.curves), ("cost", traces.cost), ("review", traces.review))
        },
        "scores": {"good": np.sort(good).tolist(), "defective": np.sort(defective).tolist()},
    }


def _dump(content: dict[str, Any]) -> str:
    """Return indented JSON with each array of numbers on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\n[-+.\d\se,E]+\]", lambda match: re.sub(r"\s+", " ", match[0]), text)


@dataclass(frozen=True)
class _Traces:
    """Curves of the page, None if good or defective images are missing."""

    curves: Curves | None = None
    cost: CostCurve | None = None
    review: ReviewCurve | None = None
    table: ReviewCurve | None = None


def _trace(evaluation: Evaluation) -> _Traces:
    good, defective = part_scores(evaluation.results, evaluation.group)
    if not len(good) or not len(defective):
        return _Traces()
    curves, threshold = trace_curves(good, defective), evaluation.threshold
    if threshold is None:
        return _Traces(curves)
    return _Traces(
        curves=curves,
        cost=trace_cost(curves, evaluation.confusion),
        review=trace_review(good, defective, threshold.score),
        table=tabulate_review(good, defective, threshold),
    )


def _zip_review(table: ReviewCurve | None) -> list[dict[str, float]]:
    """Return the rows of a review table, each by the names of its columns."""
    if table is None:
        return []
    columns = vars(table)
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _asked_weight(evaluation: Evaluation) -> float | None:
    """Return the weight of an escape that the threshold was chosen for, or None if it was chosen by another rule."""
    calibration = evaluation.model.info.calibration
    if calibration is None or calibration.rule is None or calibration.rule.costs is None:
        return None
    prevalence = calibration.rule.prevalence
    if prevalence is None:
        prevalence = len(calibration.defective_scores) / sum(calibration.counts.values())
    reject, escape = calibration.rule.costs
    return escape * prevalence / (reject * (1.0 - prevalence))


def format_figure(value: float | None) -> str:
    """Return a figure with four decimals.

    Parameters
    ----------
    value
        0 to 1, or None if it is undefined.

    Returns
    -------
    str
        Such as ``0.9876``; a dash for None.
    """
    return "–" if value is None else f"{value:.4f}"  # noqa: RUF001 - a dash in print


def format_percent(value: float | None) -> str:
    """Return a share in percent with one decimal.

    Parameters
    ----------
    value
        Share of 1, or None if it is undefined.

    Returns
    -------
    str
        Such as ``98.8%``; a dash for None.
    """
    return "–" if value is None else f"{value:.1%}"  # noqa: RUF001 - a dash in print


def format_span(intervals: Mapping[str, Sequence[float | None]], name: str) -> str:
    """Return an interval of shares in percent.

    Parameters
    ----------
    intervals
        Intervals by name; an end may be None.
    name
        Name of the interval.

    Returns
    -------
    str
        Such as ``1.0% to 2.5%``; a dash if there is no such interval.
    """
    if name not in intervals:
        return format_percent(None)
    low, high = intervals[name]
    return f"{format_percent(low)} to {format_percent(high)}"


def format_css(text: str) -> str:
    """Return text that is safe in quotes in a style sheet.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The text with letters, digits, spaces and ``._-``; other characters are replaced by ``_``.
    """
    return re.sub(r"[^\w .-]", "_", text)


def _draw_plots(evaluation: Evaluation) -> dict[str, str]:
    good, defective = part_scores(evaluation.results, evaluation.group)
    plots = {"scores": plot_scores(good, defective, evaluation.threshold, f"{evaluation.confusion.noun}s")}
    areas, traces = evaluation.areas, _trace(evaluation)
    if areas.auroc is not None and areas.aupr is not None and traces.curves is not None:
        share = len(defective) / (len(good) + len(defective))
        plots["roc"] = plot_roc(traces.curves, evaluation.confusion, areas.auroc)
        plots["precision_recall"] = plot_precision_recall(traces.curves, evaluation.confusion, areas.aupr, share)
    if traces.cost is not None:
        plots["cost"] = plot_cost(traces.cost, _asked_weight(evaluation), banded=evaluation.banded)
    if traces.review is not None:
        plots["review"] = plot_review(traces.review, evaluation.confusion, banded=evaluation.banded)
    return {name: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for name, svg in plots.items()}
