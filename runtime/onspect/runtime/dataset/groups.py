"""Which pictures show the same part, by a regular expression for their paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, DatasetError

_OF_PARTS = " parts in "


def describe_parts(parts: int, pictures: int) -> str:
    """Return how many parts how many pictures show, as the policy of a threshold says it."""
    return f"{parts}{_OF_PARTS}{pictures} pictures"


def says_parts(policy: str) -> bool:
    """Tell whether a policy in words counts parts with several pictures, by `describe_parts` or as teaching says it."""
    return _OF_PARTS in policy


def compile_group(pattern: str) -> re.Pattern[str]:
    """Return a compiled pattern; raises ChoiceError if it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ChoiceError(
            f"{pattern!r} is not a regular expression ({error}); give one such as '^(part\\d+)_'"
        ) from error


def find_group(expression: re.Pattern[str], path: Path) -> tuple[str | None, ...]:
    """Return what the expression captures in a path, or its whole match if it captures nothing.

    Raises DatasetError if it does not match.
    """
    found = expression.search(path.as_posix())
    if found is None:
        raise DatasetError(
            f"{expression.pattern!r} does not match {path.as_posix()!r}, so its part is not known; give an expression "
            "that matches every image"
        )
    return found.groups() or (found.group(),)


def group_names(paths: Sequence[Path], pattern: str | None) -> NDArray[np.intp]:
    """Return for each picture the number of its part, int [n], from 0 in the order of the first pictures.

    The pattern is searched in the file's name; None: each picture shows a part of its own. Errors as `find_group`.
    """
    if pattern is None:
        return np.arange(len(paths))
    expression = compile_group(pattern)
    numbers: dict[tuple[str | None, ...], int] = {}
    return np.array([numbers.setdefault(find_group(expression, Path(path.name)), len(numbers)) for path in paths])


def worst_of_groups(scores: NDArray[np.float32], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the highest score of each part, float64 [parts].

    >>> worst_of_groups(np.array([1, 5, 2], np.float32), np.array([0, 0, 1])).tolist()
    [5.0, 2.0]
    """
    worst = np.full(int(groups.max()) + 1, -np.inf)
    np.maximum.at(worst, groups, scores.astype(np.float64))
    return worst
