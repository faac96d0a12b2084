"""Signals to a running line: SIGTERM and Ctrl-C end it in order; SIGHUP lets a live line read its model files again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from onspect.runtime.line.loop import Line


@contextmanager
def obeying_signals(line: Line) -> Iterator[None]:
    """Let signals control a line while it runs; a second Ctrl-C ends it at once.

    Outside the main thread this has no effect.

    Parameters
    ----------
    line
        The line.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: SimpleQueue[int | None] = SimpleQueue()  # a signal handler may fill it, but may not set an Event
    before: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        asked.put(number)
        if number == signal.SIGINT:
            signal.signal(number, before[number])

    def obey() -> None:
        while (number := asked.get()) is not None:
            if number == getattr(signal, "SIGHUP", None):
                line.reload()
            else:
                line.stop()

    wanted = ("SIGINT", "SIGTERM", "SIGBREAK", *(("SIGHUP",) if line.live else ()))
    names = [name for name in wanted if hasattr(signal, name)]
    for number in (getattr(signal, name) for name in names):
        before[number] = signal.signal(number, note)
    thread = threading.Thread(target=obey, name="onspect-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.put(None)
        thread.join()
