"""The cameras that this computer can use now."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from onspect.runtime.sources.cameras.gentl import find_producers, list_cameras

_PROBES = 4  # indices that are tried if the system has no list of its cameras


@dataclass(frozen=True)
class FoundCamera:
    """A camera that was found."""

    source: str
    """The address to give as the source."""
    name: str
    """Maker, model and name."""
    status: str
    """``free``, ``in use`` or ``unknown``."""


def find_genicam_cameras(producers: Iterable[Path | str] = ()) -> list[FoundCamera]:
    """Return the industrial cameras that GenTL producers see.

    Parameters
    ----------
    producers
        The .cti files; empty for those that the drivers registered.

    Returns
    -------
    list[FoundCamera]
        The cameras.

    Raises
    ------
    SourceError
        If there is no producer, or one of them cannot be loaded.
    """
    import harvesters.core  # noqa: F401 - if the package is missing, say this and not that there is no driver

    return [
        FoundCamera(
            source=f"genicam:{camera.serial}",
            name=" ".join(part for part in (camera.vendor, camera.model, camera.name, f"({camera.producer})") if part),
            status=camera.status,
        )
        for camera in list_cameras(find_producers(Path(path) for path in producers))
    ]


def find_local_cameras() -> list[FoundCamera]:
    """Return the cameras that the operating system knows, such as webcams; each is opened for a moment.

    Returns
    -------
    list[FoundCamera]
        The cameras.
    """
    return [
        FoundCamera(source=str(index), name=_describe(index, size), status="free" if size else "in use")
        for index, size in _probe()
        if size or sys.platform == "linux"
    ]


def _probe() -> Iterator[tuple[int, str]]:
    """Yield each index with the size of its picture; the size is empty if the camera does not open."""
    indices: Iterable[int] = range(_PROBES)
    if sys.platform == "linux":
        indices = sorted(
            int(path.name.removeprefix("video"))
            for path in Path("/sys/class/video4linux").glob("video*")
            if _read(path / "index") == "0"  # other indices are metadata streams of the same camera
        )
    for index in indices:
        capture = cv2.VideoCapture(index)
        opened = capture.isOpened()
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        capture.release()
        yield index, f"{width:.0f} x {height:.0f}" if opened else ""


def _describe(index: int, size: str) -> str:
    name = _read(Path(f"/sys/class/video4linux/video{index}/name")) if sys.platform == "linux" else ""
    return ", ".join(part for part in (name or "local camera", size) if part)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
