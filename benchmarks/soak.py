"""Does a camera line lose anything while everything around it fails, one thing every five seconds?

A fake camera gives 640x480 frames at 30 a second to a line with sinks for JSONL, SQLite, evidence, MQTT, one that
dawdles, and a dashboard. In turns the camera is lost, stands still, goes black, changes its resolution, sends a damaged
frame or hangs, the broker is down, the disk is full (a file-size limit, where the system has one), evidence cannot be
written, the model file is touched and exchanged under a moved threshold, is bad, has other channels, 300 half-open
connections come to the dashboard, five wrong tokens are sent, and a sink takes its time.

At the end every captured frame must be judged, dropped or a fault; every verdict must be in JSONL, SQLite and MQTT; no
spoilt frame may be ok; moved thresholds must have held, or been dropped aloud; the right token must have been let in;
every picture that the database names must be there; no line may appear in the log more than ten times a minute; no
thread may be left, and memory must be flat: its last third within 5% of its first. Prints a table and exits with 1
where one of these does not hold. Needs onspect[cpu,mqtt,web], psutil and mosquitto; the model must take frames of
640x480.

    python benchmarks/soak.py part.onnx [--image part.png] [--minutes 10] [--json result.json]
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import http.client
import json
import logging
import math
import os
import re
import secrets
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from line_latency import draw_frames
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from onspect.runtime.dashboard import Dashboard
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.line.build import queue_sinks
from onspect.runtime.line.memory import keep_memory_together
from onspect.runtime.model.file import read_model_file, stamp
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.registry import open_sinks
from onspect.runtime.sources.fake import FakeFault, FakeSource
from onspect.runtime.status import LineStatus

RATE = 30
EVERY = 5.0
TOPIC = "soak"
TOKEN = secrets.token_urlsafe()


class Broker:
    """A mosquitto that keeps its sessions over a restart."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if program is None:
            sys.exit("mosquitto is not installed (Debian: apt-get install mosquitto)")
        configuration = folder / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self._command = [program, "-c", str(configuration)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
            time.sleep(0.02)
        sys.exit("mosquitto does not listen")

    def stop(self) -> None:
        """Stop; what is not delivered yet stays on its disk."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


class Listener:
    """Receives the verdicts from the broker, over its restarts."""

    def __init__(self, port: int) -> None:
        self.indexes: list[int] = []
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
    """A sink that looks at each frame itself: whether one was passed that shows nothing, or nothing new."""

    def __init__(self) -> None:
        self.verdicts = 0
        self.wrongly_ok = 0
        self.latencies: list[float] = []
        self._previous: np.ndarray | None = None
        self._first: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is open."""

    def write(self, inspection: Inspection) -> None:
        """Look at one frame."""
        frame = inspection.frame
        self.verdicts += 1
        if inspection.verdict.verdict != "fault":
            self.latencies.append(inspection.verdict.latency_ms)
            repeated = frame is not None and self._previous is not None and np.array_equal(frame, self._previous)
            spoilt = frame is None or frame.max() < 13 or repeated
            self._first = self._first or (None if frame is None else frame.shape)
            spoilt |= frame is not None and frame.shape != self._first
            self.wrongly_ok += spoilt
        if frame is not None:
            self._previous = frame


class Dawdler(Sink):
    """A sink that sometimes takes its time."""

    delivery = "live"
    pictures = False

    def __init__(self) -> None:
        self.slow_until = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is open."""

    def write(self, _: Inspection) -> None:
        """Take one verdict, and a while for it."""
        if time.monotonic() < self.slow_until:
            time.sleep(0.3)


@contextmanager
def full_disk(file: Path) -> Iterator[None]:
    """Let no file grow beyond the size that this one has; without such limits, as on Windows, do nothing."""
    try:
        import resource
    except ImportError:
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(1, file.stat().st_size), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class LogCount(logging.Handler):
    """Counts how often the lines of the log repeat; those that differ in numbers only are equal."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, list[float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        self._times.setdefault(re.sub(r"\d+", "#", record.getMessage()), []).append(time.monotonic())

    def most(self) -> tuple[int, str]:
        """Return the highest number of equal lines within a minute, and the line."""
        counted = [
            (sum(start <= other < start + 60.0 for other in times), text)
            for text, times in self._times.items()
            for start in times
        ]
        return max(counted, default=(0, ""))


class FrameMaker:
    """Gives a camera's frames, for a while of another resolution."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self._frames = frames
        self.small_until = 0.0

    def __call__(self, number: int) -> np.ndarray:
        """Return a frame."""
        frame = self._frames[number % len(self._frames)]
        return np.ascontiguousarray(frame[: frame.shape[0] // 2]) if time.monotonic() < self.small_until else frame


class Saboteur:
    """Lets one thing after the other fail, in a thread, until it is told to stop."""

    def __init__(
        self,
        source: FakeSource,
        broker: Broker,
        dawdler: Dawdler,
        model: Path,
        folder: Path,
        maker: FrameMaker,
        line: Line,
        dashboard: Dashboard,
    ) -> None:
        self.done: dict[str, int] = {}
        self.broken: list[str] = []
        """Promises that were not kept."""
        self._line, self._dashboard = line, dashboard
        self._model, self._folder = model, folder
        self._good = [rename_model(model), model.read_bytes()]
        self._broker = broker
        self._stopped = threading.Event()
        lost, frozen = FakeFault("lost", seconds=1.5), FakeFault("frozen", frames=45)
        self._acts: dict[str, Callable[[], object]] = {
            "camera lost for 1.5 s": lambda: source.inject(lost),
            "picture stands still for 1.5 s": lambda: source.inject(frozen),
            "15 black frames": lambda: source.inject(FakeFault("black", frames=15)),
            "3 damaged frames": lambda: source.inject(FakeFault("corrupt", frames=3)),
            "read hangs": lambda: source.inject(FakeFault("hang", seconds=3.0)),
            "broker down for 3 s": self._stop_broker,
            "disk full for 2 s": self._fill_disk,
            "resolution changed for 1 s": lambda: setattr(maker, "small_until", time.monotonic() + 1.0),
            "evidence cannot be written for 2 s": self._block_evidence,
            "threshold moved, model file touched": self._touch_model,
            "threshold moved, model exchanged": self._exchange_model,
            "model with other channels": self._put_other_channels,
            "300 half-open connections": self._flood,
            "five wrong tokens": self._guess,
            "bad model file": self._put_bad_model,
            "sink slow for 3 s": lambda: setattr(dawdler, "slow_until", time.monotonic() + 3.0),
        }
        self._thread = threading.Thread(target=self._work, name="saboteur")
        self._thread.start()

    def stop(self) -> None:
        """Finish what was begun, and end."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        for name in cycle(self._acts):
            if self._stopped.wait(EVERY):
                return
            self.done[name] = self.done.get(name, 0)
            self._acts[name]()
            self.done[name] += 1

    def _stop_broker(self) -> None:
        self._broker.stop()
        time.sleep(3.0)
        self._broker.start()

    def _fill_disk(self) -> None:
        with full_disk(self._folder / "verdicts.jsonl"):
            time.sleep(2.0)

    def _block_evidence(self) -> None:
        folder, aside = self._folder / "evidence" / "ok", self._folder / "aside"
        if folder.exists() and sys.platform == "linux":
            aside.write_bytes(b"")
            exchange(folder, aside)  # in one step: the sink would make a missing folder anew
            time.sleep(2.0)
            exchange(folder, aside)
            aside.unlink()

    def _touch_model(self) -> None:
        """Move the threshold and touch the file: the move must hold, and can be taken back."""
        before = self._line.status().threshold
        self._line.set_threshold(1.5 * before)
        time.sleep(0.5)
        os.utime(self._model)
        self._line.reload()
        time.sleep(3.0)
        if not math.isclose(self._line.status().threshold, 1.5 * before):
            self.broken.append("a moved threshold did not hold when its file was touched")
        self._line.undo_threshold()

    def _exchange_model(self) -> None:
        """Move the threshold and exchange the file: the move must be dropped aloud."""
        self._line.set_threshold(1.5 * self._line.status().threshold)
        time.sleep(0.5)
        self._put_model(self._good[self.done.get("threshold moved, model exchanged", 0) % 2])
        time.sleep(3.0)
        status = self._line.status()
        if status.moved is not None or "dropped" not in status.message:
            self.broken.append(f"a moved threshold was not dropped aloud: {status.message}")

    def _put_other_channels(self) -> None:
        good = self._model.read_bytes()
        file = read_model_file(self._model)
        preprocess = dataclasses.replace(file.info.preprocess, channels=4 - file.info.preprocess.channels)
        self._put_model(stamp(file.data, dataclasses.replace(file.info, preprocess=preprocess), file.training_images))
        time.sleep(2.0)
        self._put_model(good)

    def _flood(self) -> None:
        port = int(self._dashboard.url.rstrip("/").rpartition(":")[2])
        with ExitStack() as stack:
            for _ in range(300):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), 1.0))
            self._ask(port, "GET", "/", None, 200)

    def _guess(self) -> None:
        port = int(self._dashboard.url.rstrip("/").rpartition(":")[2])
        for number in range(5):
            self._ask(port, "POST", "/login", {"token": f"wrong-token-{number}"}, 401)
        self._ask(port, "POST", "/login", {"token": TOKEN}, 200)

    def _ask(self, port: int, method: str, path: str, content: object, expected: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"Content-Type": "application/json"} if content else {}
        try:
            connection.request(method, path, json.dumps(content) if content else None, headers)
            status: int | str = connection.getresponse().status
        except OSError as error:
            status = repr(error)
        finally:
            connection.close()
        if status != expected:
            self.broken.append(f"{method} {path} of the dashboard: {status} instead of {expected}")

    def _put_model(self, data: bytes) -> None:
        temporary = self._model.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.replace(self._model)

    def _put_bad_model(self) -> None:
        good = self._model.read_bytes()
        self._put_model(good[: len(good) // 2])
        time.sleep(2.0)
        self._put_model(good)


def exchange(one: Path, other: Path) -> None:
    """Let two paths change places in one step."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(here, bytes(one), here, bytes(other), swap):
        raise OSError(ctypes.get_errno(), f"cannot exchange {str(one)!r} and {str(other)!r}")


def rename_model(path: Path) -> bytes:
    """Return a model file like this one under another name, as a new training would bring."""
    file = read_model_file(path)
    return stamp(file.data, dataclasses.replace(file.info, name=f"{file.info.name}-2"), file.training_images)


def run_line(line: Line, seconds: float) -> tuple[LineStatus, list[float]]:
    """Run a line for so long, and return its last status and the memory of each second, in MiB."""
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
    """Run the line and its sabotage; return what was counted."""
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
    saboteur = Saboteur(source, broker, dawdler, model, folder, maker, line, dashboard)
    stopper = threading.Timer(minutes * 60.0 - 10.0, saboteur.stop)  # the last seconds are quiet
    stopper.start()
    status, memory = run_line(line, minutes * 60.0)
    stopper.join()
    for _ in range(100):  # what the broker has is on its way
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
    """Return what must hold, and whether it does."""
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
    print("  ".join(f"{name} {status[name]}" for name in ("ok", "ng", "review", "fault", "swaps", "reconnects")))
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
