"""Base class of all sources, and the captures that they give."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.records import quick_init
from onspect.runtime.status import SourceState


@quick_init
@dataclass(frozen=True)
class Capture:
    """One frame with its origin. Fields that are None are unknown to the source."""

    source: str
    """The file or the camera."""
    frame: Frame | ImageError
    """The frame, or an ImageError if it could not be read."""
    time: str | None = None
    """Time of the capture, ISO 8601 in UTC."""
    captured: float | None = None
    """The same time on `time.perf_counter`, in seconds; the age of the frame follows from it."""
    part: str | None = None
    """The part that the frame shows; the frames of one part are consecutive."""
    recipe: str | None = None
    """Name of the recipe that judges the frame."""
    ticket: int | None = None
    """Number of the PLC's trigger that the frame belongs to."""


@dataclass(frozen=True)
class Retry:
    """Pauses before a lost source is opened again: each is twice as long as its predecessor, half of it at random.

    The random half keeps a hundred cameras behind one switch from coming back at the same moment.
    """

    first: float = 0.5
    """Longest pause before the first try, in seconds."""

    longest: float = 30.0
    """Longest pause between two tries, in seconds."""

    def pauses(self) -> Iterator[float]:
        """Yield the pause before each try, without end.

        Returns
        -------
        Iterator[float]
            Pauses in seconds.
        """
        pause = self.first
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
            pause = min(2 * pause, self.longest)


class FirstSize:
    """The size of a source's first frame; frames of another size are faults for the whole life of the source.

    A camera with changed settings shows the parts in another way than the model knows, and must not be judged silently.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None

    def find_change(self, width: int, height: int) -> ImageError | None:
        """Compare the size of a frame with that of the first one.

        Parameters
        ----------
        width
            Width in pixels.
        height
            Height in pixels.

        Returns
        -------
        ImageError | None
            The error of the frame, or None if it has the size of the first one.
        """
        self._size = self._size or (width, height)
        if (width, height) == self._size:
            return None
        first = f"{self._size[0]}x{self._size[1]}"
        words = f"the frame is {width}x{height} pixels, and the source began with {first}; restart if that is intended"
        return ImageError(words, code="resolution")


class Source(ABC):
    """An iterable of captures; iterating opens it, and leaving its context closes it.

    A subclass yields captures until `_stopped` is set. The defaults fit files, which are available from start to end.
    """

    live: bool = False
    """Whether it has no end of its own, as a camera."""

    can_wait: bool = True
    """Whether a delay loses nothing, as with files; a camera's frames are lost."""

    patience: float | None = None
    """Seconds without a capture after which a read counts as hung; None for a source that may be silent."""

    retry: Retry = Retry()
    """Pauses before it is opened again after a loss."""

    tried: float = 0.0
    """Time of the last try to open it, on `time.monotonic`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        """Return itself; nothing is opened yet."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop and close the source."""
        self.stop()

    @abstractmethod
    def __iter__(self) -> Iterator[Capture]:
        """Open the source and yield its captures; a lost frame is a capture with an ImageError.

        A live source opens itself again after every loss, and ends only when it is stopped.
        """

    def state(self) -> SourceState:
        """Return the state of the source; may be called from any thread.

        Returns
        -------
        SourceState
            The state.
        """
        return SourceState(self.name, connected=not self._stopped.is_set())

    def stop(self) -> None:
        """Let every iterator of this source end as soon as it can; may be called from any thread."""
        self._stopped.set()

    def task_done(self, capture: Capture) -> None:  # noqa: B027 - an optional hook
        """Note that a capture was judged and its verdict was handed to the sinks.

        Parameters
        ----------
        capture
            The capture.
        """


class SourceAround(Source):
    """A source that changes what another one gives; it opens and closes the other one.

    Parameters
    ----------
    source
        The other source.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self.live, self.can_wait = source.live, source.can_wait
        self._source = source

    def __enter__(self) -> Self:
        """Open the other source."""
        self._source.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the other source, then this one."""
        self._source.__exit__(*exception)
        super().__exit__(*exception)

    def state(self) -> SourceState:
        """Return the state of the other source.

        Returns
        -------
        SourceState
            The state.
        """
        return self._source.state()
