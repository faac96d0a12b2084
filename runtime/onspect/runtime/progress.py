"""Progress of long work: library code takes a callback, and the command line passes one that draws a bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Yields the items and shows the progress of the work."""

    def __call__(self, items: Iterable[T], length: int, label: str, /) -> Iterator[T]:
        """Yield the items. length is their number; label describes the work."""


def no_progress(items: Iterable[T], length: int, label: str) -> Iterator[T]:  # noqa: ARG001 - a `Progress`
    """Yield the items and show nothing.

    Parameters
    ----------
    items
        The items.
    length
        Their number.
    label
        Description of the work.

    Returns
    -------
    Iterator[T]
        The items.
    """
    yield from items
