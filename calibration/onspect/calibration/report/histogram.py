"""A histogram of error values fine enough for curves and quantiles, in constant memory however many pixels come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DROPPED_BITS = 11
_BINS = 1 << (31 - _DROPPED_BITS)


def find_bins(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the bin of each value, int [n] for n values in all; values are finite and >= 0.

    A bin is the leading bits of a float32, which order non-negative numbers as their values do: 8 bits of exponent and
    12 of mantissa, so values that share a bin differ by less than 1 part in 4,096.
    """
    positive = np.abs(np.asarray(values, np.float32)).ravel()  # -0.0 would have the highest bin of all
    return (positive.view(np.uint32) >> _DROPPED_BITS).astype(np.intp)


def find_edge(position: int) -> float:
    """Return the lowest value of a bin: all values in it and above it reach that, and no others do."""
    return float(np.array(position << _DROPPED_BITS, np.uint32).view(np.float32))


class ErrorHistogram:
    """Counts of error values, or sums of their weights, in a million bins (8 MB)."""

    def __init__(self) -> None:
        self.sums: NDArray[np.float64] = np.zeros(_BINS)

    def add(self, bins: NDArray[np.intp], weights: NDArray[Any] | None = None) -> None:
        """Count the values in these bins (`find_bins`), each as 1 or as its weight."""
        counted = np.bincount(bins, weights)
        self.sums[: len(counted)] += counted

    @property
    def total(self) -> float:
        """The sum over all bins."""
        return float(self.sums.sum())

    def find_quantile(self, share: float) -> float:
        """Return a value that at least `share` of the values lie below, exact to the width of one bin.

        It is the edge just above the bin that holds the quantile, so at most 1 - share of the values reach it. At least
        one value must have been counted.
        """
        below = np.cumsum(self.sums)
        return find_edge(int(np.argmax(below / below[-1] >= share)) + 1)

    def count_reaching(self) -> NDArray[np.float64]:
        """Return how much lies in each bin and all above it, float64 [bins]."""
        return np.asarray(np.cumsum(self.sums[::-1])[::-1])
