from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from onspect.calibration.calibration import calibrate, move_threshold
from onspect.calibration.metrics.image import Confusion
from onspect.calibration.review import Band, ReviewInterval, ReviewRecall, ReviewShare, tabulate_review, trace_review
from onspect.calibration.thresholds import MaxFpr
from onspect.runtime.errors import DatasetError
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Threshold

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]

GOOD = np.arange(1.0, 11.0)
DEFECTIVE = np.array([4.5, 6.5, 8.5, 11.0])


@pytest.fixture
def data(make_dataset: Make) -> Path:
    """Sixteen good images around grey and four bright ones, of which two are among the good."""
    return make_dataset({"val/good": range(120, 136), "val/bright": [133, 135, 200, 240]})


def test_band_begins_where_the_share_of_defects_is_seen() -> None:
    """A demand on recall puts the band's lower end at the highest cut that rejects or reviews this share of defects."""
    assert ReviewRecall(0.75).choose(GOOD, DEFECTIVE, 10.5, None) == 6.25
    assert ReviewRecall(0.25).choose(GOOD, DEFECTIVE, 10.5, None) is None


@pytest.mark.parametrize(("share", "reviewed"), [(0.1, 1), (0.25, 2), (0.3, 3), (1.0, 10)])
def test_band_is_as_long_as_the_share_of_good_parts_allows(share: float, reviewed: int) -> None:
    """A limit on good parts for review is reached where it can be, and never passed; rejected ones do not count."""
    for threshold, rejected in ((10.5, 0), (9.25, 1)):
        review = ReviewShare(share).choose(GOOD, DEFECTIVE, threshold, None)
        assert review is not None
        assert np.count_nonzero((review <= GOOD) & (threshold > GOOD)) == min(reviewed, 10 - rejected)


def test_tied_good_images_are_reviewed_together_or_not_at_all() -> None:
    """If all of the tied images next to the threshold would be too many for a person, there is no band."""
    good = np.array([1.0, 2.0, 5.0, 5.0, 5.0])
    assert ReviewShare(0.5).choose(good, DEFECTIVE[:0], 5.5, None) is None
    assert ReviewShare(0.6).choose(good, DEFECTIVE[:0], 5.5, None) == 3.5


def test_band_of_the_interval_begins_at_its_lower_end() -> None:
    """The band taken from the threshold's interval begins where that does; an interval of no width leaves no band."""
    assert ReviewInterval().choose(GOOD, DEFECTIVE, 9.0, (7.5, 10.0)) == 7.5
    assert ReviewInterval().choose(GOOD, DEFECTIVE, 9.0, (9.0, 9.0)) is None
    with pytest.raises(DatasetError, match="--review takes the band from the threshold's interval"):
        ReviewInterval().choose(GOOD, DEFECTIVE, 9.0, None)


def test_curve_trades_review_for_escapes() -> None:
    """From no band downwards more parts are reviewed and fewer defects escape, until none does."""
    curve = trace_review(GOOD, DEFECTIVE, 9.25)
    assert (curve.review[0], curve.good[0], curve.defective[0], curve.escapes[0]) == (9.25, 0.0, 0.0, 0.75)
    assert (curve.good[-1], curve.defective[-1], curve.escapes[-1]) == (0.9, 0.75, 0.0)
    assert (np.diff(curve.good) >= 0).all()
    assert (np.diff(curve.escapes) <= 0).all()
    assert curve.defective + curve.escapes == pytest.approx(0.75)


def test_table_has_no_band_the_usual_shares_and_the_threshold_own() -> None:
    """The table's rows run from no band downwards, and the stamped band is one of them."""
    table = tabulate_review(GOOD, DEFECTIVE, Threshold(9.25, 9.25, review=7.7))
    assert table.review.tolist() == sorted(table.review, reverse=True)
    assert (table.review[0], 7.7 in table.review) == (9.25, True)
    assert set(table.good) == {0.0, 0.1, 0.2, 0.5}


def test_recall_that_so_few_defects_cannot_support() -> None:
    """Twenty defects, all caught or reviewed, do not support 99%; a supported demand passes."""
    confusion = Confusion(15, 0, 60, 0, review_good=3, review_defective=5)
    claim = ReviewRecall(0.99).support(confusion)
    assert claim is not None
    assert "catch or review at least 99% of defects; 20 defective images, 20 of them caught or reviewed" in claim
    assert "support at best 86.09%" in claim
    assert ReviewRecall(0.86).support(confusion) is None


def test_share_that_so_few_good_images_cannot_support() -> None:
    """Three of 63 good images in the band do not support a limit of 5%; a supported limit passes."""
    confusion = Confusion(15, 0, 60, 0, review_good=3)
    claim = ReviewShare(0.05).support(confusion)
    assert claim is not None
    assert "review at most 5% of good parts; 63 good images, 3 of them reviewed, support at best 11.85%" in claim
    assert ReviewShare(0.12).support(confusion) is None


def test_band_is_stamped_with_its_evidence(model: Path, data: Path, onspect: Run) -> None:
    """The band, its rule and its effect on the images are in the file, and its description in the policy."""
    result = onspect("calibrate", model, data, "--max-fpr", "5%", "--review-recall", "100%")
    assert result.exit_code == 0, result.output
    info = read_model_file(model).info
    assert info.threshold is not None
    assert info.threshold.review is not None
    assert info.calibration is not None
    assert info.calibration.true_ng + info.calibration.review_defective == 4
    assert info.calibration.review_rule is not None
    assert (info.calibration.review_rule.name, info.calibration.review_rule.rate) == ("review_recall", 1.0)
    assert info.calibration.policy.endswith("review down to where at least 100% of defects are caught or reviewed")
    assert {"review", "escapes"} <= set(info.calibration.intervals)
    assert "(stamped)" in result.stdout
    assert "for a person from this score on" in result.stdout
    assert "for review" in onspect("info", model).stdout


def test_regions_begin_at_the_lower_cut_where_the_score_is_the_maximum(
    tmp_path: Path, data: Path, write_model: Callable[..., Path]
) -> None:
    """With a score that is the map's maximum a part for review shows where: the map's cut is the band's lower end."""
    model = write_model(tmp_path / "peak.onnx", score="peak")
    threshold = calibrate(model, data, policy=MaxFpr(0.05), band=ReviewShare(0.2)).threshold
    assert threshold.map == threshold.review


@pytest.mark.parametrize("band", [ReviewInterval(), ReviewRecall(1.0), ReviewShare(0.3)])
def test_moved_band_is_the_calibrated_one(tmp_path: Path, model: Path, data: Path, band: Band) -> None:
    """Moving threshold and band by the stored scores gives what calibrating on the images gives."""
    other = tmp_path / "other.onnx"
    other.write_bytes(model.read_bytes())
    calibrate(model, data)
    moved = move_threshold(model, MaxFpr(0.05), band=band)
    assert moved.threshold.review is not None
    assert moved.threshold == calibrate(other, data, policy=MaxFpr(0.05), band=band).threshold


def test_band_that_goes_is_pointed_out(model: Path, data: Path, onspect: Run) -> None:
    """Moving the threshold of a file with a band without a new one says that it has no band now."""
    calibrate(model, data, policy=MaxFpr(0.05), band=ReviewShare(0.2))
    result = onspect("threshold", model, "--max-fpr", "10%")
    assert "was removed, and its parts pass now" in result.stderr
    onspect("threshold", model, "--undo")
    threshold = read_model_file(model).info.threshold
    assert threshold is not None
    assert threshold.review is not None


def test_band_that_has_nothing_to_hold_is_pointed_out(model: Path, data: Path, onspect: Run) -> None:
    """If the threshold alone catches the request, the command says that there is no band."""
    result = onspect("calibrate", model, data, "--min-recall", "100%", "--review-recall", "50%")
    assert result.exit_code == 0
    assert "there is no review band" in result.stderr
    assert read_model_file(model).info.format_version == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--review-recall", "99%"], "--review-recall needs defective images, and there are 20 good ones only"),
        (["--review-share", "1%", "--strict"], "you asked to review at most 1% of good parts"),
    ],
)
def test_band_that_the_images_cannot_give_is_refused(
    model: Path, make_dataset: Make, onspect: Run, arguments: list[str], words: str
) -> None:
    """A band that needs defects, or (with --strict) more images, is an error and nothing is stamped."""
    before = model.read_bytes()
    result = onspect("calibrate", model, make_dataset({"val/good": range(118, 138)}), "--quantile", "80%", *arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert model.read_bytes() == before


def test_band_around_a_threshold_set_by_hand(model: Path, data: Path, onspect: Run) -> None:
    """A threshold set by hand has no interval to take a band from, and takes one by recall."""
    calibrate(model, data)
    result = onspect("threshold", model, "--set", "0.05", "--review")
    assert result.exit_code == 1
    assert "a threshold set by hand has none either" in result.stderr
    assert onspect("threshold", model, "--set", "0.05", "--review-recall", "100%").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [["--review", "--review-share", "5%"], ["--review-recall", "0%"], ["--review-share", "all"]],
)
def test_bad_bands_are_bad_usage(model: Path, data: Path, onspect: Run, arguments: list[str]) -> None:
    """Two bands at once and rates that make no sense end with exit code 2."""
    assert onspect("calibrate", model, data, *arguments).exit_code == 2


def test_undo_stands_alone(model: Path, data: Path, onspect: Run) -> None:
    """--undo with a band or --strict, which it could not heed, is bad usage."""
    calibrate(model, data)
    assert onspect("threshold", model, "--undo", "--review").exit_code == 2
    assert onspect("threshold", model, "--undo", "--strict").exit_code == 2
