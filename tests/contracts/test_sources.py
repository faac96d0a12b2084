"""What every source does, wherever its frames come from; a new kind of source is one row of `CASES`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.line.triggered import TriggeredSource
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.presence.part_source import PartSource
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.signals.handshake import HandshakeTimes
from onspect.runtime.sources import Source, open_source
from onspect.runtime.sources.base import SourceAround
from onspect.runtime.sources.fake import FakeSource
from onspect.runtime.sources.registry import CAMERA, SOURCES

PICTURE = cv2.imencode(".png", np.full((32, 32), 128, np.uint8))[1].tobytes()


@dataclass(frozen=True)
class SourceCase:
    """A kind of source.

    start: starts what its frames come from in an empty folder, and opens the source. once: why iterating again gives no
    frames; None if it does. extra: the module that it needs.
    """

    prefix: str
    start: Callable[[Path], Any]
    once: str | None = None
    extra: str | None = None


def _open_folder(folder: Path) -> Source:
    for number in range(5):
        (folder / f"{number}.png").write_bytes(PICTURE)
    return open_source(str(folder))


def _write_video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(5):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def _open_video(folder: Path) -> Source:
    return open_source(str(_write_video(folder / "x.avi")))


@contextmanager
def _open_webcam(folder: Path) -> Iterator[Source]:
    path, capture = str(_write_video(folder / "camera.avi")), cv2.VideoCapture
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", lambda *arguments: capture(path))
        yield open_source("0")


def _open_watch(folder: Path) -> Source:
    (folder / "in").mkdir()
    for number in range(5):
        (folder / "in" / f"{number}.png").write_bytes(PICTURE)
    return open_source(f"watch:{folder / 'in'}?done={folder / 'done'}&poll=0.02")


@contextmanager
def _open_stream(folder: Path) -> Iterator[Source]:
    from ..runtime.sources.rtsp_server import RtspServer

    camera = RtspServer()
    camera.start()
    try:
        yield open_source(camera.url)
    finally:
        camera.kill()


def _open_genicam(folder: Path) -> Source:
    import genicam

    return open_source(f"genicam:0?cti={Path(genicam.__file__).with_name('viky.cti')}")


def _open_fake(folder: Path) -> Source:
    return FakeSource(lambda number: np.full((32, 32), number, np.uint8), rate=200.0)


def _open_parts(folder: Path) -> Source:
    """Return a source around another one: the crops of the parts in its frames."""
    tray = np.full((100, 150), 60, np.uint8)
    cv2.imwrite(str(folder / "empty.png"), tray)
    camera = FakeSource(lambda number: cv2.circle(tray.copy(), (75, 50), 20, 150 + number % 50, -1), rate=200.0)
    return PartSource(camera, PresenceSettings(parts=1, background=folder / "empty.png"))


@contextmanager
def _open_triggered(folder: Path) -> Iterator[Source]:
    """Open a source around another one: five frames for the trigger of a PLC."""
    from ..runtime.signals.plc import MemoryPlc, program_of

    plc = MemoryPlc()
    with SignalController(plc, cameras=1, times=HandshakeTimes(60.0, 1.0)) as signals:
        program = program_of(plc)
        program.wait(lambda outputs: outputs.ready)
        program.set(trigger=True, part="P-1")
        yield TriggeredSource(_open_fake(folder), signals, 0, frames=5)


CASES = (
    SourceCase("folder", _open_folder),
    SourceCase("video", _open_video),
    SourceCase("NUMBER", _open_webcam),
    SourceCase("fake", _open_fake),
    SourceCase("watch:", _open_watch, once="each image of a watched folder is taken once"),
    SourceCase("rtsp://", _open_stream, extra="av"),
    SourceCase("genicam:", _open_genicam, extra="genicam"),
    SourceCase("parts", _open_parts),
    SourceCase("triggered", _open_triggered, once="each trigger gives its frames once"),
)


@pytest.fixture(params=CASES, ids=[case.prefix for case in CASES])
def case(request: pytest.FixtureRequest) -> SourceCase:
    """Return each kind of source; one whose package is not installed is skipped."""
    quieten_opencv()
    found: SourceCase = request.param
    if found.extra is not None:
        pytest.importorskip(found.extra)
    return found


@pytest.fixture
def source(case: SourceCase, tmp_path: Path) -> Iterator[Source]:
    """Return a source of the kind, whose frames are there."""
    opened = case.start(tmp_path)
    with opened if not isinstance(opened, Source) else nullcontext(opened) as source:
        yield source


def test_every_source_of_the_registry_is_here() -> None:
    """Each row of the registry has a contract; so have a camera, a folder, a video and sources around another one."""
    tested = {case.prefix for case in CASES}
    around = {kind.__name__ for kind in SourceAround.__subclasses__() if kind.__module__.startswith("onspect.")}
    assert around == {"PartSource", "TriggeredSource"}
    assert [row.forms for row in SOURCES if not tested.intersection(row.prefixes)] == []
    assert tested >= {CAMERA.forms[0], "folder", "video", "parts", "triggered"}


def test_captures_are_whole(source: Source) -> None:
    """Each capture has its own frame and a source without a password, and can be reported as judged."""
    assert isinstance(source, Source)
    assert not source.live or source.patience is None or source.patience > 0
    assert source.live or source.can_wait
    with source:
        captures = list(itertools.islice(source, 3))
        frames = [capture.frame for capture in captures]
        for capture in captures:
            assert not isinstance(capture.frame, ImageError), capture.frame
            assert capture.frame.ndim in (2, 3)
            assert capture.frame.dtype in (np.uint8, np.uint16)
            assert capture.source
            assert "hunter2" not in capture.source
            source.task_done(capture)
        assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(frames, 2))  # type: ignore[arg-type]
        assert source.state().connected
    assert source.state().name
    assert "hunter2" not in str(source.state())


def test_stop_ends_it(source: Source) -> None:
    """Stopped from another thread, a source ends after the capture that is under way, and so does leaving it."""
    ended = threading.Event()

    def read() -> None:
        for _ in source:
            pass
        ended.set()

    with source:
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        threading.Timer(0.2, source.stop).start()
        assert ended.wait(10)
    thread.join(10)
    assert list(source) == [] or not source.live


def test_iterating_again_opens_it_anew(case: SourceCase, source: Source) -> None:
    """A line that gives up a read that hangs iterates again, and gets frames."""
    if case.once is not None:
        pytest.skip(case.once)
    with source:
        for _ in range(2):
            assert not isinstance(next(iter(source)).frame, ImageError)


NONSENSE = [f"{row.forms[0]}?nonsense=1" for row in (CAMERA, *SOURCES) if "://" not in row.forms[0]]
"""An address of each kind of source with an unknown option; the options of a URL are for the camera."""


@pytest.mark.parametrize("text", [*NONSENSE, "NUMBER?width=-1"])
def test_wrong_option_is_named(text: str, tmp_path: Path) -> None:
    """An option that a source does not know, or a value that it cannot have, is refused before anything is opened."""
    if text.startswith("genicam"):
        pytest.importorskip("genicam")
    with pytest.raises(ChoiceError, match=text.partition("?")[2].partition("=")[0]):
        open_source(text.replace("DIR", str(tmp_path)).replace("NUMBER", "0"))
