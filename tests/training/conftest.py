from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray


def draw_good(seed: int, height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    """A bright bar on black at its own place, with a little noise."""
    random = np.random.default_rng(seed)
    image = random.normal(20, 3, (height, width))
    left = int(random.integers(width // 4, width // 2))
    image[height // 5 : -height // 5, left : left + width // 5] += 180
    return np.asarray(image.clip(0, 255), np.uint8)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small only lose time by sharing a step between threads."""
    torch.set_num_threads(1)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A dataset folder with 24 good 28 px mono images."""
    good = tmp_path / "parts" / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(24):
        cv2.imwrite(str(good / f"{seed:03d}.png"), draw_good(seed))
    return tmp_path / "parts"
