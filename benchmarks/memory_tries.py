"""Which changes of the memory find more defects, or mark them better? Each change is tried on several data sets.

`--set tiles=DATA` takes train/good and val/ of a dataset folder with ground_truth/. The other sets are drawn
(drawn_sets.py): `surfaces` are grained surfaces with faint cracks, specks and wide patches of another grain (120 good
images to teach; 60 good and 90 defective ones to judge). Surfaces of `changed` have changed as a whole. `parts` are
those of `onspect demo` (160 good images to teach). `cuts` are surfaces cut to random shapes, and `framed` are parts in
pictures of random shapes: datasets in OUTPUT for `onspect teach`.

A row is one change of the score or of the error map: image AUROC and false rejects at 99% recall, or pixel AUROC and
AUPRO. Copies of pictures are off, and all images have one size. Features are extracted once and kept in OUTPUT. Needs
onspect[cpu,train].

    python benchmarks/memory_tries.py -o OUTPUT --set tiles=magnetic_tile [--pictures 0] [--seeds 0] [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import onnx
from drawn_sets import SETS
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from onspect.calibration.metrics.pixel import PixelEvidence, decode_mask
from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.images.decode import quieten_opencv, read_image
from onspect.runtime.teaching import memory
from onspect.runtime.teaching.base_file import FEATURES, edit_graph, fold_channels, parse_base_file
from onspect.runtime.teaching.extract import Extractor, open_session
from onspect.runtime.teaching.memory import Coreset, Features, Metric, learn_metric, nearest_distances
from onspect.runtime.teaching.pictures import load
from onspect.training.features import make_base

Floats = NDArray[np.float32]


def pad(graph: bytes, mode: str) -> bytes:
    """Return a graph whose convolutions continue the image at its border in a mode of ONNX's Pad, not with zeros."""
    model = onnx.load_from_string(graph)
    nodes = []
    for node in model.graph.node:
        for attribute in list(node.attribute):
            if node.op_type == "Conv" and attribute.name == "pads" and any(attribute.ints):
                top, left, bottom, right = attribute.ints
                name = f"{node.name}.pad"
                widths = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
                model.graph.initializer.append(numpy_helper.from_array(widths, f"{name}.widths"))
                nodes.append(helper.make_node("Pad", [node.input[0], f"{name}.widths"], [name], mode=mode))
                node.input[0] = name
                node.attribute.remove(attribute)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    padded: bytes = model.SerializeToString()
    return padded


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Features of the good images to teach and of the images to judge, with their masks."""

    taught: Features
    judged: Features
    defective: NDArray[np.bool_]
    masks: list[NDArray[np.bool_] | None]
    """At the size of the frame; None for a defect without a mask."""


def read(data: Path, padding: str, scale: float, cache: Path) -> DataSet:
    """Read a dataset folder at a multiple of the usual size, with the network's convolutions padded in a way."""
    images = labelled_images(data, "val")
    masks: list[NDArray[np.bool_] | None] = []
    for image in images:
        if image.mask is not None:
            masks.append(decode_mask(read_image(image.mask)))
        else:
            masks.append(None if image.defective else np.zeros(read_image(image.path).shape[:2], np.bool_))
    defective = np.array([image.defective for image in images])
    if not cache.exists():
        good = load(training_images(data), None, None, 65535, True, None, None, one_size=True)
        height, width, channels = good.images.shape[1:]
        if scale != 1.0:
            height, width = (32 * max(1, round(side * scale / 32)) for side in (height, width))
            good = load(training_images(data), (width, height), channels, 65535, True, None, None)
        found = load([image.path for image in images], (width, height), channels, 65535, True, None, None)
        places = {path: place for place, path in enumerate(found.paths)}
        judged = found.images[[places[image.path] for image in images]]
        base = parse_base_file(cache, make_base())
        graph = edit_graph(base.graph, fold_channels(base.graph, channels), input_shape=(height, width, channels))
        graph = edit_graph(graph, {}, outputs=FEATURES)
        extractor = Extractor(open_session(graph if padding == "zeros" else pad(graph, padding)))
        features = {
            f"{name}.{field.name}": getattr(part, field.name)
            for name, part in (("taught", extractor.extract(good.images)), ("judged", extractor.extract(judged)))
            for field in dataclasses.fields(part)
        }
        with cache.open("wb") as file:
            np.savez(file, **features)
    with np.load(cache) as kept:
        taught, tested = (
            Features(*(kept[f"{name}.{field.name}"] for field in dataclasses.fields(Features)))
            for name in ("taught", "judged")
        )
    return DataSet(taught, tested, defective, masks)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A memory, and what it finds in the images to judge."""

    taught: Features
    judged: Features
    metric: Metric
    patches: Floats
    """Whitened vectors of the images to judge, [n, h * w, components]."""
    distances: Floats
    """Distances of the score at each place, [n, h, w]."""
    marks: Floats
    """The error map, [n, h, w]."""
    seed: int


def fit(taught: Features, judged: Features, seed: int) -> Fitted:
    """Fit a memory as `onspect teach` does, and judge."""
    metric = learn_metric(taught, len(taught), seed=seed)
    shape = judged.shapes[0]
    patches = np.stack(metric.patches(judged))
    distances = search(patches, metric.patches(taught), memory.PATCH_VECTORS, memory.PATCH_POOL, seed)
    marks = search(np.stack(metric.places(judged)), metric.places(taught), memory.MAP_VECTORS, memory.MAP_POOL, seed)
    return Fitted(taught, judged, metric, patches, distances.reshape(-1, *shape), marks.reshape(-1, *shape), seed)


def search(queries: Floats, vectors: Sequence[Floats], count: int, pool: int, seed: int) -> Floats:
    """Return the distances of queries, [n, places, components], to a coreset of good vectors, [places, components]."""
    flat = np.concatenate(vectors)
    chosen = Coreset(flat, np.zeros(len(flat), np.intp), pool, seed=seed).choose(count).indices
    return nearest_distances(queries, flat[chosen].astype(np.float16).astype(np.float32))


def score(maps: Floats, highest: int = memory.HIGHEST) -> Floats:
    """Return the mean of the highest places of maps smoothed by a 3 x 3 mean."""
    smooth = np.stack([cv2.blur(one, (3, 3), borderType=cv2.BORDER_REPLICATE).ravel() for one in maps])
    return np.asarray(np.sort(smooth, axis=1)[:, -highest:].mean(axis=1), np.float32)


def usual(values: Floats) -> Floats:
    """Return values divided by their median, so that two scores can be added."""
    return values / np.median(values)


def without_mean(features: Features, share: float) -> Features:
    """Return features less a share of each image's mean features."""
    parts = []
    for stage in (features.fine, features.middle, features.coarse):
        values = np.stack(stage).astype(np.float32)
        parts.append(list((values - share * values.mean(axis=(2, 3), keepdims=True)).astype(np.float16)))
    return Features(*parts)


def blurred(features: Features, middle: int, coarse: int) -> Features:
    """Return features with means over a square of places at the strides of 16 and 32."""

    def blur(stage: Sequence[NDArray[np.float16]], side: int) -> list[NDArray[np.float16]]:
        return [
            np.stack([cv2.blur(plane.astype(np.float32), (side, side)) for plane in image]).astype(np.float16)
            for image in stage
        ]

    return Features(features.fine, blur(features.middle, middle), blur(features.coarse, coarse))


def gaussian(fitted: Fitted, shrink: float = 0.1) -> Floats:
    """Return the Mahalanobis distance of each place to one Gaussian over all places of the good images, [n, h, w]."""
    good = np.concatenate(list(fitted.metric.raw_patches(fitted.taught)))
    mean = good.mean(axis=0)
    covariance = np.cov(good.T)
    covariance += shrink * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, directions = np.linalg.eigh(covariance)
    whiten = (directions / np.sqrt(variances)).astype(np.float32)
    found = [np.linalg.norm((one - mean) @ whiten, axis=1) for one in fitted.metric.raw_patches(fitted.judged)]
    return np.stack(found).reshape(fitted.distances.shape).astype(np.float32)


def close(maps: Floats, side: int) -> Floats:
    """Return maps closed over a square of places: holes in marked areas are filled."""
    element = np.ones((side, side), np.uint8)
    return np.stack([cv2.morphologyEx(one, cv2.MORPH_CLOSE, element, borderType=cv2.BORDER_REPLICATE) for one in maps])


def refit(fitted: Fitted, change: Callable[[Features], Features]) -> Fitted:
    """Return a memory of changed features."""
    return fit(change(fitted.taught), change(fitted.judged), fitted.seed)


def with_constant(fitted: Fitted, name: str, value: object) -> Floats:
    """Return the score with another value of a constant of the memory."""
    with patch.object(memory, name, value):
        return score(fit(fitted.taught, fitted.judged, fitted.seed).distances)


def pool_repeated(stage: Floats) -> Floats:
    """Return the mean over 3 x 3 places with the border repeated, not with zeros outside the image."""
    return np.stack([cv2.blur(plane, (3, 3), borderType=cv2.BORDER_REPLICATE) for plane in stage])


def mean_of_five(fitted: Fitted) -> Floats:
    """Return the score by the mean distance to the five nearest vectors."""
    flat = np.concatenate(fitted.metric.patches(fitted.taught))
    coreset = Coreset(flat, np.zeros(len(flat), np.intp), memory.PATCH_POOL, seed=fitted.seed)
    vectors = flat[coreset.choose(memory.PATCH_VECTORS).indices]
    squares, maps = np.square(vectors).sum(axis=1), []
    for rows in fitted.patches:
        found = np.partition(squares - 2.0 * rows @ vectors.T, 4, axis=1)[:, :5] + np.square(rows).sum(1)[:, None]
        maps.append(np.sqrt(np.maximum(found, 0.0)).mean(axis=1))
    return score(np.stack(maps).reshape(fitted.distances.shape))


def plus_whole(fitted: Fitted) -> Floats:
    """Return the score, plus a quarter of the whole image's distance."""
    good, judged = (memory.whole_vectors(part).astype(np.float16) for part in (fitted.taught, fitted.judged))
    return usual(score(fitted.distances)) + 0.25 * usual(memory.score_whole(judged, good))


def among_nearest(fitted: Fitted, count: int) -> Floats:
    """Return the score by the memory of the good images alone whose mean features are nearest to the image's."""
    good, judged = (memory.whole_vectors(part) for part in (fitted.taught, fitted.judged))
    blocks, shape = fitted.metric.patches(fitted.taught), fitted.judged.shapes[0]
    found = []
    for whole, rows in zip(judged, fitted.patches, strict=True):
        nearest = np.argsort(np.square(good - whole).sum(axis=1), kind="stable")[:count]
        found.append(search(rows, [blocks[place] for place in nearest], memory.PATCH_VECTORS, 8000, fitted.seed))
    return score(np.stack(found).reshape(-1, *shape))


def by_density(fitted: Fitted, neighbours: int = 5) -> Floats:
    """Return the score with each vector's distances divided by its own distance to a neighbour in the memory."""
    flat = np.concatenate(fitted.metric.patches(fitted.taught))
    coreset = Coreset(flat, np.zeros(len(flat), np.intp), memory.PATCH_POOL, seed=fitted.seed)
    vectors = flat[coreset.choose(memory.PATCH_VECTORS).indices]
    squares = np.square(vectors).sum(axis=1)

    def measure(rows: Floats) -> Floats:
        """Return the squared distances of rows to all vectors, [rows, vectors]."""
        return np.asarray(np.maximum(squares - 2.0 * rows @ vectors.T + np.square(rows).sum(1)[:, None], 0.0))

    parts = (vectors[start : start + 256] for start in range(0, len(vectors), 256))
    radii = np.concatenate([np.partition(measure(part), neighbours, axis=1)[:, neighbours] for part in parts])
    weights = np.median(radii) / np.maximum(radii, 1e-3 * np.median(radii))
    found = [np.sqrt((measure(rows) * weights).min(axis=1)) for rows in fitted.patches]
    return score(np.stack(found).reshape(fitted.distances.shape))


def reweigh_mean(fitted: Fitted, share: float, weight: float) -> Floats:
    """Return the score of vectors less a share of the image's mean vector, which is appended with a weight."""

    def change(blocks: Sequence[Floats]) -> list[Floats]:
        means = [block.mean(axis=0, keepdims=True) for block in blocks]
        return [
            np.hstack([block - share * mean, np.repeat(weight * mean, len(block), axis=0)])
            for block, mean in zip(blocks, means, strict=True)
        ]

    queries, vectors = (change(fitted.metric.patches(part)) for part in (fitted.judged, fitted.taught))
    found = search(np.stack(queries), vectors, memory.PATCH_VECTORS, memory.PATCH_POOL, fitted.seed)
    return score(found.reshape(fitted.distances.shape))


def plus_length(fitted: Fitted) -> Floats:
    """Return the score with half of the length of the whitened vector added to each distance."""
    lengths = np.linalg.norm(fitted.patches, axis=2).reshape(fitted.distances.shape)
    return score(fitted.distances + 0.5 * lengths)


SCORES: dict[str, Callable[[Fitted], Floats]] = {
    "none": lambda fitted: score(fitted.distances),
    "components-256": lambda fitted: with_constant(fitted, "PATCH_DIMENSIONS", (256, 256)),
    "components-400": lambda fitted: with_constant(fitted, "PATCH_DIMENSIONS", (400, 400)),
    "without-mean": lambda fitted: score(refit(fitted, lambda part: without_mean(part, 1.0)).distances),
    "without-half-mean": lambda fitted: score(refit(fitted, lambda part: without_mean(part, 0.5)).distances),
    "mean-apart": lambda fitted: reweigh_mean(fitted, 0.5, 1.0),
    "nearest-10": lambda fitted: among_nearest(fitted, 10),
    "density": by_density,
    "plus-length": plus_length,
    "whitening-0": lambda fitted: with_constant(fitted, "PATCH_WHITENING", 0.0),
    "whitening-1": lambda fitted: with_constant(fitted, "PATCH_WHITENING", 1.0),
    "floor-0.1": lambda fitted: with_constant(fitted, "FLOOR", (0.1, 0.1)),
    "floor-0.5": lambda fitted: with_constant(fitted, "FLOOR", (0.5, 0.5)),
    "floor-1": lambda fitted: with_constant(fitted, "FLOOR", (1.0, 1.0)),
    "border-repeated": lambda fitted: with_constant(fitted, "_pool", pool_repeated),
    "mean-of-five": mean_of_five,
    "highest-1": lambda fitted: score(fitted.distances, 1),
    "highest-20": lambda fitted: score(fitted.distances, 20),
    "plus-gaussian": lambda fitted: usual(score(fitted.distances)) + usual(score(gaussian(fitted))),
    "gaussian": lambda fitted: score(gaussian(fitted)),
    "plus-wide": lambda fitted: (
        usual(score(fitted.distances)) + 0.25 * usual(score(refit(fitted, lambda part: blurred(part, 9, 5)).distances))
    ),
    "plus-whole": plus_whole,
    "plus-map": lambda fitted: usual(score(fitted.distances)) + 0.25 * usual(score(fitted.marks)),
}
"""Changes of the score, by name. Each returns float32 [n]."""


def both(fitted: Fitted, share: float) -> Floats:
    """Return the error map, plus a share of the score's distances; each is divided by its median over all places."""
    return usual(fitted.marks) + share * usual(fitted.distances)


def search_map(fitted: Fitted, count: int, pool: int) -> Floats:
    """Return the error map by a memory of another size."""
    queries, vectors = (fitted.metric.places(part) for part in (fitted.judged, fitted.taught))
    return search(np.stack(queries), vectors, count, pool, fitted.seed).reshape(fitted.marks.shape)


def smooth(maps: Floats, sigma: float) -> Floats:
    """Return maps smoothed by a Gaussian."""
    return np.stack([cv2.GaussianBlur(one, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for one in maps])


def supervise(fitted: Fitted, masks: Sequence[NDArray[np.bool_] | None]) -> Floats:
    """Return the error map of a linear classifier that learned the masks of four fifths of the judged images."""
    rows, columns = fitted.judged.shapes[0]
    vectors = fitted.metric.places(fitted.judged)
    marked: dict[int, NDArray[np.bool_]] = {}
    for place, mask in enumerate(masks):
        if mask is not None:
            shares = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
            marked[place] = shares.ravel() > 0.5
    maps = np.zeros((len(vectors), rows, columns), np.float32)
    for fold in range(5):
        known = [place for place in marked if place % 5 != fold]
        classifier = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
        labels = np.concatenate([marked[place] for place in known])
        classifier.fit(np.concatenate([vectors[place] for place in known]), labels)
        for place in range(fold, len(vectors), 5):
            maps[place] = classifier.predict_proba(vectors[place])[:, 1].reshape(rows, columns)
    return maps


MAPS: dict[str, Callable[[Fitted], Floats]] = {
    "map": lambda fitted: fitted.marks,
    "score": lambda fitted: fitted.distances,
    "map-without-half-mean": lambda fitted: refit(fitted, lambda part: without_mean(part, 0.5)).marks,
    "map-quarter-score": lambda fitted: both(fitted, 0.25),
    "map-half-score": lambda fitted: both(fitted, 0.5),
    "map-half-score-closed-5": lambda fitted: close(both(fitted, 0.5), 5),
    "map-half-score-closed-9": lambda fitted: close(both(fitted, 0.5), 9),
    "map-4000": lambda fitted: search_map(fitted, 4000, 80_000),
    "map-closed-9": lambda fitted: close(fitted.marks, 9),
    "map-plus-smooth": lambda fitted: fitted.marks + smooth(fitted.marks, 2.0),
    "map-times-root-score": lambda fitted: fitted.marks * np.sqrt(usual(score(fitted.distances)))[:, None, None],
    "map-plus-mean": lambda fitted: fitted.marks + fitted.marks.mean(axis=(1, 2), keepdims=True),
    "map-half-score-half-gaussian": lambda fitted: both(fitted, 0.5) + 0.5 * usual(gaussian(fitted)),
}
"""Changes of the error map, by name. Each returns float32 [n, h, w]."""


def measure_score(data: DataSet, scores: Floats) -> str:
    """Return image AUROC and false rejects at 99% recall as text."""
    rates, recalls, _ = roc_curve(data.defective, scores)
    return f"{roc_auc_score(data.defective, scores):.3f} ({rates[recalls >= 0.99].min():.2f})"


def measure_map(data: DataSet, maps: Floats) -> str:
    """Return pixel AUROC and AUPRO as text, at the masks' size."""
    evidence = PixelEvidence()
    for one, mask in zip(maps, data.masks, strict=True):
        if mask is not None:
            evidence.add(one, mask)
    areas = evidence.measure()
    return f"{areas.auroc:.3f}, {areas.aupro:.3f}"


def main() -> None:
    """Print a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--set", required=True, help=f"tiles=DATA, {', '.join(SETS)}")
    parser.add_argument("--padding", choices=("zeros", "edge", "reflect"), default="zeros", help="of the convolutions")
    parser.add_argument("--scale", type=float, default=1.0, help="multiple of the usual working size")
    parser.add_argument("--pictures", type=int, default=0, help="good images to teach, drawn at random; 0 for all")
    parser.add_argument("--seeds", default="0", help="seeds of the draw and of the memory")
    parser.add_argument("--only", help="changes to try")
    chosen = parser.parse_args()
    quieten_opencv()
    chosen.output.mkdir(parents=True, exist_ok=True)
    name, _, folder = chosen.set.partition("=")
    data = Path(folder) if folder else chosen.output / name
    if not folder and not data.exists():
        part = chosen.output / f"{name}.part"
        part.mkdir()
        SETS[name](part)
        part.rename(data)
    kept = chosen.output / f"{name}-{chosen.padding}-{chosen.scale}.npz"
    found = read(data, chosen.padding, chosen.scale, kept)
    tries = [*SCORES, *MAPS, "supervised"] if chosen.only is None else chosen.only.split(",")
    count = chosen.pictures or len(found.taught)
    print(f"{chosen.set}, {count} pictures, seeds {chosen.seeds}, {chosen.padding}, scale {chosen.scale}")
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    fitted = []
    for seed in seeds:
        order = np.random.default_rng([chosen.pictures, seed]).permutation(len(found.taught))
        fitted.append(fit(found.taught.take(order[: chosen.pictures or None]), found.judged, seed))
    for change in tries:
        started = time.perf_counter()
        if change in SCORES:
            cells = [measure_score(found, SCORES[change](one)) for one in fitted]
        elif change == "supervised":
            cells = [measure_map(found, supervise(one, found.masks)) for one in fitted]
        else:
            cells = [measure_map(found, MAPS[change](one)) for one in fitted]
        print(f"{change:32}{'   '.join(cells)}   {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
