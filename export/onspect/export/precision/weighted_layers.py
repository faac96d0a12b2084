"""The layers of an ONNX graph that a lower precision may touch, found in the graph alone, whatever network made it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import onnx

_SCORE = ("smooth.", "measure.")  # how the names of what makes a score of the networks' outputs begin
_ENLARGING = (".down", ".across")  # and how those of the matrices end that resize an output, in files of 0.1.0
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A layer with learned weights: name is its weights' (else its node's), node its node's, kind its operator's."""

    name: str
    node: str
    kind: str
    weights: int


def find_layers(graph: onnx.GraphProto) -> list[Layer]:
    """Return the layers that mix channels, in the order of the graph.

    Those hold nearly all weights and work. What smooths and enlarges maps, what a fitted measure multiplies by, and
    convolutions of one channel to one are no layers in this sense: they belong to the score, which stays in float32.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type not in _WEIGHTED or len(node.input) < 2 or node.input[1] not in shapes:
            continue
        if node.input[1].startswith(_SCORE) or node.input[1].endswith(_ENLARGING):
            continue
        shape = shapes[node.input[1]]
        if math.prod(shape[:2]) > 1 and not _keeps_channels_apart(node, shape):
            name = node.input[1]
            known = name.removesuffix(".weight") if name.endswith(".weight") else node.name
            layers.append(Layer(known, node.name, node.op_type, math.prod(shape)))
    return layers


def find_span(graph: onnx.GraphProto, layers: list[Layer]) -> set[str]:
    """Return the names of the layers' nodes and of all nodes on a way from one of them to another.

    What is before the first (scaling) and after the last (error map and score) is not among them.
    """
    wanted = {layer.node for layer in layers}
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    leads: set[str] = set()
    for node in reversed(graph.node):  # a graph's nodes are in the order in which they can run
        after = [user for name in node.output for user in users[name]]
        if any(user.name in wanted or user.name in leads for user in after):
            leads.add(node.name)
    follows: set[str] = set()
    reached: set[str] = set()
    for node in graph.node:
        if reached.intersection(node.input):
            follows.add(node.name)
        if node.name in wanted or node.name in follows:
            reached.update(node.output)
    return wanted | (leads & follows)


def _keeps_channels_apart(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Tell whether a convolution is depthwise: as many groups as it has channels, each seeing one."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return groups > 1 and shape[1] == 1
