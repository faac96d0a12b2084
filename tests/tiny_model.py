"""A tiny real model file made without torch: grey (128) is a perfect part, and the further from it the worse."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onspect.runtime.model.file import stamp
from onspect.runtime.model.schema import (
    Calibration,
    ModelInfo,
    Network,
    Preprocess,
    Provenance,
    Score,
    SourceLimits,
    Threshold,
)

SIDE = 16
"""Width and height of the tiny model's input, unless a test asks for others."""

EVIDENCE = Calibration(
    policy="highest F1",
    data="parts",
    counts={"good": 2, "scratch": 1},
    auroc=1.0,
    aupr=1.0,
    true_ng=1,
    false_ng=0,
    true_ok=2,
    false_ok=0,
    images="0" * 32,
    time="2026-01-01T00:00:00.000Z",
)
"""Calibration record of a calibrated tiny model."""


def build_graph(*, width: int = SIDE, height: int = SIDE, channels: int = 1, gain: float = 1.0) -> bytes:
    """Return an ONNX graph without onspect metadata.

    error_map is gain * (pixel / 255 - 0.5)^2, averaged over the channels; score is its mean; reconstruction is 0.5
    everywhere; latent is each row's mean error. A gain that is NaN or infinite makes every score so.
    """
    constants = {
        "scale": np.array([1 / 255], np.float32),
        "grey": np.array([0.5], np.float32),
        "gain": np.array([gain], np.float32),
        "nothing": np.array([0], np.float32),
        "last": np.array([3], np.int64),
        "columns": np.array([2], np.int64),
        "sides": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["pixels"]),
        helper.make_node("Sub", ["pixels", "grey"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["squared"]),
        helper.make_node("Mul", ["squared", "gain"], ["error"]),
        helper.make_node("ReduceMean", ["error", "last"], ["error_map"], keepdims=0),
        helper.make_node("ReduceMean", ["error_map", "sides"], ["score"], keepdims=0),
        helper.make_node("ReduceMean", ["error_map", "columns"], ["latent"], keepdims=0),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "nothing"], ["black"]),
        helper.make_node("Add", ["black", "grey"], ["reconstruction"]),
    ]
    shapes = {
        "score": ["N"],
        "error_map": ["N", height, width],
        "reconstruction": ["N", channels, height, width],
        "latent": ["N", height],
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, channels])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_info(
    *,
    width: int = SIDE,
    height: int = SIDE,
    channels: int = 1,
    threshold: Threshold | None = None,
    white_level: int = 65535,
    source: SourceLimits | None = None,
    trained_on: int = 0,
    score: str = "mse",
) -> ModelInfo:
    """Return the metadata of a tiny model; without source limits it takes mono and colour of any size."""
    return ModelInfo(
        name="tiny",
        preprocess=Preprocess(width, height, channels, white_level, source or SourceLimits((1, 3), None, None)),
        network=Network("cae", (8, 16), (2, 1), 8, height, 100),
        score=Score(score, 0.0),
        provenance=Provenance(
            versions={"onspect": "0.1.0"},
            seed=0,
            data="parts",
            training_images=trained_on,
            training_fingerprint="",
            trained="2026-01-01T00:00:00.000Z",
            exported="2026-01-01T00:00:00.000Z",
            parity=0.0,
            parity_images=1,
        ),
        threshold=threshold,
        calibration=None if threshold is None else EVIDENCE,
    )


def write_model(
    path: Path,
    *,
    width: int = SIDE,
    height: int = SIDE,
    channels: int = 1,
    gain: float = 1.0,
    threshold: Threshold | None = None,
    white_level: int = 65535,
    source: SourceLimits | None = None,
    training_images: Iterable[str] = (),
    trained_on: int | None = None,
    score: str = "mse",
) -> Path:
    """Write a tiny model file and return its path; trained_on is how many training images it claims to have seen."""
    fingerprints = list(training_images)
    info = make_info(
        width=width,
        height=height,
        channels=channels,
        threshold=threshold,
        white_level=white_level,
        source=source,
        trained_on=len(fingerprints) if trained_on is None else trained_on,
        score=score,
    )
    graph = build_graph(width=width, height=height, channels=channels, gain=gain)
    path.write_bytes(stamp(graph, info, fingerprints))
    return path
