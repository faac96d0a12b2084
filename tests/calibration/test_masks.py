"""Masks of all kinds: read right, or refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.calibration.masks import read_mask
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ImageError

from ..image_makers import make_png, make_tiff

Mask = NDArray[Any]

TRUE = np.zeros((20, 32), np.bool_)
TRUE[4:9, 10:17] = True
WHITE = TRUE * np.uint8(255)


def _read(tmp_path: Path, *files: bytes, height: int = 20, width: int = 32) -> Mask:
    paths = []
    for number, data in enumerate(files):
        paths.append(tmp_path / f"{number}.png")  # OpenCV goes by the content
        paths[-1].write_bytes(data)
    return read_mask(LabelledImage(tmp_path / "x.png", "dent", paths[0], tuple(paths[1:])), height, width)


def _jpeg(mask: Mask) -> bytes:
    return cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        make_png(WHITE, 0),
        make_png(TRUE.astype(np.uint8), 0),
        make_png(TRUE * np.uint8(3), 0),
        make_png(TRUE * np.uint16(255), 0),
        make_png(TRUE * np.uint16(65535), 0),
        make_png(TRUE * np.uint16(1), 0),
        make_png(TRUE.astype(np.uint8), 0, bits=1),
        make_png(TRUE.astype(np.uint8), 3, palette=bytes([0, 0, 0, 120, 0, 0])),
        make_png(TRUE.astype(np.uint8), 3, bits=1, palette=bytes([0, 0, 0, 0, 0, 9])),
        make_png(np.dstack([TRUE * np.uint8(0), TRUE * np.uint8(0), TRUE * np.uint8(200)]), 2),
        make_png(np.dstack([np.zeros((20, 32, 3), np.uint8), WHITE]), 6),
        make_png(np.dstack([WHITE, np.full_like(WHITE, 255)]), 4),
        make_tiff(WHITE),
        make_tiff(TRUE * np.uint16(7), compression=5),
        make_tiff((~TRUE).astype(np.uint8), bits=1, photometric=0),
        cv2.imencode(".bmp", WHITE)[1].tobytes(),
        _jpeg(cv2.resize(WHITE, (128, 80), interpolation=cv2.INTER_NEAREST)),
    ],
    ids=[
        "255", "1", "3", "16 bit 255", "16 bit 65535", "16 bit 1", "1 bit", "palette", "1-bit palette", "red", "alpha",
        "grey and alpha", "tiff", "tiff lzw 7", "white is zero", "bmp", "jpeg four times as large",
    ],
)  # fmt: skip
def test_masks_of_all_kinds_mark_the_same(tmp_path: Path, data: bytes) -> None:
    """Ones, classes, 16 bits, palettes, colours, alpha and other formats are read as masks."""
    np.testing.assert_array_equal(_read(tmp_path, data), TRUE)


def test_several_classes_and_several_masks_are_joined(tmp_path: Path) -> None:
    """Every class of a mask, and every mask of an image, is a defect; LOCO marks with 100 and 255."""
    other = np.zeros_like(TRUE)
    other[15:18, 2:6] = True
    classes = TRUE * np.uint8(100) + other * np.uint8(255)
    np.testing.assert_array_equal(_read(tmp_path, make_png(classes, 0)), TRUE | other)
    np.testing.assert_array_equal(_read(tmp_path, make_png(WHITE, 0), make_png(other * np.uint8(1), 0)), TRUE | other)


def test_scaled_masks_are_read(tmp_path: Path) -> None:
    """A mask of half the size in both directions has its image's shape, and marks as many of its pixels."""
    even = np.zeros((20, 32), np.uint8)
    even[4:10, 8:16] = 255
    half = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(_read(tmp_path, make_png(half, 0)), even > 0)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (WHITE[:13], "the mask is 32x13 pixels, its image 32x20"),
        (WHITE[::2], "the mask is 32x10 pixels"),
        (WHITE.T.copy(), "turned by a quarter"),
        (255 - WHITE, "is it inverted"),
    ],
)
def test_masks_of_another_shape_or_inverted_are_refused(tmp_path: Path, mask: Mask, words: str) -> None:
    """A mask is not stretched over its image, and what marks nearly all is not a defect."""
    with pytest.raises(ImageError, match=words):
        _read(tmp_path, make_png(np.ascontiguousarray(mask), 0))


def test_a_defect_over_most_of_the_image_is_read(tmp_path: Path) -> None:
    """A mask that is all white, or nearly all but touching one edge only, is one."""
    assert _read(tmp_path, make_png(np.full((20, 32), 255, np.uint8), 0)).all()
    wide = np.full((20, 32), 255, np.uint8)
    wide[:, :6] = 0
    assert _read(tmp_path, make_png(wide, 0)).mean() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_wrong_masks_are_warned_of_on_the_command_line(
    onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, command: str
) -> None:
    """Empty masks, masks of another shape and missing ones are each one line."""
    random = np.random.default_rng(0)
    split = "test" if command == "evaluate" else "val"
    masks = [WHITE, WHITE * 0, WHITE[:13], None]
    for number in range(4):
        for kind, level in (("good", 128), ("dent", 250)):
            path = tmp_path / f"parts/{split}/{kind}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_png(random.integers(level, level + 4, (20, 32)).astype(np.uint8), 0))
        if (mask := masks[number]) is not None:
            path = tmp_path / f"parts/ground_truth/dent/{number}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_png(np.ascontiguousarray(mask), 0))
    if command == "calibrate":
        result = onspect("calibrate", calibrated, tmp_path / "parts", "--pixel-f1")
        assert "1 mask cannot be used" in result.stderr
        return
    result = onspect("evaluate", calibrated, tmp_path / "parts", "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "1 of 3 masks cannot be used, such as" in result.stderr
    assert "1 mask of a defective image is empty, such as" in result.stderr
    assert "1 of 4 defective image has no mask" in result.stderr
    pixel = json.loads((tmp_path / "report/metrics.json").read_text())["pixel"]
    assert pixel["images_with_mask"] == 1


_VOID = np.where(TRUE, 1, 0).astype(np.uint8)
_VOID[3] = _VOID[9] = 255  # the value of ignored pixels in Pascal VOC
_RAMP = (np.arange(640) % 250).reshape(20, 32).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (make_png(np.where(TRUE, 255, 128).astype(np.uint8), 0), "no black background"),
        (make_png(np.where(TRUE, 255, 254).astype(np.uint8), 0), "no black background"),
        (make_png(TRUE.astype(np.uint8), 3, palette=bytes([255, 255, 255, 255, 0, 0])), "no black background"),
        (make_png(TRUE.astype(np.uint8), 3, palette=bytes([128, 0, 0, 0, 128, 0])), "no black background"),
        (make_png(np.full((20, 32), 128, np.uint8), 0), "has the value 128 everywhere"),
        (make_png(_VOID, 0), "the values 1 and 255, and it is not known"),
        (make_png(_RAMP, 0), "has 250 values, like a photo"),
        (_jpeg(np.random.default_rng(0).integers(0, 4, (20, 32)).astype(np.uint8)), "like noise"),
        (make_png(np.full((1, 1), 255, np.uint8), 0), "the mask is 1x1 pixels"),
        (make_tiff(TRUE * np.uint16(1), extra={339: ("H", [3])}), "floating-point"),
    ],
    ids=["grey ground", "254 and 255", "white ground", "two dark colours", "all 128", "void 255", "ramp", "jpeg noise",
         "one pixel", "float"],
)  # fmt: skip
def test_masks_that_do_not_say_what_is_defective_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """If the values may mean one thing or another, nothing is guessed."""
    with pytest.raises(ImageError, match=words):
        _read(tmp_path, data)


def test_a_png_that_was_a_jpeg_before_is_read(tmp_path: Path) -> None:
    """Noise near black and near white marks nothing, also where it has few values."""
    noise = np.random.default_rng(0).integers(-4, 5, TRUE.shape)
    np.testing.assert_array_equal(_read(tmp_path, make_png((np.where(TRUE, 250, 4) + noise).astype(np.uint8), 0)), TRUE)


@pytest.mark.slow
@pytest.mark.parametrize("turn", ["as they are", "transposed", "mirrored left to right", "turned by half"])
def test_turned_masks_are_named(onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, turn: str) -> None:
    """Masks of square images that were turned fit no error map; a single mask does not show this."""
    turned: dict[str, Callable[[Mask], Mask]] = {
        "transposed": np.transpose,
        "mirrored left to right": np.fliplr,
        "turned by half": lambda mask: mask[::-1, ::-1],
    }
    random = np.random.default_rng(3)
    for number in range(10):
        picture = random.integers(125, 131, (16, 16)).astype(np.uint8)
        for kind in ("good", "dent"):
            mask = np.zeros((16, 16), np.uint8)
            if kind == "dent":
                row, column = int(random.integers(0, 4)), int(random.integers(9, 12))
                mask[row : row + 3, column : column + 4] = 255
            path = tmp_path / f"parts/test/{kind}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_png(np.where(mask > 0, 250, picture + (kind == "dent")).astype(np.uint8), 0))
            if kind == "dent":
                truth = tmp_path / f"parts/ground_truth/test/dent/{number}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                truth.write_bytes(make_png(np.ascontiguousarray(turned.get(turn, lambda one: one)(mask)), 0))
    result = onspect("evaluate", calibrated, tmp_path / "parts", "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert ("the masks fit the error maps better" in result.stderr) == (turn != "as they are")
    assert turn == "as they are" or f"if they are {turn}" in result.stderr
