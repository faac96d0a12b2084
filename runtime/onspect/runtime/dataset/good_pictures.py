"""Checks of a folder of good pictures before training and teaching: repeated and too few pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

_LOG = logging.getLogger("onspect")

FEW = 20
"""Number of good pictures below which a warning is logged."""


def find_distinct(paths: Sequence[Path], fingerprints: Sequence[str]) -> list[int]:
    """Find the files whose pixels differ from those of all earlier files, and warn of the others.

    Parameters
    ----------
    paths
        The image files.
    fingerprints
        Fingerprint of the pixels of each. A file that is saved again has other bytes, so its bytes do not
        count.

    Returns
    -------
    list[int]
        Positions of the distinct files, ascending.
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
    """Warn, before the work starts, that there are too few different good pictures.

    Parameters
    ----------
    count
        Number of different good pictures.
    few
        Smallest number without a warning.
    """
    if count == 1:
        _LOG.warning(
            "there is only 1 good image, which does not show how good parts differ: expect many false rejects; give "
            "%d or more",
            few,
        )
    elif count < few:
        _LOG.warning("there are only %d good images: expect many false rejects; give %d or more", count, few)
