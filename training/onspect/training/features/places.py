"""Features of images as an autoencoder takes them: decorrelated components of each place, standard deviation 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError
from onspect.runtime.teaching.base_file import edit_graph, fold_channels, split_metadata
from onspect.runtime.teaching.extract import Extractor, open_session
from onspect.runtime.teaching.graph_values import STRIDE
from onspect.runtime.teaching.memory import Features, Projection, learn_places, raw_places

COMPONENTS = 128
"""Number of principal components of a place's features; fewer if good parts vary in fewer dimensions."""

PLACES = "places"
"""Output of the graph of the features: float32 [N, C, h, w]."""

_PROJECTED = "map.projected"  # its name in a base file
_LEARNT_PLACES = 40_000  # places from which the components are computed
_LEAST_SPREAD = 1e-3  # least spread of a component, relative to the strongest; less is rounding


@dataclass(frozen=True)
class PlaceExtractor:
    """Computes the components of the features of each place of images."""

    session: onnxruntime.InferenceSession
    """The opened graph."""
    graph: bytes
    """The graph as bytes of an ONNX file."""

    @classmethod
    def open(cls, graph: bytes) -> PlaceExtractor:
        """Open a graph of `make_extractor`.

        Parameters
        ----------
        graph
            Bytes of the ONNX file.

        Returns
        -------
        PlaceExtractor
            The opened graph.

        Raises
        ------
        ModelFileError
            If onnxruntime cannot run it.
        """
        return cls(open_session(graph), graph)

    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the components of images. Each image runs alone, so the result does not depend on the other images.

        Parameters
        ----------
        images
            uint8 [n, height, width, channels].

        Returns
        -------
        NDArray[np.float32]
            Components, [n, C, h, w].
        """
        return np.concatenate([self.session.run([PLACES], {"image": image[None]})[0] for image in images])


def make_extractor(base: bytes, images: NDArray[np.uint8], *, seed: int) -> bytes:
    """Return the ONNX graph from an image to the components of its features, learned from good images.

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
    count, height, width, channels = images.shape
    graph, _ = split_metadata(Path("base"), base)
    graph = edit_graph(graph, fold_channels(graph, channels), input_shape=(height, width, channels))
    most = max(1, _LEARNT_PLACES // ((height // STRIDE) * (width // STRIDE)))
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:most])
    projection = _learn(Extractor.open(graph).extract(images[drawn]), seed)
    values = {"map.project": projection.project[:, :, None, None], "map.offset": projection.offset}
    model = onnx.load_from_string(edit_graph(graph, values, outputs=[_PROJECTED]))
    part = onnx.utils.Extractor(model).extract_model(["image"], [_PROJECTED])
    for node in part.graph.node:
        node.output[:] = [PLACES if name == _PROJECTED else name for name in node.output]
    part.graph.output[0].name = PLACES
    onnx.checker.check_model(part)
    return bytes(part.SerializeToString())


def flatten_places(features: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return features as images of one place each, which the trainer takes.

    Parameters
    ----------
    features
        float32 [n, C, h, w].

    Returns
    -------
    NDArray[np.float16]
        Places, [n * h * w, 1, 1, C].
    """
    rows = features.transpose(0, 2, 3, 1).reshape(-1, 1, 1, features.shape[1])
    return np.ascontiguousarray(rows, np.float16)


def _learn(features: Features, seed: int) -> Projection:
    """Return the strongest principal components, each with standard deviation 1."""
    found = learn_places(features, COMPONENTS, 0.0, seed=seed)
    spread = np.concatenate([found(block) for block in raw_places(features)]).std(axis=0, dtype=np.float64)
    kept = spread > max(_LEAST_SPREAD * spread.max(), 1e-6)
    if not kept.any():
        raise DatasetError(
            "the features of all places in the images are equal, so there is nothing to learn; give images of parts"
        )
    scale = (1.0 / spread[kept]).astype(np.float32)
    return Projection(found.project[kept] * scale[:, None], found.offset[kept] * scale)
