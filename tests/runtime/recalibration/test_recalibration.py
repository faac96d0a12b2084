from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.errors import UncalibratedError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file, restamp
from onspect.runtime.model.schema import ModelInfo, Threshold
from onspect.runtime.recalibration.probe_defects import draw_probe_defects
from onspect.runtime.recalibration.recalibrate import find_base, score_frames
from onspect.runtime.sources.folder import FolderSource

Run = Callable[..., Result]
Draw = Callable[..., Path]

SIDE = 32


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Return a function that writes noisy grey frames: the coarser the noise and the further from grey, the worse."""

    def write(name: str, *, count: int = 30, seed: int = 1, offset: float = 0.0, noise: float = 8.0) -> Path:
        random = np.random.default_rng(seed)
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            frame = random.normal(128 + offset, noise * random.uniform(0.8, 1.2), (SIDE, SIDE))
            cv2.imwrite(str(folder / f"{number:03}.png"), np.rint(frame).clip(0, 255).astype(np.uint8))
        return folder

    return write


@pytest.fixture
def model(tmp_path: Path, write_tiny_model: Callable[..., Path], draw: Draw) -> Path:
    """Return a model file that was calibrated on sixty such frames, so that one in sixty is rejected."""
    path = write_tiny_model(tmp_path / "part.onnx", width=SIDE, height=SIDE, threshold=Threshold(1.0, 1.0))
    file = read_model_file(path)
    with FolderSource(draw("calibration", count=60, seed=0)) as captures:
        frames = score_frames(Inspector(file), captures, 60)
    scores = np.sort(frames.scores)
    assert file.info.calibration is not None
    evidence = dataclasses.replace(
        file.info.calibration,
        good_scores=tuple(scores.tolist()),
        defective_scores=(scores[-1] * 0.9, scores[-1] * 1.5, scores[-1] * 4),
        mark_scores=tuple(tuple(row) for row in frames.probe_scores.tolist()),
    )
    restamp(file, Threshold(float(scores[-2:].mean()), 0.1), evidence)
    return path


def info_of(path: Path) -> ModelInfo:
    """Return the metadata of a model file."""
    return read_model_file(path).info


def refuses(result: Result, *words: str) -> None:
    """Check that a command failed with one line of error that has these words."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def test_one_wrong_frame_is_named_and_moves_nothing(onspect: Run, model: Path, draw: Draw) -> None:
    """A defective part among the good frames is an error with its name, and the file was not changed."""
    before = model.read_bytes()
    folder = draw("new", count=20, offset=10.0)
    cv2.imwrite(str(folder / "007.png"), np.full((SIDE, SIDE), 255, np.uint8))
    refuses(onspect("recalibrate", model, folder), "1 of 20 frames is an outlier", str(folder / "007.png"))
    assert model.read_bytes() == before


def test_moved_scores_move_the_threshold(onspect: Run, model: Path, draw: Draw) -> None:
    """After a change of light good frames pass as before, and the file has the evidence."""
    before = info_of(model)
    result = onspect("recalibrate", model, draw("other", noise=10.0))
    assert result.exit_code == 0, result.output
    info = info_of(model)
    assert info.threshold is not None
    assert info.calibration is not None
    assert before.threshold is not None
    inspector = Inspector(model)
    later = list(inspector.inspect_many(sorted(draw("later", count=200, seed=5, noise=10.0).iterdir())))
    rejected = [verdict.verdict for verdict in later].count("ng")
    assert 0 <= rejected <= 12  # 1.7% at calibration, 3 of 200
    assert sum(verdict.score is not None and verdict.score >= before.threshold.score for verdict in later) > 100
    assert info.graph_sha256 == before.graph_sha256
    assert info.calibration.policy == "highest F1; transferred to 20 good frames"
    assert (info.calibration.counts, info.calibration.data) == ({"good": 20}, "other")
    assert info.calibration.recalibrated == len(info.calibration.good_scores) == 20
    assert info.calibration.defective_scores == ()
    low, high = info.calibration.intervals["threshold"]
    assert low < info.threshold.score < high
    assert info.threshold.map > 0.1
    assert "they shifted" in result.stdout
    assert "prove only" in result.stdout
    assert "no real defect was tested" in result.stdout
    assert "no defects to measure on, " in onspect("info", model).stdout


def test_review_band_moves_along(onspect: Run, model: Path, draw: Draw) -> None:
    """The lower end of a review band is carried over as the cut is, and the least area kept."""
    file = read_model_file(model)
    assert file.info.threshold is not None
    assert file.info.calibration is not None
    old = dataclasses.replace(file.info.threshold, review=file.info.threshold.score * 0.9, area=3)
    restamp(file, old, file.info.calibration)
    onspect("recalibrate", model, draw("other", noise=10.0))
    new = info_of(model).threshold
    assert new is not None
    assert new.review is not None
    assert old.score < new.review < new.score
    assert new.area == 3


def test_undo_goes_back(onspect: Run, model: Path, draw: Draw) -> None:
    """--undo brings the old threshold and evidence back, on the device, and has nothing to do a second time."""
    before = info_of(model)
    onspect("recalibrate", model, draw("other", noise=10.0))
    result = onspect("recalibrate", model, "--undo")
    assert result.exit_code == 0
    assert "is back at the threshold" in result.stderr
    after = info_of(model)
    assert (after.threshold, after.calibration) == (before.threshold, before.calibration)
    onspect("recalibrate", model, "--undo")
    refuses(onspect("recalibrate", model, "--undo"), "has no earlier threshold")


def test_unmoved_scores_leave_the_file_alone(onspect: Run, model: Path, draw: Draw) -> None:
    """Good frames that score as the calibration's did change no byte."""
    data = model.read_bytes()
    result = onspect("recalibrate", model, draw("same"))
    assert result.exit_code == 0, result.output
    assert "no shift that 20 frames could show" in result.stdout
    assert "was not changed" in result.stderr
    assert model.read_bytes() == data


def test_second_change_starts_from_the_calibration(onspect: Run, model: Path, draw: Draw) -> None:
    """Errors do not add up: the second lamp's threshold is the same with and without the first, and the old lamp's is
    the calibration's own."""
    other = model.with_name("other.onnx")
    other.write_bytes(model.read_bytes())
    original = info_of(model)
    onspect("recalibrate", model, draw("first", noise=10.0))
    onspect("recalibrate", model, draw("second", noise=6.0))
    onspect("recalibrate", other, model.parent / "second")
    assert info_of(model).threshold == info_of(other).threshold
    onspect("recalibrate", model, draw("old"))
    back = info_of(model)
    assert (back.threshold, back.calibration) == (original.threshold, original.calibration)


def test_lost_sight_is_refused(onspect: Run, model: Path, draw: Draw) -> None:
    """If the model no longer sees drawn marks, no threshold helps: nothing is changed."""
    data = model.read_bytes()
    refuses(
        onspect("recalibrate", model, draw("coarse", noise=60.0)),
        "no longer sees defects",
        "no threshold can correct that",
    )
    assert model.read_bytes() == data


def test_doubtful_sight_asks_for_more_frames(onspect: Run, model: Path, draw: Draw) -> None:
    """If the frames are too few to show that the model still sees defects, the command asks for more."""
    data = model.read_bytes()
    folder = draw("coarser", noise=11.5, count=10, seed=3)
    refuses(onspect("recalibrate", model, folder, "--count", 10), "prove only", "--count 30")
    assert model.read_bytes() == data


def test_blind_model_is_refused(onspect: Run, model: Path, draw: Draw) -> None:
    """A model that saw no marks at calibration cannot be checked by them."""
    file = read_model_file(model)
    assert file.info.threshold is not None
    assert file.info.calibration is not None
    good = np.resize(file.info.calibration.good_scores, (60, 4))
    blind = dataclasses.replace(file.info.calibration, mark_scores=tuple(tuple(row) for row in good.tolist()))
    restamp(file, file.info.threshold, blind)
    refuses(
        onspect("recalibrate", model, draw("same")), "cannot be checked without defective parts", "separated only 50%"
    )


def test_frames_that_are_not_all_good_are_refused(onspect: Run, model: Path, draw: Draw) -> None:
    """If far more frames than a shift explains would be rejected, they are not taken for good ones."""
    data = model.read_bytes()
    folder = draw("mixed", count=60)
    for number in range(0, 60, 8):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.full((SIDE, SIDE), 160 + number, np.uint8))
    refuses(
        onspect("recalibrate", model, folder, "--count", 60),
        "8 of the 60 frames would be rejected",
        "Some frames are not good",
    )
    assert model.read_bytes() == data


def test_frames_of_no_use_are_counted(onspect: Run, model: Path, draw: Draw) -> None:
    """Frames that cannot be judged, or repeat another, are left out and counted."""
    folder = draw("other", noise=10.0)
    (folder / "000.png").write_bytes(b"")
    (folder / "002.png").write_bytes((folder / "001.png").read_bytes())
    result = onspect("recalibrate", model, folder)
    assert result.exit_code == 0, result.output
    assert "20 good frames used; 1 could not be judged, 1 repeated another frame" in result.stdout


def test_too_few_frames_are_refused(onspect: Run, model: Path, draw: Draw) -> None:
    """A source that ends early, or gives mostly frames of no use, is refused with the counts; so is --count 9."""
    folder = draw("few", count=12)
    (folder / "000.png").write_bytes(b"")
    refuses(onspect("recalibrate", model, folder), "11 frames are usable, and 20 are needed (1 cannot", "--count 11")
    hanging = draw("hanging", count=1)
    for number in range(1, 40):
        (hanging / f"{number:03}.png").write_bytes((hanging / "000.png").read_bytes())
    refuses(onspect("recalibrate", model, hanging), "21 repeat an earlier one", "only 1 are usable")
    assert onspect("recalibrate", model, folder, "--count", 9).exit_code == 2


def test_source_and_undo_exclude_each_other(onspect: Run, model: Path) -> None:
    """Both at once, or neither, is wrong usage."""
    for arguments in ([], ["parts", "--undo"]):
        assert onspect("recalibrate", model, *arguments).exit_code == 2


def test_model_without_marks_is_refused(onspect: Run, calibrated: Path, uncalibrated: Path, draw: Draw) -> None:
    """A file that was not calibrated, or by a release that drew no marks, names the command to run."""
    folder = draw("any", count=1)
    for path in (calibrated, uncalibrated):
        refuses(onspect("recalibrate", path, folder), "no calibration with test marks", "onspect calibrate")
    with pytest.raises(UncalibratedError):
        find_base(read_model_file(calibrated))


def test_marks_scale_with_the_light() -> None:
    """The marks of a darker picture are darker by the same factor, and each picture has its own places."""
    picture = np.full((60, 80, 3), 160, np.uint8)
    marked = draw_probe_defects(picture, 3)
    assert marked.shape == (4, 60, 80, 3)
    assert [int(image.min()) for image in marked[:3]] == [112, 80, 48]
    assert int(marked[3].max()) == 240
    assert np.abs(draw_probe_defects(picture // 2, 3) - marked / 2).max() <= 1
    assert (draw_probe_defects(picture, 4) != marked).any()
