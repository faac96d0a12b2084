"""Verdicts as lines of a file: JSONL and CSV. A line is whole or absent, whatever happens while it is written."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from onspect.runtime.errors import OutputError
from onspect.runtime.files import describe_os_error, make_folder, writing
from onspect.runtime.inspector import Inspection
from onspect.runtime.sinks import Delivery
from onspect.runtime.verdict import Verdict


class JsonlSink:
    """One JSON object a line, UTF-8, to a file or (path None) standard output; append keeps what the file holds."""

    header = b""
    delivery: Delivery = "record"
    pictures = False

    def __init__(self, path: Path | None, *, append: bool = False) -> None:
        self._path = path
        self._append = append
        self._file: BinaryIO | None = None
        self._complete = 0
        self._lines = 0

    def __enter__(self) -> Self:
        if self._path is None:
            self._file = sys.stdout.buffer
        else:
            make_folder(self._path.parent)
            with writing(self._path):
                self._file = self._path.open("ab" if self._append else "wb", buffering=0)
                self._complete = self._file.tell() if self._file.seekable() else 0
                stump = self._complete > 0 and _last_byte(self._path) != b"\n"
            if stump:  # power was lost inside a line: the next verdict must not be glued to it
                self._write_line(b"\n")
        if self._complete == 0 and self.header:
            self._write_line(self.header)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None and self._path is not None:
            self._file.close()
        self._file = None

    def write(self, inspection: Inspection) -> None:
        """Write one verdict's line; raises OutputError where the disk is full, with only whole lines left."""
        self.write_many([inspection])

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Write the lines of several verdicts, all or none; raises OutputError as `write`."""
        self._write_line(b"".join(self.format(inspection.verdict) for inspection in inspections))
        self._lines += len(inspections)

    def flush(self) -> None:
        """Bring the lines to the disk itself, so that they outlive a power cut; raises OutputError."""
        if self._file is not None and self._path is not None:
            with writing(self._path):
                _sync(self._file)

    def format(self, verdict: Verdict) -> bytes:
        """Return a verdict's line with its end."""
        return _encode(verdict.to_json()) + b"\n"

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
                f"the {self._lines} verdicts before this one are whole in it; free some space and run the rest again"
            ) from error


class CsvSink(JsonlSink):
    """One row a verdict, with a header; regions are a JSON list in their column."""

    header = b"source,index,time,verdict,score,threshold,regions,latency_ms,model,reason,part,review_threshold\r\n"

    def format(self, verdict: Verdict) -> bytes:
        """Return a verdict's row with its end."""
        row = verdict.to_dict()
        row["regions"] = json.dumps(row["regions"])
        text = io.StringIO()
        csv.writer(text).writerow(row.values())
        return _encode(text.getvalue())


def _encode(text: str) -> bytes:
    """Return text as UTF-8; a file name's bytes that are none become JSON escapes, from which the name can be had."""
    return text.encode(errors="backslashreplace")


def _sync(file: BinaryIO) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno != errno.EINVAL:  # a pipe or a device, which has no disk
            raise


def _write_to_stdout(file: BinaryIO, line: bytes) -> None:
    try:
        file.write(line)
        file.flush()
    except BrokenPipeError:
        raise  # its reader has gone: click ends the command without a word, as the shell's own tools do
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {describe_os_error(error)}") from error


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        return file.read(1)
