"""The page on which a computer without a model file is taught."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onspect.runtime.dashboard.app import AppState, Handler, Refusal, Requests, build_application, read_body
from onspect.runtime.dashboard.auth import Auth
from onspect.runtime.dashboard.http_server import BackgroundServer
from onspect.runtime.dashboard.teach_session import TeachSession
from onspect.runtime.labels.store import LabelStore
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.sources.base import Source

_PATIENCE = 50  # checks for a newer picture
_LOOK = 0.1  # seconds between two checks
_LAST_WORDS = 1.0  # seconds in which the page can still learn that the line begins


class TeachPage:
    """Serve the page until a model file is in service; a context manager.

    Parameters
    ----------
    address
        HOST:PORT.
    token
        Secret that a browser needs, also for looking.
    source
        The camera.
    model
        The model file to write.
    base
        Base file of ``onspect backbone``.
    store
        Database that logs the new model; None without one.
    presence
        How parts are found if the camera runs freely; None if each frame shows one part.
    white_level
        The 16-bit value that is white; None for that of `presence`, otherwise 65535.

    Raises
    ------
    ChoiceError
        If the address is not valid or the token can be guessed.
    OutputError
        When it is entered, if the address is not available.
    """

    def __init__(
        self,
        address: str,
        token: str,
        source: Source,
        model: Path,
        base: Path,
        store: LabelStore | None = None,
        *,
        presence: PresenceSettings | None = None,
        white_level: int | None = None,
    ) -> None:
        self.session = TeachSession(source, model, base, store, presence=presence, white_level=white_level)
        self._server = BackgroundServer(address, "teach page")
        self._app_state = AppState(Auth(token), open_to_see=False, page="teach")

    @property
    def url(self) -> str:
        """Address of the page."""
        return self._server.url

    @property
    def address(self) -> str:
        """Host and port, with the port that is used."""
        return self._server.url.removeprefix("http://").rstrip("/")

    def __enter__(self) -> Self:
        self._server.start(build_application(self._app_state, (), _routes(self.session), index="teach.html"))
        self.session.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self._app_state.closing = True
        self.session.close()
        self._server.stop()
        self._app_state.renderer.close()

    def wait(self) -> None:
        """Wait until the model file is in service."""
        while not self.session.in_service.wait(0.2):
            pass
        self.session.close()
        time.sleep(_LAST_WORDS)


def _routes(session: TeachSession) -> tuple[Requests, ...]:
    """Return the requests of the page."""

    async def picture(app_state: AppState, request: Request) -> Response:
        after = request.query_params.get("after", "")
        for _ in range(_PATIENCE):
            facts = session.describe()
            if str(facts["number"]) != after or app_state.closing or facts["phase"] == "teaching":
                break
            await asyncio.sleep(_LOOK)
        number, jpeg, verdict = await run_in_threadpool(session.picture)
        headers = {"X-Onspect-Teach": json.dumps(session.describe() | {"number": number, "verdict": verdict})}
        return Response(jpeg, 200 if jpeg else 204, headers, media_type="image/jpeg" if jpeg else None)

    async def state(_: AppState, __: Request) -> Response:
        return JSONResponse(session.describe())

    def does(work: Callable[[dict[str, Any]], None]) -> Handler:
        async def handle(_: AppState, request: Request) -> Response:
            await run_in_threadpool(work, await read_body(request))
            return JSONResponse(session.describe())

        return handle

    return (
        ("/teach/picture", picture, "GET"),
        ("/teach/state", state, "GET"),
        ("/teach/take", does(lambda body: session.take(_count(body))), "POST"),
        ("/teach/remove", does(lambda _: session.remove_last()), "POST"),
        ("/teach/region", does(lambda body: session.set_region(_region(body))), "POST"),
        ("/teach/start", does(lambda _: session.start_teaching()), "POST"),
        ("/teach/service", does(lambda body: session.put_into_service(body.get("who", ""))), "POST"),
    )


def _count(body: dict[str, Any]) -> int:
    count = body.get("count")
    if type(count) is not int:
        raise Refusal(422, "give a number of parts")
    return count


def _region(body: dict[str, Any]) -> tuple[float, float, float, float] | None:
    region = body.get("region")
    if region is None:
        return None
    if not isinstance(region, list) or len(region) != 4 or not all(type(one) in (int, float) for one in region):
        raise Refusal(422, "a region is left, top, width and height")
    left, top, width, height = map(float, region)
    return left, top, width, height
