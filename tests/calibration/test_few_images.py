from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

from onspect.runtime.model.file import read_model_file

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]


def test_one_good_image_gives_a_threshold_and_no_promise(onspect: Run, model: Path, make_dataset: Make) -> None:
    """A single good image passes by the default policy, bounds the threshold below only, and the command says so."""
    result = onspect("calibrate", model, make_dataset({"val/good": [120]}))
    assert result.exit_code == 0, result.output
    assert "at most 1% false rejects; 1 good image, 0 of them rejected, support at best 95%" in result.stderr
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert (calibration.true_ok, calibration.false_ng) == (1, 0)
    assert set(calibration.intervals) == {"fpr", "threshold"}
    assert calibration.intervals["threshold"][1] is None
    assert "or more with 95% confidence: 1 good image cannot give an upper bound" in result.stdout


@pytest.mark.slow
def test_one_good_and_one_defective_image(onspect: Run, model: Path, make_dataset: Make, tmp_path: Path) -> None:
    """One image of each kind gives the middle between them, areas that may be anything, and no interval of it."""
    data = make_dataset({"val/good": [120], "val/bright": [200]})
    assert onspect("calibrate", model, data).exit_code == 0
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert (calibration.auroc, calibration.true_ng, calibration.true_ok) == (1.0, 1, 1)
    low, high = calibration.intervals["auroc"]
    assert low is not None
    assert (low < 0.25, high) == (True, 1.0)
    assert "threshold" not in calibration.intervals
    result = onspect("evaluate", model, data, "--split", "val", "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("folders", "options", "message"),
    [
        ({"val/good": [120]}, ["--review", "--quantile", "50%"], "threshold's interval, and these images give none"),
        (
            {"val/good": [120, 121], "val/bright": [200, 210]},
            ["--review", "--min-recall", "99%"],
            "threshold's interval, which 2 defective images cannot bound",
        ),
        ({"val/good": [120]}, ["--conformal", "10%"], "needs at least 9 good images to promise that, and there are 1"),
        ({"val/good": [120]}, ["--strict"], "1 good image, 0 of them rejected, support at best 95%"),
        ({"val/good": [120]}, ["--review-recall", "90%"], "--review-recall needs defective images"),
        ({"val/good": [120]}, ["--pixel-f1"], "none of the 1 images has one"),
        ({"val/good": [120, 120, 120]}, [], "all 3 images have the same score"),
        ({"val/good": [120, 120], "val/bright": [120, 136]}, ["--youden", "--review"], "and these images give none"),
        ({"val/bright": [120]}, [], "1 defective images and no good ones"),
        ({"val/good": [120, 121]}, ["--youden"], "--youden needs defective images"),
        ({"val/good": [120, 121]}, ["--cost", "1:9"], "--cost needs defective images"),
    ],
)
def test_what_so_few_images_cannot_give_is_refused(
    onspect: Run, model: Path, make_dataset: Make, folders: dict[str, list[int]], options: list[str], message: str
) -> None:
    """Each demand that one image, one class or one score cannot answer is refused in its own words."""
    before = model.read_bytes()
    result = onspect("calibrate", model, make_dataset(folders), *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert model.read_bytes() == before


@pytest.mark.slow
def test_defects_alone_can_be_evaluated(onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path) -> None:
    """A test set of defects only has a recall and no false rejects, areas or curves, and says so."""
    result = onspect("evaluate", calibrated, make_dataset({"test/bright": [130, 200]}), "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert (metrics["confusion"]["recall"], metrics["confusion"]["fpr"]) == (0.5, None)
    assert metrics["image"]["reason"] == "there are no good images to compare with"
    assert any("defective parts like these" in sentence for sentence in metrics["operating_point"])
    assert not any("good parts like these" in sentence for sentence in metrics["operating_point"])
