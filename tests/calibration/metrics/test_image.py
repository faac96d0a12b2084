from __future__ import annotations

import numpy as np
import pytest

from onspect.calibration.metrics.image import Confusion, count_confusion, measure_areas, trace_curves
from onspect.runtime.model.schema import Threshold


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    """AUROC equals the share of good-defective pairs in which the defective score is higher, ties counting half."""
    generator = np.random.default_rng(2)
    good, defective = np.round(generator.normal(0, 1, 40), 1), np.round(generator.normal(0.7, 1, 30), 1)
    pairs = np.sign(defective[:, None] - good[None, :])
    assert measure_areas(good, defective).auroc == pytest.approx(np.mean((pairs + 1) / 2), abs=1e-12)


def test_aupr_is_average_precision_with_defective_as_positive() -> None:
    """AUPR sums precision over the steps of recall."""
    # Ranked: defective (precision 1), good, defective (precision 2/3).
    assert measure_areas(np.array([2.0]), np.array([3.0, 1.0])).aupr == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize(("good", "defective", "missing"), [([], [1.0], "good"), ([1.0], [], "defective")])
def test_areas_of_one_kind_are_undefined_with_a_reason(good: list[float], defective: list[float], missing: str) -> None:
    """With one kind of image only there is no area, and the reason names the missing kind."""
    areas = measure_areas(np.array(good), np.array(defective))
    assert set(areas.values.values()) == {None}
    assert areas.reason == f"there are no {missing} images to compare with"


def test_a_score_on_the_threshold_is_ng() -> None:
    """The confusion matrix counts a score that equals the threshold as rejected, as the runtime does."""
    assert count_confusion(np.array([1.0, 2.0]), np.array([2.0, 3.0]), Threshold(2.0, 2.0)) == Confusion(2, 1, 1, 0)


def test_shares_of_a_confusion() -> None:
    """Recall, FPR, precision and F1 follow from the four counts."""
    confusion = Confusion(true_ng=3, false_ng=1, true_ok=9, false_ok=2)
    assert (confusion.recall, confusion.fpr, confusion.precision, confusion.f1) == (0.6, 0.1, 0.75, 6 / 9)


def test_images_for_review_are_neither_caught_nor_escaped() -> None:
    """Recall and false rejects count images judged ng, escapes those judged ok; the ones in the band are in neither."""
    band = Threshold(3.0, 3.0, review=2.0)
    confusion = count_confusion(np.array([1.0, 2.0, 3.0, 1.5]), np.array([1.0, 2.5, 2.9, 4.0]), band)
    assert confusion == Confusion(1, 1, 2, 1, review_good=1, review_defective=2)
    assert (confusion.good, confusion.defective) == (4, 4)
    assert (confusion.fpr, confusion.recall, confusion.escapes) == (0.25, 0.25, 0.25)


def test_shares_of_nothing_are_none() -> None:
    """The share of an empty set of images is None, not an error."""
    confusion = Confusion(0, 0, 0, 0)
    assert (confusion.recall, confusion.fpr, confusion.precision, confusion.f1) == (None, None, None, None)


def test_curves_run_from_corner_to_corner() -> None:
    """The ROC curve starts at (0, 0) and ends at (1, 1); the PR curve ends at full precision."""
    curves = trace_curves(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    assert (curves.false_positive_rate[0], curves.true_positive_rate[0]) == (0, 0)
    assert (curves.false_positive_rate[-1], curves.true_positive_rate[-1]) == (1, 1)
    assert (curves.precision[-1], curves.recall[-1]) == (1, 0)
