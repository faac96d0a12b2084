"""How much does alignment help if parts are shifted by up to 20% of the frame and turned by up to 180 degrees?

Draws frames of 640 x 480 pixels with one part each: the demo's synthetic flanges, and (with --tiles) photographed
magnetic tiles, scaled to 216 x 144 pixels and one brightness, in a drawn holder with a notch. For each kind of part it
teaches three files from 40 good frames. It measures the image AUROC on new good and defective frames: 100 and 100
flanges, or all tiles of the test set.

  still            all parts in one place, inside a region of interest
  moved, --align   all parts shifted and turned, in teaching too; each is found and turned back before the crop
  moved            the same frames without --align; the whole frame is judged, since no region contains the parts

With --drawings N the first two are repeated N times, each time with other tiles to teach and with other places, turns
and noise. The file of the moved parts then judges the still ones as well: memory and parts are the same, and only the
place differs. The mean difference has a 95% interval over the drawings (Student's t). Without --drawings the standard
error comes from a bootstrap of the parts. The error of the pose is measured too, and the milliseconds of processor time
that the search takes on one core. Needs onspect[cpu,train].

    python benchmarks/alignment.py [--tiles DATA] [--only flanges|tiles] [--drawings N] [-o FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the search is timed as in `onspect run`

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from onspect.demo.parts import DEFECT_KINDS, draw_part
from onspect.runtime.images.align import find_part
from onspect.runtime.images.decode import quieten_opencv, read_image
from onspect.runtime.images.region import Reference, RegionFile
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.teaching import teach
from onspect.runtime.teaching.base_file import BaseFile, parse_base_file
from onspect.training.features import make_base

WIDTH, HEIGHT = 640, 480
SHIFT, TURN = 0.2, 180.0
TAUGHT, GOOD, DEFECTIVE = 40, 100, 100
FLANGE, RADIUS = 240, 106
TILE, RIM, GAP = (216, 144), 16, 6
TILE_GREY = 90.0  # median of a tile, as a line's own exposure would give it
TIMED = 200
RESAMPLES = 400
PAIRED = "moved, --align, against still parts judged by its file"

Part = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of part. counts: numbers of taught, good and defective parts. draw: returns part `index` of one."""

    name: str
    counts: dict[str, int]
    draw: Callable[[str, int], Part]
    mask: NDArray[np.float32]
    ground: float
    region: RegionFile


def draw_scene(kind: Kind, part: Part, pose: tuple[float, float, float], rng: np.random.Generator) -> Part:
    """Return a frame with the part's middle at x, y, turned counter-clockwise by degrees."""
    x, y, angle = pose
    height, width = part.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2.0, (height - 1) / 2.0), angle, 1.0)
    matrix[:, 2] += (x - 0.5 - (width - 1) / 2.0, y - 0.5 - (height - 1) / 2.0)
    size, grey = (WIDTH, HEIGHT), part.astype(np.float32)
    shown = cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(kind.mask, matrix, size)
    frame = kind.ground * (1.0 - cover) + shown * cover + rng.normal(0.0, 1.0, (HEIGHT, WIDTH))
    return np.asarray(np.clip(np.rint(frame), 0, 255), np.uint8)


def choose_pose(rng: np.random.Generator, *, moves: bool) -> tuple[float, float, float]:
    """Return the middle of the frame and no turn, or a shift and a turn."""
    if not moves:
        return WIDTH / 2.0, HEIGHT / 2.0, 0.0
    across, down = rng.uniform(-SHIFT, SHIFT, 2)
    return WIDTH * (0.5 + across), HEIGHT * (0.5 + down), float(rng.uniform(-TURN, TURN))


def flanges(drawing: int) -> Kind:
    """Return the demo's synthetic parts; each drawing has its own."""
    mask = np.zeros((FLANGE, FLANGE), np.float32)
    cv2.circle(mask, (FLANGE // 2, FLANGE // 2), round(0.46 * FLANGE), (1.0,), -1)
    corners = tuple(
        (round(WIDTH / 2 + RADIUS * np.cos(turn)), round(HEIGHT / 2 + RADIUS * np.sin(turn)))
        for turn in np.deg2rad(np.arange(0, 360, 15))
    )

    def draw(what: str, index: int) -> Part:
        rng = np.random.default_rng([{"taught": 1, "good": 2, "defective": 3}[what], index, *[drawing] * (drawing > 0)])
        return draw_part(rng, DEFECT_KINDS[index % len(DEFECT_KINDS)] if what == "defective" else None, FLANGE)[0]

    counts = {"taught": TAUGHT, "good": GOOD, "defective": DEFECTIVE}
    return Kind("drawn flanges", counts, draw, mask, 40.0, RegionFile(polygons=(corners,)))


def tiles(data: Path, drawing: int) -> Kind:
    """Return photographed magnetic tiles, scaled to one size; each drawing teaches others of them."""
    rng = np.random.default_rng(drawing)
    taught = sorted((data / "train/good").iterdir())
    good = sorted((data / "test/good").iterdir())
    defective = [path for path in sorted((data / "test").glob("*/*")) if path.parent.name != "good"]
    chosen = {
        "taught": [taught[place] for place in rng.permutation(len(taught))[:TAUGHT]],
        "good": good,
        "defective": defective,
    }

    def draw(what: str, index: int) -> Part:
        frame = read_image(chosen[what][index])
        grey = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        if grey.shape[0] > grey.shape[1]:
            grey = cv2.rotate(grey, cv2.ROTATE_90_CLOCKWISE)
        holder = np.full((TILE[1] + 2 * RIM, TILE[0] + 2 * RIM), 25, np.uint8)
        cv2.rectangle(holder, (0, 0), (holder.shape[1] - 1, holder.shape[0] - 1), (220,), 2 * (RIM - GAP))
        cv2.rectangle(holder, (40, 0), (70, RIM), (25,), -1)  # the notch
        exposed = cv2.convertScaleAbs(grey, alpha=TILE_GREY / max(1.0, float(np.median(grey))))
        holder[RIM:-RIM, RIM:-RIM] = cv2.resize(exposed, TILE, interpolation=cv2.INTER_AREA)
        return holder

    box = ((WIDTH - TILE[0]) // 2, (HEIGHT - TILE[1]) // 2, *TILE)
    patch = (box[0] - RIM, box[1] - RIM, TILE[0] + 2 * RIM, TILE[1] + 2 * RIM)
    mask = np.ones((TILE[1] + 2 * RIM, TILE[0] + 2 * RIM), np.float32)
    region = RegionFile(rectangles=(box,), reference=Reference(patch=patch))
    return Kind("magnetic tiles", {name: len(paths) for name, paths in chosen.items()}, draw, mask, 25.0, region)


def write_frames(kind: Kind, folder: Path, *, moves: bool, drawing: int) -> dict[str, list[Path]]:
    """Write the frames and return their paths; the first taught one is not moved, because the region is drawn on it."""
    written: dict[str, list[Path]] = {}
    for number, (what, count) in enumerate(kind.counts.items()):
        written[what] = []
        for index in range(count):
            rng = np.random.default_rng([7, number, index, *[drawing] * (drawing > 0)])
            pose = choose_pose(rng, moves=moves and (what, index) != ("taught", 0))
            path = folder / what / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", draw_scene(kind, kind.draw(what, index), pose, rng))[1].tobytes())
            written[what].append(path)
    return written


def judge(frames: dict[str, list[Path]], model: Path) -> tuple[NDArray[np.float64], int]:
    """Return a file's scores, of the good frames and then the defective ones, and the number of faults."""
    verdicts = list(Inspector(model).inspect_many([*frames["good"], *frames["defective"]]))
    scores = np.array([np.inf if verdict.score is None else verdict.score for verdict in verdicts])
    scores[np.isinf(scores)] = scores[np.isfinite(scores)].max() + 1.0  # a fault never passes
    return scores, sum(verdict.verdict == "fault" for verdict in verdicts)


def compare(scores: NDArray[np.float64], still: NDArray[np.float64], counts: dict[str, int]) -> dict[str, float]:
    """Return the image AUROC, its difference from that of the still parts, and the standard error of the difference."""
    good, defective = counts["good"], counts["defective"]
    labels = np.repeat([0, 1], [good, defective])
    rng = np.random.default_rng(0)

    def gain(parts: NDArray[np.int64]) -> float:
        return float(roc_auc_score(labels, scores[parts]) - roc_auc_score(labels, still[parts]))

    drawn = [
        gain(np.concatenate([rng.integers(0, good, good), good + rng.integers(0, defective, defective)]))
        for _ in range(RESAMPLES)
    ]
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "above still": gain(np.arange(good + defective)),
        "standard error": float(np.std(drawn)),
    }


def measure_search(kind: Kind, model: Path) -> dict[str, float]:
    """Return the errors of the pose on new frames, and the milliseconds that the search takes."""
    align = Inspector(model).info.preprocess.align
    assert align is not None
    shifts, turns, taken = [], [], []
    for index in range(TIMED):
        rng = np.random.default_rng([8, index])
        pose = choose_pose(rng, moves=True)
        frame = draw_scene(kind, kind.draw("good", index % kind.counts["good"]), pose, rng)
        started = time.process_time()  # processor time, independent of other load
        found = find_part(frame, align, 65535)
        taken.append((time.process_time() - started) * 1000.0)
        shifts.append(np.hypot(found.x - pose[0], found.y - pose[1]))
        turns.append(abs((found.angle - pose[2] + 180.0) % 360.0 - 180.0))
    return {
        "pixels": float(np.median(shifts)),
        "degrees": float(np.median(turns)),
        "milliseconds": float(np.median(taken[1:])),
        "fastest": float(np.min(taken)),
    }


def run(
    kind: Kind, folder: Path, base: BaseFile, drawing: int, *, paired: bool
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the figures of one drawing of a kind of parts, by their name; paired: with one memory for both places."""
    still, moved = (
        write_frames(kind, folder / name, moves=name == "moved", drawing=drawing) for name in ("still", "moved")
    )
    plain = dataclasses.replace(kind.region, reference=None)
    found = dataclasses.replace(kind.region, reference=kind.region.reference or Reference())
    runs: list[tuple[str, dict[str, list[Path]], RegionFile | None]] = [
        ("still", still, plain),
        ("moved, --align", moved, found),
    ]
    runs += [("moved", moved, None)] if drawing == 0 else []
    first: NDArray[np.float64] | None = None
    for name, frames, region in runs:
        model = folder / f"{name}.onnx"
        teach(frames["taught"], model, base=base, region=region)
        scores, faults = judge(frames, model)
        first = scores if first is None else first
        yield name, {**compare(scores, first, kind.counts), "faults": faults}
        if paired and region is found:
            again, faults = judge(still, model)
            yield PAIRED, {**compare(scores, again, kind.counts), "faults": faults}
    if drawing == 0:
        yield "search", measure_search(kind, folder / "moved, --align.onnx")


def summarise(gains: list[float]) -> dict[str, float]:
    """Return the mean of differences of the AUROC, one a drawing, and its 95% interval (Student's t)."""
    mean, spread = float(np.mean(gains)), float(stats.sem(gains))
    low, high = stats.t.interval(0.95, len(gains) - 1, mean, spread)
    return {"drawings": len(gains), "mean above still": mean, "from": float(low), "to": float(high)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, help="the magnetic tiles' folder, with train/good and test")
    parser.add_argument("--only", choices=("flanges", "tiles"), help="judge one kind of parts")
    parser.add_argument("--drawings", type=int, default=1, help="how many times to draw and teach")
    parser.add_argument("-o", "--output", type=Path, help="keep frames, files and results.json in this folder")
    arguments = parser.parse_args()
    quieten_opencv()
    cv2.setNumThreads(1)
    base = parse_base_file(Path("base.onnx"), make_base())
    kinds: dict[str, Callable[[int], Kind]] = {"flanges": flanges}
    if arguments.tiles is not None:
        kinds["tiles"] = functools.partial(tiles, arguments.tiles)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.output or Path(temporary)
        results: dict[str, dict[str, dict[str, float]]] = {}
        for label in [arguments.only] if arguments.only else kinds:
            gains: dict[str, list[float]] = {"moved, --align": [], PAIRED: []}
            for drawing in range(arguments.drawings):
                kind = kinds[label](drawing)
                for name, figures in run(kind, folder / label, base, drawing, paired=arguments.drawings > 1):
                    report(results, f"{kind.name}, drawing {drawing}", name, figures)
                    gains.setdefault(name, []).append(figures.get("above still", 0.0))
                for name in ("moved, --align", PAIRED) if drawing else ():
                    report(results, kind.name, name, summarise(gains[name]))
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def report(results: dict[str, dict[str, dict[str, float]]], kind: str, name: str, figures: dict[str, float]) -> None:
    """Print figures and keep them in the results."""
    results.setdefault(kind, {})[name] = figures
    print(f"{kind}: {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
