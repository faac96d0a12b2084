"""Verdicts as lines of a file: JSONL and CSV. A line is complete or absent, even after a crash."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

from onspect.runtime.atomic import check_place, describe_os_error, identify, make_folder, writing
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.sinks.columns import COLUMNS, encode_verdict, parse_line, to_row

_LOG = logging.getLogger("onspect")

KEEP = 10
"""Default number of older files that are kept."""

SMALLEST_ROTATION = 100_000
"""Smallest rotation size in bytes; a smaller one would rotate every few seconds."""

_LONGEST_LINE = 1_000_000
_BEGINNING = b'{"source": '


@dataclass(frozen=True)
class Rotation:
    """When a file is rotated."""

    size: int
    """Largest size of a file in bytes."""
    keep: int
    """Number of older files that are kept, 1 or more; FILE.1 is the newest."""


class JsonlSink(Sink):
    """Write one JSON object for each line, UTF-8, to a file or to standard output.

    With a rotation, a full file is renamed to FILE.1, the one before to FILE.2 and so on. A line is never split. If a
    file cannot be renamed (another program has it open), it keeps growing.

    Parameters
    ----------
    path
        The file; None for standard output.
    append
        Whether the content of the file is kept.
    rotation
        When the file is rotated; None for never.
    """

    header = b""
    delivery: Delivery = "record"
    pictures = False
    batch = 100

    def __init__(self, path: Path | None, *, append: bool = False, rotation: Rotation | None = None) -> None:
        self._path = path
        self._append = append
        self._rotation = rotation
        self._file: BinaryIO | None = None
        self._complete = 0
        self._identity: tuple[int, int] | None = None
        self._lines = 0
        self._stuck = False
        self._lock = threading.Lock()
        self._to_sync: list[int] = []

    def __enter__(self) -> Self:
        if self._path is None:
            self._file = sys.stdout.buffer
        else:
            make_folder(self._path.parent)
            self._open(self._path, "ab" if self._append else "wb")
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            if self._file is not None and self._path is not None:
                self._file.close()
            self._file = None
            for file in self._to_sync:
                os.close(file)
            self._to_sync = []

    def write(self, inspection: Inspection) -> None:
        """Write the line of one verdict.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the disk is full; the file then has only complete lines.
        """
        self.write_many([inspection])

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Write the lines of several verdicts, all or none.

        Parameters
        ----------
        inspections
            The inspections.

        Raises
        ------
        OutputError
            If the disk is full; the file then has only complete lines.
        """
        lines = b"".join(self.format(inspection.verdict) for inspection in inspections)
        if self._path is not None:
            if self._file is not None and identify(self._path) != self._identity:
                self._leave_removed_file(self._path)
            if self._file is None:  # the file was rotated, and then no new one could be opened
                self._open(self._path, "ab")
            if self._rotation is not None:
                self._rotate_before(len(lines), self._path, self._rotation)
        self._write_line(lines)
        self._lines += len(inspections)

    def flush(self) -> None:
        """Force the lines to the disk, so that they survive a power cut; raises OutputError.

        May be called from another thread than `write`, which does not wait for it.
        """
        if self._path is None:
            return
        with self._lock:
            self._remember_to_sync()
            files, self._to_sync = self._to_sync, []
        with writing(self._path), ExitStack() as stack:
            for file in files:
                stack.callback(os.close, file)
            for file in files:
                _sync(file)

    def read_recent(self, count: int) -> list[Verdict]:
        """Return the last verdicts of the file and of the newest older file.

        Parameters
        ----------
        count
            Largest number of verdicts, 1 or more.

        Returns
        -------
        list[Verdict]
            The verdicts, oldest first.
        """
        if self._path is None:
            return []
        lines: list[bytes] = []
        for path in (self._path.with_name(f"{self._path.name}.1"), self._path):
            with suppress(OSError):  # there may be none
                lines += _last_lines(path, count)
        return [verdict for line in lines[-count:] if (verdict := parse_line(line)) is not None]

    def probe(self) -> str:
        """Check whether the file can be written.

        Returns
        -------
        str
            One sentence about the file.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        return "standard output" if self._path is None else check_place(self._path)

    def format(self, verdict: Verdict) -> bytes:
        """Return the line of a verdict.

        Parameters
        ----------
        verdict
            The verdict.

        Returns
        -------
        bytes
            The line with its end.
        """
        return encode_verdict(verdict) + b"\n"

    def _open(self, path: Path, mode: Literal["ab", "wb"]) -> None:
        with writing(path):
            self._file = path.open(mode, buffering=0)
            if path.is_file():  # reading a device would never end
                self._mend(path)
            self._complete = self._file.tell() if self._file.seekable() else 0
            self._identity = identify(path)
        if self._complete == 0 and self.header:
            self._write_line(self.header)

    def _mend(self, path: Path) -> None:
        """Make sure that the next verdict does not continue a last line without an end.

        The rest of a verdict from a crash is cut off; no receiver has learnt it. Any other line gets an end.
        """
        assert self._file is not None
        stump = _last_line(path)
        if not stump or stump.endswith(b"\n"):
            return
        if _is_torn(stump):
            self._file.truncate(self._file.tell() - len(stump))
            self._file.seek(0, io.SEEK_END)
            _LOG.warning("%r ended inside a verdict, which is cut off", str(path))
        else:
            self._file.write(b"\n")

    def _rotate_before(self, size: int, path: Path, rotation: Rotation) -> None:
        if self._complete + size <= rotation.size or self._complete <= len(self.header) or not path.is_file():
            return
        self._leave_file(sync=os.name != "nt")  # Windows cannot rename an open file
        try:
            _set_aside(path, rotation.keep)
        except OSError as error:
            if not self._stuck:
                _LOG.warning("cannot rename %r (%s): the file keeps growing", str(path), describe_os_error(error))
            self._stuck = True
        else:
            self._stuck = False
        self._open(path, "ab")

    def _leave_removed_file(self, path: Path) -> None:
        """Close a file that was renamed or removed by a person or by a log rotation: new lines in it would be lost."""
        _LOG.warning("%r was removed or renamed while verdicts were written to it; a new file is begun", str(path))
        self._leave_file(sync=True)
        make_folder(path.parent)

    def _leave_file(self, *, sync: bool) -> None:
        with self._lock:
            if sync:
                self._remember_to_sync()
            assert self._file is not None
            self._file.close()
            self._file = None

    def _remember_to_sync(self) -> None:
        """Keep the open file under a second descriptor, which stays valid after a rotation."""
        if self._file is not None:
            self._to_sync.append(os.dup(self._file.fileno()))

    def _write_line(self, line: bytes) -> None:
        assert self._file is not None
        if self._path is None:
            _write_to_stdout(self._file, line)
            return
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            self._complete += len(line)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._complete)
            raise OutputError(
                f"cannot write {str(self._path)!r}: {describe_os_error(error)}; "
                f"the {self._lines} verdicts before it are complete; free some space and run the rest again"
            ) from error


class CsvSink(JsonlSink):
    """Write one row for each verdict, with a header; regions are a JSON list in their column.

    An existing file of an older release keeps its own columns.
    """

    header = ",".join(COLUMNS).encode() + b"\r\n"
    _columns = tuple(COLUMNS)

    def __enter__(self) -> Self:
        if self._append and self._path is not None:
            self._columns = _read_columns(self._path)
        return super().__enter__()

    def format(self, verdict: Verdict) -> bytes:
        """Return the row of a verdict.

        Parameters
        ----------
        verdict
            The verdict.

        Returns
        -------
        bytes
            The row with its end.
        """
        text = io.StringIO()
        row = to_row(verdict)
        csv.writer(text).writerow([_defuse(row[name]) for name in self._columns])
        return text.getvalue().encode()


def _defuse(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: such text gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _read_columns(path: Path) -> tuple[str, ...]:
    """Return the columns of an existing table, or those of a new one."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
    except OSError:  # there is no file yet, or opening it reports the error
        return tuple(COLUMNS)
    columns = tuple(first.decode(errors="replace").strip().split(","))
    return columns if set(columns) <= set(COLUMNS) else tuple(COLUMNS)


def open_lines(text: str, *, append: bool) -> JsonlSink:
    """Return the sink of a file of lines.

    Parameters
    ----------
    text
        The address, ``jsonl:FILE?rotate=SIZE&keep=COUNT`` or ``csv:FILE``; FILE may be - for standard output.
    append
        Whether the content of the file is kept.

    Returns
    -------
    JsonlSink
        The sink.

    Raises
    ------
    ChoiceError
        If an option is not valid, or standard output is to be rotated.
    """
    from onspect.runtime.address import parse_file  # `onspect score` has a path, and no address

    target, options = parse_file(text, {"rotate": "SIZE", "keep": "COUNT"})
    kind = JsonlSink if text.startswith("jsonl:") else CsvSink
    size = options.size("rotate", smallest=SMALLEST_ROTATION)
    keep = options.count("keep", smallest=1, largest=100_000)
    if keep is not None and size is None:
        raise ChoiceError(f"{options} has keep= without rotate=; say when: rotate=100MB")
    rotation = None if size is None else Rotation(size, keep or KEEP)
    if target == "-":
        if rotation is not None:
            raise ChoiceError(f"{options} cannot rotate standard output; give a file")
        return kind(None, append=append)
    return kind(Path(target), append=append, rotation=rotation)


def _set_aside(path: Path, keep: int) -> None:
    """Rename FILE to FILE.1, FILE.1 to FILE.2 and so on, up to the first free number or FILE.keep."""
    numbered = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1))]
    last = next((number for number, other in enumerate(numbered) if number and not other.exists()), keep)
    for number in range(last, 0, -1):  # backwards: a process killed in between leaves a gap and loses nothing
        numbered[number - 1].replace(numbered[number])


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a pipe or a device has no disk
            raise


def _write_to_stdout(file: BinaryIO, line: bytes) -> None:
    try:
        file.write(line)
        file.flush()
    except BrokenPipeError:
        raise  # its reader has ended: click then ends the command silently, as shell tools do
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {describe_os_error(error)}") from error


def _last_lines(path: Path, count: int) -> list[bytes]:
    """Return the last complete lines of a file, at most `count`, from its last megabytes."""
    end = _read_end(path, 4 * _LONGEST_LINE)
    lines = end.split(b"\n")[:-1]
    return lines[1 if len(end) == 4 * _LONGEST_LINE else 0 :][-count:]


def _last_line(path: Path) -> bytes:
    """Return the last line of a file with its end, b"" for an empty file."""
    end = _read_end(path, _LONGEST_LINE)
    return end[:-1].rpartition(b"\n")[2] + end[-1:]


def _read_end(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - most))
        return file.read()


def _is_torn(stump: bytes) -> bool:
    """Return whether a line begins like a verdict but is not JSON."""
    if stump[: len(_BEGINNING)] != _BEGINNING[: len(stump)]:
        return False
    try:
        json.loads(stump)
    except ValueError:
        return True
    return False
