"""Printed results of calibrate and evaluate: plain text, one fact per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onspect.calibration.figures import Evaluation
from onspect.calibration.metrics.image import IMAGE_METRICS, Confusion
from onspect.calibration.metrics.pixel import PIXEL_METRICS
from onspect.calibration.report.acceptance import describe_counts, describe_cut_interval
from onspect.calibration.review import tabulate_review
from onspect.calibration.scores import count_kinds
from onspect.calibration.stamping import CalibrationResult
from onspect.runtime.model.schema import Calibration, Threshold
from onspect.runtime.text import count_of, format_facts, format_table


def describe_outcome(outcome: CalibrationResult) -> str:
    """Return the result of a calibration as a table.

    Parameters
    ----------
    outcome
        The result.

    Returns
    -------
    str
        Several lines of text.
    """
    calibration = outcome.calibration
    noun = f"{outcome.confusion.noun}s"
    images = f"{describe_counts(calibration.counts)}, from {outcome.source}"
    if outcome.left_out:
        images += f"; {outcome.left_out} left out (training images)"
    facts = [
        (noun, images),
        ("policy", calibration.policy),
        *_describe_metrics(vars(calibration), calibration.intervals),
        ("threshold", f"{outcome.threshold.score:.6g} (ng from this score on)"),
        ("map threshold", f"{outcome.threshold.map:.6g} (regions from this error on)"),
    ]
    regions = [] if not outcome.regions else [("", outcome.regions)]
    if outcome.threshold.area:
        least = f"{outcome.threshold.area} pixels of the error map (smaller regions are not shown)"
        regions.insert(0, ("least region", least))
    intervals = calibration.intervals
    if (surely := describe_cut_interval(calibration)) is not None:
        facts.insert(-1, ("", surely))
    if outcome.threshold.review is not None:
        facts.insert(-1, ("review", f"{outcome.threshold.review:.6g} (for a person from this score on)"))
    lines = [*format_facts(facts + regions, 14), "", *describe_confusion(outcome.confusion, intervals)]
    if outcome.band is not None and calibration.defective_scores:
        lines += ["", *describe_review(outcome.threshold, calibration)]
    lines += ["", f"so far, on the pictures that the threshold was chosen on: {outcome.fitness.words}"]
    return "\n".join(lines)


def describe_review(threshold: Threshold, calibration: Calibration) -> list[str]:
    """Return the effect of review bands of several lengths on the images of a calibration.

    Parameters
    ----------
    threshold
        The threshold with its review band, if any.
    calibration
        Calibration with the scores.

    Returns
    -------
    list[str]
        Lines of a table.
    """
    table = tabulate_review(np.array(calibration.good_scores), np.array(calibration.defective_scores), threshold)
    stamped = threshold.score if threshold.review is None else threshold.review
    rows: list[tuple[str, ...]] = [("review from", "of good", "of defects", "escapes", "")]
    for review, *shares in zip(table.review, table.good, table.defective, table.escapes, strict=True):
        rows.append((f"{review:.6g}", *(f"{share:.1%}" for share in shares), "(stamped)" if review == stamped else ""))
    return format_table(rows, "<>>><")


def describe_evaluation(evaluation: Evaluation) -> str:
    """Return the main figures of an evaluation as a table.

    Parameters
    ----------
    evaluation
        The evaluation.

    Returns
    -------
    str
        Several lines of text.
    """
    counts = count_kinds([result.image for result in evaluation.results])
    facts = [("images", f"{describe_counts(counts)}, from {evaluation.source}")]
    if evaluation.test_split is not None:
        facts.append(("", evaluation.test_split.describe()))
    if evaluation.faults:
        facts.append(("faults", f"{count_of(len(evaluation.faults), 'image')} could not be judged"))
    facts += _describe_metrics(evaluation.areas.values, evaluation.intervals)
    areas = evaluation.pixels.areas
    if areas.reason is None:
        facts += [(metric.title, metric.show(areas.values[metric.name])) for metric in PIXEL_METRICS]
    if (point := evaluation.pixels.point) is not None:
        facts.append(
            ("pixel F1", f"{point.f1:.4f}, IoU {point.iou:.4f} ({point.recall:.1%} of defective pixels marked)")
        )
    if evaluation.group is not None:
        good, defective = evaluation.count_parts()
        facts.append(("parts", f"{good} good, {defective} defective, by the pattern {evaluation.group!r}"))
    if evaluation.threshold is None:
        facts.append(("threshold", "none yet, so nothing is judged ('onspect calibrate' sets one)"))
        lines = format_facts(facts, 14)
    else:
        facts.append(("threshold", f"{evaluation.threshold.score:.6g} (ng from this score on)"))
        lines = [*format_facts(facts, 14), "", *describe_confusion(evaluation.confusion, evaluation.intervals)]
    if evaluation.kinds:
        lines += ["", *_describe_kinds(evaluation)]
    if evaluation.fitness is not None:
        lines += ["", f"verdict: {evaluation.fitness.words}"]
    return "\n".join(lines)


def describe_confusion(confusion: Confusion, intervals: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Return a confusion matrix, with FPR and recall beside it.

    Parameters
    ----------
    confusion
        Number of images or parts by label and verdict.
    intervals
        95% intervals of the rates by name.

    Returns
    -------
    list[str]
        Lines of a table.
    """
    fpr = "" if confusion.fpr is None else f"   false rejects {confusion.fpr:.2%} (FPR)"
    recall = "" if confusion.recall is None else f"   caught {confusion.recall:.2%} (recall)"
    rows = [
        ("", "judged ok", "review", "judged ng", ""),
        ("good", confusion.true_ok, confusion.review_good, confusion.false_ng, fpr + _span(intervals, "fpr", ".2%")),
        (
            "defective",
            confusion.false_ok,
            confusion.review_defective,
            confusion.true_ng,
            recall + _span(intervals, "recall", ".2%"),
        ),
    ]
    banded = "review" in intervals
    lines = [
        f"{name:<12}{passed:>11}" + (f"{reviewed:>11}" if banded else "") + f"{rejected:>11}{words}"
        for name, passed, reviewed, rejected, words in rows
    ]
    if banded:
        reviewed = f"{confusion.review_good / confusion.good:.2%} of good parts{_span(intervals, 'review', '.2%')}"
        lines.append(f"{'':<12}for a person: {reviewed}")
    if banded and confusion.escapes is not None:
        lines.append(f"{'':<12}escapes: {confusion.escapes:.2%} of defects{_span(intervals, 'escapes', '.2%')}")
    return lines


def _span(intervals: Mapping[str, Sequence[float | None]], name: str, style: str) -> str:
    return "".join(f", {low:{style}} to {high:{style}}" for low, high in [intervals[name]]) if name in intervals else ""


def _describe_kinds(evaluation: Evaluation) -> list[str]:
    judged = evaluation.threshold is not None
    noun = f"{evaluation.confusion.noun}s"
    rows = [("kind", f"caught of {noun}" if judged else noun, *(metric.title for metric in IMAGE_METRICS))]
    for kind, found in evaluation.kinds.items():
        values = (metric.show(found.areas.values[metric.name]) for metric in IMAGE_METRICS)
        rows.append((kind, f"{found.confusion.true_ng} of {found.images}" if judged else str(found.images), *values))
    return format_table(rows, "<>" + ">" * len(IMAGE_METRICS))


def _describe_metrics(
    values: Mapping[str, float | None], intervals: Mapping[str, Sequence[float | None]]
) -> list[tuple[str, str]]:
    found = [metric for metric in IMAGE_METRICS if values.get(metric.name) is not None]
    if not found:
        return [(IMAGE_METRICS[0].title, "undefined: it needs good and defective images")]
    return [
        (metric.title, f"{metric.show(values[metric.name])}{_span(intervals, metric.name, metric.format)}")
        for metric in found
    ]
