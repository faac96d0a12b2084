"""The threshold that good pictures support, and its evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.conformal import CROSS_CONFORMAL, check_conformal, conformal, format_rate
from onspect.runtime.dataset.folder import GOOD
from onspect.runtime.dataset.groups import describe_parts, says_parts, worst_of_groups
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints
from onspect.runtime.inspection.verdict import now, reaches
from onspect.runtime.model.schema import Calibration, ModelInfo, Rule, Threshold
from onspect.runtime.teaching.fit import FittedMemory

RATE = 0.01
"""Share of new good parts that may be rejected, if there are enough pictures to support it."""


def choose_rate(rate: float | None, count: int) -> float:
    """Choose the share of false rejects that is promised.

    Parameters
    ----------
    rate
        The requested share, between 0 and 1; None for `RATE`, or the smallest possible one if that is larger.
    count
        Number of good parts.

    Returns
    -------
    float
        The share, between 0 and 1.

    Raises
    ------
    DatasetError
        If the number of parts cannot support the requested share.
    """
    if rate is None:
        return max(RATE, 1.0 / (count + 1))
    check_conformal(count, rate, "--max-fpr", "pictures")
    return rate


def fit_threshold(
    fitted: FittedMemory,
    rate: float,
    fingerprints: Sequence[str],
    data: str,
    groups: NDArray[np.intp] | None = None,
) -> tuple[Threshold, Calibration]:
    """Return the threshold that the pictures' own scores support, and its evidence.

    Parameters
    ----------
    fitted
        The memory with the score of each picture by the others.
    rate
        Share of new good parts that may be rejected, between 0 and 1.
    fingerprints
        Fingerprint of each picture.
    data
        Name of the pictures' folder.
    groups
        Number of the part that each picture shows, int [n]. A part counts once, with its highest score. None:
        each shows its own part.

    Returns
    -------
    tuple[Threshold, Calibration]
        The threshold and its evidence.

    Raises
    ------
    DatasetError
        If there are too few parts for the rate.
    """
    scores = worst_of_groups(fitted.scores, np.arange(len(fitted.scores)) if groups is None else groups)
    threshold = Threshold(score=conformal(scores, rate), map=fitted.map_cut)
    return threshold, make_calibration(scores, threshold, rate, fingerprints, data)


def counts_parts(info: ModelInfo) -> bool:
    """Return whether teaching chose the threshold by parts with several pictures each.

    Parameters
    ----------
    info
        Metadata of the model file.

    Returns
    -------
    bool
        False if another policy chose the threshold.
    """
    memory, calibration = info.memory, info.calibration
    if memory is None or calibration is None or CROSS_CONFORMAL not in calibration.policy:
        return False
    return says_parts(calibration.policy)  # pictures that were added without a new threshold have no scores there


def make_calibration(
    scores: NDArray[np.float64], threshold: Threshold, rate: float, fingerprints: Sequence[str], data: str
) -> Calibration:
    """Return the evidence of a threshold.

    Parameters
    ----------
    scores
        Score of each part by a memory without it, float64 [n].
    threshold
        The threshold.
    rate
        Share of new good parts that may be rejected, between 0 and 1.
    fingerprints
        Fingerprint of each picture.
    data
        Name of the pictures' folder.

    Returns
    -------
    Calibration
        The evidence.
    """
    of_parts = ""
    if len(scores) < len(fingerprints):
        of_parts = f", {describe_parts(len(scores), len(fingerprints))}"
    rejected = int(reaches(scores, threshold).sum())
    rule = Rule("conformal", rate=rate)
    return Calibration(
        policy=f"false rejects of new good parts at most {format_rate(round(rate, 4))} ({CROSS_CONFORMAL}{of_parts})",
        data=data,
        counts={GOOD: len(scores)},
        auroc=None,
        aupr=None,
        true_ng=0,
        false_ng=rejected,
        true_ok=len(scores) - rejected,
        false_ok=0,
        images=fingerprint_set(fingerprints),
        time=now(),
        training_images=len(scores),
        good_scores=tuple(np.sort(scores).tolist()),
        rule=rule,
        map_rule=Rule("pixel_fpr", rate=0.001, value=threshold.map),
        fingerprints=pack_fingerprints(fingerprints),
    )
