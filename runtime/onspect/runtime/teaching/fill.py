"""Fill the graph of a base file with a memory of prepared pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ModelFileError
from onspect.runtime.model.schema import Memory
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.base_file import BaseInfo, edit_graph, fold_channels
from onspect.runtime.teaching.extract import COPIES, Extractor, change_images, open_session
from onspect.runtime.teaching.fit import FittedMemory, fit_memory
from onspect.runtime.teaching.graph_values import describe_lesson, fill, inspected_places
from onspect.runtime.teaching.memory import Features, Floats, learn_metric, score_images

_BLUR = 16  # pixels over which the filling of ignored places is smoothed
_MOST_TURNED = 100  # most pictures with which copies are tried
_TRIED = 4  # pictures on which copies are tried
_GAIN = 0.03  # by which copies must lower the scores to be used
_SQUARE = 1.1  # largest ratio of the sides at which images are rotated by any angle
_CHECKED = 2


@dataclass(frozen=True)
class FilledGraph:
    """A graph with a memory."""

    graph: bytes = field(repr=False)
    """The bytes of the graph."""

    fitted: FittedMemory
    """The memory."""

    copies: str
    """Changed copies of the pictures that were taught: ``none``, ``flips`` or ``turns``."""

    def describe(self, base: BaseInfo, fingerprints: Sequence[str], data: str) -> Memory:
        """Return the metadata of the memory.

        Parameters
        ----------
        base
            Metadata of the base file.
        fingerprints
            Fingerprint of each picture.
        data
            Name of the pictures' folder.

        Returns
        -------
        Memory
            The memory with one lesson.
        """
        fitted = self.fitted
        return Memory(
            backbone=base.backbone,
            weights_sha256=base.weights_sha256,
            dimensions=fitted.vectors.shape[1],
            by_whole=fitted.by_whole,
            copies=self.copies,
            lessons=(describe_lesson(fitted, fingerprints, data),),
        )


def fill_graph(
    graph: bytes,
    images: NDArray[np.uint8],
    *,
    keep_aspect: bool = False,
    mask: NDArray[np.bool_] | None = None,
    by_whole: bool = False,
    copies: str = "auto",
    groups: NDArray[np.intp] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FilledGraph:
    """Fit a memory to prepared pictures and put it into the graph of a base file.

    Parameters
    ----------
    graph
        The graph of a base file.
    images
        Prepared pictures.
    keep_aspect
        Whether the graph takes images of any size in multiples of 32 pixels.
    mask
        bool [height, width], True where parts are inspected; None for everywhere.
    by_whole
        Score whole images instead of their places.
    copies
        Changed copies to teach: ``none``, ``flips``, ``turns`` or ``auto``, as in `teach`.
    groups
        Number of the part that each picture shows, int [n]. None: each shows its own part.
    seed
        Seed of all random numbers.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    FilledGraph
        The graph and its memory.

    Raises
    ------
    ModelFileError
        If the graph cannot be used.
    """
    height, width, channels = images[0].shape
    values = fold_channels(graph, channels)
    if mask is not None:
        typical = np.moveaxis(images.mean(axis=0, dtype=np.float32), -1, 0)
        keep = mask.astype(np.float32)
        values["mask.keep"] = keep[None, None]
        values["mask.fill"] = ((1.0 - keep) * _smooth(typical) - 127.5)[None].astype(np.float32)
    prepared = edit_graph(graph, values, input_shape=("H", "W", channels) if keep_aspect else (height, width, channels))
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
    """Choose the changed copies of prepared pictures that are taught too, and fit the memory.

    Parameters
    ----------
    extractor
        Extractor of a graph that takes the pictures.
    images
        Prepared pictures.
    copies
        Changed copies to teach: ``none``, ``flips``, ``turns`` or ``auto``, as in `teach`.
    by_whole
        Score whole images instead of their places.
    mask
        bool [height, width], True where parts are inspected; None for everywhere.
    groups
        Number of the part that each picture shows, int [n]. None: each shows its own part.
    seed
        Seed of all random numbers.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    tuple[str, FittedMemory]
        Name of the changed copies, and the memory.

    Raises
    ------
    ModelFileError
        If the features of a picture are not finite.
    """
    features = extractor.extract(images, progress=progress)
    parts = np.arange(len(images)) if groups is None else groups
    if copies == "auto":
        turns = len(images) <= _MOST_TURNED and mask is None and not by_whole
        copies = _choose_copies(extractor, images, features, parts, seed) if turns else "none"
    features, owners = extractor.add_copies(features, images, copies, progress, f"extracting features of {copies}")
    places = inspected_places(mask, features.shapes[0])
    fitted = fit_memory(
        features, owners, by_whole=by_whole, inspected=places, groups=parts, seed=seed, progress=progress
    )
    return copies, fitted


def _choose_copies(
    extractor: Extractor, images: NDArray[np.uint8], features: Features, groups: NDArray[np.intp], seed: int
) -> str:
    """Return the changed copies that make the pictures look more familiar to each other.

    If copies help, parts come in different orientations. If all parts have the same orientation, a copy of another
    picture is as far away as the picture itself. A rotated part then stays a defect.
    """
    some = np.sort(np.unique(groups, return_index=True)[1])[:_TRIED]  # one picture of each part
    metric = learn_metric(features, len(images), seed=seed)
    tried = features.take(some)
    own, shapes = metric.patches(tried), tried.shapes

    def judge(memory: list[list[Floats]]) -> float:
        """Return the median score of each picture by the others; memory has the vectors of each, of all its copies."""
        scores = []
        for place in range(len(some)):
            others = [vectors for copies in memory[:place] + memory[place + 1 :] for vectors in copies]
            scores.append(score_images([own[place]], np.concatenate(others), [shapes[place]]))
        return float(np.median(np.concatenate(scores)))

    memory = [[vectors] for vectors in own]
    chosen, best = "none", judge(memory)
    is_square = all(1 / _SQUARE <= image.shape[0] / image.shape[1] <= _SQUARE for image in images)
    for name in ("flips", "turns") if is_square else ("flips",):
        changes = COPIES[name]
        changed = metric.patches(extractor.extract(change_images(images[some], changes)))
        score = judge([[*vectors, *changed[place :: len(some)]] for place, vectors in enumerate(memory)])
        if score > (1.0 - _GAIN) * best:
            break
        chosen, best = name, score
    return chosen


def _check_graph(content: bytes, images: NDArray[np.uint8]) -> None:
    """Raise ModelFileError if the finished graph gives a score or an error map that is not finite."""
    session = open_session(content)
    for image in images[:_CHECKED]:
        score, error_map = session.run(["score", "error_map"], {"image": image[None]})
        if not (np.isfinite(score).all() and np.isfinite(error_map).all()):
            raise ModelFileError(
                f"the taught model scores {float(score[0])} on one of its own pictures; the base file does not work "
                f"with these pictures; nothing was written"
            )
