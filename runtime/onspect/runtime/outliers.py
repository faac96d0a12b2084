"""Good pictures with outlying scores: a single damaged or mislabelled picture would move a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST = 6
"""Smallest number of scores in which outliers can be found."""

_SHARE = 0.1  # largest share of outliers, at least one: more are a kind of good part
_GAP = 2.0  # times the distance from the median to the highest other score: smallest gap
_CAUTION = 20.0  # additional times, divided by the number of scores: few scores have a small range
_FACTOR = 1.3  # times the highest other score: smallest outlier


def find_lone_scores(scores: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Find high scores that are outliers.

    At most a tenth of the scores can be outliers: those above a gap. The gap must be at least 2 + 20 / n times the
    distance from the median to the score below it. It must also be at least 0.3 times that score. Among 10 to 1,000
    normal, gamma or lognormal (0.5) scores one is mistaken for an outlier in less than 1 of 30 cases. From 20
    scores on it is less than 1 of 50.

    Parameters
    ----------
    scores
        Scores of good pictures; finite, 0 or more, higher is worse.

    Returns
    -------
    list[int]
        Their indices, highest first; empty without outliers.

    Examples
    --------
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
    """Return the first few names in quotes, and the number of the other ones.

    Parameters
    ----------
    names
        The names.
    most
        Largest number of names to return.

    Returns
    -------
    str
        Text such as ``'a.png', 'b.png', 'c.png' and 4 more``.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
