"""A drawn conveyor: parts that pass a camera at changing speed, under changing light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Belt:
    """Position of each part in each frame of a drawn conveyor."""

    size: tuple[int, int]
    """Width and height of the frame, in pixels."""
    side: int
    """Side of a part, in pixels."""
    starts: NDArray[np.float64]
    """Position of each part's centre along the belt at the start, in pixels, float64 [parts]."""
    travel: NDArray[np.float64]
    """Position of the belt at each frame, in pixels, float64 [frames]. The x of a part in a frame is `travel` minus
    `starts`.
    """
    lights: NDArray[np.float64]
    """Brightness of each frame relative to the usual, float64 [frames]."""
    upside_down: NDArray[np.bool_]
    """Whether each part is upside down, bool [parts]."""
    turns: NDArray[np.float64]
    """Rotation of each part, in degrees, float64 [parts]."""
    seed: int = 0
    """Seed of the noise."""

    @property
    def frames(self) -> int:
        """Frames in all."""
        return len(self.travel)

    def places(self, frame: int) -> NDArray[np.float64]:
        """Return the x coordinate of each part's centre in a frame.

        Parameters
        ----------
        frame
            Number of the frame, from 0.

        Returns
        -------
        NDArray[np.float64]
            Coordinates in pixels, [parts]; they may be outside the frame.
        """
        return np.asarray(self.travel[frame] - self.starts)

    def draw(self, number: int) -> NDArray[np.uint8]:
        """Draw a frame.

        Parameters
        ----------
        number
            Number of the frame, from 0.

        Returns
        -------
        NDArray[np.uint8]
            Picture [height, width, 3], BGR.
        """
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
    """Return a belt with random gaps, speed and light.

    Parameters
    ----------
    parts
        Number of parts, 1 or more.
    size
        Width and height of the frame, in pixels.
    side
        Side of a part, in pixels.
    pixels
        Usual motion between frames, in pixels.
    speed, light
        Largest relative change of speed and of brightness, 0 to 1.
    upside_down
        Share of the parts that are upside down, 0 to 1.
    stops, stop_frames
        Number of stops of the belt, and frames of each stop.
    turn
        Largest rotation of a part, in degrees.
    seed
        Seed of all random numbers.

    Returns
    -------
    Belt
        The belt.
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
