"""How does `onspect score` compare with common loops, on the same files and the same network?

These run in turns, each in its own process: onspect; a simple loop of OpenCV and onnxruntime, with default threads and
with one; the same loop with OpenVINO's runtime on the same ONNX file; and with torch, on the run from which the file
was exported. Prints images a second, and the ratio of onspect to each in the same turn (median, 10% to 90%). A peer
without its packages or its run is left out with a message. Needs onspect[cpu], for torch onspect[train]. OpenVINO gets
its own environment: python -m venv peers && peers/bin/pip install openvino onnxruntime opencv-python-headless.

    python benchmarks/peers.py part.onnx [IMAGES...] [--run RUN] [--peers peers/bin/python] [--count 150] [--turns 5]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
from race import Entry, describe_averages, race, race_images

from onspect.runtime.bench.results import Spread
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.cpu import available_cores


def has_openvino(python: Path) -> bool:
    """Return whether an interpreter can run OpenVINO's loop."""
    return subprocess.run([python, "-c", "import openvino, onnxruntime, cv2"], capture_output=True).returncode == 0


def choose_entries(model: Path, run: Path | None, python: Path | None) -> list[Entry]:
    """Return the loops that can run here, and print the reason for each that cannot."""
    entries = [Entry(loop, model) for loop in ("onspect", "naive", "naive_one_thread")]
    if python is None or not has_openvino(python):
        print("openvino: left out, --peers names no interpreter that has openvino, onnxruntime and cv2")
    else:
        entries.append(Entry("openvino", model, str(python)))
    if run is None or importlib.util.find_spec("torch") is None:
        print("torch: left out, " + ("torch is not installed" if run else "--run names no run"))
    else:
        entries.append(Entry("torch", Path(f"{model}={run}")))
    return entries


def main() -> None:
    """Run the race and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--run", type=Path, help="The training run that the model was exported from, for torch.")
    parser.add_argument("--peers", type=Path, help="A Python interpreter that has openvino.")
    parser.add_argument("--count", type=int, default=150, help="Images a pass.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    averages = describe_averages()
    entries = choose_entries(arguments.model, arguments.run, arguments.peers)
    with race_images(arguments.model, arguments.images, arguments.count) as paths:
        found, load = race(entries, paths, arguments.turns)
    seconds = np.array([[told["wall"] for told in each] for each in found])
    processors = np.array([[told["processor"] for told in each] for each in found])
    print(f"{arguments.model.name}, {len(paths)} images a pass, {arguments.turns} turns; {averages} at the start")
    print(describe_load(load, available_cores()))
    print(f"{'':<20}{'images/s':>10}{'processor ms/image':>20}{'onspect makes':>16}   10% to 90%     ng")
    rows = {}
    for place, entry in enumerate(entries):
        ratio = Spread.of(list(seconds[place] / seconds[0]))
        rate = float(np.median(len(paths) / seconds[place]))
        burnt = 1000.0 * float(np.median(processors[place])) / len(paths)
        bad = found[place][0]["ng"]
        spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
        print(f"{entry.loop:<20}{rate:>10.0f}{burnt:>20.2f}{ratio.median:>15.2f}x   {spread:<12}{bad:>5}")
        rows[entry.loop] = {"images": rate, "processor": burnt, "ng": bad, "ratio": vars(ratio)}
    if arguments.json:
        arguments.json.write_text(json.dumps({"peers": rows, "load": vars(load)}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
