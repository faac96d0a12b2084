"""Is a new threshold written quickly, without a change of the graph, and completely in spite of a kill?

Writes a model file of about 10 MB with 500 calibration scores and random weights, and
- times `restamp` in one process: read, check both checksums, stamp, write, flush to the disk; by the clock, and in
  processor time, which a busy machine does not change;
- times the whole commands `onspect threshold part.onnx --set X` and `onspect recalibrate part.onnx --undo` beside
  `onspect --version`, which shows the cost of starting Python;
- compares the SHA-256 of everything but the metadata before and after;
- kills a process that stamps without end, 50 times, at random moments, and reads the file each time.

Prints a table and writes JSON. Needs onspect[cpu,train], and about a minute on one idle core.

    python benchmarks/restamp.py [--kills 50] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onspect.runtime.model.file import read_model_file, restamp, stamp, undo_restamp
from onspect.runtime.model.schema import (
    Calibration,
    ModelInfo,
    Network,
    Preprocess,
    Provenance,
    Score,
    SourceLimits,
    Threshold,
)

WEIGHTS = 2_500_000
"""Of four bytes each."""

_STAMPER = """
import dataclasses, sys
from onspect.runtime.model.schema import Threshold
from onspect.runtime.model.file import read_model_file, restamp
print("ready", flush=True)
while True:
    file = read_model_file(sys.argv[1])
    evidence = dataclasses.replace(file.info.calibration, good_scores=(), defective_scores=())
    restamp(file, Threshold(file.info.threshold.score + 1.0, 1.0), evidence)
"""


def write_model(path: Path) -> None:
    """Write a calibrated model file of about 10 MB."""
    weights = np.random.default_rng(0).normal(size=WEIGHTS).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["weights"], ["score"], keepdims=0)],
        "large",
        [],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    scores = np.sort(np.random.default_rng(1).lognormal(size=500)).tolist()
    now = "2026-01-01T00:00:00.000Z"
    info = ModelInfo(
        name="large",
        preprocess=Preprocess(128, 128, 1, 65535, SourceLimits((1,), None, None)),
        network=Network("cae", (8,), (2,), 8, 8, WEIGHTS),
        score=Score("relative", 1.0),
        provenance=Provenance({}, 0, "parts", 10_000, "", now, now, 0.0, 1),
        threshold=Threshold(1.0, 1.0),
        calibration=Calibration(
            policy="highest F1",
            data="parts",
            counts={"good": 400, "scratch": 100},
            auroc=0.9,
            aupr=0.9,
            true_ng=90,
            false_ng=10,
            true_ok=390,
            false_ok=10,
            images="",
            time=now,
            good_scores=tuple(scores[:400]),
            defective_scores=tuple(scores[400:]),
        ),
    )
    path.write_bytes(stamp(onnx.ModelProto.SerializeToString(model), info, [f"{i:016x}" for i in range(10_000)]))


def measure(work: Callable[[], object], times: int) -> dict[str, float]:
    """Return the median milliseconds of work with its child processes, by the clock and in processor time."""
    clock, processor = [], []
    for _ in range(times):
        before, start = os.times(), time.perf_counter()
        work()
        clock.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (sum(os.times()[:4]) - sum(before[:4])))
    return {"clock": statistics.median(clock), "processor": statistics.median(processor)}


def restamp_once(path: Path) -> None:
    """Move a model file's threshold."""
    file = read_model_file(path)
    assert file.info.calibration is not None
    restamp(file, Threshold(3.0, 3.0), file.info.calibration)


def run_python(*arguments: str) -> None:
    """Run this Python."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def run_command(*arguments: str) -> None:
    """Run the command as installed."""
    run_python("-m", "onspect.runtime", *arguments)


def kill_at_random(path: Path, kills: int, longest: float) -> dict[str, int]:
    """Kill a process that stamps without end, each time after up to `longest` seconds, and read the file.

    Returns the number of kills, the number of stamps in the end, and the number of kills after which the file had
    another stamp than before. Raises if the file was incomplete, its graph changed, or a stamp was lost.
    """
    first = read_model_file(path).info
    assert first.threshold is not None
    last, changed = first.threshold.score, 0
    moments = random.Random(0)  # noqa: S311 - moments in time
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", _STAMPER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0.0, longest))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        info = read_model_file(path).info  # raises where one byte is not as its checksums say
        if info.threshold is None or info.threshold.score < last or info.graph_sha256 != first.graph_sha256:
            raise RuntimeError(f"after a kill the file says {info.threshold}, {last:g} before")
        changed += info.threshold.score > last
        last = info.threshold.score
    return {"kills": kills, "stamps": round(last - first.threshold.score), "kills with a new stamp": changed}


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.onnx"
        write_model(path)
        before = read_model_file(path).info.graph_sha256
        size = path.stat().st_size
        moved = measure(lambda: restamp_once(path), 20)
        result: dict[str, Any] = {
            "megabytes": size / 1e6,
            "restamp": moved,
            "undo": measure(lambda: undo_restamp(read_model_file(path)), 20),
            "onspect --version": measure(lambda: run_command("--version"), 5),
            "import of its packages": measure(lambda: run_python("-c", "import onspect.calibration.calibration"), 5),
            "onspect threshold --set": measure(lambda: run_command("threshold", str(path), "--set", "2"), 5),
            "onspect recalibrate --undo": measure(lambda: run_command("recalibrate", str(path), "--undo"), 5),
        }
        after = read_model_file(path).info.graph_sha256
        result["graph unchanged"] = before == after
        result["graph sha256"] = after
        result["kills"] = kill_at_random(path, arguments.kills, 6 * moved["clock"] / 1000)
        result["left behind"] = len(list(Path(folder).glob(".onspect-*.tmp")))
    for name, value in result.items():
        timed = isinstance(value, dict) and "clock" in value
        shown = f"{value['clock']:.0f} ms, of which processor {value['processor']:.0f} ms" if timed else value
        print(f"{name:<28}{shown}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
