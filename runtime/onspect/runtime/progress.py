"""Progress of long work: library code takes a callback, and the command line passes one that draws a bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Yields the items and shows how far the work is."""

    def __call__(self, items: Iterable[T], length: int, label: str, /) -> Iterator[T]:
        """Yield the items; length is their number, label says what is done with them."""


def no_progress(items: Iterable[T], length: int, label: str) -> Iterator[T]:  # noqa: ARG001 - a `Progress`
    """Yield the items and show nothing."""
    yield from items
