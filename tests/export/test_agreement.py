from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onspect.calibration.review import ReviewShare
from onspect.calibration.thresholds import MaxF1
from onspect.export.agreement import Reference, allowed_flips, compare, describe_flips, make_reference
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ExportError

GOOD = [LabelledImage(Path(f"{index}.png"), "good") for index in range(3)]
BAD = [LabelledImage(Path(f"{index}.png"), "scratch") for index in range(3, 6)]


@pytest.fixture
def reference() -> Reference:
    """Three good images with scores 1 to 3 and three defective ones with 4 to 6; the threshold is at 3.5."""
    return make_reference("part@0", [*GOOD, *BAD], np.arange(1.0, 7.0), MaxF1())


def test_a_uniform_change_of_scale_flips_nothing(reference: Reference) -> None:
    """Scores that are all twice as high have a threshold of twice the height: no flip, and many with the old one."""
    agreement = compare(reference, reference.scores * 2)
    assert (agreement.flips, agreement.carried, agreement.images) == (0, 2, 6)


def test_a_changed_order_flips_verdicts(reference: Reference) -> None:
    """At each threshold, a verdict that differs between the two files is counted."""
    agreement = compare(reference, np.array([1.0, 2.0, 4.5, 4.0, 5.0, 6.0]))
    assert agreement.flips == 1
    assert agreement.policy == "highest F1"


def test_shift_is_in_units_of_the_spread(reference: Reference) -> None:
    """The shift is the root mean square difference over the standard deviation of the reference's scores."""
    assert compare(reference, reference.scores + 0.5).shift == pytest.approx(0.5 / np.std(np.arange(6)))


@pytest.mark.parametrize("scores", [[1, 2, 3, np.nan, 5, 6], [1, 1, 1, 1, 1, 1]])
def test_scores_that_judge_nothing_flip_everything(reference: Reference, scores: list[float]) -> None:
    """Scores that are not finite, or all equal, count as if every verdict had flipped."""
    assert compare(reference, np.array(scores, np.float64)).flips == 6


def test_the_refusal_of_flips_names_numbers_and_remedy(reference: Reference) -> None:
    """The refusal says how many flipped, by which policy, and what to do."""
    agreement = compare(reference, np.array([1.0, 2.0, 4.5, 4.0, 5.0, 6.0]))
    with pytest.raises(
        ExportError, match=r"1 of 6 verdicts differ .* \(highest F1\), and 0 are allowed: .*--max-flips 1"
    ):
        raise describe_flips(agreement, 0)


def test_a_threshold_that_jumped_is_told_from_scores_that_moved() -> None:
    """If the old threshold flips nothing and the new one does, the refusal says so."""
    before, after = np.array([4.0, 3, 1, 2, 5, 6]), np.array([4.0, 2, 1, 3, 5, 6])  # two scores far below the cut swap
    agreement = compare(make_reference("part@0", [*GOOD, *BAD], before, MaxF1()), after)
    assert agreement.carried == 0
    with pytest.raises(ExportError, match="only 0 would differ, so the cause is the new threshold"):
        raise describe_flips(agreement, 0)


def test_the_default_is_none_in_float32_and_one_in_500_else() -> None:
    """Without a wish, float32 may flip nothing and the others one verdict for each full 500 images."""
    assert [allowed_flips(count, "int8", None) for count in (178, 499, 500, 1200)] == [0, 0, 1, 2]
    assert allowed_flips(1200, "fp32", None) == 0
    assert allowed_flips(10, "fp16", 3) == 3


def test_parts_that_leave_the_review_band_count(reference: Reference) -> None:
    """With a review band, a verdict that changes between ok and review is a flip too."""
    band = ReviewShare(0.4)
    banded = make_reference("part@0", reference.images, reference.scores, reference.policy, band)
    assert banded.threshold.review == 2.5
    assert compare(banded, banded.scores).flips == 0
    agreement = compare(banded, np.array([1.0, 3.1, 3.0, 4.0, 5.0, 6.0]))
    assert agreement.flips == 2
    assert agreement.policy == "highest F1; review of at most 40% of good parts"
