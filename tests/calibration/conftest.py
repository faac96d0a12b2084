"""A tiny model file made without torch, and folders of plain images: grey is good, other brightness is a defect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onspect.runtime.cli import main
from onspect.runtime.model_file import (
    Calibration,
    ModelInfo,
    Network,
    Preprocess,
    Provenance,
    Score,
    SourceLimits,
    Threshold,
    stamp,
)

SIDE = 16
"""Width and height of the tiny model's input."""

EVIDENCE = Calibration("highest F1", "parts", {"good": 2}, None, None, 0, 0, 2, 0, "0" * 32, "2026-01-01T00:00:00.000Z")


def _build_graph(side: int, gain: float) -> bytes:
    """Return an ONNX graph: error map = gain * (pixel / 255 - 0.5)^2, score = its mean, reconstruction = grey."""
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "grey": np.array(0.5, np.float32),
        "gain": np.array(gain, np.float32),
        "last": np.array([3], np.int64),
        "second": np.array([1], np.int64),
        "sides": np.array([1, 2], np.int64),
        "nothing": np.array(0, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Squeeze", ["scaled", "last"], ["pixels"]),
        helper.make_node("Sub", ["pixels", "grey"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["squared"]),
        helper.make_node("Mul", ["squared", "gain"], ["error_map"]),
        helper.make_node("ReduceMean", ["error_map", "sides"], ["score"], keepdims=0),
        helper.make_node("Mul", ["difference", "nothing"], ["flat"]),
        helper.make_node("Add", ["flat", "grey"], ["grey_image"]),
        helper.make_node("Unsqueeze", ["grey_image", "second"], ["reconstruction"]),
        helper.make_node("ReduceMean", ["pixels", "second"], ["latent"], keepdims=0),
    ]
    shapes = {
        "score": ["N"],
        "error_map": ["N", side, side],
        "reconstruction": ["N", 1, side, side],
        "latent": ["N", side],
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _write_model(
    path: Path,
    *,
    side: int = SIDE,
    threshold: Threshold | None = None,
    training_images: Iterable[str] = (),
    trained_on: int | None = None,
    gain: float = 1.0,
) -> Path:
    """Write a tiny model file; trained_on is how many training images its provenance claims."""
    fingerprints = list(training_images)
    info = ModelInfo(
        name="tiny",
        preprocess=Preprocess(side, side, 1, 65535, SourceLimits((1, 3), None, None)),
        network=Network("cae", (8,), (2,), 8, side, 100),
        score=Score("mse", 0.0),
        provenance=Provenance(
            versions={"onspect": "0.1.0"},
            seed=0,
            data="parts",
            training_images=len(fingerprints) if trained_on is None else trained_on,
            training_fingerprint="",
            trained="2026-01-01T00:00:00.000Z",
            exported="2026-01-01T00:00:00.000Z",
            parity=0.0,
            parity_images=1,
        ),
        threshold=threshold,
        calibration=None if threshold is None else EVIDENCE,
    )
    path.write_bytes(stamp(_build_graph(side, gain), info, fingerprints))
    return path


def _write_image(path: Path, brightness: int, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Write an image of one brightness as PNG."""
    return _write_pixels(path, np.full(size, brightness, np.uint8))


def _write_pixels(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Write an image as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """Return the function that writes a tiny model file."""
    return _write_model


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    """Return the function that writes an image of one brightness."""
    return _write_image


@pytest.fixture(scope="session")
def write_pixels() -> Callable[..., Path]:
    """Return the function that writes an array as an image."""
    return _write_pixels


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a tiny model file without a threshold."""
    return _write_model(tmp_path / "part.onnx")


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """Return a tiny model file whose threshold parts brightness 128 +- 20 from the rest."""
    return _write_model(tmp_path / "calibrated.onnx", threshold=Threshold(0.0062, 0.0062))


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[[Mapping[str, Iterable[int]]], Path]:
    """Return a function that writes images of the given brightnesses below folders such as ``val/good``."""

    def make(folders: Mapping[str, Iterable[int]]) -> Path:
        root = tmp_path / "parts"
        root.mkdir(exist_ok=True)
        for folder, brightnesses in folders.items():
            for number, brightness in enumerate(brightnesses):
                _write_image(root / folder / f"{number:03}.png", brightness)
        return root

    return make


@pytest.fixture(scope="session")
def onspect() -> Callable[..., Result]:
    """Return a function that runs the command line."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run
