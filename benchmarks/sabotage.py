"""The failures around a line in `soak.py`, one after the other."""

from __future__ import annotations

import ctypes
import dataclasses
import http.client
import json
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path

import numpy as np

from onspect.runtime.dashboard import Dashboard
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.line import Line
from onspect.runtime.model.file import read_model_file, stamp
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.evidence import GOES_FIRST
from onspect.runtime.sources.fake import FakeFault, FakeSource

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))
from services import Broker

EVERY_S = 5.0
TOKEN = secrets.token_urlsafe()


class FrameMaker:
    """Gives a camera's frames, for a while in another resolution."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self._frames = frames
        self.small_until = 0.0

    def __call__(self, number: int) -> np.ndarray:
        """Return a frame."""
        frame = self._frames[number % len(self._frames)]
        return np.ascontiguousarray(frame[: frame.shape[0] // 2]) if time.monotonic() < self.small_until else frame


class Dawdler(Sink):
    """A sink that is sometimes slow."""

    delivery = "live"
    pictures = False

    def __init__(self) -> None:
        self.slow_until = 0.0

    def write(self, _: Inspection) -> None:
        """Accept one verdict slowly."""
        if time.monotonic() < self.slow_until:
            time.sleep(0.3)


class Saboteur:
    """Causes one failure after the other, in a thread, until it is stopped.

    folder: of the line's model ``part.onnx``, its records ``verdicts.jsonl`` and its pictures ``evidence``.
    """

    def __init__(
        self,
        folder: Path,
        line: Line,
        dashboard: Dashboard,
        source: FakeSource,
        maker: FrameMaker,
        broker: Broker,
        dawdler: Dawdler,
    ) -> None:
        self.done: dict[str, int] = {}
        self.broken: list[str] = []
        """Promises that were not kept."""
        self._folder, self._line, self._broker = folder, line, broker
        self._model = folder / "part.onnx"
        self._good = [rename_model(self._model), self._model.read_bytes()]
        self._dashboard = dashboard
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
        """Finish the current failure, and end."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        for name in cycle(self._acts):
            if self._stopped.wait(EVERY_S):
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
        folder, aside = self._folder / "evidence" / GOES_FIRST[0], self._folder / "aside"
        if folder.exists() and sys.platform == "linux":
            aside.write_bytes(b"")
            exchange(folder, aside)  # in one step: the sink would create a missing folder again
            time.sleep(2.0)
            exchange(folder, aside)
            aside.unlink()

    def _touch_model(self) -> None:
        """Move the threshold and touch the file: the move must stay, and can be undone."""
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
        """Move the threshold and replace the file: the move must be dropped with a message."""
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
        recipe = dataclasses.replace(file.info.preprocess, channels=4 - file.info.preprocess.channels)
        self._put_model(stamp(file.data, dataclasses.replace(file.info, preprocess=recipe), file.training_images))
        time.sleep(2.0)
        self._put_model(good)

    def _flood(self) -> None:
        with ExitStack() as stack:
            for _ in range(300):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", self._port), 1.0))
            self._ask("GET", "/", None, 200)

    def _guess(self) -> None:
        for number in range(5):
            self._ask("POST", "/login", {"token": f"wrong-token-{number}"}, 401)
        self._ask("POST", "/login", {"token": TOKEN}, 200)

    @property
    def _port(self) -> int:
        return int(self._dashboard.url.rstrip("/").rpartition(":")[2])

    def _ask(self, method: str, path: str, content: object, expected: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
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


@contextmanager
def full_disk(file: Path) -> Iterator[None]:
    """Limit the size of all files to that of this one; do nothing on systems without such limits, as Windows."""
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


def exchange(one: Path, other: Path) -> None:
    """Exchange two paths in one step."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(here, bytes(one), here, bytes(other), swap):
        raise OSError(ctypes.get_errno(), f"cannot exchange {str(one)!r} and {str(other)!r}")


def rename_model(path: Path) -> bytes:
    """Return a model file like this one under another name, as a new training would bring."""
    file = read_model_file(path)
    return stamp(file.data, dataclasses.replace(file.info, name=f"{file.info.name}-2"), file.training_images)
