"""One wrong picture, copies of files, and a model that sees nothing: reported, and refused on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import pytest
from click.testing import Result

from onspect.calibration import evaluate
from onspect.runtime.model.file import read_model_file

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]

GOOD = [*range(118, 139)]
"""Brightnesses: scores up to 0.0015."""


def _threshold(model: Path) -> float:
    threshold = read_model_file(model).info.threshold
    assert threshold is not None
    return threshold.score


@pytest.mark.slow
@pytest.mark.parametrize("policy", [["--quantile", "99%"], ["--max-fpr", "1%"], []])
def test_one_wrong_picture_is_named(onspect: Run, model: Path, make_dataset: Make, policy: list[str]) -> None:
    """A defective part among good ones is named with both thresholds; --strict refuses, --trim leaves it out."""
    data = make_dataset({"val/good": [*GOOD, 250]})
    result = onspect("calibrate", model, data, *policy)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "an outlier" in line]
    assert "1 of 22 good images is an outlier" in line
    assert str(data / "val/good/021.png") in line
    high = _threshold(model)
    assert f"the threshold is {high:.6g} with and" in line
    assert "--trim" in line

    refused = onspect("calibrate", model, data, *policy, "--strict")
    assert refused.exit_code == 1
    assert "an outlier" in refused.stderr

    trimmed = onspect("calibrate", model, data, *policy, "--trim")
    assert "left out by --trim" in trimmed.stderr
    assert "an outlier" not in trimmed.stderr
    assert f"and {_threshold(model):.6g} without" in line
    assert _threshold(model) < high / 10
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert "1 good image left out by --trim" in calibration.policy
    assert calibration.counts == {"good": 21}


def test_threshold_command_knows_lone_scores_too(onspect: Run, model: Path, make_dataset: Make) -> None:
    """Moving a threshold over stored scores names a lone one, --strict refuses, and --trim leaves it out."""
    data = make_dataset({"val/good": [*GOOD, 250], "val/bright": [240, 245]})
    onspect("calibrate", model, data)
    moved = onspect("threshold", model, "--quantile", "100%")
    assert "1 of 22 good images is an outlier" in moved.stderr
    high = _threshold(model)
    assert onspect("threshold", model, "--quantile", "100%", "--strict").exit_code == 1
    assert onspect("threshold", model, "--quantile", "100%", "--trim").exit_code == 0
    assert _threshold(model) < high / 10
    by_hand = onspect("threshold", model, "--set", "0.1")
    assert "an outlier" not in by_hand.stderr


@pytest.mark.slow
def test_evaluate_names_lone_good_pictures(onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path) -> None:
    """A test set with a defective part among the good ones is pointed out by its path."""
    data = make_dataset({"test/good": [*GOOD, 250], "test/bright": [240, 245]})
    result = onspect("evaluate", calibrated, data, "-o", tmp_path / "report")
    assert f"check {str(data / 'test/good/021.png')!r}" in result.stderr


@pytest.mark.slow
def test_equal_files_count_once(onspect: Run, model: Path, make_dataset: Make, tmp_path: Path) -> None:
    """Copies, links and images saved again add nothing to counts and promises, and are named by their paths."""
    data = make_dataset({"val/good": GOOD, "val/bright": [240, 245], "test/good": GOOD, "test/bright": [240, 245]})
    for split in ("val", "test"):
        for number in range(60):
            shutil.copy(data / f"{split}/good/000.png", data / f"{split}/good/copy{number}.png")
        (data / f"{split}/bright/again.png").symlink_to("000.png")
        saved_again = cv2.imread(str(data / f"{split}/good/001.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(data / f"{split}/good/saved_again.bmp"), saved_again)
    result = onspect("calibrate", model, data)
    assert "62 of 85 images repeat other files and count once" in result.stderr
    assert str(data / "val/bright/again.png") in result.stderr
    assert "21 good, 2 defective" in result.stdout
    evaluated = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert "the 23 test images that were held back at calibration" in evaluated.stdout
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["images"] == {"good": 21, "bright": 2}
    assert len(metrics["repeats"]) == 62
    promise = onspect("calibrate", model, data, "--conformal", "2%", "--strict")
    assert "needs at least 49 good images" in promise.stderr


def test_a_file_with_two_labels_is_refused(onspect: Run, model: Path, make_dataset: Make, tmp_path: Path) -> None:
    """The same file among good and defective images is an error that names both places."""
    data = make_dataset({"val/good": GOOD, "val/bright": [240], "test/good": GOOD, "test/bright": [240]})
    for split in ("val", "test"):
        shutil.copy(data / f"{split}/good/003.png", data / f"{split}/bright/x.png")
    for result in (
        onspect("calibrate", model, data, "--split", "val"),
        onspect("evaluate", model, data, "-o", tmp_path / "report"),
    ):
        assert result.exit_code == 1
    assert "are the same image" in onspect("calibrate", model, data).stderr


def test_one_or_two_parts_do_not_make_a_model_unfit(calibrated: Path, make_dataset: Make) -> None:
    """One rejected good part of one is a count that chance can explain: not proven, as the sheet's table says."""
    evaluation = evaluate(calibrated, make_dataset({"test/good": [180], "test/odd": [220, 250]}), max_fpr=0.05)
    assert evaluation.fitness is not None
    assert evaluation.fitness.outcome == "NOT PROVEN"
    assert not any("rejects 1 of 1" in sentence for sentence in evaluation.blindness)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({"good": [100, 128, 150, 160], "odd": [101, 127, 151, 161]}, "which is chance"),
        ({"good": [*range(200, 220)], "odd": [*range(120, 140)]}, "are the labels swapped?"),
        pytest.param(
            {"good": [160, 170, 180, 128], "odd": [250, 251]}, "rejects 3 of 4 good images", marks=pytest.mark.slow
        ),
        pytest.param(
            {"good": [128, 129, 130], "odd": [127, 126, 125]},
            "catches none of 3 defective images",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_model_that_sees_nothing_is_called_that(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path, folders: dict[str, list[int]], words: str
) -> None:
    """`evaluate` says it, also with -q, and ends well; the report repeats it, and --strict refuses."""
    data = make_dataset({f"test/{name}": brightness for name, brightness in folders.items()})
    result = onspect("evaluate", calibrated, data, "-o", tmp_path / "report", "-q")
    assert (result.exit_code, "Error" in result.stderr) == (0, False)
    assert words in result.stderr
    assert result.stderr.startswith(("Not fit for use: ", "Not proven: "))
    assert words in (tmp_path / "report/report.html").read_text()
    strict = onspect("evaluate", calibrated, data, "-o", tmp_path / "report", "--strict")
    assert strict.exit_code == 1
    assert words in strict.stderr


def test_calibrate_calls_a_blind_model_blind(onspect: Run, model: Path, make_dataset: Make) -> None:
    """`calibrate` stamps it and says so; --strict stamps nothing."""
    data = make_dataset({"val/good": [100, 128, 150, 160], "val/odd": [101, 127, 151, 161]})
    before = model.read_bytes()
    refused = onspect("calibrate", model, data, "--strict")
    assert refused.exit_code == 1
    assert "does not tell good from defective" in refused.stderr
    assert model.read_bytes() == before
    stamped = onspect("calibrate", model, data)
    assert "Not fit for use: the model does not tell good from defective images" in stamped.stderr
    assert (stamped.exit_code, "Error" in stamped.stderr) == (0, False)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--max-fpr", "5"], "is 5% meant?"),
        (["--max-fpr", "1"], "is 1% meant?"),
        (["--min-recall", "99.5"], "is 99.5% meant?"),
        (["--conformal", "0.5"], ""),
    ],
)
def test_rates_that_look_like_percent_are_asked_about(
    onspect: Run, model: Path, make_dataset: Make, option: list[str], words: str
) -> None:
    """A rate above 1 without % is a question, not a limit of 500%."""
    result = onspect("calibrate", model, make_dataset({"val/good": GOOD, "val/bright": [240]}), *option)
    assert (result.exit_code == 2) == bool(words)
    assert words in result.stderr
