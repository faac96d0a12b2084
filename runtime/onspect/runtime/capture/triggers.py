"""Selection of the frames that become pictures: by time, by count, by key, or by the parts themselves."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.presence.gate import PresenceGate, Step, hold
from onspect.runtime.presence.settings import PresenceSettings
from onspect.runtime.sources.base import Capture


class Trigger:
    """Choose frames. A subclass implements `is_due`, or `choose` and `finish` if it decides later."""

    ended = False
    """Whether the user has ended the capture."""

    advice = ""
    """Advice if no frame was chosen; it begins with a semicolon."""

    def __init__(self) -> None:
        self.failed: Counter[str] = Counter()
        """Number of parts that could not be taken, by reason."""

    @property
    def hint(self) -> str:
        """Text of the preview beside the figures; empty for none."""
        return ""

    def is_due(self) -> bool:
        """Decide about the next readable frame.

        Returns
        -------
        bool
            Whether it is to be written.
        """
        return True

    def choose(self, capture: Capture) -> Sequence[Frame]:
        """Return the frames to write now.

        Parameters
        ----------
        capture
            The next frame, which may be unreadable.

        Returns
        -------
        Sequence[Frame]
            The frames.
        """
        return [] if isinstance(capture.frame, ImageError) or not self.is_due() else [capture.frame]

    def finish(self) -> Sequence[Frame]:
        """Return the frames that are still to be written when no more frames come.

        Returns
        -------
        Sequence[Frame]
            The frames.
        """
        return []


class TimeTrigger(Trigger):
    """Choose the first frame, and then one after each pause of a number of seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._due = time.monotonic()

    def is_due(self) -> bool:
        """Decide about the next readable frame.

        Returns
        -------
        bool
            Whether it is to be written.
        """
        now = time.monotonic()
        if now < self._due:
            return False
        self._due += self._seconds
        if self._due <= now:  # frames were missing: no pause is made up for
            self._due = now + self._seconds
        return True


class CountTrigger(Trigger):
    """Choose the first readable frame, and then every `step`-th."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step
        self._count = -1

    def is_due(self) -> bool:
        """Decide about the next readable frame.

        Returns
        -------
        bool
            Whether it is to be written.
        """
        self._count += 1
        return self._count % self._step == 0


class KeyTrigger(Trigger):
    """Choose a frame after SPACE or Enter; q or Esc ends. read: returns the keys pressed since its last call."""

    def __init__(self, read: Callable[[], str]) -> None:
        super().__init__()
        self._read = read

    @property
    def hint(self) -> str:
        """The keys."""
        return "SPACE: picture, q: end"

    def is_due(self) -> bool:
        """Decide about the next readable frame.

        Returns
        -------
        bool
            Whether it is to be written.
        """
        keys = self._read().lower()
        self.ended = self.ended or "q" in keys or "\x1b" in keys
        return any(key in keys for key in " \r\n")


class PresenceTrigger(Trigger):
    """Choose a crop of each part that passes: the same crop that `onspect run --presence` judges.

    Parts of the first seconds are chosen once the line is learnt. All crops have the size of the first one.

    Parameters
    ----------
    settings
        Known facts about the line; the rest is learnt.
    live
        Whether the source is a camera, whose frames have a time; files have 30 frames a second.
    """

    advice = "; give the frames of a line on which parts pass one by one, or take pictures with --every"

    def __init__(self, settings: PresenceSettings, *, live: bool) -> None:
        super().__init__()
        self._gate = PresenceGate(settings, live=live)
        self._live = live
        self._frames = 0

    @property
    def hint(self) -> str:
        """Whether the line is being learnt, or the number of parts that were not whole in view."""
        if self._gate.learning:
            return "learning the line"
        return f"{self.failed.total()} not whole in view" if self.failed else ""

    def choose(self, capture: Capture) -> Sequence[Frame]:
        """Return the crops of the parts that are decided now.

        Parameters
        ----------
        capture
            The next frame.

        Returns
        -------
        Sequence[Frame]
            The crops.
        """
        self._frames += 1
        step = self._gate.feed(hold(capture, self._frames, live=self._live))  # parts are tracked across faults
        return [] if isinstance(capture.frame, ImageError) else self._take(step)

    def finish(self) -> Sequence[Frame]:
        """Return the crops of the parts that are in view at the end.

        Returns
        -------
        Sequence[Frame]
            The crops.
        """
        return self._take(self._gate.flush())

    def _take(self, step: Step) -> list[Frame]:
        found: list[Frame] = []
        for view in step.views:
            crop = view.crop()
            if isinstance(crop, ImageError):
                self.failed[str(crop)] += 1
                continue
            self._gate.settings = dataclasses.replace(self._gate.settings, window=crop.shape[1::-1])
            found.append(crop)
        return found
