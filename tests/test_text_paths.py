"""The public names of training and export take paths as text."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.export import export, quantize
from onspect.runtime import DatasetError
from onspect.training import Devices, TrainOptions, load_trained, resume, train


@pytest.mark.slow
def test_paths_may_be_text(tmp_path: Path) -> None:
    """From a folder to a model file by the public names, with every path as text."""
    (tmp_path / "good").mkdir()
    for seed in range(8):
        image = np.random.default_rng(seed).integers(0, 255, (28, 28), np.uint8)
        cv2.imwrite(str(tmp_path / "good" / f"{seed}.png"), image)
    run, model, mask = (str(tmp_path / name) for name in ("run", "part.onnx", "mask.png"))
    cv2.imwrite(mask, np.full((28, 28), 255, np.uint8) * (np.arange(28) < 20).astype(np.uint8))
    devices = Devices(accelerator="cpu")
    train(str(tmp_path / "good"), run, TrainOptions(epochs=1), devices=devices)
    assert resume(run, devices=devices).reason == "finished"
    assert load_trained(run).record.config.preset == "paper"
    assert export(run, model, score="mse", mask=mask).info.score.name == "mse"
    with pytest.raises(DatasetError):
        quantize(model, str(tmp_path / "small.onnx"), "fp16", str(tmp_path / "parts"))
