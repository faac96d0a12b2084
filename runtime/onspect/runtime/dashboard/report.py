"""Report of a shift, as a page to print and as CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.labels.audit import Change
from onspect.runtime.sinks.history_search import Filter, Place, Summary, rank_places, summarize

Rows = Sequence[Sequence[object]]

_MOST_PLACES = 10


@dataclass(frozen=True)
class ShiftReport:
    """The events of a shift."""

    since: str
    """Start, ISO 8601 in UTC."""
    until: str
    """End, ISO 8601 in UTC; not included."""
    summary: Summary
    """Counts of all parts."""
    places: Sequence[Place]
    """Places of the rejects on the part."""
    changes: Sequence[Change]
    """Changes in the audit log."""

    def tables(self) -> list[tuple[str, Sequence[str], Rows]]:
        """Return the tables of the report.

        Returns
        -------
        list[tuple[str, Sequence[str], Rows]]
            Title, headings and rows of each table.
        """
        counts, share = self.summary.counts, self.summary.good_share
        yielded = "-" if share is None else f"{100 * share:.2f} %"
        return [
            (
                "Parts",
                ("parts", *JUDGEMENTS, "yield"),
                [(self.summary.total, *(counts[name] for name in JUDGEMENTS), yielded)],
            ),
            (
                "Cameras",
                ("camera", *JUDGEMENTS),
                [(source, *(found[name] for name in JUDGEMENTS)) for source, found in self.summary.sources.items()],
            ),
            ("Faults", ("code", "parts"), list(self.summary.faults.items())),
            (
                "Places of rejects",
                ("x", "y", "width", "height", "parts"),
                [(one.x, one.y, one.width, one.height, one.parts) for one in self.places[:_MOST_PLACES]],
            ),
            (
                "Changes",
                ("number", "time", "kind", "who", "facts"),
                [(one.id, one.time, one.kind, one.who or "-", _describe(one)) for one in self.changes],
            ),
        ]


def make_report(history: Path, since: str, until: str, changes: Iterable[Change]) -> ShiftReport:
    """Read a shift from the history.

    Parameters
    ----------
    history
        The database.
    since
        Start, ISO 8601 in UTC.
    until
        End, ISO 8601 in UTC; not included.
    changes
        Changes of the audit log; those outside the shift are left out.

    Returns
    -------
    ShiftReport
        The report.

    Raises
    ------
    OutputError
        If the history cannot be read.
    """
    wanted = Filter(since=since, until=until)
    rejects = Filter(verdict="reject", since=since, until=until)
    within = [change for change in changes if since <= change.time < until]
    return ShiftReport(since, until, summarize(history, wanted), rank_places(history, rejects), within)


def to_csv(report: ShiftReport) -> str:
    """Return the report as CSV.

    Parameters
    ----------
    report
        The report.

    Returns
    -------
    str
        For each table its title, a line of headings, its rows, and an empty line.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["Shift", report.since, report.until])
    for title, headings, rows in report.tables():
        writer.writerows([[], [title], headings])
        writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def to_html(report: ShiftReport) -> str:
    """Return the report as a page without scripts, for printing.

    Parameters
    ----------
    report
        The report.

    Returns
    -------
    str
        HTML.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Onspect: shift report</title>',
        '<link rel="stylesheet" href="/dashboard.css"></head><body class="report">',
        f"<h1>Shift report</h1><p>{html.escape(report.since)} to {html.escape(report.until)}</p>",
    ]
    for title, headings, rows in report.tables():
        parts += [f"<h2>{title}</h2>", "<table><thead>", _row("th", headings), "</thead><tbody>"]
        parts += [_row("td", row) for row in rows] or [_row("td", ["none"])]
        parts.append("</tbody></table>")
    return "".join([*parts, "</body></html>"])


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def _safe(cell: object) -> object:
    """Return a cell that a spreadsheet does not take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell != "-" and cell else cell


def _describe(change: Change) -> str:
    facts = change.facts
    if "unreadable" in facts:
        return "this row was tampered with"
    if change.kind == "threshold" and facts.get("undo"):
        return f"{facts.get('before')} undone"
    if change.kind == "threshold":
        return f"{facts.get('before')} to {facts.get('score')}"
    if change.kind == "label":
        return f"{facts['label']}: {facts['part']['source']} no. {facts['part']['index'] + 1}"
    if change.kind == "swap":
        return f"{facts['before']['model']} to {facts['after']['model']}"
    return str(facts.get("model", ""))
