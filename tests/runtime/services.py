"""The machines beside a line, started by the tests: an MQTT broker, and ports and certificates for others."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pytest


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def find_program(name: str) -> str:
    """Return a program's path; the test is skipped where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
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
        """Stop; it keeps its sessions on disk."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
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
