"""How close is `onspect score` to the limit of the machine, and how much faster is it than a simple loop?

Three programs run in turns on the same files, each in its own process. They are onspect on all cores; its stages one
after the other on one thread; and a simple loop of OpenCV and onnxruntime, with default threads and with one. The
stages give the bound `cores / sum of the stages' times`. Prints images a second and the ratios of each turn (median,
10% to 90%). Exits with 1 if they are below the promise and the machine was not busy. Without images it draws some.
Needs onspect[cpu].

    python benchmarks/batch.py part.onnx [IMAGES...] [--count 400] [--turns 7] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from race import Entry, describe_averages, race, race_images

from onspect.runtime.bench.results import Spread
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.cpu import available_cores

PROMISED = {"of the bound": 0.90, "over naive": 2.0, "over naive, one thread": 1.8}


def main() -> int:
    """Run the race and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--count", type=int, default=400, help="Images a pass.")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores, before = available_cores(), describe_averages()
    loops = ["onspect", "stages", "naive", "naive_one_thread"]
    with race_images(arguments.model, arguments.images, arguments.count) as paths:
        found, load = race([Entry(loop, arguments.model) for loop in loops], paths, arguments.turns)
    ours, stages = found[:2]
    seconds = np.array([[told["wall"] for told in each] for each in found])
    sums = np.array([list(told["stages"].values()) for told in stages])
    ratios = {
        "of the bound": Spread.of(list(sums.sum(axis=1) / cores / seconds[0])),
        "over naive": Spread.of(list(seconds[2] / seconds[0])),
        "over naive, one thread": Spread.of(list(seconds[3] / seconds[0])),
    }
    print(f"{arguments.model.name}, {len(paths)} images a pass, {arguments.turns} turns; {before} at the start")
    print(describe_load(load, cores))
    milliseconds = 1000.0 * np.median(sums, axis=0) / len(paths)
    names = list(stages[0]["stages"])
    words = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, milliseconds, strict=True))
    print(f"one image on one thread, ms: {words}; that allows {1000.0 * cores / milliseconds.sum():.0f} images/s")
    for loop, taken in zip(loops, seconds, strict=True):
        if loop != "stages":
            rate = Spread.of(list(len(paths) / taken))
            print(f"{loop:<24}{rate.median:>8.0f} images/s ({rate.low:.0f} to {rate.high:.0f})")
    for name, ratio in ratios.items():
        wanted = f"promised {PROMISED[name]:.2f}"
        print(f"{name:<24}{ratio.median:>8.2f} ({ratio.low:.2f} to {ratio.high:.2f}), {wanted}")
    if len({told["ng"] for each in (ours, stages) for told in each}) > 1:
        print("onspect's verdicts differ from those of its stages one by one")
        return 1
    if arguments.json:
        content = {name: vars(ratio) for name, ratio in ratios.items()} | {"load": vars(load), "count": len(paths)}
        arguments.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    missed = any(ratio.median < PROMISED[name] for name, ratio in ratios.items())
    return 1 if missed and not load.busy else 0


if __name__ == "__main__":
    raise SystemExit(main())
