"""The server of the page on which a region is drawn."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Self

import cv2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from onspect.runtime.atomic import make_folder, write_atomically
from onspect.runtime.dashboard.app import Refusal, read_body
from onspect.runtime.dashboard.auth import is_loopback
from onspect.runtime.dashboard.http_server import BackgroundServer
from onspect.runtime.dashboard.middleware import SecurityMiddleware
from onspect.runtime.drawing.pictures import Pictures
from onspect.runtime.errors import ChoiceError, ImageError, OnspectError
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.region import (
    Reference,
    RegionFile,
    draw_region,
    format_region,
    parse_region_file,
    read_region,
)
from onspect.runtime.inspection.visualization import encode_png, to_bgr

_LARGEST_BODY = 256 * 1024  # bytes of a drawn region: thousands of corners
_QUALITY = 92
_FILES = {
    "": ("drawing", "index.html", "text/html; charset=utf-8"),
    "region.css": ("drawing", "region.css", "text/css; charset=utf-8"),
    "region.js": ("drawing", "region.js", "text/javascript; charset=utf-8"),
    "dashboard.css": ("dashboard", "dashboard.css", "text/css; charset=utf-8"),
    "icon.svg": ("dashboard", "icon.svg", "image/svg+xml"),
}

Endpoint = Callable[[Request], Awaitable[Response]]


class RegionPage:
    """Serve the page to browsers of this computer, at http://HOST:PORT/; a context manager.

    The attribute `saved` is set when a region was saved.

    Parameters
    ----------
    pictures
        The pictures to draw on.
    output
        The region file; its content is shown at first.
    address
        HOST:PORT of this computer; port 0 is a free one.

    Raises
    ------
    ChoiceError
        If other computers can reach the address, or if the file exists and is not a region.
    OutputError
        When it is entered, if the address is not available.
    """

    def __init__(self, pictures: Pictures, output: Path, *, address: str = "127.0.0.1:8081") -> None:
        self._server = BackgroundServer(address, "page")
        if not is_loopback(self._server.host):
            raise ChoiceError(
                f"the page at {address!r} could be used by other computers; take 127.0.0.1, and reach it from another "
                "computer with 'ssh -L 8081:127.0.0.1:8081'"
            )
        self._pictures = pictures
        self._output = output
        self._region = read_region(output) if output.exists() else RegionFile()
        self.saved = threading.Event()

    @property
    def url(self) -> str:
        """Address of the page."""
        return self._server.url

    def __enter__(self) -> Self:
        self._pictures.__enter__()
        try:
            self._server.start(self._build_application())
        except BaseException:
            self._pictures.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stop()
        self._pictures.__exit__(None, None, None)

    def _build_application(self) -> SecurityMiddleware:
        content = {
            path: (resources.files(f"onspect.runtime.{room}").joinpath("page", name).read_bytes(), kind)
            for path, (room, name, kind) in _FILES.items()
        }

        async def page(request: Request) -> Response:
            data, kind = content[request.url.path.removeprefix("/")]
            return Response(data, media_type=kind)

        routes = [
            *(Route(f"/{path}", page) for path in content),
            Route("/state", _answer(self._tell_state)),
            Route("/picture", _answer(self._show_picture)),
            Route("/region", _answer(self._save), methods=["POST"]),
        ]
        return SecurityMiddleware(Starlette(routes=routes), _LARGEST_BODY)

    async def _tell_state(self, _: Request) -> Response:
        return JSONResponse(
            {
                "names": self._pictures.names,
                "live": self._pictures.live,
                "newest": self._pictures.newest,
                "output": str(self._output),
                "region": _to_json(self._region),
            }
        )

    async def _show_picture(self, request: Request) -> Response:
        """Answer with a picture as JPEG, and its number and size in headers."""
        text = request.query_params.get("number", "")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else self._pictures.newest
        try:
            frame = await run_in_threadpool(self._pictures.read, number)
        except ImageError as error:
            raise Refusal(404, str(error)) from error
        jpeg = await run_in_threadpool(_encode, frame)
        headers = {"X-Onspect-Number": str(number), "X-Onspect-Size": f"{frame.shape[1]}x{frame.shape[0]}"}
        return Response(jpeg, headers=headers, media_type="image/jpeg")

    async def _save(self, request: Request) -> Response:
        """Write the region of the page, complete or not at all."""
        body = await read_body(request, _LARGEST_BODY)
        try:
            text = await run_in_threadpool(self._write, body)
        except OnspectError as error:
            raise Refusal(422, str(error)) from error
        self.saved.set()
        return JSONResponse({"output": str(self._output), "text": text})

    def _write(self, body: dict[str, Any]) -> str:
        number = body.pop("number", None)
        if type(number) is not int:
            raise ChoiceError(f"the picture's number is {number!r}; reload the page")
        region = parse_region_file(body, self._output)
        frame = self._pictures.read(number)
        height, width = frame.shape[:2]
        placed = region.place(width, height)
        if not draw_region(placed).any():
            raise ChoiceError("the ignored areas leave nothing to inspect; make them smaller")
        make_folder(self._output.parent)
        if region.reference is not None:
            region = self._name_reference(region, region.reference, number, frame)
        if region.mask is None:
            region = replace(region, mask=self._region.mask)  # the page does not show the mask
        text = format_region(region, self._output.parent)
        write_atomically(self._output, text.encode())
        self._region = region
        return text

    def _name_reference(self, region: RegionFile, reference: Reference, number: int, frame: Frame) -> RegionFile:
        """Return the region with the picture of the reference: the shown file, or the frame, written as a PNG."""
        picture = self._pictures.path(number)
        if picture is None:
            picture = self._output.with_name(f"{self._output.stem}-reference.png")
            write_atomically(picture, cv2.imencode(".png", frame)[1].tobytes())  # unchanged, also with 16 bits
        return replace(region, reference=replace(reference, picture=picture))


def _encode(frame: Frame) -> bytes:
    encoded, data = cv2.imencode(".jpg", to_bgr(frame), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes() if encoded else encode_png(to_bgr(frame))  # JPEG ends at 65,500 pixels a side


def _to_json(region: RegionFile) -> dict[str, Any]:
    reference = region.reference
    return {
        "frame": region.frame,
        "rectangles": region.rectangles,
        "polygons": region.polygons,
        "ignore": {"rectangles": region.ignored_rectangles, "polygons": region.ignored_polygons},
        "reference": reference and {"patch": reference.patch, "turn": reference.turn, "scale": reference.scale},
    }


def _answer(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return refusal.answer

    return answer
