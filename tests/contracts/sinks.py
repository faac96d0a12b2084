"""Every kind of sink with a receiver that counts what arrives: one row each, which the contract tests run through."""

from __future__ import annotations

import sqlite3
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..runtime.services import Broker, Plc, Server, free_port

Receiver = tuple[str, Callable[[], int]]
"""A sink's address, and how many of the verdicts 0, 1, 2.. its receiver has so far; asked while the sink is open."""


@dataclass(frozen=True)
class SinkCase:
    """A kind of sink.

    start: starts a receiver in an empty folder. away: addresses at which nothing can be delivered, in a folder of
    which the file ``file`` is not a folder. extra: the module that it needs.
    """

    prefix: str
    start: Callable[[Path], AbstractContextManager[Receiver]]
    away: Callable[[Path], str]
    extra: str | None = None


@contextmanager
def _lines(kind: str, header: int, folder: Path) -> Iterator[Receiver]:
    path = folder / "out"
    yield f"{kind}:{path}", lambda: len(path.read_bytes().splitlines()) - header


@contextmanager
def _sqlite(folder: Path) -> Iterator[Receiver]:
    def count() -> int:
        with closing(sqlite3.connect(folder / "h.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM verdicts").fetchone()[0])

    yield f"sqlite:{folder / 'h.db'}", count


@contextmanager
def _evidence(folder: Path) -> Iterator[Receiver]:
    yield f"evidence:{folder / 'e'}", lambda: len(list((folder / "e").rglob("*.jpg")))


@contextmanager
def _mqtt(folder: Path) -> Iterator[Receiver]:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    found: list[bytes] = []
    subscribed = threading.Event()
    with Broker(folder) as broker:
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect = lambda client, *_: client.subscribe("line/verdict", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda _client, _data, message: found.append(message.payload)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        assert subscribed.wait(10)
        yield f"mqtt://127.0.0.1:{broker.port}/line", lambda: len(found)
        client.disconnect()
        client.loop_stop()


@contextmanager
def _webhook(folder: Path) -> Iterator[Receiver]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.url, lambda: len(server.requests)
        server.shutdown()
        thread.join()


@contextmanager
def _modbus(folder: Path) -> Iterator[Receiver]:
    with Plc() as plc:
        yield f"modbus://127.0.0.1:{plc.port}?unit=7", lambda: plc.registers()[0] if plc.writes else 0


@contextmanager
def _opcua(folder: Path) -> Iterator[Receiver]:
    from asyncua.sync import Client

    port = free_port()

    def count() -> int:
        with Client(f"opc.tcp://127.0.0.1:{port}/onspect", timeout=20) as client:
            return int(client.get_node("ns=1;s=LastPart.Count").read_value())

    yield f"opcua://127.0.0.1:{port}", count


@contextmanager
def _prometheus(folder: Path) -> Iterator[Receiver]:
    port = free_port()

    def count() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.split()[1]) for line in lines if line.startswith("onspect_parts_total{")))

    yield f"prometheus://127.0.0.1:{port}", count


CASES = (
    SinkCase("jsonl:", lambda folder: _lines("jsonl", 0, folder), lambda folder: f"jsonl:{folder}/file/out"),
    SinkCase("csv:", lambda folder: _lines("csv", 1, folder), lambda folder: f"csv:{folder}/file/out"),
    SinkCase("sqlite:", _sqlite, lambda folder: f"sqlite:{folder}/file/h.db"),
    SinkCase("evidence:", _evidence, lambda folder: f"evidence:{folder}/file/e"),
    SinkCase("mqtt:", _mqtt, lambda _: f"mqtt://127.0.0.1:{free_port()}/line", "paho"),
    SinkCase("http:", _webhook, lambda _: f"http://127.0.0.1:{free_port()}/hook"),
    SinkCase("modbus:", _modbus, lambda _: f"modbus://127.0.0.1:{free_port()}", "pymodbus"),
    SinkCase("opcua:", _opcua, lambda _: "opcua://192.0.2.1:4840", "asyncua"),
    SinkCase("prometheus:", _prometheus, lambda _: "prometheus://192.0.2.1:9464", "prometheus_client"),
)
