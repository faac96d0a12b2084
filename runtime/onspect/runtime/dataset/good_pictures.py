"""What training and teaching say of a folder of good pictures before they start: copies, and too few."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

_LOG = logging.getLogger("onspect")

FEW = 20
"""Good pictures below which a user is told what to expect."""


def find_distinct(paths: Sequence[Path], fingerprints: Sequence[str]) -> list[int]:
    """Return the places of files that show no earlier one's pixels, in order, and warn of the others.

    fingerprints: of the pixels, as a file that is saved anew has other bytes.
    """
    first: dict[str, int] = {}
    for place, fingerprint in enumerate(fingerprints):
        first.setdefault(fingerprint, place)
    kept = set(first.values())
    repeats = [path for place, path in enumerate(paths) if place not in kept]
    if repeats:
        verb = "repeats another file and counts" if len(repeats) == 1 else "repeat other files and count"
        _LOG.warning("%d of %d images %s once, such as %r", len(repeats), len(paths), verb, str(repeats[0]))
    return sorted(kept)


def warn_of_few(count: int, few: int = FEW) -> None:
    """Say before the work starts what so few different good pictures can give."""
    if count == 1:
        _LOG.warning(
            "there is only 1 good image, which does not show how good parts differ: expect many false rejects; give "
            "%d or more",
            few,
        )
    elif count < few:
        _LOG.warning("there are only %d good images: expect many false rejects; give %d or more", count, few)
