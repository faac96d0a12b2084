"""A backbone of five convolutions with random weights that never change, as an ONNX file made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (6, 8, 10, 12, 16)
"""Channels after each halving of the sides; the last three are the stages."""


def write_backbone(path: Path, *, widths: tuple[int, ...] = WIDTHS, outputs: tuple[str, ...] = ()) -> Path:
    """Write the backbone; `outputs` replaces the names of its last values."""
    random = np.random.default_rng(7)
    names = ["half", "quarter", *(outputs or ("stride8", "stride16", "stride32"))]
    nodes, weights, entry, channels = [], [], "planes", 3
    for name, width in zip(names, widths, strict=False):
        kernel = random.normal(0, 1 / np.sqrt(9 * channels), (width, channels, 3, 3)).astype(np.float32)
        if name == "half":
            kernel *= 60.0  # its input is normalised: the biases must not outweigh the picture
        weights.append(numpy_helper.from_array(kernel, f"{name}.weight"))
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, width).astype(np.float32), f"{name}.bias"))
        nodes.append(
            helper.make_node(
                *("Conv", [entry, f"{name}.weight", f"{name}.bias"], [f"{name}.conv"], f"{name}.conv"),
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
            )
        )
        nodes.append(helper.make_node("Relu", [f"{name}.conv"], [name], name))
        entry, channels = name, width
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width, f"h{name}", f"w{name}"])
            for name, width in zip(names[2:], widths[2:], strict=False)
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path
