"""What sources that come to an end share."""

from __future__ import annotations

import threading
from typing import Self

from onspect.runtime.status import SourceState


class FiniteSource:
    """A source that is there from start to end; a subclass yields captures until `_stopped` is set."""

    live = False
    can_wait = True
    patience: float | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def state(self) -> SourceState:
        """Return that it is connected until it is stopped."""
        return SourceState(self._name, connected=not self._stopped.is_set())

    def stop(self) -> None:
        """End after the capture that is under way."""
        self._stopped.set()
