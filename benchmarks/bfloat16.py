"""Is bfloat16 on OpenVINO a faster form of a taught file, and what does it cost in verdicts?

Judges all images of val/ and test/ with onnxruntime in float32, and with OpenVINO in float32 and in bfloat16, one
thread each and one after the other for each image, so that a disturbance hits all. Prints the image AUROC, the speed
(processor time of onnxruntime over that of the route, median over images) and the verdicts that differ from those of
onnxruntime: at the file's threshold, and at the thresholds that reject 2%, 5%, 10% and 20% of the good images, each
route by its own scores.

The last row is a cascade: bfloat16 first, and float32 again where the score is within a band around the threshold. The
band is the narrowest with which at most 0.5% of the verdicts differ. Needs onspect[cpu,train,openvino] and a processor
with bfloat16.

    python benchmarks/bfloat16.py part.onnx magnetic_tile
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from onspect.runtime.dataset.folder import labelled_images
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file

RATES = (0.02, 0.05, 0.1, 0.2)
MOST = 0.005
"""Share of the verdicts that may differ in the cascade."""

Floats = NDArray[np.float64]
Route = Callable[[NDArray[np.uint8]], float]


def open_openvino(graph: bytes, precision: str) -> Route:
    """Return a function that scores one prepared image [1, height, width, channels] on one thread."""
    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda batch: float(np.ravel(request.infer([batch])["score"])[0])


def find_band(full: Floats, fast: Floats, threshold: float) -> tuple[float, int]:
    """Return the share of images to judge again so that few verdicts differ, and the number that still differ."""
    distance = np.abs(fast - threshold)
    wrong = np.sort(distance[(fast >= threshold) != (full >= threshold)])[::-1]
    kept = int(MOST * len(full))
    band = wrong[kept] if len(wrong) > kept else -1.0
    return float((distance <= band).mean()), int((wrong > band).sum())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    file = read_model_file(arguments.model)
    threshold = file.info.threshold
    assert threshold is not None, "the file has no threshold"
    inspector = Inspector(file, threads=1)
    routes: dict[str, Route] = {
        "onnxruntime float32": lambda batch: float(inspector.run(batch).score[0]),
        "OpenVINO float32": open_openvino(file.data, "f32"),
        "OpenVINO bfloat16": open_openvino(file.data, "bf16"),
    }
    images = [image for split in ("val", "test") for image in labelled_images(arguments.data, split)]
    bad = np.array([image.defective for image in images])
    scores, times = (np.empty((len(routes), len(images))) for _ in range(2))
    for place, image in enumerate(images):
        batch = inspector.prepare(read_image(image.path))[None]
        for row, route in enumerate(routes.values()):
            begun = time.thread_time()
            scores[row, place] = route(batch)
            times[row, place] = time.thread_time() - begun
    full = scores[0]
    print(f"{len(images)} images, {bad.sum()} defective; verdicts that differ, of all")
    print(f"{'route':<22}{'AUROC':>8}{'speed':>7}{'file':>6}" + "".join(f"{rate:>6.0%}" for rate in RATES))
    for name, own, spent in zip(routes, scores, times, strict=True):
        speed = float(np.median(times[0] / spent))
        flips = [int(((own >= threshold.score) != (full >= threshold.score)).sum())]
        for rate in RATES:
            cuts = [np.quantile(values[~bad], 1.0 - rate) for values in (own, full)]
            flips.append(int(((own >= cuts[0]) != (full >= cuts[1])).sum()))
        print(f"{name:<22}{roc_auc_score(bad, own):>8.4f}{speed:>7.2f}" + "".join(f"{count:>6}" for count in flips))
    again, left = find_band(full, scores[2], threshold.score)
    speed = 1.0 / (1.0 / float(np.median(times[0] / times[2])) + again)
    print(f"cascade at the file's threshold: {again:.1%} judged again, {left} differ, {speed:.2f} times as fast")


if __name__ == "__main__":
    main()
