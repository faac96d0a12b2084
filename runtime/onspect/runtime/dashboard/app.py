"""Requests of the page and their answers."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from onspect.runtime.dashboard.auth import Auth
from onspect.runtime.dashboard.history import Archive
from onspect.runtime.dashboard.label_desk import LabelDesk
from onspect.runtime.dashboard.middleware import LARGEST_BODY, SecurityMiddleware
from onspect.runtime.dashboard.renderer import RenderWorker
from onspect.runtime.dashboard.state import DashboardState, View, describe_shown
from onspect.runtime.errors import ChoiceError, OnspectError
from onspect.runtime.inspection.verdict import now
from onspect.runtime.labels.store import check_name
from onspect.runtime.status import FADE_S, Commands

_LOG = logging.getLogger("onspect")

WATCHERS = 16
"""Largest number of open pages; each has one stream of events."""

TICK = 0.1
"""Seconds between two updates of a page."""

_COOKIE = "onspect-session"
_SHORT_WAIT = 2.5  # longest pause in seconds that a login waits here after wrong tokens; a longer one is refused
_HEARTBEAT = 1.0
_PATIENCE = 10.0  # longest wait in seconds for a new picture, and for the rest of a request
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "session.js": ("session.js", "text/javascript; charset=utf-8"),
    "labels.js": ("labels.js", "text/javascript; charset=utf-8"),
    "history": ("history.html", "text/html; charset=utf-8"),
    "history.js": ("history.js", "text/javascript; charset=utf-8"),
    "teach.js": ("teach.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}

T = TypeVar("T")

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class AppState:
    """The state that all requests share; used in the server's one thread."""

    auth: Auth
    """Token and sessions."""
    open_to_see: bool
    """Whether the page may be seen without a login."""
    archive: Archive = field(default_factory=Archive)
    """The history and the evidence on disk."""
    displayed: DashboardState = field(default_factory=DashboardState)
    """The displayed inspections and the status."""
    renderer: RenderWorker = field(default_factory=RenderWorker)
    """Renders the pictures."""
    page: str = "line"
    """``line``, or ``teach`` while there is no model."""
    most_watchers: int = WATCHERS
    """Largest number of open pages."""
    tick: float = TICK
    """Seconds between two updates of a page."""
    commands: Commands | None = None
    """Commands of the running line; None without one."""
    desk: LabelDesk | None = None
    """Labels and lessons; None without a token or without a history."""
    watchers: int = 0
    """Number of open pages."""
    closing: bool = False
    """Whether the server is about to end."""
    waiting: set[str] = field(default_factory=set)
    """Addresses whose login waits for its pause."""
    moved: list[dict[str, Any]] = field(default_factory=list)
    """Thresholds that were moved on this page: score, before, who, time."""


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """An answer that ends a request early.

    Parameters
    ----------
    status
        HTTP status.
    reason
        One sentence for the page.
    headers
        Further headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.answer = JSONResponse({"error": reason}, status, headers)


Handler = Callable[[AppState, Request], Awaitable[Response]]

Requests = tuple[str, Handler, str]
"""Path, handler and method of requests."""


def build_application(
    app_state: AppState, seeing: Sequence[Requests], doing: Sequence[Requests], *, index: str = "index.html"
) -> SecurityMiddleware:
    """Return the ASGI application.

    Parameters
    ----------
    app_state
        The shared state.
    seeing
        Further requests, which need a login only if the page does.
    doing
        Further requests that need a login.
    index
        File of the page itself.

    Returns
    -------
    SecurityMiddleware
        The application, with all security checks.
    """
    pages = resources.files("onspect.runtime.dashboard").joinpath("page")
    names = _FILES | {"": (index, _FILES[""][1])}
    files = {path: (pages.joinpath(name).read_bytes(), kind) for path, (name, kind) in names.items()}

    async def page(request: Request) -> Response:
        content, kind = files[request.url.path.removeprefix("/")]
        return Response(content, media_type=kind)

    routes = [Route(f"/{path}", page) for path in files]
    for needs_login, requests in (
        (False, _SESSION),
        (not app_state.open_to_see, [*_SEEING, *seeing]),
        (True, [*_DOING, *doing]),
    ):
        for path, handler, method in requests:
            routes.append(Route(path, _answer(app_state, handler, needs_login=needs_login), methods=[method]))
    return SecurityMiddleware(Starlette(routes=routes))


def _answer(app_state: AppState, handler: Handler, *, needs_login: bool) -> Endpoint:
    """Return what answers a request; an error becomes an answer with its sentence."""

    async def answer(request: Request) -> Response:
        try:
            if needs_login:
                await _require_session(app_state, request)
            return await handler(app_state, request)
        except Refusal as refusal:
            return refusal.answer
        except OnspectError as error:
            return Refusal(422 if isinstance(error, ChoiceError) else 409, str(error)).answer

    return answer


async def _stream_events(app_state: AppState, _: Request) -> Response:
    """Send news as server-sent events: at most ten a second and at least one, always the newest."""
    if app_state.watchers >= app_state.most_watchers:
        raise Refusal(
            503, f"{app_state.most_watchers} pages are open already; close one of them", {"Retry-After": "30"}
        )
    app_state.watchers += 1

    async def events() -> AsyncIterator[bytes]:
        try:
            after, quiet = 0, _HEARTBEAT
            while not app_state.closing:
                content = app_state.displayed.describe(after)
                quiet += app_state.tick
                if content["number"] != after or quiet >= _HEARTBEAT:
                    content |= {"moved": _find_move(app_state, content["status"])}
                    yield f"data: {json.dumps(content, allow_nan=False)}\n\n".encode()
                    after, quiet = content["number"], 0.0
                await asyncio.sleep(app_state.tick)
        finally:
            app_state.watchers -= 1

    return StreamingResponse(events(), media_type="text/event-stream")


async def _show_picture(app_state: AppState, request: Request) -> Response:
    """Answer with a picture newer than that of the page as soon as there is one, or with 204."""
    view: View = "rejected" if request.query_params.get("view") == "rejected" else "latest"
    after = read_whole_number(request, "after")
    for _ in range(round(_PATIENCE / app_state.tick)):
        shown = app_state.displayed.find(view)
        if shown is not None and shown.number != after:
            heat = request.query_params.get("heat") != "0"
            jpeg = await asyncio.shield(asyncio.wrap_future(app_state.renderer.make(shown, heat=heat)))
            headers = {"X-Onspect-Part": json.dumps(describe_shown(shown, time.monotonic()))}
            return Response(jpeg, 200 if jpeg else 204, headers, media_type="image/jpeg" if jpeg else None)
        if app_state.closing:
            break
        await asyncio.sleep(app_state.tick)
    return Response(status_code=204)


async def _show_hours(app_state: AppState, _: Request) -> Response:
    """Answer with the counts of each of the last hours."""
    recorded = await run_in_threadpool(app_state.archive.hours)
    return JSONResponse({"hours": app_state.displayed.hours() if recorded is None else recorded})


async def _list_rejects(app_state: AppState, _: Request) -> Response:
    """Answer with the last parts that were not ok, newest first, each with the address of its picture."""
    reject_cache = {
        (reject.verdict.time, reject.verdict.index): reject.verdict.to_dict()
        | {"regions": [], "picture": f"/rejects/{reject.number}" if reject.picture else None}
        for reject in app_state.renderer.reject_cache()
    }
    recorded = await run_in_threadpool(app_state.archive.rejects)
    if recorded is None:
        recorded = list(reject_cache.values())
    for reject in recorded:
        if reject["picture"] is None:
            reject["picture"] = reject_cache.get((reject["time"], reject["index"]), reject)["picture"]
    if app_state.desk is not None:
        await run_in_threadpool(app_state.desk.add_labels, recorded)
    return JSONResponse({"rejects": recorded})


async def _show_reject(app_state: AppState, request: Request) -> Response:
    picture = app_state.renderer.find(request.path_params["number"])
    if picture is None or not (jpeg := await asyncio.shield(asyncio.wrap_future(picture))):
        raise Refusal(404, "this picture is no longer kept")
    return Response(jpeg, media_type="image/jpeg")


async def _show_evidence(app_state: AppState, request: Request) -> Response:
    small = request.query_params.get("small") == "1"
    jpeg = await run_in_threadpool(app_state.archive.read_picture, request.path_params["name"], small=small)
    if jpeg is None:
        raise Refusal(404, "there is no such picture")
    return Response(jpeg, media_type="image/jpeg")


async def _tell_session(app_state: AppState, request: Request) -> Response:
    """Answer whether this browser may look and change."""
    authorized = _has_session(app_state, request)
    return JSONResponse(
        {
            "may_see": app_state.open_to_see or authorized,
            "may_change": authorized,
            "has_token": app_state.auth.has_token,
            "has_labels": app_state.desk is not None,
            "page": app_state.page,
            "fade_s": FADE_S,
        }
    )


async def _log_in(app_state: AppState, request: Request) -> Response:
    token = (await read_body(request)).get("token")
    await _check_token(app_state, request, token if isinstance(token, str) else "")
    answer = JSONResponse({"may_change": True})
    session = app_state.auth.open_session()
    answer.set_cookie(_COOKIE, session, httponly=True, samesite="strict", path="/")
    return answer


async def _log_out(app_state: AppState, request: Request) -> Response:
    app_state.auth.close_session(request.cookies.get(_COOKIE, ""))
    answer = JSONResponse({"may_change": False})
    answer.delete_cookie(_COOKIE, httponly=True, samesite="strict", path="/")
    return answer


async def _move_threshold(app_state: AppState, request: Request) -> Response:
    """Move the line's threshold, with a record of who did so and when."""
    body = await read_body(request)
    score = _to_float(body.get("score"))
    who = check_name(body.get("who"))
    before = await _command(app_state, lambda commands: commands.set_threshold(score))
    record = {"score": score, "before": before, "who": who, "time": now()}
    await _log_change(app_state, lambda desk: desk.note_threshold(record), lambda commands: commands.undo_threshold())
    app_state.moved = [*app_state.moved[-99:], record]
    words = "threshold moved from %s to %g by %r at %s, from %s"
    _LOG.warning(words, before, score, who, record["time"], _address(request))
    return JSONResponse(record)


async def _undo_threshold(app_state: AppState, request: Request) -> Response:
    """Undo the last move of the threshold, with a record of who did so and when."""
    who = check_name((await read_body(request)).get("who"))
    before, after = await _command(app_state, lambda commands: commands.undo_threshold())
    record = {"before": before, "who": who, "time": now()}
    await _log_change(
        app_state, lambda desk: desk.note_undo(before, after, who), lambda commands: commands.set_threshold(before)
    )
    words = "threshold move undone, from %s, by %r at %s, from %s"
    _LOG.warning(words, before, who, record["time"], _address(request))
    return JSONResponse(record)


def _to_float(score: object) -> float:
    try:
        value = math.nan if isinstance(score, bool) or not isinstance(score, (int, float)) else float(score)
    except OverflowError:  # a whole number of hundreds of digits
        value = math.inf
    if not math.isfinite(value):
        raise Refusal(422, f"the threshold is {str(score)[:40]!r}; give a number")
    return value


async def _command(app_state: AppState, command: Callable[[Commands], T]) -> T:
    """Run a command of the line, and return its result."""
    if app_state.commands is None:
        raise Refusal(409, "no line is running")
    return await run_in_threadpool(command, app_state.commands)


async def _log_change(
    app_state: AppState, log: Callable[[LabelDesk], None], take_back: Callable[[Commands], object]
) -> None:
    """Write a change into the audit log, if there is one; if that fails, undo the change and raise Refusal."""
    if app_state.desk is None:
        return
    try:
        await run_in_threadpool(log, app_state.desk)
    except OnspectError as error:
        await _command(app_state, take_back)
        raise Refusal(409, f"nothing was changed, because the audit log cannot be written: {error}") from error


def _find_move(app_state: AppState, status: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the record of the move that set the current threshold, or None if there is none."""
    move = None if status is None else status["moved"]
    if move is None:
        return None
    found = (record for record in reversed(app_state.moved) if record["score"] == move["score"])
    return next(found, None)


async def _require_session(app_state: AppState, request: Request) -> None:
    """Check that this browser has logged in, or that the request has the token itself; otherwise raise Refusal."""
    if _has_session(app_state, request):
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        await _check_token(app_state, request, token.strip())
        return
    if not app_state.auth.has_token:
        raise Refusal(403, "nothing can be changed here: this dashboard was started without a token")
    raise Refusal(401, "log in with the dashboard's token first", {"WWW-Authenticate": "Bearer"})


def _has_session(app_state: AppState, request: Request) -> bool:
    return app_state.auth.has_session(request.cookies.get(_COOKIE, ""))


async def _check_token(app_state: AppState, request: Request, token: str) -> None:
    address = _address(request)
    if not app_state.auth.has_token:
        raise Refusal(403, "this dashboard was started without a token; start it with --dashboard-token")
    wait = app_state.auth.wait_seconds(address)
    # one at a time, otherwise guesses would run in parallel
    if 0 < wait <= _SHORT_WAIT and address not in app_state.waiting:
        app_state.waiting.add(address)
        try:
            await asyncio.sleep(wait)
        finally:
            app_state.waiting.discard(address)
        wait = 0.0
    if wait > 0:
        raise Refusal(429, f"too many wrong tokens; try again in {wait:.0f} s", {"Retry-After": str(math.ceil(wait))})
    if not app_state.auth.check(token, address):
        _LOG.warning("a wrong dashboard token came from %s", address)
        raise Refusal(401, "the token is wrong", {"WWW-Authenticate": "Bearer"})


def _address(request: Request) -> str:
    """Return the address of the client, for log and limits."""
    return request.client.host if request.client is not None else "unknown"


async def read_body(request: Request, largest: int = LARGEST_BODY) -> dict[str, Any]:
    """Return the JSON object of a request.

    Parameters
    ----------
    request
        The request.
    largest
        Largest size in bytes.

    Returns
    -------
    dict[str, Any]
        The object.

    Raises
    ------
    Refusal
        If it is not a JSON object, is too large, or does not arrive in time.
    """
    content = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in request.stream():
                content += piece
                if len(content) > largest:
                    raise Refusal(413, f"a request has at most {largest} bytes")
    except (TimeoutError, ClientDisconnect) as error:
        raise Refusal(408, "the request did not arrive completely", {"Connection": "close"}) from error
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the request is not JSON") from error
    if not isinstance(body, dict):
        raise Refusal(400, "the request is not a JSON object")
    return body


def read_whole_number(request: Request, name: str) -> int | None:
    """Return a parameter of a request that is a whole number.

    Parameters
    ----------
    request
        The request.
    name
        Name of the parameter.

    Returns
    -------
    int | None
        The number, 0 or more; None if there is none.
    """
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


_SESSION: tuple[Requests, ...] = (("/session", _tell_session, "GET"), ("/login", _log_in, "POST"))
_SEEING: tuple[Requests, ...] = (
    ("/events", _stream_events, "GET"),
    ("/picture", _show_picture, "GET"),
    ("/hours", _show_hours, "GET"),
    ("/rejects", _list_rejects, "GET"),
    ("/rejects/{number:int}", _show_reject, "GET"),
    ("/evidence/{name:path}", _show_evidence, "GET"),
    ("/logout", _log_out, "POST"),
)
_DOING: tuple[Requests, ...] = (
    ("/threshold", _move_threshold, "POST"),
    ("/threshold/undo", _undo_threshold, "POST"),
)
