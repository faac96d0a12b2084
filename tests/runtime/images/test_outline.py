"""The outline of a part on a plain ground."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.images.outline import box_without_border, outline_part

from ...moving_parts import draw_bracket, draw_scene


def draw_outlined(frame: NDArray[np.uint8] | NDArray[np.uint16], white_level: int = 65535) -> NDArray[np.uint8]:
    outline = outline_part(frame, white_level)
    assert outline is not None
    return cv2.fillPoly(np.zeros(frame.shape[:2], np.uint8), [np.array(outline)], (255,))


@pytest.mark.parametrize("kind", ["mono", "colour", "12 bits", "large"])
def test_outline_contains_the_part_and_little_else(kind: str) -> None:
    """The outline contains the whole part with a small margin, at each size and bit depth."""
    scale = 4 if kind == "large" else 1
    size = (320 * scale, 240 * scale)
    part = draw_bracket(120 * scale)
    frame = draw_scene(170.0 * scale, 110.0 * scale, 30.0, size=size, part=part)
    mask = draw_scene(170.0 * scale, 110.0 * scale, 30.0, size=size, part=(part > 0).astype(np.uint8) * 255, light=0)
    if kind == "colour":
        inside = draw_outlined(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    elif kind == "12 bits":
        inside = draw_outlined(frame.astype(np.uint16) * 16, 4095)
    else:
        inside = draw_outlined(frame)
    assert (inside[mask > 200] > 0).mean() > 0.999
    assert 1.0 < (inside > 0).sum() / (mask > 200).sum() < 1.8


def test_no_outline_where_it_is_not_sure() -> None:
    """An empty frame, a part at the border, two parts, a speck and a rough ground have none."""
    rng = np.random.default_rng(3)
    empty = draw_scene(160, 120, 0, part=np.zeros((120, 120), np.uint8))
    two = cv2.circle(cv2.circle(empty.copy(), (80, 120), 40, (200,), -1), (240, 120), 40, (200,), -1)
    rough = cv2.GaussianBlur(rng.integers(0, 256, (240, 320), np.uint8), (0, 0), 2)
    rough = cv2.normalize(rough, None, 0, 255, cv2.NORM_MINMAX)
    speck = cv2.circle(empty.copy(), (160, 120), 10, (200,), -1)
    for frame in (empty, draw_scene(30, 120, 0), two, speck, rough, np.full((2, 2), 9, np.uint8)):
        assert outline_part(frame, 65535) is None
    assert box_without_border(empty) == (32, 24, 256, 192)
