from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onspect.export.precision.float16 import convert_to_float16
from onspect.export.precision.weighted_layers import find_layers, find_span

from .layered_model import build_graph


def build_chain(*layers: tuple[str, tuple[int, ...], int]) -> onnx.GraphProto:
    """Return a graph of convolutions, each with a weight's name, its shape and its groups."""
    nodes = [
        helper.make_node("Conv", [f"x{index}", name], [f"x{index + 1}"], f"node{index}", group=groups)
        for index, (name, _, groups) in enumerate(layers)
    ]
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape, _ in layers]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes, "g", [value("x0", TensorProto.FLOAT, None)], [value(f"x{len(layers)}", TensorProto.FLOAT, None)], weights
    )


def test_layers_are_those_that_mix_channels() -> None:
    """A convolution of one channel to one and a depthwise one do not count; the others are, by their weights' name."""
    graph = build_chain(
        ("encoder.0.weight", (8, 1, 3, 3), 1),
        ("depthwise.weight", (8, 1, 3, 3), 8),
        ("view_3", (1, 8, 1, 1), 1),
        ("smoothing", (1, 1, 1, 5), 1),
    )
    layers = find_layers(graph)
    assert [(layer.name, layer.node, layer.weights) for layer in layers] == [
        ("encoder.0", "node0", 72),
        ("node2", "node2", 8),
    ]


def test_matrices_of_the_score_are_no_layers() -> None:
    """Layers that smooth or enlarge a map, and factors of a fitted measure, are not converted."""
    names = ("smooth.across", "enlarge.across", "decoder.convolutions.4.across", "measure.parts.0.matrix")
    assert find_layers(build_chain(*((name, (64, 256), 1) for name in names))) == []


def test_span_is_what_lies_between_layers() -> None:
    """Scaling before the first layer and the score after the last are outside the span."""
    graph = build_graph().graph
    assert find_span(graph, find_layers(graph)) == {"conv_1", "relu", "conv_2"}


def test_half_computes_the_score_in_float32() -> None:
    """Only the layers' weights are float16; the casts are at the span's borders, and outputs keep their types."""
    half = convert_to_float16(build_graph())
    onnx.checker.check_model(half, full_check=True)
    halves = {tensor.name for tensor in half.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert halves == {"encoder.weight.half", "decoder.weight.half"}
    assert [node.op_type for node in half.graph.node] == [
        *("Reshape", "Cast", "Mul", "Cast", "Conv", "Relu", "Conv", "Cast"),
        *("Sub", "Mul", "Conv", "Squeeze", "ReduceMax"),
    ]
    assert {output.type.tensor_type.elem_type for output in half.graph.output} == {TensorProto.FLOAT}
