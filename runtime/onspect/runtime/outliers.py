"""Good pictures whose score stands alone: a damaged or mislabelled one among them would move a threshold by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST = 6
"""Scores that it takes to tell that one of them stands alone."""

_SHARE = 0.1  # of the scores that may stand alone, one at least: more are a kind of good part by themselves
_GAP = 2.0  # times the way from the median to the highest of the others, by which a lone score is higher than that
_CAUTION = 20.0  # further times, divided by the number of scores: few of them span less than they could
_FACTOR = 1.3  # times the highest of the others that a lone score has at least


def find_lone_scores(scores: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Return the indices of high scores that stand alone, highest first; an empty list where none does.

    Parameters
    ----------
    scores
        Of good pictures; finite, 0 or more, higher is worse.

    Of the highest scores, a tenth of them at most, those above a gap stand alone where the gap is at least
    2 + 20 / n times the distance from the median to the score below it, and at least 0.3 times that score. Among 10 to
    1,000 normal, gamma or lognormal (0.5) scores one is mistaken for such in less than 1 of 30 cases, from 20 scores on
    in less than 1 of 50.

    >>> find_lone_scores([1.0, 1.2, 0.9, 1.1, 1.3, 9.0, 1.0])
    [5]
    >>> find_lone_scores([1.0, 1.2, 0.9, 1.1, 1.3, 1.5, 1.0])
    []
    """
    values = np.asarray(scores, np.float64)
    if len(values) < FEWEST:
        return []
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    most = max(1, math.ceil(_SHARE * len(values)))
    needed = _GAP + _CAUTION / len(values)
    for count in range(most, 0, -1):
        rest = ordered[:-count]
        highest, gap = float(rest[-1]), float(ordered[-count] - rest[-1])
        reach = highest - float(np.median(rest))
        if gap > 0.0 and gap >= needed * reach and gap >= (_FACTOR - 1.0) * highest:
            return [int(index) for index in order[-count:][::-1]]
    return []


def name_some(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names in quotes, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
