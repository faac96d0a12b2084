"""Images that are given to a command: files, folders, patterns and lists."""

from __future__ import annotations

import codecs
import glob
import logging
import os
import sys
from pathlib import Path

from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.images.files import list_folder
from onspect.runtime.text import count_of

_LOG = logging.getLogger("onspect")


def expand_images(arguments: tuple[str, ...]) -> list[str]:
    """Return the paths of the image files that the arguments name, in their order.

    A file that is named directly is used with any ending, so that it is judged or is a fault.

    Parameters
    ----------
    arguments
        Files, folders, patterns, or ``-`` for a list on stdin.

    Returns
    -------
    list[str]
        The paths.

    Raises
    ------
    DatasetError
        If an argument names no image.
    ChoiceError
        If an argument is a URL.
    """
    paths: list[str] = []
    for argument in arguments:
        named = _read_list() if argument == "-" else [argument]
        if url := next(filter(_is_url, named), None):
            from onspect.runtime.credentials import redact

            raise ChoiceError(
                f"{redact(url)!r} is a URL, which 'onspect score --engine ray' reads (pip install 'onspect[ray]'); "
                "give a file or a folder"
            )
        paths += [str(Path(line)) for line in named] if argument == "-" else _expand(argument)
    return paths


def expand_sources(arguments: tuple[str, ...]) -> list[str]:
    """Return the images that the arguments name as paths and URLs, in their order.

    Parameters
    ----------
    arguments
        Files, folders, patterns, URLs, or ``-`` for a list on stdin.

    Returns
    -------
    list[str]
        The paths and URLs.

    Raises
    ------
    DatasetError
        If an argument names no image.
    """
    sources: list[str] = []
    for argument in arguments:
        if argument == "-":
            sources += _read_list()
        else:
            sources += _expand_url(argument) if _is_url(argument) else _expand(argument)
    return sources


def _is_url(text: str) -> bool:
    if "://" not in text:
        return False
    from onspect.runtime.ray.urls import is_url  # paths of one machine do not need it

    return is_url(text)


def _expand_url(url: str) -> list[str]:
    from onspect.runtime.ray.urls import expand_url

    return expand_url(url)


def _read_list() -> list[str]:
    """Return the paths on stdin, one for each line: UTF-8 with or without a mark at its start, or UTF-16 with one."""
    data = sys.stdin.buffer.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DatasetError(
                "the list on stdin begins as UTF-16, but is not valid UTF-16; write it as UTF-8"
            ) from error
    elif max(data[::2].count(0), data[1::2].count(0)) > len(data) // 4:
        raise DatasetError("the list on stdin has zero bytes, like UTF-16 without a mark; write it as UTF-8")
    else:
        data = data.removeprefix(codecs.BOM_UTF8)
        text = data.decode(sys.stdin.encoding, "surrogateescape")  # the name of a file may be any bytes
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise DatasetError("the list on stdin names no image; give one path a line")
    return lines


def _expand(argument: str) -> list[str]:
    path = Path(argument)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises if a parent may not be read
        return list_folder(argument)
    if os.path.lexists(path) or not glob.has_magic(argument):
        return [str(path)]
    matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [str(match) for match in matches if not match.is_dir()]
    if not files:
        raise DatasetError(f"no file matches {argument!r}; check the pattern")
    if len(files) < len(matches) and "**" not in argument:
        count = len(matches) - len(files)
        verb, pronoun = ("is", "it") if count == 1 else ("are", "them")
        folders = count_of(count, "folder")
        _LOG.warning("%s matched by %r %s left out; name %s", folders, argument, verb, pronoun)
    return files


def common_root(paths: list[str]) -> Path:
    """Return the folder that contains all paths.

    Parameters
    ----------
    paths
        The paths, one or more.

    Returns
    -------
    Path
        The folder.
    """
    parents = {os.path.dirname(os.path.abspath(path)) for path in paths}  # noqa: PTH100, PTH120 - Path keeps '..'
    try:
        return Path(os.path.commonpath(parents))
    except ValueError:  # several drives on Windows
        return Path(min(parents))
