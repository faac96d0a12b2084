"""The gate between a camera and the model: it takes frames and returns each part once, to be judged."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import statistics
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.explain import explaining
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.images.quality import explain_darkness
from onspect.runtime.model.schema import Preprocess, Rectangle
from onspect.runtime.presence.blobs import Blob, BlobFinder, background_of_border, learn_background, shrink
from onspect.runtime.presence.settings import PresenceSettings
from onspect.runtime.presence.tracker import Decision, Tracker
from onspect.runtime.sources.base import Capture

_LOG = logging.getLogger("onspect")

_MOST_BYTES = 512 * 2**20  # largest size of the frames that are kept while the line is learnt
_CONTRAST = 20.0  # grey levels, if the contrast is neither given nor learnt
_MARGIN = 1.15  # size of a learnt window relative to the part
_AT_ONCE = 4  # frames of a backlog that are processed with each new one
_LOOK = 256  # pixels on each side of the area in which sharpness is measured

FILE_RATE = 30.0
"""Frames per second of files, from which their times follow."""

Outcome = Literal["judged", "faulted", "empty"]


@dataclass(eq=False)
class HeldFrame:
    """A frame that a part may still need."""

    capture: Capture
    """The capture."""
    time: float
    """Time of the capture in seconds."""

    outcome: Outcome = "empty"
    """Outcome of the frame until now; ``empty`` until a part is judged in it."""

    def note(self, *, judged: bool) -> None:
        """Record a verdict on a part of this frame; one fault makes the frame a fault.

        Parameters
        ----------
        judged
            Whether the verdict is not a fault.
        """
        if self.outcome != "faulted":
            self.outcome = "judged" if judged else "faulted"


def hold(capture: Capture, number: int, *, live: bool) -> HeldFrame:
    """Return a capture with its time.

    Parameters
    ----------
    capture
        The capture.
    number
        Its number, from 1, from which the time of a file's frame follows.
    live
        Whether the time of capture is the time.

    Returns
    -------
    HeldFrame
        The frame.
    """
    return HeldFrame(capture, capture.captured if live and capture.captured is not None else number / FILE_RATE)


@dataclass(frozen=True)
class PartView:
    """One part to judge."""

    held: HeldFrame
    """The frame that shows it."""

    part: str | None
    """The part id; None for a frame that is a fault without a part."""

    window: Rectangle | None
    """x, y, width and height of the crop in the frame; None if there is nothing to judge."""

    reason: str | None = None
    """The reason why the part cannot be judged; None if it can."""

    def crop(self) -> Frame | ImageError:
        """Return the window of the frame.

        Returns
        -------
        Frame | ImageError
            The pixels of the window, not copied; an error with the reason if there is nothing to judge.
        """
        frame = self.held.capture.frame
        if isinstance(frame, ImageError) or self.window is None:
            return ImageError(self.reason or "there is no part in the frame", code="position")
        x, y, width, height = self.window
        return frame[y : y + height, x : x + width]


@dataclass(frozen=True)
class Step:
    """Result of one frame."""

    views: list[PartView] = field(default_factory=list)
    """The parts to judge now."""

    released: list[HeldFrame] = field(default_factory=list)
    """The frames that no part needs any more, in order."""


Shrunk = tuple[HeldFrame, Frame, NDArray[np.float32]]
"""A frame, its picture, and the shrunk picture, float32 [h, w, channels]."""


class PresenceGate:
    """Decide which parts are judged in which frames of one camera.

    Every frame is released once, by the step after which no part needs it, or by `flush`. While the line is learnt,
    frames are kept, and then they are processed as if they had just come, so that no part is missed.

    Parameters
    ----------
    settings
        The known settings; the others are learnt.
    live
        Whether frames keep coming while the line is learnt, so that `feed` must not wait for it.
    """

    def __init__(self, settings: PresenceSettings, *, live: bool = False) -> None:
        self.settings = settings
        """The given settings, and the learnt ones once the line is learnt."""
        self.background: NDArray[np.uint8] | None = None
        """The learnt background at the size of the frames, for a file; None before."""
        self._live = live
        self._held: list[HeldFrame] = []
        self._backlog: deque[Shrunk] = deque()
        self._bytes = 0
        self._learner: threading.Thread | None = None
        self._finder: BlobFinder | None = None
        self._tracker: Tracker[HeldFrame] | None = None
        self._frames = 0
        self._window: tuple[int, int] | None = None  # learnt size

    @property
    def learning(self) -> bool:
        """Whether the line is being learnt, so that no part is decided yet."""
        return self._tracker is None and self.settings.parts is None

    def feed(self, held: HeldFrame, preprocess: Preprocess | None = None) -> Step:
        """Process the next frame.

        Parameters
        ----------
        held
            The frame.
        preprocess
            The model's, for the size of the window and the white level of 16-bit frames; None without a model.

        Returns
        -------
        Step
            The parts to judge, and the released frames.
        """
        self._held.append(held)
        self._frames += 1
        frame = held.capture.frame
        if isinstance(frame, ImageError):
            return self._release([_fault(held, frame)])
        try:
            if self.settings.parts is not None:
                return self._release(self._take_apart(held, frame, preprocess))
            shrunk = held, frame, shrink(frame, self.settings.region, self._white_level(preprocess))
            if self._tracker is None and self._learner is None:
                self._open(shrunk, preprocess)
        except ImageError as error:
            return self._release([_fault(held, error)])
        self._backlog.append(shrunk)
        if self._learner is not None and not (self._live and self._learner.is_alive()):
            self._learner.join()
            if self._tracker is None:
                return self._give_up()
        return self._catch_up(preprocess, _AT_ONCE if self._live else None)

    def flush(self, preprocess: Preprocess | None = None) -> Step:
        """Decide all open parts and release every frame, when no more frames come.

        Parameters
        ----------
        preprocess
            As for `feed`.

        Returns
        -------
        Step
            The parts to judge, and the released frames.
        """
        if self._tracker is None and self._learner is None and self._backlog:
            self._learn(list(self._backlog))
        if self._learner is not None:
            self._learner.join()
        if self._tracker is None and self._backlog:
            return self._give_up()
        step = self._catch_up(preprocess, None)
        if self._tracker is None:
            return step
        rest = self._release([self._view(decision, preprocess) for decision in self._tracker.flush()])
        return Step([*step.views, *rest.views], [*step.released, *rest.released])

    def _catch_up(self, preprocess: Preprocess | None, most: int | None) -> Step:
        """Process frames of the backlog, at most `most`; none while the line is learnt."""
        views: list[PartView] = []
        count = 0
        while self._tracker is not None and self._backlog and (most is None or count < most):
            shrunk = self._backlog.popleft()
            count += 1
            try:
                views += self._follow(self._tracker, shrunk, preprocess)
            except ImageError as error:
                views.append(_fault(shrunk[0], error))
        return self._release(views)

    def _open(self, shrunk: Shrunk, preprocess: Preprocess | None) -> None:
        """Start with the given background, or learn it once there are enough frames."""
        held, frame, _ = shrunk
        if self.settings.background is not None:
            self._start(self._read_background(self.settings.background, frame, preprocess))
            return
        self._bytes += frame.nbytes
        start = self._backlog[0][0].time if self._backlog else held.time
        if held.time - start >= self.settings.learn or self._bytes >= _MOST_BYTES:
            frames = [*self._backlog, shrunk]
            if preprocess is None:
                self._warn_of_darkness([picture for _, picture, _ in frames])
            self._learner = threading.Thread(target=self._learn, args=(frames,), name="onspect-presence", daemon=True)
            self._learner.start()

    def _warn_of_darkness(self, frames: list[Frame]) -> None:
        brightest = max((int(frame.max()) for frame in frames if frame.dtype == np.uint16), default=0)
        darkness = explain_darkness(brightest, self._white_level(None))
        if darkness is not None:
            _LOG.warning("presence: %s", darkness)

    def _white_level(self, preprocess: Preprocess | None) -> int:
        return self.settings.white_level or (65535 if preprocess is None else preprocess.white_level)

    def _read_background(self, path: str | Path, frame: Frame, preprocess: Preprocess | None) -> BlobFinder:
        height, width = frame.shape[:2]
        picture = read_image(path)
        if picture.shape[:2] != (height, width):
            raise ImageError(
                f"presence: the background {str(path)!r} is {picture.shape[1]}x{picture.shape[0]} pixels, "
                f"the frame {width}x{height}; learn it with this camera mode",
                code="size",
            )
        if picture.ndim == 2 and frame.ndim == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        elif picture.ndim == 3 and frame.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        background = shrink(picture, self.settings.region, self._white_level(preprocess))
        return BlobFinder(background, self.settings.contrast or _CONTRAST, self._region(frame))

    def _region(self, frame: Frame) -> Rectangle:
        return self.settings.region or (0, 0, frame.shape[1], frame.shape[0])

    def _start(self, finder: BlobFinder) -> None:
        one = self.settings
        self._finder = finder
        self._tracker = Tracker(
            velocity=one.velocity, area=one.area, sharpness=one.sharpness, gap=one.gap or 0.0, remember=one.remember
        )

    def _learn(self, frames: list[Shrunk]) -> None:
        """Learn background, motion and size from frames; without a result, `_give_up` follows."""
        try:
            self._learn_line(frames)
        except (ValueError, cv2.error, ImageError):
            _LOG.warning("presence: the line could not be learnt", exc_info=True)

    def _give_up(self) -> Step:
        """Make the frames from which nothing could be learnt faults, and start again."""
        reason = "presence: the line could not be learnt from these frames; do they all have one size?"
        views = [PartView(held, None, None, reason) for held, *_ in self._backlog]
        self._backlog.clear()
        self._bytes, self._learner = 0, None
        return self._release(views)

    def _learn_line(self, frames: list[Shrunk]) -> None:
        background, contrast = learn_background([small for *_, small in frames])
        frame = frames[0][1]
        height, width = frame.shape[:2]
        region, contrast = self._region(frame), self.settings.contrast or contrast
        learnt, window = learn_motion(self.settings, frames, BlobFinder(background, contrast, region))
        self.settings = dataclasses.replace(learnt, contrast=contrast)
        if window is not None:
            self._window = min(window[0], width), min(window[1], height)
        self.background = _enlarge(background, region, frame)
        _LOG.info("presence: learnt %s", describe(self.settings))
        self._start(BlobFinder(background, contrast, region))

    def _follow(self, tracker: Tracker[HeldFrame], shrunk: Shrunk, preprocess: Preprocess | None) -> list[PartView]:
        held, frame, small = shrunk
        assert self._finder is not None
        blobs = self._finder.find(small, tracker.area)
        size = self.window_size(frame, preprocess)

        def look(blob: Blob) -> tuple[bool, float] | None:
            window = place_window(blob, size, frame)
            if any(other is not blob and _overlaps(other, window) for other in blobs):
                return None
            return _is_inside(blob, size, frame), measure_sharpness(frame, blob)

        decisions = tracker.update(blobs, held.time, held, look)
        return [self._view(decision, preprocess) for decision in decisions]

    def _take_apart(self, held: HeldFrame, frame: Frame, preprocess: Preprocess | None) -> list[PartView]:
        """Return the parts of a frame that is independent of other frames."""
        expected = self.settings.parts
        assert expected is not None
        small = shrink(frame, self.settings.region, self._white_level(preprocess))
        path = self.settings.background
        if path is not None and self._finder is None:
            self._finder = self._read_background(path, frame, preprocess)
        contrast = self.settings.contrast or _CONTRAST
        finder = self._finder or BlobFinder(background_of_border(small), contrast, self._region(frame))
        blobs = finder.find(small, self.settings.area)
        if not blobs and held.capture.ticket is None:
            return []
        if held.capture.ticket is not None and expected == 1 < len(blobs):  # it is unknown which of them was triggered
            return [PartView(held, held.capture.part, None, f"{len(blobs)} parts are in the frame, and 1 is expected")]
        size = self.window_size(frame, preprocess)
        views = []
        for place, blob in enumerate(blobs, 1):
            reason = None
            window: Rectangle | None = place_window(blob, size, frame)
            assert window is not None
            if blob.cut:
                reason = "the part is cut by the edge of the region"
            elif any(other is not blob and _overlaps(other, window) for other in blobs):
                reason = f"another part is inside the part's window of {size[0]}x{size[1]} pixels"
            elif place > expected:
                reason = f"{len(blobs)} parts are in the frame, and {expected} are expected"
            views.append(PartView(held, self._name(held, place), None if reason else window, reason))
        for place in range(len(blobs) + 1, expected + 1):
            reason = f"only {len(blobs)} of {expected} parts are in the frame"
            views.append(PartView(held, self._name(held, place), None, reason))
        return views

    def _name(self, held: HeldFrame, place: int) -> str | None:
        """Return the id of a part of a frame: ``FRAME.PLACE``, or the PLC's id of the one part that it triggered."""
        capture = held.capture
        if capture.ticket is None:
            return f"{self._frames}.{place}"
        if self.settings.parts == place == 1:
            return capture.part
        return f"{capture.part or capture.ticket}.{place}"

    def window_size(self, frame: Frame, preprocess: Preprocess | None) -> tuple[int, int]:
        """Return the size of the crop around a part: as given, as the model takes it, or as learnt.

        Parameters
        ----------
        frame
            The frame.
        preprocess
            The model's; None without a model.

        Returns
        -------
        tuple[int, int]
            Width and height in pixels.

        Raises
        ------
        ImageError
            If the crop is larger than the frame.
        """
        height, width = frame.shape[:2]
        size = self.settings.window or _size_of_model(preprocess) or self._window or (width, height)
        if size[0] > width or size[1] > height:
            raise ImageError(
                f"presence: the window of {size[0]}x{size[1]} pixels is larger than the frame of {width}x{height}; "
                "give a smaller window, or use the camera mode of the training images",
                code="size",
            )
        return size

    def _view(self, decision: Decision[HeldFrame], preprocess: Preprocess | None) -> PartView:
        frame = decision.frame.capture.frame
        assert not isinstance(frame, ImageError)
        window = place_window(decision.blob, self.window_size(frame, preprocess), frame)
        return PartView(decision.frame, str(decision.part), None if decision.reason else window, decision.reason)

    def _release(self, views: Sequence[PartView]) -> Step:
        needed = set() if self._tracker is None else {id(held) for held in self._tracker.held()}
        needed |= {id(held) for held, *_ in self._backlog}
        released = [held for held in self._held if id(held) not in needed]
        self._held = [held for held in self._held if id(held) in needed]
        return Step(list(views), released)


def _fault(held: HeldFrame, error: ImageError) -> PartView:
    """Return a frame without a picture as a fault: of the part that the PLC triggered, or without a part."""
    return PartView(held, None if held.capture.ticket is None else held.capture.part, None, str(error))


def learn_motion(
    settings: PresenceSettings, frames: Sequence[Shrunk], finder: BlobFinder
) -> tuple[PresenceSettings, tuple[int, int] | None]:
    """Learn area, speed, direction, gap, sharpness and window from frames.

    Given settings stay. Settings that cannot be learnt, because no part passed, stay None. The window is 1.15 times as
    large as the parts, in steps of 8 pixels.

    Parameters
    ----------
    settings
        The known settings.
    frames
        The frames.
    finder
        Finds the blobs.

    Returns
    -------
    tuple[PresenceSettings, tuple[int, int] | None]
        The settings, and width and height of the window; None for the window if no part passed.
    """
    tracker: Tracker[HeldFrame] = Tracker(remember=settings.remember)
    whole: list[Blob] = []
    sharp: list[float] = []
    speeds: list[tuple[float, float]] = []
    first: dict[int, float] = {}
    for held, frame, small in frames:

        def look(blob: Blob, image: Frame = frame) -> tuple[bool, float] | None:
            sharpness = measure_sharpness(image, blob)
            whole.append(blob)
            sharp.append(sharpness)
            return True, sharpness

        try:
            tracker.update(finder.find(small, tracker.area), held.time, held, look)
        except ImageError:
            continue  # the frame becomes a fault when it is processed
        for track in tracker.tracks:
            if track.state == "present" and track.number is not None:
                first.setdefault(track.number, held.time)
                if track.velocity is not None and math.hypot(*track.velocity) > 0.02 * track.blob.length:
                    speeds.append(track.velocity)
    if not whole:
        return settings, None
    area = settings.area or statistics.median(blob.area for blob in whole)
    usual = [blob for blob in whole if 0.6 * area < blob.area < 1.5 * area] or whole
    found = dataclasses.replace(settings, area=area, sharpness=settings.sharpness or statistics.median(sharp))
    if speeds:
        x, y = (statistics.median(speed[axis] for speed in speeds) for axis in (0, 1))
        found = dataclasses.replace(
            found,
            speed=math.hypot(x, y) if settings.speed is None else settings.speed,
            direction=math.degrees(math.atan2(y, x)) % 360.0 if settings.direction is None else settings.direction,
        )
        times = sorted(first.values())
        pitches = [found.speed * (late - early) for early, late in itertools.pairwise(times) if found.speed]
        if pitches and settings.gap is None:
            length = statistics.median(blob.length for blob in usual)
            found = dataclasses.replace(found, gap=max(0.0, min(pitches) - length))
    return found, _fit_window(usual)


def place_window(blob: Blob, size: tuple[int, int], frame: Frame) -> Rectangle:
    """Return the window around a blob's centre of gravity, moved into the frame.

    Parameters
    ----------
    blob
        The blob.
    size
        Width and height of the window, not larger than the frame.
    frame
        The frame.

    Returns
    -------
    Rectangle
        x, y, width and height.
    """
    height, width = frame.shape[:2]
    x, y = round(blob.x - size[0] / 2.0), round(blob.y - size[1] / 2.0)
    return max(0, min(x, width - size[0])), max(0, min(y, height - size[1])), size[0], size[1]


def measure_sharpness(frame: Frame, blob: Blob) -> float:
    """Return the sharpness of a part: the deviation of the Laplacian divided by the mean brightness.

    At most 256 x 256 pixels in the middle of the part are used. The light has no influence.

    Parameters
    ----------
    frame
        The frame.
    blob
        The part.

    Returns
    -------
    float
        Sharpness, 0 or more.
    """
    left, right = _middle(blob.left, blob.right)
    top, bottom = _middle(blob.top, blob.bottom)
    place = frame[max(0, top) : bottom, max(0, left) : right]
    if place.ndim == 3:
        place = place[:, :, 1] if place.shape[2] == 3 else place[:, :, 0]
    edges = cv2.Laplacian(np.ascontiguousarray(place), cv2.CV_32F)
    return float(cv2.meanStdDev(edges)[1][0, 0]) / (float(cv2.mean(place)[0]) + 1.0)


def describe(settings: PresenceSettings) -> str:
    """Describe the known facts of a line in one sentence.

    Parameters
    ----------
    settings
        The settings.

    Returns
    -------
    str
        The description.
    """
    if settings.area is None:
        return "the background; no part passed, so size and speed are measured while the line runs"
    facts = [f"parts of {settings.area:.0f} square pixels"]
    if settings.speed is not None and settings.direction is not None:
        facts.append(f"{settings.speed:.0f} pixels a second towards {settings.direction:.0f} degrees")
    if settings.gap is not None:
        facts.append(f"at least {settings.gap:.0f} pixels between two parts")
    return ", ".join(facts)


def check_presence(settings: PresenceSettings) -> None:
    """Check that a given background can be read; called before a line starts.

    Parameters
    ----------
    settings
        The settings.

    Raises
    ------
    ChoiceError
        If it cannot be read.
    """
    if settings.background is not None:
        what = f"[presence] background {str(settings.background)!r}"
        with explaining(ChoiceError, what, "give a picture of the line without parts", of=ImageError):
            read_image(settings.background)


def _fit_window(blobs: Sequence[Blob]) -> tuple[int, int]:
    """Return the size of a window around the centre of gravity of each blob, with a margin."""
    across = max(max(blob.x - blob.left, blob.right - blob.x) for blob in blobs)
    down = max(max(blob.y - blob.top, blob.bottom - blob.y) for blob in blobs)
    width, height = (math.ceil(2.0 * _MARGIN * half / 8.0) * 8 for half in (across, down))
    return width, height


def _middle(low: float, high: float) -> tuple[int, int]:
    first, last = math.floor(low), math.ceil(high)
    spare = max(0, last - first - _LOOK) // 2
    return first + spare, last - spare


def _is_inside(blob: Blob, size: tuple[int, int], frame: Frame) -> bool:
    """Return whether the window around a blob is inside the frame; a side as long as the frame always is."""
    x, y, width, height = place_window(blob, size, frame)
    across = width == frame.shape[1] or abs(x + width / 2.0 - blob.x) <= 1.0
    down = height == frame.shape[0] or abs(y + height / 2.0 - blob.y) <= 1.0
    return across and down


def _overlaps(blob: Blob, window: Rectangle) -> bool:
    x, y, width, height = window
    return blob.left < x + width and blob.right > x and blob.top < y + height and blob.bottom > y


def _size_of_model(preprocess: Preprocess | None) -> tuple[int, int] | None:
    """Return the only image size that a model takes, or None if it takes several."""
    if preprocess is None or preprocess.source.width is None or preprocess.source.height is None:
        return None
    (narrow, wide), (low, high) = preprocess.source.width, preprocess.source.height
    return (narrow, low) if (narrow, low) == (wide, high) else None


def _enlarge(background: NDArray[np.float32], region: Rectangle, frame: Frame) -> NDArray[np.uint8]:
    """Return a learnt background at the size of the frames, uint8; it is black outside the region."""
    x, y, width, height = region
    large = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
    picture = np.zeros((*frame.shape[:2], background.shape[2]), np.uint8)
    picture[y : y + height, x : x + width] = large.reshape(height, width, -1).round().clip(0, 255)
    return picture
