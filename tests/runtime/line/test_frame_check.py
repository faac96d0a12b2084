from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from onspect.runtime.images.quality import measure, span
from onspect.runtime.line.frame_check import FrameCheck, Health, limits_for
from onspect.runtime.model.schema import Appearance

NOISE = np.random.default_rng(0).integers(60, 200, (32, 32, 1)).astype(np.uint8)
SEEN = span([NOISE])


def refusal(picture: np.ndarray, health: Health | None = None, appearance: Appearance | None = SEEN) -> str:
    """Return why a gate refuses a picture, "" where it does not."""
    health = health or Health()
    return str(FrameCheck(health).find_fault(picture, limits_for(health, appearance), picture) or "")


def test_a_picture_like_training_passes() -> None:
    """A picture as bright and sharp as training images is not refused, nor one somewhat darker."""
    assert refusal(NOISE) == ""
    assert refusal((NOISE * 0.7).astype(np.uint8)) == ""


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda picture: np.zeros_like(picture), "black"),
        (lambda picture: np.full_like(picture, 255), "saturated"),
        (lambda picture: picture // 4, "brightness is"),
        (lambda picture: cv2.GaussianBlur(picture, (0, 0), 3)[:, :, None], "blurred"),
    ],
)
def test_a_picture_that_training_never_saw_is_refused(spoil: Callable[..., np.ndarray], reason: str) -> None:
    """Black, white, dark and blurred pictures are refused with their reason."""
    assert reason in refusal(spoil(NOISE))


def test_without_training_images_only_black_and_white_are_refused() -> None:
    """A model file of an older release has no limits of brightness and sharpness, unless the configuration has."""
    dark = NOISE // 4
    assert refusal(dark, appearance=None) == ""
    assert "black" in refusal(np.zeros_like(NOISE), appearance=None)
    assert "brightness is" in refusal(dark, Health(brightness=(50, 200)), appearance=None)
    assert "blurred" in refusal(np.full_like(NOISE, 100), Health(sharpness=1.0), appearance=None)


def test_configured_limits_win_over_the_trained_ones() -> None:
    """Limits in the configuration replace those of the training images."""
    dark = NOISE // 4
    assert "brightness is" in refusal(dark)
    assert refusal(dark, Health(brightness=(0, 255), sharpness=0)) == ""


def test_black_parts_pass_where_training_saw_black_ones() -> None:
    """If training images are black, a black picture is not a fault; the same for white ones."""
    for value in (0, 255):
        picture = np.full_like(NOISE, value)
        assert refusal(picture, appearance=span([picture, NOISE])) == ""


def test_a_picture_that_stands_still_is_refused_from_the_configured_repetition_on() -> None:
    """Equal pictures in a row are counted, and a new one ends the count."""
    gate, health = FrameCheck(Health(identical=2)), Health()
    limits = limits_for(health, None)
    assert gate.find_fault(NOISE, limits, NOISE) is None
    assert gate.find_fault(NOISE.copy(), limits, NOISE) is None
    assert "2 frames in a row" in str(gate.find_fault(NOISE.copy(), limits, NOISE))
    assert gate.frozen_for > 0
    other = NOISE + 1
    assert gate.find_fault(other, limits, other) is None
    assert gate.frozen_for == 0


def test_a_picture_may_stand_still_where_the_configuration_says_so() -> None:
    """identical = 0 lets equal pictures pass."""
    gate = FrameCheck(Health(identical=0))
    for _ in range(3):
        assert gate.find_fault(NOISE, limits_for(Health(), None), NOISE) is None


def test_a_wrong_size_is_refused() -> None:
    """A frame of another size than the configured one is refused with both."""
    assert "32x32 pixels, and the configuration says 640x32" in refusal(NOISE, Health(width=640))
    assert refusal(NOISE, Health(width=32, height=32)) == ""


def test_sharpness_falls_with_blur_and_brightness_is_the_mean() -> None:
    """Measured brightness is the mean over all channels, and blur lowers sharpness steadily."""
    picture = np.repeat(NOISE, 3, axis=2)
    brightness, sharpness = measure(picture)
    assert brightness == pytest.approx(picture.mean())
    blurs = [measure(cv2.GaussianBlur(picture, (0, 0), sigma))[1] for sigma in (0.5, 1, 2, 4)]
    assert sorted([sharpness, *blurs], reverse=True) == [sharpness, *blurs]


def test_a_camera_that_changes_its_size_is_a_fault() -> None:
    """Frames of another size than a camera's first are faults; files of a folder may have any."""
    first, other = np.full((16, 16), 128, np.uint8), np.full((16, 32), 128, np.uint8)
    limits = limits_for(Health(), None)
    camera, files = FrameCheck(Health(identical=0), keeps_size=True), FrameCheck(Health(identical=0))
    for check, code in ((camera, "resolution"), (files, None)):
        faults = [check.find_fault(frame, limits, first[..., None]) for frame in (first, other, first)]
        assert [fault and fault.code for fault in faults] == [None, code, None]


@pytest.mark.parametrize(("value", "code"), [(0, "black"), (255, "saturated")])
def test_equal_black_frames_are_black_and_not_frozen(value: int, code: str) -> None:
    """A lens cap gives equal frames; the camera is connected, and is not opened again."""
    check, limits = FrameCheck(Health()), limits_for(Health(), None)
    empty, part = np.full((16, 16, 1), value, np.uint8), NOISE[:16, :16]
    faults = [check.find_fault(picture[..., 0], limits, picture) for picture in (empty, empty, empty, part, part)]
    assert [fault and fault.code for fault in faults] == [code, code, code, None, "frozen"]


def test_black_frames_do_not_count_as_standing_still() -> None:
    """While the frames are black, no time counts as frozen."""
    check, limits = FrameCheck(Health()), limits_for(Health(), None)
    black = np.zeros((16, 16, 1), np.uint8)
    for _ in range(3):
        assert check.find_fault(black[..., 0], limits, black) is not None
    assert check.frozen_for == 0.0
