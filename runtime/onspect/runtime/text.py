"""Counts in words."""

from __future__ import annotations


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an s where it is not one.

    >>> count_of(1, "image"), count_of(2, "image")
    ('1 image', '2 images')
    """
    return f"{count} {noun}{'s' * (count != 1)}"
