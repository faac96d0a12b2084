from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.teaching import Taught, teach

from ...sharing import Share
from .tiny_backbone import write_backbone

SIDE = 96
Draw = Callable[..., NDArray[np.uint8]]


def draw(number: int, *, spot: bool = False, colour: bool = False, size: tuple[int, int] = (SIDE, SIDE)) -> NDArray:
    """Return a disk on a smooth grey ground, uint8 [height, width(, 3)]; a defective one has a dark spot.

    Ground and disk differ a little from part to part: `number` is the seed.
    """
    random = np.random.default_rng(number)
    height, width = size
    ground = cv2.GaussianBlur(random.normal(0, 1, size).astype(np.float32), (0, 0), 3) * 30 + 120
    cv2.circle(ground, (width // 2, height // 2), min(size) // 4, 180.0, -1, cv2.LINE_AA)
    ground = cv2.GaussianBlur(ground, (0, 0), 2)
    if spot:
        cv2.circle(ground, (width // 2 + 10, height // 2 - 8), 11, 0.0, -1)
        cv2.circle(ground, (width // 2 + 10, height // 2 - 8), 5, 255.0, -1)
    grey = (ground + random.normal(0, 2, size)).clip(0, 255).astype(np.uint8)
    return np.stack([grey, grey // 2 + 30, 255 - grey], axis=-1) if colour else grey


def write_pictures(folder: Path, numbers: range, **options: object) -> Path:
    """Write drawn pictures into a folder as PNG files named after their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:04}.png"), draw(number, **options))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def base_file(share: Share) -> Path:
    """A base file with a tiny backbone of random weights; only making it needs torch."""
    pytest.importorskip("torch")

    def fill(folder: Path) -> None:
        from onspect.training.features import make_base

        write_backbone(folder / "tiny.onnx")
        (folder / "base.onnx").write_bytes(make_base(str(folder / "tiny.onnx")))

    return share("tiny-base", fill) / "base.onnx"


SIZE = (96, 96)
"""Width and height of the drawn pictures; without it they would be enlarged."""


@pytest.fixture(scope="session")
def parts(share: Share) -> Path:
    """A dataset of drawn parts: train/good with 12 pictures, val and test with good ones and ones with a spot."""

    def fill(folder: Path) -> None:
        write_pictures(folder / "train/good", range(12))
        for split, first in (("val", 100), ("test", 200)):
            write_pictures(folder / split / "good", range(first, first + 12))
            write_pictures(folder / split / "spot", range(first + 50, first + 56), spot=True)

    return share("tiny-parts", fill)


@pytest.fixture(scope="session")
def taught_once(share: Share, base_file: Path, parts: Path) -> Path:
    """A model file that was taught the dataset's good pictures; it is only read."""

    def fill(folder: Path) -> None:
        teach(parts, folder / "part.onnx", base=base_file, copies="none", size=SIZE)

    return share("tiny-taught", fill) / "part.onnx"


@pytest.fixture
def taught(taught_once: Path, tmp_path: Path) -> Path:
    """A copy of that file, which a test may change."""
    return Path(shutil.copy(taught_once, tmp_path / "part.onnx"))


@pytest.fixture
def teach_tiny(base_file: Path, tmp_path: Path) -> Callable[..., Taught]:
    """A function that teaches a new file from pictures."""

    def run(pictures: Path | list[Path], name: str = "new.onnx", **options: object) -> Taught:
        return teach(pictures, tmp_path / name, base=base_file, **{"copies": "none", "size": SIZE, **options})  # type: ignore[arg-type]

    return run
