"""Annotated pictures as evidence, within a quota: the oldest ok is removed first, and ng is kept longest."""

from __future__ import annotations

import re
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cv2

from onspect.runtime.address import parse_file
from onspect.runtime.atomic import check_place, make_folder, write_atomically, writing
from onspect.runtime.credentials import redact
from onspect.runtime.errors import OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict, now
from onspect.runtime.inspection.visualization import draw_overlay
from onspect.runtime.judgement import WORST_FIRST, Judgement
from onspect.runtime.sinks.base import Delivery, Sink

GOES_FIRST = WORST_FIRST[::-1]
"""Order in which pictures are removed when the quota is used up."""

QUOTA_BYTES = 5_000_000_000
"""Default quota in bytes."""

SMALLEST_QUOTA = 1_000_000
"""Smallest quota in bytes; a smaller one has no room for pictures."""

_JPEG_QUALITY = 90
_FORGET_AT_ONCE = 1000  # names of removed pictures
_BLOCK = 4096  # the space of a file on disk is a multiple of this
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


def evidence_name(verdict: Verdict) -> str:
    """Return the path of a verdict's picture in the folder of evidence.

    It follows from the verdict alone and sorts by time within a verdict. The name of the source is shortened.

    Parameters
    ----------
    verdict
        The verdict.

    Returns
    -------
    str
        Path with forward slashes, such as ``ng/2026-03-01/120000.123Z-camera-17.jpg``.
    """
    day, _, clock = verdict.time.partition("T")
    source = _UNSAFE.sub("_", re.split(r"[/\\]", redact(verdict.source).rstrip("/\\"))[-1])[-40:].strip("._")
    safe_day, safe_clock = _UNSAFE.sub("_", day).strip(".") or "_", _UNSAFE.sub("", clock)
    return f"{verdict.verdict}/{safe_day}/{safe_clock}-{source or 'frame'}-{verdict.index}.jpg"


class _Kept:
    """The pictures of one verdict, oldest first, with their sizes: about 30 bytes of memory for each.

    A quota of terabytes has millions of pictures, so the names are kept as lines of one text for each day.
    """

    def __init__(self) -> None:
        self._days: deque[_Day] = deque()
        self.used = 0

    def add(self, name: str, size: int) -> None:
        folder, _, file = name.rpartition("/")
        if not self._days or self._days[-1].folder != folder:
            self._days.append(_Day(folder))
        self._days[-1].names += f"{file}\n".encode(errors="surrogateescape")
        self._days[-1].sizes.append(size)
        self.used += size

    def oldest(self) -> str | None:
        """Return the name of the oldest picture, or None if there is none."""
        if not self._days:
            return None
        day = self._days[0]
        file = day.names[day.start : day.names.index(b"\n", day.start)]
        return f"{day.folder}/{file.decode(errors='surrogateescape')}"

    def pop(self) -> None:
        """Forget the oldest picture."""
        day = self._days[0]
        self.used -= day.sizes[day.gone]
        day.gone += 1
        day.start = day.names.index(b"\n", day.start) + 1
        if day.gone == len(day.sizes):
            self._days.popleft()
        elif day.gone >= _FORGET_AT_ONCE:
            del day.names[: day.start], day.sizes[: day.gone]
            day.start = day.gone = 0


@dataclass
class _Day:
    """The pictures of a folder as lines of names; the first `gone` of them, up to byte `start`, are removed."""

    folder: str
    names: bytearray = field(default_factory=bytearray)
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    start: int = 0
    gone: int = 0


class EvidenceSink(Sink):
    """Write a JPEG with verdict, outlines and boxes for each part that has a picture, within a quota.

    Pictures that are in the folder at the start count, and each picture counts as whole blocks of the disk. A picture
    is not written if only pictures of a higher rank could be removed for it (an ok among ng only).

    Parameters
    ----------
    folder
        The folder.
    quota
        Largest space of all pictures in bytes.
    """

    delivery: Delivery = "live"

    def __init__(self, folder: Path, *, quota: int = QUOTA_BYTES) -> None:
        self._folder = self.evidence = folder
        self._quota = quota
        self._kept: dict[Judgement, _Kept] = {verdict: _Kept() for verdict in GOES_FIRST}
        self.recorders: list[Callable[[Sequence[str]], None]] = []
        """Functions that get the names of pictures that are not written, for the records that name them."""

    def note_lost(self, inspections: Sequence[Inspection]) -> None:
        """Tell the records that inspections have no picture.

        Parameters
        ----------
        inspections
            The inspections.
        """
        for recorder in self.recorders:
            recorder([evidence_name(inspection.verdict) for inspection in inspections])

    def __enter__(self) -> Self:
        make_folder(self._folder)
        with writing(self._folder):
            for verdict in GOES_FIRST:
                self._kept[verdict] = self._find(verdict)
        for verdict in GOES_FIRST:  # the quota may be smaller than it was
            self._make_room(0, verdict)
        return self

    def __exit__(self, *exception: object) -> None:
        self._kept = {verdict: _Kept() for verdict in GOES_FIRST}

    def probe(self) -> str:
        """Check whether the folder can be written.

        Returns
        -------
        str
            One sentence about the folder.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        return check_place(self._folder, folder=True)

    @property
    def used(self) -> int:
        """Space of all pictures on disk, in bytes."""
        return sum(kept.used for kept in self._kept.values())

    def write(self, inspection: Inspection) -> None:
        """Draw and write the picture of one inspection.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the disk is full.
        """
        picture = draw_overlay(inspection)
        if picture is None:
            self.note_lost([inspection])
            return
        name, verdict = evidence_name(inspection.verdict), inspection.verdict.verdict
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
        size = _on_disk(len(data))
        if not self._make_room(size, verdict):
            self.note_lost([inspection])
            return
        path = self._folder / name
        make_folder(path.parent)
        write_atomically(path, data, sync=verdict != "ok")  # a wait for the disk at every ok part would be too slow
        self._kept[verdict].add(name, size)

    def _find(self, verdict: Judgement) -> _Kept:
        """Return the pictures of earlier runs, and remove unfinished files of a killed run.

        Their names give their order. A date after today comes from a wrong clock and counts as older.
        """
        kept, today = _Kept(), now()[:10]
        paths = sorted((self._folder / verdict).glob("*/*"), key=lambda path: (path.parent.name <= today, path))
        for path in paths:
            if path.name.startswith(".onspect-") and path.suffix == ".tmp":
                path.unlink()
            elif path.suffix == ".jpg":
                kept.add(path.relative_to(self._folder).as_posix(), _on_disk(path.stat().st_size))
        return kept

    def _make_room(self, size: int, verdict: Judgement) -> bool:
        """Remove pictures of this rank and below until one more fits; return False if that is not possible."""
        yielding = [self._kept[rank] for rank in GOES_FIRST[: GOES_FIRST.index(verdict) + 1]]
        if self.used + size - self._quota > sum(kept.used for kept in yielding):
            return False
        for kept in yielding:
            while self.used + size > self._quota and (oldest := kept.oldest()) is not None:
                self._remove(kept, oldest)
        return True

    def _remove(self, kept: _Kept, oldest: str) -> None:
        path = self._folder / oldest
        what = f"cannot remove the old picture {str(path)!r} to make room"
        with explaining(OutputError, what, "check the permissions of the folder"):
            path.unlink(missing_ok=True)  # a person may have removed it
        kept.pop()
        with suppress(OSError):  # the folder of a day is removed with its last picture
            path.parent.rmdir()


def open_evidence(text: str) -> EvidenceSink:
    """Return the sink of pictures.

    Parameters
    ----------
    text
        The address, ``evidence:FOLDER?quota=SIZE``.

    Returns
    -------
    EvidenceSink
        The sink.

    Raises
    ------
    ChoiceError
        If an option is not valid.
    """
    target, options = parse_file(text, {"quota": "SIZE"})
    return EvidenceSink(Path(target), quota=options.size("quota", smallest=SMALLEST_QUOTA) or QUOTA_BYTES)


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
