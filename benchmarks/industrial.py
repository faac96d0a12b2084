"""How well does each variant find real defects, and at what cost?

Trains, exports and calibrates on DATA (train/good, val/, test/, ground_truth/) with the installed commands, for each
variant and seed, and prints a table: AUROC, AUPR, pixel AUROC and AUPRO over val and test together, as the literature
has it; F1 at the calibrated threshold and the false rejects at 99% recall on test alone; weights, file size and
milliseconds an image on one core. The rows are scores of one trained run. What is finished is kept in -o and not done
again. Needs onspect[cpu,train].

    python benchmarks/industrial.py DATA -o results [--variants cae,vae,aae] [--seeds 0,1,2] [--preset balanced]
        [--rows mse,relative] [--train="--size 128"]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from onspect.calibration.evaluate import Evaluation, evaluate
from onspect.calibration.scores import find_images, part_scores
from onspect.runtime.decode import quieten_opencv, read_image
from onspect.runtime.inspector import Inspector
from onspect.runtime.model_file import read_model_file

COLUMNS = ("auroc", "aupr", "pixel_auroc", "aupro", "f1", "fpr_at_99", "parameters", "megabytes", "milliseconds")
KEPT = 40  # images whose time is taken


def onspect(*words: object, log: Path) -> None:
    """Run a command; stops everything where it fails."""
    command = [sys.executable, "-m", "onspect.runtime", *map(str, words)]
    print("$ onspect", shlex.join(command[3:]), file=sys.stderr, flush=True)
    with log.open("ab") as file:
        if subprocess.run(command, stdout=file, stderr=file, check=False).returncode:
            sys.exit(f"it failed: see {log}")


def make(folder: Path, data: Path, row: str, variant: str, seed: int, preset: str, more: Sequence[str]) -> Path:
    """Train, export and calibrate what is not there yet, and return the model file."""
    run, model = folder / f"{variant}-{seed}", folder / f"{variant}-{row}-{seed}.onnx"
    log = folder / "commands.log"
    if not (run / "finished").exists():
        started = time.perf_counter()
        if (run / "checkpoint.safetensors").exists():
            onspect("train", "--resume", "-o", run, log=log)
        else:
            onspect("train", data, "-m", variant, "--preset", preset, "--seed", seed, *more, "-o", run, log=log)
        (run / "finished").write_text(f"{time.perf_counter() - started:.0f}")
    if not model.exists():
        onspect("export", run, "-o", model, "--score", row, log=log)
        onspect("calibrate", model, data, log=log)
    return model


def measure(model: Path, data: Path) -> dict[str, Any]:
    """Return a row's figures."""
    inspector, file = Inspector(model), read_model_file(model)
    both = evaluate(inspector, file, [*find_images(data, "val"), *find_images(data, "test")], source="val and test")
    test = evaluate(inspector, file, find_images(data, "test"), source="test")
    return {
        "auroc": both.areas.auroc,
        "aupr": both.areas.aupr,
        "pixel_auroc": both.pixels.areas.auroc,
        "aupro": both.pixels.areas.aupro,
        "f1": test.confusion.f1,
        "fpr_at_99": false_rejects(test, recall=0.99),
        "parameters": file.info.network.parameters,
        "megabytes": len(file.data) / 1e6,
        "milliseconds": time_an_image(inspector, data),
        "kinds": {name: kind.areas.auroc for name, kind in both.kinds.items()},
        "test_auroc": test.areas.auroc,
    }


def false_rejects(evaluation: Evaluation, *, recall: float) -> float:
    """Return the smallest share of good images rejected where at least this share of defects is caught."""
    good, defective = part_scores(evaluation.results)
    rates, recalls, _ = roc_curve(np.r_[np.zeros(len(good)), np.ones(len(defective))], np.r_[good, defective])
    return float(rates[recalls >= recall].min())


def time_an_image(inspector: Inspector, data: Path) -> float:
    """Return the median milliseconds of one run on one core, over images prepared before."""
    images = [inspector.prepare(read_image(image.path))[None] for image in find_images(data, "test")[:KEPT]]
    inspector.run(images[0])
    taken = []
    for _ in range(3):
        for image in images:
            started = time.perf_counter()
            inspector.run(image)
            taken.append(time.perf_counter() - started)
    return float(np.median(taken) * 1000.0)


def show(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Print the means over seeds, with the spread (standard deviation) of the areas where there are several."""
    print(f"{'':14}" + "".join(f"{name:>17}" for name in COLUMNS))
    for label, figures in rows.items():
        cells = []
        for name in COLUMNS:
            values = np.array([figure[name] for figure in figures], float)
            digits = {"parameters": 0, "megabytes": 2, "milliseconds": 1}.get(name, 3)
            spread = f" ±{values.std(ddof=1):.3f}" if digits == 3 and len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}".rjust(17))
        print(f"{label:14}" + "".join(cells))


def main() -> None:
    """Print the table and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--variants", default="cae,vae,aae")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default="mse,relative")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--train", default="", help="further options of onspect train")
    chosen = parser.parse_args()
    quieten_opencv()
    os.environ["COLUMNS"] = "100"
    chosen.output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in map(int, chosen.seeds.split(",")):
        for variant in chosen.variants.split(","):
            for row in chosen.rows.split(","):
                more = shlex.split(chosen.train)
                model = make(chosen.output, chosen.data, row, variant, seed, chosen.preset, more)
                figures = {"seed": seed} | measure(model, chosen.data)
                rows.setdefault(f"{variant.upper()} {row}", []).append(figures)
                content = {"preset": chosen.preset, "train": more, "rows": rows}
                (chosen.output / "results.json").write_text(json.dumps(content, indent=1))
    show(rows)


if __name__ == "__main__":
    main()
