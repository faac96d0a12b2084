"""Does every part that a PLC triggers get one result in time, and the reject coil at the gate?

A PLC in a separate process (pymodbus or asyncua as the server, a program scan every millisecond) triggers parts as fast
as the line accepts them. It acknowledges each result and notes it with the reject coil; the gate is three parts behind
the camera. The line shows the pictures of a folder in turns; every 50th frame is damaged, and every 71st is missing. At
the end the PLC's notes, the JSONL record and the verdicts of the bare model must agree: no part is lost or repeated,
and each coil belongs to its part. For 99.9% of the parts, the PLC must see a valid result at most --limit ms after the
trigger. Prints a table, and exits with 1 if a condition fails. Needs onspect[cpu,modbus,opcua].

    python benchmarks/handshake.py part.onnx parts/ [--kind modbus] [--parts 10000] [--limit 500] [--json result.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame, quieten_opencv, read_image
from onspect.runtime.images.files import list_images
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import parse_verdict
from onspect.runtime.line import Line, Models, Voting
from onspect.runtime.line.build import queue_sinks
from onspect.runtime.line.memory import keep_memory_together
from onspect.runtime.line.triggered import TriggeredSource
from onspect.runtime.signals import EjectorRule, HandshakeTimes, SignalController, open_signal
from onspect.runtime.signals.opcua import INPUTS, OUTPUTS
from onspect.runtime.sinks.modbus import CODES
from onspect.runtime.sinks.registry import open_sinks
from onspect.runtime.sources.base import Capture, Source

BEHIND = 3
DAMAGED, MISSING = 50, 71
SCAN_S = 0.001


@dataclass
class Note:
    """Notes of the PLC on one part; seconds: from its trigger to the valid result."""

    part: str
    sequence: int
    verdict: int
    error: int
    reject: bool
    echo: str
    seconds: float


Look = Callable[[], Awaitable[dict[str, Any]]]
Tell = Callable[[dict[str, Any]], Awaitable[None]]


async def run_program(look: Look, tell: Tell, parts: int, patience: float) -> list[Note]:
    """Be the PLC's program: trigger, wait for the result, acknowledge, release."""

    async def wait(name: str, wanted: bool) -> dict[str, Any]:
        end = time.monotonic() + patience
        while (seen := await look())[name] is not wanted:
            if time.monotonic() > end:
                raise TimeoutError(f"{name} did not become {wanted}: {seen}")
            await asyncio.sleep(SCAN_S)
        return seen

    notes = []
    for number in range(parts):
        part = f"P{number:06d}"
        await wait("ready", True)
        await tell({"part": part, "trigger": True})
        started = time.perf_counter()
        seen = await wait("valid", True)
        seconds = time.perf_counter() - started
        facts = (seen["sequence"], seen["verdict"], seen["error"], seen["reject"], seen["part"])
        notes.append(Note(part, *facts, seconds))
        await tell({"ack": True})
        await wait("valid", False)
        await tell({"trigger": False, "ack": False})
    return notes


async def serve_modbus(port: int, parts: int, ready: Callable[[], None], patience: float) -> list[Note]:
    """Be a Modbus TCP server with the program beside it."""
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    bits = [SimData(0, values=[False] * 48, datatype=DataType.BITS)]
    words = [SimData(0, values=[0] * 64, datatype=DataType.REGISTERS)]
    server = ModbusTcpServer(SimDevice(1, simdata=(bits, bits, words, words)), address=("127.0.0.1", port))
    await server.serve_forever(background=True)

    async def look() -> dict[str, Any]:
        ready, busy, valid, alive, reject = await server.async_getValues(1, 1, 16, 5)
        facts: dict[str, Any] = {"ready": ready, "busy": busy, "valid": valid, "alive": alive, "reject": reject}
        if valid:
            data = struct.pack(">14H", *await server.async_getValues(1, 3, 16, 14))
            facts["sequence"], facts["verdict"], facts["error"] = struct.unpack(">IHH", data[:8])
            facts["part"] = data[12:].rstrip(b"\0").decode()
        return facts

    state = {"trigger": False, "ack": False}

    async def tell(changes: dict[str, Any]) -> None:
        part = changes.pop("part", None)
        if part is not None:
            await server.async_setValues(1, 16, 2, list(struct.unpack(">8H", part.encode().ljust(16, b"\0"))))
        state.update(changes)
        await server.async_setValues(1, 15, 0, [state["trigger"], state["ack"]])

    ready()
    notes = await run_program(look, tell, parts, patience)
    await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus does not say
    return notes


async def serve_opcua(port: int, parts: int, ready: Callable[[], None], patience: float) -> list[Note]:
    """Be an OPC UA server with the program beside it."""
    from asyncua import ua
    from asyncua.server.server import Server

    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plc")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    kinds: dict[str, tuple[Any, Any]] = dict.fromkeys((*INPUTS, *OUTPUTS), (False, ua.VariantType.Boolean))
    kinds |= dict.fromkeys(("Error", "Sequence", "Verdict", "Recipe", "Shift"), (0, ua.VariantType.UInt32))
    kinds |= dict.fromkeys(("Part", "ResultPart"), ("", ua.VariantType.String)) | {"Score": (0.0, ua.VariantType.Float)}
    nodes = {}
    for name, (zero, kind) in kinds.items():
        nodes[name] = await server.nodes.objects.add_variable(
            ua.NodeId(ua.String(f"Line1.{name}"), ua.Int16(2)), ua.QualifiedName(name, 2), zero, kind
        )
        await nodes[name].set_writable()
    await server.start()

    async def look() -> dict[str, Any]:
        facts: dict[str, Any] = {name.lower(): await nodes[name].read_value() for name in ("Ready", "Valid")}
        if facts["valid"]:
            names = ("Sequence", "Verdict", "Error", "Reject")
            facts |= {name.lower(): await nodes[name].read_value() for name in names}
            facts["part"] = await nodes["ResultPart"].read_value()
        return facts

    async def tell(changes: dict[str, Any]) -> None:
        for name, value in changes.items():  # the part before the trigger
            await nodes[name.capitalize()].write_value(value, kinds[name.capitalize()][1])

    ready()
    notes = await run_program(look, tell, parts, patience)
    await server.stop()
    return notes


SERVERS = {"modbus": serve_modbus, "opcua": serve_opcua}


def be_plc(kind: str, port: int, parts: int, patience: float, pipe: Connection) -> None:
    """Run the PLC in its own process, and send its notes."""
    for name in ("pymodbus", "asyncua"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        pipe.send(asyncio.run(SERVERS[kind](port, parts, lambda: pipe.send("ready"), patience)))
    except TimeoutError as error:
        pipe.send(str(error))


class Pictures(Source):
    """A camera that takes a picture when it is triggered; some are damaged, and some never come."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__("camera")
        self._frames = frames

    def __iter__(self) -> Iterator[Capture]:
        number = 0
        while not self._stopped.is_set():
            yield Capture("camera", self.show(number))
            number += 1

    def show(self, number: int) -> Frame | ImageError:
        """Return the frame of a part."""
        if is_spoilt(number):
            return ImageError("the frame came damaged" if number % DAMAGED == DAMAGED - 1 else "the frame did not come")
        return self._frames[number % len(self._frames)].copy()


def is_spoilt(number: int) -> bool:
    """Return whether a part has no good frame."""
    return number % DAMAGED == DAMAGED - 1 or number % MISSING == MISSING - 1


def main() -> None:
    """Run the line and the PLC, and compare."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("model", type=Path)
    options.add_argument("pictures", type=Path)
    options.add_argument("--kind", choices=SERVERS, default="modbus")
    options.add_argument("--parts", type=int, default=10_000)
    options.add_argument("--limit", type=float, default=500.0, help="ms from trigger to result, at p99.9")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    quieten_opencv()
    keep_memory_together()
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])

    frames = [read_image(path) for path in list_images(given.pictures)[0]][:64]
    inspector = Inspector(given.model)
    alone = [inspector.inspect(frame).verdict for frame in frames]
    expected = ["fault" if is_spoilt(number) else alone[number % len(frames)] for number in range(given.parts)]

    spawn = multiprocessing.get_context("spawn")
    pipe, end = spawn.Pipe()
    plc = spawn.Process(target=be_plc, args=(given.kind, port, given.parts, 60.0, end), daemon=True)
    plc.start()
    pipe.recv()
    query = "?poll=1" if given.kind == "modbus" else "plc?node=ns=2;s=Line1&poll=1"
    address = f"{given.kind}://127.0.0.1:{port}{'/' if given.kind == 'opcua' else ''}{query}"
    signals = SignalController(
        open_signal(address),
        times=HandshakeTimes(result=given.limit / 1000.0, ack=10.0),
        ejector=EjectorRule(parts=BEHIND),
    )
    with tempfile.TemporaryDirectory() as name:
        text = f"jsonl:{name}/verdicts.jsonl"
        sinks = queue_sinks([(text, open_sinks([text], append=True)[0])], Path(name) / "spool", live=True)
        models = Models({None: given.model}, None, Inspector)
        source = TriggeredSource(Pictures(frames), signals, 0)
        line = Line(models, [source], sinks, voting=Voting(frames=1), signals=signals)
        thread = threading.Thread(target=line.run)
        started = time.monotonic()
        thread.start()
        answer = pipe.recv()
        seconds = time.monotonic() - started
        line.stop()
        thread.join(30)
        record = [parse_verdict(row) for row in Path(name, "verdicts.jsonl").read_text().splitlines()]
    plc.join(10)
    if isinstance(answer, str):
        sys.exit(f"the PLC gave up: {answer}")
    notes: list[Note] = answer

    times = np.array([note.seconds for note in notes]) * 1000.0
    late = {number for number, note in enumerate(notes) if note.error}
    wanted = ["fault" if number in late else verdict for number, verdict in enumerate(expected)]
    rejected = [verdict in ("ng", "fault") for verdict in wanted]
    state = signals.state()
    p50, p99, p999, worst = (float(value) for value in np.percentile(times, [50, 99, 99.9, 100]))
    held = {
        f"{given.parts} results, numbered without a gap": [n.sequence for n in notes]
        == list(range(1, given.parts + 1)),
        "each result is of the part that was triggered": all(note.echo == note.part for note in notes),
        "each verdict is the model's, or a fault": [n.verdict for n in notes] == [CODES[v] for v in wanted],
        "each part is in the record once, in order": [v.part for v in record] == [note.part for note in notes],
        "record and PLC have the same verdicts": [CODES[v.verdict] for v in record] == [n.verdict for n in notes],
        f"the coil is that of the part {BEHIND} before": [n.reject for n in notes]
        == [False] * BEHIND + rejected[:-BEHIND],
        "each result was acknowledged": (state.acknowledged, state.unacknowledged) == (given.parts, 0),
        f"99.9% of the parts have a verdict within {given.limit:g} ms": len(late) * 1000 <= given.parts,
        f"99.9% of the results are valid within {given.limit:g} ms": p999 <= given.limit,
    }
    print(f"{given.kind}: {given.parts} parts in {seconds:.0f} s, {given.parts / seconds:.1f} a second")
    print(f"verdicts {dict(Counter(v.verdict for v in record))}, of these {len(late)} without a verdict in time")
    print(f"trigger to result, ms: p50 {p50:.1f}, p99 {p99:.1f}, p99.9 {p999:.1f}, worst {worst:.1f}")
    for words, holds in held.items():
        print(f"{'ok' if holds else 'FAILS':<6} {words}")
    if given.json:
        facts = {"kind": given.kind, "parts": given.parts, "late": len(late), "seconds": seconds}
        facts |= {"p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "worst_ms": worst, "holds": all(held.values())}
        given.json.write_text(json.dumps(facts))
    sys.exit(0 if all(held.values()) else 1)


if __name__ == "__main__":
    main()
