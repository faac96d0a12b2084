"""The machines beside a line, started by the tests: an MQTT broker, a PLC, a web server, and certificates."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


def free_port() -> int:
    """Return a free TCP port."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a server listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def find_program(name: str) -> str:
    """Return a program's path; the test is skipped where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        import pytest

        pytest.skip(f"{name} is not installed (Debian: apt-get install mosquitto openssl)")
    return found


class Broker:
    """A mosquitto that can be stopped and started again with its sessions; settings are lines of its configuration."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self._program = find_program("mosquitto")
        self._configuration = folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "user root",
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            *(settings or ["allow_anonymous true"]),
        ]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it listens."""
        command = [self._program, "-c", str(self._configuration)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not listens(self.port):
            assert self._process.poll() is None, "mosquitto ended"
            assert time.monotonic() < end, "mosquitto does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop; it keeps its sessions on disk.

        A signal that comes before its main loop has begun is lost, so it is sent until it ends.
        """
        end = time.monotonic() + 20
        while self._process is not None and self._process.poll() is None:
            assert time.monotonic() < end, "mosquitto does not end"
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self._process = None


def write_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Write an authority's certificate, and a certificate for localhost with its key; return the three paths."""
    openssl = find_program("openssl")
    ca, ca_key, cert, key = (folder / name for name in ("ca.pem", "ca.key", "cert.pem", "key.pem"))
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    authority = ["-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign", "-keyout", str(ca_key)]
    server = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key)]
    signed = ["-CA", str(ca), "-CAkey", str(ca_key), "-addext", "basicConstraints=critical,CA:false"]
    for command in ([*new, *authority, "-out", str(ca)], [*new, *server, *signed, "-out", str(cert)]):
        subprocess.run(command, check=True, capture_output=True)
    return ca, cert, key


class Plc:
    """A Modbus TCP server of one device, unit 7, that keeps every write request as (address, values)."""

    def __init__(self, *, coils: int = 32, registers: int = 64) -> None:
        self.port = free_port()
        self.writes: list[tuple[int, list[int]]] = []
        self.connections = 0
        self._coils = coils
        self._registers = registers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._server: Any = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except RuntimeError:
            self.port = free_port()
            self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it listens."""
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        listening: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listening)), daemon=True)
        self._thread.start()
        listening.result(60)  # a busy machine takes long to load pymodbus

    def stop(self) -> None:
        """Stop; connections are closed."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        self._loop = None

    def registers(self) -> tuple[Any, ...]:
        """Return the registers last written, as the documented map has them: parts, verdict, regions, score..."""
        values = next(values for _, values in reversed(self.writes) if len(values) == 16)
        return struct.unpack(">IHHff4I", struct.pack(">16H", *values))

    def set_inputs(self, values: list[bool], registers: list[int] | None = None) -> None:
        """Set the coils from 0 that the line reads, and before them the registers from 0."""
        if registers is not None:
            self._do(lambda server: server.async_setValues(7, 16, 0, registers))
        self._do(lambda server: server.async_setValues(7, 15, 0, values))

    def read(self, *, coil: int, coils: int, register: int, registers: int) -> tuple[list[bool], list[int]]:
        """Return coils and registers as they are now, the coils first."""
        bits = self._do(lambda server: server.async_getValues(7, 1, coil, coils))
        return bits, self._do(lambda server: server.async_getValues(7, 3, register, registers))

    def _do(self, work: Callable[[Any], Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(self._server), self._loop).result(60)

    async def _serve(self, listening: Future[None]) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        bits = [SimData(0, values=[False] * self._coils, datatype=DataType.BITS)]
        words = [SimData(0, values=[0] * self._registers, datatype=DataType.REGISTERS)]
        server = ModbusTcpServer(
            SimDevice(7, simdata=(bits, bits, words, words)),
            address=("127.0.0.1", self.port),
            trace_pdu=self._keep,
            trace_connect=self._count,
        )
        self._server = server
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:  # somebody took the port meanwhile
            listening.set_exception(error)
            return
        listening.set_result(None)
        await self._stop.wait()
        await server.shutdown()

    def _keep(self, sending: bool, pdu: Any) -> Any:
        if not sending and pdu.function_code in (15, 16):
            self.writes.append((pdu.address, [int(value) for value in pdu.bits or pdu.registers]))
        return pdu

    def _count(self, connected: bool) -> None:
        self.connections += connected


@dataclass(frozen=True)
class Request:
    """A request to the server."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def index(self) -> int:
        """Return the index of the verdict in it."""
        return int(json.loads(self.body)["index"])


class Server(ThreadingHTTPServer):
    """A web server that keeps its requests, and gives the status `answer`, or hangs up for None."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.requests: list[Request] = []
        self.connections = 0
        self.answer: Callable[[Request], int | None] = lambda request: 204
        self.idle_limit = 10.0

    @property
    def url(self) -> str:
        """Return the address to post to."""
        return f"http://127.0.0.1:{self.server_address[1]}/hook?line=1"


class Handler(BaseHTTPRequestHandler):
    """Answers POST requests and keeps connections open."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        """Count connections."""
        self.server.connections += 1
        self.timeout = self.server.idle_limit
        super().setup()

    def do_POST(self) -> None:
        """Keep the request and answer it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.path, dict(self.headers), body)
        self.server.requests.append(request)
        status = self.server.answer(request)
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""
