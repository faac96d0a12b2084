"""Memory settings for a process that runs for months; only glibc needs them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_ARENAS = 2
_APART = 64 * 1024
_TOGETHER = 32 * 2**20  # the largest value that glibc accepts


def keep_memory_together() -> None:
    """Let all threads share two arenas of malloc for the life of the process.

    By default each thread may get its own arena, up to eight per core, and other threads cannot use the memory that it
    freed. New threads come with every reopened camera and every new model, so the memory would grow.
    """
    _call("mallopt", _M_ARENA_MAX, _ARENAS)


@contextmanager
def lay_apart() -> Iterator[None]:
    """Allocate pieces of 64 KiB and more separately, so that the system gets them back once they are freed.

    Models are loaded this way: otherwise their memory comes back in pieces that are too small for the next model.
    Frames are not, because fresh memory from the system for each frame costs three times the copying.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, _APART)
    try:
        yield
    finally:
        _call("mallopt", _M_MMAP_THRESHOLD, _TOGETHER)
        _call("mallopt", _M_TRIM_THRESHOLD, _TOGETHER)


def give_memory_back() -> None:
    """Return freed memory to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library, if it has it (not musl, Windows or macOS)."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
