"""Queue of lines on disk that survives the end of its process: the verdicts that a sink could not deliver yet.

A folder has segments, ``000000000001.jsonl`` and so on, that only grow. The file ``cursor`` has the delivered position
and the fingerprint of the newest line. `append` returns after each line is handed to the operating system, so
a killed process loses none. Lines are forced to the disk about once a second, so a power cut loses at most the last
second. The cursor may be behind the delivered position, but never ahead of it: after a crash lines come again, and none
is lost.

SQLite would be shorter. But on a full disk it can neither remove delivered lines nor be opened again, and it writes
4.5 kB for a line of 340 bytes (these files 0.4 kB), which wears out industrial flash cards (benchmarks/spool.py).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self

from onspect.runtime.atomic import check_place, describe_os_error, make_folder, writing
from onspect.runtime.errors import OutputError
from onspect.runtime.fingerprints import fingerprint_bytes

_LOG = logging.getLogger("onspect")

SEGMENT_BYTES = 8_000_000
"""Size at which a new segment begins."""

LIMIT_BYTES = 1_000_000_000
"""Largest size of a spool (about three million verdicts); then its oldest segment is removed."""

_SYNC_EVERY_S = 1.0
_CHUNK = 1 << 20


@dataclass(frozen=True, order=True)
class Position:
    """A place between two lines."""

    segment: int
    """Number of the segment, 1 or more."""
    offset: int
    """Bytes from its beginning."""


@dataclass(frozen=True)
class Piece:
    """Lines that were read from a spool."""

    lines: tuple[bytes, ...]
    """The lines, without their ends."""
    end: Position
    """Position after the last line."""
    tail: int = 0
    """Number of the lines that exist in memory only."""


class Spool:
    """Lines on disk, first in, first out; for one process, with one thread that appends and one that reads.

    Lines that the disk does not accept (it is full) wait in memory and move to the disk as soon as it accepts them.
    `lost` counts the lines that found no room or were removed.

    Parameters
    ----------
    folder
        The folder; it is created.
    segment_bytes
        Size at which a new segment begins.
    limit_bytes
        Largest size of all segments; then the oldest is removed.
    tail_capacity
        Largest number of lines in memory.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        limit_bytes: int = LIMIT_BYTES,
        tail_capacity: int = 10_000,
    ) -> None:
        self.lost = 0
        self.message = ""
        self.newest = ""
        """Fingerprint (`fingerprint_bytes`) of the last appended line, by this run or an earlier one."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._limit_bytes = limit_bytes
        self._tail: deque[bytes] = deque()
        self._tail_capacity = tail_capacity
        self._lent = 0  # lines of the tail that are in delivery and must not move to the disk
        self._lock = threading.RLock()
        self._segments: dict[int, int] = {}  # number -> bytes of whole lines
        self._cursor = Position(1, 0)
        self._count = 0
        self._file: BinaryIO | None = None
        self._cursor_file: BinaryIO | None = None
        self._guard: BinaryIO | None = None
        self._synced_at = 0.0
        self._dirty = False

    def __enter__(self) -> Self:
        make_folder(self._folder)
        with writing(self._folder), ExitStack() as stack:
            self._guard = stack.enter_context(_lock_folder(self._folder))
            for path in sorted(self._folder.glob("*.jsonl")):
                if path.stem.isdigit():
                    self._segments[int(path.stem)] = path.stat().st_size
            self._cursor = self._read_cursor()
            if self._segments:
                self._cut_stump(max(self._segments))
            self._count = sum(self._count_lines(number) for number in self._segments)
            self._cursor_file = _open_for_updates(self._folder / "cursor")
            self._forget_delivered()
            stack.pop_all()  # no error: keep the lock
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._lent = 0
            self._move_tail()
            self.lost += len(self._tail)
            if self._file is not None and self._dirty:
                with suppress(OSError):
                    os.fsync(self._file.fileno())
            for file in (self._file, self._cursor_file, self._guard):
                if file is not None:
                    file.close()
            self._file = self._cursor_file = self._guard = None

    def probe(self) -> None:
        """Raise OutputError if another process uses the spool or its folder cannot be written; nothing is written."""
        check_place(self._folder, folder=True)
        if (self._folder / "lock").exists():
            _lock_folder(self._folder).close()

    def __len__(self) -> int:
        """Return the number of lines on disk."""
        return self._count

    @property
    def held(self) -> int:
        """Number of lines in memory that the disk did not accept."""
        return len(self._tail)

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines at the end; `message` says if the disk does not accept them.

        Parameters
        ----------
        lines
            The lines, without their ends.
        """
        with self._lock:
            self._move_tail()
            for line in lines:
                self.newest = fingerprint_bytes(line)
                if not self._tail and self._write(line):
                    continue
                if len(self._tail) < self._tail_capacity:
                    self._tail.append(line)
                else:
                    self.lost += 1
            self._write_cursor()
            self._sync_sometimes()

    def begin_after(self, newest: str) -> None:
        """Begin a new spool after a line that is not in it; the position is kept on disk.

        Parameters
        ----------
        newest
            Fingerprint of the line.
        """
        with self._lock:
            self.newest = newest
            self._write_cursor()

    def read(self, count: int) -> Piece:
        """Return the oldest lines; each call returns them again until `advance` removes them.

        Parameters
        ----------
        count
            Largest number of lines, 1 or more.

        Returns
        -------
        Piece
            The lines.
        """
        with self._lock:
            self._lent = 0
            self._move_tail()
            if self._count == 0:
                lines = tuple(islice(self._tail, count))
                self._lent = len(lines)
                return Piece(lines, self._cursor, tail=len(lines))
            segment, offset = self._cursor.segment, self._cursor.offset
            while segment not in self._segments or offset >= self._segments[segment]:
                segment, offset = min(number for number in self._segments if number > segment), 0
            lines, end = self._read_lines(segment, offset, count)
            return Piece(lines, Position(segment, end))

    def advance(self, piece: Piece) -> None:
        """Remove delivered lines.

        Parameters
        ----------
        piece
            Lines that `read` returned.
        """
        with self._lock:
            if piece.tail:
                for _ in range(piece.tail):
                    self._tail.popleft()
                self._lent = 0
            elif piece.end > self._cursor:  # otherwise the limit has removed it in the meantime
                self._cursor = piece.end
                self._count -= len(piece.lines)
                self._write_cursor()
                self._forget_delivered()

    def _write(self, line: bytes) -> bool:
        assert b"\n" not in line
        try:
            number = self._open_segment()
            assert self._file is not None
            whole = self._segments[number]
            try:
                _write_all(self._file, line + b"\n")
            except OSError:
                with suppress(OSError):
                    self._file.truncate(whole)
                    self._file.seek(whole)
                raise
        except OSError as error:
            self.message = f"cannot write the spool {str(self._folder)!r}: {describe_os_error(error)}"
            return False
        self._segments[number] = whole + len(line) + 1
        self._count += 1
        self._dirty = True
        self.message = ""
        return True

    def _open_segment(self) -> int:
        """Return the number of the segment that is open for writing."""
        newest = max(self._segments, default=self._cursor.segment - 1)
        if self._file is not None and self._segments[newest] < self._segment_bytes:
            return newest
        number = newest + 1  # a run never writes into a segment of an earlier one
        file = self._path(number).open("xb", buffering=0)
        if self._file is not None:
            self._file.close()
        self._file = file
        self._segments[number] = 0
        self._keep_to_limit()
        return number

    def _keep_to_limit(self) -> None:
        while len(self._segments) > 2 and sum(self._segments.values()) > self._limit_bytes - self._segment_bytes:
            oldest = min(self._segments)
            gone = self._count_lines(oldest)
            self._path(oldest).unlink()
            del self._segments[oldest]
            self.lost += gone
            self._count -= gone
            self._cursor = max(self._cursor, Position(oldest + 1, 0))
            self._write_cursor()
            words = "the spool %s is full (%d bytes): its %d oldest verdicts are lost"
            _LOG.warning(words, self._folder, self._limit_bytes, gone)

    def _move_tail(self) -> None:
        while self._tail and not self._lent and self._write(self._tail[0]):
            self._tail.popleft()

    def _sync_sometimes(self) -> None:
        now = time.monotonic()
        if self._dirty and self._file is not None and now - self._synced_at > _SYNC_EVERY_S:
            with suppress(OSError):  # the next write shows the error of the disk
                os.fsync(self._file.fileno())
            self._synced_at, self._dirty = now, False

    def _read_lines(self, segment: int, offset: int, count: int) -> tuple[tuple[bytes, ...], int]:
        found: list[bytes] = []
        with writing(self._folder), self._path(segment).open("rb") as file:
            file.seek(offset)
            while len(found) < count and offset < self._segments[segment]:
                line = file.readline()
                offset += len(line)
                found.append(line.rstrip(b"\n"))
        return tuple(found), offset

    def _count_lines(self, segment: int) -> int:
        """Return the number of lines of a segment after the cursor."""
        if segment < self._cursor.segment:
            return 0
        start = self._cursor.offset if segment == self._cursor.segment else 0
        count = 0
        with self._path(segment).open("rb") as file:
            file.seek(start)
            while chunk := file.read(_CHUNK):
                count += chunk.count(b"\n")
        return count

    def _forget_delivered(self) -> None:
        """Remove segments that are delivered and closed."""
        newest = max(self._segments, default=0)
        for number in [number for number in self._segments if number < self._cursor.segment]:
            self._remove(number)
        first = self._segments.get(self._cursor.segment)
        if first is not None and self._cursor.offset >= first and (first >= self._segment_bytes or self._file is None):
            number = self._cursor.segment
            if number == newest and self._file is not None:
                self._file.close()
                self._file = None
            self._cursor = Position(number + 1, 0)
            self._write_cursor()  # write the cursor first: a segment's number must never be used again
            self._remove(number)

    def _remove(self, number: int) -> None:
        with suppress(OSError):
            self._path(number).unlink()
        del self._segments[number]

    def _cut_stump(self, number: int) -> None:
        """Remove the part of a last line without an end that a power cut left."""
        path = self._path(number)
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _LOG.warning("the spool's file %s ended inside a line, which is lost", path)
            os.truncate(path, whole)
            self._segments[number] = whole

    def _read_cursor(self) -> Position:
        oldest = Position(min(self._segments, default=1), 0)
        try:
            words = (self._folder / "cursor").read_bytes().split()
            text, check = b" ".join(words[:3]), int(words[3], 16)
            segment, offset, newest = int(words[0]), int(words[1]), words[2].decode()
        except (OSError, ValueError, IndexError):
            return oldest  # a new spool, or a power cut while it was written
        if zlib.crc32(text) != check:
            return oldest
        self.newest = newest.strip("-")
        if segment in self._segments and offset > self._segments[segment]:
            return oldest
        return max(oldest, Position(segment, offset))

    def _write_cursor(self) -> None:
        text = f"{self._cursor.segment} {self._cursor.offset} {self.newest or '-'}"
        record = f"{text} {zlib.crc32(text.encode()):08x}".ljust(95) + "\n"
        if self._cursor_file is not None:
            with suppress(OSError):  # then lines come again after a crash
                self._cursor_file.seek(0)
                self._cursor_file.write(record.encode())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.jsonl"


def _write_all(file: BinaryIO, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def _open_for_updates(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+b", buffering=0)


def _lock_folder(folder: Path) -> BinaryIO:
    """Lock the folder's lock file until it is closed or the process ends; raise OutputError if it is locked already."""
    file = _open_for_updates(folder / "lock")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OutputError(
            f"the spool {str(folder)!r} is in use by another run; stop that one, or give this run its own folder"
        ) from error
    return file
