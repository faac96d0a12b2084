"""Synthetic defects: procedures that draw on good images what a part might suffer, for the head to learn from.

A defect is a shape (where) and a change (what happens there), each drawn at random over wide ranges: nothing here
knows any product. Sizes are shares of the image's longer side, so that the same defects come at every working size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""float32 [height, width, channels] in 0..1."""

Mask = NDArray[np.float32]
"""float32 [height, width] in 0..1."""

VISIBLE = 0.03
"""Smallest change of a pixel's value, averaged over its neighbours, that is taken for a defect."""

_LARGEST = 0.5  # share of what is seen: of two sides of a boundary the smaller one is the odd one
_TRIES = 3  # a defect that cannot be seen where it was drawn is drawn again, so often
_USUAL_SIZE = 0.05  # of the image's longer side: the root of the area of a defect whose pixels count once
_WEIGHTS = (0.3, 8.0)


@dataclass(frozen=True)
class _Canvas:
    """What is drawn on, in pixels. side: the longer one of the whole image, where this is a piece of it."""

    height: int
    width: int
    side: int

    def place(self, random: np.random.Generator) -> tuple[float, float]:
        """Return a point anywhere on it, as x, y."""
        return random.uniform(0, self.width), random.uniform(0, self.height)


@dataclass(frozen=True)
class _Shape:
    """Where a defect is. share: how often it is drawn. changes: what may happen there, with how often."""

    draw: Callable[[_Canvas, np.random.Generator], tuple[Mask, float]]
    share: float
    changes: dict[str, float]


@dataclass(frozen=True)
class Defective:
    """An image with defects.

    mask: 1 where a defect is, else 0. weight: what each pixel of a defect counts for; small defects are not to be
    outvoted by large ones, so that it falls with the root of the defect's area. It is 1 elsewhere.
    """

    image: Image
    mask: Mask
    weight: Mask


def draw_defects(image: Image, donor: Image, random: np.random.Generator, *, side: int | None = None) -> Defective:
    """Draw one to three defects on a copy of an image.

    donor is another good image of the same shape, from which pieces are taken. side is the longer side of the whole
    image where these are pieces of one. Where three tries gave nothing that can be seen, there are fewer defects, and
    at worst none.
    """
    height, width = image.shape[:2]
    canvas = _Canvas(height, width, side or max(height, width))
    mask, weight = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    names = list(SHAPES)
    shares = np.array([SHAPES[name].share for name in names])
    for _ in range(int(random.integers(1, 4))):
        for _ in range(_TRIES):
            shape = SHAPES[names[random.choice(len(names), p=shares / shares.sum())]]
            changed, seen = _draw_one(image, donor, canvas, shape, random)
            if seen is not None:
                image = changed
                counts = np.clip(_USUAL_SIZE * canvas.side / np.sqrt(seen.sum()), *_WEIGHTS)
                weight[seen] = np.where(mask[seen] > 0, np.maximum(weight[seen], counts), counts)
                mask[seen] = 1.0
                break
    return Defective(image, mask, weight)


def _draw_one(
    image: Image, donor: Image, canvas: _Canvas, shape: _Shape, random: np.random.Generator
) -> tuple[Image, NDArray[np.bool_] | None]:
    area, softness = shape.draw(canvas, random)
    if (area > 0.5).mean() > _LARGEST:
        return image, None
    if softness > 0.3:
        area = _as_mask(cv2.GaussianBlur(area, (0, 0), softness))
    names = list(shape.changes)
    weights = np.array([shape.changes[name] for name in names])
    change = CHANGES[names[random.choice(len(names), p=weights / weights.sum())]]
    opacity = random.uniform(0.5, 1.0) if random.random() < 0.5 else 1.0
    share = (area * np.float32(opacity))[:, :, None]
    whole = change(image, donor, canvas, random)
    changed = np.clip(image * (1.0 - share) + whole * share, 0.0, 1.0).astype(np.float32)
    return changed, _visible_part(area > 0.25, np.abs(changed - image).max(axis=2))


def _visible_part(inside: NDArray[np.bool_], difference: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Return where a defect counts as one: all of its shape where most of that can be seen, None where too little."""
    wide = float(inside.mean()) > 0.01
    window = (9, 9) if wide else (3, 3)
    seen = inside & (cv2.blur(difference, window) > VISIBLE)
    if seen.sum() < max(4, 0.4 * inside.sum()):
        return None
    return inside if seen.sum() > 0.7 * inside.sum() else seen


# shapes: each returns a mask and how far its edge is to be softened, a Gaussian's standard deviation in pixels


def _line(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Cracks and scratches: thin random walks, some from the image's edge, some forked."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    thickness = max(1, round(canvas.side * _between(random, 0.003, 0.015)))
    for _ in range(1 if random.random() < 0.75 else int(random.integers(2, 4))):
        points = _walk(canvas, random)
        _draw_path(mask, points, thickness)
        if random.random() < 0.2:
            fork = _walk(canvas, random)
            _draw_path(mask, (fork - fork[0] + points[len(points) // 2])[: len(points) // 2 + 1], max(1, thickness - 1))
    return _as_mask(mask), random.uniform(0.0, 0.7)


def _blob(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Holes, dents and drops."""
    outline = _outline(random, canvas.place(random), canvas.side * _between(random, 0.006, 0.09))
    return _filled(canvas, outline), random.uniform(0.0, 1.2)


def _specks(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Dust, pores and spatter: small blobs close together."""
    side = canvas.side
    centre = np.array(canvas.place(random))
    spread = side * random.uniform(0.02, 0.2)
    mask = np.zeros((canvas.height, canvas.width), np.float32)
    for _ in range(int(random.integers(2, 15))):
        x, y = centre + random.normal(size=2) * spread
        outline = _outline(random, (x, y), side * _between(random, 0.003, 0.015))
        mask = np.maximum(mask, _filled(canvas, outline))
    return mask, random.uniform(0.0, 0.8)


def _patch(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Stains and worn places: large, with a hard or a soft edge."""
    outline = _outline(random, canvas.place(random), canvas.side * random.uniform(0.08, 0.4))
    return _filled(canvas, outline), _between(random, 0.5, 12)


def _side(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """All that lies beyond a wavy line, or in a band: uneven light, coating or finish."""
    height, width, side = canvas.height, canvas.width, canvas.side
    upright = random.random() < 0.7
    angle = random.integers(4) * np.pi / 2 + random.normal(0, 0.12) if upright else random.uniform(0, 2 * np.pi)
    x = np.arange(width, dtype=np.float32)[None] - width / 2
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    along = (y * np.cos(angle) - x * np.sin(angle)) / side
    wave = random.uniform(0, 0.06) * (
        np.sin(along * random.uniform(2, 12) + random.uniform(0, 6.28))
        + 0.4 * np.sin(along * random.uniform(12, 40) + random.uniform(0, 6.28))
    )
    across = (x * np.cos(angle) + y * np.sin(angle)) / side + wave
    start = random.uniform(-0.4, 0.45) * max(height, width) / side
    inside = across > start
    if random.random() < 0.3:
        inside &= across < start + random.uniform(0.08, 0.5)
    if inside.mean() > _LARGEST:
        inside = ~inside
    return inside.astype(np.float32), _between(random, 0.5, 10)


def _clouds(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Many-armed stains: where fractal noise is high."""
    noise = _fractal(canvas, random, int(random.choice([8, 16, 32, 64])))
    return (noise > np.quantile(noise[::4, ::4], random.uniform(0.75, 0.98))).astype(np.float32), random.uniform(0.3, 2)


def _break(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Chips and breaks at the image's edge."""
    outline = _outline(random, _on_edge(canvas, random)[0], canvas.side * _between(random, 0.015, 0.2))
    return _filled(canvas, outline), random.uniform(0.0, 1.5)


def _rectangle(canvas: _Canvas, random: np.random.Generator) -> tuple[Mask, float]:
    """Marks, labels and scars: long or square, upright or not."""
    longer = canvas.side * _between(random, 0.01, 0.4)
    angle = float(random.choice([0.0, 90.0]) + (random.normal(0, 20) if random.random() < 0.5 else 0.0))
    corners = cv2.boxPoints((canvas.place(random), (longer, longer * _between(random, 0.1, 1.0)), angle))
    return _filled(canvas, np.asarray(corners, np.float64)), random.uniform(0.0, 1.5)


# changes: each returns what the whole image would look like, of which the shape then shows its part


def _tone(image: Image, _donor: Image, canvas: _Canvas, random: np.random.Generator) -> Image:
    """Darker or lighter by one amount, perhaps tinted, perhaps blotched."""
    amount = _sign(random) * _between(random, 0.05, 0.5)
    changed = image + amount * _tint(image, random)
    if random.random() < 0.4:
        changed = changed + (_fractal(canvas, random, 64)[:, :, None] - 0.5) * abs(amount)
    return changed


def _gain(image: Image, _donor: Image, _canvas: _Canvas, random: np.random.Generator) -> Image:
    """More or less light, perhaps with another contrast."""
    factor = np.float32(np.exp(_sign(random) * random.uniform(0.1, 0.8)))
    if random.random() < 0.6:
        return image * factor
    mean = image.mean(axis=(0, 1), keepdims=True) * factor
    return np.asarray((image * factor - mean) * np.exp(random.uniform(-1.0, 0.7)) + mean, np.float32)


def _other(image: Image, donor: Image, _canvas: _Canvas, random: np.random.Generator) -> Image:
    """Another place of another part: mirrored, moved, scaled, with its own or this image's brightness."""
    height, width, channels = image.shape
    if random.random() < 0.5:
        donor = donor[::-1]
    if random.random() < 0.5:
        donor = donor[:, ::-1]
    if height == width and random.random() < 0.3:
        donor = donor.transpose(1, 0, 2)
    donor = np.roll(donor, (int(random.integers(height)), int(random.integers(width))), (0, 1))
    if random.random() < 0.4:
        scale = random.uniform(0.4, 2.0)
        scaled = cv2.resize(np.ascontiguousarray(donor), None, fx=scale, fy=scale)
        scaled = np.asarray(scaled, np.float32).reshape(*scaled.shape[:2], channels)
        times = (-(-height // scaled.shape[0]), -(-width // scaled.shape[1]), 1)
        donor = np.tile(scaled, times)[:height, :width]
    if random.random() < 0.6:
        return donor * np.float32(np.exp(random.normal(0, 0.15)))
    return np.asarray(donor - donor.mean() + image.mean(), np.float32)


def _blur(image: Image, _donor: Image, canvas: _Canvas, random: np.random.Generator) -> Image:
    """Texture lost, and a little light won or lost."""
    sigma = canvas.side * _between(random, 0.008, 0.06)
    return cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape) * np.float32(np.exp(random.normal(0, 0.12)))


def _contrast(image: Image, _donor: Image, canvas: _Canvas, random: np.random.Generator) -> Image:
    """Texture stronger or weaker."""
    base = cv2.GaussianBlur(image, (0, 0), canvas.side * 0.03).reshape(image.shape)
    return base + (image - base) * np.float32(np.exp(_sign(random) * random.uniform(0.6, 1.5)))


def _noise(image: Image, _donor: Image, canvas: _Canvas, random: np.random.Generator) -> Image:
    """Fractal noise over the image or in its place."""
    noise = _fractal(canvas, random, 128)[:, :, None] * _tint(image, random)
    if random.random() < 0.3:
        return noise
    return image + (noise - 0.5) * np.float32(_between(random, 0.05, 0.5))


def _flat(image: Image, _donor: Image, _canvas: _Canvas, random: np.random.Generator) -> Image:
    """One value all over: a hole, a sticker, a glare."""
    if random.random() < 0.5:
        return np.broadcast_to(random.random((1, 1, image.shape[2])).astype(np.float32), image.shape)
    mean = image.mean(axis=(0, 1), keepdims=True) * random.choice([0.1, 0.3, 1.8])
    return np.broadcast_to(mean.astype(np.float32), image.shape)


def _warp(image: Image, _donor: Image, canvas: _Canvas, random: np.random.Generator) -> Image:
    """Bent and swollen: the image pushed about."""
    height, width = image.shape[:2]
    reach = canvas.side * random.uniform(0.05, 0.2)
    x = (_fractal(canvas, random, 8) - 0.5) * np.float32(reach) + np.arange(width, dtype=np.float32)[None]
    y = (_fractal(canvas, random, 8) - 0.5) * np.float32(reach) + np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32).reshape(image.shape)


CHANGES: dict[str, Callable[[Image, Image, _Canvas, np.random.Generator], NDArray[np.float32]]] = {
    "tone": _tone,
    "gain": _gain,
    "other": _other,
    "blur": _blur,
    "contrast": _contrast,
    "noise": _noise,
    "flat": _flat,
    "warp": _warp,
}
"""What may happen inside a shape."""

_THIN = {"tone": 0.75, "noise": 0.1, "other": 0.15}
_SMALL = {"tone": 0.4, "other": 0.18, "noise": 0.1, "gain": 0.1, "blur": 0.08, "flat": 0.07, "warp": 0.07}
_WIDE = {"gain": 0.35, "other": 0.2, "blur": 0.12, "tone": 0.1, "contrast": 0.1, "noise": 0.08, "warp": 0.05}

SHAPES = {
    "line": _Shape(_line, 0.27, _THIN),
    "blob": _Shape(_blob, 0.16, _SMALL),
    "specks": _Shape(_specks, 0.05, _THIN),
    "patch": _Shape(_patch, 0.12, _WIDE),
    "side": _Shape(_side, 0.14, _WIDE),
    "clouds": _Shape(_clouds, 0.08, _WIDE),
    "break": _Shape(_break, 0.10, _SMALL),
    "rectangle": _Shape(_rectangle, 0.08, _SMALL),
}
"""Where a defect may be."""


def _between(random: np.random.Generator, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform: as many small ones as large ones."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _sign(random: np.random.Generator) -> int:
    return 1 if random.random() < 0.42 else -1  # most defects swallow light


def _tint(image: Image, random: np.random.Generator) -> NDArray[np.float32]:
    channels = image.shape[2]
    if channels == 1 or random.random() < 0.5:
        return np.ones((1, 1, channels), np.float32)
    return random.uniform(0.2, 1.0, (1, 1, channels)).astype(np.float32)


def _fractal(canvas: _Canvas, random: np.random.Generator, finest: int) -> NDArray[np.float32]:
    """Return noise in 0..1 with cells from a few an image to `finest` an image, stretched one way."""
    height, width = canvas.height, canvas.width
    noise = np.zeros((height, width), np.float32)
    stretch, amplitude = float(np.exp(random.uniform(-1.2, 1.2))), 1.0
    cells = int(random.integers(2, 6))
    while cells <= max(finest, 2):
        grid = random.random((max(2, round(cells * stretch)), max(2, round(cells / stretch))), np.float32)
        noise += np.float32(amplitude) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, amplitude = cells * 2, amplitude * random.uniform(0.35, 0.8)
    noise -= noise.min()
    return noise / max(float(noise.max()), 1e-6)


def _walk(canvas: _Canvas, random: np.random.Generator) -> NDArray[np.float64]:
    """Return the points of a random walk, float64 [n, 2] as x, y."""
    side = canvas.side
    step = side * random.uniform(0.01, 0.04)
    count = max(3, int(side * _between(random, 0.06, 1.0) / step))
    if random.random() < 0.35:
        start, heading = _on_edge(canvas, random)
        heading += random.normal(0, 0.5)
    else:
        start, heading = canvas.place(random), random.uniform(0, 2 * np.pi)
    turns = np.cumsum(random.normal(0, random.uniform(0.02, 0.6), count)) * (1.0 if random.random() < 0.5 else 0.3)
    directions = heading + turns
    moves = np.stack([np.cos(directions), np.sin(directions)], axis=1) * step
    return np.asarray(start) + np.cumsum(moves, axis=0)


def _on_edge(canvas: _Canvas, random: np.random.Generator) -> tuple[tuple[float, float], float]:
    """Return a point on the image's edge as x, y, and the direction that leads inside."""
    height, width, share = canvas.height, canvas.width, random.random()
    places: list[tuple[tuple[float, float], float]] = [
        ((0.0, share * height), 0.0),
        ((float(width), share * height), np.pi),
        ((share * width, 0.0), np.pi / 2),
        ((share * width, float(height)), -np.pi / 2),
    ]
    return places[random.integers(4)]


def _outline(random: np.random.Generator, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """Return the points of an irregular, squashed and turned round shape, float64 [24, 2] as x, y."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    raggedness = random.uniform(0.05, 0.5)
    radii = np.ones(24)
    for wave in range(1, 5):
        radii += raggedness / wave * random.normal() * np.cos(wave * angles + random.uniform(0, 2 * np.pi))
    radii = np.clip(radii, 0.2, 2.0) * radius
    x, y = radii * np.cos(angles), radii * np.sin(angles) * np.exp(random.uniform(-1.3, 0.0))
    turn = random.uniform(0, np.pi)
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    return np.asarray(turned + np.asarray(centre))


def _filled(canvas: _Canvas, outline: NDArray[np.float64]) -> Mask:
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    cv2.fillPoly(mask, [_fixed_point(outline)], 255, cv2.LINE_AA, _BITS)
    return _as_mask(mask)


def _draw_path(mask: NDArray[np.uint8], points: NDArray[np.float64], thickness: int) -> None:
    cv2.polylines(mask, [_fixed_point(points)], False, 255, thickness, cv2.LINE_AA, _BITS)


_BITS = 4  # OpenCV draws at sixteenths of a pixel


def _fixed_point(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * 2**_BITS), np.int32)


def _as_mask(mask: NDArray[np.generic]) -> Mask:
    return mask.astype(np.float32) / np.float32(255.0) if mask.dtype == np.uint8 else np.asarray(mask, np.float32)
