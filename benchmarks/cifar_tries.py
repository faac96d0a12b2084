"""Why is the mean squared error on CIFAR-10 below the paper's? Settings that the paper leaves open, one by one.

Trains a variant on one normal class as `onspect compare` does, except for one change. Prints the mean AUROC over the
nine other classes with the mean squared error (Eq. 2) of the trained networks. The script reads test labels, so it must
not choose anything: it shows how far the missing settings can move Table 6. Needs onspect[cpu,train].

    python benchmarks/cifar_tries.py cifar-10-batches-bin [--variants cae,vae,aae] [--tries usual,short,...]
        [--json tries.json]
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from onspect.compare.datasets import Dataset, load_dataset
from onspect.training.autoencoder import networks
from onspect.training.checkpoint import TrainedModel, load_trained
from onspect.training.session import Devices, TrainOptions, train

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Try:
    """One change. images: a function of every image, of training and test."""

    about: str
    epochs: int = 20
    holdout: float = 0.1
    learning_rate: float = 1e-3
    slope: float | None = None
    torch_weights: bool = False
    images: Callable[[Images], Images] = lambda images: images


def compress(images: Images) -> Images:
    """Return images as they are after one more JPEG compression of quality 75."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 75]
    again = [cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR) for image in images]
    return np.stack([np.asarray(image, np.uint8) for image in again])


TRIES = {
    "usual": Try("as `onspect compare` does"),
    "short": Try("3 epochs", epochs=3),
    "long": Try("100 epochs", epochs=100),
    "all": Try("all images of the class, none held out", holdout=0.0),
    "slow": Try("learning rate 0.0001", learning_rate=1e-4),
    "slope": Try("Leaky ReLU with a slope of 0.2", slope=0.2),
    "weights": Try("torch's own initial weights", torch_weights=True),
    "jpeg": Try("one more JPEG compression", images=compress),
}


@contextmanager
def changed(attempt: Try) -> Iterator[None]:
    """Build networks with another slope or other initial weights inside the block."""
    with ExitStack() as stack:
        if attempt.slope is not None:
            leaky = functools.partial(nn.LeakyReLU, attempt.slope)
            stack.enter_context(patch.object(nn, "LeakyReLU", leaky))
        if attempt.torch_weights:
            stack.enter_context(patch.object(networks, "_initialise"))
        yield


def errors(model: TrainedModel, images: Images) -> NDArray[np.float64]:
    """Return each image's mean squared error."""
    found = []
    with torch.no_grad():
        for start in range(0, len(images), 500):
            planes = torch.from_numpy(images[start : start + 500]).permute(0, 3, 1, 2) / 255.0
            reconstruction = model.decoder(model.encoder(planes)[0])
            found.append((planes - reconstruction).square().mean(dim=(1, 2, 3)))
    return torch.cat(found).double().numpy()


def measure(dataset: Dataset, variant: str, attempt: Try, normal: str, seed: int) -> float:
    """Train, and return the mean over the other classes of the AUROC."""
    data = dataset.training_set((normal,))
    data = type(data)(data.folder, attempt.images(data.images), data.fingerprints, data.preprocess, data.preset)
    options = TrainOptions(
        variant=variant,
        epochs=attempt.epochs,
        holdout=attempt.holdout,
        learning_rate=attempt.learning_rate,
        patience=0,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder, changed(attempt):
        train(data, Path(folder) / "run", options, devices=Devices(accelerator="cpu"))
        scores = errors(load_trained(Path(folder) / "run"), attempt.images(dataset.test.images))
    labels = dataset.test.labels
    known = dataset.classes.index(normal)
    areas = []
    for other in range(len(dataset.classes)):
        if other != known:
            chosen = (labels == known) | (labels == other)
            areas.append(roc_auc_score(labels[chosen] == other, scores[chosen]))
    return float(np.mean(areas))


def main() -> None:
    """Print a table of the tries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--variants", default="cae,vae,aae")
    parser.add_argument("--tries", default=",".join(TRIES))
    parser.add_argument("--normal", default="dog")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    dataset = load_dataset(chosen.data)
    variants = chosen.variants.split(",")
    found: dict[str, dict[str, float]] = {}
    print(f"{'':42}" + "".join(f"{variant.upper():>8}" for variant in variants))
    for name in chosen.tries.split(","):
        found[name] = {}
        print(f"{TRIES[name].about:42}", end="", flush=True)
        for variant in variants:
            found[name][variant] = measure(dataset, variant, TRIES[name], chosen.normal, chosen.seed)
            print(f"{found[name][variant]:8.3f}", end="", flush=True)
        print()
        if chosen.json:
            chosen.json.write_text(json.dumps({"normal": chosen.normal, "seed": chosen.seed, "auroc": found}, indent=1))


if __name__ == "__main__":
    main()
