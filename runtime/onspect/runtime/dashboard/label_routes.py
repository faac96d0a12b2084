"""Requests about labels, lessons and the audit log; all need the token."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onspect.runtime.dashboard.app import AppState, Handler, Refusal, read_body, require_session
from onspect.runtime.dashboard.label_desk import LabelDesk, Work
from onspect.runtime.errors import ChoiceError, OnspectError
from onspect.runtime.images.decode import decode_image
from onspect.runtime.inspection.visualization import to_bgr
from onspect.runtime.labels.store import PartKey, to_utf8

_LONGEST = 960  # pixels of a picture's longer side on the page


async def _describe(app_state: AppState, request: Request) -> Response:
    return await _ask(app_state, request, lambda desk: desk.describe())


async def _label(app_state: AppState, request: Request) -> Response:
    desk, body = await _begin(app_state, request)
    key, label, who = _read_key(body), body.get("label"), body.get("who")
    return await _do(desk, lambda desk: desk.label(key, label, who))  # type: ignore[arg-type]  # checked by the store


async def _preview(app_state: AppState, request: Request) -> Response:
    desk, body = await _begin(app_state, request)
    key = _read_key(body)
    return await _do(desk, lambda desk: desk.preview(key))


async def _accept(app_state: AppState, request: Request) -> Response:
    desk, body = await _begin(app_state, request)
    return await _do(desk, lambda desk: desk.accept(str(body.get("id")), body.get("who", "")))


async def _undo(app_state: AppState, request: Request) -> Response:
    desk, body = await _begin(app_state, request)
    return await _do(desk, lambda desk: desk.undo(body.get("who", "")))


async def _propose(app_state: AppState, request: Request) -> Response:
    return await _ask(app_state, request, lambda desk: desk.propose())


async def _audit(app_state: AppState, request: Request) -> Response:
    return await _ask(app_state, request, lambda desk: desk.audit())


async def _show_picture(app_state: AppState, request: Request) -> Response:
    await require_session(app_state, request)
    # the largest number of SQLite
    desk, number = (_find_desk(app_state), min(request.path_params["number"], (1 << 63) - 1))
    try:
        jpeg = await run_in_threadpool(lambda: _to_jpeg(desk.store.read(number)))
    except OnspectError as error:
        raise Refusal(404, str(error)) from error
    return Response(jpeg, media_type="image/jpeg")


ROUTES: tuple[tuple[str, Handler, str], ...] = (
    ("/labels", _describe, "GET"),
    ("/labels", _label, "POST"),
    ("/labels/pictures/{number:int}", _show_picture, "GET"),
    ("/labels/proposal", _propose, "GET"),
    ("/lessons/preview", _preview, "POST"),
    ("/lessons/accept", _accept, "POST"),
    ("/lessons/undo", _undo, "POST"),
    ("/audit", _audit, "GET"),
)
"""Path, handler and method of each request."""


async def _ask(app_state: AppState, request: Request, work: Work) -> Response:
    await require_session(app_state, request)
    return await _do(_find_desk(app_state), work)


async def _begin(app_state: AppState, request: Request) -> tuple[LabelDesk, dict[str, Any]]:
    await require_session(app_state, request)
    return _find_desk(app_state), await read_body(request)


async def _do(desk: LabelDesk, work: Work) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(work, desk))
    except ChoiceError as error:
        raise Refusal(422, str(error)) from error
    except OnspectError as error:
        raise Refusal(409, str(error)) from error


def _find_desk(app_state: AppState) -> LabelDesk:
    if app_state.desk is None:
        raise Refusal(409, "parts can be labelled where the line keeps a history; start it with --sink sqlite:FILE")
    return app_state.desk


def _read_key(body: dict[str, Any]) -> PartKey:
    time, index, source = body.get("time"), body.get("index"), body.get("source")
    if not isinstance(time, str) or not isinstance(source, str) or type(index) is not int or not 0 <= index < 1 << 62:
        raise Refusal(422, "give time, index and source of the part")
    return PartKey(to_utf8(time), index, to_utf8(source))


def _to_jpeg(png: bytes) -> bytes:
    picture = to_bgr(decode_image(png))
    scale = min(1.0, _LONGEST / max(picture.shape[:2]))
    if scale < 1.0:
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
