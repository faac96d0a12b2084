from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.images.align import find_part
from onspect.runtime.images.fit_alignment import fit_alignment
from onspect.runtime.images.placement import Pose, place_at_pose
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.model.schema import Alignment, Preprocess, RegionOfInterest, SourceLimits

from ...moving_parts import draw_bracket, draw_scene

PATCH = (100, 60, 120, 120)
POSES = [(160.0, 120.0, 0.0), (150.0, 131.0, 20.0), (181.0, 118.0, -100.0), (140.5, 110.0, 170.0), (170.0, 125.0, 75.0)]


def fit(turn: float = 180.0, scale: float = 0.0, frames: list[NDArray[np.uint8]] | None = None) -> Alignment:
    frames = frames or [draw_scene(*pose, seed=number) for number, pose in enumerate(POSES)]
    readers = [functools.partial(np.asarray, frame) for frame in frames]
    return fit_alignment(readers, PATCH, picture=frames[0], turn=turn, scale=scale, white_level=65535)


@functools.cache
def fitted() -> Alignment:
    return fit()


@pytest.mark.parametrize("angle", [0.0, 3.0, 45.0, 90.0, 137.0, 180.0, -92.0, -179.0])
@pytest.mark.parametrize(("x", "y"), [(160.0, 120.0), (224.0, 96.0), (98.3, 165.7)])
def test_part_is_found_wherever_it_is(x: float, y: float, angle: float) -> None:
    """Shifts of 20% of the frame and all rotations are found, to half a pixel and half a degree."""
    pose = find_part(draw_scene(x, y, angle, seed=9), fitted(), 65535)
    assert np.hypot(pose.x - x, pose.y - y) < 0.5
    assert abs((pose.angle - angle + 180.0) % 360.0 - 180.0) < 0.5
    assert -180.0 < pose.angle <= 180.0
    assert pose.confidence > fitted().confidence


def draw_holder(seed: int, side: int, line: int) -> NDArray[np.uint8]:
    """Draw a part of thin lines around a texture that differs from part to part, uint8 [side, side]."""
    rng = np.random.default_rng(seed)
    part = np.full((side, side), 25, np.uint8)
    left, top, right, bottom = round(0.02 * side), round(0.165 * side), round(0.976 * side), round(0.83 * side)
    cv2.rectangle(part, (left, top), (right, bottom), (220,), line)
    cv2.rectangle(part, (round(0.16 * side), top - line), (round(0.28 * side), top + line), (25,), -1)
    gap = round(0.044 * side)
    inside = part[top + gap : bottom - gap, left + gap : right - gap]
    streaks = cv2.GaussianBlur(rng.integers(0, 256, inside.shape, np.uint8), (0, 0), 1, sigmaY=20)
    inside[:] = cv2.normalize(streaks, None, 40, 200 if side > 200 else 140, cv2.NORM_MINMAX)
    return part


@pytest.mark.slow
@pytest.mark.parametrize(("side", "line"), [(248, 10), (144, 3)])
def test_thin_lines_are_found_between_the_angles_of_the_coarse_search(side: int, line: int) -> None:
    """A part whose lines are thinner than half an angle's step at its ends is found, and not turned by 180 degrees."""
    width, height = (640, 480) if side > 200 else (320, 240)
    frames = [
        draw_scene(width / 2, height / 2, 0, size=(width, height), seed=seed, part=draw_holder(seed, side, line))
        for seed in range(6)
    ]
    readers = [functools.partial(np.asarray, frame) for frame in frames]
    high = round(0.71 * side)
    patch = ((width - side) // 2, (height - high) // 2, side, high)
    alignment = fit_alignment(readers, patch, picture=frames[0], turn=180.0, scale=0.0, white_level=65535)
    for seed in (0, 54, 69, 142, 153, 170, 222, 223, 238, 268, *range(1, 20)):
        rng = np.random.default_rng([5, seed])
        x, y, angle = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.35, 0.65), rng.uniform(-180, 180)
        frame = draw_scene(x, y, angle, size=(width, height), seed=seed, part=draw_holder(seed, side, line))
        pose = find_part(frame, alignment, 65535)
        assert abs((pose.angle - angle + 180.0) % 360.0 - 180.0) < 1.0
        assert np.hypot(pose.x - x, pose.y - y) < 1.0


def test_defective_part_is_found() -> None:
    """A defect is no reason not to find the part."""
    pose = find_part(draw_scene(200.0, 100.0, 33.0, part=draw_bracket(defect=True)), fitted(), 65535)
    assert (round(pose.x), round(pose.y), round(pose.angle)) == (200, 100, 33)


@pytest.mark.parametrize("kind", ["empty", "flat", "other part", "texture"])
def test_frame_without_the_part_is_a_fault(kind: str) -> None:
    """Nothing, no contrast, another part and a texture are not found, and the reason has both figures."""
    rng = np.random.default_rng(4)
    frames = {
        "empty": draw_scene(160, 120, 0, part=np.zeros((120, 120), np.uint8)),
        "flat": np.full((240, 320), 90, np.uint8),
        "other part": cv2.circle(draw_scene(160, 120, 0, part=np.zeros((9, 9), np.uint8)), (160, 120), 50, (200,), -1),
        "texture": cv2.GaussianBlur(rng.integers(0, 256, (240, 320), np.uint8), (0, 0), 6),
    }
    with pytest.raises(ImageError, match=r"part not found: .* correlates -?0\.\d\d .* and 0\.\d\d is needed"):
        find_part(frames[kind], fitted(), 65535)


@pytest.mark.parametrize("defect", [False, True])
def test_two_parts_in_view_are_a_fault(defect: bool) -> None:
    """A second part would not be judged, whether it is good or defective: both places are named."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y, angle = rng.uniform([65, 70, -180], [90, 170, 180])
        frame = draw_scene(x, y, angle, light=0)
        u, v, turn = rng.uniform([230, 70, -180], [255, 170, 180])
        frame[:, 160:] = draw_scene(u, v, turn, light=0, seed=1, part=draw_bracket(defect=defect))[:, 160:]
        with pytest.raises(ImageError, match=r"two parts are in view: at \d+,\d+ and \d+,\d+") as caught:
            find_part(frame, fitted(), 65535)
        assert caught.value.code == "position"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 500), (59, 59), (60, 60), (60, 3000)])
def test_frame_of_any_size_is_answered(height: int, width: int) -> None:
    """A frame that is too small for the part is a fault with its size."""
    with pytest.raises(ImageError) as caught:
        find_part(np.zeros((height, width), np.uint8), fitted(), 65535)
    if height < 60:
        assert f"the frame of {width}x{height} pixels is smaller than half of the reference patch of 120x120" in str(
            caught.value
        )
    assert caught.value.code == ("size" if height < 60 else "position")


def test_reference_that_repeats_is_refused() -> None:
    """A patch that occurs twice in the good pictures does not determine the position."""
    frames = [draw_scene(90.0, 120.0, 0.0, seed=seed, light=0) for seed in range(5)]
    for seed, frame in enumerate(frames):
        frame[:, 160:] = draw_scene(240.0, 110.0, 20.0, seed=seed + 9, light=0)[:, 160:]
    readers = [functools.partial(np.asarray, frame) for frame in frames]
    with pytest.raises(DatasetError, match=r"and other places 0\.9"):
        fit_alignment(readers, (30, 60, 120, 120), picture=frames[0], turn=180, scale=0, white_level=65535)


def test_rotation_is_limited() -> None:
    """With a largest rotation, a part that is turned further is not found: it was put in wrongly."""
    frames = [draw_scene(*pose[:2], 3.0 * number, seed=number) for number, pose in enumerate(POSES)]
    alignment = fit(turn=15.0, frames=frames)
    assert find_part(draw_scene(150, 110, 14.0), alignment, 65535).angle == pytest.approx(14.0, abs=0.5)
    for angle in (40.0, 180.0):
        with pytest.raises(ImageError, match="part not found"):
            find_part(draw_scene(150, 110, angle), alignment, 65535)


def test_scale_is_found_if_asked() -> None:
    """A part that is 8% larger is measured with scale, and its crop is that of the part at its usual size."""
    alignment = fit(scale=0.1)
    pose = find_part(draw_scene(170.0, 115.0, 60.0, scale=1.08), alignment, 65535)
    assert pose.scale == pytest.approx(1.08, abs=0.01)
    assert pose.angle == pytest.approx(60.0, abs=0.5)
    assert fitted().scale == 0.0
    assert find_part(draw_scene(170.0, 115.0, 60.0), fitted(), 65535).scale == 1.0


@pytest.mark.parametrize("kind", ["colour", "16 bit"])
def test_other_frames_are_searched_alike(kind: str) -> None:
    """Colour and 16-bit frames give the pose of the mono ones."""
    frame = draw_scene(190.0, 100.0, -60.0)
    other = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if kind == "colour" else frame.astype(np.uint16) * 16
    pose, wanted = find_part(other, fitted(), 4080), find_part(frame, fitted(), 65535)
    assert (pose.x, pose.y, pose.angle) == pytest.approx((wanted.x, wanted.y, wanted.angle), abs=0.05)


def test_large_reference_is_searched_on_a_smaller_frame() -> None:
    """The reference that is stored has at most 160 pixels a side, and poses are in pixels of the frame."""
    part = draw_bracket(400)
    frames = [draw_scene(500 + 20 * n, 400 - 9 * n, 50 * n, size=(1000, 800), seed=n, part=part) for n in range(3)]
    readers = [functools.partial(np.asarray, frame) for frame in frames]
    patch = (300, 200, 400, 400)
    alignment = fit_alignment(readers, patch, picture=frames[0], turn=180, scale=0, white_level=65535)
    assert len(alignment.reference) < 30_000
    pose = find_part(draw_scene(431.0, 377.0, 123.0, size=(1000, 800), part=part), alignment, 65535)
    assert np.hypot(pose.x - 431.0, pose.y - 377.0) < 1.5
    assert pose.angle == pytest.approx(123.0, abs=0.5)


def test_moved_part_gives_the_input_of_the_still_one() -> None:
    """The model's input of a moved part is nearly that of the part in the reference's place."""
    region = RegionOfInterest((110, 70, 100, 100), (320, 240))
    preprocess = Preprocess(100, 100, 1, 65535, SourceLimits((1,), None, None), region, fitted())
    still, moved = (
        prepare(draw_scene(*pose, seed=1), preprocess) for pose in [(160.0, 120.0, 0.0), (200.0, 95.0, 110.0)]
    )
    unaligned = prepare(draw_scene(200.0, 95.0, 110.0, seed=1), dataclasses.replace(preprocess, align=None))
    error, without = (np.abs(still.astype(int) - other).mean() for other in (moved, unaligned))
    assert error < 3.0
    assert without > 5 * error


@pytest.mark.parametrize(
    ("patch", "words"),
    [((300, 60, 100, 100), "does not fit"), ((100, 60, 8, 40), "at least 16 pixels"), ((0, 0, 40, 40), "no contrast")],
)
def test_reference_that_cannot_do_is_refused(patch: tuple[int, int, int, int], words: str) -> None:
    """A patch outside the picture, a tiny one and a flat one are refused."""
    frame = draw_scene(160.0, 120.0, 0.0)
    frame[:50, :50] = 7
    with pytest.raises(DatasetError, match=words):
        fit_alignment([lambda: frame], patch, picture=frame, turn=180, scale=0, white_level=65535)


def test_reference_that_tells_nothing_apart_is_refused() -> None:
    """If the pictures do not show the reference, the refusal says how well they correlate."""
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, (240, 320), np.uint8) for _ in range(4)]
    with pytest.raises(DatasetError, match=r"cannot be found by this reference: good parts correlate 0\.\d\d"):
        fit(frames=frames)


def test_pose_is_the_same_each_time() -> None:
    """The same frame gives exactly the same pose, independent of earlier searches."""
    frame = draw_scene(150.0, 130.0, 77.0)
    first = find_part(frame, fitted(), 65535)
    find_part(draw_scene(100.0, 100.0, 12.0), fitted(), 65535)
    assert find_part(frame.copy(), fitted(), 65535) == first


@pytest.mark.parametrize(
    ("angle", "wanted"),
    [(-0.001, "0.0"), (0.0, "0.0"), (-179.999, "180.0"), (180.0, "180.0"), (-12.344, "-12.34"), (77.777, "77.78")],
)
def test_angle_of_a_verdict_is_above_minus_180_and_never_minus_0(angle: float, wanted: str) -> None:
    """An angle that rounds to -180 or to -0 is written as 180 or 0."""
    assert str(Pose(1.0, 2.0, angle).rounded[2]) == wanted


def test_reason_of_a_cut_part_has_no_minus_0() -> None:
    """The reason names place and angle of a part that the frame cuts."""
    with pytest.raises(ImageError, match=r"found at 20,120, turned by 0 degrees"):
        place_at_pose(RegionOfInterest((110, 70, 100, 100), (320, 240)), PATCH, Pose(20.0, 120.0, -0.3), (320, 240))
