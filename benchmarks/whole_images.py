"""Which constants suit the memory of whole images, and how good is it on MNIST and CIFAR-10 with each class normal?

The score of a whole image has two constants: the length of the mean features at a stride of 16 pixels, relative to
those at 32 (`WHOLE_WEIGHTS`), and the number of nearest whole images (`WHOLE_NEIGHBOURS`). The first table chooses
among them. Of each class, training images are taught (--pictures) and others are held out (--held-out); a cell is the
mean AUROC of the held-out images over the normal classes. No test image is read for it.

With --test, the second table is of the test images with the constants of the product: a row for each normal class, a
column for each anomalous one, and the false rejects at the threshold that catches 99% of all anomalous images. Each
image passes the network once, for all normal classes together, and its features are kept in OUTPUT. --cost teaches a
model file from the pictures of the first class, and prints its processor time, its size, and the time of one image on
one thread. --runs prints false rejects and cost of the autoencoders in an output folder of `onspect compare` on the
same data. Needs onspect[cpu,train].

    python benchmarks/whole_images.py cifar-10-batches-bin -o OUTPUT [--pictures 2000] [--held-out 300] [--test]
        [--cost] [--runs COMPARED]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from onspect.compare.datasets import Dataset, load_dataset
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.teaching import teach
from onspect.runtime.teaching.base_file import edit_graph, fold_channels, parse_base_file, split_metadata
from onspect.runtime.teaching.extract import open_session
from onspect.runtime.teaching.memory import WHOLE_NEIGHBOURS, WHOLE_WEIGHTS
from onspect.runtime.teaching.pictures import choose_working_size
from onspect.training.features import make_base

MEANS = ("whole.mean16", "whole.mean32")
"""Values of the graph: the mean features of whole images, float32 [N, C, 1, 1]."""

WEIGHTS = (0.0, 0.3, 0.5, 0.7, 1.0, 1.5)
NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20)
_BATCH = 20
_RECALL = 0.99
_TIMED = 300  # test images whose time is taken

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def extract(images: NDArray[np.uint8], cache: Path) -> list[Floats]:
    """Return the mean features of images at both strides, each of length 1, [n, C]; read from the cache if it has them.

    Raises SystemExit if the cache is of another number of images.
    """
    if not cache.exists():
        size = (images.shape[1], images.shape[2])
        graph, _ = split_metadata(cache, make_base(image_size=size, working_size=choose_working_size([size])))
        channels = images.shape[3]
        session = open_session(
            edit_graph(graph, fold_channels(graph, channels), input_shape=(*size, channels), outputs=MEANS)
        )
        parts = [
            session.run(list(MEANS), {"image": np.ascontiguousarray(images[start : start + _BATCH])})
            for start in range(0, len(images), _BATCH)
        ]
        means = [np.concatenate([part[place][:, :, 0, 0] for part in parts]) for place in range(len(MEANS))]
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("wb") as file:
            np.savez(file, *means)
    with np.load(cache) as found:
        means = [found[name] for name in found.files]
    if len(means[0]) != len(images):
        raise SystemExit(f"{cache} is of {len(means[0])} images, not {len(images)}; give another folder with -o")
    return [mean / (np.linalg.norm(mean, axis=1, keepdims=True) + 1e-6) for mean in means]


def join(means: Sequence[Floats], weight: float) -> Floats:
    """Return the vectors of whole images with a length of the features at a stride of 16."""
    return np.concatenate([weight * means[0], means[1]], axis=1)


def nearest(queries: Floats, memory: Floats, most: int) -> Floats:
    """Return the distances of each query to the nearest vectors of the memory, [n, most], the nearest first."""
    squares = np.square(memory).sum(axis=1) - 2.0 * queries @ memory.T + np.square(queries).sum(axis=1, keepdims=True)
    lowest = np.sort(np.partition(squares, most - 1, axis=1)[:, :most], axis=1)
    found: Floats = np.sqrt(np.maximum(lowest, 0.0))
    return found


def choose_images(labels: NDArray[np.integer], count: int) -> Indices:
    """Return the places of the first images of each class, class by class."""
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def show_choice(means: Sequence[Floats], labels: NDArray[np.integer], held_out: int) -> None:
    """Print the mean AUROC of held-out training images for each weight and number of neighbours."""
    classes = np.unique(labels)
    held = np.concatenate([np.flatnonzero(labels == label)[-held_out:] for label in classes])
    print("weight of stride 16" + "".join(f"{f'{count} nearest':>12}" for count in NEIGHBOURS))
    for weight in WEIGHTS:
        vectors, areas = join(means, weight), []
        for label in classes:
            taught = np.flatnonzero(labels == label)[:-held_out]
            distances = nearest(vectors[held], vectors[taught], max(NEIGHBOURS))
            anomalous = labels[held] != label
            areas.append([roc_auc_score(anomalous, distances[:, :count].mean(axis=1)) for count in NEIGHBOURS])
        print(f"{weight:<19}" + "".join(f"{area:>12.4f}" for area in np.mean(areas, axis=0)), flush=True)


def show_test(dataset: Dataset, taught: Floats, labels: NDArray[np.integer], tested: Floats) -> None:
    """Print the AUROC of the test images of each class against each normal class, and the means."""
    classes = range(len(dataset.classes))
    names = "".join(f"{name[:8]:>9}" for name in dataset.classes)
    print("\nnormal".ljust(13) + names + f"{'mean':>9}{'rejects':>9}")
    means, rejects = [], []
    for normal in classes:
        scores = nearest(tested, taught[labels == normal], WHOLE_NEIGHBOURS).mean(axis=1)
        areas = {}
        for other in classes:
            chosen = np.isin(dataset.test.labels, (normal, other))
            if other != normal:
                areas[other] = float(roc_auc_score(dataset.test.labels[chosen] == other, scores[chosen]))
        means.append(float(np.mean(list(areas.values()))))
        rejects.append(false_rejects(scores, dataset.test.labels != normal))
        cells = "".join(f"{areas[other]:>9.3f}" if other in areas else f"{'-':>9}" for other in classes)
        print(f"{dataset.classes[normal]:12}{cells}{means[-1]:>9.3f}{rejects[-1]:>9.3f}", flush=True)
    print(f"mean over the normal classes: {np.mean(means):.4f}, false rejects at 99% recall {np.mean(rejects):.4f}")


def false_rejects(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> float:
    """Return the smallest share of normal images rejected where at least 99% of the anomalous ones are caught."""
    rates, recalls, _ = roc_curve(anomalous, scores)
    return float(rates[recalls >= _RECALL].min())


def time_an_image(model: Path, dataset: Dataset) -> float:
    """Return the median milliseconds of processor time of one test image on one thread."""
    inspector = Inspector(model, provider="cpu")
    taken = []
    for frame in dataset.test.images[:_TIMED]:
        image = inspector.prepare(frame)[None]
        started = time.process_time()
        inspector.infer(image)
        taken.append(time.process_time() - started)
    return float(np.median(taken) * 1000.0)


def show_cost(dataset: Dataset, places: Indices, output: Path) -> None:
    """Teach a model file from the pictures at these places, and print its cost."""
    folder, model = output / "pictures", output / "taught.onnx"
    folder.mkdir(exist_ok=True)
    for place in places:
        cv2.imwrite(str(folder / f"{place:05}.png"), dataset.train.images[place])
    base = parse_base_file(output / "base.onnx", make_base())
    started = time.process_time()
    teach(sorted(folder.glob("*.png")), model, base=base)
    seconds = time.process_time() - started
    print(f"\nmemory of {len(places)} pictures: {seconds:.0f} s of processor time to teach, ", end="")
    print(f"{model.stat().st_size / 1e6:.1f} MB, {time_an_image(model, dataset):.2f} ms for one image", flush=True)


def show_runs(dataset: Dataset, folder: Path) -> None:
    """Print the figures of the autoencoders that `onspect compare` has left in a folder."""
    for path in sorted(folder.glob("runs/*/*/*.npy")):
        anomalous = dataset.test.labels != dataset.classes.index(path.parts[-3])
        scores = np.load(path, allow_pickle=False)
        model = path.with_suffix(".onnx")
        seconds = json.loads((path.parent / "trained.json").read_bytes())["cpu_seconds"]
        print(
            f"{path.parts[-3]}, {path.parts[-2]}, {path.stem}: AUROC {roc_auc_score(anomalous, scores):.4f}, "
            f"false rejects at 99% recall {false_rejects(scores, anomalous):.4f}, processor time to train {seconds} s, "
            f"{model.stat().st_size / 1e6:.2f} MB, {time_an_image(model, dataset):.2f} ms for one image",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=2000, help="training images of each class that are taught")
    parser.add_argument("--held-out", type=int, default=300, help="others of each class, for the first table")
    parser.add_argument("--test", action="store_true", help="measure the test images with the product's constants")
    parser.add_argument("--cost", action="store_true", help="teach the first class, and measure the model file")
    parser.add_argument("--runs", type=Path, help="an output folder of `onspect compare`, to measure as well")
    chosen = parser.parse_args()
    dataset = load_dataset(chosen.data)
    places = choose_images(dataset.train.labels, chosen.pictures + chosen.held_out)
    labels = dataset.train.labels[places]
    means = extract(dataset.train.images[places], chosen.output / "train.npz")
    show_choice(means, labels, chosen.held_out)
    if chosen.test:
        weight = WHOLE_WEIGHTS[16] / WHOLE_WEIGHTS[32]
        kept = np.concatenate([np.flatnonzero(labels == label)[: -chosen.held_out] for label in np.unique(labels)])
        tested = join(extract(dataset.test.images, chosen.output / "test.npz"), weight)
        show_test(dataset, join(means, weight)[kept], labels[kept], tested)
    if chosen.cost:
        show_cost(dataset, places[labels == labels[0]][: chosen.pictures], chosen.output)
    if chosen.runs:
        show_runs(dataset, chosen.runs)


if __name__ == "__main__":
    main()
