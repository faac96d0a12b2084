"""The spool in files beside the smallest one on SQLite: speed, bytes written, kills, and a full disk.

Both have the same promises: first in, first out; a process that is killed loses no verdict; a power cut loses the
last second or less. SQLite has a write-ahead log and ``synchronous=NORMAL``, which wait for the disk at checkpoints
alone. Prints a table and, with --json, writes it. Needs onspect[cpu] and Linux.

    python benchmarks/spool.py [--verdicts 20000] [--kills 50] [--json result.json]
"""

from __future__ import annotations

import argparse
import inspect
import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from lines import count_lines

from onspect.runtime.errors import OutputError
from onspect.runtime.sinks.delivery import spool as files

LINE = json.dumps({"source": "rtsp://10.0.0.5/stream", "index": 0, "reason": "x" * 280}).encode()
"""A line as long as a usual verdict."""

BATCH = 10
"""Lines that are read and removed at once."""

WAITING = 10_000
"""Lines in a spool that is opened."""


@dataclass(frozen=True)
class Rows:
    """Lines of the database, and the number of the last one."""

    lines: tuple[bytes, ...]
    last: int


class SqliteSpool:
    """The smallest spool on SQLite with the same promises."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool.db"

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS lines (number INTEGER PRIMARY KEY, line BLOB)")
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM lines").fetchone()[0])

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines at the end, in one transaction."""
        with self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT INTO lines (line) VALUES (?)", [(line,) for line in lines])

    def read(self, count: int) -> Rows:
        """Return the oldest lines; each call returns them again until `advance` removes them."""
        rows = self._connection.execute("SELECT number, line FROM lines ORDER BY number LIMIT ?", (count,)).fetchall()
        return Rows(tuple(bytes(line) for _, line in rows), rows[-1][0] if rows else 0)

    def advance(self, rows: Rows) -> None:
        """Remove delivered lines."""
        self._connection.execute("DELETE FROM lines WHERE number <= ?", (rows.last,))


KINDS: dict[str, Any] = {"files": files.Spool, "sqlite": SqliteSpool}


def take(queue: Any, count: int) -> tuple[bytes, ...]:
    """Read the oldest lines and remove them."""
    piece = queue.read(count)
    if piece.lines:
        queue.advance(piece)
    return tuple(piece.lines)


def measure_speed(kind: str, verdicts: int) -> dict[str, float]:
    """Put verdicts one by one and take them in batches; return verdicts per second and bytes written for each."""
    with tempfile.TemporaryDirectory() as name, KINDS[kind](Path(name) / "spool") as queue:
        before, started = _written(), time.perf_counter()
        for number in range(verdicts):
            queue.append([LINE])
            if number % BATCH == BATCH - 1:
                take(queue, BATCH)
        seconds = time.perf_counter() - started
        return {"verdicts a second": verdicts / seconds, "bytes written a verdict": (_written() - before) / verdicts}


def measure_opening(kind: str) -> dict[str, float]:
    """Return the milliseconds to open a spool with waiting lines; the smallest of five."""
    with tempfile.TemporaryDirectory() as name:
        with KINDS[kind](Path(name) / "spool") as queue:
            queue.append([LINE] * WAITING)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            with KINDS[kind](Path(name) / "spool") as queue:
                times.append(1000.0 * (time.perf_counter() - started))
                assert len(queue) == WAITING
    return {f"ms to open with {WAITING:,} waiting": min(times)}


def work(kind: str, folder: Path, first: int) -> None:
    """Put numbered lines and deliver two of three by printing them, until the process is killed."""
    with KINDS[kind](folder) as queue:
        for number in range(first, sys.maxsize):
            queue.append([b"%d" % number])
            print("put", number, flush=True)
            if number % 3:
                piece = queue.read(1)
                print("took", piece.lines[0].decode(), flush=True)
                queue.advance(piece)


def measure_kills(kind: str, kills: int) -> dict[str, float]:
    """Kill a process that uses the spool, again and again; return how many lines are lost and how many come twice."""
    rng = np.random.default_rng(0)
    put: set[int] = set()
    taken: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spool"
        for kill in range(kills):
            command = [sys.executable, __file__, "--work", kind, str(folder), str(kill * 1_000_000)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                said = [process.stdout.readline()]
                time.sleep(rng.uniform(0.005, 0.1))
                process.send_signal(signal.SIGKILL)
                said += process.stdout.readlines()
            words = [line.split() for line in said if line.endswith(b"\n")]
            put.update(int(number) for word, number in words if word == b"put")
            taken += [int(number) for word, number in words if word == b"took"]
        with KINDS[kind](folder) as queue:
            while lines := take(queue, 1000):
                taken += [int(line) for line in lines]
    return {
        "lines put": len(put),
        f"lost by {kills} kills": len(put - set(taken)),
        f"delivered twice by {kills} kills": len(taken) - len(set(taken)),
    }


def fill(kind: str, folder: Path) -> None:
    """Put lines until the disk is full, take all of them, and open the spool again. Print what worked."""
    found: dict[str, Any] = {"accepted": 0, "delivered": 0, "opened again": "no"}
    trouble = (OSError, sqlite3.Error, OutputError)
    try:
        with KINDS[kind](folder) as queue:
            with suppress(*trouble):
                while not getattr(queue, "held", 0):  # files keep a line in memory that the disk does not accept
                    queue.append([LINE])
                    found["accepted"] += 1
            while lines := take(queue, BATCH):
                found["delivered"] += len(lines)
    except trouble as error:
        found["error"] = str(error)
    with suppress(*trouble), KINDS[kind](folder) as queue:
        queue.append([LINE])
        found["opened again"] = "yes"
    print(json.dumps(found))


def measure_full_disk(kind: str) -> dict[str, Any]:
    """Return what a spool does on a disk of 16 MB, a file system in memory that only a child process sees."""
    with tempfile.TemporaryDirectory() as name:
        child = [sys.executable, __file__, "--fill", kind, f"{name}/spool"]
        mount = f"mount -t tmpfs -o size=16m tmpfs {shlex.quote(name)} && exec {shlex.join(child)}"
        command = ["unshare", "-rm", "sh", "-c", mount]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {"error": done.stderr.strip()}


def measure(kind: str, verdicts: int, kills: int) -> dict[str, Any]:
    """Return all figures of one kind."""
    code = inspect.getsource(files.Spool if kind == "files" else SqliteSpool)
    return {
        **measure_speed(kind, verdicts),
        **measure_opening(kind),
        **measure_kills(kind, kills),
        **{f"full disk: {name}": value for name, value in measure_full_disk(kind).items()},
        "lines of code of the class": count_lines(code),
    }


def _written() -> int:
    """Return the bytes that this process gave to write calls."""
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def main() -> None:
    """Measure both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=20_000, help="verdicts of the speed test")
    parser.add_argument("--kills", type=int, default=50, help="number of kills")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--fill", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]), int(options.work[2]))
    elif options.fill:
        fill(options.fill[0], Path(options.fill[1]))
    else:
        found = {kind: measure(kind, options.verdicts, options.kills) for kind in KINDS}
        print(f"{'':<42} {'files':>12} {'SQLite':>12}")
        for name in dict.fromkeys(name for figures in found.values() for name in figures):
            print(f"{name:<42} {_show(found['files'].get(name)):>12} {_show(found['sqlite'].get(name)):>12}")
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2))


def _show(value: Any) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str("-" if value is None else value)


if __name__ == "__main__":
    main()
