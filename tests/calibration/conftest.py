"""Folders of plain images for the tiny model: grey is good, other brightness is a defect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ..tiny_model import SIDE


@pytest.fixture(scope="session")
def write_model(write_tiny_model: Callable[..., Path]) -> Callable[..., Path]:
    """Return the function that writes a tiny model file."""
    return write_tiny_model


@pytest.fixture(scope="session")
def write_pixels() -> Callable[..., Path]:
    """Return a function that writes an array as PNG, making its folder."""

    def write(path: Path, pixels: NDArray[np.uint8]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        return path

    return write


@pytest.fixture
def model(uncalibrated: Path) -> Path:
    """Return a tiny model file without a threshold."""
    return uncalibrated.rename(uncalibrated.with_name("part.onnx"))


@pytest.fixture
def calibrated(tmp_path: Path, calibrated: Path) -> Path:
    """Return a tiny model file whose threshold parts brightness 128 +- 20 from the rest."""
    return calibrated.rename(tmp_path / "calibrated.onnx")


@pytest.fixture
def make_dataset(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[[Mapping[str, Iterable[int]]], Path]:
    """Return a function that writes images of the given brightnesses below folders such as ``val/good``."""

    widths = itertools.count()

    def make(folders: Mapping[str, Iterable[int]]) -> Path:
        root = tmp_path / "parts"
        root.mkdir(exist_ok=True)
        for folder, brightnesses in folders.items():
            for number, brightness in enumerate(brightnesses):
                width = SIDE + next(widths)  # equal scores, and no equal pixels
                write_image(root / folder / f"{number:03}.png", brightness, (SIDE, width))
        return root

    return make
