"""Requests about labels, lessons and the audit log; all need the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onspect.runtime.dashboard.app import AppState, Handler, Refusal, Requests, read_body
from onspect.runtime.dashboard.label_desk import LabelDesk
from onspect.runtime.dashboard.screen import shrink, to_jpeg
from onspect.runtime.errors import OnspectError
from onspect.runtime.images.decode import decode_image
from onspect.runtime.inspection.visualization import to_bgr
from onspect.runtime.labels.store import PartKey, to_utf8


async def _show_picture(app_state: AppState, request: Request) -> Response:
    desk = _find_desk(app_state)
    number = min(request.path_params["number"], (1 << 63) - 1)  # the largest number of SQLite
    try:
        jpeg = await run_in_threadpool(lambda: to_jpeg(shrink(to_bgr(decode_image(desk.store.read(number))))))
    except OnspectError as error:
        raise Refusal(404, str(error)) from error
    return Response(jpeg, media_type="image/jpeg")


def _find_desk(app_state: AppState) -> LabelDesk:
    if app_state.desk is None:
        raise Refusal(409, "parts can be labelled where the line keeps a history; start it with --sink sqlite:FILE")
    return app_state.desk


def _read_key(body: dict[str, Any]) -> PartKey:
    time, index, source = body.get("time"), body.get("index"), body.get("source")
    if not isinstance(time, str) or not isinstance(source, str) or type(index) is not int or not 0 <= index < 1 << 62:
        raise Refusal(422, "give time, index and source of the part")
    return PartKey(to_utf8(time), index, to_utf8(source))


def _asks(work: Callable[[LabelDesk, dict[str, Any]], dict[str, Any]]) -> Handler:
    """Return a handler that answers with what the desk does with the body of a request."""

    async def handle(app_state: AppState, request: Request) -> Response:
        desk = _find_desk(app_state)
        body = await read_body(request) if request.method == "POST" else {}
        return JSONResponse(await run_in_threadpool(work, desk, body))

    return handle


ROUTES: tuple[Requests, ...] = (
    ("/labels", _asks(lambda desk, _: desk.describe()), "GET"),
    ("/labels", _asks(lambda desk, body: desk.label(_read_key(body), body.get("label"), body.get("who"))), "POST"),
    ("/labels/pictures/{number:int}", _show_picture, "GET"),
    ("/labels/proposal", _asks(lambda desk, _: desk.propose()), "GET"),
    ("/lessons/preview", _asks(lambda desk, body: desk.preview(_read_key(body))), "POST"),
    ("/lessons/accept", _asks(lambda desk, body: desk.accept(str(body.get("id")), body.get("who", ""))), "POST"),
    ("/lessons/undo", _asks(lambda desk, body: desk.undo(body.get("who", ""))), "POST"),
    ("/audit", _asks(lambda desk, _: desk.audit()), "GET"),
)
"""Path, handler and method of each request."""
