"""Convert the layers of a graph to float16: half the bytes, and faster on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onspect.export.precision.weighted_layers import find_layers, find_span

_STAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs that ONNX defines as float32 only, by their position."""


def convert_to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its layers, and all nodes between them, in float16.

    Inputs and outputs keep their types. Scaling, error map and score stay in float32, because a squared difference of
    8-bit pixels can be below float16's smallest number. onnxruntime's own converter rounds every value between two
    nodes to float16, also for nodes that it was told to leave alone, so it is not used.

    Parameters
    ----------
    model
        A float32 model.

    Returns
    -------
    onnx.ModelProto
        A changed copy.
    """
    typed = onnx.shape_inference.infer_shapes(model)
    graph = typed.graph
    span = find_span(graph, find_layers(graph))
    inside = {name for node in graph.node if node.name in span for name in node.output}
    leaving = {name for node in graph.node if node.name not in span for name in node.input} & inside
    leaving |= {output.name for output in graph.output} & inside
    floats = _find_floats(graph)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    halves: dict[str, TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    cast: set[str] = set()
    for node in graph.node:
        if node.name not in span:
            nodes.append(node)
            continue
        for position, name in _float_inputs(node, floats):
            if name in weights:
                halves[name] = _to_half(weights[name])
            elif name not in inside and name not in cast:
                nodes.append(helper.make_node("Cast", [name], [_half(name)], _half(name), to=TensorProto.FLOAT16))
                cast.add(name)
            node.input[position] = _half(name)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        produced = [name for name in node.output if name in floats]
        node.output[:] = [_half(name) if name in floats else name for name in node.output]
        nodes.append(node)
        nodes += [
            helper.make_node("Cast", [_half(name)], [name], f"{name}.float", to=TensorProto.FLOAT)
            for name in produced
            if name in leaving
        ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *halves.values()])
    return typed


def _half(name: str) -> str:
    return f"{name}.half"


def _float_inputs(node: onnx.NodeProto, floats: set[str]) -> Iterator[tuple[int, str]]:
    kept = _STAYS_FLOAT.get(node.op_type, ())
    return ((place, name) for place, name in enumerate(list(node.input)) if name in floats and place not in kept)


def _find_floats(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all float32 values."""
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT} | {
        tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT
    }


def _to_half(tensor: TensorProto) -> TensorProto:
    largest = float(np.finfo(np.float16).max)
    values = numpy_helper.to_array(tensor).clip(-largest, largest).astype(np.float16)
    return numpy_helper.from_array(values, _half(tensor.name))
