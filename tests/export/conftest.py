from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from onspect.export import onnx_writer
from onspect.training import session

from ..conversions import converted
from ..sharing import Share

__all__ = ["converted"]

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small only lose time by sharing a step between threads."""
    torch.set_num_threads(1)


def train(folder: Path, variant: str = "cae", height: int = 28, width: int = 28, channels: int = 1) -> Path:
    """Train a variant for one epoch on drawn images, all in a folder, and return the run."""
    (folder / "data").mkdir()
    random = np.random.default_rng(0)
    for index in range(12):
        shape = (height, width) if channels == 1 else (height, width, channels)
        cv2.imwrite(str(folder / "data" / f"{index}.png"), random.integers(0, 255, shape, np.uint8))
    options = session.TrainOptions(variant=variant, epochs=1, size=(width, height))
    session.train(folder / "data", folder / "run", options, devices=session.Devices(accelerator="cpu"))
    return folder / "run"


@pytest.fixture(scope="session")
def train_run() -> MakeRun:
    """The function that trains a run of a test's own."""
    return train


@pytest.fixture(scope="session")
def make_run(share: Share) -> MakeRun:
    """A function that returns a run as `train` makes it; each kind is trained once a session, and only read."""

    def make(variant: str = "cae", height: int = 28, width: int = 28, channels: int = 1) -> Path:
        kind = (variant, height, width, channels)
        return share("run-{}-{}x{}x{}".format(*kind), lambda folder: train(folder, *kind)) / "run"

    return make


@pytest.fixture(scope="session")
def make_file(share: Share, make_run: MakeRun) -> MakeRun:
    """A function that returns the model file of such a run; each kind is exported once a session, and only read."""

    def make(variant: str = "cae", height: int = 28, width: int = 28, channels: int = 1, score: str = "mse") -> Path:
        run = make_run(variant, height, width, channels)
        name = f"file-{variant}-{height}x{width}x{channels}-{score}"
        return share(name, lambda folder: onnx_writer.export(run, folder / "washer.onnx", score=score)) / "washer.onnx"

    return make
