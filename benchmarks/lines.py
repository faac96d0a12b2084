"""Lines of code by part at commits: without docstrings, comments and blank lines.

The command ``python benchmarks/lines.py 528e7ea HEAD`` prints a column for each commit. ``+COMMIT`` is what a commit
added to the one before it, and several of them joined by commas are one column with their sum.
"""

from __future__ import annotations

import ast
import io
import subprocess
import tarfile
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator

import click

PARTS = ("runtime", "training", "export", "calibration", "compare", "demo")
"""The parts, each a top-level folder."""

_TEXTLESS = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count_lines(source: str) -> int:
    """Return the number of lines that have code.

    Parameters
    ----------
    source
        The text of a module.

    Returns
    -------
    int
        Lines with code. A statement that is an expression of text alone, such as a docstring, does not count.

    Examples
    --------
    >>> count_lines('\"\"\"Docstring.\"\"\"\\n\\n# comment\\nx = 1  # why\\n')
    1
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _TEXTLESS:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def read_modules(commit: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of each Python file of a commit.

    Parameters
    ----------
    commit
        A name that git knows.

    Yields
    ------
    tuple[str, str]
        Path below the root, and text.
    """
    command = ["git", "archive", commit, *PARTS]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            content = files.extractfile(member) if member.name.endswith(".py") else None
            if content is not None:
                yield member.name, content.read().decode()


def count_added(commits: Iterable[str]) -> Counter[str]:
    """Return the lines of code that commits added, each to the one before it.

    Parameters
    ----------
    commits
        Names that git knows.

    Returns
    -------
    Counter[str]
        Lines by part; below 0 if more were removed.
    """
    found: Counter[str] = Counter()
    for commit in commits:
        found.update(count_parts(commit))
        found.subtract(count_parts(f"{commit}^"))
    return found


def count_parts(commit: str) -> Counter[str]:
    """Return the lines of code of each part at a commit.

    Parameters
    ----------
    commit
        A name that git knows.

    Returns
    -------
    Counter[str]
        Lines by part.
    """
    found: Counter[str] = Counter()
    for path, text in read_modules(commit):
        found[path.partition("/")[0]] += count_lines(text)
    return found


@click.command()
@click.argument("commits", nargs=-1, required=True)
def main(commits: tuple[str, ...]) -> None:
    """Print the lines of code of each part at COMMITS."""
    columns = [
        count_added(name.lstrip("+").split(",")) if name.startswith("+") else count_parts(name) for name in commits
    ]
    print(" " * 12 + "".join(f"{name[:11]:>12}" for name in commits))
    for part in PARTS:
        print(f"{part:<12}" + "".join(f"{column[part]:>12,}" for column in columns))
    print(f"{'all':<12}" + "".join(f"{column.total():>12,}" for column in columns))


if __name__ == "__main__":
    main()
