"""The features of images as an autoencoder takes them: at each place, decorrelated components of unit spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onspect.runtime.batch import in_order
from onspect.runtime.errors import DatasetError, TrainingError
from onspect.runtime.teaching.base_file import FEATURES, edit_graph, read_initializers, split_metadata
from onspect.runtime.teaching.memory import Features, Projection, learn_places, raw_places

COMPONENTS = 128
"""Principal components of the features of a place that are reconstructed; fewer where good parts do not vary more."""

STRIDE = 16
"""Pixels of the working size from one place to the next, across and down."""

PLACES = "places"
"""Output of the extractor's graph: float32 [N, C, h, w]."""

_LEARNT_PLACES = 40_000  # that the components are computed from
_LEAST_SPREAD = 1e-3  # of a component, as a share of the strongest one's: less is rounding


def make_extractor(base: bytes, images: NDArray[np.uint8], *, seed: int) -> bytes:
    """Return the ONNX graph from an image to the features of its places, learned from good images.

    Parameters
    ----------
    base
        The bytes of a base file (`make_base`).
    images
        Good images, uint8 [n, height, width, channels], height and width multiples of 32, channels 1 or 3. Some of
        them, drawn at random, are looked at.
    seed
        Of the draw.

    Returns
    -------
    bytes
        A graph with the input ``image``, uint8 [N, height, width, channels], and the output ``places``, float32
        [N, C, height / 16, width / 16]: principal components of the features at strides of 8, 16 and 32 pixels, each
        with mean 0 and spread 1 over the images.

    Raises
    ------
    DatasetError
        If all places of the images are alike.
    """
    _, height, width, channels = images.shape
    graph, _ = split_metadata(Path("base"), base)
    stem = read_initializers(graph, ["stem.weight"])["stem.weight"]
    # a grey image is the same plane three times, so the first convolution takes the sum of its weights
    mono = {"stem.weight": stem.sum(axis=1, keepdims=True)} if channels == 1 else {}
    shape = (height, width, channels)
    most = max(1, _LEARNT_PLACES // ((height // STRIDE) * (width // STRIDE)))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(images))[:most])
    found = _run(edit_graph(graph, mono, input_shape=shape, outputs=FEATURES), images[drawn], FEATURES)
    projection = _learn(Features(*(np.concatenate(stage) for stage in zip(*found, strict=True))), seed)
    values = {
        "map.project": projection.project[:, :, None, None],
        "map.offset": projection.offset,
    }
    model = onnx.load_from_string(edit_graph(graph, mono | values, input_shape=shape, outputs=["map.projected"]))
    part = onnx.utils.Extractor(model).extract_model(["image"], ["map.projected"])
    return _rename_output(part)


def extract(extractor: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the features of images, uint8 [n, height, width, channels], as float32 [n, C, h, w].

    Each image is run by itself, so its features do not depend on the others.

    Raises TrainingError if onnxruntime cannot load the graph.
    """
    return np.concatenate([places for (places,) in _run(extractor, images, [PLACES], np.float32)])


def flatten_places(features: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return features [n, C, h, w] as the trainer's images of one place each, [n * h * w, 1, 1, C]."""
    rows = features.transpose(0, 2, 3, 1).reshape(-1, 1, 1, features.shape[1])
    return np.ascontiguousarray(rows, np.float16)


def _learn(features: Features, seed: int) -> Projection:
    """Return the strongest principal components, each of unit spread."""
    found = learn_places(features, COMPONENTS, 0.0, seed=seed)
    spread = np.concatenate([found(block) for block in raw_places(features)]).std(axis=0, dtype=np.float64)
    kept = spread > max(_LEAST_SPREAD * spread.max(), 1e-6)
    if not kept.any():
        raise DatasetError("all places of the images are alike, so there is nothing to learn; give images of parts")
    scale = (1.0 / spread[kept]).astype(np.float32)
    return Projection(found.project[kept] * scale[:, None], found.offset[kept] * scale)


def _run(
    graph: bytes, images: NDArray[np.uint8], names: tuple[str, ...] | list[str], kind: Any = np.float16
) -> list[list[NDArray[Any]]]:
    """Return outputs of a graph for each image, one image a run, on all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise TrainingError(f"onnxruntime cannot load the graph of the features: {error}") from error

    def run(index: int) -> list[NDArray[Any]]:
        return [output.astype(kind) for output in session.run(list(names), {"image": images[index : index + 1]})]

    return list(in_order(run, range(len(images))))


def _rename_output(model: onnx.ModelProto) -> bytes:
    """Return a graph whose output ``map.projected`` is called ``places``, as bytes."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = [PLACES if name == "map.projected" else name for name in node.output]
    graph.output[0].name = PLACES
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
