"""Files that verdicts must not replace, and sinks that would conflict with each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.images.files import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from onspect.runtime.sinks.base import Sink


def refuse_target(target: str, inputs: Iterable[Path | str]) -> None:
    """Refuse a file of verdicts that would replace an input or an image, as after ``-o *.png`` in a shell.

    Parameters
    ----------
    target
        The file of verdicts.
    inputs
        The files that are read.

    Raises
    ------
    OutputError
        If the file is an input, an image or a model.
    """
    path = Path(target)
    is_input = os.path.exists(path) and any(_is_same_file(path, other) for other in inputs)  # noqa: PTH110 - as in expand
    if path.suffix.lower() in IMAGE_SUFFIXES | {".onnx"} or is_input:
        raise OutputError(f"{target!r} is an input; give a file for the verdicts, such as verdicts.jsonl")


def refuse_conflict(
    targets: Sequence[str], sinks: Sequence[Sink | None], place: int, inputs: Iterable[Path | str]
) -> None:
    """Refuse a sink that conflicts with the sinks before it or with an input.

    Parameters
    ----------
    targets
        Addresses of the sinks, with ``env:`` and ``file:`` resolved.
    sinks
        The sinks; None for one that could not be opened.
    place
        Index of the sink in both lists, 0 or more.
    inputs
        The files that the line reads.

    Raises
    ------
    OutputError
        If it would replace an input.
    ChoiceError
        If another sink writes to the same place, or listens on the same port.
    """
    place_of = _find_place(targets[place])
    refuse_target(targets[place].partition(":")[2].partition("?")[0], inputs)
    for number, other in enumerate(targets[:place], 1):
        if _find_place(other) == place_of:
            raise ChoiceError(f"it is the same as sink {number}: two sinks cannot write to one place; leave one out")
    sink = sinks[place]
    mine = None if sink is None else sink.listens
    for number, one in enumerate(sinks[:place], 1):
        if one is not None and mine is not None and is_same_port(mine, one.listens):
            raise ChoiceError(f"it listens on port {mine[1]} as sink {number} does; give one of them another port")


def is_same_port(first: tuple[str, int], second: tuple[str, int] | None) -> bool:
    """Return whether two listeners of one machine need the same port; port 0 is any free port.

    Parameters
    ----------
    first
        Host and port; "" or 0.0.0.0 for all hosts.
    second
        Host and port; None for no listener.

    Returns
    -------
    bool
        True if both need the same port.
    """
    if second is None or first[1] != second[1] or first[1] == 0:
        return False
    hosts = {host if host not in ("", "0.0.0.0", "::") else "" for host in (first[0], second[0])}  # noqa: S104 - read
    return "" in hosts or len(hosts) == 1


def _find_place(target: str) -> str:
    """Return a text that is equal for two addresses of the same place."""
    from onspect.runtime.address import find_kind  # `onspect score` has a path, and no address
    from onspect.runtime.sinks.registry import SINKS

    kind = find_kind(SINKS, target)
    if kind is None or "://" in kind.forms[0]:  # a host, and no file or folder
        return target
    place = target.partition(":")[2].partition("?")[0]
    return place if place == "-" else os.path.realpath(place)


def _is_same_file(first: Path, second: Path | str) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them does not exist, or its name is not valid
        return False
