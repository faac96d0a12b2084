"""Does a receiver ever get a part that the record lacks? A line is killed with kill -9 at random moments.

Runs a line with its own camera (100 frames/s), JSONL, SQLite, MQTT and Modbus, and kills it repeatedly. After each kill
it compares the messages of the MQTT subscriber and the PLC with JSONL and SQLite. A last run ends normally; then
everything on record must have arrived over MQTT. Prints a table, writes JSON, and exits with 1 if a promise was broken.
Needs onspect[cpu,dev], a calibrated model, and mosquitto (Debian: apt-get install mosquitto).

    python benchmarks/kill.py part.onnx [--kills 50] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "runtime"))

RATE = 100.0
Key = tuple[str, int]
"""A verdict's source, which names the run, and its index in it."""


@dataclass
class Tally:
    """Counts of the kills; all between `kills` and the last three must be 0.

    never_sent: in JSONL and SQLite, and not received over MQTT in the end. recorded: in both.
    """

    kills: int = 0
    unreadable_lines: int = 0
    damaged_databases: int = 0
    mqtt_not_in_jsonl: int = 0
    mqtt_not_in_sqlite: int = 0
    plc_not_in_jsonl: int = 0
    plc_not_in_sqlite: int = 0
    out_of_order: int = 0
    never_sent: int = 0
    recorded: int = 0
    told_plc: int = 0
    sent_twice: int = 0

    @property
    def broken(self) -> bool:
        """Whether a promise was broken."""
        facts = asdict(self)
        return any(facts[name] for name in facts if name not in ("kills", "recorded", "told_plc", "sent_twice"))


def run_line(model: Path, folder: Path, run: int, broker: int, plc: int, frames: int | None) -> None:
    """Run the line until it is killed, or the given number of frames has come. This is the process to kill."""
    from onspect.runtime import Inspector, read_model_info
    from onspect.runtime.line import Line, Models
    from onspect.runtime.line.build import queue_sinks
    from onspect.runtime.sinks.registry import open_sinks
    from onspect.runtime.sources.fake import FakeSource

    texts = [
        f"mqtt://127.0.0.1:{broker}/kill",
        f"modbus://127.0.0.1:{plc}?unit=7",
        f"jsonl:{folder}/verdicts.jsonl",
        f"sqlite:{folder}/history.db",
    ]
    preprocess, noise = read_model_info(model).preprocess, np.random.default_rng(run)
    shape = (preprocess.height, preprocess.width, 3)[: 2 if preprocess.channels == 1 else 3]
    source = FakeSource(
        lambda _: noise.integers(0, 256, shape, np.uint8), count=frames, rate=RATE, name=f"run {run}", patience=None
    )
    queued = queue_sinks(list(zip(texts, open_sinks(texts, append=True), strict=True)), folder / "spool", live=True)
    models = Models({None: model}, None, lambda path: Inspector(path, provider="cpu"))
    Line(models, [source], queued).run()


def read_jsonl(path: Path, tally: Tally) -> set[Key]:
    """Return the verdicts in a file. A last line without an end was never sent to anybody."""
    keys = set()
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            content = json.loads(line)
            keys.add((content["source"], content["index"]))
        except ValueError:
            tally.unreadable_lines += 1
    return keys


def read_sqlite(path: Path, tally: Tally) -> set[Key]:
    """Return the verdicts in a database."""
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            tally.damaged_databases += 1
        return set(connection.execute('SELECT source, "index" FROM verdicts'))


def listen(port: int, received: list[Key]) -> object:
    """Return a client that keeps the verdicts it receives, in order; the broker sends earlier ones again."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)

    def keep(_client: object, _data: object, message: object) -> None:
        content = json.loads(message.payload)  # type: ignore[attr-defined]
        received.append((content["source"], content["index"]))

    client.on_message = keep
    client.connect("127.0.0.1", port)
    client.subscribe("kill/verdict", qos=1)
    client.loop_start()
    return client


def told_plc(writes: list[tuple[int, list[int]]], run: int) -> set[Key]:
    """Return the parts of a run that the PLC received: the n-th part has the index n - 1."""
    counts = [(values[0] << 16) + values[1] for _, values in writes if len(values) == 16]
    return {(f"run {run}", count - 1) for count in counts}


def is_in_order(received: list[Key]) -> bool:
    """Return whether the first copies of each run's verdicts came in order."""
    first = list(dict.fromkeys(received))
    runs = {source for source, _ in first}
    return all(one == sorted(one) for one in ([i for source, i in first if source == run] for run in runs))


def main() -> None:
    """Kill the line repeatedly, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, run, broker, plc, frames = arguments.child
        run_line(arguments.model, Path(folder), int(run), int(broker), int(plc), int(frames) or None)
        return
    tally = measure(arguments.model.absolute(), arguments.kills, random.Random(arguments.seed))  # noqa: S311 - moments, no secrets
    for name, value in asdict(tally).items():
        print(f"{name.replace('_', ' '):<22}{value:>8}")
    print("a promise was BROKEN" if tally.broken else "every promise was kept")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(tally), indent=2) + "\n")
    sys.exit(int(tally.broken))


def measure(model: Path, kills: int, chance: random.Random) -> Tally:
    """Run and kill a line this number of times, then let one run end, and count."""
    from services import Broker, Plc  # the process that the tests start

    tally = Tally(kills=kills)
    received: list[Key] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker, plc = stack.enter_context(Broker(folder)), stack.enter_context(Plc())
        client = listen(broker.port, received)
        told: set[Key] = set()
        for run in range(kills + 1):
            begun = len(plc.writes)
            frames = 0 if run < kills else 100
            facts = [str(folder), str(run), str(broker.port), str(plc.port), str(frames)]
            process = subprocess.Popen([sys.executable, __file__, str(model), "--child", *facts])
            if run < kills:
                wait_for_part(plc.writes, begun, process)
                time.sleep(chance.uniform(0.0, 0.5))
                os.kill(process.pid, signal.SIGKILL)
            process.wait(120)
            time.sleep(0.2)
            told |= told_plc(plc.writes[begun:], run)
            check(folder, received, told, tally)
            if run % 10 == 9:
                print(f"{run + 1} kills, {len(received)} messages, {len(told)} parts told to the PLC", file=sys.stderr)
        recorded = read_jsonl(folder / "verdicts.jsonl", Tally()) & read_sqlite(folder / "history.db", Tally())
        end = time.monotonic() + 10
        while recorded - set(received) and time.monotonic() < end:
            time.sleep(0.1)
        client.disconnect()  # type: ignore[attr-defined]
        client.loop_stop()  # type: ignore[attr-defined]
        tally.recorded, tally.told_plc = len(recorded), len(told)
        tally.never_sent = len(recorded - set(received))
        tally.sent_twice = len(received) - len(set(received))
        tally.out_of_order = int(not is_in_order(received))
    return tally


def wait_for_part(writes: list[tuple[int, list[int]]], begun: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the PLC has received the first part."""
    end = time.monotonic() + 60
    while len(writes) <= begun:
        if process.poll() is not None or time.monotonic() > end:
            sys.exit("the line ended by itself, or told the PLC nothing; its messages stand above")
        time.sleep(0.005)


def check(folder: Path, received: list[Key], told: set[Key], tally: Tally) -> None:
    """Compare the received messages with the record."""
    sent = set(received)
    jsonl = read_jsonl(folder / "verdicts.jsonl", tally)
    sqlite = read_sqlite(folder / "history.db", tally)
    tally.mqtt_not_in_jsonl = max(tally.mqtt_not_in_jsonl, len(sent - jsonl))
    tally.mqtt_not_in_sqlite = max(tally.mqtt_not_in_sqlite, len(sent - sqlite))
    tally.plc_not_in_jsonl = max(tally.plc_not_in_jsonl, len(told - jsonl))
    tally.plc_not_in_sqlite = max(tally.plc_not_in_sqlite, len(told - sqlite))


if __name__ == "__main__":
    main()
