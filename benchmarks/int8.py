"""INT8 and FP16 against float32 on labelled images: verdicts, AUROC, speed and size, on onnxruntime and OpenVINO.

Takes a calibrated float32 model file and its dataset. Writes it in fp16, in int8 as `onspect export --int8` chooses the
layers, and in int8 throughout; runs each with onnxruntime on one thread, and where an interpreter that has openvino is
named, with OpenVINO's own runtime too. Thresholds are chosen on val/ from each one's own scores; verdicts and AUROC are
those of test/. Every contestant runs the same 32 images in turns with the others, so that a disturbance hits all, and
speeds are ratios within a turn. Needs onspect[cpu,train]; OpenVINO goes into an environment of its own:
python -m venv ov && ov/bin/pip install openvino.

    python benchmarks/int8.py part.onnx magnetic_tile [--openvino ov/bin/python] [--turns 40] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from onspect.calibration.metrics import measure_areas
from onspect.calibration.review import choose_review
from onspect.calibration.thresholds import choose_threshold
from onspect.export.decisions import Reference, find_reference
from onspect.export.quantize import Quantizer
from onspect.export.reduce import read_samples, reduce_file
from onspect.runtime.batch import in_order
from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.results import Spread
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.cores import available_cores
from onspect.runtime.decode import read_image
from onspect.runtime.errors import ExportError
from onspect.runtime.inspector import Inspector
from onspect.runtime.layout import LabelledImage, labelled_images
from onspect.runtime.model_file import ModelFile, Threshold, parse_model_file, read_model_file, stamp
from onspect.runtime.preprocess import prepare
from onspect.runtime.verdict import decide

Scores = NDArray[np.float64]
BATCH = 4
TURN = 32

SERVER = """
import sys, time, json
import numpy as np, openvino
core = openvino.Core()
model = core.compile_model(sys.argv[1], "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})
request = model.create_infer_request()
images = np.load(sys.argv[2])
def run(part):
    scores = []
    for start in range(0, len(part), 4):
        scores.append(request.infer({"image": part[start : start + 4]})["score"].copy())
    return np.concatenate(scores).tolist()
for line in sys.stdin:
    first, last = map(int, line.split())
    wall, cpu = time.perf_counter(), time.process_time()
    scores = run(images[first:last])
    took = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([scores, took]), flush=True)
"""


@dataclass
class Contestant:
    """A file on a runtime: run takes first and last image and returns scores, seconds, and seconds of a processor."""

    name: str
    size: int
    run: Callable[[int, int], tuple[Scores, float, float]]


def on_onnxruntime(name: str, file: ModelFile, images: NDArray[np.uint8]) -> Contestant:
    """Return a contestant on one thread of onnxruntime."""
    inspector = Inspector(file, provider="cpu")

    def run(first: int, last: int) -> tuple[Scores, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        parts = [inspector.run(images[start : min(last, start + BATCH)]).score for start in range(first, last, BATCH)]
        took = time.perf_counter() - wall, time.process_time() - cpu
        return np.concatenate(parts).astype(np.float64), *took

    return Contestant(f"{name}, onnxruntime", len(file.data), run)


def on_openvino(name: str, path: Path, images: Path, python: Path) -> Contestant:
    """Return a contestant on one thread of OpenVINO, in a process of its own."""
    server = subprocess.Popen([python, "-c", SERVER, path, images], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    to_server, from_server = server.stdin, server.stdout

    def run(first: int, last: int) -> tuple[Scores, float, float]:
        to_server.write(f"{first} {last}\n".encode())
        to_server.flush()
        scores, took = json.loads(from_server.readline())
        return np.array(scores), *took

    return Contestant(f"{name}, OpenVINO", path.stat().st_size, run)


def prepare_all(images: list[LabelledImage], file: ModelFile) -> NDArray[np.uint8]:
    """Return images as the graph takes them."""
    return np.stack([*in_order(lambda image: prepare(read_image(image.path), file.info.preprocess), images)])


def choose_cut(reference: Reference, scores: Scores) -> Threshold:
    """Return the threshold that the source's policy makes of scores of its calibration images."""
    bad = np.array([image.defective for image in reference.images])
    cut = choose_threshold(reference.policy, scores[~bad], scores[bad])
    if reference.band is None or reference.band.name == "review_interval":
        return Threshold(cut, cut)
    return Threshold(cut, cut, choose_review(reference.band, scores[~bad], scores[bad], cut, None))


def write_files(source: Path, data: Path, folder: Path) -> dict[str, Path]:
    """Write the source in its lower precisions and return the files by name, what the gate refuses with a note."""
    file = read_model_file(source)
    found = {"fp32": source}
    for name, precision in (("fp16", "fp16"), ("int8 as chosen", "int8")):
        path = folder / f"{name.replace(' ', '-')}.onnx"
        try:
            reduced = reduce_file(source, path, precision, data)
            kept = sum(choice.reduced for choice in reduced.layers)
            found[f"{name} ({kept}/{len(reduced.layers)} layers)" if precision == "int8" else name] = path
        except ExportError as error:
            print(f"{name}: {error}")
    model = onnx.load_from_string(file.data)
    del model.metadata_props[:]
    quantizer = Quantizer(model, read_samples(file, data))
    graph = quantizer.quantize(quantizer.layers).SerializeToString()
    found["int8 throughout"] = folder / "int8-throughout.onnx"
    found["int8 throughout"].write_bytes(stamp(graph, file.info, file.training_images))
    return found


def measure(
    contestants: list[Contestant], reference: Reference, test: list[LabelledImage], turns: int, meter: LoadMeter
) -> list[dict[str, Any]]:
    """Return a row of figures for each contestant, the first of which is what the others are held against."""
    calibrating = len(reference.images)
    bad = np.array([image.defective for image in test])
    count = calibrating + len(test)
    verdicts, rows = [], []
    for contestant in contestants:
        scores, _, _ = contestant.run(0, count)
        cut = choose_cut(reference, scores[:calibrating])
        judged = scores[calibrating:]
        verdicts.append(np.array([decide(float(score), cut) for score in judged]))
        auroc = measure_areas(judged[~bad], judged[bad]).auroc
        rows.append({"name": contestant.name, "bytes": contestant.size, "auroc": auroc, "images": len(test)})
    times = np.array([[contestant.run(0, TURN)[1:] for contestant in contestants] for _ in range(turns + 3)])[3:]
    meter.count(*times[:, 0].sum(axis=0).tolist())
    for number, row in enumerate(rows):
        row["flips"] = int((verdicts[number] != verdicts[0]).sum())
        for clock, name in enumerate(("wall", "processor")):
            ratios = Spread.of([float(value) for value in times[:, 0, clock] / times[:, number, clock]])
            row[name] = {"ratio": ratios.median, "low": ratios.low, "high": ratios.high}
        row["milliseconds"] = 1000.0 * float(np.median(times[:, number, 1])) / TURN
    return rows


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--openvino", type=Path, help="A Python interpreter that has openvino.")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    file = read_model_file(arguments.model)
    reference = find_reference(file, arguments.data)
    test = labelled_images(arguments.data, "test")
    images = prepare_all([*reference.images, *test], file)
    meter = LoadMeter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        np.save(Path(folder, "images.npy"), images)
        paths = write_files(arguments.model, arguments.data, Path(folder))
        contestants = [
            on_onnxruntime(name, parse_model_file(path, path.read_bytes()), images) for name, path in paths.items()
        ]
        if arguments.openvino:
            contestants += [
                on_openvino(name, path, Path(folder, "images.npy"), arguments.openvino)
                for name, path in paths.items()
                if name != "fp16"
            ]
        else:
            print("OpenVINO: skipped, --openvino names no interpreter that has it")
        rows = measure(contestants, reference, test, arguments.turns, meter)
    load = meter.stop()

    print(f"\n{file.info.name}, {len(test)} test images; {reference.describe_policy()}")
    print(describe_load(load, available_cores()))
    print(f"{'':<44}{'AUROC':>8}{'flips':>7}{'MB':>7}{'ms':>8}{'speed':>8}{'10% to 90%':>15}{'by clock':>10}")
    for row in rows:
        speed = row["processor"]
        spread = f"{speed['low']:.2f} to {speed['high']:.2f}"
        print(
            f"{row['name']:<44}{row['auroc']:>8.4f}{row['flips']:>7}{row['bytes'] / 1e6:>7.2f}"
            f"{row['milliseconds']:>8.2f}{speed['ratio']:>8.2f}{spread:>15}{row['wall']['ratio']:>10.2f}"
        )
    print(
        "flips: test verdicts that differ from the first row's, each by its own threshold. ms, speed: of a processor,"
    )
    print("inference alone, one image, one thread; how many times as fast as the first row.")
    if arguments.json:
        content = {"rows": rows, "load": {"others": load.others, "share": load.share}, "python": sys.version}
        arguments.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
