"""The threshold that good pictures support, and its evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.conformal import conformal, conformal_rank, format_rate
from onspect.runtime.dataset.folder import GOOD
from onspect.runtime.errors import DatasetError
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.schema import Calibration, Rule, Threshold
from onspect.runtime.teaching.fit import FittedMemory

RATE = 0.01
"""Share of new good parts that may be rejected, where there are enough pictures to promise it."""

CROSS_CONFORMAL = "cross-conformal"
"""The policy of a threshold that teaching chose: each picture judged by a memory without it."""


def choose_rate(rate: float | None, count: int) -> float:
    """Return the share of false rejects that is promised: as asked for, or the least that so many pictures can.

    Raises DatasetError if so many pictures cannot promise what was asked for.
    """
    least = 1.0 / (count + 1)
    if rate is None:
        return max(RATE, least)
    if conformal_rank(count, rate) > count:
        needed = math.ceil(round(1.0 / rate, 9)) - 1
        raise DatasetError(
            f"--max-fpr {format_rate(rate)} needs at least {needed} good pictures to promise that, and there are "
            f"{count}: add {needed - count}, or ask for {format_rate(math.ceil(1e4 * least) / 1e4)} or more"
        )
    return rate


def fit_threshold(
    fitted: FittedMemory, rate: float, fingerprints: Sequence[str], data: str
) -> tuple[Threshold, Calibration]:
    """Return the threshold that the pictures' own scores support, and its evidence.

    rate: share of new good parts that may be rejected. fingerprints: of the pictures. data: their folder's name.
    """
    scores = fitted.scores.astype(np.float64)
    threshold = Threshold(score=conformal(scores, rate), map=fitted.map_cut)
    return threshold, make_calibration(scores, threshold, rate, fingerprints, data)


def make_calibration(
    scores: NDArray[np.float64], threshold: Threshold, rate: float, fingerprints: Sequence[str], data: str
) -> Calibration:
    """Return the evidence of a threshold: float64 scores [n] of the pictures, each by a memory without it.

    rate, fingerprints, data: as in `fit_threshold`.
    """
    rejected = int((scores >= threshold.score).sum())
    rule = Rule("conformal", rate=rate)
    return Calibration(
        policy=f"false rejects of new good parts at most {format_rate(round(rate, 4))} ({CROSS_CONFORMAL})",
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
