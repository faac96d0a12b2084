"""How well do autoencoders of features find defects, alone and together with a memory of good parts?

Draws two datasets, and takes the magnetic tiles from DATA (train/good, val/, test/, ground_truth/). On each it trains,
exports and calibrates the paper's three variants with `onspect train --on features`, and teaches a memory with `onspect
teach`. It prints for val/ and test/: image AUROC, pixel AUROC and AUPRO. Rows that end in "+ memory" are the mean of
both scores, each divided by its median over the good images of val/, and the mean of both error maps, likewise. Choose
on val/; test/ is for the report. Finished rows are kept in -o and not repeated. Needs onspect[cpu,train].

    python benchmarks/feature_autoencoders.py [DATA] -o results [--sets parts,surface,tiles] [--seeds 0]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from onspect.calibration.metrics.pixel import PixelEvidence, decode_mask
from onspect.demo.parts import draw_dataset
from onspect.runtime.dataset.folder import LabelledImage, labelled_images
from onspect.runtime.images.decode import quieten_opencv, read_image
from onspect.runtime.inspection.inspector import Inspector

VARIANTS = ("cae", "vae", "aae")
SPLITS = ("val", "test")
FIGURES = ("auroc", "pixel_auroc", "aupro")
HEIGHT, WIDTH = 256, 640  # of the drawn surface


def onspect(*words: object, log: Path) -> float:
    """Run a command and return its seconds; stops everything if it fails."""
    command = [sys.executable, "-m", "onspect.runtime", *map(str, words)]
    print("$ onspect", shlex.join(command[3:]), file=sys.stderr, flush=True)
    started = time.perf_counter()
    with log.open("ab") as file:
        if subprocess.run(command, stdout=file, stderr=file, check=False).returncode:
            sys.exit(f"it failed: see {log}")
    return time.perf_counter() - started


def draw_surface(random: np.random.Generator, *, cracked: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a grey, grained surface with harmless specks, and the mask of its thin crack (all 0 without)."""
    shade = cv2.GaussianBlur(random.standard_normal((HEIGHT, WIDTH)).astype(np.float32), (0, 0), 60.0) * 300.0
    fine = cv2.GaussianBlur(random.standard_normal((HEIGHT, WIDTH)).astype(np.float32), (0, 0), 1.2) * 18.0
    coarse = cv2.GaussianBlur(random.standard_normal((HEIGHT, WIDTH)).astype(np.float32), (0, 0), 6.0) * 50.0
    image = 110.0 + shade + fine + coarse
    for _ in range(random.poisson(3)):
        column, row = int(random.integers(0, WIDTH)), int(random.integers(0, HEIGHT))
        cv2.circle(image, (column, row), int(random.integers(1, 4)), float(image[row, column] - 25.0), -1)
    crack = np.zeros((HEIGHT, WIDTH), np.float32)
    if cracked:
        x, y = random.uniform(60, WIDTH - 60), random.uniform(40, HEIGHT - 40)
        angle = random.uniform(0.0, np.pi)
        points = [(x, y)]
        for _ in range(int(random.integers(12, 40))):
            angle += random.normal() * 0.35
            x, y = x + 4.0 * np.cos(angle), y + 4.0 * np.sin(angle)
            points.append((x, y))
        cv2.polylines(crack, [np.array(points, np.int32)], False, 1.0, int(random.integers(1, 3)), cv2.LINE_AA)
        crack = np.asarray(cv2.GaussianBlur(crack, (0, 0), 0.7), np.float32)
        image = image - crack * random.uniform(10.0, 40.0)
    noisy = image + random.standard_normal((HEIGHT, WIDTH)) * 3.0
    return np.asarray(noisy.clip(0, 255), np.uint8), ((crack > 0.3) * 255).astype(np.uint8)


def draw_surfaces(folder: Path, *, train: int = 50, good: int = 60, cracked: int = 60) -> None:
    """Write a dataset folder of surfaces, val/ and test/ alike."""
    random = np.random.default_rng(1)
    plan = [("train/good", train), *((f"{s}/{k}", c) for s in SPLITS for k, c in (("good", good), ("crack", cracked)))]
    for name, count in plan:
        kind = name.split("/")[1]
        (folder / name).mkdir(parents=True)
        if kind == "crack":
            (folder / "ground_truth" / name).mkdir(parents=True)
        for index in range(count):
            image, mask = draw_surface(random, cracked=kind == "crack")
            cv2.imwrite(str(folder / name / f"{index:03d}.png"), image)
            if kind == "crack":
                cv2.imwrite(str(folder / "ground_truth" / name / f"{index:03d}_mask.png"), mask)


def find_data(name: str, tiles: Path | None, folder: Path) -> Path:
    """Return a dataset folder, drawn if need be."""
    if name == "tiles":
        if tiles is None:
            sys.exit("give DATA, the folder of the magnetic tiles, or --sets parts,surface")
        return tiles
    data = folder / name / "data"
    if not data.exists():
        part = folder / name / "data.part"
        part.mkdir(parents=True)
        if name == "parts":
            draw_dataset(part, seed=0, size=256)
        else:
            draw_surfaces(part)
        part.rename(data)
    return data


def make(folder: Path, data: Path, row: str, seed: int, base: Path) -> Path:
    """Return the model file; train or teach it if it does not exist."""
    model, log = folder / f"{row}-{seed}.onnx", folder / "commands.log"
    if model.exists():
        return model
    if row == "memory":
        seconds = onspect("teach", data, "--base", base, "-o", model, "--seed", seed, log=log)
    else:
        run = folder / f"{row}-{seed}"
        more = ("--resume",) if (run / "checkpoint.safetensors").exists() else (data, "-m", row, "--on", "features")
        chosen = () if more == ("--resume",) else ("--seed", seed)
        seconds = onspect("train", *more, *chosen, "-o", run, log=log)
        onspect("export", run, "-o", model, log=log)
    (folder / f"{row}-{seed}.seconds").write_text(f"{seconds:.0f}")
    return model


@dataclass(frozen=True)
class Seen:
    """Scores, float64 [n], and error maps of images."""

    scores: NDArray[np.float64]
    maps: list[NDArray[np.float32]]

    def scaled(self, good: Seen) -> Seen:
        """Return scores and maps, each divided by its median over good images."""
        score, error = np.median(good.scores), np.median(np.stack(good.maps))
        return Seen(self.scores / score, [np.asarray(found / error, np.float32) for found in self.maps])


def see(model: Path, images: list[LabelledImage]) -> Seen:
    """Return scores and error maps of images."""
    inspector = Inspector(model)
    found = [inspector.run(inspector.prepare(read_image(image.path))[None]) for image in images]
    return Seen(np.array([float(one.score[0]) for one in found]), [one.error_map[0] for one in found])


def join(one: Seen, other: Seen) -> Seen:
    """Return the means of two models' scaled scores and maps."""
    maps = [np.asarray((a + b) / 2, np.float32) for a, b in zip(one.maps, other.maps, strict=True)]
    return Seen((one.scores + other.scores) / 2, maps)


def measure(images: list[LabelledImage], seen: Seen) -> dict[str, float | None]:
    """Return image AUROC, pixel AUROC and AUPRO, the latter two at the masks' resolution."""
    evidence = PixelEvidence()
    for image, error_map in zip(images, seen.maps, strict=True):
        if image.mask is not None:
            evidence.add(error_map, decode_mask(read_image(image.mask)))
        elif not image.defective:
            evidence.add(error_map, np.zeros(read_image(image.path).shape[:2], np.bool_))
    areas = evidence.measure()
    defective = [image.defective for image in images]
    return {
        "auroc": float(roc_auc_score(defective, seen.scores)),
        "pixel_auroc": areas.auroc,
        "aupro": areas.aupro,
    }


def compare(models: dict[str, Path], data: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of each model, and of each autoencoder together with the memory, by split."""
    figures: dict[str, dict[str, Any]] = {}
    good = [image for image in labelled_images(data, "val") if not image.defective]
    usual = {row: see(model, good) for row, model in models.items()}
    for split in SPLITS:
        images = labelled_images(data, split)
        memory = see(models["memory"], images)
        for row, model in models.items():
            seen = memory if row == "memory" else see(model, images)
            figures.setdefault(row, {})[split] = measure(images, seen)
            if row != "memory":
                both = join(seen.scaled(usual[row]), memory.scaled(usual["memory"]))
                figures.setdefault(f"{row} + memory", {})[split] = measure(images, both)
    return figures


def show(name: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print a dataset's table."""
    print(f"\n{name:<14}" + "".join(f"{split + ' ' + figure:>18}" for split in SPLITS for figure in FIGURES))
    for row, splits in rows.items():
        cells = [splits[split][figure] for split in SPLITS for figure in FIGURES]
        print(f"{row:<14}" + "".join(f"{'-' if cell is None else format(cell, '.4f'):>18}" for cell in cells))


def main() -> None:
    """Print the tables and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sets", default="parts,surface,tiles")
    parser.add_argument("--seeds", default="0")
    chosen = parser.parse_args()
    quieten_opencv()
    os.environ["COLUMNS"] = "100"
    chosen.output.mkdir(parents=True, exist_ok=True)
    base = chosen.output / "base.onnx"
    if not base.exists():
        onspect("backbone", "-o", base, log=chosen.output / "commands.log")
    results: dict[str, Any] = {}
    for name in chosen.sets.split(","):
        data, folder = find_data(name, chosen.data, chosen.output), chosen.output / name
        folder.mkdir(exist_ok=True)
        for seed in map(int, chosen.seeds.split(",")):
            models = {row: make(folder, data, row, seed, base) for row in ("memory", *VARIANTS)}
            rows = compare(models, data)
            for row in models:
                rows[row]["seconds"] = int((folder / f"{row}-{seed}.seconds").read_text())
            results[f"{name} {seed}"] = rows
            show(f"{name} {seed}", rows)
            (chosen.output / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
