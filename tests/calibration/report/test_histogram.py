from __future__ import annotations

import numpy as np
import pytest

from onspect.calibration.report.histogram import ErrorHistogram, find_bins


def test_bins_order_as_values_do() -> None:
    """A larger value never has a smaller bin, from zero over the tiniest float to the largest."""
    values = np.sort(np.random.default_rng(0).lognormal(0, 20, 1000).astype(np.float32))
    values = np.concatenate([[0.0, 1e-45], values, [np.finfo(np.float32).max]]).astype(np.float32)
    assert (np.diff(find_bins(np.sort(values))) >= 0).all()


def test_values_that_differ_enough_have_bins_of_their_own() -> None:
    """Values more than 1 part in 4,096 apart fall into different bins."""
    values = (np.float32(1.0) * (1 + 1 / 4096) ** np.arange(0, 100, dtype=np.float32)).astype(np.float32)
    assert len(set(find_bins(values[::2]))) == 50


def test_negative_zero_is_zero() -> None:
    """The two zeros share the lowest bin."""
    assert list(find_bins(np.array([-0.0, 0.0], np.float32))) == [0, 0]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0])
def test_at_most_the_rest_reaches_a_quantile(share: float) -> None:
    """At most 1 - share of the values are >= the quantile, and more than that are >= a value one bin lower."""
    values = np.random.default_rng(1).gamma(2.0, 0.1, 5000).astype(np.float32)
    histogram = ErrorHistogram()
    for part in np.split(values, 5):
        histogram.add(find_bins(part))
    found = histogram.find_quantile(share)
    assert np.mean(values < found) >= share
    assert np.mean(values < found * (1 - 2 / 4096)) < share
