"""Which changes of the memory find more defects, or mark them better? Each change is tried on several data sets.

`--set tiles=DATA` takes train/good and val/ of a dataset folder with ground_truth/. `--set surfaces` draws grained
surfaces with faint cracks, specks and wide patches of another grain (120 good images to teach; 60 good and 90
defective ones to judge). `--set parts` draws the parts of `onspect demo` (160 good images to teach).
`--set cuts` draws surfaces cut to random shapes, and `--set framed` draws parts in pictures of random shapes: datasets
in OUTPUT for `onspect teach`.

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
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.metrics import roc_auc_score, roc_curve

from onspect.calibration.metrics.pixel import PixelEvidence, decode_mask
from onspect.demo.parts import DEFECT_KINDS, draw_dataset, draw_part
from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.images.decode import quieten_opencv, read_image
from onspect.runtime.teaching import memory
from onspect.runtime.teaching.base_file import FEATURES, edit_graph, fold_channels, parse_base_file
from onspect.runtime.teaching.extract import Extractor, open_session
from onspect.runtime.teaching.memory import Coreset, Features, Metric, learn_metric, nearest_distances
from onspect.runtime.teaching.pictures import load
from onspect.training.features import make_base

SIDE = 256
LARGE = 416
PART = 192
Floats = NDArray[np.float32]


def draw_surfaces(folder: Path, *, cut: bool = False) -> None:
    """Write a dataset folder of surfaces, some with cracks, specks or wide patches; cut: to random shapes."""
    plan = {"train/good": 120, "val/good": 60, "val/crack": 30, "val/speck": 30, "val/patch": 30}
    for number, (name, count) in enumerate(plan.items()):
        kind = name.split("/")[1]
        for index in range(count):
            random = np.random.default_rng([number, index])
            image, mask = draw_surface(random, kind, LARGE if cut else SIDE)
            if cut:
                image, mask = cut_shape(random, image, mask)
            write(folder / name / f"{index:03d}.png", image)
            if kind != "good":
                write(folder / "ground_truth" / name / f"{index:03d}_mask.png", mask)


def cut_shape(random: np.random.Generator, *planes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the middle of planes as a rectangle of a random aspect ratio, 0.4 to 2.5, and about SIDE * SIDE pixels."""
    ratio = np.exp(random.uniform(-0.9, 0.9))
    height, width = (min(LARGE, round(SIDE * factor)) for factor in (np.sqrt(ratio), 1.0 / np.sqrt(ratio)))
    top, left = (LARGE - height) // 2, (LARGE - width) // 2
    return [plane[top : top + height, left : left + width] for plane in planes]


def draw_framed(folder: Path) -> None:
    """Write a dataset folder of the demo's parts in pictures that are wider or higher than the part, at random."""
    plan = {"train/good": 60, "val/good": 40, **{f"val/{kind}": 20 for kind in DEFECT_KINDS}}
    for number, (name, count) in enumerate(plan.items()):
        kind = None if name.endswith("good") else name.split("/")[1]
        for index in range(count):
            random = np.random.default_rng([number, index])
            image, mask = draw_part(random, kind, PART)
            ratio = float(np.exp(random.uniform(-0.9, 0.9)))
            more = round(PART * max(ratio, 1.0 / ratio)) - PART
            before = int(random.integers(0, more + 1))
            widths = ((0, 0), (before, more - before)) if ratio > 1.0 else ((before, more - before), (0, 0))
            noisy = np.pad(image, widths, mode="edge") + random.normal(0, 2, [PART + sum(width) for width in widths])
            write(folder / name / f"{index:03d}.png", np.asarray(noisy.clip(0, 255), np.uint8))
            if kind is not None:
                write(folder / "ground_truth" / name / f"{index:03d}_mask.png", np.pad(mask, widths))


def write(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise SystemExit(f"cannot write {path}")


def draw_surface(random: np.random.Generator, kind: str, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a grey surface and the mask of its defect."""

    def grain(across: float, down: float) -> Floats:
        noise = random.standard_normal((side, side)).astype(np.float32)
        blurred = cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=down)
        return np.asarray(blurred / blurred.std(), np.float32)

    image = 110.0 + 25.0 * random.standard_normal() + grain(0.6, 0.6) * random.uniform(4, 9)
    image = image + grain(12, 0.7) * (4.0 + 9.0 * random.uniform()) + grain(40, 40) * random.uniform(2, 6)
    image = image + np.linspace(-1, 1, side)[None] * random.uniform(-8, 8)
    mask = np.zeros((side, side), np.uint8)
    if kind == "crack":
        points, angle = [random.uniform(40, side - 40, 2)], random.uniform(0.0, 2.0 * np.pi)
        for _ in range(int(random.integers(4, 14))):
            angle += random.normal(0.0, 0.5)
            points.append(points[-1] + 8.0 * np.array([np.cos(angle), np.sin(angle)]))
        cv2.polylines(mask, [np.array(points, np.int32)], False, 255, int(random.integers(1, 3)))
        image = image - cv2.GaussianBlur(mask, (0, 0), 0.7) / 255.0 * random.uniform(20, 45)
    elif kind == "speck":
        centre = [int(place) for place in random.integers(15, side - 15, 2)]
        cv2.circle(mask, centre, int(random.integers(2, 7)), 255, -1)
        image = image + np.sign(random.normal()) * cv2.GaussianBlur(mask, (0, 0), 1) / 255.0 * random.uniform(18, 40)
    elif kind == "patch":
        wide = grain(45, 45)
        mask = np.where(wide > np.quantile(wide, random.uniform(0.6, 0.85)), 255, 0).astype(np.uint8)
        share = cv2.GaussianBlur(mask, (0, 0), 4) / 255.0
        other = image.mean() + grain(0.8, 8) * random.uniform(3, 8) + grain(0.6, 0.6) * random.uniform(4, 9)
        image = image * (1.0 - share) + (other + random.uniform(-18, 18)) * share
    return np.asarray(np.clip(image, 0, 255), np.uint8), mask


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


def read(data: Path, padding: str, cache: Path) -> DataSet:
    """Read a dataset folder with the network's convolutions padded in a way."""
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


MAPS: dict[str, Callable[[Fitted], Floats]] = {
    "map": lambda fitted: fitted.marks,
    "score": lambda fitted: fitted.distances,
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
    parser.add_argument("--set", required=True, help="tiles=DATA, surfaces, parts, cuts or framed")
    parser.add_argument("--padding", choices=("zeros", "edge", "reflect"), default="zeros", help="of the convolutions")
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
        if name == "parts":
            draw_dataset(part, seed=0, size=SIDE)
        elif name == "framed":
            draw_framed(part)
        else:
            draw_surfaces(part, cut=name == "cuts")
        part.rename(data)
    found = read(data, chosen.padding, chosen.output / f"{name}-{chosen.padding}.npz")
    tries = [*SCORES, *MAPS] if chosen.only is None else chosen.only.split(",")
    print(f"{chosen.set}, {chosen.pictures or len(found.taught)} pictures, seeds {chosen.seeds}, {chosen.padding}")
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    fitted = []
    for seed in seeds:
        order = np.random.default_rng([chosen.pictures, seed]).permutation(len(found.taught))
        fitted.append(fit(found.taught.take(order[: chosen.pictures or None]), found.judged, seed))
    for change in tries:
        started = time.perf_counter()
        if change in SCORES:
            cells = [measure_score(found, SCORES[change](one)) for one in fitted]
        else:
            cells = [measure_map(found, MAPS[change](one)) for one in fitted]
        print(f"{change:32}{'   '.join(cells)}   {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
