from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from onspect.calibration.metrics.image import measure_area_intervals
from onspect.calibration.statistics import bootstrap
from onspect.calibration.statistics.bootstrap import draw_images, measure_drawn_areas
from onspect.calibration.thresholds import Cost, Manual, MaxF1, Youden

POLICIES = [
    MaxF1(),
    Youden(),
    Cost((1.0, 50.0)),
    Cost((3.0, 1.0), prevalence=0.1),
]


def scores(digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 25 good and 14 defective scores, with ties where digits are few."""
    random = np.random.default_rng(digits)
    return np.round(random.normal(0, 1, 25), digits), np.round(random.normal(1, 1, 14), digits)


def unfold(draws: bootstrap.Draws, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one draw's good and defective scores, each repeated by its count."""
    return np.repeat(draws.scores, draws.good[row]), np.repeat(draws.scores, draws.defective[row])


def test_draws_are_as_large_as_what_they_are_drawn_from() -> None:
    """Each draw has the same numbers of good and of defective images, only existing scores, and every image occurs."""
    good, defective = scores(1)
    (draws,) = draw_images(good, defective, 300)
    assert set(draws.good.sum(axis=1)) == {25}
    assert set(draws.defective.sum(axis=1)) == {14}
    assert not draws.good[:, ~np.isin(draws.scores, good)].any()
    assert draws.good[:, np.isin(draws.scores, good)].any(axis=0).all()


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_threshold_of_a_draw_is_the_policy_s_own(policy: MaxF1 | Youden | Cost, digits: int) -> None:
    """For every policy, tied scores or not, each draw's threshold is what the policy chooses on those images."""
    (draws,) = draw_images(*scores(digits), 60)
    found = policy.choose_drawn(draws)
    assert found is not None
    assert found.tolist() == [policy.choose(*unfold(draws, row)) for row in range(60)]


@pytest.mark.parametrize("digits", [0, 9])
def test_areas_of_a_draw_are_scikit_learn_s(digits: int) -> None:
    """Each draw's AUROC and average precision are those that scikit-learn finds, ties among them."""
    (draws,) = draw_images(*scores(digits), 40)
    for row, (auroc, aupr) in enumerate(measure_drawn_areas(draws)):
        good, defective = unfold(draws, row)
        truth, every = [0] * len(good) + [1] * len(defective), np.concatenate([good, defective])
        assert auroc == pytest.approx(roc_auc_score(truth, every))
        assert aupr == pytest.approx(average_precision_score(truth, every))


def test_many_images_are_drawn_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws come in batches of bounded size, and there are as many in all as were requested."""
    monkeypatch.setattr(bootstrap, "_CELLS", 400)
    sizes = [len(batch.good) for batch in draw_images(*scores(9), 35)]
    assert sum(sizes) == 35
    assert max(sizes) * 39 <= 400


def test_order_of_the_scores_does_not_matter() -> None:
    """Intervals are the same for scores in any order, as they come from images or from a file."""
    good, defective = scores(9)
    assert measure_area_intervals(good, defective) == measure_area_intervals(np.sort(good), defective[::-1])


@pytest.mark.parametrize(("good", "defective"), [([1.0], [2.0]), ([1.0, 1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_images_that_can_all_be_one_score_give_no_interval(good: list[float], defective: list[float]) -> None:
    """With one image, ties only, or so few that a draw can contain one of them alone, the threshold has no interval."""
    assert MaxF1().interval(np.array(good), np.array(defective)) is None


def test_threshold_set_by_hand_has_no_interval() -> None:
    """Other images would not have moved a threshold that was set by hand."""
    assert Manual(value=1.0).interval(*scores(9)) is None
