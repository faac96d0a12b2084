"""What does each idea of the head earn? The same training with one of them left out at a time, on validation images.

Trains one autoencoder on DATA (train/good), then a head for each row, exports it and measures image AUROC, pixel AUROC
and AUPRO on DATA/val: choices are made there, and test/ is not read. Smaller and shorter than the presets, so that a
row takes minutes. What is finished is kept in -o and not done again. Needs onspect[cpu,train].

    python benchmarks/ablation.py DATA -o results [--size 128] [--steps 1500] [--rows all,dice,...] [--variant cae]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from onspect.calibration.calibrate import calibrate
from onspect.calibration.evaluate import evaluate
from onspect.calibration.scores import find_images
from onspect.export.write import export
from onspect.runtime.decode import quieten_opencv
from onspect.runtime.inspector import Inspector
from onspect.runtime.model_file import read_model_file
from onspect.training import defects, head, head_batches, head_loop
from onspect.training.checkpoint import HEAD, SAMPLES, WEIGHTS, read_record, write_record
from onspect.training.config import HeadConfig
from onspect.training.session import Devices, TrainOptions, _start_fabric, read_training_set, split_as_recorded, train
from onspect.training.tiles import Images


def see_nothing(images: Images) -> torch.Tensor:
    """Return black, [channels, height, width], in the place of the mean of images [n, height, width, channels]."""
    return torch.zeros(images.shape[3], *images.shape[1:3])


ROWS: dict[str, tuple[str, Callable[[], Any]]] = {
    "all": ("everything", ExitStack),
    "pieces": ("whole images only", ExitStack),
    "context": ("no mean and spread of the image", lambda: patch.object(head._Context, "forward", lambda _, x: x)),
    "dice": ("no overlap loss", lambda: patch.object(head, "_DICE", 0.0)),
    "image": ("no loss of the image's answer", lambda: patch.object(head, "_IMAGE", 0.0)),
    "weights": ("small defects weigh no more", lambda: patch.object(defects, "_WEIGHTS", (1.0, 1.0))),
    "half": ("defects may cover most of what is seen", lambda: patch.object(defects, "_LARGEST", 1.0)),
    "mistakes": ("no mistakes shown again", lambda: patch.object(head_batches, "_MINED", 0.0)),
    "single": ("no network that sees no reconstruction", ExitStack),
    "level": ("that network's level counts in good images too", lambda: patch.object(head, "_level", lambda *_: 0.0)),
    "typical": ("no mean of the good images", lambda: patch.object(head_loop, "_mean_of", see_nothing)),
    "pair": ("the network that sees the reconstruction has no share", ExitStack),
}
"""Each row: what it prints, and what is changed meanwhile."""


@contextmanager
def changed(row: str, config: HeadConfig) -> Iterator[HeadConfig]:
    """Leave a row's idea out."""
    with ROWS[row][1]():
        if row == "pieces":
            config = dataclasses.replace(config, crops=False)
        if row == "single":
            config = dataclasses.replace(config, single=())
        if row == "pair":
            config = dataclasses.replace(config, share=0.0)
        yield config


def train_row(base: Path, run: Path, row: str, steps: int) -> None:
    """Train a head on the base run's autoencoder."""
    if (run / HEAD).exists():
        return
    run.mkdir(exist_ok=True)
    for name in (WEIGHTS, SAMPLES, "config.json"):
        shutil.copyfile(base / name, run / name)
    record = read_record(base)
    assert record.config.head is not None
    images = split_as_recorded(read_training_set(base, record), base, record)
    with changed(row, dataclasses.replace(record.config.head, steps=steps, alone=0, crops=True)) as config:
        record = dataclasses.replace(record, config=dataclasses.replace(record.config, head=config))
        write_record(run, record)
        head_loop.fit_head(record, *images, run, _start_fabric(Devices(accelerator="cpu")))


def measure(run: Path, model: Path, row: str, data: Path) -> dict[str, Any]:
    """Export and calibrate a run and return its figures on val/."""
    with changed(row, HeadConfig((), 0, 0, 0, 0.0, crops=False)):
        export(run, model, score="head")
    calibrate(model, data)
    found = evaluate(Inspector(model), read_model_file(model), find_images(data, "val"), source="val")
    return {
        "auroc": found.areas.auroc,
        "pixel_auroc": found.pixels.areas.auroc,
        "aupro": found.pixels.areas.aupro,
        "kinds": {name: kind.areas.auroc for name, kind in found.kinds.items()},
    }


def main() -> None:
    """Print the table and write ablation.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--variant", default="cae")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    quieten_opencv()
    base = chosen.output / f"{chosen.variant}-{chosen.seed}"
    size = (chosen.size, chosen.size)
    options = TrainOptions(variant=chosen.variant, preset="balanced", size=size, head_steps=1, seed=chosen.seed)
    if not (base / HEAD).exists():
        train(chosen.data, base, options, devices=Devices(accelerator="cpu"))
    results: dict[str, Any] = {}
    print(f"{'':56}{'AUROC':>8}{'pixel':>8}{'AUPRO':>8}")
    for row in chosen.rows.split(","):
        run = chosen.output / f"{base.name}-{row}"
        train_row(base, run, row, chosen.steps)
        found = measure(run, run.with_suffix(".onnx"), row, chosen.data)
        results[row] = {"about": ROWS[row][0]} | found
        figures = "".join(f"{found[name]:8.3f}" for name in ("auroc", "pixel_auroc", "aupro"))
        print(f"{ROWS[row][0]:56}{figures}", flush=True)
        (base.with_suffix(".json")).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
