from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import decode_image, read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.model.schema import Preprocess, SourceLimits

MONO = Preprocess(8, 4, 1, 65535, SourceLimits((1, 3), None, None))
COLOUR = dataclasses.replace(MONO, channels=3)

SCENE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC
)
JPEG = cv2.imencode(".jpg", SCENE)[1].tobytes()
THUMBNAIL = b"Exif\x00\x00" + cv2.imencode(".jpg", SCENE[::4, ::4])[1].tobytes()
FILES = {
    "jpg": JPEG,
    "progressive jpg": cv2.imencode(".jpg", SCENE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "jpg with a thumbnail": JPEG[:2] + b"\xff\xe1" + (len(THUMBNAIL) + 2).to_bytes(2, "big") + THUMBNAIL + JPEG[2:],
    "png": cv2.imencode(".png", SCENE)[1].tobytes(),
    "bmp": cv2.imencode(".bmp", SCENE)[1].tobytes(),
    "tif": cv2.imencode(".tif", SCENE)[1].tobytes(),
    "plain tif": cv2.imencode(".tif", SCENE, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes(),
    "webp": cv2.imencode(".webp", SCENE)[1].tobytes(),
    "pgm": cv2.imencode(".pgm", SCENE[:, :, 0])[1].tobytes(),
}


@pytest.mark.parametrize("kind", FILES)
def test_whole_file_is_read(kind: str) -> None:
    """A whole file of every kind is read with its height and width."""
    assert decode_image(FILES[kind]).shape[:2] == (60, 80)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97, 0.999])
@pytest.mark.parametrize("kind", FILES)
def test_cut_file_is_refused(kind: str, share: float) -> None:
    """A file of any kind that lacks its end is an error, never a partly grey image."""
    data = FILES[kind]
    words = "JPEG is truncated" if "jpg" in kind else "."  # found by us, since OpenCV 4 would paint the rest grey
    with pytest.raises(ImageError, match=words):
        decode_image(data[: min(len(data) - 1, int(len(data) * share))])


@pytest.mark.parametrize(("content", "reason"), [(b"", "0 bytes"), (b"no picture at all\n", "not a JPEG")])
def test_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """An empty file and text called .png raise ImageError that says so."""
    path = tmp_path / "part.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image(path)


def test_path_without_a_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and a path with a zero byte raise ImageError."""
    for path, reason in ((tmp_path / "none.png", "No such file"), (tmp_path, "Is a directory"), ("a\0b", "null byte")):
        with pytest.raises(ImageError, match=reason):
            read_image(path)


def test_path_with_spaces_and_umlauts_is_read(tmp_path: Path) -> None:
    """A file is read with any letters in its path."""
    path = tmp_path / "Prüfling 検査 [1].png"
    path.write_bytes(FILES["png"])
    np.testing.assert_array_equal(read_image(path), SCENE)


def test_alpha_channel_is_dropped() -> None:
    """A PNG with four channels is read as the three colours."""
    data = cv2.imencode(".png", np.dstack([SCENE, np.full(SCENE.shape[:2], 9, np.uint8)]))[1].tobytes()
    np.testing.assert_array_equal(decode_image(data), SCENE)


@pytest.mark.parametrize(
    ("value", "white_level", "expected"),
    [(4095, 4095, 255), (2048, 4095, 128), (4096, 4095, 255), (65535, 4095, 255), (65535, 65535, 255), (300, 65535, 1)],
)
def test_16_bit_values_are_scaled_by_the_white_level(value: int, white_level: int, expected: int) -> None:
    """A uint16 value becomes value * 255 / white_level, rounded, and 255 at most."""
    preprocess = dataclasses.replace(MONO, white_level=white_level)
    frame = np.zeros((4, 8), np.uint16)
    frame[0, 0] = value  # of few pixels, for a picture that is mostly above the white level is a fault
    assert prepare(frame, preprocess)[0, 0, 0] == expected


def test_depth_is_decided_by_dtype() -> None:
    """A dark uint16 frame stays dark, and a uint8 frame is never scaled, for any maximum."""
    assert prepare(np.full((4, 8), 255, np.uint16), MONO).max() == 1
    assert prepare(np.full((4, 8), 7, np.uint8), MONO).max() == 7


def test_16_bit_file_keeps_its_depth() -> None:
    """A 16-bit PNG is read as uint16 with its values."""
    frame = np.arange(32, dtype=np.uint16).reshape(4, 8) * 2000
    np.testing.assert_array_equal(decode_image(cv2.imencode(".png", frame)[1].tobytes()), frame)


def test_colour_is_converted_for_a_mono_model_whatever_it_was_trained_on() -> None:
    """A model of mono images takes colour by the documented weights, and grey in three channels as grey."""
    preprocess = dataclasses.replace(MONO, source=SourceLimits((1,), None, None))
    grey = np.arange(32, dtype=np.uint8).reshape(4, 8) * 8
    np.testing.assert_array_equal(prepare(np.dstack([grey] * 3), preprocess), prepare(grey, preprocess))
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(prepare(np.dstack([deep] * 3), preprocess), prepare(deep, preprocess))
    red = np.zeros((4, 8, 3), np.uint8)
    red[:, :, 2] = 100
    assert (prepare(red, preprocess) == 30).all()


def test_unexpected_channels_are_refused() -> None:
    """A mono image for a model of colour images, and four channels, raise ImageError with both counts."""
    colour = dataclasses.replace(MONO, channels=3, source=SourceLimits((3,), None, None))
    with pytest.raises(ImageError, match="has 1 channel, the model takes images with 3;"):
        prepare(np.zeros((4, 8), np.uint8), colour)
    both = dataclasses.replace(colour, source=SourceLimits((1, 3), None, None))
    assert prepare(np.zeros((4, 8), np.uint8), both).shape == (4, 8, 3)
    with pytest.raises(ImageError, match="has 4 channels"):
        prepare(np.zeros((4, 8, 4), np.uint8), MONO)


def test_values_above_the_white_level_are_a_fault() -> None:
    """12 bits at the upper end of 16 are not those of a camera that puts them at the lower end."""
    preprocess = dataclasses.replace(MONO, white_level=4095)
    assert prepare(np.full((4, 8), 4095, np.uint16), preprocess).min() == 255
    with pytest.raises(ImageError, match="more than half of the image is above the model's white level, 4095"):
        prepare(np.full((4, 8), 4095 << 4, np.uint16), preprocess)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((30, 99), "99x30 pixels.*100 to 120 pixels wide"), ((31, 100), "100x31 pixels.*images 30 pixels high")],
)
def test_unexpected_size_is_refused(shape: tuple[int, int], message: str) -> None:
    """An image just outside the accepted widths or heights raises ImageError with the values."""
    preprocess = dataclasses.replace(MONO, source=SourceLimits((1,), (100, 120), (30, 30)))
    with pytest.raises(ImageError, match=message):
        prepare(np.zeros(shape, np.uint8), preprocess)


@pytest.mark.parametrize("width", [100, 120])
def test_limits_of_the_size_are_accepted(width: int) -> None:
    """The lowest and the highest accepted width are both accepted."""
    preprocess = dataclasses.replace(MONO, source=SourceLimits((1,), (100, 120), (30, 30)))
    assert prepare(np.zeros((30, width), np.uint8), preprocess).shape == (4, 8, 1)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 8), np.float32), "dtype is float32"),
        (np.zeros((4, 8), np.bool_), "dtype is bool"),
        ([[0, 1]], "is list, not a numpy array"),
        (np.zeros(8, np.uint8), r"shape is \(8,\)"),
        (np.zeros((0, 8), np.uint8), r"shape is \(0, 8\)"),
        (np.zeros((1, 4, 8, 3), np.uint8), "shape is"),
    ],
)
def test_what_is_no_frame_is_refused(frame: NDArray[np.uint8], message: str) -> None:
    """Floats, booleans, lists, empty arrays and wrong shapes raise ImageError that names what came."""
    with pytest.raises(ImageError, match=message):
        prepare(frame, MONO)


def test_colour_order_is_kept() -> None:
    """Blue stays the first channel of a colour input."""
    frame = np.zeros((4, 8, 3), np.uint8)
    frame[:, :, 0] = 200
    assert prepare(frame, COLOUR)[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(("channel", "weight"), [(0, 0.114), (1, 0.587), (2, 0.299)])
def test_colour_becomes_mono_by_its_weights(channel: int, weight: float) -> None:
    """Blue, green and red count 0.114, 0.587 and 0.299."""
    frame = np.zeros((4, 8, 3), np.uint8)
    frame[:, :, channel] = 255
    assert prepare(frame, MONO)[0, 0, 0] == round(255 * weight)


def test_mono_becomes_colour_by_repetition() -> None:
    """A mono frame, with or without its channel axis, gives three equal channels."""
    frame = np.arange(32, dtype=np.uint8).reshape(4, 8)
    for shaped in (frame, frame[:, :, None]):
        np.testing.assert_array_equal(prepare(shaped, COLOUR), np.dstack([frame] * 3))


def test_frame_of_the_working_size_is_not_touched() -> None:
    """A frame that has the working size passes bit for bit."""
    frame = np.arange(32, dtype=np.uint8).reshape(4, 8)
    np.testing.assert_array_equal(prepare(frame, MONO)[:, :, 0], frame)


def test_shrinking_averages_areas() -> None:
    """Each pixel of a shrunken frame is the mean of the area it represents."""
    frame = np.zeros((16, 32), np.uint8)
    frame[::4, ::4] = 160  # by halves, areas and straight lines would come to the same
    assert np.unique(prepare(frame, MONO)).tolist() == [10]


@pytest.mark.parametrize("size", [(16, 8), (15, 8), (14, 7), (64, 30), (100, 60), (8, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_halving_first_changes_little(size: tuple[int, int], dtype: type[np.uint8 | np.uint16]) -> None:
    """For smooth pictures of any size, shrinking by halves gives the same as one step."""
    slope = np.add.outer(np.linspace(0, 90, size[1]), np.linspace(0, 90, size[0])).astype(dtype)
    once = cv2.resize(slope, (MONO.width, MONO.height), interpolation=cv2.INTER_AREA)
    prepared = prepare(slope, dataclasses.replace(MONO, white_level=255))[:, :, 0]
    np.testing.assert_allclose(prepared.astype(int), once.astype(int), atol=2)


def test_a_thin_line_survives_shrinking_wherever_it_lies() -> None:
    """Each row of 32x28 counts nearly alike for 16x16, half of 28 being less than 16: none falls between two rows."""
    preprocess = dataclasses.replace(MONO, width=16, height=16)
    for row in range(28):
        frame = np.zeros((28, 32), np.uint8)
        frame[row] = 200
        assert 100 <= prepare(frame, preprocess)[:, 0].astype(int).sum() <= 130  # 16/28 of 200, at any place


def test_enlarging_is_bilinear() -> None:
    """Between two pixels an enlarged frame rises in steps."""
    row = prepare(np.array([[0, 240]], np.uint8), MONO)[0, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert 60 < row[4] < 180


def test_result_is_contiguous_uint8() -> None:
    """Any view, mirrored or of one channel, gives a contiguous uint8 input."""
    for view in (SCENE[::-1, ::-1], SCENE[:, :, 1], SCENE[10:14, 10:18], SCENE.transpose(1, 0, 2)):
        prepared = prepare(view, MONO)
        assert prepared.flags.c_contiguous
        assert (prepared.dtype, prepared.shape) == (np.uint8, (4, 8, 1))
