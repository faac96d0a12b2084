"""Transfer a threshold to new light with a few good frames, on the device. Refuse if it cannot help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.binomial import CONFIDENCE, rate_bound
from onspect.runtime.errors import DatasetError, ImageError, SeparationError, SourceError, UncalibratedError
from onspect.runtime.fingerprints import fingerprint_bytes, fingerprint_set
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import decide, now, reaches
from onspect.runtime.model.file import ModelFile, restamp
from onspect.runtime.model.schema import Calibration, Stamp, Threshold
from onspect.runtime.outliers import find_lone_scores, name_some
from onspect.runtime.recalibration.probe_defects import score_probe_defects
from onspect.runtime.recalibration.score_shift import (
    ProbeAuroc,
    Scores,
    ScoreTransform,
    chance_of_rejects,
    compare_probe_auroc,
    fit_transform,
)
from onspect.runtime.sources.base import Capture
from onspect.runtime.text import format_facts

MIN_FRAMES = 10
"""Smallest number of good frames that can support a threshold."""

_ODD_CHANCE = 0.01  # a less probable number of rejects is not attributed to chance


@dataclass(frozen=True)
class Base:
    """A calibrated threshold and its evidence, from which a threshold for new light is transferred."""

    threshold: Threshold
    """The threshold."""

    evidence: Calibration
    """The calibration that chose it."""


@dataclass(frozen=True)
class GoodFrames:
    """Scored good frames of the line."""

    scores: Scores
    """Score of each frame, float64 [n]."""

    probe_scores: Scores
    """Scores of each frame with each probe defect, float64 [n, 4]."""

    images: str
    """Fingerprint of the set of frames."""

    faults: int
    """Number of frames that could not be judged."""

    repeated: int
    """Number of frames equal to an earlier one."""

    names: tuple[str, ...] = ()
    """Source of each frame."""


@dataclass(frozen=True)
class Recalibration:
    """The result of a recalibration."""

    frames: GoodFrames
    """The good frames."""

    base: Base
    """The threshold that was transferred."""

    before: Threshold
    """The file's threshold before."""

    threshold: Threshold
    """The file's threshold now."""

    transform: ScoreTransform
    """How the good scores moved."""

    interval: tuple[float, float]
    """95% interval of the transferred threshold."""

    probe_auroc: ProbeAuroc
    """Separation of the probe defects, at calibration and now."""

    rejected: int
    """Number of frames at or above the new threshold."""

    changed: bool
    """Whether the file was changed."""


def recalibrate(
    model: ModelFile, inspector: Inspector, captures: Iterable[Capture], *, count: int, source: str
) -> Recalibration:
    """Transfer a model file's threshold to new good frames, and write it into the file. The graph does not change.

    The new threshold has the same position among the new good scores as the old one had among the calibration's. If the
    scores have not moved, the threshold of the calibration is kept. On an error the file does not change.

    Parameters
    ----------
    model
        The model file; it must have a calibration.
    inspector
        Inspector of the same file.
    captures
        New frames of good parts.
    count
        Number of frames to use, 1 or more.
    source
        Name of the source, for the record.

    Returns
    -------
    Recalibration
        The old and the new threshold, and what the frames show.

    Raises
    ------
    UncalibratedError
        If the file has no calibration to start from.
    SourceError, DatasetError
        If there are too few frames, or they do not look like good ones.
    SeparationError
        If the frames do not show that good and defective parts still have different scores.
    """
    base = find_base(model)
    evidence, before = base.evidence, model.info.threshold
    assert before is not None
    frames = score_frames(inspector, captures, count)
    _check_lone(frames)
    good = np.array(evidence.good_scores)
    transform = fit_transform(good, frames.scores, odds=_is_bounded(base, frames))
    carried = _transfer_threshold(base, transform, frames, peak=model.info.score.is_peak)
    _check_rejected(int(reaches(frames.scores, carried).sum()), len(frames.scores), base, transform)
    probe_auroc = compare_probe_auroc(good, np.array(evidence.mark_scores), frames.scores, frames.probe_scores)
    _check_probe_auroc(probe_auroc, len(frames.scores))
    threshold = carried if transform.moved else base.threshold
    found = Recalibration(
        frames=frames,
        base=base,
        before=before,
        threshold=threshold,
        transform=transform,
        interval=transform.apply_interval(base.threshold.score),
        probe_auroc=probe_auroc,
        rejected=int(reaches(frames.scores, threshold).sum()),
        changed=threshold != before,
    )
    if found.changed:
        restamp(model, threshold, _make_evidence(found, source) if transform.moved else evidence)
    return found


def find_base(model: ModelFile) -> Base:
    """Return the latest threshold that was calibrated on the workstation, with its evidence.

    Transferred thresholds are skipped, so that errors do not add up from lamp to lamp.

    Parameters
    ----------
    model
        The model file.

    Returns
    -------
    Base
        The threshold and its calibration.

    Raises
    ------
    UncalibratedError
        If there is no calibration with good scores and probe defects.
    """
    info = model.info
    stamps = [] if info.threshold is None else [Stamp(info.threshold, info.calibration)]
    for stamp in [*stamps, *reversed(info.history)]:
        evidence = stamp.calibration
        if evidence is not None and not evidence.recalibrated:
            if len(evidence.good_scores) >= MIN_FRAMES and evidence.mark_scores:
                return Base(stamp.threshold, evidence)
            break
    raise UncalibratedError(
        f"{str(model.path)!r} has no calibration with test marks and {MIN_FRAMES} or more good scores: run 'onspect "
        f"calibrate {model.path} DATA' on the workstation first"
    )


def score_frames(inspector: Inspector, captures: Iterable[Capture], count: int) -> GoodFrames:
    """Score the first `count` frames that can be judged and differ from earlier ones. The other frames are counted.

    Parameters
    ----------
    inspector
        The model.
    captures
        Frames of good parts.
    count
        Number of frames to use, 1 or more.

    Returns
    -------
    GoodFrames
        The scores, and the number of unusable frames.

    Raises
    ------
    DatasetError
        If the source has too few usable frames.
    SourceError
        If more than `count` frames are unusable.
    """
    scores: list[float] = []
    probe_scores: list[tuple[float, ...]] = []
    names: list[str] = []
    seen: set[str] = set()
    faults = repeated = 0
    reason = ""
    for capture in captures:
        try:
            image, score = _score(inspector, capture)
        except ImageError as error:
            faults += 1
            reason = f", such as {capture.source!r}: {error}"
        else:
            fingerprint = fingerprint_bytes(image.tobytes())
            if fingerprint in seen:
                repeated += 1
            else:
                seen.add(fingerprint)
                probe_scores.append(score_probe_defects(inspector, image, len(scores)))
                scores.append(score)
                names.append(capture.source)
        if len(scores) == count:
            probes = np.array(probe_scores)
            return GoodFrames(np.array(scores), probes, fingerprint_set(seen), faults, repeated, tuple(names))
        if faults + repeated > count:
            raise SourceError(
                f"{faults} frames cannot be judged and {repeated} repeat an earlier one; only {len(scores)} are "
                f"usable{reason}; the threshold was not changed"
            )
    raise DatasetError(
        f"{len(scores)} frames are usable, and {count} are needed ({faults} cannot be judged, {repeated} "
        f"repeat an earlier one{reason}); give more, or --count {max(MIN_FRAMES, len(scores))}"
    )


def _score(inspector: Inspector, capture: Capture) -> tuple[NDArray[np.uint8], float]:
    if isinstance(capture.frame, ImageError):
        raise capture.frame
    image = inspector.prepare(capture.frame)
    scored = inspector.infer(image[None])
    (fault,) = scored.faults()
    if fault is not None:
        raise ImageError(fault)
    return image, float(scored.score[0])


def _check_lone(frames: GoodFrames) -> None:
    """Raise DatasetError if the score of a frame is an outlier, which would move the threshold by itself."""
    lone = find_lone_scores(frames.scores)
    if lone:
        named = name_some([frames.names[place] for place in lone])
        scores = ", ".join(f"{frames.scores[place]:.6g}" for place in lone[:3])
        rest = np.delete(frames.scores, lone).max()
        verb = "is an outlier" if len(lone) == 1 else "are outliers"
        raise DatasetError(
            f"{len(lone)} of {len(frames.scores)} frames {verb} with a score of {scores}, the next is {rest:.6g}"
            f": {named}; leave out frames of defective parts. The threshold was not changed"
        )


def _check_probe_auroc(probe_auroc: ProbeAuroc, frames: int) -> None:
    """Raise SeparationError if it is not shown that the model still detects the probe defects of the calibration."""
    if probe_auroc.kept:
        return
    if not probe_auroc.usable:
        raise SeparationError(
            f"a new threshold cannot be checked without defective parts. Even at calibration this model separated only "
            f"{probe_auroc.before:.0%} of marked parts from good ones (chance is 50%); calibrate on the workstation, "
            "with images of good and defective parts from this line. The threshold was not changed"
        )
    seen = (
        f"the model separated {probe_auroc.before:.1%} of marked parts from good ones at calibration, and "
        f"{probe_auroc.now:.1%} in these {frames} frames (chance is 50%)"
    )
    if probe_auroc.lost:
        raise SeparationError(
            f"{seen}: it no longer sees defects, and no threshold can correct that (or some frames are not good: "
            f"check them). Undo the change, or train on current images. The threshold was not changed"
        )
    raise SeparationError(
        f"{seen}: {frames} good frames prove only that at most {100 * probe_auroc.worst:.1f} points are lost, and "
        f"{100 * probe_auroc.allowed:.1f} are allowed; give more frames, such as --count {3 * frames}. The threshold "
        f"was not changed"
    )


def _check_rejected(rejected: int, frames: int, base: Base, transform: ScoreTransform) -> None:
    """Raise DatasetError if more frames are rejected at the transferred threshold than expected."""
    good = np.array(base.evidence.good_scores)
    if chance_of_rejects(good, base.threshold.score, transform, frames, rejected) < _ODD_CHANCE:
        raise DatasetError(
            f"{rejected} of the {frames} frames would be rejected at the new threshold; at calibration it was "
            f"{float(reaches(good, base.threshold).mean()):.1%} of good parts. Some frames are not good, or the "
            f"scores changed in another way than by a shift. Check the frames; the threshold was not changed"
        )


def _is_bounded(base: Base, frames: GoodFrames) -> bool:
    """Return whether no score was ever above 1, so that scores count as probabilities."""
    evidence = base.evidence
    stored = [*evidence.good_scores, *evidence.defective_scores, *np.ravel(evidence.mark_scores), base.threshold.score]
    return bool(max(*stored, frames.scores.max(), frames.probe_scores.max()) <= 1.0)


def _transfer_threshold(base: Base, transform: ScoreTransform, frames: GoodFrames, *, peak: bool) -> Threshold:
    """Return all cuts of a threshold after the transfer; peak tells whether the score is the maximum of the map."""
    threshold = base.threshold
    score = transform.apply(threshold.score)
    review = None if threshold.review is None else transform.apply(threshold.review)
    if peak:
        lowest = score if review is None else review
        cut = lowest if base.evidence.map_rule is None else min(lowest, transform.apply(threshold.map))
    else:  # the map has its own scale, which moved about like the scores
        middle = float(np.median(base.evidence.good_scores))
        cut = threshold.map * (float(np.median(frames.scores)) / middle if middle > 0 else 1.0)
    return Threshold(score, cut, review, threshold.area)


def _make_evidence(found: Recalibration, source: str) -> Calibration:
    frames, base = found.frames, found.base.evidence
    count = len(frames.scores)
    verdicts = [decide(score, found.threshold) for score in frames.scores.tolist()]
    return Calibration(
        policy=f"{base.policy}; transferred to {count} good frames",
        data=source,
        counts={"good": count},
        auroc=None,
        aupr=None,
        true_ng=0,
        false_ng=verdicts.count("ng"),
        true_ok=verdicts.count("ok"),
        false_ok=0,
        images=frames.images,
        time=now(),
        intervals={"threshold": found.interval},
        good_scores=tuple(np.sort(frames.scores).tolist()),
        rule=base.rule,
        review_good=verdicts.count("review"),
        review_rule=base.review_rule,
        map_rule=base.map_rule and dataclasses.replace(base.map_rule, value=found.threshold.map),
        area_rule=base.area_rule,
        mark_scores=tuple(tuple(row) for row in frames.probe_scores.tolist()),
        recalibrated=count,
        held_back=base.held_back,
    )


def describe_recalibration(found: Recalibration) -> str:
    """Return a recalibration as text, one fact a line, with its assumption.

    Parameters
    ----------
    found
        The recalibration.

    Returns
    -------
    str
        The lines, each with the name of its fact.
    """
    frames, base, probe_auroc = found.frames, found.base.evidence, found.probe_auroc
    count = len(frames.scores)
    low, high = found.interval
    spread = "" if found.transform.spread == 1.0 else f", their spread by {found.transform.spread:.3g}"
    moved = f"they shifted{spread}" if found.transform.moved else f"no shift that {count} frames could show"
    seen = (
        f"{probe_auroc.now:.1%} of marked parts separated from good ones, {probe_auroc.before:.1%} at calibration; at "
        f"most {100 * max(0.0, probe_auroc.worst):.1f} points are lost, with {CONFIDENCE:.0%} confidence"
    )
    facts = [
        (
            "frames",
            f"{count} good frames used; {frames.faults} could not be judged, {frames.repeated} repeated another frame",
        ),
        ("scores", f"median {np.median(frames.scores):.6g}, {np.median(base.good_scores):.6g} at calibration: {moved}"),
        ("defect check", seen),
    ]
    threshold = f"{found.before.score:.6g}, not changed"
    if found.changed:
        threshold = f"{found.before.score:.6g} before, {found.threshold.score:.6g} now"
    if found.transform.moved:
        threshold += f" ({low:.6g} to {high:.6g} with {CONFIDENCE:.0%} confidence)"
    facts.append(("threshold", threshold))
    facts += [("rejects", _describe_rejects(found, base)), *_describe_defects(found, base)]
    facts.append(
        ("assumes", "the scores of defects moved like those of good and marked parts; no real defect was tested")
    )
    return "\n".join(format_facts(facts, 13))


def _describe_rejects(found: Recalibration, base: Calibration) -> str:
    count = len(found.frames.scores)
    share = float(reaches(np.array(base.good_scores), found.base.threshold).mean())
    return (
        f"{share:.1%} of good parts at calibration, the same expected now. These {count} good frames alone, "
        f'{found.rejected} of them rejected, prove only "below {rate_bound(found.rejected, count):.1%}"'
    )


def _describe_defects(found: Recalibration, base: Calibration) -> list[tuple[str, str]]:
    if not base.defective_scores:
        return []
    defective = np.array(base.defective_scores)
    caught, stayed = ((defective >= cut).mean() for cut in (found.base.threshold.score, found.threshold.score))
    words = (
        f"{caught:.1%} caught at calibration, the same expected if their scores moved alike; {stayed:.1%} if their "
        f"scores did not move"
    )
    return [("defects", words)]
