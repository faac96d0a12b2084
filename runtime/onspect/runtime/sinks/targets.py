"""What verdicts must not be written over, and sinks that would get into each other's way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from onspect.runtime.errors import ChoiceError, OnspectError, OutputError
from onspect.runtime.images.files import IMAGE_SUFFIXES
from onspect.runtime.sinks.base import Sink

_FILES = ("jsonl", "csv", "sqlite", "evidence")


def refuse_target(target: str, inputs: Iterable[Path | str]) -> None:
    """Raise OutputError where verdicts would replace an input, or an image, as the shell makes of ``-o *.png``."""
    path = Path(target)
    is_input = os.path.exists(path) and any(_is_same_file(path, other) for other in inputs)  # noqa: PTH110 - as in expand
    if path.suffix.lower() in IMAGE_SUFFIXES | {".onnx"} or is_input:
        raise OutputError(f"{target!r} is an input; give a file for the verdicts, such as verdicts.jsonl")


def find_refusal(
    targets: Sequence[str], sinks: Sequence[Sink | None], place: int, inputs: Iterable[Path | str]
) -> OnspectError | None:
    """Return why the sink at a place of a line's list is refused beside those before it; None if it is not.

    targets: the sinks' addresses, as they are after ``env:`` and ``file:``. sinks: what they open to, None for one
    that could not be opened. inputs: the files that the line reads.
    """
    place_of = _find_place(targets[place])
    try:
        refuse_target(targets[place].partition(":")[2].partition("?")[0], inputs)
    except OutputError as error:
        return error
    for number, other in enumerate(targets[:place], 1):
        if _find_place(other) == place_of:
            return ChoiceError(f"it is the same as sink {number}: two sinks cannot write to one place; leave one out")
    sink = sinks[place]
    mine = None if sink is None else sink.listens
    for number, one in enumerate(sinks[:place], 1):
        if one is not None and mine is not None and is_same_port(mine, one.listens):
            return ChoiceError(f"it listens on port {mine[1]} as sink {number} does; give one of them another port")
    return None


def is_same_port(first: tuple[str, int], second: tuple[str, int] | None) -> bool:
    """Return whether two listeners of one machine would want the same port; port 0 takes any that is free."""
    if second is None or first[1] != second[1] or first[1] == 0:
        return False
    hosts = {host if host not in ("", "0.0.0.0", "::") else "" for host in (first[0], second[0])}  # noqa: S104 - read
    return "" in hosts or len(hosts) == 1


def _find_place(target: str) -> str:
    """Return by what two addresses of one place are known."""
    kind, _, place = target.partition(":")
    place = place.partition("?")[0]
    if kind not in _FILES:
        return target
    return place if place == "-" else os.path.realpath(place)


def _is_same_file(first: Path, second: Path | str) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them is not there, or no file can have its name
        return False
