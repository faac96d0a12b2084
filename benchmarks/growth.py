"""How do speed and memory grow with image size, number of images, workers and images a run?

Each point is a separate process that judges drawn JPEG images with the model, without the model's limits on size. All
points are measured in turns, and each is the median of its turns. Prints the tables and, with --plot, draws them.
Memory is the peak of the process, on Linux only. Needs onspect[cpu]; the plot needs matplotlib (onspect[train]).

    python benchmarks/growth.py part.onnx [--turns 3] [--seconds 1] [--plot growth.png] [--json result.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from race import describe_averages

from onspect.runtime.bench.images import draw_images
from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.cpu import available_cores
from onspect.runtime.inspection.batch import choose_batch
from onspect.runtime.model.file import ModelFile, read_model_file, stamp
from onspect.runtime.model.schema import Preprocess, SourceLimits

SIDES = (64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 2, 4, 8, 16, 32)

CHILD = """
import itertools, json, sys, time
from onspect.runtime.inspection.batch import judge_files
from onspect.runtime.bench.child import read_peak_memory
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.inspection.inspector import Inspector
quieten_opencv()
model, paths, count, workers, batch, seconds = json.load(sys.stdin)
inspector = Inspector(model, provider="cpu")
def judge(number):
    started = time.perf_counter()
    for _ in judge_files(inspector, itertools.islice(itertools.cycle(paths), number), workers=workers, batch=batch):
        pass
    return number / (time.perf_counter() - started)
pace = judge(16)
print(json.dumps([judge(count or max(16, round(pace * seconds))), read_peak_memory()]))
"""


def draw(folder: Path, preprocess: Preprocess, side: int) -> list[str]:
    """Write drawn images of side x side pixels and return their paths."""
    folder.mkdir()
    source = SourceLimits(preprocess.source.channels, (side, side), (side, side))
    return [str(path) for path in draw_images(folder, dataclasses.replace(preprocess, source=source))]


def lift_limits(file: ModelFile, path: Path) -> None:
    """Write the model with no limits on the size of images."""
    preprocess = file.info.preprocess
    source = SourceLimits(preprocess.source.channels, None, None)
    info = dataclasses.replace(file.info, preprocess=dataclasses.replace(preprocess, source=source))
    path.write_bytes(stamp(file.data, info, file.training_images))


def list_points(file: ModelFile, folder: Path, model: str, seconds: float) -> dict[str, dict[str, list[Any]]]:
    """Return for each question its points, each with the arguments of the child process."""
    preprocess, cores = file.info.preprocess, available_cores()
    usual = draw(folder / "usual", preprocess, max(preprocess.width, preprocess.height))
    workers = sorted({1, cores, 2 * cores, *(2**power for power in range(cores.bit_length()))})
    return {
        "pixels across": {
            str(side): [model, draw(folder / str(side), preprocess, side), 0, None, None, seconds] for side in SIDES
        },
        "images": {str(count): [model, usual, count, None, None, seconds] for count in (30, 100, 300, 1000)},
        "workers": {str(count): [model, usual, 0, count, None, seconds] for count in workers},
        "images a run": {str(batch): [model, usual, 0, None, batch, seconds] for batch in BATCHES},
    }


def measure(point: list[Any]) -> tuple[float, float]:
    """Return images a second and peak memory in MiB (NaN where unknown) of one process."""
    done = subprocess.run([sys.executable, "-c", CHILD], input=json.dumps(point), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    rate, memory = json.loads(done.stdout)
    return rate, float("nan") if memory is None else memory


def draw_plot(found: dict[str, dict[str, tuple[float, float]]], words: str, path: Path) -> None:
    """Draw images a second and memory over each question's points."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(found), figsize=(11, 4.6), sharey="row", layout="constrained")
    for column, (question, points) in enumerate(found.items()):
        for row, values in enumerate(zip(*points.values(), strict=True)):
            rows[row][column].plot(list(points), values, marker="o", color="#4e79a7")
            rows[row][column].grid(alpha=0.3)
        rows[1][column].set_xlabel(question)
    for row in rows:
        row[0].set_ylim(bottom=0)  # of the whole row, and after all is drawn: it fixes the upper end too
    rows[0][0].set_ylabel("images/s")
    rows[1][0].set_ylabel("peak memory, MiB")
    figure.suptitle(words, fontsize=10)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Measure all points and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="About how long one point takes.")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    file, averages, meter = read_model_file(arguments.model), describe_averages(), LoadMeter()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        lift_limits(file, folder / "model.onnx")
        questions = list_points(file, folder, str(folder / "model.onnx"), arguments.seconds)
        turns = [
            {
                question: {name: measure(point) for name, point in points.items()}
                for question, points in questions.items()
            }
            for _ in range(arguments.turns)
        ]
    load = meter.stop()
    found = {
        question: {
            name: (
                statistics.median(turn[question][name][0] for turn in turns),
                statistics.median(turn[question][name][1] for turn in turns),
            )
            for name in points
        }
        for question, points in questions.items()
    }
    preprocess = file.info.preprocess
    words = (
        f"{file.info.name}, {preprocess.width} x {preprocess.height}, "
        f"{choose_batch(preprocess, 'cpu')} a run by itself, {available_cores()} cores, median of {arguments.turns}"
    )
    print(f"{words}; {averages} at the start\n{describe_load(load, available_cores())}")
    for question, points in found.items():
        print(f"{question:>16}" + "".join(f"{name:>8}" for name in points))
        print(f"{'images/s':>16}" + "".join(f"{rate:>8.0f}" for rate, _ in points.values()))
        print(f"{'peak MiB':>16}" + "".join(f"{memory:>8.0f}" for _, memory in points.values()))
    if arguments.plot:
        draw_plot(found, words, arguments.plot)
    if arguments.json:
        arguments.json.write_text(json.dumps({"points": found, "load": vars(load)}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
