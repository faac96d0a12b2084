"""Damaged videos: frames that FFmpeg repairs are faults, and intact ones are judged."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.sources.registry import open_source
from onspect.runtime.sources.video import add_tables

from ...image_makers import draw_scene, make_jpeg

FRAMES = 40


def _film(path: Path, codec: str, *, frames: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (96, 64))
    assert writer.isOpened()
    scene = draw_scene(64, 96)
    for number in range(frames):
        frame = scene.copy()
        cv2.circle(frame, (8 + 2 * number, 30), 6, (0, 0, 255), -1)
        writer.write(frame)
    writer.release()
    return path


def _read(path: Path) -> list[Frame | ImageError]:
    return [capture.frame for capture in open_source(str(path))]


def _damage(path: Path, seed: int, *, count: int = 6) -> None:
    data, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for _ in range(count):
        place = int(random.integers(len(data) // 4, len(data) * 7 // 8))
        data[place : place + 8] = random.bytes(8)
    path.write_bytes(bytes(data))


CODECS = ["FFV1", "XVID", "mp4v", "MJPG", "MPNG"]


@pytest.mark.parametrize("codec", CODECS)
def test_whole_video_is_read_as_opencv_reads_it(tmp_path: Path, codec: str) -> None:
    """Every frame is there, with OpenCV's pixels."""
    path = _film(tmp_path / "x.avi", codec)
    frames = _read(path)
    assert len(frames) == FRAMES
    capture = cv2.VideoCapture(str(path))
    for frame in frames:
        assert not isinstance(frame, ImageError), frame
        difference = np.abs(frame.astype(int) - capture.read()[1].astype(int))
        assert difference.mean() < (8.0 if codec == "MJPG" else 0.5)  # FFmpeg enlarges JPEG's colours otherwise


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("codec", ["FFV1", "MPNG"])
def test_no_damaged_frame_is_judged(tmp_path: Path, codec: str, seed: int) -> None:
    """What differs from the whole video is a fault at its place, up to the next key frame."""
    path = _film(tmp_path / "x.avi", codec)
    whole = _read(path)
    _damage(path, seed)
    frames = _read(path)
    assert len(frames) == FRAMES
    assert any(isinstance(frame, ImageError) for frame in frames)
    for frame, right in zip(frames, whole, strict=True):
        assert isinstance(frame, ImageError) or np.array_equal(frame, right)


@pytest.mark.parametrize("codec", ["XVID", "mp4v"])
def test_what_ffmpeg_patches_in_mpeg_4_is_a_fault(tmp_path: Path, codec: str) -> None:
    """A hole in a key frame makes faults of all frames that depend on it, and the frames after the next are judged."""
    path = _film(tmp_path / "x.avi", codec)
    whole = _read(path)
    data = path.read_bytes()
    starts = [place for place in range(len(data) - 8) if data[place : place + 4] == b"\0\0\x01\xb6"]
    keys = [place for place in starts if not data[place + 4] >> 6]  # of type I
    assert len(keys) >= 3
    path.write_bytes(data[: keys[1] + 200] + bytes(300) + data[keys[1] + 500 :])
    frames = _read(path)
    first, second = (starts.index(place) for place in keys[1:3])
    assert len(frames) == FRAMES
    for number, (frame, right) in enumerate(zip(frames, whole, strict=True)):
        assert isinstance(frame, ImageError) == (first <= number < second), number
        assert isinstance(frame, ImageError) or np.array_equal(frame, right)


@pytest.mark.parametrize(("codec", "warned"), [("HFYU", True), ("mp4v", False), ("MJPG", False)])
def test_codecs_without_checks_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str, warned: bool
) -> None:
    """If FFmpeg notices hardly any damage, that is reported once."""
    assert len(_read(_film(tmp_path / "x.avi", codec, frames=3))) == 3
    assert ("is not noticed; record FFV1 or motion JPEG instead" in caplog.text) == warned


def test_motion_jpeg_is_checked_as_files_are(tmp_path: Path) -> None:
    """A hole in a picture of a motion JPEG video is a fault, without any further package."""
    path = _film(tmp_path / "x.avi", "MJPG")
    data = bytearray(path.read_bytes())
    place = data.find(b"\xff\xda", len(data) // 2)
    data[place + 100 : place + 300] = bytes(200)
    path.write_bytes(bytes(data))
    frames = _read(path)
    assert len(frames) == FRAMES
    assert sum(isinstance(frame, ImageError) for frame in frames) == 1


def test_motion_jpeg_without_tables_is_read() -> None:
    """Webcams leave out the standard Huffman tables."""
    data = make_jpeg(draw_scene())
    start, end = data.find(b"\xff\xc4"), data.find(b"\xff\xda")
    bare = bytearray(data[:start])
    place = start
    while place < end:
        length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        bare += b"" if data[place + 1] == 0xC4 else data[place : place + length]
        place += length
    bare += data[end:]
    found = cv2.imdecode(np.frombuffer(add_tables(bytes(bare)), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(found, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert add_tables(data) == data


def test_a_video_for_a_grey_model_is_judged(tmp_path: Path, onspect: Callable[..., Result], calibrated: Path) -> None:
    """`onspect run` with a model of mono images converts the frames of a colour stream."""
    path = _film(tmp_path / "x.avi", "MJPG", frames=3)
    result = onspect("run", calibrated, path)
    assert result.exit_code == 0, result.stderr
    assert "fault" not in result.stdout


def test_missing_package_is_named(
    tmp_path: Path, onspect: Callable[..., Result], calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PyAV a video whose damage would not be noticed is refused with the cure; motion JPEG needs none."""
    real = builtins.__import__

    def fail(name: str, *arguments: Any, **settings: Any) -> Any:
        if name == "av" or name.startswith("av."):
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", fail)
    result = onspect("run", calibrated, _film(tmp_path / "x.mp4", "mp4v", frames=3))
    assert result.exit_code == 1
    assert "pip install 'onspect[video]'" in result.stderr
    assert onspect("run", calibrated, _film(tmp_path / "y.avi", "MJPG", frames=3)).exit_code == 0


@pytest.mark.parametrize("codec", ["ffv1", "mjpeg"])
def test_frames_at_irregular_times_are_all_there(tmp_path: Path, codec: str) -> None:
    """A length in time announces no number of frames where pauses differ; a missing end is still a fault."""
    av = pytest.importorskip("av")
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, {"ffv1": "bgr0", "mjpeg": "yuvj420p"}[codec]
        stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(draw_scene(64, 96, seed=number), format="bgr24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            time += (33, 200, 5, 600)[number % 4]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert [type(frame) for frame in _read(path)] == [np.ndarray] * 20
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = _read(path)
    assert "seconds" in str(frames[-1])
    assert "the video ends after" in str(frames[-1])


@pytest.mark.parametrize("codec", ["FFV1", "XVID", "MJPG"])
def test_a_video_that_was_cut_ends_in_a_fault(tmp_path: Path, codec: str) -> None:
    """The frames of a partly copied file are judged, and the missing end is a fault."""
    path = _film(tmp_path / "x.avi", codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = _read(path)
    assert 5 < len(frames) < FRAMES
    assert f"of {FRAMES} frames" in str(frames[-1])


@pytest.mark.parametrize("codec", ["FFV1", "XVID"])
def test_frames_after_a_lost_one_are_faults(tmp_path: Path, codec: str) -> None:
    """If the file lost a whole frame, those that depend on it are faults up to the next key frame."""
    path = _film(tmp_path / "x.avi", codec)
    whole = _read(path)
    data = path.read_bytes()
    chunks = [match.start() for match in re.finditer(b"00dc", data[: data.rfind(b"idx1")])]
    place = chunks[5] + 20
    path.write_bytes(data[:place] + data[place + 11 :])
    frames = _read(path)
    judged = [frame for frame in frames if not isinstance(frame, ImageError)]
    assert any("frames of the video are lost" in str(frame) for frame in frames if isinstance(frame, ImageError))
    assert 10 < len(judged) < FRAMES - 1
    assert all(any(np.array_equal(frame, np.asarray(one)) for one in whole) for frame in judged)
