from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.calibration.calibration import calibrate, move_threshold
from onspect.calibration.metrics.pixel import PixelEvidence
from onspect.calibration.regions import RegionDemand, find_largest, find_least_area
from onspect.calibration.thresholds import Manual, MaxF1, MaxFpr, Youden
from onspect.runtime.errors import DatasetError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Rule

Run = Callable[..., Result]
SIDE = 16


def part(*spots: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a grey part with square spots, each of (place, side, brightness)."""
    pixels = np.full((SIDE, SIDE), 128, np.uint8)
    for place, side, brightness in spots:
        pixels[place : place + side, place : place + side] = brightness
    return pixels


def judge(model: Path, data: Path) -> dict[str, tuple[str, int]]:
    """Return each image's verdict and count of regions, calibrating first where there is no threshold."""
    if read_model_file(model).info.threshold is None:
        calibrate(model, data, policy=MaxFpr(0.1))
    paths = sorted((data / "val").rglob("*.png"))
    return {verdict.source: (verdict.verdict, len(verdict.regions)) for verdict in Inspector(model).inspect_many(paths)}


def told_apart(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return the pixels with one, far from all specks, a little brighter: no two images are equal."""
    pixels[-1, -1 - number] += 1
    return pixels


@pytest.fixture
def data(tmp_path: Path, write_pixels: Callable[..., Path]) -> Path:
    """Return ten good parts with specks of 1 to 9 pixels, and five with a spot of 16 and its mask."""
    root = tmp_path / "parts"
    for number in range(10):
        speck = [(2, 1 + number // 4, 180)] if number < 9 else []
        write_pixels(root / f"val/good/{number}.png", told_apart(part(*speck), number))
    for number in range(5):
        write_pixels(root / f"val/spot/{number}.png", told_apart(part((8, 4, 250)), number))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[8:12, 8:12] = 255
        write_pixels(root / f"ground_truth/val/spot/{number}_mask.png", mask)
    return root


def test_pixels_of_good_parts_give_the_cut(model: Path, data: Path) -> None:
    """The share of the good parts' pixels that reach the cut is at most the request, and little below."""
    threshold = calibrate(model, data, regions=RegionDemand(Rule("pixel_fpr", rate=0.01))).threshold
    inspector = Inspector(model)
    frames = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted((data / "val/good").iterdir())]
    maps = inspector.run(np.stack([inspector.prepare(frame) for frame in frames])).error_map
    assert np.mean(maps >= threshold.map) <= 0.01 < np.mean(maps >= 0.99 * (180 / 255 - 0.5) ** 2)


def test_masks_give_the_cut_with_the_best_f1(model: Path, data: Path) -> None:
    """With masks the cut is between the specks of good parts and the spots, and rules are in the file."""
    outcome = calibrate(model, data, regions=RegionDemand(Rule("pixel_f1")))
    assert (180 / 255 - 0.5) ** 2 < outcome.threshold.map < (250 / 255 - 0.5) ** 2
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.map_rule == Rule("pixel_f1", value=outcome.threshold.map)


def test_best_f1_is_better_than_any_other_cut() -> None:
    """No cut of the error map has a higher F1 than the one that is chosen, and IoU follows F1."""
    random = np.random.default_rng(0)
    evidence = PixelEvidence()
    mask = np.zeros((40, 40), np.bool_)
    mask[10:20, 10:20] = True
    error_map = np.asarray(random.gamma(2.0, 1.0, (40, 40)) + 2.0 * mask, np.float32)
    evidence.add(error_map, mask)
    cut = evidence.find_best_f1()
    assert cut is not None
    best = evidence.measure_at(cut)
    assert best is not None
    others = [2 * np.sum(mask & (error_map >= t)) / (np.sum(error_map >= t) + mask.sum()) for t in error_map.ravel()]
    assert best.f1 == pytest.approx(max(others), rel=1e-3)
    assert best.iou == pytest.approx(best.f1 / (2 - best.f1))
    assert best.recall == pytest.approx(np.mean(error_map[mask] >= cut))
    assert best.fpr == pytest.approx(np.mean(error_map[~mask] >= cut))


def test_no_mask_gives_no_pixel_figures() -> None:
    """Without defective pixels there is no best cut and nothing to measure at one."""
    evidence = PixelEvidence()
    evidence.add(np.ones((4, 4), np.float32), np.zeros((4, 4), np.bool_))
    assert (evidence.find_best_f1(), evidence.measure_at(0.5)) == (None, None)


@pytest.mark.parametrize(
    ("largest", "rate", "area"),
    [([0, 3, 9, 4], 0.5, 4), ([0, 3, 9, 4], 0.25, 5), ([5, 5, 5, 5], 0.75, 6), ([1, 0, 0, 0], 0.25, 0), ([7], 0.9, 8)],
)
def test_least_area_is_the_smallest_that_keeps_the_rate(largest: list[int], rate: float, area: int) -> None:
    """So few images have a region of that area, and one pixel less would be too small; ties go together."""
    assert find_least_area(largest, rate) == area
    assert sum(size >= max(1, area) for size in largest) <= rate * len(largest)
    if area:
        assert sum(size >= area - 1 for size in largest) > rate * len(largest)


def test_regions_are_measured_in_pixels_of_the_map() -> None:
    """The largest region counts the map's own pixels; if nothing reaches the cut it is 0."""
    error_map = np.zeros((8, 12), np.float32)
    error_map[1:3, 1:4], error_map[6, 6] = 1.0, 2.0
    assert (find_largest(error_map, 0.5), find_largest(error_map, 1.5), find_largest(error_map, 3.0)) == (6, 1, 0)


def test_least_area_is_chosen_from_good_parts(model: Path, data: Path, onspect: Run) -> None:
    """At most the requested share of good parts shows a region, spots stay, and verdicts do not change."""
    before = judge(model, data)
    result = onspect("calibrate", model, data, "--max-fpr", "10%", "--pixel-fpr", "30%", "--region-fpr", "10%")
    assert result.exit_code == 0, result.output
    assert "1 of 10 good and 5 of 5 defective images have one" in result.stdout
    assert "at most 10% of good parts; 10 good images, 1 of them showing one, support at best 39.42%" in result.stderr
    threshold = read_model_file(model).info.threshold
    assert threshold is not None
    assert threshold.area == 5
    after = judge(model, data)
    assert {path: verdict for path, (verdict, _) in after.items()} == {
        path: verdict for path, (verdict, _) in before.items()
    }
    assert sum(boxes > 0 for path, (_, boxes) in after.items() if "good" in path) == 1


def test_strict_refuses_a_region_rate_that_is_not_supported(model: Path, data: Path, onspect: Run) -> None:
    """With --strict a share of good parts with a region that so few images cannot support is an error."""
    before = model.read_bytes()
    result = onspect("calibrate", model, data, "--region-fpr", "5%", "--strict")
    assert result.exit_code == 1
    assert "you asked for a region on at most 5% of good parts" in result.stderr
    assert model.read_bytes() == before


def test_least_area_can_be_given(model: Path, data: Path, onspect: Run) -> None:
    """A least area in pixels is stamped as it is, shown on the card, and kept when the threshold moves."""
    assert onspect("calibrate", model, data, "--region-area", "7").exit_code == 0
    assert "7 working pixels or more" in onspect("info", model).stdout
    assert move_threshold(model, Youden()).threshold.area == 7


def test_a_moved_cut_keeps_every_bad_part_in_view(tmp_path: Path, data: Path, write_model: Callable[..., Path]) -> None:
    """With a peak score the pixels' cut is never above the score's, and comes back when the score's is raised again."""
    model = write_model(tmp_path / "peak.onnx", score="peak")
    first = calibrate(model, data, policy=MaxF1(), regions=RegionDemand(Rule("pixel_fpr", rate=0.001)))
    assert first.threshold.map == first.threshold.score
    assert "so that every part that is not ok has a region" in "".join(first.notes)
    assert first.calibration.map_rule is not None
    pixels_cut = first.calibration.map_rule.value
    assert pixels_cut is not None
    raised = move_threshold(model, Manual(value=2 * pixels_cut))
    assert raised.threshold.map == pixels_cut


def test_masks_that_are_not_there_are_missed_at_once(model: Path, data: Path, onspect: Run) -> None:
    """--pixel-f1 without masks is refused before anything is scored, and with none that can be read after."""
    for path in (data / "ground_truth/val/spot").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="none can be used"):
        calibrate(model, data, regions=RegionDemand(Rule("pixel_f1")))
    for path in (data / "ground_truth/val/spot").iterdir():
        path.unlink()
    result = onspect("calibrate", model, data, "--pixel-f1")
    assert result.exit_code == 1
    assert "--pixel-f1 needs masks of the defects, and none of the 15 images has one" in result.stderr


def test_masks_that_cannot_be_read_are_named(model: Path, data: Path, onspect: Run) -> None:
    """--pixel-f1 says how many masks it could not use, and names one."""
    (data / "ground_truth/val/spot/0_mask.png").write_bytes(b"no image")
    result = onspect("calibrate", model, data, "--pixel-f1")
    assert result.exit_code == 0
    assert "1 mask cannot be used" in result.stderr
    assert "0_mask.png" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pixel-f1", "--pixel-fpr", "1%"],
        ["--region-fpr", "1%", "--region-area", "3"],
        ["--region-area", "0"],
        ["--pixel-fpr", "0%"],
        ["--region-fpr", "100%"],
    ],
)
def test_bad_region_options_are_bad_usage(model: Path, data: Path, onspect: Run, arguments: list[str]) -> None:
    """Two rules for one value, and values without effect, end with exit code 2."""
    assert onspect("calibrate", model, data, *arguments).exit_code == 2


@pytest.mark.slow
def test_evaluation_measures_pixels_at_the_cut(model: Path, data: Path, onspect: Run, tmp_path: Path) -> None:
    """The report has the figures of the file's cut, and the number of images of each kind with a region."""
    onspect("calibrate", model, data, "--pixel-f1")
    onspect("evaluate", model, data, "--split", "val", "-o", tmp_path / "report")
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["pixel"]["at_map_threshold"]["f1"] == pytest.approx(1.0)
    assert metrics["images_with_regions"] == {"good": 0, "spot": 5}
