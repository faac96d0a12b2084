"""A tiny frozen network with stages at strides of 8, 16 and 32 pixels, and pictures that it distinguishes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 64, 96


def write_backbone(path: Path, *, gain: float = 2.0) -> Path:
    """Write an ONNX file that `find_backbone` takes: five convolutions of stride 2 with random weights.

    A gain of 0 gives the same features everywhere.
    """
    random = np.random.default_rng(0)
    nodes, weights, name, inputs = [], [], "pixels", 3
    widths = (6, 8, 8, 12, 16)
    for index, width in enumerate(widths):
        values = random.standard_normal((width, inputs, 3, 3)) * np.sqrt(gain / (9 * inputs))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"weight{index}"))
        found = f"stride{2 ** (index + 1)}"
        nodes.append(helper.make_node("Conv", [name, f"weight{index}"], [found], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [found], [f"relu{index}"]))
        name, inputs = f"relu{index}", width
    outputs = [
        helper.make_tensor_value_info(f"stride{stride}", TensorProto.FLOAT, ["N", width, "h", "w"])
        for stride, width in zip((8, 16, 32), widths[2:], strict=True)
    ]
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, "H", "W"])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def draw_part(seed: int, *, scratched: bool = False) -> NDArray[np.uint8]:
    """Return a grey part: a bar on a grain, with a bright scratch if asked."""
    random = np.random.default_rng(seed)
    image = random.normal(90.0, 6.0, (HEIGHT, WIDTH))
    image[20:44, 16:80] += 60.0
    if scratched:
        left = int(random.integers(20, 60))
        cv2.line(image, (left, 24), (left + 14, 40), 255.0, 3)
    return np.asarray(image.clip(0, 255), np.uint8)


def write_parts(folder: Path, *, good: int = 16, colour: bool = False) -> Path:
    """Write a dataset folder with train/good, and val/ and test/ with good and scratched parts."""
    splits = (("train/good", good, False), *((f"{s}/{k}", 6, k != "good") for s in ("val", "test") for k in KINDS))
    for number, (split, count, scratched) in enumerate(splits):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            image = draw_part(1000 * number + index, scratched=scratched)
            if colour:
                image = np.stack([image, image // 2, image // 3], axis=2)
            cv2.imwrite(str(folder / split / f"{index:03d}.png"), image)
    return folder


KINDS = ("good", "scratch")
