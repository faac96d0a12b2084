"""Giving memory back to the system, for a process that runs for months."""

from __future__ import annotations

import ctypes
import sys


def give_memory_back() -> None:
    """Let glibc hand back what was freed; elsewhere this does nothing.

    Each loaded model takes and frees some ten megabytes in pieces, in a thread of its own. glibc keeps them for that
    thread, so that a line whose models are exchanged would grow by half before it stays as it is.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
