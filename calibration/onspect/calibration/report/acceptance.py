"""The acceptance sheet of a report: operating point, targets, earlier thresholds and fingerprints."""

from __future__ import annotations

from dataclasses import dataclass

from onspect.calibration.figures import Evaluation
from onspect.calibration.regions import describe_regions
from onspect.calibration.scores import count_kinds
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.thresholds import POLICIES
from onspect.runtime.dataset.folder import GOOD
from onspect.runtime.dataset.groups import says_parts
from onspect.runtime.fingerprints import fingerprint_set, unpack_fingerprints
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import Calibration, Threshold
from onspect.runtime.text import count_of

_OUT_OF = 1000
"""Rates are given per this number of parts."""

_FEW = 4
"""With fewer images on the wrong side of a threshold, their number is given beside its interval."""


@dataclass(frozen=True)
class ThresholdRecord:
    """A present or earlier threshold of the file, with a summary of its evidence."""

    time: str | None
    """Time of the calibration, ISO 8601; None if an older release did not record it."""
    threshold: Threshold
    """The threshold."""
    policy: str | None
    """Text of the rules that it was chosen by; None if unknown."""
    data: str | None
    """Name of the dataset; None if unknown."""
    good: int
    """Number of good images or parts; 0 if unknown."""
    rejected: int
    """Number of good ones that were rejected."""
    defective: int
    """Number of defective images or parts; 0 if unknown."""
    caught: int
    """Number of defective ones that were rejected."""

    @property
    def fpr(self) -> float | None:
        """Share of the good images that were rejected, 0 to 1, or None if their number is 0."""
        return self.rejected / self.good if self.good else None

    @property
    def recall(self) -> float | None:
        """Share of the defective images that were rejected, 0 to 1, or None if their number is 0."""
        return self.caught / self.defective if self.defective else None


def describe_operating_point(evaluation: Evaluation) -> list[str]:
    """Return a description of the verdicts of the file, with their rates on these images.

    Parameters
    ----------
    evaluation
        The evaluation.

    Returns
    -------
    list[str]
        Sentences for the report.
    """
    threshold, confusion, intervals = evaluation.threshold, evaluation.confusion, evaluation.intervals
    if threshold is None:
        return ["The file has no threshold yet, so no part is judged. 'onspect calibrate' sets one."]
    rule = f"A part whose score is {threshold.score:.6g} or more is rejected (ng)"
    if threshold.review is None:
        rule += "; every other part passes (ok)."
    else:
        rule += f"; from {threshold.review:.6g} on it goes to a person (review); every other part passes (ok)."
    sentences = [rule, "A part that cannot be judged is a fault, and never passes."]
    calibration = evaluation.model.info.calibration
    if calibration is not None and (surely := describe_cut_interval(calibration)) is not None:
        sentences.append(f"By the calibration's images, the rejecting score is {surely}.")
    if confusion.good:
        sentences.append(
            f"Of {_OUT_OF:,} good parts like these, {_many(confusion.false_ng / confusion.good, intervals['fpr'])} "
            f"are rejected{_for_review(confusion.review_good / confusion.good, intervals.get('review'))}."
        )
    if confusion.defective:
        caught = _many(confusion.true_ng / confusion.defective, intervals["recall"])
        passed = intervals.get("escapes") or (1.0 - intervals["recall"][1], 1.0 - intervals["recall"][0])
        seen = _for_review(confusion.review_defective / confusion.defective, None) if threshold.review else ""
        sentences.append(
            f"Of {_OUT_OF:,} defective parts like these, {caught} are rejected{seen}, "
            f"and {_many(confusion.false_ok / confusion.defective, passed)} pass unseen."
        )
    return sentences


def describe_cut_interval(calibration: Calibration) -> str | None:
    """Return a description of the threshold's 95% interval.

    Parameters
    ----------
    calibration
        Calibration of the file.

    Returns
    -------
    str | None
        The interval and its origin as text; None if there is no interval.
    """
    low, high = calibration.intervals.get("threshold", (None, None))
    if calibration.rule is None or (low is None and high is None):
        return None
    images = next((kind.bounded_by for kind in POLICIES if kind.name == calibration.rule.name), None)
    if images is None:
        mistakes = calibration.false_ng + calibration.false_ok
        few = f"; decided by {mistakes} on the wrong side" if mistakes < _FEW else ""
        return f"{low:.6g} to {high:.6g} with other images like these (95% bootstrap{few})"
    noun = "part" if says_parts(calibration.policy) else "image"
    count = len(calibration.good_scores if images == "good" else calibration.defective_scores)
    shown = count_of(count, f"{images} {noun}")
    if high is None:
        return f"{low:.6g} or more with 95% confidence: {shown} cannot give an upper bound"
    if low is None:
        return f"{high:.6g} or less with 95% confidence: {shown} cannot give a lower bound"
    return f"{low:.6g} to {high:.6g} with 95% confidence (exact, from {shown})"


def _many(rate: float, interval: Interval) -> str:
    low, high = (round(_OUT_OF * end) for end in interval)
    return f"{round(_OUT_OF * rate):,} ({low:,} to {high:,})"


def _for_review(rate: float, interval: Interval | None) -> str:
    if interval is None:
        return f", {round(_OUT_OF * rate):,} go to a person" if rate else ""
    return f" and {_many(rate, interval)} go to a person"


def list_broken_targets(evaluation: Evaluation) -> list[str]:
    """Return the required rates that these images disprove.

    Parameters
    ----------
    evaluation
        The evaluation.

    Returns
    -------
    list[str]
        One sentence for each rate.
    """
    return [
        f"the requirement is {target.asked}; the rate of these images is {target.rate:.1%} "
        f"({target.interval[0]:.1%} to {target.interval[1]:.1%})"
        for target in evaluation.targets
        if target.broken
    ]


def list_threshold_records(model: ModelFile) -> list[ThresholdRecord]:
    """Return the thresholds of a file.

    Parameters
    ----------
    model
        The model file.

    Returns
    -------
    list[ThresholdRecord]
        The present threshold first, then earlier ones, newest first.
    """
    info = model.info
    stamps = [(stamp.threshold, stamp.calibration) for stamp in info.history]
    if info.threshold is not None:
        stamps.append((info.threshold, info.calibration))
    return [_describe_record(threshold, calibration) for threshold, calibration in reversed(stamps)]


def _describe_record(threshold: Threshold, calibration: Calibration | None) -> ThresholdRecord:
    if calibration is None:
        return ThresholdRecord(None, threshold, None, None, 0, 0, 0, 0)
    return ThresholdRecord(
        time=calibration.time,
        threshold=threshold,
        policy="; ".join(
            filter(None, [calibration.policy, describe_regions(calibration.map_rule, calibration.area_rule)])
        ),
        data=calibration.data,
        good=calibration.false_ng + calibration.true_ok + calibration.review_good,
        rejected=calibration.false_ng,
        defective=calibration.true_ng + calibration.false_ok + calibration.review_defective,
        caught=calibration.true_ng,
    )


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a file or of a set of images."""

    role: str
    """Role, such as ``model file`` or ``training images``."""
    what: str
    """Description as text."""
    digits: str
    """Hexadecimal digits."""


def list_fingerprints(evaluation: Evaluation) -> list[Fingerprint]:
    """Return the fingerprints of the model file, the graph and all sets of images.

    Parameters
    ----------
    evaluation
        The evaluation.

    Returns
    -------
    list[Fingerprint]
        In the order model file, graph, images of training, calibration, test and this report.
    """
    info = evaluation.model.info
    source = info.provenance
    found = [
        Fingerprint("model file", f"{evaluation.model.path.name}, SHA-256", evaluation.model.sha256),
        Fingerprint("graph", "the file without its metadata, SHA-256", info.graph_sha256),
        Fingerprint("training images", f"{source.training_images} of {source.data}", source.training_fingerprint),
    ]
    if info.calibration is not None:
        total = len(unpack_fingerprints(info.calibration.fingerprints)) or sum(info.calibration.counts.values())
        found.append(Fingerprint("calibration images", f"{total} of {info.calibration.data}", info.calibration.images))
        if (held_back := info.calibration.held_back) is not None:
            what = f"{held_back.images} of {info.calibration.data}, held back at calibration"
            found.append(Fingerprint("test images", what, held_back.fingerprint))
    fingerprints = [result.fingerprint for result in evaluation.results]
    what = f"{describe_counts(count_kinds([result.image for result in evaluation.results]))}, {evaluation.source}"
    if evaluation.test_split is not None:
        what += f": {evaluation.test_split.describe()}"
    found.append(Fingerprint("images of this sheet", what, fingerprint_set(fingerprints)))
    return found


def describe_counts(counts: dict[str, int]) -> str:
    """Return the number of images of each kind as text.

    Parameters
    ----------
    counts
        Number of images by kind.

    Returns
    -------
    str
        Such as ``20 good, 8 defective (5 crack, 3 hole)``.
    """
    defects = {kind: count for kind, count in counts.items() if kind != GOOD}
    words = f"{counts.get(GOOD, 0)} good"
    if defects:
        kinds = ", ".join(f"{count} {kind}" for kind, count in defects.items())
        words += f", {sum(defects.values())} defective ({kinds})"
    return words
