"""Does another objective make an autoencoder that finds defects better? Bare autoencoders, on validation images.

Trains one on DATA (train/good) for each objective, and exports it with each score. Measures image AUROC, and the AUPRO
of the best score, on DATA/val; test/ is not read. `held out` is the squared error left on good images: rows with very
different values are at different points of their training. Finished rows are kept in -o and not repeated; interrupted
ones continue. Needs onspect[cpu,train].

    python benchmarks/objectives.py DATA -o results [--size 128] [--epochs 60] [--rows mse,ssim,...] [--variant cae]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from onspect.calibration.calibration import calibrate
from onspect.calibration.evaluation import evaluate_images
from onspect.calibration.figures import Evaluation
from onspect.calibration.scores import find_images
from onspect.export import onnx_writer
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.training import checkpoint
from onspect.training.autoencoder import trainer
from onspect.training.autoencoder.losses import reconstruction_loss
from onspect.training.autoencoder.networks import Encoder
from onspect.training.session import Devices, TrainOptions, resume, train

SCORES = ("mse", "peak", "relative")
WINDOW = 7  # pixels across, over which structural similarity takes means

squared = reconstruction_loss
encode = Encoder.forward


def gradients(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error and that of the differences between neighbours, for each image."""
    error = image - reconstruction
    steps = [(error.diff(dim=side)).square().sum(dim=(1, 2, 3)) for side in (2, 3)]
    return squared(image, reconstruction) + 4.0 * sum(steps)


def dissimilarity(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Return 1 - SSIM (Wang et al., 2004) by a uniform window, summed over places, for each image."""
    means = [F.avg_pool2d(x, WINDOW, 1) for x in (image, reconstruction)]
    squares = [F.avg_pool2d(x * x, WINDOW, 1) - m * m for x, m in zip((image, reconstruction), means, strict=True)]
    together = F.avg_pool2d(image * reconstruction, WINDOW, 1) - means[0] * means[1]
    light = (2 * means[0] * means[1] + 1e-4) / (means[0].square() + means[1].square() + 1e-4)
    structure = (2 * together + 9e-4) / (squares[0] + squares[1] + 9e-4)
    return (1.0 - light * structure).sum(dim=(1, 2, 3))


def mixed(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error and a twentieth of the structural dissimilarity, which then have similar sizes."""
    return squared(image, reconstruction) + 0.05 * dissimilarity(image, reconstruction)


def many_scales(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the structural dissimilarity at three scales with equal weights."""
    total = 0.1 * squared(image, reconstruction)
    for scale in (1, 2, 4):
        small = [F.avg_pool2d(x, scale) for x in (image, reconstruction)]
        total = total + 0.05 * scale**2 * dissimilarity(small[0], small[1])
    return total


def trained_with(loss: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Train with another loss; held-out images are still judged by the squared error."""

    def either(image: Tensor, reconstruction: Tensor) -> Tensor:
        return (loss if torch.is_grad_enabled() else squared)(image, reconstruction)

    return patch.object(trainer, "reconstruction_loss", either)


def fed_with(spoil: Callable[[Tensor], Tensor]) -> Any:
    """Show the encoder a damaged image in training; the network must reconstruct the good one."""

    def forward(self: Encoder, image: Tensor) -> Any:
        return encode(self, spoil(image) if self.training else image)

    return patch.object(Encoder, "forward", forward)


def noisy(image: Tensor) -> Tensor:
    """Add noise."""
    return (image + 0.1 * torch.randn_like(image)).clamp(0.0, 1.0)


def hidden(image: Tensor) -> Tensor:
    """Hide a quarter of the image's 8 x 8 squares behind its mean."""
    shown = (torch.rand(len(image), 1, 8, 8) > 0.25).to(image.dtype)
    shown = F.interpolate(shown, size=image.shape[2:], mode="nearest")
    return image * shown + image.mean(dim=(2, 3), keepdim=True) * (1.0 - shown)


ROWS: dict[str, tuple[str, Callable[[], Any]]] = {
    "mse": ("squared error (Eq. 2)", ExitStack),
    "gradient": ("and that of gradients", lambda: trained_with(gradients)),
    "ssim": ("squared error and SSIM", lambda: trained_with(mixed)),
    "ms-ssim": ("SSIM at three scales", lambda: trained_with(many_scales)),
    "denoise": ("noise taken away", lambda: fed_with(noisy)),
    "inpaint": ("hidden squares filled in", lambda: fed_with(hidden)),
}
"""Each row: its name, and the changes while the autoencoder trains and is exported."""


def train_row(data: Path, run: Path, options: TrainOptions) -> float:
    """Train or resume a run to its last epoch, and return the squared error of held-out good images."""
    torch.manual_seed(options.seed)
    devices = Devices(accelerator="cpu")
    begun = (run / checkpoint.CHECKPOINT).exists()
    outcome = resume(run, devices=devices) if begun else train(data, run, options, devices=devices)
    if outcome.reason == "interrupted":
        sys.exit(f"interrupted in epoch {outcome.epoch + 1}; the same command goes on")
    return outcome.best_loss


def judge(run: Path, model: Path, score: str, data: Path) -> Evaluation:
    """Export and calibrate a run with a score, and return its figures on val/."""
    onnx_writer.export(run, model, score=score)
    calibrate(model, data)
    return evaluate_images(Inspector(model), read_model_file(model), find_images(data, "val"), source="val")


def main() -> None:
    """Print the table and write objectives.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--variant", default="cae")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    quieten_opencv()
    chosen.output.mkdir(parents=True, exist_ok=True)
    options = TrainOptions(
        chosen.variant,
        preset="balanced",
        size=(chosen.size, chosen.size),
        epochs=chosen.epochs,
        seed=chosen.seed,
    )
    results: dict[str, Any] = {}
    print(f"{'':28}" + "".join(f"{score:>10}" for score in SCORES) + f"{'AUPRO':>10}{'held out':>10}")
    for row in chosen.rows.split(","):
        about, changed = ROWS[row]
        run = chosen.output / f"{chosen.variant}-{row}-{chosen.seed}"
        models = {score: chosen.output / f"{chosen.variant}-{row}-{chosen.seed}-{score}.onnx" for score in SCORES}
        with changed():
            left = train_row(chosen.data, run, options)
            found = {score: judge(run, model, score, chosen.data) for score, model in models.items()}
        areas = {score: item.areas.auroc for score, item in found.items()}
        overlap = max(item.pixels.areas.aupro or 0.0 for item in found.values())
        results[row] = {"about": about, "auroc": areas, "aupro": overlap, "held_out": left}
        figures = "".join(f"{figure:10.3f}" for figure in (*areas.values(), overlap))
        print(f"{about:28}{figures}{left:10.4f}", flush=True)
        (chosen.output / "objectives.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
