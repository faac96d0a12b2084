"""Write frames as numbered pictures, complete or not at all, after those of the folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from onspect.runtime.atomic import check_place, make_folder, write_new
from onspect.runtime.capture.frames import KnownFrames
from onspect.runtime.capture.triggers import Trigger
from onspect.runtime.errors import ImageError, OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.images.decode import Frame
from onspect.runtime.sources.base import Capture

_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # low compression: a camera does not wait


@dataclass
class CaptureCounts:
    """Counts of the frames of a source."""

    seen: int = 0
    """Frames that came, including unreadable ones."""

    saved: int = 0
    """Pictures that were written."""

    similar: int = 0
    """Chosen frames that were left out because they repeat a picture."""

    damaged: int = 0
    """Frames that could not be read, and interruptions of the source."""


@dataclass(frozen=True)
class Recorded:
    """One frame and its outcome."""

    counts: CaptureCounts
    """The counts so far; the same object for every frame."""

    frame: Frame | None
    """The frame; None if it could not be read."""

    path: Path | None = None
    """The picture that was written; None if none was."""

    similar: bool = False
    """Whether the frame was chosen and left out because it repeats a picture."""


class PictureFolder:
    """Write pictures as 0001.png, 0002.png and so on, from the first number above those in the folder.

    Parameters
    ----------
    folder
        The folder; the first picture creates it.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        check_place(self._folder, folder=True)
        stems = [path.stem for path in self._folder.iterdir()] if self._folder.exists() else []
        numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdecimal()]
        self._next = max(numbers, default=0) + 1
        self._begun: list[Path] = []

    def write(self, frame: Frame) -> Path:
        """Write a frame as a PNG file.

        Parameters
        ----------
        frame
            HxW, HxWx1 or HxWx3 (BGR), uint8 or uint16.

        Returns
        -------
        Path
            Path of the file.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with explaining(OutputError, f"a frame {frame.shape} of {frame.dtype} cannot be a PNG file", of=cv2.error):
            data = cv2.imencode(".png", frame, _FAST)[1].tobytes()
        make_folder(self._folder)
        while True:
            path = self._folder / f"{self._next:04d}.png"
            self._next += 1
            self._begun.append(path)
            if write_new(path, data):
                return path
            self._begun.pop()

    def list_written(self) -> list[Path]:
        """Return the written pictures, including one whose writing was interrupted by a signal.

        Returns
        -------
        list[Path]
            Paths of the files.
        """
        return [path for path in self._begun if path.exists()]


def record(
    captures: Iterable[Capture],
    folder: PictureFolder,
    trigger: Trigger,
    *,
    counts: CaptureCounts | None = None,
    count: int | None = None,
    keep_similar: bool = False,
) -> Iterator[Recorded]:
    """Write the frames that a trigger chooses; yield each frame, and each one that was chosen later or cut out.

    Parameters
    ----------
    captures
        Frames of a source, to its end.
    folder
        Folder of the pictures.
    trigger
        Chooses the frames, and may end the capture.
    counts
        The counts to increase; they are correct after an interruption too. None for new ones.
    count
        Number of pictures after which the capture ends; None for no limit.
    keep_similar
        Whether frames that repeat a picture of this call are written too.

    Returns
    -------
    Iterator[Recorded]
        Each frame with its outcome.

    Raises
    ------
    OutputError
        If a picture cannot be written.
    """
    counts, known = counts or CaptureCounts(), KnownFrames()

    def keep(frames: Iterable[Frame]) -> Iterator[Recorded]:
        for frame in frames:
            if counts.saved == count:
                return
            path = None
            similar = not keep_similar and known.repeats(frame)
            if similar:
                counts.similar += 1
            else:
                path = folder.write(frame)
                known.add(frame)
                counts.saved += 1
            yield Recorded(counts, frame, path, similar)

    for capture in captures:
        counts.seen += 1
        counts.damaged += isinstance(capture.frame, ImageError)
        chosen = trigger.choose(capture)
        if not any(frame is capture.frame for frame in chosen):
            yield Recorded(counts, None if isinstance(capture.frame, ImageError) else capture.frame)
        yield from keep(chosen)
        if counts.saved == count or trigger.ended:
            return
    yield from keep(trigger.finish())
