from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.calibration.calibration import calibrate, move_threshold
from onspect.calibration.thresholds import Quantile
from onspect.runtime.dataset.near_duplicates import learn_near_duplicates
from onspect.runtime.fingerprints import fingerprint_bytes, fingerprint_set, unpack_fingerprints
from onspect.runtime.model.file import read_model_file, stamp

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
    looks = learn_near_duplicates(np.stack(pictures)[:, :, :, None], known)
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
        "2 of 12 images look almost like images that the model was trained on, such as "
        f"'{data}/val/good/3.png', "
        f"'{data}/val/good/4.png'"
    ) in result.stderr


@pytest.mark.slow
def test_same_images_and_twins_are_told_apart(model: Path, data: Path, onspect: Run, tmp_path: Path) -> None:
    """evaluate names the images that training or calibration had, and those that only look almost like them."""
    calibrate(model, data)
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "1 of 14 images were trained on" in result.stderr
    assert (
        f"1 of 14 images are among those that the threshold was chosen on, such as '{data}/test/scratch/42.png'"
        in result.stderr
    )
    assert (
        f"1 of 14 images looks almost like images that the model was trained on, such as '{data}/test/good/5.png'"
        in result.stderr
    )
    assert (
        "1 of 14 images looks almost like images that the threshold was chosen on, such as "
        f"'{data}/test/scratch/41.png'" in result.stderr
    )
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
    after = move_threshold(model, Quantile(0.5)).calibration
    assert before is not None
    assert before.fingerprints
    assert (after.fingerprints, after.looks) == (before.fingerprints, before.looks)


@pytest.mark.slow
def test_model_without_looks_compares_nothing(
    data: Path, write_model: Callable[..., Path], onspect: Run, tmp_path: Path
) -> None:
    """With a file of an older release there is no word of almost the same images, and null in the figures."""
    model = write_model(tmp_path / "old.onnx", width=SIDE, height=SIDE)
    assert "almost" not in onspect("calibrate", model, data).stderr
    assert "almost" not in onspect("evaluate", model, data, "-o", tmp_path / "report").stderr
    overlap = json.loads((tmp_path / "report/metrics.json").read_text())["overlap"]
    assert overlap["training"]["almost_the_same"] is None


def test_test_images_are_remembered(model: Path, data: Path, onspect: Run) -> None:
    """The file has count and fingerprints of test/; moving the threshold keeps them, info shows them."""
    paths = sorted((data / "test").rglob("*.png"))
    known = [fingerprint_bytes(path.read_bytes()) for path in paths]
    held_back = calibrate(model, data).calibration.held_back
    assert held_back is not None
    assert (held_back.images, held_back.fingerprint) == (14, fingerprint_set(known))
    assert sorted(unpack_fingerprints(held_back.fingerprints)) == sorted(known)
    assert move_threshold(model, Quantile(0.5)).calibration.held_back == held_back
    card = onspect("info", model).stdout
    assert re.search(r"^fingerprints +[0-9a-f]{32} of 12 calibration images\n", card, re.MULTILINE)
    assert re.search(rf"^ +{held_back.fingerprint} of 14 test images$", card, re.MULTILINE)


def test_overlap_of_test_images_is_said_at_calibration(model: Path, data: Path, onspect: Run) -> None:
    """calibrate names the test images that training or calibration has too, and those like calibration's."""
    result = onspect("calibrate", model, data)
    assert (
        f"1 of 14 test images was trained on, such as '{data}/test/good/6.png': figures of new parts will be worse"
        in result.stderr
    )
    assert (
        f"1 of 14 test images is among those that this threshold is chosen on, such as '{data}/test/scratch/42.png'"
        in result.stderr
    )
    assert (
        "1 of 14 test images looks almost like images that this threshold is chosen on, such as "
        f"'{data}/test/scratch/41.png'" in result.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words", "share"),
    [
        ([], "the 14 test images that were held back at calibration", (14, 14, 0)),
        (["remove"], "12 of the 14 test images that were held back at calibration", (14, 12, 0)),
        (["remove", "add"], "12 of the 14 test images that were held back at calibration, and 1 others", (14, 12, 1)),
        (["replace"], "none of the 14 test images that were held back at calibration", (14, 0, 1)),
    ],
)
def test_judged_images_are_held_against_those_held_back(
    model: Path,
    data: Path,
    onspect: Run,
    write_pixels: Callable[..., Path],
    tmp_path: Path,
    change: list[str],
    words: str,
    share: tuple[int, int, int],
) -> None:
    """evaluate says whether it judged the images held back at calibration, and warns of a choice among them."""
    calibrate(model, data)
    if "remove" in change:
        shutil.rmtree(data / "test/scratch")
    if "replace" in change:
        shutil.rmtree(data / "test")
    if "add" in change or "replace" in change:
        write_pixels(data / "test/good/new.png", picture(90))
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert re.search(rf"^ +{words}$", result.stdout, re.MULTILINE)
    assert ("2 of the 14 test images that were held back at calibration are not among these" in result.stderr) == (
        "remove" in change
    )
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())["held_back"]
    assert (metrics["held_back"], metrics["here"], metrics["others"]) == share
    assert metrics["same"] == (not change)
    assert words in (tmp_path / "report/report.html").read_text()


@pytest.mark.slow
def test_test_image_that_cannot_be_judged_is_still_known(model: Path, data: Path, onspect: Run, tmp_path: Path) -> None:
    """A broken test image is a fault of evaluate, and one of those held back."""
    (data / "test/good/5.png").write_bytes(b"no image")
    calibrate(model, data)
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert "1 of 14 images could not be judged" in result.stderr
    assert "the 14 test images that were held back at calibration" in result.stdout


def test_test_folder_that_cannot_be_read_is_said(model: Path, data: Path, onspect: Run) -> None:
    """Test images that are beside the kinds are not remembered: the command says so, and calibrates anyway."""
    (data / "test/stray.png").write_bytes((data / "test/good/60.png").read_bytes())
    result = onspect("calibrate", model, data)
    assert result.exit_code == 0, result.output
    assert "the file has no record of the test images: 1 image in" in result.stderr
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.held_back is None


@pytest.mark.slow
def test_calibration_on_test_images_holds_none_back(model: Path, data: Path, onspect: Run, tmp_path: Path) -> None:
    """With --split test nothing is held back, and evaluate has nothing to say of it."""
    onspect("calibrate", model, data, "--split", "test", "--allow-training-images")
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.held_back is None
    assert "held back" not in onspect("evaluate", model, data, "-o", tmp_path / "report").output
    assert json.loads((tmp_path / "report/metrics.json").read_text())["held_back"] is None


@pytest.mark.slow
def test_mirrored_copies_are_named(onspect: Run, model: Path, data: Path, write_pixels: Callable[..., Path]) -> None:
    """A training picture that was mirrored or turned by half shows no new part."""
    for name, turned in (("lr", picture(7)[:, ::-1]), ("ud", picture(8)[::-1]), ("half", picture(9)[::-1, ::-1])):
        write_pixels(data / f"test/good/{name}.png", np.ascontiguousarray(turned))
    assert onspect("calibrate", model, data).exit_code == 0
    result = onspect("evaluate", model, data, "-o", data / "report")
    assert "4 of 17 images look almost like images that the model was trained on" in result.stderr
