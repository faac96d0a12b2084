"""Checks of the machine: processor, disk, clock, cameras."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.cpu import available_cores, read_cpu_quota, schedulable_cores
from onspect.runtime.doctor.findings import Finding
from onspect.runtime.doctor.packages import run_child
from onspect.runtime.errors import SourceError
from onspect.runtime.text import count_of

_BLOCK = 1 << 20  # bytes
_BLOCKS = 32
_LEAST_FREE = 1e9  # bytes
_LEAST_SPEED = 5e6  # bytes per second
_TIME_ERROR = 5  # result of adjtimex(2) for a clock that is not synchronised
_OLDEST_TIME = 1_704_067_200.0  # 2024-01-01: a clock before this time was never set


def check_processor() -> Finding:
    """Report the number of used cores and the quota of a container.

    Returns
    -------
    Finding
        The finding.
    """
    cores, quota, used = schedulable_cores(), read_cpu_quota(), available_cores()
    detail = f"{count_of(used, 'thread')} of {count_of(os.cpu_count() or cores, 'core')}"
    if quota is not None:
        detail += f"; the container's quota is {quota:g} cores"
    return Finding("processor", "ok", detail)


def check_disk(folder: Path) -> Finding:
    """Write 32 MB into a folder and remove them, to measure free space and speed.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    Finding
        The finding.
    """
    name = f"disk ({folder})"
    path = folder / f".onspect-doctor-{secrets.token_hex(8)}.tmp"
    try:
        free = shutil.disk_usage(folder).free
        if free < 2 * _BLOCK * _BLOCKS:
            return Finding(name, "broken", f"{free / 1e6:.0f} MB free", "free some space")
        try:
            started = time.perf_counter()
            with path.open("xb") as file:
                for _ in range(_BLOCKS):
                    file.write(os.urandom(_BLOCK))
                file.flush()
                os.fsync(file.fileno())
            speed = _BLOCK * _BLOCKS / (time.perf_counter() - started)
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        return Finding(
            name, "broken", f"cannot be written: {describe_os_error(error)}", "run in a folder that you may write"
        )
    detail = f"{free / 1e9:.1f} GB free, writes {speed / 1e6:.0f} MB/s"
    if free < _LEAST_FREE:
        return Finding(name, "warning", detail, "free some space: verdicts and overlays need it")
    if speed < _LEAST_SPEED:
        return Finding(name, "warning", detail, "write verdicts and overlays to a faster disk")
    return Finding(name, "ok", detail)


def check_clock(now: float | None = None) -> Finding:
    """Check that the clock was set, and on Linux whether a time server keeps it.

    Parameters
    ----------
    now
        Time in seconds since 1970; None for the current time.

    Returns
    -------
    Finding
        The finding.
    """
    now = time.time() if now is None else now
    text = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < _OLDEST_TIME:
        return Finding("clock", "broken", f"{text}: the clock was never set", "set it, or start a time service (NTP)")
    synchronised = _is_synchronised()
    if synchronised is None:
        return Finding("clock", "ok", text)
    if not synchronised:
        remedy = "start a time service (NTP): verdicts carry the time"
        return Finding("clock", "warning", f"{text}, not synchronised by a time server", remedy)
    return Finding("clock", "ok", f"{text}, synchronised by a time server")


def _is_synchronised() -> bool | None:
    """Ask the Linux kernel; None on other systems, and if a container may not ask."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # zeros: nothing is changed
        return None if state < 0 else bool(state != _TIME_ERROR)
    return None


def check_cameras() -> Finding:
    """List the cameras that the operating system knows.

    Returns
    -------
    Finding
        The finding.
    """
    from onspect.runtime.images.decode import quieten_opencv
    from onspect.runtime.sources.cameras.discovery import find_local_cameras

    blocked = [path.name for path in _video_devices() if not os.access(path, os.R_OK | os.W_OK)]
    if blocked:
        remedy = "add the user to the group 'video' and log in again"
        return Finding("cameras", "warning", f"{', '.join(blocked)}: no permission to open", remedy)
    quieten_opencv()
    found = find_local_cameras()
    if not found:
        return Finding("cameras", "absent", "no local camera")
    return Finding("cameras", "ok", "; ".join(f"{camera.source}: {camera.name}, {camera.status}" for camera in found))


def _video_devices() -> list[Path]:
    return sorted(Path("/dev").glob("video*")) if sys.platform == "linux" else []


def check_gentl() -> Iterator[Finding]:
    """Load each registered GenTL producer in its own process, and list its cameras.

    Returns
    -------
    Iterator[Finding]
        One finding for each producer, or one that says why there is none.
    """
    if importlib.util.find_spec("harvesters") is None:
        yield Finding("gentl", "absent", "industrial cameras: not installed", "pip install 'onspect[genicam]'")
        return
    from onspect.runtime.sources.cameras.gentl import SEARCH_PATH, find_producers

    try:
        producers = find_producers()
    except SourceError:
        remedy = "for an industrial camera, install its maker's driver and log in again"
        yield Finding("gentl", "absent", f"no GenTL producer in {SEARCH_PATH}", remedy)
        return
    for producer in producers:
        name = f"gentl {producer.name}"
        works, answer, _ = run_child("gentl", str(producer))
        if not works:
            yield Finding(name, "warning", str(answer).removeprefix("SourceError: "), "reinstall the camera's driver")
        elif not answer:
            yield Finding(name, "warning", "loads, and sees no camera", "check power, cable and the camera's subnet")
        else:
            yield Finding(name, "ok", "; ".join(answer))
