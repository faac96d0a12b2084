"""Search for bfloat16 scores that are too near to a threshold for a verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.model.schema import Bfloat16Margin, Threshold


def find_doubtful(scores: NDArray[np.float32], threshold: Threshold, margin: Bfloat16Margin) -> NDArray[np.bool_]:
    """Return which scores in bfloat16 need a second run in float32.

    A score is doubtful if float32 may have another verdict: it differs from the threshold, or from the lower end of
    the review band, by no more than the margin. A score that is not finite is doubtful too.

    Parameters
    ----------
    scores
        Scores in bfloat16, float32 [n].
    threshold
        The cuts in force.
    margin
        How far bfloat16 moves scores.

    Returns
    -------
    NDArray[np.bool_]
        bool [n].
    """
    doubtful = ~np.isfinite(scores)
    exact = scores.astype(np.float64)
    for cut in (threshold.score, threshold.review):
        if cut is not None:
            doubtful |= (exact >= cut + margin.low) & (exact <= cut + margin.high)
    return doubtful
