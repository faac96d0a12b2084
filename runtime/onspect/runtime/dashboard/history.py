"""Data of earlier hours and runs on disk: counts and rejects of the history, and pictures of evidence."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from onspect.runtime.dashboard.screen import shrink, to_jpeg
from onspect.runtime.errors import OutputError
from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.sinks.history import read_recent, yield_per_hour

_LOG = logging.getLogger("onspect")

REJECTS = 24
"""Number of rejects that the page lists."""

FAULTS = 8
"""Largest number of faults among them: a camera that is covered for a minute must not hide the rejects."""

T = TypeVar("T")

_HOURS = 24
_LARGEST = 32 * 2**20  # bytes; a picture of evidence has about a tenth
_THUMBNAIL = 480  # pixels
_THUMBNAILS = 2 * REJECTS
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*\.jpg", re.ASCII)


class Archive:
    """Read the database of verdicts and the folder of evidence, from several threads.

    Parameters
    ----------
    history
        The database; None without one.
    evidence
        The folder; None without one.
    """

    def __init__(self, history: Path | None = None, evidence: Path | None = None) -> None:
        self._history = history
        self._evidence = evidence
        self._make_thumbnail = lru_cache(_THUMBNAILS)(_make_thumbnail)

    def require_history(self) -> Path:
        """Return the database.

        Returns
        -------
        Path
            Path of the database.

        Raises
        ------
        OutputError
            If the line keeps no history.
        """
        if self._history is None:
            raise OutputError("this line keeps no history; start it with --sink sqlite:FILE")
        return self._history

    def hours(self) -> list[dict[str, Any]] | None:
        """Return the counts of the last 24 hours.

        Returns
        -------
        list[dict[str, Any]] | None
            For each hour its start and the number of parts by verdict, oldest first; None if no history can be read.
        """
        found = self._ask(lambda history: yield_per_hour(history, _HOURS))
        if found is None:
            return None
        return [{"hour": one.start, **{name: getattr(one, name) for name in JUDGEMENTS}} for one in found]

    def rejects(self) -> list[dict[str, Any]] | None:
        """Return the last parts that were not ``ok``.

        Returns
        -------
        list[dict[str, Any]] | None
            The verdicts with the address of their picture, newest first; None if no history can be read.
        """
        wanted = [verdict for verdict in JUDGEMENTS if verdict != "ok"]
        found = self._ask(lambda history: [one for name in wanted for one in read_recent(history, name, REJECTS)])
        if found is None:
            return None
        return [
            record.verdict.to_dict() | {"regions": [], "picture": self.find_address(record.evidence)}
            for record in pick_rejects(found, lambda record: (record.id, record.verdict.verdict))
        ]

    def _ask(self, question: Callable[[Path], T]) -> T | None:
        """Return the answer of the history; None without one, or if it cannot be read."""
        try:
            return None if self._history is None else question(self._history)
        except OutputError as error:
            _LOG.info("%s", error)
            return None

    def read_picture(self, name: str, *, small: bool) -> bytes | None:
        """Return a picture of evidence, or its thumbnail.

        Parameters
        ----------
        name
            Path in the folder of evidence.
        small
            Whether the thumbnail is returned.

        Returns
        -------
        bytes | None
            JPEG; None if there is no such picture.
        """
        path = self._find(name)
        if path is None:
            return None
        return self._make_thumbnail(path) if small else path.read_bytes()

    def find_address(self, name: str | None) -> str | None:
        """Return the page's address of a picture of evidence.

        Parameters
        ----------
        name
            Path in the folder of evidence; None for no picture.

        Returns
        -------
        str | None
            The address; None if there is no such picture.
        """
        return f"/evidence/{name}" if name is not None and self._find(name) is not None else None

    def _find(self, name: str) -> Path | None:
        """Return the file of a picture; a name or a link that leads out of the folder gives None."""
        if self._evidence is None or not _NAME.fullmatch(name) or ".." in name.split("/"):
            return None
        try:
            folder = self._evidence.resolve(strict=True)
            path = (folder / name).resolve(strict=True)
            found = path.is_relative_to(folder) and path.is_file() and path.stat().st_size <= _LARGEST
        except (OSError, ValueError):
            return None
        return path if found else None


def pick_rejects(found: Iterable[T], describe: Callable[[T], tuple[int, str]]) -> list[T]:
    """Return the newest parts that were not ``ok``, with few faults among them.

    Parameters
    ----------
    found
        The parts.
    describe
        Returns number and verdict of a part; a newer part has a higher number.

    Returns
    -------
    list[T]
        At most `REJECTS` parts, newest first.
    """
    newest = sorted(found, key=lambda one: -describe(one)[0])
    faults = [one for one in newest if describe(one)[1] == "fault"][:FAULTS]
    others = [one for one in newest if describe(one)[1] != "fault"][: REJECTS - len(faults)]
    return sorted([*faults, *others], key=lambda one: -describe(one)[0])


def _make_thumbnail(path: Path) -> bytes | None:
    jpeg = path.read_bytes()
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    return None if picture is None else to_jpeg(shrink(np.asarray(picture, np.uint8), _THUMBNAIL))
