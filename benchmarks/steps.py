"""Where does the time of one image go, step by step, and how much faster is a file than an earlier one?

Judges the good images of DATA/val on one thread with each model file in turn. Prints for each file the processor time
of every step in milliseconds (the lowest quarter, which resists other load): reading, preparing, the model, and the
verdict. Then it prints the parts of the model as onnxruntime's profiler measures them: input, network, memory search,
error map, whole images, and the reordering of values between them. With two files the last line has the ratio of the
model's times, second to first, and the largest difference of their scores and maps. Needs onspect[cpu].

    python benchmarks/steps.py part.onnx [later.onnx] --data magnetic_tile
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onspect.runtime.dataset.folder import GOOD, labelled_images
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector, Scored

STEPS = ("read", "prepare", "model", "verdict")
PARTS = {"image": "input", "planes": "input", "backbone": "network", "stride32": "network", "memory": "search"}
PARTS |= {"map": "map", "error_map": "map", "stride8": "map", "whole": "whole", "score": "search"}
TURNS = 5


def time_steps(inspector: Inspector, path: Path) -> tuple[NDArray[np.float64], Scored]:
    """Return the processor milliseconds of each step, float64 [4], and the model's output."""
    marks = [time.process_time()]
    frame = read_image(path)
    marks.append(time.process_time())
    items = [inspector.prepare_frame(frame)]
    marks.append(time.process_time())
    scored = inspector.infer_frames(items)
    marks.append(time.process_time())
    inspector.judge(items, scored)
    marks.append(time.process_time())
    assert scored is not None
    return 1000.0 * np.diff(marks), scored


def profile(model: Path, images: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Return the milliseconds of each part of the model for an image: the lowest quarter of each node, summed."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for image in images:
            session.run(["score", "error_map"], {"image": image[None]})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1000.0)
    parts: dict[str, float] = defaultdict(float)
    for name, times in nodes.items():
        parts[PARTS.get(name.removesuffix("_nchwc").partition(".")[0], "reordering")] += np.quantile(times, 0.25)
    return parts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    inspectors = [Inspector(path, provider="cpu") for path in arguments.models]
    paths = [image.path for image in labelled_images(arguments.data, "val") if image.kind == GOOD]
    found = np.empty((len(inspectors), TURNS * len(paths), len(STEPS)))
    scores = maps = 0.0
    for turn, path in enumerate(paths * TURNS):
        outputs: dict[int, Scored] = {}
        for row in np.roll(range(len(inspectors)), turn):
            found[row, turn], outputs[row] = time_steps(inspectors[row], path)
        scores = max(scores, float(np.abs(outputs[0].score - outputs[len(outputs) - 1].score).max()))
        maps = max(maps, float(np.abs(outputs[0].error_map - outputs[len(outputs) - 1].error_map).max()))
    print(f"{found.shape[1]} images, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for model, inspector, times in zip(arguments.models, inspectors, found, strict=True):
        steps = zip(STEPS, np.quantile(times, 0.25, axis=0), strict=True)
        print(f"{model}: " + ", ".join(f"{name} {value:.2f}" for name, value in steps) + " ms")
        parts = profile(model, [inspector.prepare(read_image(path)) for path in paths])
        print("    model: " + ", ".join(f"{name} {value:.2f}" for name, value in sorted(parts.items())) + " ms")
    if len(inspectors) > 1:
        ratio, saved = (
            np.median(change) for change in (found[1, :, 2] / found[0, :, 2], found[0, :, 2] - found[1, :, 2])
        )
        print(f"model: {ratio:.3f} times the first's time, {saved:.2f} ms less (medians of turns)")
        print(f"largest difference of a score {scores:.1e}, of a map {maps:.1e}")


if __name__ == "__main__":
    main()
