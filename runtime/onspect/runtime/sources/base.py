"""What a source of frames is."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.status import SourceState


@dataclass(frozen=True)
class Capture:
    """One frame with where it came from; an ImageError stands in the place of a frame that could not be read.

    source: the file or camera. time: when it was captured, ISO 8601, UTC. captured: the same moment on
    `time.perf_counter`, from which its age is told. part: the part that it shows, where the source knows; the frames of
    one part come one after the other. recipe: the model to judge it with, by its name in the configuration. ticket:
    the number of the PLC's trigger that it belongs to. All five are None where the source does not know.
    """

    source: str
    frame: Frame | ImageError
    time: str | None = None
    captured: float | None = None
    part: str | None = None
    recipe: str | None = None
    ticket: int | None = None


@dataclass(frozen=True)
class Retry:
    """The pauses before a lost source is opened again: each is twice as long as the one before, half of it by chance.

    By chance, so that a hundred cameras behind one switch do not come back at one moment.
    """

    first: float = 0.5
    """Seconds before the first try, at most."""

    longest: float = 30.0
    """Seconds between two tries at most, however long a source is away."""

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait before each try."""
        pause = self.first
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret hangs on it
            pause = min(2 * pause, self.longest)


class FirstSize:
    """The size that a source's frames had first; frames of another size are faults, for the whole life of the source.

    A camera that was set up anew shows the parts otherwise than the model knows them, and they would be judged as if
    nothing were.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None

    def find_change(self, width: int, height: int) -> ImageError | None:
        """Return the error of a frame of this size in pixels, None if the first frame had it too."""
        self._size = self._size or (width, height)
        if (width, height) == self._size:
            return None
        first = f"{self._size[0]}x{self._size[1]}"
        words = f"the frame is {width}x{height} pixels, and the source began with {first}; restart if that is intended"
        return ImageError(words, code="resolution")


class Source(ABC):
    """An iterable of captures that is opened by iterating and closed by leaving its context.

    A subclass yields captures until `_stopped` is set. The defaults fit files: they are there from start to end.
    """

    live: bool = False
    """Whether it has no end of its own, as a camera."""

    can_wait: bool = True
    """Whether it can be held up without a loss, as files can; the frames of a camera go by."""

    patience: float | None = None
    """Seconds without a capture after which a read counts as hung; None for a source that may be silent."""

    retry: Retry = Retry()
    """The pauses before it is opened again after a loss."""

    tried: float = 0.0
    """When it was last tried to open it, on `time.monotonic`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        """Return itself; nothing is opened yet."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop, and close what is open."""
        self.stop()

    @abstractmethod
    def __iter__(self) -> Iterator[Capture]:
        """Open the source and yield its captures; what is lost on the way is a capture with an ImageError.

        A live source opens itself again where it is lost, for ever, and ends only when stopped.
        """

    def state(self) -> SourceState:
        """Return how the source is; may be called from any thread."""
        return SourceState(self.name, connected=not self._stopped.is_set())

    def stop(self) -> None:
        """Let every iterator of this source end as soon as it can; may be called from any thread."""
        self._stopped.set()

    def task_done(self, capture: Capture) -> None:  # noqa: B027 - for those that want to know
        """Take note that one of its captures was judged and its verdict handed to the sinks."""
