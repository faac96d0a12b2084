"""Histogram of error values, fine enough for curves and quantiles, in constant memory for any number of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DROPPED_BITS = 11
_BINS = 1 << (31 - _DROPPED_BITS)


def find_bins(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the bin of each value.

    A bin is the leading bits of a float32: 8 bits of exponent and 12 of mantissa. Their order is that of the values.
    Values in the same bin differ by less than 1 part in 4,096.

    Parameters
    ----------
    values
        Finite values, 0 or more, of any shape.

    Returns
    -------
    NDArray[np.intp]
        int [n] for n values in all.
    """
    positive = np.abs(np.asarray(values, np.float32)).ravel()  # otherwise -0.0 would be in the highest bin
    return (positive.view(np.uint32) >> _DROPPED_BITS).astype(np.intp)


def find_edge(position: int) -> float:
    """Return the lowest value of a bin. All values of this bin and of higher bins reach it, and no others.

    Parameters
    ----------
    position
        Number of the bin.

    Returns
    -------
    float
        The lowest value, 0 or more.
    """
    return float(np.array(position << _DROPPED_BITS, np.uint32).view(np.float32))


class ErrorHistogram:
    """Number of error values, or sum of their weights, in a million bins (8 MB)."""

    def __init__(self) -> None:
        self.sums: NDArray[np.float64] = np.zeros(_BINS)

    def add(self, bins: NDArray[np.intp], weights: NDArray[Any] | None = None) -> None:
        """Add values by their bins.

        Parameters
        ----------
        bins
            Bins of the values, from `find_bins`.
        weights
            Weights of the values, [n]; None for 1 each.
        """
        counted = np.bincount(bins, weights)
        self.sums[: len(counted)] += counted

    @property
    def total(self) -> float:
        """Sum over all bins."""
        return float(self.sums.sum())

    def find_quantile(self, share: float) -> float:
        """Return a quantile, exact to the width of one bin. At least one value must have been added.

        Parameters
        ----------
        share
            Share of the values that must be below the quantile, 0 to 1.

        Returns
        -------
        float
            Upper edge of the bin with the quantile: at most 1 - share of the values reach it.
        """
        below = np.cumsum(self.sums)
        return find_edge(int(np.argmax(below / below[-1] >= share)) + 1)

    def count_reaching(self) -> NDArray[np.float64]:
        """Return the sum of each bin and all higher bins.

        Returns
        -------
        NDArray[np.float64]
            float64 [bins].
        """
        return np.asarray(np.cumsum(self.sums[::-1])[::-1])
