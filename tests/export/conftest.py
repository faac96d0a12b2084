from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from onspect.training import session

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small only lose time by sharing a step between threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A function that trains a variant for one epoch on drawn images and returns the run; each is trained once."""
    made: dict[tuple[str, int, int, int], Path] = {}

    def make(variant: str = "cae", height: int = 28, width: int = 28, channels: int = 1) -> Path:
        key = (variant, height, width, channels)
        if key not in made:
            folder = tmp_path_factory.mktemp("data")
            random = np.random.default_rng(0)
            for index in range(12):
                shape = (height, width) if channels == 1 else (height, width, channels)
                cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 255, shape, np.uint8))
            made[key] = tmp_path_factory.mktemp("runs") / "run"
            options = session.TrainOptions(variant=variant, epochs=1, size=(width, height))
            session.train(folder, made[key], options, devices=session.Devices(accelerator="cpu"))
        return made[key]

    return make
