"""Presence on drawn frames: a belt is learnt, each part comes out once, and its crop is that of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.demo.belt import Belt, make_belt
from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.presence import HeldFrame, PartView, PresenceGate, PresenceSettings
from onspect.runtime.presence.crop import prepare_window
from onspect.runtime.presence.cut import cut_parts
from onspect.runtime.presence.settings import format_presence, parse_presence, read_presence
from onspect.runtime.sources.base import Capture
from onspect.runtime.sources.folder import FolderSource

WINDOW = (112, 112)


def feed(gate: PresenceGate, belt: Belt, frames: range | None = None) -> tuple[list[PartView], list[HeldFrame]]:
    """Feed a belt's frames at 30 a second; return the views, and the frames in the order of their release."""
    views, released = [], []
    for number in frames or range(belt.frames):
        step = gate.feed(HeldFrame(Capture("belt", belt.draw(number)), number / 30.0))
        views += step.views
        released += step.released
    step = gate.flush()
    return [*views, *step.views], [*released, *step.released]


def owners(belt: Belt, views: list[PartView]) -> list[int]:
    """Return the part of the belt that each view shows in the middle of its window."""
    found = []
    for view in views:
        assert view.window is not None, view.reason
        places = belt.places(round(view.held.time * 30.0))
        middle = view.window[0] + view.window[2] / 2.0
        assert np.abs(places - middle).min() < 4.0
        found.append(int(np.abs(places - middle).argmin()))
    return found


@pytest.fixture(scope="module")
def belt() -> Belt:
    """Return a belt of 30 parts with changing gaps, speed and light, and two stops."""
    return make_belt(30, stops=2, stop_frames=20, upside_down=0.1, seed=3)


@pytest.mark.slow
def test_each_part_of_a_belt_comes_out_once(belt: Belt) -> None:
    """All parts are found, upside-down ones too, each in the middle of its window; every frame is released once."""
    views, released = feed(PresenceGate(PresenceSettings(learn=3.0, window=WINDOW)), belt)
    assert owners(belt, views) == list(range(30))
    assert [view.part for view in views] == [str(number) for number in range(1, 31)]
    assert len(released) == len({id(held) for held in released}) == belt.frames


def test_a_live_line_learns_beside_its_frames(belt: Belt) -> None:
    """What passes while the line is learnt is judged afterwards; a frame never waits for the learning."""
    gate = PresenceGate(PresenceSettings(learn=1.0, window=WINDOW), live=True)
    views, released = feed(gate, belt, range(200))
    assert owners(belt, views[:3]) == [0, 1, 2]
    assert len(released) == 200


class DeepBelt:
    """A belt whose camera has 12 bits in 16."""

    def __init__(self, belt: Belt) -> None:
        self.frames = belt.frames
        self.draw = lambda number: belt.draw(number).astype(np.uint16) << 4


def test_a_12_bit_camera_learns_the_same_line(belt: Belt, caplog: pytest.LogCaptureFixture) -> None:
    """With its white level the parts are those of 8 bits; without it a warning names the level."""
    gates = [PresenceGate(PresenceSettings(learn=1.0, window=WINDOW, white_level=level)) for level in (None, 4095)]
    for gate, camera in zip(gates, (belt, DeepBelt(belt)), strict=True):
        views, _ = feed(gate, camera, range(120))  # type: ignore[arg-type]
        assert owners(belt, views[:2]) == [0, 1]
    assert gates[1].settings.contrast == pytest.approx(gates[0].settings.contrast, rel=0.1)
    assert not caplog.records
    feed(PresenceGate(PresenceSettings(learn=1.0, window=WINDOW)), DeepBelt(belt), range(40))  # type: ignore[arg-type]
    assert "give --white-level 4095" in caplog.text


@pytest.mark.slow
def test_motion_and_size_are_learnt(belt: Belt) -> None:
    """The area, the direction and the speed are those that were drawn."""
    gate = PresenceGate(PresenceSettings(learn=6.0))
    feed(gate, belt, range(220))
    learnt = gate.settings
    assert learnt.area == pytest.approx(90 * 90, rel=0.1)
    assert learnt.direction is not None
    assert min(learnt.direction, 360.0 - learnt.direction) < 2.0
    assert learnt.speed == pytest.approx(9.0 * 30.0, rel=0.5)


@pytest.mark.slow
def test_the_window_of_a_part_is_learnt() -> None:
    """Without a window and a model, the window is somewhat larger than the parts."""
    belt = make_belt(6, seed=1)
    views, _ = feed(PresenceGate(PresenceSettings(learn=4.0)), belt)
    widths = {view.window[2:] for view in views if view.window is not None}
    assert len(widths) == 1
    assert all(95 <= side <= 144 for side in widths.pop())


def test_a_part_is_judged_as_a_picture_of_its_window(calibrated: Path, tmp_path: Path) -> None:
    """Score and error map are those of the crop as a file, bit for bit; regions are moved into the frame."""
    frame = np.full((60, 90), 128, np.uint8)
    frame[30:34, 50:58] = 255
    window = (40, 20, 32, 32)
    cv2.imwrite(str(tmp_path / "crop.png"), frame[20:52, 40:72])
    inspector = Inspector(calibrated)
    whole = inspector.examine(tmp_path / "crop.png")
    prepared = prepare_window(inspector, frame, window)
    (part,) = inspector.judge([prepared], inspector.infer_frames([prepared]))
    assert part.verdict.score == whole.verdict.score
    assert part.error_map is not None
    assert whole.error_map is not None
    assert np.array_equal(part.error_map, whole.error_map)
    assert part.verdict.regions
    for moved, region in zip(part.verdict.regions, whole.verdict.regions, strict=True):
        assert (moved.x, moved.y) == (region.x + 40, region.y + 20)
        assert (moved.width, moved.height) == (region.width, region.height)
    assert part.frame is frame


@pytest.mark.slow
def test_cut_parts_are_the_crops_of_a_run(belt: Belt, tmp_path: Path) -> None:
    """The files of `onspect parts` equal, pixel for pixel, the crops of a run with the written presence file."""
    for number in range(260):
        (tmp_path / "frames").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "frames" / f"{number:04d}.png"), belt.draw(number))
    found = cut_parts(FolderSource(tmp_path / "frames"), PresenceSettings(learn=3.0), tmp_path / "out")
    files = sorted((tmp_path / "out" / "parts").iterdir())
    assert len(files) == found.written > 5
    settings = read_presence(tmp_path / "out" / "presence.toml")
    views, _ = feed(PresenceGate(settings), belt, range(260))
    crops = []
    for view in views:
        if view.window is not None and not isinstance(view.held.capture.frame, ImageError):
            x, y, width, height = view.window
            crops.append(view.held.capture.frame[y : y + height, x : x + width])
    assert len(crops) == len(files)
    same = [np.array_equal(np.asarray(cv2.imread(str(file))), crop) for file, crop in zip(files, crops, strict=True)]
    assert sum(same) >= len(same) - 3  # the first parts are those that a learnt line may see in another frame


class Watched(FolderSource):
    """A camera that Ctrl-C ends after a number of frames."""

    live = True

    def __init__(self, folder: Path, end: int) -> None:
        super().__init__(folder)
        self._end = end

    def __iter__(self) -> Iterator[Capture]:
        for number, capture in enumerate(super().__iter__()):
            if number == self._end:
                raise KeyboardInterrupt
            yield capture


@pytest.mark.parametrize("end", [pytest.param(200, marks=pytest.mark.slow), 0], ids=["with parts", "without"])
def test_ctrl_c_ends_the_cut_of_a_camera(belt: Belt, tmp_path: Path, end: int) -> None:
    """The pictures have the settings that judge them; before the first part there is no folder."""
    (tmp_path / "frames").mkdir()
    for number in range(end + 1):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:04d}.png"), belt.draw(number))
    found = cut_parts(Watched(tmp_path / "frames", end), PresenceSettings(learn=3.0), tmp_path / "out")
    assert found.frames == end
    assert (tmp_path / "out").exists() == bool(found.written) == (end > 100)
    if found.written:
        assert read_presence(tmp_path / "out" / "presence.toml").window is not None
        assert len(list((tmp_path / "out" / "parts").iterdir())) == found.written


def test_light_that_fails_is_a_fault_and_not_an_empty_belt(belt: Belt) -> None:
    """A frame too dark to know the belt again is a fault that says so."""
    gate = PresenceGate(PresenceSettings(learn=2.0, window=WINDOW))
    feed(gate, belt, range(100))
    dark = (belt.draw(101) * 0.2).astype(np.uint8)
    step = gate.feed(HeldFrame(Capture("belt", dark), 101 / 30.0))
    assert [view.reason is not None and "as bright as" in view.reason for view in step.views] == [True]


def tray(places: list[tuple[int, int]]) -> np.ndarray:
    """Draw a tray with round parts."""
    frame = np.full((200, 300, 3), 60, np.uint8)
    for place in places:
        cv2.circle(frame, place, 22, (180, 170, 160), -1)
    return frame


@pytest.mark.parametrize(
    ("places", "faults"),
    [
        ([(60, 60), (150, 60), (240, 60)], []),
        ([(60, 60), (240, 60)], ["only 2 of 3"]),
        ([(60, 60), (150, 60), (240, 60), (150, 150)], ["4 parts are in the frame"]),
        ([(60, 60), (150, 60), (290, 60)], ["cut by the edge"]),
        ([(60, 60), (150, 60), (196, 85)], ["another part is inside"] * 2),
    ],
)
def test_a_tray_gives_one_verdict_a_part(places: list[tuple[int, int]], faults: list[str]) -> None:
    """Each frame is judged by itself: one view a part with its own id and crop, and a fault for each error."""
    gate = PresenceGate(PresenceSettings(parts=3, window=(64, 64)))
    step = gate.feed(HeldFrame(Capture("tray", tray(places)), 0.0))
    assert len({view.part for view in step.views}) == len(step.views) == max(3, len(places))
    reasons = [view.reason for view in step.views if view.reason is not None]
    assert len(reasons) == len(faults)
    assert all(word in reason for word, reason in zip(faults, reasons, strict=True))
    assert len(step.released) == 1


def test_an_empty_tray_is_empty() -> None:
    """A frame without any part has no verdict and is released as empty."""
    step = PresenceGate(PresenceSettings(parts=3, window=(64, 64))).feed(HeldFrame(Capture("tray", tray([])), 0.0))
    assert step.views == []
    assert [held.outcome for held in step.released] == ["empty"]


def test_a_window_larger_than_the_frame_is_a_fault_with_both_sizes() -> None:
    """The message has the window's size and the frame's."""
    gate = PresenceGate(PresenceSettings(parts=1, window=(400, 400)))
    (view,) = gate.feed(HeldFrame(Capture("tray", tray([(60, 60)])), 0.0)).views
    assert view.reason is not None
    assert "400x400" in view.reason
    assert "300x200" in view.reason


def test_settings_are_read_back_as_written(tmp_path: Path) -> None:
    """A presence file has the learnt values."""
    settings = PresenceSettings(
        learn=3.0, region=(1, 2, 30, 40), window=(16, 24), contrast=15.5, area=90.0, speed=1.5, direction=90.0, parts=2
    )
    settings = dataclasses.replace(settings, white_level=4095)
    (tmp_path / "presence.toml").write_text(format_presence(settings))
    assert read_presence(tmp_path / "presence.toml") == settings


def test_a_background_may_be_text(tmp_path: Path) -> None:
    """A background given as text is written and read like a `Path`."""
    cv2.imwrite(str(tmp_path / "empty.png"), tray([]))
    (tmp_path / "presence.toml").write_text(
        format_presence(PresenceSettings(parts=1, background=str(tmp_path / "empty.png")))
    )
    assert read_presence(tmp_path / "presence.toml").background == tmp_path / "empty.png"
    gate = PresenceGate(PresenceSettings(parts=1, background=str(tmp_path / "empty.png")))
    assert len(gate.feed(HeldFrame(Capture("tray", tray([(60, 60)])), 0.0)).views) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("window = [8]", "window is [8]"),
        ("white_level = 12", "white_level is 12; give a whole number from 255 to 65535"),
        ("speed = -1", "speed is -1; give a number from 0"),
        ("area = inf", "area is inf; give a number from 1"),
        (f"area = 1{'0' * 400}", "give a number from 1"),
        ("sped = 1", "'sped' is not known"),
        ("parts = 0", "parts is 0"),
        ("region = [0, 0, 4, 4]", "at least 16 pixels"),
        ("learn = 99", "give a number from 0.1 to 60"),
        ("background = 3", "background is 3"),
        ("learn = ", "is not TOML"),
    ],
)
def test_a_wrong_presence_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The message names the key, the value and the accepted values."""
    (tmp_path / "presence.toml").write_text(text)
    with pytest.raises(ChoiceError, match=r".") as caught:
        parse_presence(str(tmp_path / "presence.toml"))
    assert words in str(caught.value)


def test_a_wrong_option_is_refused() -> None:
    """--presence takes seconds or a file."""
    assert parse_presence("learn=2.5s").learn == 2.5
    for value in ("on", "learn=abc", "learn=1h"):
        with pytest.raises(ChoiceError, match="give"):
            parse_presence(value)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [lambda frame: frame[:, :, 0], lambda frame: frame.astype(np.uint16) * 257])
def test_mono_and_16_bit_cameras(belt: Belt, draw: Callable[[np.ndarray], np.ndarray]) -> None:
    """Presence works on mono and on 16-bit frames."""
    gate = PresenceGate(PresenceSettings(learn=2.0, window=WINDOW))
    views = []
    for number in range(160):
        frame = np.ascontiguousarray(draw(belt.draw(number)))
        views += gate.feed(HeldFrame(Capture("belt", frame), number / 30.0)).views
    assert owners(belt, views) == list(range(len(views)))
    assert len(views) >= 4


@pytest.mark.slow
def test_frames_of_several_sizes_are_faults_and_the_line_is_learnt_anew(belt: Belt) -> None:
    """If the camera changes its size while the line is learnt, those frames are faults; the next ones are learnt."""
    gate = PresenceGate(PresenceSettings(learn=2.0, window=WINDOW))
    views, released = [], []
    for number in range(200):
        frame = belt.draw(number)
        step = gate.feed(HeldFrame(Capture("belt", frame[:, :200] if number == 30 else frame), number / 30.0))
        views += step.views
        released += step.released
    faults = [view for view in views if view.reason is not None]
    assert len(faults) >= 60
    assert all("could not be learnt" in str(view.reason) and view.part is None for view in faults)
    assert not gate.learning
    assert views[-1].window is not None
    assert len({id(held) for held in released}) == len(released)


def test_a_source_that_ends_before_the_line_is_learnt_is_judged(belt: Belt) -> None:
    """A short video is learnt from what there is."""
    views, released = feed(PresenceGate(PresenceSettings(learn=60.0, window=WINDOW)), belt, range(120))
    assert len(released) == 120
    assert owners(belt, [view for view in views if view.window is not None])[:3] == [0, 1, 2]
