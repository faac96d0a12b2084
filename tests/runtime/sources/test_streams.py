from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, GapError, SourceError
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.cameras import opencv
from onspect.runtime.sources.cameras.opencv import StreamSource
from onspect.runtime.sources.registry import open_source as open_address

pytest.importorskip("av", reason="PyAV makes the stream of the test's camera")

from ..verdicts import Keeper, wait_until
from .rtsp_server import HEIGHT, WIDTH, RtspServer


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Keep FFmpeg's messages from the screen."""
    quieten_opencv()


def open_stream(url: str) -> StreamSource:
    """Return a stream that notices soon that it is frozen, and is soon tried again where it is lost."""
    return StreamSource(url, read_timeout=0.5, retry=Retry(first=0.05, longest=0.1))


@pytest.fixture
def server() -> Iterator[RtspServer]:
    """Return a camera in the network."""
    camera = RtspServer()
    camera.start()
    yield camera
    camera.kill()


def take_until_gap(captures: Iterator[Capture]) -> tuple[int, str]:
    """Return how many frames came before the next gap, and its reason."""
    for count, capture in enumerate(captures):
        if isinstance(capture.frame, GapError):
            return count, str(capture.frame)
        assert capture.frame.shape == (HEIGHT, WIDTH, 3)
    raise AssertionError("the stream ended")


def take_frames(captures: Iterator[Capture], count: int) -> None:
    """Take frames, none of them a gap."""
    for _ in range(count):
        assert isinstance(next(captures).frame, np.ndarray)


@pytest.mark.slow
def test_a_stream_that_is_killed_frozen_and_restarted_comes_back(server: RtspServer) -> None:
    """A killed server is a gap, and so is a frozen one; both times the frames continue once it is there again."""
    with open_stream(server.url) as source:
        captures = iter(source)
        take_frames(captures, 5)
        server.kill()
        threading.Timer(0.3, server.start).start()
        assert "stopped sending" in take_until_gap(captures)[1]
        take_frames(captures, 5)
        server.frozen.set()
        threading.Timer(1.0, server.frozen.clear).start()
        assert "frozen" in take_until_gap(captures)[1]
        take_frames(captures, 5)
        state = source.state()
        assert (state.connected, state.reconnects) == (True, 2)
        captures.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_line_on_a_stream_tells_each_loss_and_counts_every_frame(server: RtspServer, calibrated: Path) -> None:
    """A line whose server is killed, started and frozen has a fault for each loss, and verdicts before and after."""
    sink = Keeper()
    line = Line(Models({None: calibrated}, None, Inspector, Health()), [open_stream(server.url)], [sink])
    thread = threading.Thread(target=line.run)
    thread.start()
    try:
        wait_until(lambda: sink.judged > 3)
        server.kill()
        wait_until(lambda: sink.faults("stopped sending") == 1)
        server.start()
        judged = sink.judged
        wait_until(lambda: sink.judged > judged)
        server.frozen.set()
        wait_until(lambda: sink.faults("is frozen") == 1)
        server.frozen.clear()
    finally:
        line.stop()
        thread.join()
    status = line.status()
    assert status.captured == status.judged + status.dropped + status.faulted
    assert status.reconnects >= 1
    assert len(sink.verdicts) == status.judged + status.faulted


def test_a_password_is_nowhere_to_be_seen(server: RtspServer, capfd: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Captures, states and messages name a camera without its user and password."""
    server.kill()
    with open_stream(server.url) as source:
        gap = next(iter(source))
    told = f"{gap} {source.state()} {caplog.text} {capfd.readouterr()}"
    assert "***@127.0.0.1" in told
    assert "hunter2" not in told
    assert "tester" not in told


@pytest.mark.slow
def test_an_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch, server: RtspServer) -> None:
    """env:NAME as a source's address is read from the environment."""
    monkeypatch.setenv("ONSPECT_TEST_CAMERA", server.url)
    with open_address("env:ONSPECT_TEST_CAMERA") as source:
        captures = iter(source)
        take_frames(captures, 1)
        captures.close()  # type: ignore[attr-defined]


class _Pictures(http.server.BaseHTTPRequestHandler):
    """Sends JPEG after JPEG, as simple network cameras do."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for value in range(50):
            picture = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH), value * 5, np.uint8))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            self.wfile.write(head.encode() + picture + b"\r\n")

    def log_message(self, *arguments: object) -> None:
        pass


class _Changing(_Pictures):
    """Sends pictures of one size, and then of another."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        self.wfile.write(encode_stream(WIDTH, HEIGHT) + encode_stream(2 * WIDTH, 2 * HEIGHT))


def encode_stream(width: int, height: int) -> bytes:
    """Return two seconds of MPEG-2 in a transport stream."""
    import av

    data = io.BytesIO()
    with av.open(data, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for value in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 4 * value, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return data.getvalue()


def test_a_stream_that_changes_its_resolution_is_a_fault(calibrated: Path) -> None:
    """Frames of another size than the first one are faults, and stay so when the camera is opened again."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Changing) as server:
        threading.Thread(target=server.serve_forever).start()
        sink = Keeper()
        source = open_stream(f"http://127.0.0.1:{server.server_port}/video.ts")
        line = Line(Models({None: calibrated}, None, Inspector), [source], [sink], policies=["wait"])
        thread = threading.Thread(target=line.run)
        thread.start()
        try:
            wait_until(lambda: sink.faults("stopped sending") >= 1)
        finally:
            line.stop()
            thread.join()
            server.shutdown()
    first = sink.verdicts[: [verdict.code for verdict in sink.verdicts].index("lost")]
    changed = [verdict.code for verdict in first].index("resolution")
    assert changed >= 10
    assert all(verdict.verdict != "fault" for verdict in first[:changed])
    assert {verdict.code for verdict in first[changed:]} == {"resolution"}
    assert "128x96 pixels, and the source began with 64x48" in str(first[changed].reason)


def test_a_video_that_changes_its_resolution_has_faults(tmp_path: Path) -> None:
    """The frames of another size in a file are faults, not scaled."""
    path = tmp_path / "line.ts"
    path.write_bytes(encode_stream(WIDTH, HEIGHT) + encode_stream(2 * WIDTH, 2 * HEIGHT))
    frames = [capture.frame for capture in open_address(str(path))]
    codes = [getattr(frame, "code", None) for frame in frames]
    assert codes[:40] == [None] * 40
    assert codes[60:90] == ["resolution"] * 30


def test_pictures_over_http_are_a_source() -> None:
    """A camera that sends JPEGs over HTTP is read, and its end is a gap."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        threading.Thread(target=server.serve_forever).start()
        with open_address(f"http://127.0.0.1:{server.server_port}/video") as source:
            count, reason = take_until_gap(iter(source))
        server.shutdown()
    assert count >= 45
    assert "stopped sending" in reason


def test_a_camera_that_is_not_there_is_a_gap() -> None:
    """A local camera without a device is a gap that says how to find those that are there."""
    with open_address("/dev/video997?width=640") as source:
        gap = next(iter(source))
    assert "onspect cameras" in str(gap.frame)


def test_a_camera_that_cannot_give_what_is_asked_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera whose width is not the one requested counts as lost, with both widths in the message."""

    class Small:
        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return True

        def set(self, which: int, value: float) -> bool:
            return False

        def get(self, which: int) -> float:
            return 640.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", lambda *arguments: Small())
    with pytest.raises(SourceError, match="gives a width of 640, not 1280"):
        opencv._open_local("0", {"width": 1280.0})


def test_a_webcam_is_asked_for_its_format_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """fourcc is set before the size, and a camera that does not have it counts as lost."""
    asked: list[int] = []

    class Webcam:
        def __init__(self, code: str) -> None:
            self.code = cv2.VideoWriter.fourcc(*code)

        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return True

        def set(self, which: int, value: float) -> bool:
            asked.append(which)
            return True

        def get(self, which: int) -> float:
            return float(self.code) if which == cv2.CAP_PROP_FOURCC else 1920.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", lambda *arguments: Webcam("MJPG"))
    opencv._open_local("0", {"width": 1920.0}, "MJPG")
    assert asked == [cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH]
    monkeypatch.setattr(cv2, "VideoCapture", lambda *arguments: Webcam("YUYV"))
    with pytest.raises(SourceError, match="gives 'YUYV', not 'MJPG'"):
        opencv._open_local("0", {}, "MJPG")


@pytest.mark.parametrize(
    "address", ["0?brightness=3", "0?fourcc=MJ", "0?width=wide", "0?width=", "/dev/video0?rate=-1", "1?x"]
)
def test_a_wrong_option_is_refused(address: str) -> None:
    """An unknown option, or one with an invalid value, raises ChoiceError with the address."""
    with pytest.raises(ChoiceError, match="option"):
        open_address(address)
