"""Requests about the history: parts by a filter, places and scores of defects, and the report of a shift."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onspect.runtime.dashboard.app import AppState, Refusal, Requests, read_whole_number
from onspect.runtime.dashboard.report import make_report, to_csv, to_html
from onspect.runtime.sinks.history_search import Filter, count_scores, list_sources, rank_places, search, summarize

_PAGE = 60  # parts of one answer
_SHIFT = timedelta(hours=8)


async def _find_parts(app_state: AppState, request: Request) -> Response:
    """Answer with the newest parts of a filter; with ``before``, with those below a number."""
    wanted, number = _read_filter(request), read_whole_number(request, "before")

    def work() -> dict[str, Any]:
        path = app_state.archive.require_history()
        records = search(path, wanted, limit=_PAGE, before=number)
        parts = [
            record.verdict.to_dict() | {"number": record.id, "picture": app_state.archive.find_address(record.evidence)}
            for record in records
        ]
        if app_state.desk is not None:
            app_state.desk.add_labels(parts)
        return {"parts": parts, "more": len(records) == _PAGE}

    return JSONResponse(await run_in_threadpool(work))


async def _summarize(app_state: AppState, request: Request) -> Response:
    """Answer with counts, cameras, places and scores of a filter."""
    wanted = _read_filter(request)

    def work() -> dict[str, Any]:
        path = app_state.archive.require_history()
        summary = summarize(path, wanted)
        return asdict(summary) | {
            "total": summary.total,
            "good_share": summary.good_share,
            "cameras": list_sources(path),
            "places": [asdict(place) for place in rank_places(path, wanted)],
            "scores": [asdict(band) for band in count_scores(path, wanted)],
        }

    return JSONResponse(await run_in_threadpool(work))


async def _report(app_state: AppState, request: Request) -> Response:
    """Answer with the report of a shift, by default the last eight hours; ``format`` is html or csv."""
    now = datetime.now(UTC)
    since = _read_time(request, "since") or _write_time(now - _SHIFT)
    until = _read_time(request, "until") or _write_time(now)
    changes = [] if app_state.desk is None else await run_in_threadpool(app_state.desk.store.changes)
    report = await run_in_threadpool(lambda: make_report(app_state.archive.require_history(), since, until, changes))
    if request.query_params.get("format") == "csv":
        name = f"shift-{since[:16].replace(':', '')}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(to_csv(report), headers=headers, media_type="text/csv; charset=utf-8")
    return Response(to_html(report), media_type="text/html; charset=utf-8")


HISTORY_ROUTES: tuple[Requests, ...] = (
    ("/history/parts", _find_parts, "GET"),
    ("/history/summary", _summarize, "GET"),
    ("/report", _report, "GET"),
)
"""Path, handler and method of each request."""


def _read_filter(request: Request) -> Filter:
    given = request.query_params
    try:
        region = tuple(float(one) for one in given["region"].split(",")) if given.get("region") else None
    except ValueError as error:
        raise Refusal(422, "a region is x,y,width,height in pixels") from error
    if region is not None and len(region) != 4:
        raise Refusal(422, "a region is x,y,width,height in pixels")
    return Filter(
        verdict=given.get("verdict") or None,
        since=_read_time(request, "since"),
        until=_read_time(request, "until"),
        source=given.get("source") or None,
        part=given.get("part") or None,
        region=region,
    )


def _read_time(request: Request, name: str) -> str | None:
    """Return a time in UTC in the format of verdicts, or None without one; a time without zone is UTC."""
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return _write_time(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:  # a time in year 1 or 9999 may leave the calendar in UTC
        raise Refusal(422, f"{name} is {text[:40]!r}; give a time such as 2026-03-01T06:00Z") from error


def _write_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
