"""How much does a camera line add to the bare model, from frame to verdict?

A fake camera gives 640x480 frames at 30 a second to a line with JSONL and SQLite sinks. In turns with it, the same
model runs bare at the same pace, because a core that was idle runs slower. Then the camera gives twice the rate that
can be judged. Prints percentiles, the overhead, the latency under overload, and the processor time of the whole line as
a share of frame rate times service time. Exits with 1 if one is above its limit: 0.5 ms at the median, a p99 of twice
the median, 1.15 times the processor time, and two service times under overload. The load of other programs is printed
too. The model must accept frames of 640x480, mono or colour. Needs onspect[cpu,dev].

    python benchmarks/line_latency.py part.onnx [--image part.png] [--seconds 10] [--turns 3] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from onspect.runtime.images.decode import quieten_opencv, read_image
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.line.build import queue_sinks
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.registry import open_sinks
from onspect.runtime.sources.fake import FakeSource

RATE = 30
SIZE = (640, 480)


class Latencies(Sink):
    """A sink that keeps each verdict's latency, in milliseconds."""

    pictures = False

    def __init__(self) -> None:
        self.values: list[float] = []
        self.verdicts: dict[str, int] = {}

    def __enter__(self) -> Latencies:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is open."""

    def write(self, inspection: Inspection) -> None:
        """Keep one latency."""
        self.values.append(inspection.verdict.latency_ms)
        name = inspection.verdict.verdict
        self.verdicts[name] = self.verdicts.get(name, 0) + 1


def draw_frames(inspector: Inspector, image: Path | None) -> list[np.ndarray]:
    """Return frames of 640x480 with different noise."""
    channels = inspector.info.preprocess.source.channels
    random = np.random.default_rng(0)
    base = np.full(SIZE[::-1], 128, np.uint8) if image is None else read_image(image)
    if base.ndim == 3 and 3 not in channels:
        base = cv2.cvtColor(base, cv2.COLOR_BGR2GRAY)
    if base.ndim == 2 and 1 not in channels:
        base = cv2.cvtColor(base, cv2.COLOR_GRAY2BGR)
    base = cv2.resize(base, SIZE).astype(np.int16)
    return [np.clip(base + random.integers(-4, 5, base.shape), 0, 255).astype(np.uint8) for _ in range(16)]


def time_line(
    model: Path, frames: list[np.ndarray], seconds: float, folder: Path, rate: float = RATE
) -> tuple[Latencies, float]:
    """Return the latencies of a line with JSONL and SQLite, and its processor seconds a second from start to end.

    Each frame is new, as a camera's is.
    """
    latencies = Latencies()
    texts = [f"jsonl:{folder / 'verdicts.jsonl'}", f"sqlite:{folder / 'verdicts.db'}"]
    named: list[tuple[str, Sink]] = list(zip(texts, open_sinks(texts, append=True), strict=True))
    source = FakeSource(lambda number: frames[number % len(frames)].copy(), count=int(seconds * rate), rate=rate)
    models = Models({None: model}, None, Inspector, Health())
    sinks = [*queue_sinks(named, folder / "spool", live=True), latencies]
    line = Line(models, [source], sinks)
    started, busy = time.perf_counter(), time.process_time()
    line.run()
    return latencies, (time.process_time() - busy) / (time.perf_counter() - started)


def time_bare(inspector: Inspector, frames: list[np.ndarray], seconds: float) -> list[float]:
    """Return the durations of the bare model at the same pace, in milliseconds."""
    batches = [inspector.prepare(frame)[None] for frame in frames]
    durations = []
    due = time.perf_counter()
    for number in range(int(seconds * RATE)):
        due += 1 / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        inspector.run(batches[number % len(batches)])
        durations.append((time.perf_counter() - started) * 1000.0)
    return durations


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--image", type=Path, help="a good part; grey where it is left out")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quieten_opencv()
    inspector = Inspector(arguments.model)
    frames = draw_frames(inspector, arguments.image)
    line, bare, busy = [], [], []
    verdicts: dict[str, int] = {}
    others = measure_others()
    for _ in range(arguments.turns):
        with tempfile.TemporaryDirectory() as folder:
            latencies, share = time_line(arguments.model, frames, arguments.seconds, Path(folder))
        line += latencies.values[RATE:]  # the first second warms up
        busy.append(share)
        verdicts |= {name: verdicts.get(name, 0) + count for name, count in latencies.verdicts.items()}
        bare += time_bare(inspector, frames, arguments.seconds)[RATE:]
    service = float(np.median(line))
    with tempfile.TemporaryDirectory() as folder:
        overload, _ = time_line(arguments.model, frames, arguments.seconds, Path(folder), 2000.0 / service)
    percentiles = {
        name: dict(zip(("p50", "p95", "p99", "worst"), np.percentile(values, [50, 95, 99, 100]).round(3), strict=True))
        for name, values in (
            ("line, frame to verdict", line),
            ("bare model, paced", bare),
            ("line, overloaded", overload.values[len(overload.values) // 10 :]),
        )
    }
    for name, values in percentiles.items():
        print(f"{name:<24}" + "  ".join(f"{key} {value:.3f} ms" for key, value in values.items()))
    ours, theirs, late = percentiles.values()
    results = {
        "overhead_p50_ms": (ours["p50"] - theirs["p50"], 0.5, "over the bare model at p50, ms"),
        "p99_over_p50": (ours["p99"] / ours["p50"], 2.0, "p99 over p50"),
        "processor": (float(np.median(busy)) * 1000.0 / RATE / service, 1.15, "processor time over service time"),
        "overload": (late["p99"] / ours["p50"], 2.0, "p99 under twice the load over service time"),
    }
    for value, most, words in results.values():
        print(f"{words:<46}{value:.3f} (at most {most:g}){'' if value <= most else '  MISSED'}")
    print(f"{'verdicts':<24}{verdicts}")
    print(f"other programs kept {others:.2f} of {psutil.cpu_count()} cores busy at the start")
    if arguments.json:
        facts = {"percentiles_ms": percentiles, "others": others} | {name: item[0] for name, item in results.items()}
        arguments.json.write_text(json.dumps(facts, default=float))
    if verdicts.get("fault") or any(value > most for value, most, _ in results.values()):
        sys.exit(1)


def measure_others() -> float:
    """Return the number of cores that are busy while this program sleeps for one second."""
    return float(psutil.cpu_percent(1.0) * (psutil.cpu_count() or 1) / 100.0)


if __name__ == "__main__":
    main()
