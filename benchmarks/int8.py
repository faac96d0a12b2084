"""INT8 and FP16 compared with float32 on labelled images, from file to verdict, on onnxruntime and OpenVINO.

Takes a calibrated float32 model file and its dataset. Writes the file in fp16, in int8 as `onspect export --int8`
chooses the layers, and with all layers in int8. Each runs on one thread. Thresholds are chosen on val/ from each file's
own scores, by the policy of the file and by three others. Verdicts are those of test/, and of val/ and test/ together.
All files judge the same images in turns, so that other load affects all of them, and a speed is a ratio within a turn.
Exits with 1 if the best int8 is less than 1.4 times as fast as float32 from file to verdict, moves AUROC by more than
0.005, or flips more than 0.2% of the verdicts of test/. On a busy machine it exits with 0. Needs onspect[cpu,train],
and onspect[openvino] for its rows.

    python benchmarks/int8.py part.onnx magnetic_tile [--turns 40] [--json result.json]

A file from `onspect teach` is compared with its small forms on val/ and test/ together, each with the threshold that
teaching chose. --small names forms that `onspect export` has written already. The exit code is then 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from onspect.calibration.metrics.image import measure_areas
from onspect.calibration.thresholds import MaxF1, MaxFpr, Policy, Youden
from onspect.export.agreement import Reference, find_reference
from onspect.export.precision.int8 import Quantizer
from onspect.export.precision.search import quantize, read_samples
from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.results import Load, Spread
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.cpu import available_cores
from onspect.runtime.dataset.folder import LabelledImage, labelled_images
from onspect.runtime.errors import ExportError
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.inspection.batch import in_order
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.file import ModelFile, parse_model_file, read_model_file, stamp
from onspect.runtime.model.schema import Threshold

Scores = NDArray[np.float64]
BATCH = 4
TURN = 8
POLICIES = (MaxF1(), Youden(), MaxFpr(0.05), MaxFpr(0.1))
LEAST_SPEED, MOST_SHIFT, MOST_FLIPS = 1.4, 0.005, 0.002


@dataclass(frozen=True)
class Contestant:
    """A file on a runtime, one thread."""

    name: str
    size: int
    inspector: Inspector

    def score(self, images: NDArray[np.uint8]) -> Scores:
        """Return the scores of prepared images."""
        parts = [self.inspector.run(images[start : start + BATCH]).score for start in range(0, len(images), BATCH)]
        return np.concatenate(parts).astype(np.float64)

    def judge(self, paths: list[Path]) -> tuple[float, float]:
        """Judge image files and return the seconds by the clock, and of processors."""
        wall, cpu = time.perf_counter(), time.process_time()
        for path in paths:
            self.inspector.inspect(read_image(path))
        return time.perf_counter() - wall, time.process_time() - cpu


def find_contestants(paths: dict[str, Path]) -> list[Contestant]:
    """Return every file on every installed runtime."""
    runtimes = {"cpu": "onnxruntime", "openvino": "OpenVINO"}
    if importlib.util.find_spec("openvino") is None:
        print("OpenVINO: left out, it is not installed: pip install 'onspect[openvino]'")
        del runtimes["openvino"]
    found = []
    for provider, runtime in runtimes.items():
        for name, path in paths.items():
            file = parse_model_file(path, path.read_bytes())
            inspector = Inspector(file, provider=provider).with_threshold(file.info.threshold or Threshold(1.0, 1.0))
            found.append(Contestant(f"{name}, {runtime}", len(file.data), inspector))
    return found


def prepare_all(images: list[LabelledImage], file: ModelFile) -> NDArray[np.uint8]:
    """Return images in the form of the graph's input."""
    return np.stack([*in_order(lambda image: prepare(read_image(image.path), file.info.preprocess), images)])


def judge_by(policy: Policy, reference: Reference, scores: Scores) -> NDArray[np.bool_]:
    """Return whether each image is ng by a policy's threshold; the calibration's images come first."""
    bad = np.array([image.defective for image in reference.images])
    own = scores[: len(bad)]
    cut = policy.choose(own[~bad], own[bad])
    return np.array([decide(float(score), Threshold(cut, cut)) == "ng" for score in scores])


def write_files(source: Path, data: Path, folder: Path) -> dict[str, Path]:
    """Write the source in its lower precisions, and return the files by name, with a note on refused ones."""
    file = read_model_file(source)
    found = {"fp32": source}
    for name, precision in (("fp16", "fp16"), ("int8 as chosen", "int8")):
        path = folder / f"{name.replace(' ', '-')}.onnx"
        try:
            reduced = quantize(source, path, precision, data)
            kept = sum(choice.reduced for choice in reduced.layers)
            found[f"{name} ({kept}/{len(reduced.layers)} layers)" if precision == "int8" else name] = path
        except ExportError as error:
            print(f"{name}: {error}")
    model = onnx.load_from_string(file.data)
    del model.metadata_props[:]
    quantizer = Quantizer(model, read_samples(file, data))
    found["int8 throughout"] = folder / "throughout.onnx"
    graph = quantizer.quantize(quantizer.layers).SerializeToString()
    found["int8 throughout"].write_bytes(stamp(graph, file.info, file.training_images))
    return found


def measure(
    contestants: list[Contestant], file: ModelFile, reference: Reference, test: list[LabelledImage], turns: int
) -> tuple[list[dict[str, Any]], Load]:
    """Return a row of figures for each contestant; the first is the reference of the others."""
    calibrating = len(reference.images)
    bad = np.array([image.defective for image in test])
    images = prepare_all([*reference.images, *test], file)
    rows: list[dict[str, Any]] = []
    verdicts: list[list[NDArray[np.bool_]]] = []
    for contestant in contestants:
        scores = contestant.score(images)
        verdicts.append([judge_by(policy, reference, scores) for policy in (reference.policy, *POLICIES)])
        auroc = measure_areas(scores[calibrating:][~bad], scores[calibrating:][bad]).auroc
        differ = [found != first for found, first in zip(verdicts[-1], verdicts[0], strict=True)]
        flips = [[int(each[calibrating:].sum()), int(each.sum())] for each in differ]
        rows.append({"name": contestant.name, "bytes": contestant.size, "auroc": auroc, "flips": flips})
    meter = LoadMeter()
    paths = [image.path for image in test]
    times = np.array(
        [
            [one.judge([paths[(turn * TURN + n) % len(paths)] for n in range(TURN)]) for one in contestants]
            for turn in range(turns + 3)
        ]
    )[3:]
    meter.count(*times[:, 0].sum(axis=0).tolist())
    for number, row in enumerate(rows):
        ratios = times[:, 0, 1] / times[:, number, 1]
        row["speed"] = vars(Spread.of([float(value) for value in ratios]))
        row["milliseconds"] = 1000.0 * float(np.median(times[:, number, 1])) / TURN
    return rows, meter.stop()


def compare_taught(source: Path, data: Path, small: list[Path], turns: int, folder: Path) -> None:
    """Print how a taught file's small forms judge, each by its own threshold, and how fast they are."""
    if not small:
        small = [folder / "fp16.onnx", folder / "int8.onnx"]
        for path in small:
            quantize(source, path, path.stem, data, max_flips=10**6)
    contestants = find_contestants({path.stem: path for path in [source, *small]})
    images = [*labelled_images(data, "val"), *labelled_images(data, "test")]
    bad = np.array([image.defective for image in images])
    prepared = prepare_all(images, read_model_file(source))
    scores = [contestant.score(prepared) for contestant in contestants]
    cuts = [one.inspector.info.threshold.score for one in contestants if one.inspector.info.threshold]
    paths = [image.path for image in images]
    meter = LoadMeter()
    times = np.array(
        [
            [one.judge([paths[(turn * TURN + n) % len(paths)] for n in range(TURN)]) for one in contestants]
            for turn in range(turns + 3)
        ]
    )[3:]
    meter.count(*times[:, 0].sum(axis=0).tolist())
    preprocess = read_model_file(source).info.preprocess
    print(f"{source.stem}, {len(images)} images of val/ and test/, {preprocess.width}x{preprocess.height} pixels")
    print(describe_load(meter.stop(), available_cores()))
    print(f"{'':<32}{'AUROC':>8}{'MB':>7}{'ms':>8}{'speed':>7}{'flips':>7}{'share':>8}{'moved':>8}")
    for number, (one, found, cut) in enumerate(zip(contestants, scores, cuts, strict=True)):
        flips = int(((found >= cut) != (scores[0] >= cuts[0])).sum())
        speed = float(np.median(times[:, 0, 1] / times[:, number, 1]))
        moved = float(np.sqrt(np.mean((found - scores[0]) ** 2)) / scores[0].std())
        print(
            f"{one.name:<32}{measure_areas(found[~bad], found[bad]).auroc:>8.4f}{one.size / 1e6:>7.2f}"
            f"{1000.0 * float(np.median(times[:, number, 1])) / TURN:>8.2f}{speed:>7.2f}{flips:>7}"
            f"{flips / len(images):>8.2%}{moved:>8.1%}"
        )
    print("ms, speed: of a processor, from file to verdict, one thread; how many times as fast as the first row.")


def find_misses(rows: list[dict[str, Any]], images: int) -> list[str]:
    """Describe which promises the best int8 row breaks: the row with the fewest, then the fastest."""
    found = []
    for row in (row for row in rows if row["name"].startswith("int8")):
        speed, shift, flips = row["speed"]["median"], abs(row["auroc"] - rows[0]["auroc"]), row["flips"][0][0]
        checks = [
            (speed < LEAST_SPEED, f"is {speed:.2f} times as fast, not {LEAST_SPEED}"),
            (shift > MOST_SHIFT, f"moves AUROC by {shift:.4f}, more than {MOST_SHIFT}"),
            (flips > MOST_FLIPS * images, f"flips {flips} of {images} verdicts, more than {MOST_FLIPS:.1%}"),
        ]
        found.append((-speed, [f"{row['name']} {words}" for missed, words in checks if missed]))
    return min(found, key=lambda each: (len(each[1]), each[0]))[1]


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", type=Path, nargs="*", default=[], help="small forms of a taught file")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    file = read_model_file(arguments.model)
    if file.info.memory is not None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            compare_taught(arguments.model, arguments.data, arguments.small, arguments.turns, Path(folder))
        return
    reference = find_reference(file, arguments.data)
    test = labelled_images(arguments.data, "test")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        contestants = find_contestants(write_files(arguments.model, arguments.data, Path(folder)))
        rows, load = measure(contestants, file, reference, test, arguments.turns)
    print(
        f"\n{file.info.name}, {len(test)} test images, {len(reference.images)} of val/; {reference.describe_policy()}"
    )
    print(describe_load(load, available_cores()))
    policies = ["own", *(p.name + (f" {p.rate:g}" if isinstance(p, MaxFpr) else "") for p in POLICIES)]
    print(
        f"{'':<40}{'AUROC':>8}{'MB':>7}{'ms':>8}{'speed':>7}{'10% to 90%':>15}" + "".join(f"{x:>13}" for x in policies)
    )
    for row in rows:
        speed = row["speed"]
        spread = f"{speed['low']:.2f} to {speed['high']:.2f}"
        flips = "".join(f"{f'{test_only}, {both}':>13}" for test_only, both in row["flips"])
        print(
            f"{row['name']:<40}{row['auroc']:>8.4f}{row['bytes'] / 1e6:>7.2f}{row['milliseconds']:>8.2f}"
            f"{speed['median']:>7.2f}{spread:>15}{flips}"
        )
    print("ms, speed: of a processor, from file to verdict, one thread; how many times as fast as the first row.")
    print(
        "By policy: verdicts that differ from the first row's, each by its own threshold: of test/, of val/ and test/."
    )
    misses = find_misses(rows, len(test))
    for miss in misses:
        print(f"missed: {miss}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "policies": policies, "load": vars(load)}, indent=1))
    if misses and not load.busy:
        sys.exit(1)


if __name__ == "__main__":
    main()
