"""GenTL producers (the drivers of camera makers), shared by every GenICam camera of the process.

A producer (a ``.cti`` file) can be loaded once in a process. harvesters closes all cameras of a `Harvester` when it
looks for devices again. So each file has one `Harvester`, which is kept while one of its cameras is open. The list of
devices is renewed interface by interface.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onspect.runtime.errors import SourceError

SEARCH_PATH = "GENICAM_GENTL64_PATH" if sys.maxsize > 2**32 else "GENICAM_GENTL32_PATH"
"""The environment variable in which drivers register the folders of their producers (GenTL standard)."""

_DISCOVERY_MS = 2000  # GigE Vision cameras answer a broadcast; the standard gives them a second
_lock = threading.RLock()
_harvesters: dict[Path, Any] = {}
_users: dict[Path, int] = {}


@dataclass(frozen=True)
class CameraInfo:
    """A camera that a producer sees."""

    serial: str
    """Serial number."""
    name: str
    """User-defined name; empty for none."""
    vendor: str
    """Maker."""
    model: str
    """Model."""
    status: str
    """``free``, ``in use`` or ``unknown``."""
    producer: str
    """The producer that sees the camera."""


@dataclass(frozen=True)
class OpenCamera:
    """A camera that is in use until `close_camera`."""

    acquirer: Any
    """The `ImageAcquirer` of harvesters."""
    producer: Path
    """The .cti file."""


def find_producers(files: Iterable[Path] = ()) -> list[Path]:
    """Return the producers to load.

    Parameters
    ----------
    files
        The .cti files; empty for every ``.cti`` in the folders of `SEARCH_PATH`.

    Returns
    -------
    list[Path]
        Paths of the .cti files.

    Raises
    ------
    SourceError
        If there is no producer.
    """
    given = [path.absolute() for path in files]
    for path in given:
        if not path.is_file():
            raise SourceError(f"there is no GenTL producer {str(path)!r}; give the .cti file of the camera's driver")
    if given:
        return given
    folders = [Path(folder) for folder in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if folder]
    found = sorted({path.absolute() for folder in folders for path in folder.glob("*.cti")})
    if not found:
        raise SourceError(
            f"no GenTL producer is known: install the camera maker's driver, which sets {SEARCH_PATH}, "
            "or name its .cti file (genicam:SERIAL?cti=FILE)"
        )
    return found


def list_cameras(producers: Iterable[Path]) -> list[CameraInfo]:
    """Return the cameras that the producers see.

    Parameters
    ----------
    producers
        The .cti files.

    Returns
    -------
    list[CameraInfo]
        The cameras.

    Raises
    ------
    SourceError
        If a producer cannot be loaded.
    """
    found = []
    with _lock:
        for path in producers:
            with _using(path) as harvester:
                found += [
                    CameraInfo(
                        serial=_text(device, "serial_number"),
                        name=_text(device, "user_defined_name"),
                        vendor=_text(device, "vendor"),
                        model=_text(device, "model"),
                        status=_status(device),
                        producer=path.name,
                    )
                    for device in harvester.device_info_list
                ]
    return found


def open_camera(serial: str, producers: Iterable[Path]) -> OpenCamera:
    """Open a camera.

    Parameters
    ----------
    serial
        Serial number, user-defined name or device id; empty for the only camera.
    producers
        The .cti files.

    Returns
    -------
    OpenCamera
        The camera.

    Raises
    ------
    SourceError
        If no camera or several match, or another program uses it.
    """
    with _lock:
        seen: list[str] = []
        for path in producers:
            with _using(path) as harvester:
                devices = [device for device in harvester.device_info_list if serial in ("", *_names(device))]
                seen += [_text(device, "serial_number") for device in harvester.device_info_list]
                if len(devices) > 1:
                    raise SourceError(f"{len(devices)} cameras match {serial!r}; give one of {', '.join(seen)}")
                if devices:
                    acquirer = _acquire(harvester, devices[0])
                    _users[path] += 1
                    return OpenCamera(acquirer, path)
    there = f"there are {', '.join(seen)}" if seen else "no camera answers"
    raise SourceError(
        f"no GenICam camera {serial!r}: {there}; check its power and cable, that it is in this computer's subnet, "
        "and that no other program uses it"
    )


def close_camera(camera: OpenCamera) -> None:
    """Release a camera; an error of a lost camera is only logged.

    Parameters
    ----------
    camera
        The camera.
    """
    with _lock:
        try:
            camera.acquirer.destroy()
        except Exception as error:  # noqa: BLE001 - a camera whose cable was pulled raises anything, and is gone
            logging.getLogger("onspect").info("a lost camera did not close cleanly: %s", first_words(error))
        _release(camera.producer)


def camera_errors() -> tuple[type[Exception], ...]:
    """Return the base classes of the errors that harvesters and the GenICam libraries raise.

    Returns
    -------
    tuple[type[Exception], ...]
        The classes.
    """
    from genicam import genapi, gentl

    return (gentl.GenericException, genapi.GenericException, OSError, ValueError)


@contextmanager
def explaining_cameras(what: str, cure: str) -> Iterator[None]:
    """Turn an error of harvesters or the GenICam libraries inside the block into one of ours.

    Parameters
    ----------
    what
        What went wrong.
    cure
        What the user can do.

    Raises
    ------
    SourceError
        The error, if the block raises one of theirs.
    """
    try:
        yield
    except camera_errors() as error:
        raise SourceError(f"{what}: {first_words(error)}; {cure}") from error


def first_words(error: Exception) -> str:
    """Return the message of a GenICam error without the names of C++ files.

    Parameters
    ----------
    error
        The error.

    Returns
    -------
    str
        The message.
    """
    return str(error).removeprefix("GenTL exception: ").split(" : ")[0].split(" (Message from")[0].strip().rstrip(".")


@contextmanager
def _using(path: Path) -> Iterator[Any]:
    """Yield the producer's `Harvester` with a fresh list of devices; it is closed if none of its cameras stays open."""
    from harvesters.core import Harvester

    if path not in _harvesters:
        # it also raises the logged error, and we report that
        logging.getLogger("harvesters").setLevel(logging.CRITICAL)
        logging.getLogger("harvesters.core").setLevel(logging.CRITICAL)
        harvester = Harvester()
        harvester.add_file(str(path))
        _harvesters[path], _users[path] = harvester, 0
    _users[path] += 1
    try:
        _discover(_harvesters[path], path, first=_users[path] == 1)
        yield _harvesters[path]
    finally:
        _release(path)


def _release(path: Path) -> None:
    _users[path] -= 1
    if _users[path] == 0:
        del _users[path]
        _harvesters.pop(path).reset()


def _discover(harvester: Any, path: Path, *, first: bool) -> None:
    from harvesters.core import DeviceInfo

    if first:
        harvester.timeout_for_update = _DISCOVERY_MS
        harvester.update()
        if not harvester._systems:  # update() only logs that a producer cannot be loaded
            raise SourceError(
                f"the GenTL producer {str(path)!r} cannot be loaded; install the driver it belongs to, for this "
                "computer's processor, or remove it from the search path"
            )
        return
    harvester.device_info_list.clear()
    for interface in harvester._ifaces:  # update() would close the cameras that are open
        interface.update_device_info_list(_DISCOVERY_MS)
        harvester.device_info_list.extend(
            DeviceInfo(module=device, parent=interface) for device in interface.device_info_list
        )


def _acquire(harvester: Any, device: Any) -> Any:
    from genicam import gentl

    in_main_thread = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        return harvester.create(device)
    except (gentl.ResourceInUseException, gentl.AccessDeniedException) as error:
        raise SourceError(
            f"the GenICam camera {_text(device, 'serial_number')!r} is in use: close the other program that has it open"
        ) from error
    except camera_errors() as error:
        raise SourceError(
            f"cannot open the GenICam camera {_text(device, 'serial_number')!r}: {first_words(error)}; "
            "check its power and cable"
        ) from error
    finally:
        if in_main_thread and interrupt is not None:  # harvesters replaces the handler of Ctrl-C
            signal.signal(signal.SIGINT, interrupt)


def _names(device: Any) -> tuple[str, ...]:
    return tuple(_text(device, name) for name in ("serial_number", "user_defined_name", "id_"))


def _status(device: Any) -> str:
    from genicam import gentl

    kinds = gentl.DEVICE_ACCESS_STATUS_LIST
    try:
        status = device.access_status
    except gentl.GenericException:
        return "unknown"
    if status in (kinds.DEVICE_ACCESS_STATUS_READWRITE, kinds.DEVICE_ACCESS_STATUS_READONLY):
        return "free"
    return "unknown" if status == kinds.DEVICE_ACCESS_STATUS_UNKNOWN else "in use"


def _text(device: Any, name: str) -> str:
    """Return a property of a device; not every producer has all of them."""
    from genicam import gentl

    try:
        return str(getattr(device, name) or "")
    except gentl.GenericException:
        return ""
