"""What the head sees of a training step: good images and pieces of them, every other one with defects drawn on it.

Some of the good ones are where the head errs: what it takes for a defect on parts that are good (`Mistakes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.training.augment import augment
from onspect.training.config import TrainConfig
from onspect.training.defects import Defective, draw_defects
from onspect.training.tiles import Images

_DRAWN, _JUDGED, _MISTAKEN = 5, 6, 8  # streams of random numbers under the run's seed, beside the autoencoder's
_CROPPED = 0.75  # share of the steps that show pieces: cheap looks at many places
_MINED = 0.5  # share of the good images that a mistake stands in for, once there are any
_MARGIN = 8  # a window's side over how far from its edge a mistake lies in it, where the image has room
_WHITE = np.float32(255.0)


@dataclass(frozen=True)
class Mistakes:
    """What the head takes for defects on good images (bootstrapped negatives: Sung and Poggio, 1998).

    images: indices [n]. answers: how strongly, above 0 [n]; an image is drawn as often as that is high. places: row
    and column of where, in pixels [n, 2].
    """

    images: NDArray[np.int64]
    answers: NDArray[np.float64]
    places: NDArray[np.int64]

    def draw(self, random: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """Return an image's index and its place."""
        drawn = int(random.choice(len(self.images), p=self.answers / self.answers.sum()))
        row, column = self.places[drawn]
        return int(self.images[drawn]), (int(row), int(column))


@dataclass(frozen=True)
class Batch:
    """What one device sees of a step.

    piece: what the head sees of images, float32 [n, channels, *size] in 0..1, cut out at `windows`, top and left, of
    `size` (height, width). mask, weight: float32 [n, 1, *size], as `Defective` has them. pair, single: which of the n
    each of the head's networks sees, as many for both, or none for a pair that rests. image: the whole images of those
    of the pair, [len(pair), channels, height, width], for their reconstruction. count: of the images a network sees
    over all devices.
    """

    image: NDArray[np.float32]
    piece: NDArray[np.float32]
    mask: NDArray[np.float32]
    weight: NDArray[np.float32]
    windows: tuple[tuple[int, int], ...]
    size: tuple[int, int]
    pair: NDArray[np.int64]
    single: NDArray[np.int64]
    count: int


@dataclass(frozen=True)
class _Drawn:
    image: NDArray[np.float32]
    defective: Defective
    window: tuple[int, int]


def draw_batch(
    images: Images,
    config: TrainConfig,
    step: int,
    rank: int = 0,
    ranks: int = 1,
    mistakes: Mistakes | None = None,
    *,
    compares: bool = True,
) -> Batch:
    """Draw a step's batch, every other image with defects, or what one of several devices sees of it.

    images are uint8 [n, height, width, channels]. Once there are mistakes, half of the good images are replaced by them
    for the pair's network; the other keeps what it had, for it finds the less the more of them it sees. Each image
    depends on seed, step, its place in the batch and the mistakes alone. compares: whether the pair's network is shown
    any; where it rests there are no whole images and no mistakes in the batch.
    """
    assert config.head is not None
    height, width = images.shape[1:3]
    count, size = config.head.batch_size, (height, width)
    if config.head.crops and np.random.default_rng([config.seed, _DRAWN, step]).random() < _CROPPED:
        count, size = count * 4, (height // 2, width // 2)
    drawn: list[_Drawn] = []
    pair, single = [], []
    for place in range(rank, count, ranks):
        random = np.random.default_rng([config.seed, _DRAWN, step, place])
        single.append(len(drawn))
        drawn.append(_draw(images, config, size, random, with_defects=place % 2 == 0))
        random = np.random.default_rng([config.seed, _MISTAKEN, step, place])
        if compares and mistakes is not None and place % 2 and random.random() < _MINED:
            drawn.append(_draw_mistake(images, config, size, random, mistakes))
        if compares:
            pair.append(len(drawn) - 1)
    whole = [drawn[index].image for index in pair]
    return Batch(
        image=to_planes(np.stack(whole) if compares else np.zeros((0, *images.shape[1:]), np.float32)),
        piece=to_planes(np.stack([item.defective.image for item in drawn])),
        mask=np.stack([item.defective.mask[None] for item in drawn]),
        weight=np.stack([item.defective.weight[None] for item in drawn]),
        windows=tuple(item.window for item in drawn),
        size=size,
        pair=np.array(pair, np.int64),
        single=np.array(single, np.int64),
        count=count,
    )


def _draw(
    images: Images, config: TrainConfig, size: tuple[int, int], random: np.random.Generator, *, with_defects: bool
) -> _Drawn:
    index = int(random.integers(len(images)))
    image = augment(images[index], config.augment, random).astype(np.float32) / _WHITE
    window = _window(images, size, random)
    if not with_defects:
        return _as_good(image, window, size)
    donor = images[random.integers(len(images))]
    taken = _cut(donor, _window(images, size, random), size).astype(np.float32) / _WHITE
    piece = _cut(image, window, size)
    defective = draw_defects(piece, taken, random, side=max(image.shape[:2]))
    piece[:] = defective.image
    return _Drawn(image, defective, window)


def _draw_mistake(
    images: Images, config: TrainConfig, size: tuple[int, int], random: np.random.Generator, mistakes: Mistakes
) -> _Drawn:
    index, (row, column) = mistakes.draw(random)
    image = augment(images[index], config.augment, random).astype(np.float32) / _WHITE
    window = _around(row, size[0], image.shape[0], random), _around(column, size[1], image.shape[1], random)
    return _as_good(image, window, size)


def _as_good(image: NDArray[np.float32], window: tuple[int, int], size: tuple[int, int]) -> _Drawn:
    piece = _cut(image, window, size)
    return _Drawn(image, Defective(piece, np.zeros(size, np.float32), np.ones(size, np.float32)), window)


def _cut(image: NDArray[Any], window: tuple[int, int], size: tuple[int, ...]) -> NDArray[Any]:
    (top, left), (height, width) = window, size
    return image[top : top + height, left : left + width]


def _window(images: Images, size: tuple[int, int], random: np.random.Generator) -> tuple[int, int]:
    height, width = images.shape[1:3]
    return int(random.integers(height - size[0] + 1)), int(random.integers(width - size[1] + 1))


def _around(place: int, side: int, whole: int, random: np.random.Generator) -> int:
    """Return where a window begins so that a place lies in it, and not at its edge where there is room."""
    margin = side // _MARGIN
    return int(np.clip(place - random.integers(margin, side - margin), 0, whole - side))


def draw_twins(images: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """Return a defective twin of each image, uint8 [n, height, width, channels], as float32 in 0..1.

    The twins follow from images and seed alone, and are none of those that a head is trained on.
    """
    twins = []
    for index, image in enumerate(images):
        random = np.random.default_rng([seed, _JUDGED, index])
        donor = images[(index + 1) % len(images)].astype(np.float32) / _WHITE
        twins.append(draw_defects(image.astype(np.float32) / _WHITE, donor, random).image)
    return np.stack(twins)


def to_planes(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [n, height, width, channels] as [n, channels, height, width]."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
