"""Fit a memory to the features of good pictures, and judge each of them by a memory without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.inspection.batch import in_order
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.memory import (
    MAP_POOL,
    MAP_VECTORS,
    PATCH_POOL,
    PATCH_VECTORS,
    Coreset,
    Features,
    Floats,
    Metric,
    count_highest,
    learn_metric,
    nearest_distances,
    score_images,
    score_whole,
    whole_vectors,
)

FOLDS = 10
"""Number of groups of pictures that are left out together; with up to 20 pictures each is left out alone."""

_ALONE = 20
_MOST_WHOLE = 6000  # most pictures in the memory of whole images
_FEW_PLACES = 5000  # of all pictures; below this each is also judged by a metric without it (`_judge_apart`)
_MOST_APART = 1.5  # times the usual ratio; largest increase of a score by a metric without the picture
_SMALLEST = 1000  # vectors below which a smaller memory saves nothing
_GAIN = 0.01  # by which a memory of twice the size must lower the scores of held-out pictures
_LEAST = 1e-12
_MAP_SHARE = 0.999  # of the places of good parts, below the cut of the error map


@dataclass(frozen=True)
class FittedMemory:
    """A memory for the graph, and the scores of the good pictures."""

    metric: Metric
    """How features become vectors."""

    vectors: NDArray[np.float16] = field(repr=False)
    """Vectors of the score's memory, float16 [m, dimensions]."""

    map_vectors: NDArray[np.float16] = field(repr=False)
    """Vectors of the error map's memory, float16 [m, dimensions]."""

    whole: NDArray[np.float16] = field(repr=False)
    """Mean features of whole images, float16 [n, C]."""

    by_whole: bool
    """Whether the score is the distance of the whole image."""

    scores: Floats = field(repr=False)
    """Score of each picture by a memory without it, float32 [n]."""

    map_cut: float
    """Value of the error map that one in a thousand places of good parts reaches."""

    shape: tuple[int, int]
    """Rows and columns of places, of the smallest picture."""


def fit_memory(
    features: Features,
    owners: NDArray[np.intp],
    *,
    by_whole: bool = False,
    inspected: NDArray[np.bool_] | None = None,
    groups: NDArray[np.intp] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FittedMemory:
    """Fit a memory to features of good pictures.

    Parameters
    ----------
    features
        Features of the pictures and of their changed copies.
    owners
        Number of the picture of each of the features, int [n]. The first of a number is the picture itself.
    by_whole
        Score whole images by their mean features instead of their places.
    inspected
        Places that count, bool [h, w] at a sixteenth of the working size; None for all.
    groups
        Number of the part that each picture shows, int [pictures]. The pictures of one part are left out
        together. None: each shows its own part.
    seed
        Seed of all random numbers.
    progress
        Wraps the folds, for a progress bar.

    Returns
    -------
    FittedMemory
        The memory, with the score of each picture by the others.
    """
    own = np.unique(owners, return_index=True)[1]
    metric = learn_metric(features, len(own), seed=seed)
    shapes = features.shapes
    shape = min(shapes, key=math.prod)
    kept = None if inspected is None else inspected.ravel()
    weights = None if inspected is None else inspected.astype(np.float32)
    highest = count_highest(shape, weights)
    patches, marks = metric.patches(features), metric.places(features)
    flat, flat_marks = _flatten(patches, kept), _flatten(marks, kept)
    places = np.repeat(owners, [math.prod(one) if kept is None else int(kept.sum()) for one in shapes])
    coreset = Coreset(flat, places, PATCH_POOL, seed=seed)
    mark_coreset = Coreset(flat_marks, places, MAP_POOL, seed=seed)
    folds = _split(np.arange(len(own)) if groups is None else groups, seed)
    whole = whole_vectors(features).astype(np.float16)
    few = len(own) * math.prod(shape if kept is None else (int(kept.sum()),)) < _FEW_PLACES

    def score(held: NDArray[np.intp], memory: Floats) -> Floats:
        some, sides = [patches[place] for place in held], [shapes[place] for place in held]
        return score_images(some, memory, sides, weights, count=highest)

    def score_with(order: NDArray[np.intp]) -> float:
        """Return the median score of the first fold's pictures by a memory without them."""
        return float(np.median(score(own[folds[0]], _rounded(flat[order]))))

    count = (
        _SMALLEST if by_whole else _choose_count(coreset.choose(PATCH_VECTORS, without=folds[0]).indices, score_with)
    )
    chosen, chosen_marks = coreset.choose(count), mark_coreset.choose(MAP_VECTORS)

    def judge(fold: NDArray[np.intp]) -> tuple[Floats, ...]:
        held = own[fold]
        if not few:
            return judge_together(fold, held)
        apart = _judge_apart(features, owners, fold, held, kept, weights, by_whole=by_whole, highest=highest, seed=seed)
        return *judge_together(fold, held), *apart

    def judge_together(fold: NDArray[np.intp], held: NDArray[np.intp]) -> tuple[Floats, Floats]:
        memory = flat_marks[mark_coreset.choose(MAP_VECTORS, without=fold, after=chosen_marks).indices]
        maps = nearest_distances(_flatten([marks[place] for place in held], kept), _rounded(memory))
        if by_whole:
            return score_whole(whole[held], whole[~np.isin(owners, fold)]), maps
        memory = flat[coreset.choose(count, without=fold, after=chosen).indices]
        return score(held, _rounded(memory)), maps

    work: Iterable[tuple[Floats, ...]] = in_order(judge, folds)
    if progress is not None:
        work = progress(work, len(folds), "judging each picture by the others")
    found, maps, *apart = (np.concatenate(parts) for parts in zip(*work, strict=True))
    if apart:
        found, maps = limit_apart(apart[0], found), limit_apart(apart[1], maps)
    scores = np.empty(len(own), np.float32)
    scores[np.concatenate(folds)] = found
    cut = float(np.quantile(maps, _MAP_SHARE))
    return FittedMemory(
        metric,
        flat[chosen.indices].astype(np.float16),
        flat_marks[chosen_marks.indices].astype(np.float16),
        whole[:_MOST_WHOLE] if by_whole else whole[:2],
        by_whole,
        scores,
        cut,
        shape,
    )


def limit_apart(apart: Floats, together: Floats) -> Floats:
    """Limit values by metrics without the picture to a multiple of the values by the metric of all pictures.

    A metric of few other pictures can stretch a direction in which only the left-out picture varies. Its value then
    does not describe parts that the metric of all pictures judges. A threshold above it would let every defect
    pass.

    Parameters
    ----------
    apart
        Scores or map values by a metric without the picture, float32 of any shape.
    together
        Values of the same pictures by the metric of all pictures, float32 of the same shape.

    Returns
    -------
    Floats
        The first values, at most 1.5 times the ratio of the medians times the second values.
    """
    usual = float(np.median(apart)) / max(float(np.median(together)), _LEAST)
    limited: Floats = np.minimum(apart, np.float32(_MOST_APART * usual) * together)
    return limited


def _judge_apart(
    features: Features,
    owners: NDArray[np.intp],
    fold: NDArray[np.intp],
    held: NDArray[np.intp],
    kept: NDArray[np.bool_] | None,
    weights: Floats | None,
    *,
    by_whole: bool,
    highest: int,
    seed: int,
) -> tuple[Floats, Floats]:
    """Return scores and map values of left-out pictures by a metric and a memory that were fitted without them.

    With few places each picture affects the metric that judges it.
    """
    rest = features.take(np.flatnonzero(~np.isin(owners, fold)))
    tested = features.take(held)
    metric = learn_metric(rest, len(np.unique(owners)), seed=seed)
    marks = _flatten(metric.places(tested), kept)
    maps = nearest_distances(marks, _thin(_flatten(metric.places(rest), kept), MAP_VECTORS, seed))
    if by_whole:
        vectors = [whole_vectors(some).astype(np.float16) for some in (tested, rest)]
        return score_whole(*vectors), maps
    memory = _thin(_flatten(metric.patches(rest), kept), PATCH_VECTORS, seed)
    return score_images(metric.patches(tested), memory, tested.shapes, weights, count=highest), maps


def _thin(vectors: Floats, count: int, seed: int) -> Floats:
    coreset = Coreset(vectors, np.zeros(len(vectors), np.intp), PATCH_POOL, seed=seed)
    return _rounded(vectors[coreset.choose(count).indices])


def _flatten(vectors: Sequence[Floats], kept: NDArray[np.bool_] | None) -> Floats:
    """Return the vectors of all images in one array, [places, dimensions]; only those of inspected places."""
    return np.concatenate(vectors if kept is None else [one[kept] for one in vectors])


def _rounded(memory: Floats) -> Floats:
    """Return vectors with the precision of the file, float16."""
    return memory.astype(np.float16).astype(np.float32)


def _split(groups: NDArray[np.intp], seed: int) -> list[NDArray[np.intp]]:
    """Return the folds: places of pictures that are left out together. The pictures of a part are in one fold."""
    parts = int(groups.max()) + 1
    order = np.random.default_rng(seed).permutation(parts)
    folds = np.array_split(order, parts if parts <= _ALONE else FOLDS)
    return [np.flatnonzero(np.isin(groups, fold)) for fold in folds]


def _choose_count(order: NDArray[np.intp], score_with: Callable[[NDArray[np.intp]], float]) -> int:
    """Return the number of vectors of the memory. It grows as long as this lowers the scores of held-out good
    pictures.

    order is the largest memory without these pictures, and score_with their median score by a part of it.
    """
    if len(order) < PATCH_VECTORS:
        return PATCH_VECTORS  # these are all
    count, best = PATCH_VECTORS, 0.0
    while count >= _SMALLEST:
        found = score_with(order[:count])
        best = best or found
        if found > best * (1.0 + _GAIN):
            return count * 2
        count //= 2
    return count * 2
