"""Synthetic parts: drawn pictures of a turned steel flange, good or with one drawn defect.

These pictures are not photographs. They show the whole path from teaching to a verdict without production data. A
result on them does not predict results on real parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]

DEFECT_KINDS = ("scratch", "dent", "stain")

# Lengths are in units of 1/128 of the picture's side, so the part looks the same at every size.
_SIDE = 128.0
_SMALLEST_SIZE = 32
_SUPERSAMPLING = 2
_FLANGE_RADIUS = 54.0
_HUB_RADIUS = 24.0
_BORE_RADIUS = 15.0
_BOLT_RADIUS = 5.0
_BOLT_CIRCLE = 39.0
_CHAMFER = 2.2
_LIGHT = np.array([-0.6, -0.8], np.float32)  # towards the lamp, upper left
_VISIBLE_CHANGE = 5  # grey levels; a smaller change is not visible in the brushing


@dataclass(frozen=True)
class _Part:
    """One good part on its supersampled canvas; x and y are relative to the picture's centre."""

    x: Grey
    y: Grey
    depth: Grey  # distance to the nearest edge, positive on the metal
    metal: Grey  # share of each pixel that metal covers
    picture: Grey  # grey levels

    @property
    def step(self) -> float:
        """Side of a canvas pixel."""
        return _SIDE / len(self.x)


def draw_part(
    rng: np.random.Generator, defect: str | None = None, size: int = 128
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one synthetic part and the mask of its defect.

    The same generator state gives the same part with and without the defect.

    Parameters
    ----------
    rng
        Generator of the random numbers.
    defect
        One of `DEFECT_KINDS`; None for a good part.
    size
        Width and height of the picture in pixels, 32 or more.

    Returns
    -------
    tuple[NDArray[np.uint8], NDArray[np.uint8]]
        Grey image and mask, both [size, size]. The mask is 255 where the defect changes the good part visibly, and 0
        elsewhere.

    Raises
    ------
    ValueError
        If the defect is unknown or the size is below 32.
    """
    if defect is not None and defect not in _DEFECT_PAINTERS:
        raise ValueError(f"unknown defect {defect!r}: use one of {', '.join(DEFECT_KINDS)}, or None for a good part")
    if size < _SMALLEST_SIZE:
        raise ValueError(f"size is {size}: a part needs at least {_SMALLEST_SIZE} pixels a side")
    part = _machine_part(rng, size)
    sensor_noise = rng.standard_normal((size, size), np.float32)
    image = _expose(part.picture, sensor_noise)
    if defect is None:
        return image, np.zeros_like(image)
    change = _DEFECT_PAINTERS[defect](rng, part) * part.metal
    marred = _expose(part.picture + change, sensor_noise)
    visible = cv2.absdiff(marred, image) >= _VISIBLE_CHANGE
    return marred, visible.astype(np.uint8) * np.uint8(255)


def draw_dataset(
    folder: Path | str, *, seed: int, train: int = 160, good: int = 40, defective: int = 20, size: int = 128
) -> None:
    """Write a synthetic dataset in the MVTec layout, with a validation split beside the test split.

    The files are grey PNG. The same arguments give the same bytes. An image depends on seed, split, kind, number and
    size only, not on the counts. Files of the same name are replaced; other files stay.

    Parameters
    ----------
    folder
        Folder to write.
    seed
        Seed of all random numbers, 0 or more.
    train
        Good parts in ``train/good``, 0 or more.
    good
        Good parts in each of ``val/good`` and ``test/good``, 0 or more.
    defective
        Parts of each defect kind in each of ``val`` and ``test``, 0 or more. Their masks are
        ``ground_truth/SPLIT/KIND/NNN_mask.png``.
    size
        Width and height of the pictures in pixels, 32 or more.

    Raises
    ------
    ValueError
        If the seed or a count is negative, or the size is below 32.
    OSError
        If a file cannot be written.
    """
    folder = Path(folder)
    for name, value in (("seed", seed), ("train", train), ("good", good), ("defective", defective)):
        if value < 0:
            raise ValueError(f"{name} is {value}: it cannot be negative")
    for split_number, (split, good_count, defective_count) in enumerate(
        (("train", train, 0), ("val", good, defective), ("test", good, defective))
    ):
        for kind_number, kind in enumerate(("good", *DEFECT_KINDS)):
            for number in range(good_count if kind == "good" else defective_count):
                rng = np.random.default_rng([seed, split_number, kind_number, number])
                image, mask = draw_part(rng, None if kind == "good" else kind, size)
                _write_png(folder / split / kind / f"{number:03d}.png", image)
                if kind != "good":
                    _write_png(folder / "ground_truth" / split / kind / f"{number:03d}_mask.png", mask)


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _machine_part(rng: np.random.Generator, size: int) -> _Part:
    side = size * _SUPERSAMPLING
    step = _SIDE / side
    axis = ((np.arange(side) + 0.5) * step - _SIDE / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    centre_x, centre_y = rng.triangular(-1, 0, 1, 2)
    turn = np.deg2rad(rng.triangular(-1, 0, 1))
    brightness = rng.triangular(0.96, 1, 1.04)
    dx, dy = x - np.float32(centre_x), y - np.float32(centre_y)
    radius = np.hypot(dx, dy)
    depth = np.minimum(_FLANGE_RADIUS - radius, radius - _BORE_RADIUS)
    for angle in turn + np.pi * (np.arange(4) / 2 + 0.25):
        bolt_x, bolt_y = _BOLT_CIRCLE * np.float32(np.cos(angle)), _BOLT_CIRCLE * np.float32(np.sin(angle))
        depth = np.minimum(depth, np.hypot(dx - bolt_x, dy - bolt_y) - _BOLT_RADIUS)
    metal = _ramp(depth / step + 0.5)
    lamp = 1 + 0.10 * (x * _LIGHT[0] + y * _LIGHT[1]) / (_SIDE / 2)
    surface = _turned_face(rng, dx, dy, radius) + _edges(depth, radius, step)
    picture = brightness * lamp * (metal * surface + (1 - metal) * _ground(dx, dy, radius))
    return _Part(x, y, depth, metal, picture.astype(np.float32))


def _turned_face(rng: np.random.Generator, dx: Grey, dy: Grey, radius: Grey) -> Grey:
    """Grey levels of the lathe-turned face: two bright fans, as every turned face shows, and its grooves."""
    angle = np.arctan2(dy, dx)
    fans = np.square(np.square(np.cos(angle - np.arctan2(_LIGHT[1], _LIGHT[0]))))  # ** 4 is far slower
    turns = rng.standard_normal((360, 128), np.float32)
    arcs = cv2.GaussianBlur(cv2.copyMakeBorder(turns, 90, 90, 0, 0, cv2.BORDER_WRAP), (1, 61), 0.1, sigmaY=14)[90:-90]
    rings = rng.standard_normal(128, np.float32)
    grooves = np.asarray(2.6 * arcs / arcs.std() + 1.4 * rings, np.float32)
    brushing = cv2.remap(grooves, radius * 2, np.rad2deg(angle), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(134 + 34 * fans + brushing, np.float32)


def _edges(depth: Grey, radius: Grey, step: float) -> Grey:
    """Extra grey levels of the chamfers and of the step around the hub, bright towards the lamp."""
    slope_y, slope_x = np.gradient(depth, step)
    facing = -(slope_x * _LIGHT[0] + slope_y * _LIGHT[1])
    chamfer = _ramp((_CHAMFER - depth) / step + 0.5)
    hub_y, hub_x = np.gradient(radius, step)
    shoulder = np.exp(-(((radius - _HUB_RADIUS) / 0.9) ** 2))
    shoulder_facing = hub_x * _LIGHT[0] + hub_y * _LIGHT[1]
    return np.asarray(chamfer * (24 + 30 * facing) + 30 * shoulder * shoulder_facing, np.float32)


def _ground(dx: Grey, dy: Grey, radius: Grey) -> Grey:
    """Grey levels of the matte ground, with the part's soft shadow; the holes show it darker still."""
    shadow = _ramp((np.hypot(dx + 3 * _LIGHT[0], dy + 3 * _LIGHT[1]) - _FLANGE_RADIUS + 3) / 9)
    return np.where(radius < _FLANGE_RADIUS, np.float32(34), 36 + 18 * shadow).astype(np.float32)


def _ramp(value: Grey) -> Grey:
    return np.asarray(np.clip(value, 0, 1), np.float32)


def _expose(picture: Grey, sensor_noise: Grey) -> NDArray[np.uint8]:
    size = sensor_noise.shape[0]
    pixels = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    sharp = cv2.GaussianBlur(pixels, (0, 0), 0.7 * size / _SIDE)
    return np.asarray(np.clip(np.rint(sharp + sensor_noise), 0, 255), np.uint8)


def _strength(rng: np.random.Generator) -> float:
    """Share of a defect's full contrast: most are clear, a few are almost invisible in the brushing."""
    return float(rng.triangular(0.18, 0.8, 1.0))


def _spot(rng: np.random.Generator, part: _Part, margin: float) -> tuple[Grey, Grey]:
    """Coordinates measured from a random place on the metal at least `margin` from any edge."""
    places = np.flatnonzero(part.depth > margin)
    place = places[rng.integers(places.size)]
    return part.x - part.x.flat[place], part.y - part.y.flat[place]


def _scratch(rng: np.random.Generator, part: _Part) -> Grey:
    """A groove along a wandering path: a thin bright line with a thin dark one beside it, fading at both ends."""
    path = _wander(rng, part, int(rng.integers(15, 61)))
    corners = np.rint(((path + _SIDE / 2) / part.step - 0.5) * 16).astype(np.int32)
    fade = np.sin(np.linspace(0, np.pi, len(path))) ** 0.5
    line = np.zeros(part.depth.shape, np.uint8)
    thickness = max(1, round(rng.uniform(0.4, 1.1) / part.step))
    for start, end, share in zip(corners[:-1].tolist(), corners[1:].tolist(), fade[1:].tolist(), strict=True):
        cv2.line(line, start, end, 255 * share, thickness, cv2.LINE_AA, 4)
    profile = line.astype(np.float32) / 255
    shift = max(1, round(0.7 / part.step))
    beside = np.roll(profile, (shift, shift), (0, 1))
    polarity = rng.choice([-1, 1])
    return np.asarray(230 * _strength(rng) * polarity * (profile - 0.5 * beside), np.float32)


def _wander(rng: np.random.Generator, part: _Part, length: int) -> NDArray[np.float64]:
    """A path of `length` unit steps that stays on the metal: the first valid of many, otherwise the best."""
    tries, margin = 64, 3.5
    places = np.flatnonzero(part.depth > margin)
    starts = places[rng.integers(places.size, size=tries)]
    bend = rng.normal(0, 0.03, (tries, 1)) + rng.normal(0, 0.05, (tries, length))
    heading = rng.uniform(0, 2 * np.pi, (tries, 1)) + np.cumsum(bend, axis=1)
    start = np.stack([part.x.flat[starts], part.y.flat[starts]], axis=-1)[:, None]
    paths = start + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=-1), axis=1)
    column, row = np.moveaxis(((paths + _SIDE / 2) / part.step).astype(int).clip(0, part.depth.shape[0] - 1), -1, 0)
    nearest_edge = part.depth[row, column].min(axis=1)
    return np.asarray(paths[np.argmax(np.minimum(nearest_edge, margin))], np.float64)


def _dent(rng: np.random.Generator, part: _Part) -> Grey:
    """A soft hollow: its far wall is bright, its near wall is in shade."""
    radius = rng.uniform(4, 9)
    u, v = _spot(rng, part, radius)
    stretch, turn = rng.uniform(0.8, 1.0), rng.uniform(0, np.pi)
    along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    hollow = np.exp(-2.6 * (along**2 + (across / stretch) ** 2) / radius**2)
    wall = -(u * _LIGHT[0] + v * _LIGHT[1]) / radius
    return np.asarray(_strength(rng) * hollow * (220 * wall - 24), np.float32)


def _stain(rng: np.random.Generator, part: _Part) -> Grey:
    """A film of dried liquid: an irregular darker patch, darkest along its rim."""
    radius = rng.uniform(7.5, 20)
    u, v = _spot(rng, part, 6)
    side = part.depth.shape[0]
    coarse = rng.standard_normal((32, 32), np.float32)
    smooth = cv2.GaussianBlur(coarse, (0, 0), max(0.8, radius / 10))
    lumps = cv2.resize(smooth / smooth.std(), (side, side), interpolation=cv2.INTER_CUBIC)
    height = 1 - np.hypot(u, v) / radius + 0.22 * lumps
    film = _ramp(np.asarray(height, np.float32) * 4)
    rim = film * np.exp(-(((height - 0.22) / 0.12) ** 2))
    return np.asarray(-_strength(rng) * part.picture * (0.25 * film + 0.10 * rim), np.float32)


_DEFECT_PAINTERS: dict[str, Callable[[np.random.Generator, _Part], Grey]] = dict(
    zip(DEFECT_KINDS, (_scratch, _dent, _stain), strict=True)
)
