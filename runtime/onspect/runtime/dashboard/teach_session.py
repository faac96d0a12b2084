"""From an empty computer to a model file: good parts are taken from a camera, taught, tried, and put into service."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import make_folder, write_atomically, write_new
from onspect.runtime.dashboard.screen import LONGEST, shrink, to_jpeg
from onspect.runtime.errors import ChoiceError, ImageError, OnspectError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.images.quality import explain_darkness, measure
from onspect.runtime.images.region import RegionFile, format_region
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.visualization import draw_view, to_bgr
from onspect.runtime.labels.store import LabelStore, check_name, encode
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.presence.part_source import PartSource
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.teaching import Taught, teach
from onspect.runtime.teaching.pictures import FEWEST

_LOG = logging.getLogger("onspect")

Phase = Literal["take", "teaching", "try", "service"]

MOST = 500
"""Largest number of good parts."""

_MEASURED = 512  # pixels of the longest side at which exposure and focus are measured
_THUMB = 48  # pixels of the picture that is compared with the last part
_NEW_PART = 2.0  # smallest mean difference of a new part, in grey levels of 255
_PAUSE = 0.5  # seconds between two frames of files, which would otherwise end at once
_CLIPPED = 250  # grey level from which a pixel counts as white


class TeachSession:
    """One camera, the good parts that were taken from it, and their model file.

    Good parts are stored beside the model, in the folder ``NAME-good``, and found again after a restart. The session
    may be used from several threads; its methods raise OnspectError.

    Parameters
    ----------
    source
        The camera; it is read in a thread until `close`.
    model
        The model file to write.
    base
        Base file of ``onspect backbone``.
    store
        Database that logs the new model; None without one.
    copies
        Changed copies of each picture, as in `teach`.
    presence
        How parts are found if the camera runs freely; the picture is then the crop of the newest part. None if each
        frame shows one part.
    white_level
        The 16-bit value that is white; None for that of `presence`, otherwise 65535.
    """

    def __init__(
        self,
        source: Source,
        model: Path,
        base: Path,
        store: LabelStore | None = None,
        *,
        copies: str = "auto",
        presence: PresenceSettings | None = None,
        white_level: int | None = None,
    ) -> None:
        known = None if presence is None else presence.white_level
        self._white_level = white_level or known or 65535
        if presence is not None:
            source = PartSource(source, dataclasses.replace(presence, white_level=self._white_level))
        self._source = source
        self._presence = presence is not None
        self._copies = copies
        self._model = model
        self._base = base
        self._store = store
        self._workshop = tempfile.TemporaryDirectory(prefix="onspect-teach-")
        # the name of the model follows from the name of its file
        self._candidate = Path(self._workshop.name, model.name)
        self._roi = model.with_name(f"{model.stem}-roi.toml")
        self.folder = model.with_name(f"{model.stem}-good")
        self.in_service = threading.Event()
        """Set when the model file is in place."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="onspect-teach-camera", daemon=True)
        self._teacher: threading.Thread | None = None
        self._phase: Phase = "take"
        self._number = 0
        self._frame: Frame | None = None
        self._measures: dict[str, float] = {}
        self._best_focus = 0.0
        self._brightest = 0
        self._wanted = 0
        self._taken_number = 0
        self._last_taken: NDArray[np.uint8] | None = None
        self._taken = sorted(self.folder.glob("*.png"))
        self._region: tuple[float, float, float, float] | None = None
        self._progress = ""
        self._error = ""
        self._taught: Taught | None = None
        self._inspector: Inspector | None = None

    def open(self) -> None:
        """Start to read the camera."""
        make_folder(self.folder)
        self._thread.start()

    def close(self) -> None:
        """Release the camera, so that a line can open it."""
        self._closing.set()
        self._source.stop()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        if self._teacher is not None:
            self._teacher.join()
        self._workshop.cleanup()

    def describe(self) -> dict[str, Any]:
        """Return the texts and numbers of the page.

        Returns
        -------
        dict[str, Any]
            The JSON object for the page.
        """
        state = self._source.state()
        with self._lock:
            taught = self._taught
            return {
                "phase": self._phase,
                "number": self._number,
                "camera": state.name,
                "connected": state.connected,
                "presence": self._presence,
                "message": state.message or self._error,
                "measures": self._measures,
                "advice": explain_darkness(self._brightest, self._white_level)
                or _advise(self._measures, self._best_focus),
                "taken": len(self._taken),
                "wanted": self._wanted,
                "fewest": FEWEST,
                "region": self._region,
                "progress": self._progress,
                "error": self._error,
                "support": None if taught is None else taught.describe_support(),
                "threshold": None if self._inspector is None else self._inspector.threshold.score,
                "lone": [] if taught is None else [one.path.name for one in taught.lone],
                "model": self._model.name,
            }

    def picture(self) -> tuple[int, bytes, dict[str, Any] | None]:
        """Return the newest frame.

        Returns
        -------
        tuple[int, bytes, dict[str, Any] | None]
            Number of the frame, its JPEG (empty before the first), and its verdict while the model is tried, else None.
        """
        with self._lock:
            number, frame, inspector = self._number, self._frame, self._inspector
        if frame is None:
            return number, b"", None
        if inspector is not None:
            inspection = inspector.examine(frame, source=self._source.name, index=number)
            picture = draw_view(inspection, longest=LONGEST, heat=True)
            verdict = inspection.verdict
            facts: dict[str, Any] | None = {
                "verdict": verdict.verdict,
                "score": verdict.score,
                "threshold": verdict.threshold,
                "reason": verdict.reason,
            }
        else:
            picture, facts = shrink(to_bgr(frame, self._white_level)), None
        if picture is None:
            return number, b"", facts
        return number, to_jpeg(picture), facts

    def take(self, count: int) -> None:
        """Take the current part, or the next parts as they come.

        Parameters
        ----------
        count
            1 for the current part, more for the next parts, 0 to stop.

        Raises
        ------
        ChoiceError
            If the number is out of range, there is no new part, or the phase does not allow it.
        """
        if not 0 <= count <= MOST:
            raise ChoiceError(f"the number of parts is {count}; give 1 to {MOST}")
        with self._lock:
            self._require("take", "try")
            self._wanted = 0
            if count != 1:
                self._wanted = count
                return
            if self._frame is None:
                raise ChoiceError("the camera has shown no part yet; show one")
            if self._number == self._taken_number:
                raise ChoiceError("this picture was taken already; show another part")
            self._keep(self._frame)

    def remove_last(self) -> None:
        """Remove the part that was taken last.

        Raises
        ------
        ChoiceError
            If no part was taken or the phase does not allow it.
        """
        with self._lock:
            self._require("take", "try")
            if not self._taken:
                raise ChoiceError("no part was taken yet; take one first")
            self._taken.pop().unlink(missing_ok=True)
            self._taken_number = 0

    def set_region(self, region: tuple[float, float, float, float] | None) -> None:
        """Set the inspected rectangle.

        Parameters
        ----------
        region
            Left, top, width and height as shares of the picture, 0 to 1; None for the whole picture.

        Raises
        ------
        ChoiceError
            If the region is outside the picture or too small, or the phase does not allow it.
        """
        if region is not None:
            left, top, width, height = region
            inside = min(left, top) >= 0 and left + width <= 1.0001 and top + height <= 1.0001
            if not inside or min(width, height) < 0.02:
                raise ChoiceError("the region is not inside the picture, or too small; draw it again")
        with self._lock:
            self._require("take", "try")
            self._region = region

    def start_teaching(self) -> None:
        """Teach the parts that were taken, in its own thread.

        Raises
        ------
        ChoiceError
            If there are too few parts or the phase does not allow it.
        """
        with self._lock:
            self._require("take", "try")
            if len(self._taken) < FEWEST:
                raise ChoiceError(f"{len(self._taken)} parts were taken; take at least {FEWEST}, better 10 or more")
            if self._teacher is not None:
                self._teacher.join()
            self._wanted = 0
            self._phase, self._error, self._inspector, self._taught = "teaching", "", None, None
            self._teacher = threading.Thread(
                target=self._teach, args=(list(self._taken), self._region), name="onspect-teacher", daemon=True
            )
            self._teacher.start()

    def put_into_service(self, who: str) -> None:
        """Write the model file and log it; then a line can start.

        Parameters
        ----------
        who
            Name of the person.

        Raises
        ------
        ChoiceError
            If the name is not valid or the phase does not allow it.
        OutputError
            If the file or the log cannot be written.
        """
        who = check_name(who)
        with self._lock:
            self._require("try")
            assert self._taught is not None
            content = self._candidate.read_bytes()
            write_atomically(self._model, content)
            if self._store is not None:
                facts = {
                    "model": self._model.name,
                    "after": hashlib.sha256(content).hexdigest(),
                    "pictures": self._taught.pictures,
                }
                try:
                    self._store.record("teach", who, facts)
                except OnspectError:
                    self._model.unlink()
                    raise
            self._phase = "service"
        _LOG.warning("%s was put into service by %r", self._model.name, who)
        self.in_service.set()

    def _require(self, *phases: Phase) -> None:
        if self._phase not in phases:
            words = {"take": "parts are taken", "teaching": "the parts are being taught", "try": "the model is tried"}
            raise ChoiceError(f"this is not possible now: {words.get(self._phase, 'the line is starting')}")

    def _watch(self) -> None:
        try:
            with self._source:
                for capture in self._source:
                    if self._closing.is_set():
                        return
                    self._see(capture)
                    if not self._source.live and self._closing.wait(_PAUSE):
                        return
        except Exception as error:  # noqa: BLE001 - the page shows the error; otherwise the thread would end silently
            _LOG.warning("the camera of the teach page failed: %s", error)
            with self._lock:
                self._error = str(error)

    def _see(self, capture: Capture) -> None:
        frame = capture.frame
        if isinstance(frame, ImageError):
            with self._lock:
                self._error = str(frame)
            return
        small = shrink(to_bgr(frame, self._white_level), _MEASURED)
        brightness, sharpness = measure(small)
        clipped = float((cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) >= _CLIPPED).mean())
        with self._lock:
            self._number += 1
            self._frame = frame
            if frame.dtype == np.uint16:
                self._brightest = max(self._brightest, int(frame.max()))
            self._best_focus = max(self._best_focus, sharpness)
            focus = sharpness / self._best_focus if self._best_focus else 0.0
            self._measures = {"brightness": brightness, "sharpness": sharpness, "clipped": clipped, "focus": focus}
            if self._phase != "teaching":
                self._error = ""
            if self._wanted and self._is_new(small):
                try:
                    self._keep(frame)
                    self._wanted -= 1
                except OnspectError as error:
                    self._wanted, self._error = 0, str(error)

    def _is_new(self, small: NDArray[np.uint8]) -> bool:
        """Return whether a picture shows another part than the last one that was taken."""
        last, thumb = self._last_taken, _thumb(small)
        return self._presence or last is None or float(np.abs(thumb.astype(np.int16) - last).mean()) >= _NEW_PART

    def _keep(self, frame: Frame) -> None:
        if len(self._taken) >= MOST:
            raise ChoiceError(f"{MOST} parts were taken, and no more are allowed")
        number = 1 + (int(self._taken[-1].stem) if self._taken and self._taken[-1].stem.isdecimal() else 0)
        path = self.folder / f"{number:04}.png"
        if not write_new(path, encode(frame)):
            raise ChoiceError(f"{str(path)!r} exists already; empty the folder, or restart")
        self._taken.append(path)
        self._taken_number = self._number
        self._last_taken = _thumb(shrink(to_bgr(frame, self._white_level), _MEASURED))

    def _teach(self, pictures: list[Path], region: tuple[float, float, float, float] | None) -> None:
        try:
            inspected = None if region is None else self._write_region(region, pictures[0])
            taught = teach(
                pictures,
                self._candidate,
                base=self._base,
                region=inspected,
                copies=self._copies,
                white_level=self._white_level,
                progress=self._follow,
            )
            inspector = Inspector(self._candidate)
            with self._lock:
                self._taught, self._inspector, self._phase = taught, inspector, "try"
        except Exception as error:  # noqa: BLE001 - the page shows the error; otherwise the thread would end silently
            if not isinstance(error, OnspectError):
                _LOG.exception("teaching failed")
            with self._lock:
                self._error, self._phase = str(error), "take"
        finally:
            with self._lock:
                self._progress = ""

    def _write_region(self, shares: tuple[float, float, float, float], picture: Path) -> RegionFile:
        """Write the region as roi.toml beside the model, and return it."""
        height, width = read_image(picture).shape[:2]
        left, top = round(shares[0] * width), round(shares[1] * height)
        sides = (min(width - left, round(shares[2] * width)), min(height - top, round(shares[3] * height)))
        region = RegionFile(rectangles=((left, top, *sides),), frame=(width, height))
        write_atomically(self._roi, format_region(region, self._roi.parent).encode())
        return region

    def _follow(self, items: Iterable[Any], length: int, label: str) -> Iterator[Any]:
        shown = 0.0
        for number, item in enumerate(items):
            if time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                with self._lock:
                    self._progress = f"{label}: {number} of {length}"
            yield item


def _thumb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA), np.uint8)


def _advise(measures: dict[str, float], best: float) -> str:
    """Return one sentence about exposure and focus."""
    if not measures:
        return ""
    if measures["clipped"] > 0.1:
        return f"{measures['clipped']:.0%} of the picture is white: shorten the exposure, or dim the lamp."
    if measures["brightness"] < 30:
        return "The picture is dark: lengthen the exposure, or add light."
    if best and measures["focus"] < 0.7:
        return "The picture was sharper before: check focus and motion blur."
    return "Exposure and focus are good."
