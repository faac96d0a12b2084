"""The data sets that `memory_tries.py` draws: surfaces, surfaces that changed as a whole, and parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.demo.parts import DEFECT_KINDS, draw_dataset, draw_part

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


def draw_changed(folder: Path) -> None:
    """Write a dataset folder of surfaces, some of which have changed as a whole; their masks cover the image."""
    kinds = ("turned", "coarse", "flat", "blurred")
    plan = {"train/good": 120, "val/good": 60, **{f"val/{kind}": 30 for kind in kinds}}
    for number, (name, count) in enumerate(plan.items()):
        kind = name.split("/")[1]
        for index in range(count):
            random = np.random.default_rng([number, index])
            image, _ = draw_surface(random, "good", SIDE)
            share = random.uniform(0.3, 1.0)  # how far the surface has changed
            if kind == "turned":
                image = warp(image, 60.0 * share, 1.0)
            elif kind == "coarse":
                image = warp(image, 0.0, 1.0 + 0.6 * share)
            elif kind == "flat":
                image = np.asarray(image.mean() + (image - image.mean()) * (1.0 - 0.6 * share), np.uint8)
            elif kind == "blurred":
                image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 + 0.7 * share), np.uint8)
            write(folder / name / f"{index:03d}.png", image)
            if kind != "good":
                write(folder / "ground_truth" / name / f"{index:03d}_mask.png", np.full_like(image, 255))


def warp(image: NDArray[np.uint8], angle: float, factor: float) -> NDArray[np.uint8]:
    """Return an image turned by degrees and enlarged about its centre, mirrored at its border."""
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, factor)
    size, border = image.shape[::-1], cv2.BORDER_REFLECT_101
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=border), np.uint8)


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


SETS: dict[str, Callable[[Path], object]] = {
    "surfaces": draw_surfaces,
    "cuts": lambda folder: draw_surfaces(folder, cut=True),
    "changed": draw_changed,
    "parts": lambda folder: draw_dataset(folder, seed=0, size=SIDE),
    "framed": draw_framed,
}
"""What draws a data set into an empty folder, by the set's name."""
