"""Signals that stop a training: taken over for a while, and given back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def stop_signals(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Call handler(number, frame) at Ctrl-C and SIGTERM while the block runs; do nothing outside the main thread."""
    previous = {}
    with suppress(ValueError):  # signals belong to the main thread; elsewhere the caller's thread is its own master
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
