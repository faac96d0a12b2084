"""A camera in the network: an RTSP server that sends H.264 over TCP, and can be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT, RATE = 64, 48, 25


class RtspServer:
    """Sends moving noise to each client; `port` stays the same over restarts."""

    def __init__(self) -> None:
        self.port = 0
        self.frozen = threading.Event()
        self.refused = 0
        self._alive = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"rtsp://tester:hunter2@127.0.0.1:{self.port}/line"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._alive = True
        self.frozen.clear()
        self._sockets = [listener]
        self._spawn(self._accept, listener)

    def kill(self) -> None:
        self._alive = False
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5.0)
        self._threads.clear()

    def _spawn(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while self._alive:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            lines = client.makefile("rb")
            while self._alive:
                request = [line.decode().strip() for line in iter(lines.readline, b"\r\n") if line]
                if not request:
                    return
                method = request[0].split()[0]
                headers = dict(line.split(": ", 1) for line in request[1:] if ": " in line)
                client.sendall(self._answer(method, headers))
                if method == "PLAY":
                    self._play(client)
                    return
        except OSError:
            pass
        finally:
            client.close()

    def _answer(self, method: str, headers: dict[str, str]) -> bytes:
        lines = ["RTSP/1.0 200 OK", f"CSeq: {headers['CSeq']}", "Session: 1"]
        body = ""
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        if method == "DESCRIBE":
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
            )
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        if method == "SETUP":
            lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _play(self, client: socket.socket) -> None:
        sequence = 0
        for number, unit, last in _encode():
            while self.frozen.is_set() and self._alive:
                time.sleep(0.01)
            if not self._alive:
                return
            for payload, ends in _packets(unit):
                marker = 0x80 if last and ends else 0
                header = struct.pack(">BBHII", 0x80, 96 | marker, sequence & 0xFFFF, number * 90000 // RATE, 1)
                client.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(payload)) + header + payload)
                sequence += 1
            if last:
                time.sleep(1 / RATE)


def _encode() -> Iterator[tuple[int, bytes, bool]]:
    """Yield frame number and NAL unit of an endless stream, and whether it is the frame's last one."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.framerate, encoder.time_base, encoder.gop_size = RATE, Fraction(1, RATE), 5
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    random = np.random.default_rng(0)
    number = 0
    while True:
        picture = random.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        for packet in encoder.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
            units = [unit for unit in bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
            for place, unit in enumerate(units):
                yield number, unit, place == len(units) - 1
        number += 1


def _packets(unit: bytes, limit: int = 1200) -> Iterator[tuple[bytes, bool]]:
    """Cut a NAL unit into RTP payloads (RFC 6184, FU-A)."""
    if len(unit) <= limit:
        yield unit, True
        return
    kind, rest = unit[0], unit[1:]
    for start in range(0, len(rest), limit):
        ends = start + limit >= len(rest)
        flags = (0x80 if start == 0 else 0) | (0x40 if ends else 0)
        yield bytes([kind & 0xE0 | 28, flags | kind & 0x1F]) + rest[start : start + limit], ends
