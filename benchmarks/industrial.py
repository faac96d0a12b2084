"""How well does a memory of good parts find real defects, and at what cost?

For each seed, it teaches DATA/train/good with the default options. It measures image AUROC, false rejects at 95% and
99% recall, pixel AUROC and AUPRO on val/ and test/ together, as the literature does, and on val/ alone. It also
measures the seconds of teaching on all cores, from reading the pictures to the written file; the milliseconds an image
on one core, at the working size and at 256 x 256; and the size of the file in MB. All files accept frames of any size
(--any-size), so that no image is a fault.

Then it draws a few good pictures several times, and fits a memory to each draw as `onspect teach` does. It prints the
mean, lowest and highest image AUROC. Features are extracted once, at the working size of all pictures, and kept in
-o/features; numpy computes the distances. Finished rows are kept in -o/results.json and not measured again. Needs
onspect[cpu,train].

    python benchmarks/industrial.py DATA -o results [--seeds 0,1,2] [--pictures 5,10,20,50,200] [--draws 5]
        [--limit 0] [--skip-speed]
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from onspect.calibration.evaluation import evaluate_images
from onspect.calibration.figures import Evaluation
from onspect.calibration.scores import find_images, part_scores
from onspect.runtime.atomic import write_atomically
from onspect.runtime.dataset.folder import GOOD, training_images
from onspect.runtime.fingerprints import fingerprint_pixels
from onspect.runtime.images.decode import quieten_opencv, read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.teaching import teach
from onspect.runtime.teaching.base_file import FEATURES, BaseFile, edit_graph, fold_channels, parse_base_file
from onspect.runtime.teaching.extract import Extractor, Images, open_session
from onspect.runtime.teaching.fill import fit_images
from onspect.runtime.teaching.memory import Features, score_images
from onspect.runtime.teaching.pictures import load, load_like
from onspect.training.features import make_base

SPLITS = {"val and test": ("val", "test"), "val": ("val",)}
COLUMNS = ("auroc", "fpr_at_95", "fpr_at_99", "pixel_auroc", "aupro")
COSTS = {"seconds": 1, "milliseconds": 1, "milliseconds_256": 1, "megabytes": 2}
TIMED = 40  # images whose time is taken
SMALL = (256, 256)


def teach_timed(pictures: Sequence[Path], model: Path, base: BaseFile, **options: Any) -> float:
    """Teach a file and return the seconds that it took, with reading the pictures and writing the file."""
    started = time.perf_counter()
    teach(pictures, model, base=base, any_size=True, **options)
    return time.perf_counter() - started


def measure(model: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of a model file on each of `SPLITS`."""
    inspector, file = Inspector(model), read_model_file(model)
    found = {}
    for name, splits in SPLITS.items():
        images = [image for split in splits for image in find_images(data, split)]
        evaluation = evaluate_images(inspector, file, images, source=name)
        found[name] = {
            "auroc": evaluation.areas.auroc,
            "fpr_at_95": false_rejects(evaluation, recall=0.95),
            "fpr_at_99": false_rejects(evaluation, recall=0.99),
            "pixel_auroc": evaluation.pixels.areas.auroc,
            "aupro": evaluation.pixels.areas.aupro,
            "kinds": {kind: metrics.areas.auroc for kind, metrics in evaluation.kinds.items()},
        }
    return found


def false_rejects(evaluation: Evaluation, *, recall: float) -> float:
    """Return the smallest share of good images rejected where at least this share of defects is caught."""
    good, defective = part_scores(evaluation.results)
    rates, recalls, _ = roc_curve(np.r_[np.zeros(len(good)), np.ones(len(defective))], np.r_[good, defective])
    return float(rates[recalls >= recall].min())


def time_an_image(model: Path, data: Path) -> float:
    """Return the median milliseconds of one run on one core, over images prepared before."""
    inspector = Inspector(model)
    images = [inspector.prepare(read_image(image.path))[None] for image in find_images(data, "val")[:TIMED]]
    inspector.infer(images[0])
    taken = []
    for _ in range(3):
        for image in images:
            started = time.perf_counter()
            inspector.infer(image)
            taken.append(time.perf_counter() - started)
    return float(np.median(taken) * 1000.0)


@dataclasses.dataclass(frozen=True)
class KeptExtractor(Extractor):
    """Gives features without running the network again on an image that it has seen, also in an earlier process."""

    folder: Path
    seen: dict[str, Features] = dataclasses.field(default_factory=dict)

    def _extract_one(self, image: NDArray[np.uint8]) -> Features:
        name = fingerprint_pixels(image)
        path = self.folder / f"{name}.npz"
        if name not in self.seen and path.exists():
            with np.load(path) as found:
                self.seen[name] = Features([found["fine"]], [found["middle"]], [found["coarse"]])
        elif name not in self.seen:
            self.seen[name] = features = super()._extract_one(image)
            content = io.BytesIO()
            np.savez(content, fine=features.fine[0], middle=features.middle[0], coarse=features.coarse[0])
            write_atomically(path, content.getvalue())
        return self.seen[name]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The images to teach and those to judge, with whether each is defective, at one working size; their extractor."""

    taught: Images
    judged: dict[str, tuple[Images, NDArray[np.bool_]]]
    extractor: KeptExtractor

    @classmethod
    def read(cls, data: Path, base: BaseFile, folder: Path) -> Curve:
        """Read all images of a dataset; features are kept in the folder."""
        found = load(data, None, None, 65535, True, None, None)
        preprocess = found.preprocess
        judged = {}
        for split in ("val", "test"):
            images = {image.path: image.kind != GOOD for image in find_images(data, split)}
            read = load_like(list(images), preprocess, None)
            judged[split] = (read.images, np.array([images[path] for path in read.paths]))
        height, width = ("H", "W") if preprocess.keep_aspect else (preprocess.height, preprocess.width)
        channels = preprocess.channels
        graph = edit_graph(base.graph, fold_channels(base.graph, channels), input_shape=(height, width, channels))
        session = open_session(edit_graph(graph, {}, outputs=FEATURES))
        folder.mkdir(exist_ok=True)
        return cls(found.images, judged, KeptExtractor(session, folder))

    def measure(self, count: int, draw: int) -> dict[str, Any]:
        """Fit a memory to a few pictures, drawn at random, and return the image AUROC on each of `SPLITS`."""
        order = np.random.default_rng([count, draw]).permutation(len(self.taught))[:count]
        copies, fitted = fit_images(self.extractor, self.taught[order], seed=draw)
        memory = fitted.vectors.astype(np.float32)
        scores, defective = {}, {}
        for split, (images, labels) in self.judged.items():
            found = self.extractor.extract(images)
            patches = fitted.metric.patches(found)
            scores[split] = score_images(patches, memory, found.shapes)
            defective[split] = labels
        areas = {
            name: float(
                roc_auc_score(*(np.concatenate([part[split] for split in splits]) for part in (defective, scores)))
            )
            for name, splits in SPLITS.items()
        }
        return {"pictures": count, "draw": draw, "copies": copies} | areas


def measure_seed(pictures: Sequence[Path], data: Path, model: Path, base: BaseFile, *, seed: int) -> dict[str, Any]:
    """Teach all the pictures with a seed and return a row."""
    seconds = teach_timed(pictures, model, base, seed=seed)
    preprocess = read_model_file(model).info.preprocess
    return {
        "seed": seed,
        "size": f"{preprocess.width}x{preprocess.height}",
        "seconds": seconds,
        "megabytes": model.stat().st_size / 1e6,
        "splits": measure(model, data),
    }


def show(rows: Sequence[dict[str, Any]], curve: Sequence[dict[str, Any]]) -> None:
    """Print both tables, with mean and standard deviation over seeds and mean and range over draws."""
    if rows:
        print(f"{'':14}" + "".join(f"{name:>17}" for name in COLUMNS))
    for split in SPLITS if rows else ():
        cells = []
        for name in COLUMNS:
            values = np.array([row["splits"][split][name] for row in rows], float)
            spread = f" ±{values.std(ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}".rjust(17))
        print(f"{split:14}" + "".join(cells))
    for name, digits in COSTS.items():
        costs = [row[name] for row in rows if name in row]
        if costs:
            print(f"{name:18}{np.mean(costs):.{digits}f}")
    if curve:
        print(f"\n{'pictures':14}" + "".join(f"{f'{split}: mean, lowest, highest':>40}" for split in SPLITS))
    for count in sorted({row["pictures"] for row in curve}):
        line = f"{count:<14}"
        for split in SPLITS:
            areas = [row[split] for row in curve if row["pictures"] == count]
            line += f"{np.mean(areas):.3f}, {min(areas):.3f}, {max(areas):.3f}".rjust(40)
        print(line)


def main() -> None:
    """Print the tables and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2", help="of teaching all pictures; empty for the curve alone")
    parser.add_argument("--pictures", default="5,10,20,50,200", help="good pictures of the curve; empty for no curve")
    parser.add_argument("--draws", type=int, default=5, help="times that they are drawn")
    parser.add_argument("--limit", type=int, default=0, help="highest number of pictures to teach; 0 for all")
    parser.add_argument("--skip-speed", action="store_true", help="take no time of an image: for a busy machine")
    chosen = parser.parse_args()
    quieten_opencv()
    chosen.output.mkdir(parents=True, exist_ok=True)
    result = chosen.output / "results.json"
    content: dict[str, Any] = {"data": chosen.data.name, "limit": chosen.limit, "rows": [], "curve": []}
    if result.exists():
        content = json.loads(result.read_text(encoding="utf-8"))
        if content["limit"] != chosen.limit:
            sys.exit(f"{result} was made with --limit {content['limit']}; give another folder with -o")
    base = parse_base_file(Path("base.onnx"), make_base())
    every = training_images(chosen.data)
    pictures = every[: chosen.limit] if chosen.limit else every

    def keep(kind: str, row: dict[str, Any]) -> None:
        content[kind].append(row)
        write_atomically(result, json.dumps(content, indent=1).encode())
        print(json.dumps({name: value for name, value in row.items() if name != "splits"}), file=sys.stderr, flush=True)

    for seed in map(int, filter(None, chosen.seeds.split(","))):
        if seed in [row["seed"] for row in content["rows"]]:
            continue
        model = chosen.output / f"memory-{seed}.onnx"
        row = measure_seed(pictures, chosen.data, model, base, seed=seed)
        if not chosen.skip_speed:
            small = chosen.output / f"memory-{seed}-256.onnx"
            teach(pictures, small, base=base, any_size=True, size=SMALL, seed=seed)
            row["milliseconds"], row["milliseconds_256"] = (time_an_image(path, chosen.data) for path in (model, small))
        keep("rows", row)
    counts = list(map(int, filter(None, chosen.pictures.split(","))))
    done = {(row["pictures"], row["draw"]) for row in content["curve"]}
    curve = None
    for draw in range(chosen.draws):
        for count in counts:
            if (count, draw) not in done:
                curve = curve or Curve.read(chosen.data, base, chosen.output / "features")
                keep("curve", curve.measure(count, draw))
    show(content["rows"], content["curve"])


if __name__ == "__main__":
    main()
