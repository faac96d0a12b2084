"""Does a line keep its rate while many slow clients and many requests use its dashboard?

A fake camera gives 640x480 frames at 30 a second to a line with a dashboard and JSONL. For ten seconds there is no
client. Then another process opens 300 connections that send one byte of a request a second, and requests the page, the
rejects and the last picture 5,000 times. The line must keep its rate within 3%, lose no frame, and repeat no line of
its log more than ten times a minute. Every request must be answered. Prints both times, and exits with 1 if a condition
fails. Needs onspect[cpu,web,dev] (for the functions shared with soak.py).

    python benchmarks/dashboard_load.py part.onnx [--clients 300] [--requests 5000]
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
from line_latency import draw_frames
from soak import RATE, LogCount

from onspect.runtime.dashboard import Dashboard
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.line.build import queue_sinks
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.registry import open_sinks
from onspect.runtime.sources.fake import FakeSource

_CLIENT = """
import http.client, socket, sys, threading, time
port, clients, requests = map(int, sys.argv[1:])
done = threading.Event()
def be_slow():
    while not done.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
                for letter in b"GET /events HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nX-Slow: " + b"x" * 1000:
                    connection.sendall(bytes([letter]))
                    if done.wait(1.0):
                        return
        except OSError:
            done.wait(1.0)
threads = [threading.Thread(target=be_slow) for _ in range(clients)]
for thread in threads:
    thread.start()
time.sleep(1.0)
answered, started = 0, time.perf_counter()
for number in range(requests):
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", ("/", "/rejects", "/picture")[number % 3])
            answered += connection.getresponse().status in (200, 204)
            break
        except OSError:
            continue
        finally:
            connection.close()
print(answered, time.perf_counter() - started)
done.set()
"""


class Latencies(Sink):
    """Keeps when each verdict came and how long it took, in milliseconds."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is open."""

    def write(self, inspection: Inspection) -> None:
        """Take one verdict."""
        self.seen.append((time.monotonic(), inspection.verdict.latency_ms))

    def describe(self, start: float, end: float) -> tuple[float, float, float]:
        """Return verdicts a second between two moments, and the median and p99 of their latencies."""
        found = [latency for came, latency in self.seen if start <= came < end]
        p50, p99 = np.percentile(found, [50, 99])
        return len(found) / (end - start), float(p50), float(p99)


def main() -> None:
    """Load the dashboard, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--requests", type=int, default=5000)
    arguments = parser.parse_args()
    log, latencies = LogCount(), Latencies()
    for name in ("onspect", "asyncio", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [log], False
    with tempfile.TemporaryDirectory() as folder:
        frames = draw_frames(Inspector(arguments.model), None)
        texts = [f"jsonl:{folder}/verdicts.jsonl"]
        dashboard = Dashboard("127.0.0.1:0")
        line = Line(
            Models({None: arguments.model}, None, Inspector, Health()),
            [FakeSource(lambda number: frames[number % len(frames)], rate=RATE)],
            [
                *queue_sinks(list(zip(texts, open_sinks(texts, append=True), strict=True)), Path(folder), live=True),
                dashboard,
                latencies,
            ],
        )
        thread = threading.Thread(target=line.run)
        thread.start()
        time.sleep(12.0)
        quiet = latencies.describe(time.monotonic() - 10.0, time.monotonic())
        started = time.monotonic()
        port = dashboard.url.rstrip("/").rpartition(":")[2]
        facts = [port, str(arguments.clients), str(arguments.requests)]
        client = subprocess.run(
            [sys.executable, "-c", _CLIENT, *facts], capture_output=True, text=True, check=True, timeout=500
        )
        busy = latencies.describe(started, time.monotonic())
        line.stop()
        thread.join()
    status = line.status()
    answered, seconds = client.stdout.split()
    for name, (rate, p50, p99) in (("nobody looks", quiet), ("under load", busy)):
        print(f"{name:<14} {rate:6.2f} verdicts a second, latency p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    repeats, text = log.most()
    print(
        f"{answered} of {arguments.requests} requests answered in {float(seconds):.1f} s; {arguments.clients} clients"
    )
    print(f"captured {status.captured}  judged {status.judged}  dropped {status.dropped}  faulted {status.faulted}")
    print(f"most repeated line of the log: {repeats} times in a minute: {text}")
    accounted = status.captured == status.judged + status.dropped + status.faulted
    kept = busy[0] > 0.97 * quiet[0]
    if not (accounted and kept and repeats <= 10 and int(answered) == arguments.requests):
        sys.exit(1)


if __name__ == "__main__":
    main()
