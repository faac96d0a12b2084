"""GenICam cameras as sources: GigE Vision, USB3 Vision and whatever else a maker's GenTL producer speaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onspect.runtime.address import parse_place
from onspect.runtime.errors import GapError, ImageError, SourceError
from onspect.runtime.images.decode import Frame
from onspect.runtime.inspection.verdict import now
from onspect.runtime.sources.base import Capture
from onspect.runtime.sources.cameras.gentl import (
    OpenCamera,
    camera_errors,
    close_camera,
    find_producers,
    first_words,
    open_camera,
)
from onspect.runtime.sources.cameras.pixel_formats import decode_buffer
from onspect.runtime.sources.reopen import LiveSource

TRIGGERS = ("free", "software", "hardware")
"""How a camera is set off: by its own clock, by the line for each frame, or by a signal on one of its inputs."""

_OPTIONS = {
    "trigger": "|".join(TRIGGERS),
    "exposure_us": "5000",
    "gain": "3",
    "pixel_format": "Mono8",
    "frame_rate": "30",
    "cti": "FILE",
    "Feature": "VALUE",
}
_SLICE = 0.25  # seconds for which a wait cannot be stopped
_PATIENCE = 5.0  # seconds after which a missing frame is a fault; also how often a silent camera is asked for life
_PAYLOAD_IMAGE, _PAYLOAD_IMAGE_WITH_CHUNKS = 1, 4  # GenTL's PAYLOADTYPE_INFO_IDS
_CLOSE_CALL = 3.0  # so many times its frames' distance may pass before a slow camera counts as silent


@dataclass(frozen=True)
class CameraSettings:
    """How a GenICam camera is to be run; what is None or absent stays as the camera has it.

    serial: its serial number, user-defined name or device id, empty for the only camera. producers: .cti files, none
    for those that the drivers registered. trigger: one of `TRIGGERS`. exposure_us: microseconds. gain: in the camera's
    unit, mostly dB. pixel_format: PFNC name. frame_rate: frames per second; with a software trigger, triggers.
    features: the camera's own features by name, set in this order.
    """

    serial: str
    producers: tuple[Path, ...] = ()
    trigger: str = "free"
    exposure_us: float | None = None
    gain: float | None = None
    pixel_format: str | None = None
    frame_rate: float | None = None
    features: tuple[tuple[str, str], ...] = ()


def open_genicam(text: str) -> LiveSource:
    """Return the camera that ``genicam:SERIAL?name=value&...`` names, as a source; nothing is opened yet.

    Raises ChoiceError for an option that is not known, SourceError where no GenTL producer is installed.
    """
    import genicam  # noqa: F401 - said now where it is missing, not in the capture thread
    import harvesters  # noqa: F401

    settings = parse_settings(text)
    producers = find_producers(settings.producers)
    name = f"genicam:{settings.serial}"
    source = LiveSource(name, lambda: GenicamDevice(name, settings, producers), patience=_choose_patience(settings))
    source.can_wait = settings.trigger == "software"  # it takes no frame before it is asked for one
    return source


def parse_settings(text: str) -> CameraSettings:
    """Read ``genicam:SERIAL?name=value&...``: our options in lower case, the camera's features by capitalised names.

    Raises ChoiceError for an option that is not known and for a value that it cannot have.
    """
    serial, options = parse_place(text, _OPTIONS, "camera", others="[A-Z]")
    return CameraSettings(
        serial=serial,
        producers=tuple(Path(value) for name, value in options.pairs if name == "cti"),
        trigger=options.choice("trigger", TRIGGERS) or "free",
        exposure_us=options.number("exposure_us"),
        gain=options.number("gain", above_zero=False),
        pixel_format=options.text("pixel_format"),
        frame_rate=options.number("frame_rate"),
        features=tuple((name, value) for name, value in options.pairs if name[0].isupper()),
    )


def _choose_patience(settings: CameraSettings, least: float = _PATIENCE) -> float | None:
    if settings.trigger == "hardware":
        return None
    return max(least, _CLOSE_CALL / settings.frame_rate if settings.frame_rate else 0.0)


class GenicamDevice:
    """An open GenICam camera, set as asked and acquiring; raises SourceError where that cannot be.

    patience: seconds after which a missing frame is a fault, and how often a silent camera is asked for life.
    """

    def __init__(
        self, name: str, settings: CameraSettings, producers: list[Path], *, patience: float = _PATIENCE
    ) -> None:
        self._name = name
        self._patience = patience
        self._settings = settings
        self._camera: OpenCamera | None = open_camera(settings.serial, producers)
        self._acquirer = self._camera.acquirer
        self._incomplete = _watch_incomplete(self._acquirer)
        self._last = self._triggered = time.monotonic()
        self._waiting = False
        self._number: int | None = None
        self._held: Capture | None = None
        try:
            configure(self._acquirer.remote_device.node_map, settings)
            self._acquirer.start()
        except SourceError:
            self.close()
            raise
        except camera_errors() as error:
            self.close()
            raise SourceError(f"{name} does not start: {first_words(error)}; check its power and cable") from error

    def close(self) -> None:
        """Stop acquiring and give the camera back."""
        camera, self._camera = self._camera, None
        if camera is not None:
            close_camera(camera)

    def read(self) -> Capture | None:
        """Return the next frame, or None where there was none within a quarter of a second.

        What came damaged or in a format that shows no picture is a capture with an ImageError, and so is a software
        trigger that no frame followed; where the camera's count of frames jumps, a capture with a GapError comes first.
        Raises SourceError where the camera is lost.
        """
        if self._held is not None:
            held, self._held = self._held, None
            return held
        try:
            if self._settings.trigger == "software" and not self._waiting:
                self._pull_trigger()
            buffer = _first(self._acquirer.try_fetch(timeout=_SLICE, is_raw=True))
            if buffer is not None:
                return self._take(buffer)
            if self._incomplete():
                self._number = None  # its number went with it, and it is counted here
                return self._fault("the frame came incomplete: data were lost between camera and computer")
            return self._wait_on()
        except camera_errors() as error:
            raise SourceError(f"{self._name} is lost: {first_words(error)}; check its power and cable") from error

    def _pull_trigger(self) -> None:
        rate = self._settings.frame_rate
        if rate is not None:
            time.sleep(max(0.0, min(1.0, self._triggered + 1.0 / rate - time.monotonic())))
        self._acquirer.remote_device.node_map.TriggerSoftware.execute()
        self._triggered = time.monotonic()
        self._waiting = True

    def _take(self, buffer: Any) -> Capture:
        captured, at = time.perf_counter(), now()
        self._last, self._waiting = time.monotonic(), False
        try:
            frame: Frame | ImageError = read_buffer(buffer, self._acquirer.remote_device.node_map)
        except ImageError as error:
            frame = error.with_traceback(None)
        lost = self._count_lost(buffer)
        buffer.parent.queue_buffer(buffer)
        capture = Capture(self._name, frame, time=at, captured=captured)
        if lost == 0:
            return capture
        self._held = capture
        were = "1 frame was" if lost == 1 else f"{lost} frames were"
        reason = f"{were} lost between camera and computer: the network or this computer is too slow for its frame rate"
        return Capture(self._name, GapError(reason), time=at, captured=captured)

    def _count_lost(self, buffer: Any) -> int:
        """Return how many frames the camera took between the last one and this one, by its own count."""
        from genicam import gentl

        try:
            number = int(buffer.frame_id)
        except gentl.GenericException:  # a producer need not know it
            return 0
        last, self._number = self._number, number
        return 0 if last is None or number <= last else number - last - 1  # the count starts again after its last digit

    def _fault(self, reason: str) -> Capture:
        self._last, self._waiting = time.monotonic(), False
        return Capture(self._name, ImageError(reason), time=now(), captured=time.perf_counter())

    def _wait_on(self) -> Capture | None:
        """Return None, unless there was no frame for too long: then make sure that the camera is still there."""
        patience = _choose_patience(self._settings, self._patience)
        if time.monotonic() - self._last < (self._patience if patience is None else patience):
            return None
        self._acquirer.remote_device.node_map.Width.get_value(False, True)  # from the camera, not from memory
        self._last = time.monotonic()
        if self._settings.trigger == "hardware":
            return None
        if self._settings.trigger == "software":
            return self._fault(f"no frame within {patience:g} s of the software trigger")
        raise SourceError(f"{self._name} answers, and sends no frame for {patience:g} s; check its trigger and lamp")


def configure(node_map: Any, settings: CameraSettings) -> None:
    """Set a camera as asked; raises SourceError where it has no such feature or refuses the value."""
    _set_trigger(node_map, settings)
    for name, value in settings.features:
        _set(node_map, name, value)
    if settings.pixel_format is not None:
        _set(node_map, "PixelFormat", settings.pixel_format)
    if settings.exposure_us is not None:
        _set_if_there(node_map, "ExposureAuto", "Off")
        _set(node_map, _which(node_map, "ExposureTime", "ExposureTimeAbs"), f"{settings.exposure_us:g}")
    if settings.gain is not None:
        _set_if_there(node_map, "GainAuto", "Off")
        _set(node_map, _which(node_map, "Gain", "GainAbs", "GainRaw"), f"{settings.gain:g}")
    if settings.frame_rate is not None and settings.trigger == "free":
        _set_if_there(node_map, "AcquisitionFrameRateEnable", "1")
        name = _which(node_map, "AcquisitionFrameRate", "AcquisitionFrameRateAbs")
        _set(node_map, name, f"{settings.frame_rate:g}")


def _set_trigger(node_map: Any, settings: CameraSettings) -> None:
    if settings.trigger == "free":
        _set_if_there(node_map, "TriggerMode", "Off")
        return
    _set_if_there(node_map, "TriggerSelector", "FrameStart")
    _set(node_map, "TriggerMode", "On")
    if settings.trigger == "software":
        _set(node_map, "TriggerSource", "Software")
    elif "TriggerSource" not in dict(settings.features) and node_map.TriggerSource.to_string() == "Software":
        raise SourceError(
            "the camera's trigger source is its software trigger; name the input of the signal: TriggerSource=Line1"
        )


def _set(node_map: Any, name: str, value: str) -> None:
    if not node_map.has_node(name):
        raise SourceError(f"the camera has no feature {name!r}; take it out, or look its name up in the maker's viewer")
    try:
        node_map.get_node(name).from_string(value)
    except camera_errors() as error:
        raise SourceError(f"the camera refuses {name}={value}: {first_words(error)}") from error


def _set_if_there(node_map: Any, name: str, value: str) -> None:
    """Set a feature that not every camera has, or can be set in every state."""
    if node_map.has_node(name):
        _set(node_map, name, value)


def _which(node_map: Any, *names: str) -> str:
    """Return the first of a feature's names, new and old, that the camera knows; the first of all where none."""
    return next((name for name in names if node_map.has_node(name)), names[0])


def read_buffer(buffer: Any, node_map: Any) -> Frame:
    """Return the picture in a raw GenTL buffer; raises ImageError where it holds none that can be read."""
    from genicam import gentl
    from harvesters.util.pfnc import dict_by_ints

    def ask(name: str, otherwise: Callable[[], int]) -> int:
        try:
            return int(getattr(buffer, name))
        except gentl.GenericException:  # a producer need not know it
            return otherwise()

    if ask("payload_type", lambda: 1) not in (_PAYLOAD_IMAGE, _PAYLOAD_IMAGE_WITH_CHUNKS):
        raise ImageError("the camera sends something other than one plain picture a frame; switch its other parts off")
    number = ask("pixel_format", lambda: node_map.PixelFormat.get_int_value())
    return decode_buffer(
        np.frombuffer(buffer.raw_buffer, np.uint8)[ask("image_offset", lambda: 0) :],
        dict_by_ints.get(number, hex(number)),
        ask("width", lambda: node_map.Width.value),
        ask("height", lambda: node_map.Height.value),
        ask("padding_x", lambda: 0),
    )


def _first(buffers: Any) -> Any:
    """Return the first stream's buffer of a camera that has several; the others go back."""
    if not isinstance(buffers, list):
        return buffers
    for other in buffers[1:]:
        if other is not None:
            other.parent.queue_buffer(other)
    return buffers[0]


def _watch_incomplete(acquirer: Any) -> Callable[[], bool]:
    """Return a function that tells whether a buffer came incomplete since it was last called."""
    from harvesters.core import Callback

    seen: list[bool] = []

    class Note(Callback):  # type: ignore[misc]
        def emit(self, context: object = None) -> None:  # noqa: ARG002 - harvesters' signature
            seen.append(True)

    def was_incomplete() -> bool:
        found = bool(seen)
        seen.clear()
        return found

    acquirer.add_callback(acquirer.Events.INCOMPLETE_BUFFER, Note())
    return was_incomplete
