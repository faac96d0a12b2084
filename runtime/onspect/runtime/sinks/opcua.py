"""An OPC UA server that shows the last part and the status of the line; all variables are read-only.

Namespace ``urn:onspect:line``. Below Objects are ``LastPart`` and ``Line``; the node id of a variable is its path, such
as ``ns=1;s=LastPart.Verdict``. ``LastPart.Count`` is written last, so a subscriber to it finds the part complete.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Self, TypeVar

from onspect.runtime.address import Address, parse_url
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.status import LineStatus

NAMESPACE = "urn:onspect:line"
PORT = 4840
"""OPC UA's own port."""

_START_S = 120.0  # the start takes 3 s on an idle core, and much longer on a busy one
_WRITE_S = 2.0

T = TypeVar("T")

LAST_PART: dict[str, tuple[str, Callable[[Verdict], Any]]] = {
    "Source": ("String", lambda verdict: verdict.source),
    "Part": ("String", lambda verdict: verdict.part or ""),
    "Time": ("DateTime", lambda verdict: _to_time(verdict.time)),
    "Verdict": ("String", lambda verdict: verdict.verdict),
    "Reject": ("Boolean", lambda verdict: JUDGEMENTS[verdict.verdict].rejected),
    "Score": ("Double", lambda verdict: float("nan") if verdict.score is None else verdict.score),
    "Threshold": ("Double", lambda verdict: verdict.threshold),
    "Regions": ("UInt32", lambda verdict: len(verdict.regions)),
    "Reason": ("String", lambda verdict: verdict.reason or ""),
    "Code": ("String", lambda verdict: verdict.code or ""),
    "LatencyMs": ("Double", lambda verdict: verdict.latency_ms),
    "Json": ("String", lambda verdict: verdict.to_json()),
    "Count": ("UInt64", lambda verdict: verdict.index + 1),
}
"""The variables below ``LastPart``: type and value."""

_COUNTS = ("captured", "judged", "dropped", "faulted", "empty", *JUDGEMENTS)

LINE: dict[str, tuple[str, Callable[[LineStatus], Any]]] = {
    "Running": ("Boolean", lambda status: status.running),
    "Time": ("DateTime", lambda status: _to_time(status.time)),
    "Now": ("String", lambda status: status.now),
    "NowSource": ("String", lambda status: status.now_source or ""),
    "NowAge": ("Double", lambda status: float("nan") if status.now_age is None else status.now_age),
    "Model": ("String", lambda status: status.model),
    "Recipe": ("String", lambda status: status.recipe or ""),
    "Threshold": ("Double", lambda status: status.threshold),
    "Alarm": ("String", lambda status: status.alarm or ""),
    "Drift": ("String", lambda status: status.drift or ""),
    **{name.capitalize(): ("UInt64", attrgetter(name)) for name in _COUNTS},
}
"""The variables below ``Line``, as of the last report."""

_ZEROS: dict[str, Any] = {
    "String": "",
    "Boolean": False,
    "Double": 0.0,
    "UInt32": 0,
    "UInt64": 0,
    "DateTime": datetime(1970, 1, 1, tzinfo=UTC),
}


class OpcUaSink(Sink):
    """Serve the last part and the line's status; everyone who reaches the port may read them.

    Parameters
    ----------
    address
        The parsed address.
    port
        TCP port.
    """

    delivery: Delivery = "live"
    pictures = False
    wants_status = True

    def __init__(self, address: Address, *, port: int) -> None:
        from asyncua import ua

        self._ua = ua
        self._address = address
        self._port = port
        self.listens = address.host, port
        self._endpoint = f"opc.tcp://{address.bracketed_host}:{port}/{address.path or 'onspect'}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: Any = None
        self._nodes: dict[str, Any] = {}
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # its errors also come as exceptions

    def __enter__(self) -> Self:
        self._try_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._thread.start()
        try:
            self._do(self._open(), _START_S)
        except OutputError:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._server is not None:
                self._do(self._server.stop(), _WRITE_S * 5)
        finally:
            self._end()

    def write(self, inspection: Inspection) -> None:
        """Show one part.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the server does not accept it.
        """
        self._do(self._set("LastPart", LAST_PART, inspection.verdict))

    def report(self, status: LineStatus) -> None:
        """Show the status of the line.

        Parameters
        ----------
        status
            The status.

        Raises
        ------
        OutputError
            If the server does not accept it.
        """
        self._do(self._set("Line", LINE, status))

    def _try_port(self) -> None:
        """Raise OutputError if the port is not available, before the slow start of the server."""
        host = self._address.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self._serving(), socket.create_server((host, self._port), family=family):
            pass

    def _serving(self) -> AbstractContextManager[None]:
        return explaining(OutputError, f"cannot serve {self._address.shown}", "give another port or address")

    async def _open(self) -> None:
        from asyncua.server.server import Server

        server = Server()
        await server.init()
        server.allow_remote_admin(False)  # otherwise everyone who logs in as admin, with any password, may write
        server.set_endpoint(self._endpoint)
        server.set_server_name("Onspect")
        server.set_security_policy([self._ua.SecurityPolicyType.NoSecurity])
        await server.set_application_uri(NAMESPACE)
        namespace = await server.register_namespace(NAMESPACE)
        await self._add(server, namespace, "LastPart", LAST_PART)
        await self._add(server, namespace, "Line", LINE)
        await server.start()
        self._server = server

    async def _add(self, server: Any, namespace: int, folder: str, variables: Mapping[str, tuple[str, Any]]) -> None:
        ua = self._ua
        parent = await server.nodes.objects.add_object(
            ua.NodeId(folder, namespace), ua.QualifiedName(folder, namespace)
        )
        for name, (kind, _) in variables.items():
            path = f"{folder}.{name}"
            node = await parent.add_variable(
                ua.NodeId(path, namespace), ua.QualifiedName(name, namespace), _ZEROS[kind], ua.VariantType[kind]
            )
            self._nodes[path] = node.nodeid

    async def _set(self, folder: str, variables: Mapping[str, tuple[str, Callable[[T], Any]]], facts: T) -> None:
        ua = self._ua
        for name, (kind, tell) in variables.items():
            value = tell(facts)
            text = value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
            data = ua.DataValue(ua.Variant(text, ua.VariantType[kind]), SourceTimestamp=datetime.now(UTC))
            await self._server.write_attribute_value(self._nodes[f"{folder}.{name}"], data)

    def _do(self, work: Coroutine[Any, Any, None], seconds: float = _WRITE_S) -> None:
        """Run a coroutine in the server's thread, and wait for it."""
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        with self._serving():
            try:
                future.result(seconds)
            except FutureTimeoutError as error:
                future.cancel()
                raise OutputError(f"{self._address.shown} has not answered within {seconds:g} s") from error

    def _end(self) -> None:
        self._server = None
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_WRITE_S)
            if not self._thread.is_alive():
                self._loop.close()
        self._loop = None


def open_opcua(text: str) -> OpcUaSink:
    """Return the sink of an OPC UA server.

    Parameters
    ----------
    text
        The address to listen on, ``opcua://HOST[:PORT]/PATH``.

    Returns
    -------
    OpcUaSink
        The sink.

    Raises
    ------
    ChoiceError
        If the address is not valid.
    """
    address = parse_url(text, {})
    if any(sign.isspace() for sign in address.path):
        raise ChoiceError(f"the sink {address.shown!r} has a path with spaces; give one such as /line-1")
    return OpcUaSink(address, port=address.port or PORT)


def _to_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return _ZEROS["DateTime"]  # type: ignore[no-any-return]  # the table has a datetime there
