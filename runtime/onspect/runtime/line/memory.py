"""Memory for a process that runs for months; what glibc does with it is told here, other systems need nothing."""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def keep_memory_together() -> None:
    """Let all threads share two of malloc's arenas, for the process's whole life.

    By default each thread may get one of its own, up to eight a core, and what one thread freed is of no use to the
    others: cameras that are opened anew and models that are exchanged come with new threads, and memory would creep.
    """
    setting = _find("mallopt")
    if setting is not None:
        setting(_M_ARENA_MAX, _ARENAS)


def give_memory_back() -> None:
    """Hand what was freed back to the system: each exchanged model leaves some ten megabytes in pieces behind."""
    trim = _find("malloc_trim")
    if trim is not None:
        trim(0)


def _find(name: str) -> ctypes._NamedFuncPointer | None:
    """Return a function of the C library, None where it has no such (musl, Windows, macOS)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
