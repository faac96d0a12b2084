"""Good scores that are outliers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.outliers import find_lone_scores, name_some

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


@pytest.mark.parametrize(
    ("scores", "lone"),
    [
        ([], []),
        ([1.0, 2.0, 300.0], []),
        ([1.0] * 9 + [1.0001], []),
        ([1.0, 1.2, 0.9, 1.1, 1.3, 9.0, 1.0], [5]),
        ([*np.linspace(1, 2.4, 40), 149.0], [40]),
        ([149.0, *np.linspace(1, 2.4, 40), 42.7], [0, 41]),
        ([*np.linspace(1, 2.4, 40), *np.linspace(5, 6, 10)], []),
        ([0.0] * 20 + [0.5], [20]),
        ([0.0] * 20, []),
    ],
)
def test_scores_far_above_all_others_stand_alone(scores: list[float], lone: list[int]) -> None:
    """A tenth of the scores at most is found, highest first; a separate group of good parts is not."""
    assert find_lone_scores(scores) == lone


@pytest.mark.parametrize("count", [20, 60, 300])
@pytest.mark.parametrize(
    "draw",
    [
        lambda random, n: random.normal(10.0, 1.0, n),
        lambda random, n: random.gamma(2.0, 1.0, n),
        lambda random, n: random.exponential(1.0, n),
        lambda random, n: random.lognormal(0.0, 0.5, n),
        lambda random, n: random.uniform(0.0, 1.0, n),
    ],
)
def test_scores_of_good_parts_alone_are_seldom_mistaken(draw: Draw, count: int) -> None:
    """If all scores come from one distribution, one is an outlier in less than 1 of 25 draws."""
    random = np.random.default_rng(count)
    assert np.mean([bool(find_lone_scores(draw(random, count))) for _ in range(200)]) < 0.04


def test_names_are_cut_short() -> None:
    """Three names and how many more."""
    assert name_some(["a", "b"]) == "'a', 'b'"
    assert name_some(["a", "b", "c", "d", "e"]) == "'a', 'b', 'c' and 2 more"
