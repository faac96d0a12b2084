"""A taught model file in a smaller form: its backbone in float16 or 8-bit integers, and its memory.

With float16 only the stored weights change. They become float32 when the file is opened, so scores hardly move. With
8-bit integers the features change. The memory is then fitted again to the new features, which needs the good pictures
that were taught.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onspect.export.precision.int8 import Quantizer
from onspect.export.precision.weighted_layers import Layer
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.dataset.folder import training_images
from onspect.runtime.dataset.good_images import stack_images
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.fingerprints import fingerprint_bytes, unpack_fingerprints
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import ModelInfo
from onspect.runtime.teaching.base_file import edit_graph, read_initializers
from onspect.runtime.teaching.extract import Extractor
from onspect.runtime.teaching.fill import fit_images
from onspect.runtime.teaching.fit import FittedMemory
from onspect.runtime.teaching.graph_values import describe_lesson, fill
from onspect.runtime.teaching.threshold import counts_parts, fit_threshold

STAGES = ("stride8", "stride16", "stride32")
"""Outputs of the backbone in the graph."""

_FIRST = (0, 6, 15, 30)  # number of first layers that stay in float32, in the order of trial


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The good pictures that a file was taught, as its graph takes them."""

    images: NDArray[np.uint8] = dataclasses.field(repr=False)
    """Model inputs, as `stack_images` returns them."""
    fingerprints: tuple[str, ...] = dataclasses.field(repr=False)
    """Fingerprint of each picture's file."""


def find_backbone(graph: onnx.GraphProto) -> list[Layer]:
    """Return the layers of a taught file's backbone.

    Parameters
    ----------
    graph
        Graph of the model file.

    Returns
    -------
    list[Layer]
        Layers in the order of the graph.
    """
    makers = {name: node for node in graph.node for name in node.output}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found: set[str] = set()
    waiting = list(STAGES)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return [
        Layer(node.input[1].removesuffix(".weight"), node.name, node.op_type, int(np.prod(shapes[node.input[1]])))
        for node in graph.node
        if node.name in found and node.op_type == "Conv" and node.input[1] in shapes
    ]


def store_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that stores the weights of its backbone in float16; they become float32 when it is opened.

    The last layer, an eighth of all weights, is stored in 8-bit integers with a scale for each channel. No later layer
    amplifies its rounding.

    Parameters
    ----------
    model
        The float32 model.

    Returns
    -------
    onnx.ModelProto
        A changed copy.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    nodes = {layer.node for layer in find_backbone(graph)}
    names = [node.input[1] for node in graph.node if node.name in nodes]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    casts = []
    last = names[-1]
    for name in dict.fromkeys(names):
        values = numpy_helper.to_array(tensors[name])
        if name == last:
            scale = np.maximum(np.abs(values).max(axis=(1, 2, 3), keepdims=True), 1e-12) / np.float32(127)
            small = np.rint(values / scale).astype(np.int8)
            tensors[name].CopyFrom(numpy_helper.from_array(small, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
            casts += [
                helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], f"{name}.cast", to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name], f"{name}.scaled"),
            ]
            continue
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])
    return copy


def quantize_backbone(quantizer: Quantizer, layers: list[Layer]) -> bytes:
    """Return the graph with some layers in 8-bit integers. The memory gets their results unrounded.

    Parameters
    ----------
    quantizer
        The model with the ranges of its values.
    layers
        Layers to quantise.

    Returns
    -------
    bytes
        The ONNX file.
    """
    model = quantizer.quantize(layers)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or node.name in {layer.node for layer in quantizer.layers}:
            continue
        for place, name in enumerate(node.input):
            stage = name.removesuffix("_DequantizeLinear_Output")
            if stage in STAGES:
                node.input[place] = stage
    return bytes(model.SerializeToString())


def choices(layers: list[Layer]) -> Iterable[list[Layer]]:
    """Yield sets of layers to quantise: all, then all but more and more of the first, which see the finest detail.

    Parameters
    ----------
    layers
        Layers of the backbone, in the order of the graph.

    Returns
    -------
    Iterable[list[Layer]]
        Sets in the order in which they are tried.
    """
    return (layers[start:] for start in _FIRST if start < len(layers))


def read_pictures(file: ModelFile, data: Path) -> Pictures:
    """Read the good pictures that a file was taught.

    Parameters
    ----------
    file
        The taught model file.
    data
        Dataset folder with all of these pictures in its ``train/good``.

    Returns
    -------
    Pictures
        The pictures, each once.

    Raises
    ------
    DatasetError
        If pictures are missing or cannot be used, or the file was taught with ``--group``.
    """
    assert file.info.memory is not None
    if counts_parts(file.info):
        raise DatasetError(
            f"{str(file.path)!r} was taught with --group, and int8 teaches again without it: its threshold would "
            f"promise too much; keep float32"
        )
    wanted = {name for lesson in file.info.memory.lessons for name in unpack_fingerprints(lesson.fingerprints)}
    images: dict[str, NDArray[np.uint8]] = {}
    for path in training_images(data):
        try:
            name = fingerprint_bytes(path.read_bytes())
            if name in wanted and name not in images:
                images[name] = prepare(read_image(path), file.info.preprocess)
        except OSError as error:
            raise DatasetError(
                f"cannot read {str(path)!r}: {describe_os_error(error)}; remove or replace it"
            ) from error
        except ImageError as error:
            raise DatasetError(f"{str(path)!r} cannot be used: {error}; remove or replace it") from error
    if len(images) < len(wanted):
        raise DatasetError(
            f"{str(data)!r} has {len(images)} of the {len(wanted)} good pictures that {str(file.path)!r} was taught, "
            "and int8 teaches them again; give the dataset with all of them in its train/good"
        )
    return Pictures(stack_images(list(images.values())), tuple(images))


def fit_again(file: ModelFile, graph: bytes, pictures: Pictures) -> tuple[bytes, FittedMemory]:
    """Fit a new memory to the features of a changed graph.

    Parameters
    ----------
    file
        The taught model file, which gives the settings.
    graph
        The changed graph as bytes of an ONNX file.
    pictures
        The good pictures.

    Returns
    -------
    tuple[bytes, FittedMemory]
        The graph with the new memory, and the memory.
    """
    memory = file.info.memory
    assert memory is not None
    shown = read_initializers(graph, ["map.inspected"])["map.inspected"]
    mask = None if shown.size == 1 else shown[0] > 0
    _, fitted = fit_images(
        Extractor.open(graph),
        pictures.images,
        copies=memory.copies,
        by_whole=memory.by_whole,
        mask=mask,
        seed=file.info.provenance.seed,
    )
    return edit_graph(graph, fill(fitted, mask)), fitted


def describe_again(info: ModelInfo, pictures: Pictures, fitted: FittedMemory) -> ModelInfo:
    """Return the metadata of a file after its memory was fitted again, with all pictures in one lesson.

    The threshold follows from the pictures' new scores, at the rate that was promised before.

    Parameters
    ----------
    info
        Metadata of the old file.
    pictures
        The good pictures.
    fitted
        The new memory.

    Returns
    -------
    ModelInfo
        Metadata of the new file.
    """
    memory, old = info.memory, info.calibration
    assert memory is not None
    lesson = describe_lesson(fitted, pictures.fingerprints, memory.lessons[0].data)
    memory = dataclasses.replace(memory, dimensions=fitted.vectors.shape[1], lessons=(lesson,))
    rate = None if old is None or old.rule is None else old.rule.rate
    least = 1.0 / (len(pictures.images) + 1)
    threshold, calibration = fit_threshold(fitted, max(rate or least, least), pictures.fingerprints, lesson.data)
    return dataclasses.replace(info, memory=memory, threshold=threshold, calibration=calibration, history=())
