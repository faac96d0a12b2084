"""A memory of good parts beside an autoencoder: the memory gives score and error map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper

from onspect.export.scores import MEMORY, SCORES
from onspect.runtime.errors import ExportError
from onspect.runtime.model.schema import Memory, ModelInfo
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.base_file import parse_base_file
from onspect.runtime.teaching.fill import FilledGraph, fill_graph
from onspect.runtime.teaching.pictures import choose_working_size
from onspect.training.features import make_base

_NOWHERE = Path("base.onnx")  # a name for messages; the base file is in memory only
_OF_AUTOENCODER = ("reconstruction", "latent")


@dataclass(frozen=True)
class WithMemory:
    """A graph with autoencoder and memory."""

    graph: bytes
    """The graph as bytes of an ONNX file."""
    info: ModelInfo
    """Metadata of the model file."""
    filled: FilledGraph
    """The graph of the memory alone."""


def add_memory(
    graph: bytes,
    info: ModelInfo,
    images: NDArray[np.uint8],
    fingerprints: Sequence[str],
    *,
    mask: NDArray[np.bool_] | None = None,
    by_whole: bool = False,
    progress: Progress | None = None,
) -> WithMemory:
    """Replace score and error map of an autoencoder's graph by those of a memory of its training images.

    Parameters
    ----------
    graph, info
        The autoencoder's graph, with the outputs score, error_map, reconstruction and latent, and its metadata.
    images, fingerprints
        Training images, uint8 [n, height, width, channels], at least two, and the fingerprints of their files.
    mask
        Bool [height, width], True where parts are inspected; None for everywhere.
    by_whole
        Judge whole images by their mean features, instead of places.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    WithMemory
        The joined graph and its metadata.

    Raises
    ------
    ExportError
        If the two graphs cannot be joined.
    """
    size = (images.shape[1], images.shape[2])
    base = make_base(image_size=size, working_size=choose_working_size([size]))
    parsed = parse_base_file(_NOWHERE, base)
    filled = fill_graph(
        parsed.graph, images, mask=mask, by_whole=by_whole, seed=info.provenance.seed, progress=progress
    )
    memory: Memory = filled.describe(parsed.info, fingerprints, info.provenance.data)
    score = SCORES[MEMORY].define(max(size), 1.0 if mask is None else float(mask.mean()))
    return WithMemory(_join(graph, filled.graph), replace(info, score=score, memory=memory), filled)


def _join(autoencoder: bytes, memory: bytes) -> bytes:
    """Return one graph with the image as the input of both."""
    first, second = onnx.load_from_string(memory), onnx.load_from_string(autoencoder)
    _keep_outputs(second.graph, _OF_AUTOENCODER)
    prefixed = compose.add_prefix(second, "autoencoder.", rename_inputs=False, rename_outputs=False)
    graph = first.graph
    graph.node.extend(prefixed.graph.node)
    graph.initializer.extend(prefixed.graph.initializer)
    graph.output.extend(prefixed.graph.output)
    opset = max(entry.version for model in (first, second) for entry in model.opset_import)
    del first.opset_import[:]
    first.opset_import.append(helper.make_opsetid("", opset))
    first.ir_version = max(first.ir_version, second.ir_version)
    try:
        onnx.checker.check_model(first, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the autoencoder and the memory cannot be joined: {error}") from error
    return bytes(first.SerializeToString())


def _keep_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Drop the other outputs, and the nodes and initializers that only they need."""
    needed = set(names)
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    outputs = [value for value in graph.output if value.name in names]
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.output[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(nodes))
    graph.output.extend(outputs)
    graph.initializer.extend(initializers)
