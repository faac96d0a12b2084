from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from onspect.calibration.metrics.image import Confusion, measure_area_intervals
from onspect.calibration.thresholds import Conformal, Cost, MaxF1, MaxFpr, MinRecall, Policy, Quantile, Youden
from onspect.runtime.conformal import conformal
from onspect.runtime.errors import DatasetError
from onspect.runtime.model.file import read_model_file

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]


def test_sixty_images_support_4_9_percent() -> None:
    """Sixty good images without a reject support at most 4.9% false rejects, and the message says how many would do."""
    claim = MaxFpr(0.001).support(Confusion(5, 0, 60, 0))
    assert claim is not None
    assert "at most 0.1% false rejects; 60 good images, 0 of them rejected, support at best 4.87%" in claim
    assert "2995 good images with none rejected" in claim


@pytest.mark.parametrize(
    ("policy", "confusion"),
    [
        (MaxFpr(0.05), Confusion(5, 0, 60, 0)),
        (Quantile(0.95), Confusion(5, 0, 60, 0)),
        (MinRecall(0.95), Confusion(60, 3, 60, 0)),
        (MaxF1(), Confusion(1, 0, 1, 0)),
        (Conformal(0.001), Confusion(0, 0, 999, 0)),
    ],
)
def test_supported_claims_pass(policy: Policy, confusion: Confusion) -> None:
    """A request that the images support, or no request, gives no warning."""
    assert policy.support(confusion) is None


def test_recall_is_bounded_by_the_defects_that_were_seen() -> None:
    """Twenty defects, all caught, do not support a recall of 99%."""
    claim = MinRecall(0.99).support(Confusion(20, 0, 60, 0))
    assert claim is not None
    assert "20 defective images, 20 of them caught, support at best 86.09%" in claim


def test_conformal_says_how_many_images_a_promise_needs() -> None:
    """With too few good images there is no promise, and the message has the number of missing images."""
    with pytest.raises(DatasetError, match=r"needs at least 199 good images.*there are 60: add 139, or ask for 1\.64%"):
        conformal(np.arange(60.0), 0.005)
    assert conformal(np.arange(199.0), 0.005) > 198.0


@pytest.mark.slow
@pytest.mark.parametrize("count", [19, 60, 137])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25])
def test_conformal_rejects_new_parts_as_promised(count: int, rate: float) -> None:
    """Over many draws the share of new good parts rejected is at most the promise, within three standard errors."""
    random = np.random.default_rng(count)
    draws = 4000
    rejected = 0
    for _ in range(draws):
        scores = random.normal(size=count + 1)
        rejected += bool(scores[-1] >= conformal(scores[:-1], rate))
    assert rejected / draws <= rate + 3 * np.sqrt(rate * (1 - rate) / draws)


def test_costs_move_the_threshold() -> None:
    """Dear escapes lower the threshold, dear rejects raise it, and rare defects make rejects weigh more."""
    random = np.random.default_rng(0)
    good, defective = random.normal(0, 1, 400), random.normal(2, 1, 400)
    dear_escapes, dear_rejects = (Cost(costs, 0.1).choose(good, defective) for costs in ((1, 50), (50, 1)))
    assert dear_escapes < Youden().choose(good, defective) < dear_rejects
    assert Cost((1, 50), 0.001).choose(good, defective) > dear_escapes


def test_youden_is_the_best_difference() -> None:
    """No other threshold has a higher recall minus false-reject rate."""
    random = np.random.default_rng(1)
    good, defective = random.normal(0, 1, 50), random.normal(1, 1, 30)
    best = Youden().choose(good, defective)
    values = [np.mean(defective >= t) - np.mean(good >= t) for t in [*good, *defective]]
    assert np.mean(defective >= best) - np.mean(good >= best) >= max(values) - 1e-12


def test_intervals_hold_the_figure() -> None:
    """The bootstrap intervals are around the AUROC and the threshold, and repeat."""
    random = np.random.default_rng(2)
    good, defective = random.normal(0, 1, 60), random.normal(1.5, 1, 40)
    low, high = measure_area_intervals(good, defective)["auroc"]
    assert 0.65 < low < 0.82 < high < 0.95
    policy = MaxFpr(0.1)
    first = policy.interval(good, defective)
    assert first is not None
    assert first[0] <= policy.choose(good, defective) <= first[1]
    assert first == policy.interval(good, defective)


def test_strict_stamps_nothing(onspect: Run, model: Path, make_dataset: Make) -> None:
    """With --strict an unsupported demand is an error and the file stays unchanged."""
    data = make_dataset({"val/good": range(118, 138), "val/bright": [240, 250]})
    before = model.read_bytes()
    result = onspect("calibrate", model, data, "--max-fpr", "1%", "--strict")
    assert result.exit_code == 1
    assert "support at best 13.91%" in result.stderr
    assert model.read_bytes() == before
    assert onspect("calibrate", model, data, "--max-fpr", "1%").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        (["--youden"], "Youden"),
        (["--cost", "1:50"], "1 for a false reject and 50 for an escape, defective parts as among these images"),
        (["--cost", "1:50", "--prevalence", "2%"], "defective parts 2%"),
        (["--conformal", "10%"], "at most 10% (split conformal)"),
    ],
)
def test_policy_is_written_in_words(
    onspect: Run, model: Path, make_dataset: Make, arguments: list[str], policy: str
) -> None:
    """The stamped policy names the request, and the intervals are beside the figures."""
    data = make_dataset({"val/good": range(118, 138), "val/bright": [240, 250]})
    result = onspect("calibrate", model, data, *arguments)
    assert result.exit_code == 0, result.output
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert policy in calibration.policy
    assert set(calibration.intervals) == {"fpr", "recall", "auroc", "aupr", "threshold"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cost", "1"],
        ["--cost", "0:5"],
        ["--cost", "a:b"],
        ["--prevalence", "2%"],
        ["--conformal", "0"],
        ["--youden", "--max-f1"],
        ["--cost", "1:2", "--prevalence", "100%"],
    ],
)
def test_bad_policies_are_bad_usage(onspect: Run, model: Path, make_dataset: Make, arguments: list[str]) -> None:
    """Costs, shares and policies that make no sense end with exit code 2."""
    assert onspect("calibrate", model, make_dataset({"val/good": [1]}), *arguments).exit_code == 2
