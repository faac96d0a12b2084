"""A region from training to the exported file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.calibration.evaluation import evaluate_images
from onspect.calibration.scores import find_images
from onspect.export import onnx_writer
from onspect.runtime.errors import ChoiceError
from onspect.runtime.images.region import Reference, RegionFile, parse_region
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Threshold
from onspect.training import session

from ..sharing import Share

pytestmark = pytest.mark.slow

REGION = RegionFile(rectangles=((20, 10, 32, 32),), ignored_rectangles=((20, 10, 8, 32),))
SIZE = (32, 32)


@pytest.fixture(scope="module")
def run(share: Share) -> Path:
    """Return a run of two epochs on a region of the pictures."""
    return share("region-run", train) / "run"


def train(folder: Path) -> None:
    """Draw the pictures, and train the run."""
    (folder / "data/train/good").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(12):
        frame = random.integers(100, 140, (60, 80), np.uint8)
        cv2.imwrite(str(folder / f"data/train/good/{number}.png"), frame)
    for kind, grey in (("good", 120), ("spot", 255)):
        (folder / "data/val" / kind).mkdir(parents=True)
        for number in range(3):
            frame = random.integers(100, 140, (60, 80), np.uint8)
            frame[20:30, 35:45] = grey
            cv2.imwrite(str(folder / "data/val" / kind / f"{number}.png"), frame)
    (folder / "data/ground_truth/val/spot").mkdir(parents=True)
    for number in range(3):
        mask = np.zeros((60, 80), np.uint8)
        mask[20:30, 35:45] = 255
        cv2.imwrite(str(folder / f"data/ground_truth/val/spot/{number}_mask.png"), mask)
    options = session.TrainOptions(epochs=2, size=SIZE, region=REGION)
    session.train(folder / "data", folder / "run", options, devices=session.Devices(accelerator="cpu"))


def test_region_goes_from_the_run_into_the_file(run: Path, tmp_path: Path) -> None:
    """The file crops as training did, and its ignored area is a mask in the graph."""
    exported = onnx_writer.export(run, tmp_path / "part.onnx", score="mse")
    preprocess = read_model_file(tmp_path / "part.onnx").info.preprocess
    assert preprocess.region is not None
    assert preprocess.region.box == (20, 10, 32, 32)
    assert exported.info.score.inspected == pytest.approx(0.75)
    inspector = Inspector(tmp_path / "part.onnx").with_threshold(Threshold(1e9, 1e9))
    frame = np.random.default_rng(5).integers(100, 140, (60, 80), np.uint8)
    changed = frame.copy()
    changed[:, :28] = 255  # outside the region, and its ignored area
    assert inspector.inspect(frame).score == pytest.approx(inspector.inspect(changed).score, rel=1e-5)
    changed[20:30, 35:45] = 255
    assert (inspector.inspect(changed).score or 0.0) > 1.2 * (inspector.inspect(frame).score or 0.0)


def test_resumed_run_crops_alike(run: Path) -> None:
    """A run continues with the images that it began with."""
    record = session.read_record(run)
    data = session.read_training_set(run, record)
    assert data.preprocess == record.data.recipe
    assert data.images.shape[1:3] == (32, 32)
    kept, held_out = session.split_as_recorded(data, run, record)
    assert len(kept) + len(held_out) == 12


def test_masks_of_defects_are_held_against_the_frame(run: Path, tmp_path: Path) -> None:
    """Pixel figures of a cropped model count pixels of the whole image."""
    path = tmp_path / "part.onnx"
    onnx_writer.export(run, path, score="mse")
    inspector = Inspector(path).with_threshold(Threshold(0.01, 0.02))
    file = read_model_file(path)
    file = dataclasses.replace(file, info=inspector.info)
    evaluation = evaluate_images(inspector, file, find_images(run.parent / "data", "val"), source="val")
    assert evaluation.areas.auroc == 1.0
    assert evaluation.pixels.areas.auroc is not None
    assert evaluation.pixels.areas.auroc > 0.95


def test_region_masks_a_run_on_whole_frames(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """At export, shapes leave places out of a model that was trained on whole frames; its frames stay whole."""
    path = tmp_path / "part.onnx"
    exported = onnx_writer.export(make_run(), path, score="mse", region=parse_region(["0,0,14,28"]))
    assert exported.info.score.inspected == pytest.approx(0.5)
    assert exported.info.preprocess.region is None
    inspector = Inspector(path).with_threshold(Threshold(1e9, 1e9))
    frame = np.random.default_rng(5).integers(0, 255, (28, 28), np.uint8)
    changed = frame.copy()
    changed[:, 14:] = 255
    assert inspector.inspect(frame).score == pytest.approx(inspector.inspect(changed).score, rel=1e-5)


def test_region_of_a_region_is_refused(run: Path, tmp_path: Path) -> None:
    """A run on a region has it already, and an alignment is learnt in training."""
    for region, words in (
        (REGION, "trained on a region already"),
        (dataclasses.replace(REGION, reference=Reference()), "trained on a region already"),
    ):
        with pytest.raises(ChoiceError, match=words):
            onnx_writer.export(run, tmp_path / "part.onnx", score="mse", region=region)


def test_score_of_the_whole_image_refuses_shapes(run: Path, tmp_path: Path) -> None:
    """A score that cannot leave places out is refused where the region has other shapes than one rectangle."""
    with pytest.raises(ChoiceError, match="region of other shapes"):
        onnx_writer.export(run, tmp_path / "part.onnx", score="latent")
    assert not (tmp_path / "part.onnx").exists()
