"""The lamp test: the effect of a change of light on a calibrated line, on `onspect drift` and on `onspect recalibrate`.

The threshold is calibrated on DATA/val for at most 5% false rejects. Then the images of DATA/test are changed as a lamp
or a shifted camera would change them. For each change the table has false rejects and recall at the old threshold, and
at the one that `onspect recalibrate` writes with 20 changed good images, over 20 draws of these. If it refuses, the
threshold stays. Images that it was given do not count in the false rejects afterwards. `onspect drift` reads a line of
all good test images, first unchanged and then changed, with one defective part in twenty.

The model file is copied first. Prints a table and writes JSON. Needs onspect[cpu,train], and a minute on one idle core.

    python benchmarks/lamp.py magnetic_tile tile.onnx [--draws 20] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.calibration.calibration import calibrate
from onspect.calibration.metrics.image import measure_areas
from onspect.calibration.thresholds import MaxFpr
from onspect.runtime import Inspector, SeparationError, Verdict, read_image
from onspect.runtime.dataset.folder import labelled_images
from onspect.runtime.drift.log import compare_log
from onspect.runtime.errors import DatasetError
from onspect.runtime.images.decode import Frame
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.recalibration.recalibrate import recalibrate
from onspect.runtime.sources.base import Capture

FRAMES = 20
"""Good frames that recalibrate is given."""

Scores = NDArray[np.float64]


def rotate(frame: Frame) -> Frame:
    """Turn a frame by 20 degrees about its centre; what comes in at its corners is mirrored."""
    height, width = frame.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 1)
    return cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)


CHANGES: dict[str, Callable[[Frame], Frame]] = {
    "none": lambda frame: frame,
    "30% darker": lambda frame: cv2.convertScaleAbs(frame, alpha=0.7),
    "30% brighter": lambda frame: cv2.convertScaleAbs(frame, alpha=1.3),
    "rotated by 20 degrees": rotate,
}
"""Changes of the test images."""


@dataclass(frozen=True)
class Finding:
    """Effect of a change. Rates are shares; after and the range of draws are None if every draw was refused.

    auroc: of the changed test images; it shows whether any threshold could help. refused: number of refused draws.
    drift: its answer; began and noticed are counted from the first changed part.
    """

    change: str
    auroc: float
    rejects_before: float
    recall_before: float
    rejects_after: tuple[float, float, float] | None
    recall_after: tuple[float, float, float] | None
    unmoved: int
    refused: int
    draws: int
    reason: str
    drift: str
    began: int | None
    noticed: int | None


def score(inspector: Inspector, frames: Sequence[Frame]) -> Scores:
    """Return the scores of frames."""
    runs = [
        inspector.run(np.stack([inspector.prepare(frame) for frame in frames[i : i + 8]]))
        for i in range(0, len(frames), 8)
    ]
    return np.concatenate([run.score for run in runs]).astype(np.float64)


def find_drift(file: ModelFile, folder: Path, parts: Scores, changed_from: int) -> tuple[str, int | None, int | None]:
    """Return the answer of `onspect drift` for a line with these scores."""
    assert file.info.threshold is not None
    cut = file.info.threshold.score
    lines = [
        Verdict(str(i), i, "", "ng" if s >= cut else "ok", s, cut, (), 0.0, f"{file.info.name}@{file.sha256[:12]}")
        for i, s in enumerate(parts.tolist())
    ]
    log = folder / "verdicts.jsonl"
    log.write_text("".join(f"{line.to_json()}\n" for line in lines))
    alarm = compare_log(log, file).alarm
    if alarm is None:
        return "none", None, None
    return alarm.direction, alarm.began - changed_from, alarm.noticed - changed_from


def mix(good: Scores, defective: Scores, random: np.random.Generator) -> Scores:
    """Return good parts in a random order with one defective part after every nineteen."""
    parts = random.permutation(good)
    return np.insert(parts, np.arange(19, len(parts), 19), random.choice(defective, (len(parts) - 1) // 19))


def try_change(name: str, model: Path, good: list[Frame], defective: list[Frame], draws: int, old: Scores) -> Finding:
    """Measure one change; good and defective are the changed test images, old the unchanged line's scores."""
    file = read_model_file(model)
    inspector = Inspector(file)
    assert file.info.threshold is not None
    cut = file.info.threshold.score
    random = np.random.default_rng(0)
    good_scores, defective_scores = score(inspector, good), score(inspector, defective)
    line = np.concatenate([old, mix(good_scores, defective_scores, random)])
    direction, began, noticed = find_drift(file, model.parent, line, len(old))
    rejects, recalls, refused, unmoved, reason = [], [], 0, 0, ""
    for draw in range(draws):
        chosen = np.random.default_rng(draw).permutation(len(good))[:FRAMES]
        copy = shutil.copy(model, model.with_name("copy.onnx"))
        captures = [Capture(str(i), good[i]) for i in chosen]
        try:
            found = recalibrate(read_model_file(copy), inspector, captures, count=FRAMES, source=name)
        except (SeparationError, DatasetError) as error:
            refused, reason = refused + 1, str(error)
            continue
        unmoved += not found.changed
        rejects.append(float((np.delete(good_scores, chosen) >= found.threshold.score).mean()))
        recalls.append(float((defective_scores >= found.threshold.score).mean()))
    auroc = measure_areas(good_scores, defective_scores).auroc
    assert auroc is not None
    return Finding(
        change=name,
        auroc=auroc,
        rejects_before=float((good_scores >= cut).mean()),
        recall_before=float((defective_scores >= cut).mean()),
        rejects_after=summarise(rejects),
        recall_after=summarise(recalls),
        unmoved=unmoved,
        refused=refused,
        draws=draws,
        reason=reason,
        drift=direction,
        began=began,
        noticed=noticed,
    )


def summarise(rates: list[float]) -> tuple[float, float, float] | None:
    """Return the lowest, middle and highest rate, None without any."""
    return (min(rates), float(np.median(rates)), max(rates)) if rates else None


def show(rates: tuple[float, float, float] | None) -> str:
    """Return rates as a table's cell."""
    return "refused" if rates is None else f"{rates[1]:.1%} ({rates[0]:.1%} to {rates[2]:.1%})"


def main() -> None:
    """Run the test and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("onspect").setLevel(logging.ERROR)
    cv2.setNumThreads(1)
    images = labelled_images(arguments.data, "test")
    frames = {kind: [read_image(i.path) for i in images if i.defective == kind] for kind in (False, True)}
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(shutil.copy(arguments.model, Path(folder) / "part.onnx"))
        outcome = calibrate(model, arguments.data, policy=MaxFpr(0.05))
        inspector = Inspector(model)
        as_they_were = [score(inspector, frames[kind]) for kind in (False, True)]
        old = mix(as_they_were[0], as_they_were[1], np.random.default_rng(1))
        for name, change in CHANGES.items():
            good, defective = ([change(frame) for frame in frames[kind]] for kind in (False, True))
            findings.append(try_change(name, model, good, defective, arguments.draws, old))

    evidence = outcome.calibration
    print(f"{arguments.model.name}: threshold {outcome.threshold.score:.4g}, {len(evidence.good_scores)} good images")
    counts = f"{len(frames[False])} good, {len(frames[True])} defective"
    print(f"test: {counts}; recalibrate: {arguments.draws} draws of {FRAMES}\n")
    head: tuple[str, ...] = ("change", "AUROC", "rejects before", "recall before", "rejects after", "recall after")
    head += ("left as it was", "refused", "drift")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for f in findings:
        said = f.drift if f.began is None else f"{f.drift}, from part {f.began:+d}, noticed at {f.noticed:+d}"
        cells: tuple[str, ...] = (
            f.change,
            f"{f.auroc:.3f}",
            f"{f.rejects_before:.1%}",
            f"{f.recall_before:.1%}",
            show(f.rejects_after),
        )
        cells += (show(f.recall_after), f"{f.unmoved} of {f.draws}", f"{f.refused} of {f.draws}", said)
        print(f"| {' | '.join(cells)} |")
    for f in findings:
        if f.reason:
            print(f"\n{f.change}, refused: {f.reason}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(f) for f in findings], indent=1))


if __name__ == "__main__":
    main()
