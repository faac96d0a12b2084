"""A memory of good parts. It is fitted to features of good pictures with numpy, and the model's graph searches it.

The score follows PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", 2022). It is the
distance of each place of an image to the nearest place of a good part, over a coreset of these places. docs/memory.md
describes the differences and the effect of each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MANY = 200
"""Number of pictures from which `FLOOR` and `PATCH_DIMENSIONS` have their second value."""

FLOOR = (1.0, 0.5)
"""Added to the length of a place's features before they are divided by it. Short features, which are mostly noise, stay
short. With few pictures the length itself carries more information than with many."""

PATCH_DIMENSIONS = (128, 96)
PATCH_WHITENING = 0.75
MAP_DIMENSIONS = 128
MAP_WHITENING = 0.5
"""Number of principal components, and the share of their spread that is removed (0: none, 1: equal spread)."""

PATCH_VECTORS = 8000
MAP_VECTORS = 1000
"""Most vectors in the memory of the score and of the error map."""

PATCH_POOL = 80_000
MAP_POOL = 20_000
"""Most places that the coreset is chosen from."""

HIGHEST = 8
"""Places whose mean distance is the score; fewer in small images."""

WHOLE_WEIGHTS = {16: 0.7, 32: 1.0}
"""Lengths of the mean features of a whole image, by the stride of their stage."""

WHOLE_NEIGHBOURS = 5
"""Nearest whole images whose mean distance is the score; fewer if fewer were taught."""

_COVERED = 10_000  # places that the principal components are computed from
_SKETCH = 32  # dimensions of the random projection in which the coreset is chosen
_CHUNK = 256  # rows of a product with a whole memory, which is large
_LEAST = 1e-6
_PLACES_A_COMPONENT = 16  # fewer places give unreliable components, and whitening amplifies them
_FEWEST_COMPONENTS = 8
_LEAST_SHARE = 1e-3  # of the mean variance: a component with little variance must not dominate
_LEAST_SPREAD = 0.02  # of a channel, relative to its stage: one with little variance must not dominate
_PLACES_EACH = 32  # places of an image for each place of its score


@dataclass(frozen=True)
class Features:
    """Features of images, one array for each image, in float16 to save memory. Images may have different sizes."""

    fine: Sequence[NDArray[np.float16]]
    """[C, h, w], at a stride of 8 pixels, averaged over 2 x 2 places."""

    middle: Sequence[NDArray[np.float16]]
    """[C, h, w], at a stride of 16 pixels."""

    coarse: Sequence[NDArray[np.float16]]
    """[C, h / 2, w / 2], at a stride of 32 pixels."""

    def __len__(self) -> int:
        return len(self.middle)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of places of each image, h and w."""
        return [(stage.shape[1], stage.shape[2]) for stage in self.middle]

    def take(self, places: NDArray[np.intp]) -> Features:
        """Return the features of some of the images.

        Parameters
        ----------
        places
            Positions of the images, int [m].

        Returns
        -------
        Features
            The features of these images, in the order of places.
        """
        fine, middle, coarse = ([stage[place] for place in places] for stage in (self.fine, self.middle, self.coarse))
        return Features(fine, middle, coarse)

    @staticmethod
    def join(parts: Sequence[Features]) -> Features:
        """Join the features of several batches of images.

        Parameters
        ----------
        parts
            The features of each batch.

        Returns
        -------
        Features
            The features of all images, in order.
        """
        fine, middle, coarse = (
            [image for stage in stages for image in stage]
            for stages in zip(*(vars(part).values() for part in parts), strict=True)
        )
        return Features(fine, middle, coarse)


@dataclass(frozen=True)
class Projection:
    """Principal components: y = project @ x + offset."""

    project: Floats
    """float32 [dimensions, C]."""

    offset: Floats
    """float32 [dimensions]."""

    def __call__(self, vectors: Floats) -> Floats:
        """Return vectors [n, C] as components, [n, dimensions]."""
        found: Floats = vectors @ self.project.T + self.offset
        return found


@dataclass(frozen=True)
class Metric:
    """How features become comparable vectors. It is learned from good pictures and then fixed."""

    gain: tuple[Floats, Floats]
    """Gain of each channel of the middle and the coarse stage, float32 [C] each. A channel x becomes gain * x + shift.
    Then its mean is 0, and all channels of a stage have the same spread."""

    shift: tuple[Floats, Floats]
    """Shift of each channel of the two stages, float32 [C] each."""

    floor: float
    """One of the values of `FLOOR`."""

    patch: Projection
    """Projection for the score."""

    place: Projection
    """Projection for the error map."""

    def patches(self, features: Features) -> list[Floats]:
        """Return the vectors for the score's memory.

        Parameters
        ----------
        features
            Features of images.

        Returns
        -------
        list[Floats]
            float32 [h * w, dimensions] of each image.
        """
        return [self.patch(block) for block in self.raw_patches(features)]

    def raw_patches(self, features: Features) -> Iterator[Floats]:
        """Yield the pooled and normalized features of each image before the projection.

        Parameters
        ----------
        features
            Features of n images.

        Returns
        -------
        Iterator[Floats]
            float32 [h * w, C] for each image.
        """
        for middle, coarse in zip(features.middle, features.coarse, strict=True):
            parts = []
            for stage, gain, shift in zip((middle, coarse), self.gain, self.shift, strict=True):
                scaled = stage.astype(np.float32) * gain[:, None, None] + shift[:, None, None]
                pooled = _pool(scaled)
                parts.append(pooled / (np.linalg.norm(pooled, axis=0, keepdims=True) + self.floor))
            yield _flatten(np.concatenate([parts[0], _double(parts[1])]))

    def places(self, features: Features) -> list[Floats]:
        """Return the vectors for the error map's memory.

        Parameters
        ----------
        features
            Features of images.

        Returns
        -------
        list[Floats]
            float32 [h * w, dimensions] of each image.
        """
        return [self.place(block) for block in raw_places(features)]


def raw_places(features: Features) -> Iterator[Floats]:
    """Yield the features of each image at all three stages.

    Parameters
    ----------
    features
        Features of n images.

    Returns
    -------
    Iterator[Floats]
        float32 [h * w, C] for each image.
    """
    for fine, middle, coarse in zip(features.fine, features.middle, features.coarse, strict=True):
        yield _flatten(np.concatenate([fine, middle, _double(coarse.astype(np.float32))]).astype(np.float32))


def learn_metric(features: Features, pictures: int, *, seed: int = 0) -> Metric:
    """Learn from good pictures how features become comparable vectors.

    Parameters
    ----------
    features
        Features of the pictures and of their changed copies.
    pictures
        Number of pictures without copies.
    seed
        Seed of the choice of images.

    Returns
    -------
    Metric
        The metric.
    """
    many = int(pictures >= MANY)
    stages = (features.middle, features.coarse)
    moments = [_moments(stage) for stage in stages]
    gains = [(1.0 / (spread * np.sqrt(len(spread)))).astype(np.float32) for _, spread in moments]
    shifts = [(-mean * gain).astype(np.float32) for (mean, _), gain in zip(moments, gains, strict=True)]
    empty = Projection(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    metric = Metric((gains[0], gains[1]), (shifts[0], shifts[1]), FLOOR[many], empty, empty)
    chosen = _spread_images(features, seed)
    places = pictures * math.prod(features.shapes[0])  # all images have about the same number
    most = max(_FEWEST_COMPONENTS, places // _PLACES_A_COMPONENT)
    vectors = np.concatenate(list(metric.raw_patches(chosen)))
    patch = _find_components(vectors, min(PATCH_DIMENSIONS[many], most), PATCH_WHITENING)
    place = learn_places(features, min(MAP_DIMENSIONS, most), MAP_WHITENING, seed=seed)
    return replace(metric, patch=patch, place=place)


def learn_places(features: Features, dimensions: int, whitening: float, *, seed: int = 0) -> Projection:
    """Learn the strongest principal components of places at all three stages. Each stage has the same weight.

    Parameters
    ----------
    features
        Features of good pictures.
    dimensions
        Number of components.
    whitening
        Share of their spread that is removed, 0 to 1.
    seed
        Seed of the choice of images.

    Returns
    -------
    Projection
        The projection.
    """
    scales = [_moments(stage)[1] for stage in (features.fine, features.middle, features.coarse)]
    weights = np.concatenate([1.0 / (spread * np.sqrt(len(spread))) for spread in scales]).astype(np.float32)
    raw = np.concatenate(list(raw_places(_spread_images(features, seed))))
    raw *= weights
    found = _find_components(raw, dimensions, whitening)
    return Projection((found.project * weights).astype(np.float32), found.offset)


class Coreset:
    """Chooses the vectors of a memory one by one, each the farthest from those chosen before.

    It is the greedy k-centre coreset (Roth et al. 2022, Algorithm 1). It works in a random projection, among at
    most `pool` randomly chosen vectors.

    Parameters
    ----------
    vectors
        float32 [n, dimensions].
    owners
        Number of the picture of each vector, int [n].
    pool
        Largest number of vectors to choose from.
    seed
        Seed of projection and choice.
    """

    def __init__(self, vectors: Floats, owners: NDArray[np.intp], pool: int, *, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._drawn = generator.permutation(len(vectors))[:pool] if len(vectors) > pool else np.arange(len(vectors))
        self._owners = owners[self._drawn]
        sketch = vectors[self._drawn]
        if vectors.shape[1] > _SKETCH:
            directions = generator.standard_normal((vectors.shape[1], _SKETCH)) / np.sqrt(_SKETCH)
            sketch = sketch @ directions.astype(np.float32)
        self._sketch = np.ascontiguousarray(sketch, np.float32)
        self._half = 0.5 * np.einsum("ij,ij->i", self._sketch, self._sketch)

    def choose(self, count: int, *, without: NDArray[np.intp] | None = None, after: Choice | None = None) -> Choice:
        """Choose at most `count` vectors. The first k of them are the coreset of k vectors.

        Parameters
        ----------
        count
            Largest number of vectors.
        without
            Numbers of pictures whose vectors are left out.
        after
            An earlier choice that this one begins with, without the vectors of those pictures.

        Returns
        -------
        Choice
            The chosen vectors.
        """
        allowed = np.ones(len(self._drawn), bool) if without is None else ~np.isin(self._owners, without)
        if allowed.sum() <= count:
            places = np.flatnonzero(allowed)
            return Choice(self._drawn[places], places, np.zeros(0, np.float32), np.zeros(0, np.intp))
        nearest = np.full(len(self._drawn), np.inf, np.float32)
        centre = np.zeros(len(self._drawn), np.intp)
        chosen: list[int] = []
        if after is not None and len(after.nearest):
            stays = allowed[after.places]
            chosen = after.places[stays].tolist()
            position = np.cumsum(stays) - 1
            nearest, centre = after.nearest.copy(), position[after.centre]
            lost = np.flatnonzero(~stays[after.centre])  # the nearest chosen vector is one of those left out
            for start in range(0, len(lost), _CHUNK):
                some = lost[start : start + _CHUNK]
                halves = self._half[chosen] - self._sketch[some] @ self._sketch[chosen].T
                centre[some] = halves.argmin(axis=1)
                nearest[some] = halves.min(axis=1) + self._half[some]
        nearest[~allowed] = -np.inf
        place = int(nearest.argmax())
        for _ in range(count - len(chosen)):
            distance = self._half - self._sketch @ self._sketch[place]  # half of the squared distance
            distance += self._half[place]
            closer = np.flatnonzero(distance < nearest)
            nearest[closer] = distance[closer]
            centre[closer] = len(chosen)
            chosen.append(place)
            place = int(nearest.argmax())
        places = np.array(chosen, np.intp)
        return Choice(self._drawn[places], places, nearest, centre)


@dataclass(frozen=True)
class Choice:
    """Chosen vectors of a coreset."""

    indices: NDArray[np.intp]
    """Positions among all vectors, int [k]."""

    places: NDArray[np.intp]
    """Positions in the pool, int [k]."""

    nearest: Floats
    """Half the squared distance of each vector of the pool to the nearest chosen one, float32 [pool]. Empty if all
    vectors were chosen."""

    centre: NDArray[np.intp]
    """Index of that nearest vector among the chosen ones, int [pool]. Empty if all vectors were chosen."""


def nearest_distances(queries: Floats, memory: Floats) -> Floats:
    """Return the distance of each query to the nearest vector of a memory.

    Parameters
    ----------
    queries
        float32 [..., dimensions].
    memory
        float32 [m, dimensions].

    Returns
    -------
    Floats
        float32 [...].
    """
    flat = queries.reshape(-1, queries.shape[-1])
    squares = np.einsum("ij,ij->i", memory, memory)
    found = np.empty(len(flat), np.float32)
    for start in range(0, len(flat), _CHUNK):
        rows = flat[start : start + _CHUNK]
        lowest = (squares - 2.0 * (rows @ memory.T)).min(axis=1)
        found[start : start + _CHUNK] = np.sqrt(np.maximum(lowest + np.einsum("ij,ij->i", rows, rows), 0.0))
    return found.reshape(queries.shape[:-1])


def score_distances(
    distances: Floats, shape: tuple[int, int], inspected: Floats | None = None, *, count: int | None = None
) -> Floats:
    """Return the score of each image from the distances of its places, as the graph computes it.

    Parameters
    ----------
    distances
        float32 [n, h * w].
    shape
        Rows and columns of places, h and w.
    inspected
        float32 [h, w], 0 where a place is ignored; None for all.
    count
        Number of highest places; None for `count_highest`.

    Returns
    -------
    Floats
        float32 [n].
    """
    maps = distances.reshape(len(distances), *shape)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows, columns = shape
    shifted = [padded[:, top : top + rows, left : left + columns] for top in range(3) for left in range(3)]
    smooth = np.sum(shifted, axis=0) / np.float32(9.0)
    if inspected is not None:
        smooth = smooth * inspected
    count = count or count_highest(shape, inspected)
    flat = smooth.reshape(len(maps), -1)
    highest = np.partition(flat, flat.shape[1] - count, axis=1)[:, flat.shape[1] - count :]
    return np.asarray(highest.mean(axis=1), np.float32)


def score_images(
    patches: Sequence[Floats],
    memory: Floats,
    shapes: Sequence[tuple[int, int]],
    inspected: Floats | None = None,
    *,
    count: int | None = None,
) -> Floats:
    """Return the score of each image from its vectors, as the graph computes it.

    Parameters
    ----------
    patches
        Vectors of each image, float32 [h * w, dimensions].
    memory
        float32 [m, dimensions].
    shapes
        Rows and columns of places of each image, h and w.
    inspected
        float32 [h, w], 0 where a place is ignored; None for all.
    count
        Number of highest places; None for `count_highest`.

    Returns
    -------
    Floats
        float32 [n].
    """
    scores = [
        score_distances(nearest_distances(one, memory)[None], shape, inspected, count=count)
        for one, shape in zip(patches, shapes, strict=True)
    ]
    return np.concatenate(scores)


def count_highest(shape: tuple[int, int], inspected: Floats | None = None) -> int:
    """Return the number of highest places whose mean is the score of an image.

    Parameters
    ----------
    shape
        Rows and columns of places, h and w.
    inspected
        float32 [h, w], 0 where a place is ignored; None for all.

    Returns
    -------
    int
        1 to `HIGHEST`.
    """
    places = shape[0] * shape[1] if inspected is None else int(np.count_nonzero(inspected))
    return max(1, min(HIGHEST, places // _PLACES_EACH))


def whole_vectors(features: Features) -> Floats:
    """Return the mean features of each image. Each of the two stages has a fixed length.

    Parameters
    ----------
    features
        Features of n images.

    Returns
    -------
    Floats
        float32 [n, C].
    """
    parts = []
    for stage, weight in zip((features.middle, features.coarse), WHOLE_WEIGHTS.values(), strict=True):
        mean = np.stack([image.mean(axis=(1, 2), dtype=np.float32) for image in stage])
        parts.append(weight * mean / (np.linalg.norm(mean, axis=1, keepdims=True) + _LEAST))
    return np.concatenate(parts, axis=1)


def score_whole(queries: NDArray[np.float16], memory: NDArray[np.float16]) -> Floats:
    """Return the mean distance of whole images to the nearest few, as the graph computes it.

    Parameters
    ----------
    queries
        Mean features of the images, float16 [n, C].
    memory
        Mean features of good images, float16 [m, C].

    Returns
    -------
    Floats
        float32 [n].
    """
    rows, others = queries.astype(np.float32), memory.astype(np.float32)
    squares = np.einsum("ij,ij->i", others, others) - 2.0 * (rows @ others.T)
    count = min(WHOLE_NEIGHBOURS, len(others))
    lowest = np.partition(squares, count - 1, axis=1)[:, :count] + np.einsum("ij,ij->i", rows, rows)[:, None]
    found: Floats = np.sqrt(np.maximum(lowest, 0.0)).mean(axis=1)
    return found


def _moments(stage: Sequence[NDArray[np.float16]]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each channel over images and places."""
    total = np.zeros(len(stage[0]), np.float64)
    squares = np.zeros(len(stage[0]), np.float64)
    for image in stage:
        values = image.astype(np.float64).reshape(len(image), -1)
        total += values.sum(axis=1)
        squares += (values * values).sum(axis=1)
    count = sum(math.prod(image.shape[1:]) for image in stage)
    mean = total / count
    variance = np.maximum(squares / count - mean * mean, 0.0)
    spread = np.sqrt(np.maximum(variance, _LEAST_SPREAD**2 * variance.mean())) + 1e-4
    return mean.astype(np.float32), spread.astype(np.float32)


def _spread_images(features: Features, seed: int) -> Features:
    """Return randomly chosen images, as many as the components need."""
    most = max(1, _COVERED // math.prod(features.shapes[0]))
    if len(features) <= most:
        return features
    return features.take(np.sort(np.random.default_rng(seed).permutation(len(features))[:most]))


def _find_components(vectors: Floats, dimensions: int, whitening: float) -> Projection:
    """Return the projection on the strongest principal components, each scaled by a power of its spread.

    It overwrites the vectors, because they may take a large share of a device's memory.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    vectors -= mean.astype(np.float32)
    covariance = (vectors.T @ vectors).astype(np.float64) / len(vectors)
    variances, directions = np.linalg.eigh(covariance)
    kept = min(dimensions, len(variances))
    variances = np.maximum(variances[::-1][:kept], 1e-9)
    variances = np.maximum(variances, _LEAST_SHARE * variances.mean())
    directions = directions[:, ::-1][:, :kept]
    scale = (variances / variances.mean()) ** (-whitening / 2.0)
    project = (directions * scale).T.astype(np.float32)
    return Projection(np.ascontiguousarray(project), (-project @ mean.astype(np.float32)).astype(np.float32))


def _pool(stage: Floats) -> Floats:
    """Return the mean over 3 x 3 places, [C, h, w], with zeros around the image."""
    padded = np.pad(stage, ((0, 0), (1, 1), (1, 1)))
    rows, columns = stage.shape[1:]
    across = padded[:, :, :columns] + padded[:, :, 1 : columns + 1] + padded[:, :, 2:]
    found: Floats = (across[:, :rows] + across[:, 1 : rows + 1] + across[:, 2:]) / np.float32(9.0)
    return found


def _double(stage: Floats) -> Floats:
    """Return features [C, h, w] enlarged to twice the size, bilinear with half-pixel centres, as the graph does it."""
    for axis in (1, 2):
        before = np.concatenate([stage.take([0], axis), stage.take(range(stage.shape[axis] - 1), axis)], axis)
        after = np.concatenate([stage.take(range(1, stage.shape[axis]), axis), stage.take([-1], axis)], axis)
        pairs = np.stack([0.75 * stage + 0.25 * before, 0.75 * stage + 0.25 * after], axis + 1)
        shape = list(stage.shape)
        shape[axis] *= 2
        stage = pairs.reshape(shape)
    return np.asarray(stage, np.float32)


def _flatten(planes: Floats) -> Floats:
    return np.ascontiguousarray(planes.reshape(len(planes), -1).T)
