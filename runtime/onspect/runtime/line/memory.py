"""Memory for a process that runs for months; what glibc does with it is told here, other systems need nothing."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_ARENAS = 2
_APART = 64 * 1024
_TOGETHER = 32 * 2**20  # the largest there is


def keep_memory_together() -> None:
    """Let all threads share two of malloc's arenas, for the process's whole life.

    By default each thread may get one of its own, up to eight a core, and what one thread freed is of no use to the
    others: cameras that are opened anew and models that are exchanged come with new threads, and memory would creep.
    """
    setting = _find("mallopt")
    if setting is not None:
        setting(_M_ARENA_MAX, _ARENAS)


@contextmanager
def lay_apart() -> Iterator[None]:
    """Give what is allocated in pieces of 64 KiB and more a place of its own, which is the system's again once freed.

    A model is loaded so: among what lives on, its memory would come back in pieces that the next one does not fit into.
    Frames are not, since memory that comes anew from the system for each costs three times the copying.
    """
    setting = _find("mallopt")
    if setting is not None:
        setting(_M_MMAP_THRESHOLD, _APART)
    try:
        yield
    finally:
        if setting is not None:
            setting(_M_MMAP_THRESHOLD, _TOGETHER)
            setting(_M_TRIM_THRESHOLD, _TOGETHER)


def give_memory_back() -> None:
    """Hand what was freed back to the system."""
    trim = _find("malloc_trim")
    if trim is not None:
        trim(0)


def _find(name: str) -> ctypes._NamedFuncPointer | None:
    """Return a function of the C library, None where it has no such (musl, Windows, macOS)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
