"""The base file: a frozen backbone and an empty memory in one ONNX graph, which ``onspect teach`` fills.

The graph is complete. It takes images and gives ``score`` and ``error_map``, and only the values of some initializers
are missing: they are placeholders for one vector. So a device without the onnx package makes a model file from it by
replacing initializers (`onspect.runtime.teaching`). docs/model-file.md lists their names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onspect.runtime.errors import ChoiceError
from onspect.runtime.teaching.base_file import BASE_KEY, BaseInfo
from onspect.runtime.teaching.memory import WHOLE_WEIGHTS
from onspect.training.features.trunk import DEFAULT, Backbone, export_trunk, find_backbone
from onspect.training.to_onnx import OPSET, strip_traces

_STAGES = ("stride8", "stride16", "stride32")
_IN_PARTS = {"memory": 8}  # parts in which a search takes a memory: products of fewer leave the cache
_IR_VERSION = 9  # of onnx 1.14: every onnxruntime that this package allows reads it


def make_base(
    backbone: str | Backbone = DEFAULT,
    *,
    image_size: tuple[int, int] | None = None,
    working_size: tuple[int, int] | None = None,
) -> bytes:
    """Return the bytes of a base file.

    Parameters
    ----------
    backbone
        A name as `find_backbone` takes it, or a row of `BACKBONES`.
    image_size, working_size
        Height and width of the images, and those at which the backbone sees them: multiples of 32. If both are given
        and differ, the graph resizes the images and the error map. None: the backbone sees images as they are.

    Returns
    -------
    bytes
        An ONNX file with the backbone and an empty memory.

    Raises
    ------
    ChoiceError
        If there is no such backbone, or its outputs are not features at strides of 8, 16 and 32 pixels.
    ExportError
        If the weights are damaged.
    ModuleNotFoundError
        If the package with the weights is not installed.
    """
    chosen = find_backbone(backbone) if isinstance(backbone, str) else backbone
    trunk = export_trunk(chosen)
    widths = _measure_widths(trunk)
    resize = image_size != working_size and image_size is not None and working_size is not None
    graph = _Graph()
    graph.add_trunk(trunk, working_size if resize else None)
    _add_score(graph, *widths[1:])
    _add_map(graph, sum(widths), image_size if resize else None)
    model = graph.finish()
    onnx.checker.check_model(model, full_check=True)
    content = bytes(model.SerializeToString())
    info = BaseInfo(
        backbone=chosen.name if chosen.package else chosen.name.rpartition("/")[2],
        weights_sha256=chosen.sha256,
        licence=chosen.licence,
        widths=widths,
        graph_sha256=hashlib.sha256(content).hexdigest(),
    )
    metadata = onnx.ModelProto()
    helper.set_model_props(metadata, {BASE_KEY: json.dumps(info.to_dict())})
    return content + bytes(metadata.SerializeToString())  # concatenated protobuf messages are one message


def _measure_widths(trunk: onnx.ModelProto) -> tuple[int, int, int]:
    """Return the channels of the three stages; raise ChoiceError if their strides are not 8, 16 and 32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(trunk.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = session.run(["stride8", "stride16", "stride32"], {name: np.zeros((1, 3, 64, 96), np.float32)})
    shapes = [stage.shape for stage in found]
    if [shape[2:] for shape in shapes] != [(8, 12), (4, 6), (2, 3)]:
        raise ChoiceError(
            f"the backbone's stages have the shapes {', '.join(map(str, shapes))} for an image of 96x64 pixels; stages "
            "with strides of 8, 16 and 32 pixels are needed"
        )
    first, second, third = (int(shape[1]) for shape in shapes)
    return first, second, third


class _Graph:
    """Collects nodes and initializers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.opset = OPSET

    def value(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def ints(self, name: str, *values: int) -> str:
        """Add an initializer int64 [n] and return its name."""
        return self.value(name, np.array(values, np.int64))

    def number(self, name: str, value: float) -> str:
        """Add an initializer float32 and return its name."""
        return self.value(name, np.array(value, np.float32))

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name, which is the node's too."""
        return self.split(kind, inputs, [output], output, **attributes)[0]

    def split(self, kind: str, inputs: Sequence[str], outputs: list[str], name: str, **attributes: Any) -> list[str]:
        """Add a node of several outputs and return their names."""
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs

    def resize(self, planes: str, name: str, size: tuple[int, int]) -> str:
        """Add a bilinear resize of planes to a height and width."""
        sides = self.ints(f"{name}.size", *size)
        return self.node("Resize", [planes, "", "", sides], name, mode="linear", antialias=1, axes=[2, 3])

    def add_trunk(self, trunk: onnx.ModelProto, size: tuple[int, int] | None) -> None:
        """Add what makes planes of the image, resized to a height and width if given, and the backbone on them."""
        self.node("Cast", ["image"], "image.float", to=TensorProto.FLOAT)
        self.node("Transpose", ["image.float"], "image.planes", perm=[0, 3, 1, 2])
        self.node("Mul", ["image.planes", self.value("mask.keep", np.ones((1, 1, 1, 1), np.float32))], "image.kept")
        fill = self.value("mask.fill", np.full((1, 1, 1, 1), -127.5, np.float32))
        planes = self.node("Add", ["image.kept", fill], "planes")
        if size is not None:
            planes = self.resize(planes, "planes.resized", size)
        entry = trunk.graph.input[0].name
        stem = _find_stem(trunk.graph, entry)
        if stem is None:  # the planes have other uses than the first convolution
            identity = np.eye(3, dtype=np.float32)[:, :, None, None]
            planes = self.node("Conv", [planes, self.value("stem.weight", identity)], "planes.mixed")

        def rename(name: str) -> str:
            """Return a value's name here: one of the backbone's own must not be one of ours."""
            if name == entry:
                return planes
            if name == stem:
                return "stem.weight"
            return name if not name or name in _STAGES else f"backbone.{name}"

        for tensor in trunk.graph.initializer:
            weights = TensorProto()
            weights.CopyFrom(tensor)
            weights.name = rename(tensor.name)
            self.initializers.append(weights)
        for node in trunk.graph.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = f"backbone.{node.name}" if node.name else ""
            copied.input[:], copied.output[:] = map(rename, node.input), map(rename, node.output)
            self.nodes.append(copied)
        self.opset = next(entry.version for entry in trunk.opset_import if entry.domain in ("", "ai.onnx"))

    def finish(self) -> onnx.ModelProto:
        """Return the model with its public input and outputs."""
        graph = helper.make_graph(
            self.nodes,
            "onspect",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
            [
                helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
                helper.make_tensor_value_info("error_map", TensorProto.FLOAT, ["N", "H", "W"]),
            ],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=_IR_VERSION)
        strip_traces(model)
        return model


def _find_stem(graph: onnx.GraphProto, entry: str) -> str | None:
    """Return the weights of the only convolution that reads the input, directly or after padding; None without one."""
    weights = {tensor.name for tensor in graph.initializer}
    name = entry
    while True:
        users = [node for node in graph.node if name in node.input]
        if len(users) == 1 and users[0].op_type == "Pad" and users[0].input[0] == name:
            name = users[0].output[0]
        elif len(users) == 1 and users[0].op_type == "Conv" and users[0].input[1] in weights:
            return str(users[0].input[1])
        else:
            return None


def _add_score(graph: _Graph, middle: int, coarse: int) -> None:
    """Add the score: nearest distances of pooled, normalised features, smoothed, then the mean of the highest."""
    parts = []
    for stride, width in ((16, middle), (32, coarse)):
        gain = graph.value(f"memory.gain{stride}", np.ones((1, width, 1, 1), np.float32))
        shift = graph.value(f"memory.shift{stride}", np.zeros((1, width, 1, 1), np.float32))
        scaled = graph.node("Mul", [f"stride{stride}", gain], f"memory.scaled{stride}")
        centred = graph.node("Add", [scaled, shift], f"memory.centred{stride}")
        pooled = graph.node(
            *("AveragePool", [centred], f"memory.pooled{stride}"),
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            count_include_pad=1,
        )
        length = graph.node(
            "ReduceL2", [pooled, graph.ints(f"memory.axis{stride}", 1)], f"memory.length{stride}", keepdims=1
        )
        floored = graph.node("Add", [length, graph.number(f"memory.floor{stride}", 0.5)], f"memory.floored{stride}")
        parts.append(graph.node("Div", [pooled, floored], f"memory.part{stride}"))
    parts[1] = _enlarge(graph, parts[1], "memory.enlarged", 2)
    joined = graph.node("Concat", parts, "memory.joined", axis=1)
    distances = _add_search(graph, "memory", joined, middle + coarse)
    border = graph.ints("memory.border", 0, 0, 1, 1, 0, 0, 1, 1)
    padded = graph.node("Pad", [distances, border], "memory.padded", mode="edge")
    smooth = graph.node("AveragePool", [padded], "memory.smooth", kernel_shape=[3, 3])
    inspected = graph.value("memory.inspected", np.ones((1, 1, 1, 1), np.float32))
    seen = graph.node("Mul", [smooth, inspected], "memory.seen")
    flat = graph.node("Flatten", [seen], "memory.flat", axis=1)
    outputs = ["memory.highest", "memory.where"]
    highest, _ = graph.split("TopK", [flat, graph.ints("memory.count", 1)], outputs, "memory.top", axis=1)
    one = graph.ints("score.axis", 1)
    patches = graph.node("ReduceMean", [highest, one], "memory.score", keepdims=0)
    whole = _add_whole(graph, middle + coarse, one)
    weighted = [
        graph.node("Mul", [part, graph.number(f"{name}.weight", weight)], f"{name}.weighted")
        for name, part, weight in (("memory", patches, 1.0), ("whole", whole, 0.0))
    ]
    graph.node("Add", weighted, "score")


def _add_whole(graph: _Graph, width: int, axis: str) -> str:
    """Add the distance of the whole image's mean features, normalised for each stage, to the nearest few."""
    parts = []
    for stride in (16, 32):
        mean = graph.node("GlobalAveragePool", [f"stride{stride}"], f"whole.mean{stride}")
        flat = graph.node("Flatten", [mean], f"whole.flat{stride}", axis=1)
        length = graph.node("ReduceL2", [flat, axis], f"whole.length{stride}", keepdims=1)
        floored = graph.node("Add", [length, graph.number(f"whole.least{stride}", 1e-6)], f"whole.floored{stride}")
        unit = graph.node("Div", [flat, floored], f"whole.unit{stride}")
        weight = graph.number(f"whole.share{stride}", WHOLE_WEIGHTS[stride])
        parts.append(graph.node("Mul", [unit, weight], f"whole.part{stride}"))
    joined = graph.node("Concat", parts, "whole.joined", axis=1)
    extended = _extend_queries(graph, "whole", joined), _extend_memory(graph, "whole", np.zeros((2, width), np.float16))
    squares = graph.node("Gemm", extended, "whole.gemm", transB=1)
    own = graph.node("ReduceSumSquare", [joined, axis], "whole.own", keepdims=1)
    total = graph.node("Add", [squares, own], "whole.total")
    few, outputs = graph.ints("whole.count", 1), ["whole.lowest", "whole.where"]
    lowest, _ = graph.split("TopK", [total, few], outputs, "whole.top", axis=1, largest=0)
    positive = graph.node("Max", [lowest, graph.number("whole.zero", 0.0)], "whole.positive")
    roots = graph.node("Sqrt", [positive], "whole.roots")
    return graph.node("ReduceMean", [roots, axis], "whole.score", keepdims=0)


def _add_map(graph: _Graph, width: int, size: tuple[int, int] | None) -> None:
    """Add the error map: nearest distances of unnormalised features of all three stages, enlarged."""
    pooled = graph.node("AveragePool", ["stride8"], "stride8.pooled", kernel_shape=[2, 2], strides=[2, 2])
    coarse = _enlarge(graph, "stride32", "map.enlarged", 2)
    joined = graph.node("Concat", [pooled, "stride16", coarse], "map.joined", axis=1)
    distances = _add_search(graph, "map", joined, width)
    large = _enlarge(graph, distances, "map.large", 16)
    if size is not None:
        large = graph.resize(large, "map.resized", size)
    flat = graph.node("Squeeze", [large, graph.ints("map.channel", 1)], "map.flat")
    graph.node("Mul", [flat, graph.value("map.inspected", np.ones((1, 1, 1), np.float32))], "error_map")


def _add_search(graph: _Graph, name: str, features: str, width: int) -> str:
    """Add the distance of each place to the nearest vector of a memory; return [N, 1, h, w]."""
    project = graph.value(f"{name}.project", np.zeros((1, width, 1, 1), np.float32))
    offset = graph.value(f"{name}.offset", np.zeros(1, np.float32))
    planes = graph.node("Conv", [features, project, offset], f"{name}.projected")
    rows = graph.node("Transpose", [planes], f"{name}.places", perm=[0, 2, 3, 1])
    dimensions = graph.node("Shape", [project], f"{name}.dimensions", start=0, end=1)
    shape = graph.node("Concat", [graph.ints(f"{name}.every", -1), dimensions], f"{name}.shape", axis=0)
    vectors = graph.node("Reshape", [rows, shape], f"{name}.queries")
    axis = graph.ints(f"{name}.axis", 1)
    nearest = _nearest_squares(graph, name, vectors, axis)
    own = graph.node("ReduceSumSquare", [vectors, axis], f"{name}.own", keepdims=1)
    total = graph.node("Add", [nearest, own], f"{name}.total")
    positive = graph.node("Max", [total, graph.number(f"{name}.zero", 0.0)], f"{name}.positive")
    roots = graph.node("Sqrt", [positive], f"{name}.roots")
    sizes = graph.node("Shape", [planes], f"{name}.sizes")
    single = graph.ints(f"{name}.single", 1)
    images, sides = (
        graph.node("Slice", [sizes, graph.ints(f"{part}.start", start), graph.ints(f"{part}.end", end)], part)
        for part, start, end in ((f"{name}.images", 0, 1), (f"{name}.sides", 2, 4))
    )
    back = graph.node("Concat", [images, single, sides], f"{name}.back", axis=0)
    return graph.node("Reshape", [roots, back], f"{name}.distances")


def _nearest_squares(graph: _Graph, name: str, queries: str, axis: str) -> str:
    """Add the least |m|^2 - 2 q.m of each query, [queries, 1].

    A large memory is searched in parts, whose products stay in the processor's cache. Copies of the last vector fill
    the parts, so that none is empty; they change no minimum.
    """
    extended, vectors = _extend_queries(graph, name, queries), _extend_memory(graph, name, np.zeros((1, 1), np.float16))
    if name not in _IN_PARTS:
        squares = graph.node("Gemm", [extended, vectors], f"{name}.gemm", transB=1)
        return graph.node("ReduceMin", [squares, axis], f"{name}.nearest", keepdims=1)
    count = _IN_PARTS[name]
    more = graph.ints(f"{name}.more", 0, 0, count * count, 0)
    filled = graph.node("Pad", [vectors, more], f"{name}.filled", mode="edge")
    parts = [f"{name}.piece{number}" for number in range(count)]
    least = []
    for part in graph.split("Split", [filled], parts, f"{name}.split", axis=0, num_outputs=count):
        squares = graph.node("Gemm", [extended, part], f"{part}.gemm", transB=1)
        least.append(graph.node("ReduceMin", [squares, axis], f"{part}.least", keepdims=1))
    return graph.node("Min", least, f"{name}.nearest")


def _extend_queries(graph: _Graph, name: str, queries: str) -> str:
    """Add a column of ones to queries [queries, dimensions]."""
    column, one = graph.ints(f"{name}.column", 0, 0, 0, 1), graph.number(f"{name}.one", 1.0)
    return graph.node("Pad", [queries, column, one], f"{name}.extended")


def _extend_memory(graph: _Graph, name: str, memory: NDArray[np.float16]) -> str:
    """Add rows of -2 m and |m|^2, [vectors, dimensions + 1]. They are constants: a session computes them once."""
    stored = graph.value(f"{name}.vectors", memory)
    vectors = graph.node("Cast", [stored], f"{name}.float", to=TensorProto.FLOAT)
    doubled = graph.node("Mul", [vectors, graph.number(f"{name}.factor", -2.0)], f"{name}.doubled")
    squares = graph.value(f"{name}.squares", np.zeros(len(memory), np.float32))
    column = graph.node("Unsqueeze", [squares, graph.ints(f"{name}.rows", 1)], f"{name}.squared")
    return graph.node("Concat", [doubled, column], f"{name}.rows.extended", axis=1)


def _enlarge(graph: _Graph, planes: str, name: str, factor: int) -> str:
    """Add a bilinear enlargement by a whole factor."""
    scales = graph.value(f"{name}.scales", np.array([1, 1, factor, factor], np.float32))
    return graph.node("Resize", [planes, "", scales], name, mode="linear", coordinate_transformation_mode="half_pixel")
