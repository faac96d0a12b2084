"""What a source of frames is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.status import SourceState


@dataclass(frozen=True)
class Capture:
    """One frame with where it came from; an ImageError stands in the place of a frame that could not be read.

    source: the file or camera. time: when it was captured, ISO 8601, UTC. captured: the same moment on
    `time.perf_counter`, from which its age is told. part: the part that it shows, where the source knows; the frames of
    one part come one after the other. recipe: the model to judge it with, by its name in the configuration. All four
    are None where the source does not know.
    """

    source: str
    frame: Frame | ImageError
    time: str | None = None
    captured: float | None = None
    part: str | None = None
    recipe: str | None = None


class Source(Protocol):
    """An iterable of captures that is opened by iterating and closed by leaving its context."""

    @property
    def live(self) -> bool:
        """Whether it has no end of its own, as a camera has none."""
        ...

    @property
    def can_wait(self) -> bool:
        """Whether it can be held up without a loss, as files can; the frames of a camera go by."""
        ...

    @property
    def patience(self) -> float | None:
        """Seconds without a capture after which a read counts as hung; None for a source that may be silent."""
        ...

    def __enter__(self) -> Self:
        """Return itself; nothing is opened yet."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop, and close what is open."""
        ...

    def __iter__(self) -> Iterator[Capture]:
        """Open the source and yield its captures; what is lost on the way is a capture with an ImageError.

        A live source opens itself again where it is lost, for ever, and ends only when stopped.
        """
        ...

    def state(self) -> SourceState:
        """Return how the source is; may be called from any thread."""
        ...

    def stop(self) -> None:
        """Let every iterator of this source end as soon as it can; may be called from any thread."""
        ...
