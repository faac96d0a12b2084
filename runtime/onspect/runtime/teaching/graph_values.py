"""The memory in the graph of a model file: write, read and extend its initializers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ModelFileError
from onspect.runtime.fingerprints import pack_fingerprints
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.schema import Lesson
from onspect.runtime.teaching.base_file import read_initializers
from onspect.runtime.teaching.fit import FittedMemory
from onspect.runtime.teaching.memory import (
    MAP_VECTORS,
    WHOLE_NEIGHBOURS,
    Features,
    Floats,
    Metric,
    Projection,
    count_highest,
    nearest_distances,
    score_images,
    score_whole,
    whole_vectors,
)

STRIDE = 16
"""Distance of two places in pixels of the working size."""

MOST_ADDED = 2000
"""Most vectors that one addition adds to the memory of places."""

MOST_VECTORS = 16_000

Arrays = dict[str, NDArray[Any]]
Vectors = NDArray[np.float16]


def inspected_places(mask: NDArray[np.bool_] | None, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return the places of which at least half is inspected.

    Parameters
    ----------
    mask
        bool [height, width] at the working size, True where parts are inspected; None for everywhere.
    shape
        Rows and columns of places.

    Returns
    -------
    NDArray[np.bool_] or None
        bool [rows, columns]; None without a mask.
    """
    if mask is None:
        return None
    shares = cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    found: NDArray[np.bool_] = shares >= min(0.5, float(shares.max()))
    return found


def fill(fitted: FittedMemory, mask: NDArray[np.bool_] | None) -> Arrays:
    """Return the initializers of the graph for a fitted memory.

    Parameters
    ----------
    fitted
        The memory.
    mask
        bool [height, width] at the working size, True where parts are inspected; None for everywhere.

    Returns
    -------
    Arrays
        The arrays by name.
    """
    metric = fitted.metric
    places = inspected_places(mask, fitted.shape)
    weights = None if places is None else places.astype(np.float32)
    values: Arrays = {
        "memory.count": np.array([count_highest(fitted.shape, weights)], np.int64),
        "memory.weight": np.array(0.0 if fitted.by_whole else 1.0, np.float32),
        "whole.weight": np.array(1.0 if fitted.by_whole else 0.0, np.float32),
        "map.project": metric.place.project[:, :, None, None],
        "map.offset": metric.place.offset,
        "memory.project": metric.patch.project[:, :, None, None],
        "memory.offset": metric.patch.offset,
    }
    for place, stride in enumerate((16, 32)):
        values[f"memory.gain{stride}"] = metric.gain[place][None, :, None, None]
        values[f"memory.shift{stride}"] = metric.shift[place][None, :, None, None]
        values[f"memory.floor{stride}"] = np.array(metric.floor, np.float32)
    if mask is not None and weights is not None:
        values["memory.inspected"] = weights[None, None]
        values["map.inspected"] = mask.astype(np.float32)[None]
    return values | Stored(fitted.vectors, fitted.map_vectors, fitted.whole).arrays()


def read_metric(graph: bytes) -> Metric:
    """Read the metric in the graph of a model file.

    Parameters
    ----------
    graph
        The bytes of the graph.

    Returns
    -------
    Metric
        The metric.

    Raises
    ------
    KeyError
        If the graph has no memory.
    """
    names = [f"memory.{kind}{stride}" for kind in ("gain", "shift") for stride in (16, 32)]
    names += ["memory.floor16"]
    names += [f"{part}.{kind}" for part in ("memory", "map") for kind in ("project", "offset")]
    found = read_initializers(graph, names)
    gains = (found["memory.gain16"].ravel(), found["memory.gain32"].ravel())
    shifts = (found["memory.shift16"].ravel(), found["memory.shift32"].ravel())
    patch, place = (
        Projection(found[f"{part}.project"][:, :, 0, 0], found[f"{part}.offset"]) for part in ("memory", "map")
    )
    return Metric(gains, shifts, float(found["memory.floor16"]), patch, place)


@dataclass(frozen=True)
class Stored:
    """The vectors in a model file."""

    vectors: Vectors
    """Vectors of places for the score, float16 [m, dimensions]."""

    map_vectors: Vectors
    """Vectors of places for the error map, float16 [m, dimensions]."""

    whole: Vectors
    """Mean features of whole images, float16 [n, C]."""

    @classmethod
    def read(cls, graph: bytes) -> Stored:
        """Read the vectors in the graph of a model file.

        Parameters
        ----------
        graph
            The bytes of the graph.

        Returns
        -------
        Stored
            The vectors.

        Raises
        ------
        KeyError
            If the graph has no memory.
        """
        return cls(*read_initializers(graph, ("memory.vectors", "map.vectors", "whole.vectors")).values())

    def arrays(self) -> Arrays:
        """Return the vectors as initializers of the graph.

        Returns
        -------
        Arrays
            The arrays by name.
        """
        found: Arrays = {}
        for name, vectors in (("memory", self.vectors), ("map", self.map_vectors), ("whole", self.whole)):
            found[f"{name}.vectors"] = vectors
            found[f"{name}.squares"] = np.square(vectors.astype(np.float32)).sum(axis=1)
        found["whole.count"] = np.array([min(WHOLE_NEIGHBOURS, len(self.whole))], np.int64)
        return found

    def grow(
        self,
        graph: bytes,
        features: Features,
        owners: NDArray[np.intp],
        groups: NDArray[np.intp],
        *,
        by_whole: bool,
        path: Path,
    ) -> tuple[Stored, Floats]:
        """Add vectors of new pictures, and score each new picture without the pictures of its part.

        Parameters
        ----------
        graph
            The graph of the model file with these vectors.
        features
            Features of the new pictures and of their changed copies.
        owners
            Number of the picture of each of the features, int [n]. The first of a number is the picture
            itself.
        groups
            Number of the part that each new picture shows, int [pictures].
        by_whole
            Whether the score is the distance of the whole image.
        path
            The file, for messages.

        Returns
        -------
        tuple[Stored, Floats]
            All vectors, and the score of each new picture, float32 [pictures].

        Raises
        ------
        ModelFileError
            If the memory is full.
        """
        metric = read_metric(graph)
        inspected = read_initializers(graph, ["memory.inspected"])["memory.inspected"]
        count = int(read_initializers(graph, ["memory.count"])["memory.count"][0])
        shapes = features.shapes
        kept = [np.broadcast_to(inspected[0, 0] > 0, shape).ravel() for shape in shapes]
        weights = None if inspected.size == 1 else inspected[0, 0].astype(np.float32)
        own = np.unique(owners, return_index=True)[1]
        places = np.repeat(owners, [int(some.sum()) for some in kept])
        patches = metric.patches(features)
        flat, flat_marks = (
            np.concatenate([one[some] for one, some in zip(vectors, kept, strict=True)])
            for vectors in (patches, metric.places(features))
        )
        whole = whole_vectors(features).astype(np.float16)
        chosen = _farthest(flat, self.vectors, MOST_ADDED)
        if len(self.vectors) + len(chosen) > MOST_VECTORS:
            raise ModelFileError(
                f"the memory of {str(path)!r} is full ({len(self.vectors)} vectors); teach a new file from all the "
                "pictures"
            )
        added = flat[chosen].astype(np.float16)
        scores = []
        for number, place in enumerate(own):
            other = groups != groups[number]
            if by_whole:
                others = np.concatenate([self.whole, whole[other[owners]]])
                scores.append(score_whole(whole[[place]], others))
                continue
            memory = np.concatenate([self.vectors, added[other[places[chosen]]]]).astype(np.float32)
            scores.append(score_images([patches[place]], memory, [shapes[place]], weights, count=count))
        grown = Stored(
            np.concatenate([self.vectors, added]),
            np.concatenate(
                [self.map_vectors, flat_marks[_farthest(flat_marks, self.map_vectors, MAP_VECTORS // 4)]]
            ).astype(np.float16),
            np.concatenate([self.whole, whole]) if by_whole else self.whole,
        )
        return grown, np.concatenate(scores)


def describe_lesson(
    memory: FittedMemory | Stored, fingerprints: Sequence[str], data: str, *, stamps: int = 0, looks: int = 0
) -> Lesson:
    """Return the record of pictures that were taught now.

    Parameters
    ----------
    memory
        The memory after it.
    fingerprints
        Fingerprints of the pictures.
    data
        Name of their folder.
    stamps, looks
        Number of earlier thresholds, and of hashes of pictures, before it.

    Returns
    -------
    Lesson
        The record for the file.
    """
    return Lesson(
        time=now(),
        data=data,
        pictures=len(fingerprints),
        fingerprints=pack_fingerprints(fingerprints),
        vectors=len(memory.vectors),
        map_vectors=len(memory.map_vectors),
        whole_vectors=len(memory.whole),
        stamps=stamps,
        looks=looks,
    )


def _farthest(vectors: Floats, memory: Vectors, most: int) -> NDArray[np.intp]:
    """Return up to `most` vectors, each the farthest from the memory and from those before it.

    Vectors that are in the memory already are skipped.
    """
    nearest = nearest_distances(vectors, memory.astype(np.float32))
    least = 1e-3 * float(np.median(np.linalg.norm(vectors, axis=1)))
    chosen: list[int] = []
    while len(chosen) < min(most, len(vectors)):
        place = int(nearest.argmax())
        if nearest[place] <= least:
            break
        chosen.append(place)
        np.minimum(nearest, np.linalg.norm(vectors - vectors[place], axis=1), out=nearest)
    return np.array(chosen, np.intp)
