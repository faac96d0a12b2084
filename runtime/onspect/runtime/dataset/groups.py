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
    """Return the number of parts and pictures in the words of a threshold's policy.

    Parameters
    ----------
    parts
        Number of parts.
    pictures
        Number of pictures of these parts.

    Returns
    -------
    str
        Text such as ``12 parts in 48 pictures``.
    """
    return f"{parts}{_OF_PARTS}{pictures} pictures"


def says_parts(policy: str) -> bool:
    """Return whether the text of a policy counts parts with several pictures.

    Parameters
    ----------
    policy
        The policy of a calibration.

    Returns
    -------
    bool
        True if the policy has the words of `describe_parts`.
    """
    return _OF_PARTS in policy


def compile_group(pattern: str) -> re.Pattern[str]:
    """Compile the pattern of ``--group``.

    Parameters
    ----------
    pattern
        A regular expression.

    Returns
    -------
    re.Pattern[str]
        The compiled expression.

    Raises
    ------
    ChoiceError
        If the pattern is not a regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ChoiceError(
            f"{pattern!r} is not a regular expression ({error}); give one such as '^(part\\d+)_'"
        ) from error


def find_group(expression: re.Pattern[str], path: Path) -> tuple[str | None, ...]:
    """Return the part that a path belongs to.

    Parameters
    ----------
    expression
        The pattern of ``--group``.
    path
        Path of the picture.

    Returns
    -------
    tuple[str or None, ...]
        The captured groups, or the whole match if the expression captures nothing.

    Raises
    ------
    DatasetError
        If the expression does not match.
    """
    found = expression.search(path.as_posix())
    if found is None:
        raise DatasetError(
            f"{expression.pattern!r} does not match {path.as_posix()!r}, so its part is not known; give an expression "
            "that matches every image"
        )
    return found.groups() or (found.group(),)


def group_names(paths: Sequence[Path], pattern: str | None) -> NDArray[np.intp]:
    """Return the number of the part that each picture shows.

    Parameters
    ----------
    paths
        The pictures.
    pattern
        A regular expression, searched in the file name. None: each picture shows its own part.

    Returns
    -------
    NDArray[np.intp]
        int [n], from 0 in the order of the first picture of each part.

    Raises
    ------
    ChoiceError
        If the pattern is not a regular expression.
    DatasetError
        If the pattern does not match a file name.
    """
    if pattern is None:
        return np.arange(len(paths))
    expression = compile_group(pattern)
    numbers: dict[tuple[str | None, ...], int] = {}
    return np.array([numbers.setdefault(find_group(expression, Path(path.name)), len(numbers)) for path in paths])


def worst_of_groups(scores: NDArray[np.float32], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the highest score of each part.

    Parameters
    ----------
    scores
        Score of each picture, float [n].
    groups
        Number of the part of each picture, int [n], from 0.

    Returns
    -------
    NDArray[np.float64]
        float64 [parts].

    Examples
    --------
    >>> worst_of_groups(np.array([1, 5, 2], np.float32), np.array([0, 0, 1])).tolist()
    [5.0, 2.0]
    """
    worst = np.full(int(groups.max()) + 1, -np.inf)
    np.maximum.at(worst, groups, scores.astype(np.float64))
    return worst
