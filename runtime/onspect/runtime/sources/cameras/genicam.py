"""GenICam cameras as sources: GigE Vision, USB3 Vision and every other kind that a GenTL producer supports."""

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
    close_camera,
    explaining_cameras,
    find_producers,
    open_camera,
)
from onspect.runtime.sources.cameras.pixel_formats import decode_buffer
from onspect.runtime.sources.reopen import LiveSource

TRIGGERS = ("free", "software", "hardware")
"""What triggers a frame: the camera's own clock, the line, or a signal on an input of the camera."""

_OPTIONS = {
    "trigger": "|".join(TRIGGERS),
    "exposure_us": "5000",
    "gain": "3",
    "pixel_format": "Mono8",
    "frame_rate": "30",
    "cti": "FILE",
    "Feature": "VALUE",
}
_SLICE = 0.25  # longest wait in seconds that cannot be stopped
_PATIENCE = 5.0  # seconds after which a missing frame is a fault and a silent camera is asked for a sign of life
_PAYLOAD_IMAGE, _PAYLOAD_IMAGE_WITH_CHUNKS = 1, 4  # GenTL's PAYLOADTYPE_INFO_IDS
_CLOSE_CALL = 3.0  # frame intervals after which a slow camera counts as silent


@dataclass(frozen=True)
class CameraSettings:
    """Settings of a GenICam camera; a setting that is None stays as the camera has it."""

    serial: str
    """Serial number, user-defined name or device id; empty for the only camera."""
    producers: tuple[Path, ...] = ()
    """The .cti files; empty for those that the drivers registered."""
    trigger: str = "free"
    """One of `TRIGGERS`."""
    exposure_us: float | None = None
    """Exposure time in microseconds."""
    gain: float | None = None
    """Gain in the camera's unit, mostly dB."""
    pixel_format: str | None = None
    """Name of the pixel format in the PFNC standard."""
    frame_rate: float | None = None
    """Frames per second; with a software trigger, triggers per second."""
    features: tuple[tuple[str, str], ...] = ()
    """Features of the camera, name and value; they are set in this order."""


def open_genicam(text: str) -> LiveSource:
    """Return a camera as a source; it is opened when the source is iterated.

    Parameters
    ----------
    text
        The address, ``genicam:SERIAL?name=value&...``.

    Returns
    -------
    LiveSource
        The source.

    Raises
    ------
    ChoiceError
        If an option is unknown or its value is not valid.
    SourceError
        If no GenTL producer is installed.
    ImportError
        If the extra ``genicam`` is not installed.
    """
    import genicam  # noqa: F401 - report a missing package now, not in the capture thread
    import harvesters  # noqa: F401

    settings = parse_settings(text)
    producers = find_producers(settings.producers)
    name = f"genicam:{settings.serial}"
    source = LiveSource(name, lambda: GenicamDevice(name, settings, producers), patience=_choose_patience(settings))
    source.can_wait = settings.trigger == "software"  # it takes a frame only on request
    return source


def parse_settings(text: str) -> CameraSettings:
    """Read the address of a camera. Our options are in lower case; features of the camera begin with a capital letter.

    Parameters
    ----------
    text
        The address, ``genicam:SERIAL?name=value&...``.

    Returns
    -------
    CameraSettings
        The settings.

    Raises
    ------
    ChoiceError
        If an option is unknown or its value is not valid.
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
    """An open GenICam camera with all settings applied, acquiring frames.

    Parameters
    ----------
    name
        Name in captures and messages.
    settings
        The settings.
    producers
        The .cti files.
    patience
        Seconds after which a missing frame is a fault, and between two signs of life of a silent camera.

    Raises
    ------
    SourceError
        If the camera is not available or refuses a setting.
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
            with explaining_cameras(f"{name} does not start", "check its power and cable"):
                configure(self._acquirer.remote_device.node_map, settings)
                self._acquirer.start()
        except SourceError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the acquisition and release the camera."""
        camera, self._camera = self._camera, None
        if camera is not None:
            close_camera(camera)

    def read(self) -> Capture | None:
        """Return the next frame.

        A damaged frame, a format without a picture and a software trigger without a frame are captures with an
        ImageError. If the camera's frame counter jumps, a capture with a GapError comes first.

        Returns
        -------
        Capture | None
            The capture, or None if there was no frame within 0.25 s.

        Raises
        ------
        SourceError
            If the camera is lost.
        """
        if self._held is not None:
            held, self._held = self._held, None
            return held
        with explaining_cameras(f"{self._name} is lost", "check its power and cable"):
            if self._settings.trigger == "software" and not self._waiting:
                self._pull_trigger()
            buffer = _first(self._acquirer.try_fetch(timeout=_SLICE, is_raw=True))
            if buffer is not None:
                return self._take(buffer)
            if self._incomplete:
                self._incomplete.clear()
                self._number = None  # its number is lost, and the loss is reported here
                return self._fault("the frame came incomplete: data were lost between camera and computer")
            return self._wait_on()

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
        """Return the number of frames that are missing between the last one and this one, by the camera's counter."""
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
        """Return None; if there was no frame for too long, check first that the camera still answers."""
        patience = _choose_patience(self._settings, self._patience)
        if time.monotonic() - self._last < (self._patience if patience is None else patience):
            return None
        self._acquirer.remote_device.node_map.Width.get_value(False, True)  # read from the camera, not from a cache
        self._last = time.monotonic()
        if self._settings.trigger == "hardware":
            return None
        if self._settings.trigger == "software":
            return self._fault(f"no frame within {patience:g} s of the software trigger")
        raise SourceError(f"{self._name} answers, and sends no frame for {patience:g} s; check its trigger and lamp")


def configure(node_map: Any, settings: CameraSettings) -> None:
    """Apply the settings to a camera.

    Parameters
    ----------
    node_map
        The camera's node map, of the GenICam libraries.
    settings
        The settings.

    Raises
    ------
    SourceError
        If the camera lacks a feature or refuses a value.
    """
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
        raise SourceError(f"the camera has no feature {name!r}; remove it, or look up its name in the maker's viewer")
    with explaining_cameras(f"the camera refuses {name}={value}", "give another value"):
        node_map.get_node(name).from_string(value)


def _set_if_there(node_map: Any, name: str, value: str) -> None:
    """Set a feature that not every camera has."""
    if node_map.has_node(name):
        _set(node_map, name, value)


def _which(node_map: Any, *names: str) -> str:
    """Return the first of a feature's names, new and old, that the camera knows, or the first of all."""
    return next((name for name in names if node_map.has_node(name)), names[0])


def read_buffer(buffer: Any, node_map: Any) -> Frame:
    """Return the picture in a raw GenTL buffer.

    Parameters
    ----------
    buffer
        The buffer.
    node_map
        The camera's node map, for facts that the buffer does not have.

    Returns
    -------
    Frame
        The frame, HxW or HxWx3 (BGR), uint8 or uint16.

    Raises
    ------
    ImageError
        If the buffer has no picture that can be read.
    """
    from genicam import gentl
    from harvesters.util.pfnc import dict_by_ints

    def ask(name: str, otherwise: Callable[[], int]) -> int:
        try:
            return int(getattr(buffer, name))
        except gentl.GenericException:  # a producer need not know it
            return otherwise()

    if ask("payload_type", lambda: 1) not in (_PAYLOAD_IMAGE, _PAYLOAD_IMAGE_WITH_CHUNKS):
        raise ImageError("the camera sends more than one plain picture a frame; switch off its other components")
    number = ask("pixel_format", lambda: node_map.PixelFormat.get_int_value())
    return decode_buffer(
        np.frombuffer(buffer.raw_buffer, np.uint8)[ask("image_offset", lambda: 0) :],
        dict_by_ints.get(number, hex(number)),
        ask("width", lambda: node_map.Width.value),
        ask("height", lambda: node_map.Height.value),
        ask("padding_x", lambda: 0),
    )


def _first(buffers: Any) -> Any:
    """Return the buffer of the first stream of a camera with several streams; release the others."""
    if not isinstance(buffers, list):
        return buffers
    for other in buffers[1:]:
        if other is not None:
            other.parent.queue_buffer(other)
    return buffers[0]


def _watch_incomplete(acquirer: Any) -> list[bool]:
    """Return a list that gets an entry for each frame that came incomplete."""
    from harvesters.core import Callback

    seen: list[bool] = []

    class Note(Callback):  # type: ignore[misc]  # harvesters has no types
        def emit(self, context: object = None) -> None:  # noqa: ARG002 - harvesters' signature
            seen.append(True)

    acquirer.add_callback(acquirer.Events.INCOMPLETE_BUFFER, Note())
    return seen
