"""Filling a base file's graph with a memory of prepared pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ModelFileError
from onspect.runtime.fingerprints import pack_fingerprints
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.schema import Lesson, Memory
from onspect.runtime.teaching.base_file import BaseInfo, edit_graph, fold_channels
from onspect.runtime.teaching.extract import COPIES, Extractor, change_images, open_session
from onspect.runtime.teaching.fit import FittedMemory, Progress, fit_memory
from onspect.runtime.teaching.graph_values import fill, inspected_places
from onspect.runtime.teaching.memory import Features, learn_metric, nearest_distances, score_distances

_BLUR = 16  # pixels of the working size over which what is painted over is smoothed
_MOST_TURNED = 100  # pictures up to which it is tried whether parts come turned
_TRIED = 4  # pictures on which that is tried
_GAIN = 0.03  # by which copies must lower the scores of pictures judged by the others to be kept
_SQUARE = 1.1  # ratio of the sides up to which an image can be turned by any angle
_CHECKED = 2


@dataclass(frozen=True)
class FilledGraph:
    """A graph with a memory: its bytes, the memory, and which changed copies of the pictures it was taught."""

    graph: bytes = field(repr=False)
    fitted: FittedMemory
    copies: str

    def describe(self, base: BaseInfo, fingerprints: Sequence[str], data: str) -> Memory:
        """Return what a model file says of the memory; data is the name of the pictures' folder."""
        fitted = self.fitted
        lesson = Lesson(
            time=now(),
            data=data,
            pictures=len(fitted.scores),
            fingerprints=pack_fingerprints(fingerprints),
            vectors=len(fitted.vectors),
            map_vectors=len(fitted.map_vectors),
            whole_vectors=len(fitted.whole),
            stamps=0,
        )
        return Memory(
            backbone=base.backbone,
            weights_sha256=base.weights_sha256,
            dimensions=fitted.vectors.shape[1],
            by_whole=fitted.by_whole,
            copies=self.copies,
            lessons=(lesson,),
        )


def fill_graph(
    graph: bytes,
    images: NDArray[np.uint8],
    *,
    mask: NDArray[np.bool_] | None = None,
    by_whole: bool = False,
    copies: str = "auto",
    groups: NDArray[np.intp] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FilledGraph:
    """Fit a memory to prepared pictures and put it into a base file's graph.

    Parameters
    ----------
    graph
        Of a base file.
    images
        Uint8 [n, height, width, channels].
    mask
        Bool [height, width], True where parts are inspected; None for everywhere.
    groups
        Which part each picture shows, [n]; None: each its own.
    by_whole, copies, seed, progress
        As in `teach`.

    Raises
    ------
    ModelFileError
        If the graph cannot be used.
    """
    values = fold_channels(graph, images.shape[3])
    if mask is not None:
        typical = np.moveaxis(images.mean(axis=0, dtype=np.float32), -1, 0)
        keep = mask.astype(np.float32)
        values["mask.keep"] = keep[None, None]
        values["mask.fill"] = ((1.0 - keep) * _smooth(typical) - 127.5)[None].astype(np.float32)
    height, width, channels = images.shape[1:]
    prepared = edit_graph(graph, values, input_shape=(height, width, channels))
    extractor = Extractor.open(prepared)
    copies, fitted = fit_images(
        extractor,
        images,
        copies=copies,
        by_whole=by_whole,
        mask=mask,
        groups=groups,
        seed=seed,
        progress=progress,
    )
    content = edit_graph(prepared, fill(fitted, mask))
    del extractor, prepared  # before another session opens: the device has little memory
    _check_graph(content, images)
    return FilledGraph(content, fitted, copies)


def _smooth(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([cv2.GaussianBlur(plane, (0, 0), _BLUR) for plane in planes]).astype(np.float32)


def fit_images(
    extractor: Extractor,
    images: NDArray[np.uint8],
    *,
    copies: str = "auto",
    by_whole: bool = False,
    mask: NDArray[np.bool_] | None = None,
    groups: NDArray[np.intp] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[str, FittedMemory]:
    """Return which changed copies are taught as well, and the memory; arguments are as in `fill_graph`."""
    features = extractor.extract(images, progress=progress)
    parts = np.arange(len(images)) if groups is None else groups
    if copies == "auto":
        turns = len(images) <= _MOST_TURNED and mask is None and not by_whole
        copies = _choose_copies(extractor, images, features, parts, seed) if turns else "none"
    changes = COPIES[copies]
    if changes:
        changed = change_images(images, changes)
        label = f"extracting features of {copies}"
        features = Features.join([features, extractor.extract(changed, progress=progress, label=label)])
    owners = np.tile(np.arange(len(images)), 1 + len(changes))
    places = inspected_places(mask, features.middle.shape[2:])
    fitted = fit_memory(
        features, owners, by_whole=by_whole, inspected=places, groups=parts, seed=seed, progress=progress
    )
    return copies, fitted


def _choose_copies(
    extractor: Extractor, images: NDArray[np.uint8], features: Features, groups: NDArray[np.intp], seed: int
) -> str:
    """Return which changed copies make the pictures look more familiar to each other: then parts come turned.

    Where parts always lie alike, a copy of another picture is no nearer than the picture itself, and a part that is
    turned stays a defect.
    """
    some = np.sort(np.unique(groups, return_index=True)[1])[:_TRIED]  # one picture of each part
    metric = learn_metric(features, len(images), seed=seed)
    own = metric.patches(features.take(some))
    shape = features.middle.shape[2:]

    def judge(memory: NDArray[np.float32]) -> float:
        """Return the median score of each picture by the others; memory is [copies, pictures, places, dimensions]."""
        scores = [
            score_distances(nearest_distances(own[[place]], _flat(np.delete(memory, place, axis=1))), shape)
            for place in range(len(some))
        ]
        return float(np.median(np.concatenate(scores)))

    memory = own[None]
    chosen, best = "none", judge(memory)
    sides = images.shape[1] / images.shape[2]
    for name in ("flips", "turns") if 1 / _SQUARE <= sides <= _SQUARE else ("flips",):
        changed = metric.patches(extractor.extract(change_images(images[some], COPIES[name])))
        score = judge(np.concatenate([memory, changed.reshape(-1, *own.shape)]))
        if score > (1.0 - _GAIN) * best:
            break
        chosen, best = name, score
    return chosen


def _flat(memory: NDArray[np.float32]) -> NDArray[np.float32]:
    return memory.reshape(-1, memory.shape[-1])


def _check_graph(content: bytes, images: NDArray[np.uint8]) -> None:
    """Raise ModelFileError where the finished graph does not score the pictures as teaching does."""
    session = open_session(content)
    for image in images[:_CHECKED]:
        score, error_map = session.run(["score", "error_map"], {"image": image[None]})
        if not (np.isfinite(score).all() and np.isfinite(error_map).all()):
            raise ModelFileError(
                f"the taught model scores {float(score[0])} on one of its own pictures; the base file does not work "
                f"with these pictures; nothing was written"
            )
