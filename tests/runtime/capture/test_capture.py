"""Frames of a source become numbered pictures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.demo.belt import Belt, make_belt
from onspect.demo.parts import draw_part
from onspect.runtime.atomic import write_new
from onspect.runtime.capture.frames import ExposureMeter, KnownFrames
from onspect.runtime.capture.recorder import PictureFolder, record
from onspect.runtime.capture.triggers import CountTrigger, PresenceTrigger, TimeTrigger
from onspect.runtime.errors import ImageError, OutputError
from onspect.runtime.images.decode import read_image
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.sources import registry
from onspect.runtime.sources.base import Capture
from onspect.runtime.sources.fake import FakeFault, FakeSource

Run = Callable[..., Result]
Picture = NDArray[Any]


def part(number: int, size: int = 64) -> Picture:
    return draw_part(np.random.default_rng(number), None, size)[0]


def with_noise(picture: Picture, seed: int, spread: float = 3.0) -> Picture:
    noise = np.random.default_rng(seed).normal(0.0, spread, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def video(path: Path, frames: Iterable[Picture], rate: float = 10.0) -> Path:
    """Write a motion JPEG video of grey frames."""
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, frame.shape[::-1], True)
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    assert writer is not None
    writer.release()
    return path


def names(folder: Path) -> list[str]:
    """Return all names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts a `FakeSource` in the place of the camera ``0``."""

    def place(draw: Callable[[int], Picture], **settings: Any) -> None:
        monkeypatch.setattr(registry, "open_source", lambda _: FakeSource(draw, **settings))

    return place


def test_frames_of_a_video_become_pictures(tmp_path: Path, onspect: Run) -> None:
    """Each frame is written once, those that repeat a picture are left out, and a line counts both."""
    path = video(tmp_path / "line.avi", [part(number // 3, 128) for number in range(12)])
    result = onspect("capture", path, "-o", tmp_path / "good")
    assert result.exit_code == 0, result.stderr
    assert names(tmp_path / "good") == ["0001.png", "0002.png", "0003.png", "0004.png"]
    assert "wrote 4 pictures" in result.stderr
    assert "(0001.png to 0004.png); 8 frames left out that repeat a picture" in result.stderr
    assert "10 or more" in result.stderr
    assert np.abs(read_image(tmp_path / "good" / "0002.png")[:, :, 0].astype(int) - part(1, 128)).mean() < 3


def test_numbers_continue_and_nothing_is_overwritten(tmp_path: Path, onspect: Run) -> None:
    """A second call continues after the highest number; existing files stay."""
    folder = tmp_path / "good"
    folder.mkdir()
    (folder / "0011.png").write_bytes(b"mine")
    (folder / "other.png").write_bytes(b"mine too")
    path = video(tmp_path / "line.avi", [part(number, 128) for number in range(2)])
    result = onspect("capture", path, "-o", folder)
    assert names(folder) == ["0011.png", "0012.png", "0013.png", "other.png"]
    assert (folder / "0011.png").read_bytes() == b"mine"
    assert f"next: onspect teach {folder} -o part.onnx" in result.stderr


def test_pictures_for_tests_are_not_to_be_taught(tmp_path: Path, onspect: Run) -> None:
    """After pictures for val/ or test/ the command names no next step."""
    path = video(tmp_path / "line.avi", [part(number, 128) for number in range(12)])
    result = onspect("capture", path, "-o", tmp_path / "parts" / "test" / "scratch")
    assert "wrote 12 pictures" in result.stderr
    assert "next:" not in result.stderr


def test_every_time_of_a_video_is_its_own_time(tmp_path: Path, onspect: Run) -> None:
    """--every 1s takes a frame for each second of the video, --every 4 each fourth frame, --count ends it."""
    path = video(tmp_path / "line.avi", [part(number, 128) for number in range(12)], rate=5.0)
    assert "wrote 3 pictures" in onspect("capture", path, "--every", "1s", "-o", tmp_path / "a").stderr
    assert "wrote 3 pictures" in onspect("capture", path, "--every", 4, "-o", tmp_path / "b").stderr
    assert "wrote 2 pictures" in onspect("capture", path, "--count", 2, "-o", tmp_path / "c").stderr


def test_every_time_of_a_folder_is_refused(tmp_path: Path, onspect: Run, write_image: Callable[..., Path]) -> None:
    """Files have no time; the message says what to give."""
    write_image(tmp_path / "in" / "a.png")
    result = onspect("capture", tmp_path / "in", "--every", "1s", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--every 10" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "0s", "2.5", "fast", "-1", "2 days"])
def test_wrong_distance_is_refused(tmp_path: Path, onspect: Run, text: str) -> None:
    """A value that is neither a time nor a number of frames is named."""
    result = onspect("capture", "0", f"--every={text}", "-o", tmp_path)
    assert (result.exit_code, f"{text!r} is neither a time" in result.stderr) == (2, True)


def test_all_bits_are_kept(tmp_path: Path, onspect: Run) -> None:
    """A 16-bit picture comes out as it went in, mono and colour."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 4096, shape).astype(np.uint16) for shape in ((32, 40), (32, 40, 3))]
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(pictures):
        (tmp_path / "in" / f"{number}.tif").write_bytes(cv2.imencode(".tif", picture)[1].tobytes())
    assert onspect("capture", tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    for number, picture in enumerate(pictures, 1):
        found = read_image(tmp_path / "out" / f"{number:04}.png")
        assert found.dtype == np.uint16
        assert np.array_equal(found, picture)


def test_camera_is_taken_by_timer(tmp_path: Path, onspect: Run, camera: Callable[..., None]) -> None:
    """With --every a camera gives a picture at once; lost frames are counted, not written."""
    camera(part, count=40, rate=200.0, faults={3: FakeFault("corrupt", frames=2)})
    result = onspect("capture", "0", "--every", "1h", "-o", tmp_path / "good")
    assert result.exit_code == 0, result.stderr
    assert names(tmp_path / "good") == ["0001.png"]
    assert "2 frames could not be read" in result.stderr


def test_a_timer_waits_for_each_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame is wanted, and then one after each pause; after a break none is made up for."""
    times = iter([100.0, 100.0, 101.9, 102.1, 103.9, 104.0, 109.0, 109.1])
    monkeypatch.setattr("onspect.runtime.capture.triggers.time.monotonic", lambda: next(times))
    trigger = TimeTrigger(2.0)
    taken = [bool(trigger.choose(Capture("c", part(0)))) for _ in range(7)]
    assert taken == [True, False, True, False, True, True, False]


def test_keys_need_a_terminal(tmp_path: Path, onspect: Run, camera: Callable[..., None]) -> None:
    """A camera without --every, where no key can be pressed, is refused with the cure."""
    camera(part, count=3)
    result = onspect("capture", "0", "-o", tmp_path / "good")
    assert (result.exit_code, "--every 2s" in result.stderr) == (2, True)


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal takes POSIX")
def test_keys_take_pictures(tmp_path: Path, onspect: Run, camera: Callable[..., None], monkeypatch: Any) -> None:
    """SPACE takes the next frame, q ends, and the terminal is restored."""
    import pty
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    presses = {5: b" ", 10: b"x", 15: b"\r", 20: b" q"}

    def draw(number: int) -> Picture:
        if number in presses:
            os.write(ours, presses[number])
        return part(number)

    camera(draw, rate=0.0)
    with os.fdopen(theirs) as terminal:
        from onspect.runtime.cli import capture

        monkeypatch.setattr(capture, "sys", type("Sys", (), {"stdin": terminal}))
        result = onspect("capture", "0", "-o", tmp_path / "good")
        assert termios.tcgetattr(theirs) == before
    os.close(ours)
    assert result.exit_code == 0, result.stderr
    assert len(names(tmp_path / "good")) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_a_summary(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a capture that runs on, with a summary, exit code 0 and whole files only."""
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    for n in range(400):
        noise = random.integers(0, 255, (300, 300)).astype(np.uint8)
        (tmp_path / "in" / f"{n}.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    command = [sys.executable, "-m", "onspect.runtime", "capture", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    with subprocess.Popen([*command, "--keep-similar"], stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / "0003.png").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    written = names(tmp_path / "out")
    assert f"wrote {len(written)} pictures" in stderr
    assert len(written) < 400
    assert all(read_image(tmp_path / "out" / name).shape == (300, 300) for name in written)


def test_output_inside_the_source_is_refused(tmp_path: Path, onspect: Run, write_image: Callable[..., Path]) -> None:
    """Pictures written into the folder that is read would be read again."""
    write_image(tmp_path / "a.png")
    result = onspect("capture", tmp_path, "-o", tmp_path / "good")
    assert (result.exit_code, "is in the folder that is read" in result.stderr) == (1, True)
    assert names(tmp_path) == ["a.png"]


def test_nothing_written_is_a_failure(tmp_path: Path, onspect: Run) -> None:
    """If no frame could be read the command fails and says how many came."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    result = onspect("capture", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "no picture was written from 1 frame; 1 frame could not be read" in result.stderr
    assert names(tmp_path) == ["in"]


def test_overexposed_pictures_are_warned_of(tmp_path: Path, onspect: Run, write_image: Callable[..., Path]) -> None:
    """A picture with white pixels gets a warning at the end."""
    write_image(tmp_path / "in" / "a.png", 255)
    write_image(tmp_path / "in" / "b.png", 100)
    result = onspect("capture", tmp_path / "in", "-o", tmp_path / "out")
    assert "1 of 2 pictures have more than 1% of white pixels" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 256])
def test_same_part_repeats_and_another_does_not(size: int) -> None:
    """Noise, JPEG and a flickering lamp leave a frame the same; another part, or a small defect, does not."""
    known = KnownFrames()
    known.add(part(0, size))
    jpeg = cv2.imdecode(cv2.imencode(".jpg", part(0, size), [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_UNCHANGED)
    dimmer = np.rint(part(0, size) * 0.95).astype(np.uint8)
    assert all(known.repeats(frame) for frame in (with_noise(part(0, size), 1), jpeg, dimmer))
    assert not any(known.repeats(part(number, size)) for number in range(1, 20))
    scratches = [draw_part(np.random.default_rng(0), kind, size)[0] for kind in ("scratch", "dent", "stain")]
    assert not any(known.repeats(frame) for frame in scratches)
    deep = KnownFrames()
    deep.add(part(0, size).astype(np.uint16) * 16)
    assert deep.repeats(with_noise(part(0, size), 2).astype(np.uint16) * 16)
    assert not deep.repeats(part(1, size).astype(np.uint16) * 16)


def test_exposure_is_measured_against_the_camera_s_white() -> None:
    """A 12-bit frame in 16 bits is measured against 4095; blur lowers the sharpness."""
    frame = np.full((20, 20), 2048, np.uint16)
    frame[:2] = 4095
    exposure = ExposureMeter().measure(frame)
    assert exposure.white == pytest.approx(10.0)
    assert exposure.brightness == pytest.approx(100 * (0.9 * 2048 + 0.1 * 4095) / 4095)
    meter = ExposureMeter()
    sharp, blurred = part(0, 128), cv2.GaussianBlur(part(0, 128), (0, 0), 2.0)
    assert meter.measure(sharp).sharpness > 2 * meter.measure(blurred).sharpness
    assert meter.measure(np.zeros((8, 8, 3), np.uint8)).black == 100.0


def test_a_taken_name_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`write_new` leaves a taken name alone, with and without links of the file system, and leaves nothing else."""
    assert write_new(tmp_path / "a", b"1")
    assert not write_new(tmp_path / "a", b"2")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert not write_new(tmp_path / "a", b"3")
    assert write_new(tmp_path / "b", b"4")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"4"}
    with pytest.raises(OutputError, match="cannot write"):
        write_new(tmp_path / "none" / "c", b"5")


def test_another_program_may_write_into_the_folder(tmp_path: Path) -> None:
    """A number that another program took meanwhile is passed over."""
    folder = PictureFolder(tmp_path)
    folder.write(part(0))
    (tmp_path / "0002.png").write_bytes(b"theirs")
    assert folder.write(part(1)).name == "0003.png"
    assert (tmp_path / "0002.png").read_bytes() == b"theirs"


def test_frames_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    """Each frame is reported; one that could not be read has no frame, and does not count for the trigger."""
    captures = [Capture("c", ImageError("damaged")), Capture("c", part(1)), Capture("c", part(1))]
    items = list(record(captures, PictureFolder(tmp_path), CountTrigger(1)))
    assert [item.frame is None for item in items] == [True, False, False]
    assert [item.similar for item in items] == [False, False, True]
    trigger = CountTrigger(2)
    assert [len(trigger.choose(capture)) for capture in captures] == [0, 1, 0]
    counts = items[-1].counts
    assert (counts.seen, counts.saved, counts.similar, counts.damaged) == (3, 1, 1, 1)


@pytest.fixture(scope="module")
def belt() -> Belt:
    """Return a belt of five parts."""
    return make_belt(5, seed=3)


@pytest.fixture(scope="module")
def frames(belt: Belt) -> list[Picture]:
    """Return the frames of the belt."""
    return [belt.draw(number) for number in range(belt.frames)]


@pytest.fixture(scope="module")
def filmed(frames: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of these frames as files."""
    folder = tmp_path_factory.mktemp("belt")
    for number, frame in enumerate(frames):
        (folder / f"{number:05d}.bmp").write_bytes(cv2.imencode(".bmp", frame)[1].tobytes())
    return folder


@pytest.mark.slow
def test_each_part_of_a_belt_is_taken_once(tmp_path: Path, onspect: Run, filmed: Path) -> None:
    """With --presence the crops are those of `onspect parts`, also of parts that pass during the learning."""
    assert onspect("parts", filmed, "--presence", "learn=2s", "-o", tmp_path / "parts").exit_code == 0
    result = onspect("capture", filmed, "--presence", "learn=2s", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "wrote 5 pictures" in result.stderr
    found, expected = (
        [read_image(tmp_path / folder / name) for name in names(tmp_path / folder)] for folder in ("out", "parts/parts")
    )
    assert [picture.tobytes() for picture in found] == [picture.tobytes() for picture in expected]
    again = onspect("capture", filmed, "--presence", tmp_path / "parts/presence.toml", "-o", tmp_path / "out")
    assert "wrote 5 pictures" in again.stderr
    assert f"onspect run part.onnx {filmed} --presence {tmp_path / 'parts/presence.toml'}" in again.stderr
    assert len(names(tmp_path / "out")) == 10


@pytest.mark.slow
def test_parts_are_taken_where_the_capture_ends_early(tmp_path: Path, belt: Belt, frames: list[Picture]) -> None:
    """Parts in the frames of the learning phase are written at the end; --count ends at its number."""
    captures = [Capture("belt", frame) for frame in frames]
    end = next(number for number in range(belt.frames) if belt.places(number)[2] > belt.size[0] / 2)
    for count, expected in ((None, 3), (2, 2)):
        trigger = PresenceTrigger(PresenceSettings(learn=60.0), live=False)
        items = list(record(captures[:end], PictureFolder(tmp_path / str(count)), trigger, count=count))
        assert sum(item.path is not None for item in items) == expected
        assert items[-1].counts.seen == end


def test_a_belt_without_parts_gives_no_picture(tmp_path: Path, onspect: Run, write_image: Callable[..., Path]) -> None:
    """If no part passes the command fails, and says what presence needs."""
    for number in range(40):
        write_image(tmp_path / "in" / f"{number:03d}.png", 90, size=(64, 64))
    result = onspect("capture", tmp_path / "in", "--presence", "learn=1s", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "no picture was written from 40 frames; give the frames of a line on which parts pass" in result.stderr


def test_presence_excludes_a_distance(tmp_path: Path, onspect: Run) -> None:
    """--every and --presence are refused together, and a presence file that is missing is named."""
    result = onspect("capture", "0", "--every", "2s", "--presence", "learn=5s", "-o", tmp_path / "out")
    assert (result.exit_code, "exclude each other" in result.stderr) == (2, True)
    result = onspect("capture", "0", "--presence", tmp_path / "none.toml", "-o", tmp_path / "out")
    assert (result.exit_code, "cannot read the presence file" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
