"""Is the provider openvino-bf16 a faster form of a taught file, and what does it cost in verdicts?

Judges all images of val/ and test/ with each file, on onnxruntime in float32 and on openvino-bf16. It runs on one
thread, with all files in turn for each image, so that other load affects all of them. Each file needs a margin that was
measured on other images (onspect bench MODEL DATA/train/good --margin 90%). Prints for each file its size in MB and the
image AUROC. Then it prints the images a second as a ratio to the first file on onnxruntime: processor time from file to
verdict, and of the model alone. Then follow the share of the images that ran again in float32, and the number of
verdicts that differ from onnxruntime's with the same file and with the first file. The second table has these shares
and numbers at the thresholds that reject 2%, 5%, 10% and 20% of the good images. Needs onspect[cpu,train,openvino] and
a processor with bfloat16.

    python benchmarks/bfloat16.py part.onnx part-fp16.onnx --data magnetic_tile
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from onspect.runtime.dataset.folder import labelled_images
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.doubtful import find_doubtful
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.model.schema import Threshold

RATES = (0.02, 0.05, 0.1, 0.2)
Floats = NDArray[np.float64]


def judge(inspector: Inspector, path: Path) -> tuple[float, float, float]:
    """Return the score of an image file, the seconds of a processor to its verdict, and those of the model alone."""
    begun = time.process_time()
    items = [inspector.prepare_frame(read_image(path))]
    prepared = time.process_time()
    scored = inspector.infer_frames(items)
    inferred = time.process_time()
    (inspection,) = inspector.judge(items, scored)
    assert inspection.verdict.score is not None, inspection.verdict.reason
    return inspection.verdict.score, time.process_time() - begun, inferred - prepared


def print_thresholds(file: ModelFile, full: Floats, fast: Floats, bad: NDArray[np.bool_]) -> None:
    """Print for other thresholds the share of images that run again, and the verdicts that differ."""
    assert file.info.bfloat16 is not None
    cells = []
    for rate in RATES:
        cut = float(np.quantile(full[~bad], 1.0 - rate))
        again = find_doubtful(fast.astype(np.float32), Threshold(cut, cut), file.info.bfloat16)
        decided = np.where(again, full, fast)
        cells.append(f"{again.mean():.1%}, {((decided >= cut) != (full >= cut)).sum()}")
    print(f"{file.path.name:<24}" + "".join(f"{cell:>12}" for cell in cells))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    files = [read_model_file(path) for path in arguments.models]
    routes = [Inspector(file, provider=provider) for file in files for provider in ("cpu", "openvino-bf16")]
    # without a threshold in reach, no image runs again
    routes += [route.with_threshold(replace(route.threshold, score=1e9, review=None)) for route in routes[1::2]]
    images = [image for split in ("val", "test") for image in labelled_images(arguments.data, split)]
    bad = np.array([image.defective for image in images])
    found = np.empty((len(routes), 3, len(images)))
    for place, image in enumerate(images):
        for row in np.roll(range(len(routes)), place):
            found[row, :, place] = judge(routes[row], image.path)
    scores, spent, inferred = found[:, 0], found[:, 1], found[:, 2]
    cuts = [route.file_threshold.score for route in routes]
    verdicts = np.array([own >= cut for own, cut in zip(scores, cuts, strict=True)])
    print(f"{len(images)} images, {bad.sum()} defective; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'file':<24}{'provider':<15}{'MB':>6}{'AUROC':>8}{'images/s':>10}{'model':>7}{'again':>7}{'differ':>14}")
    for row, route in enumerate(routes[: 2 * len(files)]):
        fast = scores[2 * len(files) + row // 2]
        again = float((scores[row] != fast).mean()) if row % 2 else 1.0
        pace, alone = (float(one[0].sum() / one[row].sum()) for one in (spent, inferred))
        own, first = ((verdicts[row] != verdicts[other]).sum() for other in (row - row % 2, 0))
        print(
            f"{files[row // 2].path.name:<24}{route.provider:<15}{len(files[row // 2].data) / 1e6:>6.2f}"
            f"{roc_auc_score(bad, scores[row]):>8.4f}{pace:>10.2f}{alone:>7.2f}{again:>7.1%}{own:>7}{first:>7}"
        )
    print(f"{'at other thresholds':<24}" + "".join(f"{rate:>12.0%}" for rate in RATES))
    for number, file in enumerate(files):
        print_thresholds(file, scores[2 * number], scores[2 * len(files) + number], bad)


if __name__ == "__main__":
    main()
