"""Help for a first word that is not a command."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path

from onspect.runtime.model.file import describe_folder


def describe_unknown(word: str, commands: Sequence[str]) -> str:
    """Return a message for a word that is not a command: a path, or a command's name with a typing error.

    Parameters
    ----------
    word
        The word.
    commands
        Names of the commands.

    Returns
    -------
    str
        One sentence with the remedy.

    Examples
    --------
    >>> describe_unknown("teech", ["teach", "score"])
    "there is no command 'teech'; is 'teach' meant? 'onspect --help' lists all"
    """
    path, quoted = Path(word), shlex.quote(word)
    if path.is_dir():
        if words := describe_folder(path):
            return words
        return f"{word!r} is a folder, not a command; to learn from its pictures: onspect teach {quoted} -o part.onnx"
    if path.is_file():
        if path.suffix.lower() == ".onnx":
            return f"{word!r} is a file, not a command; to use it: onspect score {quoted} IMAGES"
        return f"{word!r} is a file, not a command; to judge it: onspect score part.onnx {quoted}"
    close = difflib.get_close_matches(word, commands, n=1)
    meant = f"is {close[0]!r} meant? " if close else ""
    return f"there is no command {word!r}; {meant}'onspect --help' lists all"
