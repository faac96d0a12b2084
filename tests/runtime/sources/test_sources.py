from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import DatasetError, ImageError, SourceError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.line import Line, Models
from onspect.runtime.sources.registry import open_source

from ..verdicts import Keeper

FRAMES = 20


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video whose frames are brightness 128, and every fifth 255."""
    path = tmp_path / "line one.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
    noise = np.random.default_rng(0).integers(-4, 5, (32, 32, 3))
    for number in range(FRAMES):
        writer.write(np.uint8(np.clip(noise + (255 if number % 5 == 4 else 128), 0, 255)))
    writer.release()
    return path


def judge(model: Path, source: Path) -> list[Verdict]:
    """Return the verdicts of a line on one source."""
    sink = Keeper()
    models = Models({None: model}, None, Inspector, None)
    Line(models, [open_source(str(source))], [sink]).run()
    return sink.verdicts


def test_every_frame_of_a_video_is_judged(video: Path, calibrated: Path) -> None:
    """Each frame of a video gets its verdict, in order."""
    verdicts = judge(calibrated, video)
    assert [verdict.index for verdict in verdicts] == list(range(FRAMES))
    assert [verdict.verdict for verdict in verdicts] == ["ok", "ok", "ok", "ok", "ng"] * (FRAMES // 5)


def test_cut_video_ends_in_a_fault_and_a_warning(
    video: Path, calibrated: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a video announces more frames than it has, the first missing one is a fault and the log counts them."""
    monkeypatch.setattr(logging.getLogger("onspect"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("onspect"), "level", logging.WARNING)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 7 // 10])
    verdicts = judge(calibrated, video)
    assert 1 < len(verdicts) < FRAMES
    assert (verdicts[-1].verdict, verdicts[-1].index) == ("fault", len(verdicts) - 1)
    assert f"{len(verdicts) - 1} of {FRAMES} frames" in str(verdicts[-1].reason)
    assert "the video ends after" in caplog.text


def test_folder_is_read_in_the_order_of_names(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """A folder's images come sorted, with an ImageError in the place of a broken one."""
    for name in ("b.png", "a.png"):
        write_image(tmp_path / "parts" / name)
    (tmp_path / "parts" / "c.png").write_bytes(b"")
    captures = list(open_source(str(tmp_path / "parts")))
    assert [Path(capture.source).name for capture in captures] == ["a.png", "b.png", "c.png"]
    assert [isinstance(capture.frame, ImageError) for capture in captures] == [False, False, True]


def test_missing_source_is_refused(tmp_path: Path) -> None:
    """A source that is not there, or whose name no file can have, raises SourceError."""
    for name in ("none.avi", "x" * 300):
        with pytest.raises(SourceError, match=r"give a video file, a folder .* one of NUMBER, .*watch:DIR"):
            open_source(str(tmp_path / name))


def test_file_that_is_no_video_is_refused(calibrated: Path) -> None:
    """A file that is not a video raises SourceError."""
    with pytest.raises(SourceError, match="as a video"):
        open_source(str(calibrated))


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    """An empty folder raises DatasetError."""
    with pytest.raises(DatasetError, match="no images"):
        open_source(str(tmp_path))
