"""What does a camera line add to the bare model, from frame to verdict?

A fake camera gives 640x480 frames at 30 a second to a line with JSONL and SQLite sinks; in turns with it, the same
model runs bare at the same pace, since a core that has idled runs slower. Prints percentiles of both and the overhead,
and exits with 1 where it is above what is promised: 1 ms at the median, and a p99 of twice the median. The model must
take frames of 640x480, mono or colour. Needs onspect[cpu].

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

from onspect.runtime.decode import quieten_opencv, read_image
from onspect.runtime.inspector import Inspection, Inspector
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.line.build import give_couriers
from onspect.runtime.sinks import Sink, open_sinks
from onspect.runtime.sources.fake import FakeSource

RATE = 30
SIZE = (640, 480)


class Latencies:
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
    """Return frames of 640x480, each with noise of its own."""
    channels = inspector.info.preprocess.source.channels
    random = np.random.default_rng(0)
    base = np.full(SIZE[::-1], 128, np.uint8) if image is None else read_image(image)
    if base.ndim == 3 and 3 not in channels:
        base = cv2.cvtColor(base, cv2.COLOR_BGR2GRAY)
    if base.ndim == 2 and 1 not in channels:
        base = cv2.cvtColor(base, cv2.COLOR_GRAY2BGR)
    base = cv2.resize(base, SIZE).astype(np.int16)
    return [np.clip(base + random.integers(-4, 5, base.shape), 0, 255).astype(np.uint8) for _ in range(16)]


def time_line(model: Path, frames: list[np.ndarray], seconds: float, folder: Path) -> Latencies:
    """Return the latencies of a line with JSONL and SQLite, in milliseconds; each frame is new, as a camera's is."""
    latencies = Latencies()
    texts = [f"jsonl:{folder / 'verdicts.jsonl'}", f"sqlite:{folder / 'verdicts.db'}"]
    named: list[tuple[str, Sink]] = list(zip(texts, open_sinks(texts, append=True), strict=True))
    source = FakeSource(lambda number: frames[number % len(frames)].copy(), count=int(seconds * RATE), rate=RATE)
    models = Models({None: model}, None, Inspector, Health())
    sinks = [*give_couriers(named, folder / "spool", live=True), latencies]
    Line(models, [source], sinks).run()
    return latencies


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
    line, bare = [], []
    verdicts: dict[str, int] = {}
    for _ in range(arguments.turns):
        with tempfile.TemporaryDirectory() as folder:
            latencies = time_line(arguments.model, frames, arguments.seconds, Path(folder))
        line += latencies.values[RATE:]  # the first second warms up
        verdicts |= {name: verdicts.get(name, 0) + count for name, count in latencies.verdicts.items()}
        bare += time_bare(inspector, frames, arguments.seconds)[RATE:]
    percentiles = {
        name: dict(zip(("p50", "p95", "p99", "worst"), np.percentile(values, [50, 95, 99, 100]).round(3), strict=True))
        for name, values in (("line, frame to verdict", line), ("bare model, paced", bare))
    }
    for name, values in percentiles.items():
        print(f"{name:<24}" + "  ".join(f"{key} {value:.3f} ms" for key, value in values.items()))
    ours, theirs = percentiles.values()
    overhead, spread = ours["p50"] - theirs["p50"], ours["p99"] / ours["p50"]
    print(f"{'overhead':<24}p50 {overhead:.3f} ms (at most 1), p99 {spread:.2f} times the median (at most 2)")
    print(f"{'verdicts':<24}{verdicts}")
    if arguments.json:
        facts = {"percentiles_ms": percentiles, "overhead_p50_ms": overhead, "p99_over_p50": spread}
        arguments.json.write_text(json.dumps(facts, default=float))
    if overhead > 1.0 or spread > 2.0 or verdicts.get("fault"):
        sys.exit(1)


if __name__ == "__main__":
    main()
