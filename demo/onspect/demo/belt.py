"""A drawn conveyor: parts that pass a camera at a changing speed, under changing light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Belt:
    """Where each part is in each frame.

    size: width and height of the frame. side: of a part, in pixels. starts: the place of each part's middle along the
    belt; a part is at start + travel. travel: of the belt at each frame, in pixels. lights: brightness of each frame.
    upside_down: for each part whether it lies so. drawn, plain: the part's picture and the belt's.
    """

    size: tuple[int, int]
    side: int
    starts: NDArray[np.float64]
    travel: NDArray[np.float64]
    lights: NDArray[np.float64]
    upside_down: NDArray[np.bool_]
    turns: NDArray[np.float64]
    seed: int = 0

    @property
    def frames(self) -> int:
        """Frames in all."""
        return len(self.travel)

    def places(self, frame: int) -> NDArray[np.float64]:
        """Return x of the middle of each part in a frame, float64 [parts]."""
        return np.asarray(self.travel[frame] - self.starts)

    def draw(self, number: int) -> NDArray[np.uint8]:
        """Draw a frame, uint8 [height, width, 3]."""
        width, height = self.size
        rng = np.random.default_rng((self.seed, number))
        picture = _texture(self.size).copy()
        y = height / 2.0
        for part in np.flatnonzero(np.abs(self.places(number) - width / 2) < width / 2 + self.side):
            x = self.places(number)[part]
            drawn = _draw_part(self.side, bool(self.upside_down[part]))
            middle = (self.side - 1) / 2.0
            matrix = cv2.getRotationMatrix2D((middle, middle), self.turns[part], 1.0)
            matrix[:, 2] += np.array([x - 0.5 - middle, y - 0.5 - middle])
            cv2.warpAffine(drawn, matrix, self.size, picture, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
        coarse = rng.integers(-4, 5, (height // 4, width // 4, 3)).astype(np.float32)
        noise = cv2.resize(coarse, self.size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(np.clip(picture * np.float32(self.lights[number]) + noise, 0, 255), np.uint8)


def make_belt(
    parts: int,
    *,
    size: tuple[int, int] = (320, 240),
    side: int = 90,
    pixels: float = 9.0,
    speed: float = 0.5,
    light: float = 0.2,
    upside_down: float = 0.03,
    stops: int = 0,
    stop_frames: int = 45,
    turn: float = 8.0,
    seed: int = 0,
) -> Belt:
    """Return a belt.

    pixels: usual motion a frame. speed, light: share by which speed and brightness change at most. upside_down: share
    of the parts. stops: how often the belt stops, for stop_frames each. turn: largest rotation, in degrees.
    """
    rng = np.random.default_rng(seed)
    gaps = side * rng.uniform(0.35, 2.2, parts)
    starts = np.concatenate([[side], side + np.cumsum(gaps[1:] + side)])
    end = starts[-1] + size[0] + 2 * side
    travel, position, count = [], 0.0, 0
    stopped = sorted(rng.uniform(0.05, 0.95, stops) * end)
    while position < end:
        if stopped and position >= stopped[0]:
            stopped.pop(0)
            travel += [position] * stop_frames
        position += pixels * (1.0 + speed * np.sin(count / 37.0))
        travel.append(position)
        count += 1
    frames = len(travel)
    lights = 1.0 + light * np.sin(np.arange(frames) / 53.0 + 1.0)
    flipped = np.zeros(parts, bool)
    flipped[rng.permutation(parts)[: round(upside_down * parts)]] = True
    return Belt(size, side, starts, np.array(travel), lights, flipped, rng.uniform(-turn, turn, parts), seed)


_CACHE: dict[object, NDArray[np.uint8]] = {}


def _texture(size: tuple[int, int]) -> NDArray[np.uint8]:
    if size not in _CACHE:
        rng = np.random.default_rng(7)
        coarse = rng.uniform(70, 100, (size[1] // 16, size[0] // 16, 3)).astype(np.float32)
        _CACHE[size] = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    return _CACHE[size]


def _draw_part(side: int, upside_down: bool) -> NDArray[np.uint8]:
    key = (side, upside_down)
    if key not in _CACHE:
        part = np.full((side, side, 3), (150, 165, 180), np.uint8)
        if upside_down:
            cv2.circle(part, (side // 2, side // 2), side // 3, (30, 40, 60), 3)
        else:
            cv2.circle(part, (side // 3, side // 3), side // 8, (40, 40, 40), -1)
            cv2.rectangle(part, (side // 2, side // 2), (side - 12, side - 18), (210, 200, 190), -1)
            cv2.line(part, (10, side - 12), (side // 2, side - 12), (60, 70, 60), 3)
        _CACHE[key] = part
    return _CACHE[key]
