"""How much do many lines cost a broker and `onspect fleet`?

Starts mosquitto on loopback, and a process that publishes the messages of many lines: each status about once a second,
every fifth one also on ``last``, in the size of a line with one camera and three sinks; and verdicts at the given rate.
Then it calls ``onspect fleet status --json``. Prints messages and bytes a second, the broker's share of a processor,
and the time of the answer. One connection publishes for all lines, so the cost of 500 connections is not included.
Needs onspect[cpu,mqtt] and mosquitto (Debian: apt-get install mosquitto).

    python benchmarks/fleet.py [--lines 500] [--parts 2] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict, now
from onspect.runtime.sinks.mqtt import FORMAT
from onspect.runtime.status import Latency, LineStatus, SinkState, SourceState

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))

SETTLE_S, MEASURE_S = 3.0, 10.0
_SLOTS = 20  # of a second, over which the lines are spread


def main() -> None:
    """Publish, measure, ask, and print the table."""
    from services import Broker

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--parts", type=float, default=2.0, help="a second and line")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder)) as broker:
        crowd = Crowd(broker.port, given.lines, given.parts)
        crowd.start()
        time.sleep(SETTLE_S)
        assert broker._process is not None
        before, sent, size, began = busy(broker._process.pid), crowd.messages, crowd.bytes, time.monotonic()
        time.sleep(MEASURE_S)
        seconds = time.monotonic() - began
        share = (busy(broker._process.pid) - before) / seconds
        rates = ((crowd.messages - sent) / seconds, (crowd.bytes - size) / seconds)
        began = time.monotonic()
        command = [sys.executable, "-m", "onspect.runtime", "fleet", "status", f"mqtt://127.0.0.1:{broker.port}/plant"]
        answer = subprocess.run([*command, "--json"], check=True, capture_output=True, timeout=60).stdout
        asked = time.monotonic() - began
        crowd.stop()
    lines = json.loads(answer)["lines"]
    result = {
        "lines": given.lines,
        "status_bytes": len(crowd.status(0)),
        "verdict_bytes": len(crowd.verdict()),
        "messages_per_second": rates[0],
        "bytes_per_second": rates[1],
        "broker_processors": share,
        "seconds_to_answer": asked,
        "lines_running": sum(line["state"] == "running" for line in lines),
    }
    for name, value in result.items():
        print(f"{name.replace('_', ' '):<22}{value:>14,.2f}" if isinstance(value, float) else f"{name:<22}{value:>14,}")
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


class Crowd(threading.Thread):
    """Publishes for many lines, evenly over each second."""

    def __init__(self, port: int, lines: int, parts: float) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        super().__init__(daemon=True)
        self.messages = self.bytes = 0
        self._lines, self._parts = lines, parts
        self._over = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(1000)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def run(self) -> None:
        """Publish until it is stopped."""
        began, slot = time.monotonic(), 0
        while not self._over.is_set():
            second, share = divmod(slot, _SLOTS)
            for line in range(share, self._lines, _SLOTS):
                self._speak(line, second)
            slot += 1
            time.sleep(max(0.0, began + slot / _SLOTS - time.monotonic()))

    def _speak(self, line: int, second: int) -> None:
        """Publish the messages of a line in a second."""
        self._publish(f"{line}/status", self.status(second), retain=True)
        if second % 5 == 0:
            self._publish(f"{line}/last", self.status(second), retain=True)
        for _ in range(int((second + 1) * self._parts) - int(second * self._parts)):
            self._publish(f"{line}/verdict", self.verdict(), retain=False)

    def stop(self) -> None:
        """End, and disconnect."""
        self._over.set()
        self.join()
        self._client.disconnect()
        self._client.loop_stop()

    def status(self, second: int) -> bytes:
        """Return a status message of a usual size."""
        status = LineStatus(
            now(),
            now(),
            True,
            "part@0123456789ab",
            None,
            2.5,
            None,
            captured=second * 2,
            judged=second * 2,
            ok=second * 2,
            sources=(SourceState("rtsp://10.0.0.5/stream", True),),
            sinks=tuple(
                SinkState(name, second) for name in ("sqlite:line.db", "evidence:out", "mqtt://broker/plant/1")
            ),
            latency=Latency(8.5, 9.1, 14.2, 20.0, 1000),
        )
        return json.dumps({"format": FORMAT, "online": True} | status.to_dict()).encode()

    def verdict(self) -> bytes:
        """Return a verdict with one region, as a line publishes it."""
        region = Region(100, 200, 30, 40, 0.751234, 812)
        facts: dict[str, Any] = {"regions": (region,), "latency_ms": 8.5, "model": "part@0123456789ab"}
        return Verdict("rtsp://10.0.0.5/stream", 123456, now(), "ok", 0.2512345, 2.5, **facts).to_json().encode()

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._client.publish(f"plant/{topic}", payload, qos=1, retain=retain)
        self.messages += 1
        self.bytes += len(payload) + len(topic) + 12


def busy(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
