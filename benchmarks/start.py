"""How long does a process take from its start to its first verdict?

Three processes run in turns, each timed from its start to its first line: `onspect score part.onnx IMAGE`, a Python
that only imports numpy, OpenCV and onnxruntime, and one that imports torch. Prints milliseconds and ratios (median, 10%
to 90%). Exits with 1 if the first is above 1.5 times the second, or a fifth of the third, and the machine was not busy.
Needs onspect[cpu]; without torch that comparison is left out. Without an image it draws one.

    python benchmarks/start.py part.onnx [IMAGE] [--turns 15] [--json result.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from race import compiled_environment, describe_averages, race_images

from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.measure import time_first_line
from onspect.runtime.bench.results import Spread
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.cpu import available_cores

MOST = {"imports": 1.5, "torch": 0.2}


def find_command() -> str:
    """Return the command that is installed beside this Python."""
    command = shutil.which("onspect", path=str(Path(sys.executable).parent)) or shutil.which("onspect")
    if command is None:
        raise SystemExit("the command onspect is not installed")
    return command


def main() -> int:
    """Time the processes and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("image", nargs="?")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    averages, meter = describe_averages(), LoadMeter()
    images = race_images(arguments.model, [arguments.image] if arguments.image else [], 1)
    with images as (image,), tempfile.TemporaryDirectory() as folder:
        os.environ.update(compiled_environment(Path(folder)))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        commands = {
            "onspect": [find_command(), "score", str(arguments.model), image, "-q"],
            "imports": [sys.executable, "-c", "import numpy, cv2, onnxruntime; print()"],
            "torch": [sys.executable, "-c", "import torch; print()"],
        }
        if importlib.util.find_spec("torch") is None:
            print("torch: left out, it is not installed")
            del commands["torch"]
        for command in commands.values():
            time_first_line(command)
        taken = np.array([[time_first_line(command) for command in commands.values()] for _ in range(arguments.turns)])
    load = meter.stop()
    times = {name: Spread.of(list(taken[:, place])) for place, name in enumerate(commands)}
    ratios = {name: Spread.of(list(taken[:, 0] / taken[:, place])) for place, name in enumerate(commands) if place}
    print(f"{arguments.model.name}, {arguments.turns} turns; {averages} at the start")
    print(describe_load(load, available_cores()))
    for name, each in times.items():
        print(f"{name:<10}{each.median:>8.0f} ms ({each.low:.0f} to {each.high:.0f})")
    for name, ratio in ratios.items():
        print(f"over {name:<10}{ratio.median:>6.2f} ({ratio.low:.2f} to {ratio.high:.2f}), promised {MOST[name]:.1f}")
    if arguments.json:
        content = {"ms": {k: vars(v) for k, v in times.items()}, "ratios": {k: vars(v) for k, v in ratios.items()}}
        arguments.json.write_text(json.dumps(content | {"load": vars(load)}, indent=1), encoding="utf-8")
    missed = any(ratio.median > MOST[name] for name, ratio in ratios.items())
    return 1 if missed and not load.busy else 0


if __name__ == "__main__":
    raise SystemExit(main())
