"""Consumers of verdicts: JSONL and CSV files, and overlay pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspector import Inspection


class Sink(Protocol):
    """Takes inspections one by one; used as a context manager."""

    def __enter__(self) -> Self:
        """Open what must be open."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Close it, with everything written."""
        ...

    def write(self, inspection: Inspection) -> None:
        """Take one inspection; raises OutputError where it cannot be kept."""
        ...


def open_sink(text: str, *, append: bool) -> Sink:
    """Open ``jsonl:FILE``, ``csv:FILE``, or ``jsonl:-`` for standard output; raises ChoiceError for anything else."""
    from onspect.runtime.sinks.lines import CsvSink, JsonlSink

    kind, _, target = text.partition(":")
    kinds = {"jsonl": JsonlSink, "csv": CsvSink}
    if kind not in kinds or not target:
        raise ChoiceError(f"the sink {text!r} is not known; give jsonl:FILE or csv:FILE (FILE may be - for stdout)")
    return kinds[kind](None if target == "-" else Path(target), append=append)
