"""The lines of a fleet as a table without colours, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from onspect.runtime.fleet.state import LineReport
from onspect.runtime.text import format_table

_NUMBERS = ("THRESHOLD", "PARTS", "YIELD", "NG", "REVIEW", "FAULT")
_HEADINGS = ("", "LINE", "STATE", "SINCE (UTC)", "MODEL", *_NUMBERS, "DRIFT")


def draw_table(reports: Sequence[LineReport]) -> list[str]:
    """Draw the table of the lines, first those that need a person.

    Those have a ``!`` before them and the problem as text below them.

    Parameters
    ----------
    reports
        State of each line.

    Returns
    -------
    list[str]
        Lines of text: a sentence of counts, the headings, and the rows.
    """
    ordered = sorted(reports, key=lambda report: (report.is_well, report.topic))
    rows = [_HEADINGS, *(_row(report) for report in ordered)]
    align = "".join(">" if heading in _NUMBERS else "<" for heading in _HEADINGS)
    headings, *table = format_table(rows, align)
    lines = [summarize(reports), headings]
    for line, report in zip(table, ordered, strict=True):
        lines.append(line)
        words = [("alarm", report.alarm), ("drift", report.drift), ("trouble", report.trouble)]
        lines += [f"     {name}: {what}" for name, what in words if what]
    return lines


def summarize(reports: Sequence[LineReport]) -> str:
    """Return the number of lines in each state.

    Parameters
    ----------
    reports
        State of each line.

    Returns
    -------
    str
        One sentence without its full stop.
    """
    counts = Counter(report.state for report in reports)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    troubled = sum(not report.is_well for report in reports)
    words = f"{len(reports)} {'line' if len(reports) == 1 else 'lines'}"
    return f"{words}: {states or 'no line has reported yet'}" + (f"; {troubled} to look at (!)" if troubled else "")


def to_dict(reports: Sequence[LineReport]) -> dict[str, Any]:
    """Return the fleet as a JSON object.

    Parameters
    ----------
    reports
        State of each line.

    Returns
    -------
    dict[str, Any]
        ``format``, ``well`` (the meaning of the exit code) and ``lines``.
    """
    lines = [asdict(report) | {"well": report.is_well} for report in reports]
    return {"format": 1, "well": all(report.is_well for report in reports), "lines": lines}


def to_json(reports: Sequence[LineReport], *, indent: int | None = None) -> str:
    """Return the fleet as JSON text.

    Parameters
    ----------
    reports
        State of each line.
    indent
        Spaces of indentation; None for one line.

    Returns
    -------
    str
        The text.
    """
    return json.dumps(to_dict(reports), indent=indent, ensure_ascii=False)


def _row(report: LineReport) -> tuple[str, ...]:
    known = report.model is not None
    return (
        " " if report.is_well else "!",
        report.line,
        report.state,
        (report.since or "-")[:19].replace("T", " "),
        report.model or "-",
        "-" if report.threshold is None else f"{report.threshold:.4g}",
        str(report.parts) if known else "-",
        "-" if report.ok_share is None else f"{100.0 * report.ok_share:.2f}%",
        *(str(count) if known else "-" for count in (report.ng, report.review, report.fault)),
        "yes" if report.drift else "no" if known else "-",
    )
