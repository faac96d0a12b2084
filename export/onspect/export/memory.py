"""A memory of good parts beside an autoencoder: the memory gives score and error map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper

from onspect.export.scores import MEMORY, SCORES
from onspect.runtime.model.schema import Memory, ModelInfo
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.base_file import parse_base_file
from onspect.runtime.teaching.fill import fill_graph
from onspect.runtime.teaching.pictures import OBJECT_SIDE, choose_working_size
from onspect.training.features import make_base
from onspect.training.to_onnx import serialize

_NOWHERE = Path("base.onnx")  # a name for messages; the base file is in memory only
_OF_AUTOENCODER = ("reconstruction", "latent")


def add_memory(
    graph: bytes,
    info: ModelInfo,
    images: NDArray[np.uint8],
    fingerprints: Sequence[str],
    *,
    mask: NDArray[np.bool_] | None = None,
    progress: Progress | None = None,
) -> tuple[bytes, ModelInfo]:
    """Replace score and error map of an autoencoder's graph by those of a memory of its training images.

    Small images, which show whole objects, are judged by their mean features instead of by places.

    Parameters
    ----------
    graph, info
        The autoencoder's graph, with the outputs score, error_map, reconstruction and latent, and its metadata.
    images, fingerprints
        Training images, uint8 [n, height, width, channels], at least two, and the fingerprints of their files.
    mask
        Bool [height, width], True where parts are inspected; None for everywhere.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    tuple[bytes, ModelInfo]
        The joined graph as bytes of an ONNX file, and its metadata.

    Raises
    ------
    ExportError
        If the two graphs cannot be joined.
    """
    size = (images.shape[1], images.shape[2])
    base = make_base(image_size=size, working_size=choose_working_size([size]))
    parsed = parse_base_file(_NOWHERE, base)
    by_whole = min(size) < OBJECT_SIDE
    filled = fill_graph(
        parsed.graph, images, mask=mask, by_whole=by_whole, seed=info.provenance.seed, progress=progress
    )
    memory: Memory = filled.describe(parsed.info, fingerprints, info.provenance.data)
    score = SCORES[MEMORY].define(max(size), 1.0 if mask is None else float(mask.mean()))
    return _join(graph, filled.graph), replace(info, score=score, memory=memory)


def _join(autoencoder: bytes, memory: bytes) -> bytes:
    """Return one graph with the image as the input of both."""
    first, second = onnx.load_from_string(memory), onnx.load_from_string(autoencoder)
    second = onnx.utils.Extractor(second).extract_model(["image"], list(_OF_AUTOENCODER))
    append_graph(first, second, "autoencoder.")
    opset = max(entry.version for model in (first, second) for entry in model.opset_import)
    del first.opset_import[:]
    first.opset_import.append(helper.make_opsetid("", opset))
    first.ir_version = max(first.ir_version, second.ir_version)
    return serialize(first, "the autoencoder and the memory cannot be joined")


def append_graph(model: onnx.ModelProto, other: onnx.ModelProto, prefix: str) -> None:
    """Append nodes, weights and outputs of another graph, whose values get a prefix.

    Parameters
    ----------
    model
        The model that grows.
    other
        The model with the other graph. Its inputs and outputs keep their names.
    prefix
        Beginning of the names of its other values.
    """
    kept = {"rename_inputs": False, "rename_outputs": False, "rename_value_infos": False}
    graph = compose.add_prefix(other, prefix, **kept).graph
    model.graph.node.extend(graph.node)
    model.graph.initializer.extend(graph.initializer)
    model.graph.output.extend(graph.output)
