"""The layers of an ONNX graph that can have a lower precision, found in the graph of any network."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import onnx

_SCORE = ("smooth.", "measure.")  # prefixes of the weights that belong to the score
_ENLARGING = (".down", ".across")  # suffixes of matrices that resize an output, in files of 0.1.0
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A layer with learned weights."""

    name: str
    """Name of its weights, otherwise of its node."""
    node: str
    """Name of its node."""
    kind: str
    """Its ONNX operator."""
    weights: int
    """Number of weights."""


def find_layers(graph: onnx.GraphProto) -> list[Layer]:
    """Return the layers that mix channels; they have nearly all weights and work.

    Nodes that smooth or resize maps, matrices of fitted scores and convolutions from one channel to one are left out.
    They belong to the score, which stays in float32.

    Parameters
    ----------
    graph
        The graph.

    Returns
    -------
    list[Layer]
        Layers in the order of the graph.
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
    """Return the nodes of layers, and all nodes on a path from one of them to another.

    Scaling before the first layer, and error map and score after the last one, are left out.

    Parameters
    ----------
    graph
        The graph.
    layers
        The layers.

    Returns
    -------
    set[str]
        Names of the nodes.
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
    """Return whether a convolution is depthwise: as many groups as channels."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return groups > 1 and shape[1] == 1
