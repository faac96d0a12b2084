from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, GapError, ImageError, SourceError
from onspect.runtime.line.frame_queue import default_policy
from onspect.runtime.sources.cameras.genicam import (
    CameraSettings,
    GenicamDevice,
    configure,
    open_genicam,
    parse_settings,
)
from onspect.runtime.sources.cameras.gentl import SEARCH_PATH, close_camera, find_producers, list_cameras, open_camera

genicam = pytest.importorskip("genicam", reason="the extra 'genicam' is not installed")
VIKY = Path(genicam.__file__).with_name("viky.cti")  # EMVA's producer with three virtual cameras, 0, 1 and 2


def test_settings_are_read_from_the_source_s_text() -> None:
    """Options in lower case are ours, capitalised names are the camera's own features in their order."""
    settings = parse_settings(
        "genicam:DA123?trigger=hardware&TriggerSource=Line1&exposure_us=5000&gain=-1.5&Width=640&pixel_format=Mono12"
        "&frame_rate=30&cti=/opt/maker/gev.cti"
    )
    assert settings == CameraSettings(
        serial="DA123",
        producers=(Path("/opt/maker/gev.cti"),),
        trigger="hardware",
        exposure_us=5000.0,
        gain=-1.5,
        pixel_format="Mono12",
        frame_rate=30.0,
        features=(("TriggerSource", "Line1"), ("Width", "640")),
    )


@pytest.mark.parametrize(
    "text", ["0?expsure_us=5", "0?trigger=always", "0?exposure_us=fast", "0?exposure_us=0", "0?frame_rate=-1"]
)
def test_wrong_option_is_named(text: str) -> None:
    """An option that is not known, or cannot be so, is reported before any camera is opened."""
    with pytest.raises(ChoiceError, match=text[2:].replace("=", ".*")):
        parse_settings(f"genicam:{text}")


def test_missing_producer_names_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a driver the message names the variable and the option."""
    monkeypatch.setenv(SEARCH_PATH, str(tmp_path))
    with pytest.raises(SourceError, match=rf"{SEARCH_PATH}.*cti="):
        find_producers()
    with pytest.raises(SourceError, match=r"no GenTL producer.*nothing\.cti"):
        find_producers([tmp_path / "nothing.cti"])


def test_producers_are_found_where_drivers_register_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of the standard's environment variable are searched."""
    monkeypatch.setenv(SEARCH_PATH, str(VIKY.parent))
    assert find_producers() == [VIKY]


def test_file_that_is_no_producer_is_said_so(tmp_path: Path) -> None:
    """A .cti file that cannot be loaded is an error, not an empty list of cameras."""
    broken = tmp_path / "broken.cti"
    broken.write_bytes(b"no library")
    with pytest.raises(SourceError, match=r"broken\.cti' cannot be loaded"):
        list_cameras([broken])


def test_cameras_are_listed_with_their_state() -> None:
    """A camera that is open is listed as in use, and listing leaves it open."""
    camera = open_camera("1", [VIKY])
    try:
        assert {info.serial: info.status for info in list_cameras([VIKY])} == {"0": "free", "1": "in use", "2": "free"}
        camera.acquirer.start()
        assert camera.acquirer.try_fetch(timeout=5, is_raw=True) is not None
    finally:
        close_camera(camera)
    assert {info.status for info in list_cameras([VIKY])} == {"free"}


def test_camera_that_is_in_use_or_absent_is_said_so() -> None:
    """The message names the requested camera and the available ones."""
    camera = open_camera("0", [VIKY])
    try:
        with pytest.raises(SourceError, match=r"'0' is in use: close the other program"):
            open_camera("0", [VIKY])
    finally:
        close_camera(camera)
    with pytest.raises(SourceError, match=r"no GenICam camera '77': there are 0, 1, 2;"):
        open_camera("77", [VIKY])
    with pytest.raises(SourceError, match=r"3 cameras match '';"):
        open_camera("", [VIKY])


def test_interrupt_handler_stays_the_program_s_own() -> None:
    """harvesters puts its own handler in the place of Ctrl-C's, and a line must still stop with it."""
    import signal

    before = signal.getsignal(signal.SIGINT)
    camera = open_camera("0", [VIKY])
    close_camera(camera)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("pixel_format", "shape"), [("Mono8", (100, 200)), ("RGBa8", (100, 200, 3))])
def test_camera_gives_frames_of_its_format(pixel_format: str, shape: tuple[int, ...]) -> None:
    """A real producer's frames come as mono or BGR, with their time, and two cameras run side by side."""
    query = f"cti={VIKY}&Width=200&Height=100&pixel_format={pixel_format}&frame_rate=100"
    with open_genicam(f"genicam:0?{query}") as left, open_genicam(f"genicam:1?{query}") as right:
        for pair in itertools.islice(zip(left, right, strict=True), 3):
            for capture in pair:
                assert isinstance(capture.frame, np.ndarray)
                assert (capture.frame.shape, capture.frame.dtype) == (shape, np.uint8)
                assert np.ptp(capture.frame) > 0
                assert capture.captured is not None
                assert capture.time is not None
        assert left.state().connected
    assert (left.patience, capture.source) == (5.0, "genicam:1")


@pytest.fixture
def fake_gige_camera() -> Iterator[str]:
    """Aravis' fake GigE Vision camera on loopback, read through any GigE producer of this machine."""
    program = shutil.which("arv-fake-gv-camera-0.8")
    if program is None:
        pytest.skip("Aravis' fake camera is not installed (Debian: apt-get install aravis-tools)")
    try:
        producers = find_producers()
    except SourceError as error:
        pytest.skip(f"no GenTL producer for GigE Vision is installed: {error}")
    process = subprocess.Popen([program, "--interface", "127.0.0.1", "--serial", "ONSPECT1"])
    try:
        seen = next((True for _ in range(5) if "ONSPECT1" in {info.serial for info in list_cameras(producers)}), False)
        if not seen:
            pytest.skip(f"no installed producer sees GigE Vision cameras on loopback: {producers}")
        yield "ONSPECT1"
    finally:
        process.terminate()
        process.wait(10)


def test_gige_vision_camera_on_loopback_gives_frames(fake_gige_camera: str) -> None:
    """A GigE Vision camera's settings are taken and its frames are mono pictures."""
    with open_genicam(f"genicam:{fake_gige_camera}?pixel_format=Mono8&exposure_us=5000&frame_rate=20") as source:
        for capture in itertools.islice(source, 3):
            assert isinstance(capture.frame, np.ndarray)
            assert capture.frame.ndim == 2
            assert np.ptp(capture.frame) > 0


def test_camera_is_free_again_after_the_source_is_left() -> None:
    """Leaving the source, in the middle of its frames, gives the camera back."""
    with open_genicam(f"genicam:2?cti={VIKY}&frame_rate=100") as source:
        captures = iter(source)
        next(captures)
        captures.close()  # type: ignore[attr-defined]
    assert {info.status for info in list_cameras([VIKY])} == {"free"}


def test_lost_camera_is_a_gap_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that stops answering is one GapError, and is opened again when it is there."""
    from genicam import gentl
    from harvesters.core import ImageAcquirer

    fetch, calls = ImageAcquirer.try_fetch, itertools.count()

    def fail_once(self: Any, **arguments: Any) -> Any:
        if next(calls) == 2:
            raise gentl.IoException("GenTL exception: Input/output error. (Message from the source: gone) (ID: -1010)")
        return fetch(self, **arguments)

    monkeypatch.setattr(ImageAcquirer, "try_fetch", fail_once)
    with open_genicam(f"genicam:0?cti={VIKY}&frame_rate=100") as source:
        frames = [capture.frame for capture in itertools.islice(source, 4)]
    assert [type(frame) for frame in frames] == [np.ndarray, np.ndarray, GapError, np.ndarray]
    assert str(frames[2]) == "genicam:0 is lost: Input/output error; check its power and cable"
    assert source.state().reconnects == 1


class Node:
    """A camera's feature that records its writes."""

    def __init__(self, name: str, noted: list[str], value: str = "") -> None:
        self.name, self.noted, self.text = name, noted, value

    def from_string(self, value: str) -> None:
        if value == "impossible":
            raise ValueError("Value must be possible : thrown in node 'X'")
        self.noted.append(f"{self.name}={value}")
        self.text = value

    def to_string(self) -> str:
        return self.text

    def execute(self) -> None:
        self.noted.append(self.name)

    def get_value(self, verify: bool, ignore_cache: bool) -> int:
        self.noted.append(f"{self.name}?")
        return 1


class NodeMap:
    """The features of a camera that is not there."""

    def __init__(self, *names: str, trigger_source: str = "Line1") -> None:
        self.noted: list[str] = []
        self.nodes = {name: Node(name, self.noted) for name in names}
        if "TriggerSource" in self.nodes:
            self.nodes["TriggerSource"].text = trigger_source

    def has_node(self, name: str) -> bool:
        return name in self.nodes

    def get_node(self, name: str) -> Node:
        return self.nodes[name]

    __getattr__ = get_node


TRIGGER = ("TriggerSelector", "TriggerMode", "TriggerSource", "TriggerSoftware")


def test_hardware_trigger_is_set_before_the_camera_s_own_features() -> None:
    """The selector comes first, since the source of the trigger belongs to it; automatic exposure and gain go off."""
    nodes = NodeMap(*TRIGGER, "ExposureAuto", "ExposureTime", "GainAuto", "Gain", "PixelFormat")
    configure(
        nodes,
        parse_settings("genicam:x?trigger=hardware&TriggerSource=Line2&exposure_us=250&gain=3&pixel_format=Mono8"),
    )
    assert nodes.noted == [
        "TriggerSelector=FrameStart",
        "TriggerMode=On",
        "TriggerSource=Line2",
        "PixelFormat=Mono8",
        "ExposureAuto=Off",
        "ExposureTime=250",
        "GainAuto=Off",
        "Gain=3",
    ]


def test_free_running_camera_has_its_trigger_off() -> None:
    """A trigger that another program left on would leave the line without frames; old names of features are known."""
    nodes = NodeMap("TriggerMode", "ExposureTimeAbs", "AcquisitionFrameRateEnable", "AcquisitionFrameRateAbs")
    configure(nodes, parse_settings("genicam:x?exposure_us=100&frame_rate=20"))
    assert nodes.noted == [
        "TriggerMode=Off",
        "ExposureTimeAbs=100",
        "AcquisitionFrameRateEnable=1",
        "AcquisitionFrameRateAbs=20",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genicam:x?Sharpness=3", "has no feature 'Sharpness'"),
        ("genicam:x?Width=impossible", "refuses Width=impossible: Value must be possible; give another value$"),
        ("genicam:x?trigger=hardware", "TriggerSource=Line1"),
    ],
)
def test_what_the_camera_cannot_do_is_said(text: str, message: str) -> None:
    """A feature that is not there, a value that is refused, and a hardware trigger that would wait for software."""
    nodes = NodeMap("Width", *TRIGGER, trigger_source="Software")
    with pytest.raises(SourceError, match=message):
        configure(nodes, parse_settings(text))


class Acquirer:
    """An acquirer that plays a list: a frame's number, None for nothing, "incomplete" for a damaged frame."""

    Events = SimpleNamespace(INCOMPLETE_BUFFER=4)

    def __init__(self, nodes: NodeMap, script: list[Any]) -> None:
        self.remote_device = SimpleNamespace(node_map=nodes)
        self.script = iter(script)
        self.returned = 0

    def add_callback(self, event: int, callback: Any) -> None:
        self.callback = callback

    def start(self) -> None: ...

    def destroy(self) -> None: ...

    def try_fetch(self, **arguments: Any) -> Any:
        number = next(self.script)
        if number == "incomplete":
            self.callback.emit()
            return None
        if number is None:
            return None
        return SimpleNamespace(
            payload_type=1,
            pixel_format=0x01080001,
            image_offset=0,
            padding_x=0,
            width=2,
            height=1,
            frame_id=number,
            raw_buffer=bytes([number, number]),
            parent=SimpleNamespace(queue_buffer=self.take_back),
        )

    def take_back(self, buffer: Any) -> None:
        self.returned += 1


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that opens a device whose camera plays a list."""

    def open_played(
        script: list[Any], query: str = "", *nodes: str, patience: float = 5.0
    ) -> tuple[GenicamDevice, Acquirer]:
        acquirer = Acquirer(NodeMap("Width", *TRIGGER, *nodes), script)
        camera = SimpleNamespace(acquirer=acquirer, producer=Path("played.cti"))
        monkeypatch.setattr("onspect.runtime.sources.cameras.genicam.open_camera", lambda serial, producers: camera)
        monkeypatch.setattr(
            "onspect.runtime.sources.cameras.genicam.close_camera", lambda camera: camera.acquirer.destroy()
        )
        return GenicamDevice("genicam:x", parse_settings(f"genicam:x?{query}"), [], patience=patience), acquirer

    return open_played


def test_incomplete_frame_is_an_error_in_its_place(play: Any) -> None:
    """A frame with lost packets is one ImageError, counted once, and each buffer goes back to the camera."""
    device, acquirer = play([1, "incomplete", 3])
    frames = [device.read().frame for _ in range(3)]
    assert [frame.tolist() if isinstance(frame, np.ndarray) else type(frame) for frame in frames] == [
        [[1, 1]],
        ImageError,
        [[3, 3]],
    ]
    assert "incomplete" in str(frames[1])
    assert acquirer.returned == 2


def test_frames_that_never_came_are_a_gap(play: Any) -> None:
    """If the camera's own count jumps, a GapError tells how many frames are missing, and no frame is lost for it."""
    device, _ = play([1, 2, 6, 7, 0, 1])
    frames = [device.read().frame for _ in range(7)]
    assert [type(frame) for frame in frames] == [np.ndarray, np.ndarray, GapError, *[np.ndarray] * 4]
    assert str(frames[2]).startswith("3 frames were lost")


def test_software_trigger_is_pulled_once_a_frame(play: Any) -> None:
    """Each frame has its trigger, and a wait for it pulls no second one."""
    device, acquirer = play([1, None, 2], "trigger=software")
    assert [device.read() is None for _ in range(3)] == [False, True, False]
    nodes = acquirer.remote_device.node_map
    assert nodes.noted[:3] == ["TriggerSelector=FrameStart", "TriggerMode=On", "TriggerSource=Software"]
    assert nodes.noted[3:] == ["TriggerSoftware"] * 2


def test_software_trigger_without_a_frame_is_a_fault(play: Any) -> None:
    """A trigger that no frame follows is an ImageError, and the next one is pulled."""
    device, _ = play([None, 2], "trigger=software", patience=0.0)
    captures = [device.read() for _ in range(2)]
    assert "software trigger" in str(captures[0].frame)
    assert captures[1].frame.tolist() == [[2, 2]]


def test_silent_camera_is_lost_only_on_its_own_clock(play: Any) -> None:
    """A free-running camera that sends nothing is opened again; one that waits for parts is asked whether it lives."""
    device, _ = play([None], patience=0.0)
    with pytest.raises(SourceError, match="sends no frame"):
        device.read()
    device, acquirer = play([None], "trigger=hardware", patience=0.0)
    assert device.read() is None
    assert acquirer.remote_device.node_map.noted[-1] == "Width?"
    assert open_genicam(f"genicam:x?trigger=hardware&cti={VIKY}").patience is None


def test_only_a_software_trigger_waits_for_the_line() -> None:
    """A camera that takes a frame when asked loses none to a slow line; the others continue at their own pace."""
    policies = {
        trigger: default_policy(open_genicam(f"genicam:0?trigger={trigger}&cti={VIKY}"))
        for trigger in ("free", "software", "hardware")
    }
    assert policies == {"free": "latest", "software": "wait", "hardware": "every"}


@pytest.mark.slow
def test_source_stops_while_it_waits_for_a_part() -> None:
    """stop() ends an iterator that waits, within the fraction of a second for which a wait lasts."""
    source = open_genicam(f"genicam:0?cti={VIKY}&frame_rate=1")
    threading.Timer(0.2, source.stop).start()
    started = time.monotonic()
    assert len(list(source)) <= 1
    assert time.monotonic() - started < 5
