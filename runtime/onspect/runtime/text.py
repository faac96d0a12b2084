"""Plain text for people: counts, facts and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one.

    Parameters
    ----------
    count
        The count.
    noun
        The noun in the singular.

    Returns
    -------
    str
        Such as ``2 images``.

    Examples
    --------
    >>> count_of(1, "image"), count_of(2, "image")
    ('1 image', '2 images')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def format_facts(facts: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Return a line for each name and value.

    Parameters
    ----------
    facts
        Names and values.
    width
        Column at which the values begin.

    Returns
    -------
    list[str]
        The lines.

    Examples
    --------
    >>> format_facts([("images", "8 good"), ("", "from val")], 8)
    ['images  8 good', '        from val']
    """
    return [f"{name:<{width - 1}} {fact}" for name, fact in facts]


def format_table(rows: Sequence[Sequence[str]], align: str, gap: int = 2) -> list[str]:
    """Return the rows as lines of text, with columns as wide as their longest cell.

    Parameters
    ----------
    rows
        The cells, the headings first.
    align
        One character for each column, as in a format: ``<`` left, ``>`` right, ``^`` middle.
    gap
        Spaces between two columns.

    Returns
    -------
    list[str]
        The lines.

    Examples
    --------
    >>> format_table([("kind", "images"), ("bright", "3")], "<>")
    ['kind    images', 'bright       3']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = list(zip(align, widths, strict=True))
    return [
        (" " * gap).join(f"{cell:{side}{width}}" for cell, (side, width) in zip(row, sides, strict=True)).rstrip()
        for row in rows
    ]
