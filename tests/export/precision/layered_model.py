"""A small model file with learned layers, made without torch: a blurred copy of the image is its reconstruction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onspect.runtime.model.file import stamp

from ...tiny_model import make_info

SIDE = 16
CHANNELS = 4


def build_graph(*, sensitive: bool = False) -> onnx.ModelProto:
    """Return conv, relu, conv (both learned), then squared error, a smoothing convolution and its maximum as score.

    With `sensitive`, what passes from the first to the second has one channel a thousand times the others, with weight
    0: in 8 bits the others vanish. Before them come two layers, front.0 and front.1, that change nothing.
    """
    random = np.random.default_rng(0)
    first = np.abs(random.normal(size=(CHANNELS, 1, 3, 3))).astype(np.float32)
    first /= first.sum(axis=(1, 2, 3), keepdims=True)
    second = np.full((1, CHANNELS, 1, 1), 1.0 / CHANNELS, np.float32)
    if sensitive:
        first[0] *= 1000.0
        second = np.array([0, 1 / 3, 1 / 3, 1 / 3], np.float32).reshape(1, CHANNELS, 1, 1)
    front = []
    entry = "pixels"
    if sensitive:
        entry = "same"
        front = [
            helper.make_node("Conv", ["pixels", "front.0.weight"], ["copies"], "front_1"),
            helper.make_node("Conv", ["copies", "front.1.weight"], [entry], "front_2"),
        ]
    constants: dict[str, NDArray[np.generic]] = {
        "scale": np.array(1 / 255, np.float32),
        "encoder.weight": first,
        "decoder.weight": second,
        "front.0.weight": np.ones((CHANNELS, 1, 1, 1), np.float32),
        "front.1.weight": np.full((1, CHANNELS, 1, 1), 1.0 / CHANNELS, np.float32),
        "smoothing": np.full((1, 1, 3, 3), 1 / 9, np.float32),
        "shape": np.array([0, 1, SIDE, SIDE], np.int64),
        "channel": np.array([1], np.int64),
        "sides": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["planes"], "reshape"),
        helper.make_node("Cast", ["planes"], ["numbers"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["pixels"], "scaling"),
        *front,
        helper.make_node("Conv", [entry, "encoder.weight"], ["features"], "conv_1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["latent"], "relu"),
        helper.make_node("Conv", ["latent", "decoder.weight"], ["reconstruction"], "conv_2"),
        helper.make_node("Sub", ["pixels", "reconstruction"], ["difference"], "subtract"),
        helper.make_node("Mul", ["difference", "difference"], ["squared"], "square"),
        helper.make_node("Conv", ["squared", "smoothing"], ["smoothed"], "smooth", pads=[1, 1, 1, 1]),
        helper.make_node("Squeeze", ["smoothed", "channel"], ["error_map"], "squeeze"),
        helper.make_node("ReduceMax", ["error_map", "sides"], ["score"], "maximum", keepdims=0),
    ]
    outputs = {"score": ["N"], "error_map": ["N", SIDE, SIDE], "reconstruction": ["N", 1, SIDE, SIDE]}
    graph = helper.make_graph(
        nodes,
        "layered",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if sensitive or "front" not in name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_layered(path: Path, training_images: Iterable[str], *, sensitive: bool = False) -> Path:
    """Write the model as an uncalibrated model file and return its path."""
    info = dataclasses.replace(make_info(score="peak"), name=path.stem)
    path.write_bytes(stamp(build_graph(sensitive=sensitive).SerializeToString(), info, training_images))
    return path
