from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.calibration.calibrate import calibrate, move_threshold
from onspect.calibration.thresholds import Policy
from onspect.runtime.files import fingerprint_bytes
from onspect.runtime.looks import learn_looks
from onspect.runtime.model_file import read_model_file, stamp

Run = Callable[..., Result]
SIDE = 64


def picture(seed: int) -> NDArray[np.uint8]:
    """Return a mono picture of soft spots."""
    noise = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(128 + 50 * soft / np.abs(soft).max(), np.uint8)


def again(seed: int) -> NDArray[np.uint8]:
    """Return the same picture, a little brighter: another file of the same part."""
    return np.asarray(cv2.convertScaleAbs(picture(seed), alpha=1.05), np.uint8)


@pytest.fixture
def model(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    """Return a model file that was trained on pictures 0 to 29."""
    pictures = [picture(seed) for seed in range(30)]
    known = [fingerprint_bytes(cv2.imencode(".png", image)[1].tobytes()) for image in pictures]
    path = write_model(tmp_path / "part.onnx", width=SIDE, height=SIDE, training_images=known)
    file = read_model_file(path)
    looks = learn_looks(np.stack(pictures)[:, :, :, None], known)
    path.write_bytes(stamp(file.data, file.info, known, looks))
    return path


@pytest.fixture
def data(tmp_path: Path, write_pixels: Callable[..., Path]) -> Path:
    """Return images to calibrate on, two of them of training's parts, and to evaluate on, some of either's."""
    root = tmp_path / "parts"
    for seed in range(40, 50):
        write_pixels(root / f"val/good/{seed}.png", picture(seed))
    for seed in (3, 4):
        write_pixels(root / f"val/good/{seed}.png", again(seed))
    for seed in range(60, 70):
        write_pixels(root / f"test/good/{seed}.png", picture(seed))
    write_pixels(root / "test/good/5.png", again(5))
    write_pixels(root / "test/good/6.png", picture(6))
    write_pixels(root / "test/scratch/41.png", again(41))
    write_pixels(root / "test/scratch/42.png", picture(42))
    return root


def test_calibration_images_that_look_like_training_are_named(model: Path, data: Path, onspect: Run) -> None:
    """Other files of training's parts are a warning with their count and names, not an error."""
    result = onspect("calibrate", model, data)
    assert result.exit_code == 0, result.output
    assert (
        "2 of 12 images look almost like images that the model was trained on, such as '3.png', '4.png'"
        in result.stderr
    )


def test_same_images_and_twins_are_told_apart(model: Path, data: Path, onspect: Run, tmp_path: Path) -> None:
    """evaluate names the images that training or calibration had, and those that only look almost like them."""
    calibrate(model, data)
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "1 of 14 images were trained on" in result.stderr
    assert "1 of 14 images are among those that the threshold was chosen on, such as '42.png'" in result.stderr
    assert "1 of 14 images look almost like images that the model was trained on, such as '5.png'" in result.stderr
    assert "1 of 14 images look almost like images that the threshold was chosen on, such as '41.png'" in result.stderr
    overlap = json.loads((tmp_path / "report/metrics.json").read_text())["overlap"]
    names = {
        which: {kind: [Path(path).name for path in paths] for kind, paths in found.items()}
        for which, found in overlap.items()
    }
    assert names == {
        "training": {"same": ["6.png"], "almost_the_same": ["5.png"]},
        "calibration": {"same": ["42.png"], "almost_the_same": ["41.png"]},
    }


def test_moved_threshold_remembers_its_images(model: Path, data: Path, onspect: Run, tmp_path: Path) -> None:
    """Moving the threshold by stored scores keeps the fingerprints and looks of the images behind it."""
    calibrate(model, data)
    before = read_model_file(model).info.calibration
    after = move_threshold(model, Policy("quantile", 0.5)).calibration
    assert before is not None
    assert before.fingerprints
    assert (after.fingerprints, after.looks) == (before.fingerprints, before.looks)


def test_model_without_looks_compares_nothing(
    data: Path, write_model: Callable[..., Path], onspect: Run, tmp_path: Path
) -> None:
    """With a file of an older release there is no word of almost the same images, and null in the figures."""
    model = write_model(tmp_path / "old.onnx", width=SIDE, height=SIDE)
    assert "almost" not in onspect("calibrate", model, data).stderr
    assert "almost" not in onspect("evaluate", model, data, "-o", tmp_path / "report").stderr
    overlap = json.loads((tmp_path / "report/metrics.json").read_text())["overlap"]
    assert overlap["training"]["almost_the_same"] is None
