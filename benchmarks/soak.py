"""Does a camera line lose anything while something around it fails every five seconds?

A fake camera gives 640x480 frames at 30 a second to a line with a dashboard and sinks for JSONL, SQLite, evidence and
MQTT, and one slow sink. These failures follow each other: the camera is lost, repeats one frame, goes black, changes
its resolution, sends a damaged frame, or hangs; the broker is down; the disk is full (a file-size limit, if the system
has one); evidence cannot be written; the model file is touched and replaced under a moved threshold, is damaged, or has
other channels; 300 half-open connections reach the dashboard; five wrong tokens are sent; a sink is slow.

At the end every captured frame must be judged, dropped or a fault, and every verdict must be in JSONL, SQLite and MQTT.
No damaged frame may be ok. Moved thresholds must have been kept, or dropped with a message. The right token must have
been accepted. Every picture that the database names must exist. No line may appear in the log more than ten times a
minute, no thread may be left, and memory must be flat: its last third within 5% of its first. Prints a table, and exits
with 1 if a condition fails. Needs onspect[cpu,mqtt,web,dev] and mosquitto; the model must accept frames of
640x480.

    python benchmarks/soak.py part.onnx [--image part.png] [--minutes 10] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from line_latency import draw_frames
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from sabotage import TOKEN, Dawdler, FrameMaker, Saboteur
from services import Broker

from onspect.runtime.dashboard import Dashboard
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.line.build import queue_sinks
from onspect.runtime.line.memory import keep_memory_together
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.registry import open_sinks
from onspect.runtime.sources.fake import FakeSource
from onspect.runtime.status import LineStatus

RATE = 30
TOPIC = "soak"


class Listener:
    """Receives the verdicts from the broker, also after restarts."""

    def __init__(self, port: int) -> None:
        self.indexes = array("q")
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="soak-listener", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/verdict", qos=1)
        self._client.on_message = lambda _client, _data, message: self.indexes.append(
            json.loads(message.payload)["index"]
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def stop(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


class Witness(Sink):
    """A sink that checks whether a black or repeated frame was passed."""

    def __init__(self) -> None:
        self.verdicts = 0
        self.wrongly_ok = 0
        self.latencies = array("d")
        self._previous: np.ndarray | None = None
        self._first: tuple[int, ...] | None = None

    def write(self, inspection: Inspection) -> None:
        """Check one frame."""
        frame = inspection.frame
        self.verdicts += 1
        if inspection.verdict.score is not None:
            self.latencies.append(inspection.verdict.latency_ms)
            repeated = frame is not None and self._previous is not None and np.array_equal(frame, self._previous)
            spoilt = frame is None or frame.max() < 13 or repeated
            self._first = self._first or (None if frame is None else frame.shape)
            spoilt |= frame is not None and frame.shape != self._first
            self.wrongly_ok += spoilt
        if frame is not None:
            self._previous = frame


class LogCount(logging.Handler):
    """Counts how often the lines of the log repeat; those that differ in numbers only are equal."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, list[float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line."""
        self._times.setdefault(re.sub(r"\d+", "#", record.getMessage()), []).append(time.monotonic())

    def most(self) -> tuple[int, str]:
        """Return the highest number of equal lines within a minute, and the line."""
        counted = [
            (sum(start <= other < start + 60.0 for other in times), text)
            for text, times in self._times.items()
            for start in times
        ]
        return max(counted, default=(0, ""))


def run_line(line: Line, seconds: float) -> tuple[LineStatus, list[float]]:
    """Run a line for this time, and return its last status and the memory of each second, in MiB."""
    process, memory = psutil.Process(), []
    threading.Timer(seconds, line.stop).start()

    def weigh() -> None:
        while line.status().running:
            memory.append(process.memory_info().rss / 2**20)
            time.sleep(1.0)

    scale = threading.Thread(target=weigh)
    scale.start()
    status = line.run()
    scale.join()
    return status, memory


def soak(model: Path, image: Path | None, minutes: float, folder: Path, log: LogCount) -> dict[str, Any]:
    """Run the line and its failures; return the counts."""
    before = set(threading.enumerate())
    shutil.copy(model, folder / "part.onnx")
    model = folder / "part.onnx"
    maker = FrameMaker(draw_frames(Inspector(model), image))
    broker, witness, dawdler = Broker(folder), Witness(), Dawdler()
    broker.start()
    listener = Listener(broker.port)
    source = FakeSource(maker, rate=RATE, patience=2.0)
    texts = [
        f"jsonl:{folder / 'verdicts.jsonl'}",
        f"sqlite:{folder / 'verdicts.db'}",
        f"evidence:{folder / 'evidence'}?quota=5GB",
        f"mqtt://127.0.0.1:{broker.port}/{TOPIC}",
    ]
    named = [*zip(texts, open_sinks(texts, append=True), strict=True), ("dawdler", dawdler)]
    dashboard = Dashboard("127.0.0.1:0", token=TOKEN, history=folder / "verdicts.db", evidence=folder / "evidence")
    line = Line(
        Models({None: model}, None, Inspector, Health()),
        [source],
        [*queue_sinks(named, folder / "spool", live=True), dashboard, witness],
    )
    saboteur = Saboteur(folder, line, dashboard, source, maker, broker, dawdler)
    stopper = threading.Timer(minutes * 60.0 - 10.0, saboteur.stop)  # the last seconds are quiet
    stopper.start()
    status, memory = run_line(line, minutes * 60.0)
    stopper.join()
    for _ in range(100):  # messages of the broker are still on their way
        if len(set(listener.indexes)) >= witness.verdicts:
            break
        time.sleep(0.1)
    listener.stop()
    broker.stop()
    jsonl = [json.loads(line)["index"] for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    with closing(sqlite3.connect(folder / "verdicts.db")) as database:
        found = database.execute('SELECT "index", evidence FROM verdicts ORDER BY rowid').fetchall()
    rows, pictures = [index for index, _ in found], [name for _, name in found if name]
    kept = {path.relative_to(folder / "evidence").as_posix() for path in (folder / "evidence").rglob("*.jpg")}
    for thread in set(threading.enumerate()) - before:
        thread.join(5.0)
    third = len(memory) // 3
    return {
        "status": status.to_dict(),
        "faults": saboteur.done,
        "verdicts": witness.verdicts,
        "jsonl": len(jsonl),
        "jsonl_whole": jsonl == list(range(witness.verdicts)),
        "sqlite": len(rows),
        "sqlite_whole": sorted(rows) == list(range(witness.verdicts)),
        "mqtt": len(set(listener.indexes)),
        "mqtt_whole": sorted(set(listener.indexes)) == list(range(witness.verdicts)),
        "mqtt_twice": len(listener.indexes) - len(set(listener.indexes)),
        "wrongly_ok": witness.wrongly_ok,
        "broken": saboteur.broken,
        "pictures": len(pictures),
        "pictures_missing": len(set(pictures) - kept),
        "log_repeats": log.most(),
        "latency_ms": dict(zip(("p50", "p95", "p99"), np.percentile(witness.latencies, [50, 95, 99]), strict=True)),
        "memory_mib": memory,
        "memory_first_mib": statistics.mean(memory[:third]),
        "memory_last_mib": statistics.mean(memory[-third:]),
        "threads_left": [thread.name for thread in set(threading.enumerate()) - before],
    }


def judge(found: dict[str, Any]) -> dict[str, bool]:
    """Return each condition, and whether it is met."""
    status = found["status"]
    return {
        "every captured frame judged, dropped or a fault": status["waiting"] == 0
        and status["captured"] == status["judged"] + status["dropped"] + status["faulted"],
        "a verdict for every frame judged or a fault": found["verdicts"] == status["judged"] + status["faulted"],
        "every verdict in JSONL, in order": found["jsonl_whole"],
        "every verdict in SQLite": found["sqlite_whole"],
        "every verdict in MQTT": found["mqtt_whole"],
        "no spoilt frame passed": found["wrongly_ok"] == 0,
        "every promise kept": not found["broken"],
        "every picture that the database names is there": found["pictures_missing"] == 0,
        "no line of the log more than ten times a minute": found["log_repeats"][0] <= 10,
        "memory flat": abs(found["memory_last_mib"] / found["memory_first_mib"] - 1.0) < 0.05,
        "no thread left": not found["threads_left"],
    }


def main() -> None:
    """Soak, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--image", type=Path, help="a good part; grey where it is left out")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quieten_opencv()
    keep_memory_together()  # as the command does
    log = LogCount()
    for name in ("onspect", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [log], False
    logging.getLogger("onspect").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        found = soak(arguments.model, arguments.image, arguments.minutes, Path(folder), log)
    status = found["status"]
    print("  ".join(f"{name} {status[name]}" for name in ("captured", "judged", "dropped", "faulted", "waiting")))
    print("  ".join(f"{name} {status[name]}" for name in (*JUDGEMENTS, "swaps", "reconnects")))
    print("  ".join(f"{name} {found[name]}" for name in ("verdicts", "jsonl", "sqlite", "mqtt", "mqtt_twice")))
    print("latency  " + "  ".join(f"{name} {value:.2f} ms" for name, value in found["latency_ms"].items()))
    print(f"memory  first third {found['memory_first_mib']:.1f} MiB, last third {found['memory_last_mib']:.1f} MiB")
    print(f"pictures {found['pictures']}, of these missing {found['pictures_missing']}")
    print(f"most repeated line of the log: {found['log_repeats'][0]} times in a minute: {found['log_repeats'][1]}")
    for words in found["broken"]:
        print(f"broken  {words}")
    for name, count in found["faults"].items():
        print(f"{count:4d} x {name}")
    holds = judge(found)
    for name, so in holds.items():
        print(f"{'ok' if so else 'FAILS':<6} {name}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found | {"holds": holds}, default=float))
    if not all(holds.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
