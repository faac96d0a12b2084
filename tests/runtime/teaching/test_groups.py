"""Several pictures of one part count as one part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.export.precision.memory import read_pictures
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.teaching import Taught

from .conftest import draw

TeachTiny = Callable[..., Taught]
PATTERN = r"^(part\d+)_"


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Return a folder with three pictures, that differ in noise only, of each of ten parts."""
    return shoot(tmp_path / "shots", range(10))


@pytest.mark.slow
def test_threshold_holds_for_new_parts(teach_tiny: TeachTiny, shots: Path) -> None:
    """Without groups each picture is judged by others of its part, and new good parts are rejected; with them few."""
    alone = teach_tiny(shots, "alone.onnx")
    grouped = teach_tiny(shots, "grouped.onnx", group=PATTERN)
    new = [draw(number) for number in range(1000, 1040)]

    def count_rejects(taught: Taught) -> int:
        inspector = Inspector(taught.path)
        return sum(inspector.inspect(frame).verdict == "ng" for frame in new)

    assert alone.rate == pytest.approx(1 / 31)
    assert count_rejects(alone) > 5 * alone.rate * len(new)
    assert count_rejects(grouped) < 2 * grouped.rate * len(new)


def test_parts_are_counted(teach_tiny: TeachTiny, shots: Path) -> None:
    """The promise, its evidence and the sentence are those of ten parts, not of thirty pictures."""
    taught = teach_tiny(shots, group=PATTERN)
    calibration = taught.info.calibration
    assert calibration is not None
    assert (len(calibration.good_scores), calibration.counts) == (10, {"good": 10})
    assert taught.rate == pytest.approx(1 / 11)
    assert "cross-conformal, 10 parts in 30 pictures" in calibration.policy
    assert taught.describe_support().startswith("With 10 good parts in 30 pictures the threshold rejects at most 9.1%")
    assert "99 parts are needed" in taught.describe_support()


def test_parts_with_one_picture_each_change_nothing(teach_tiny: TeachTiny, parts: Path) -> None:
    """A pattern that separates every picture gives the same threshold as no pattern."""
    plain = teach_tiny(parts, "plain.onnx").info
    grouped = teach_tiny(parts, "grouped.onnx", group=r"\d+").info
    assert grouped.threshold == plain.threshold
    assert grouped.calibration is not None
    assert plain.calibration is not None
    assert grouped.calibration.policy == plain.calibration.policy


@pytest.mark.slow
def test_twins_are_warned_of(
    teach_tiny: TeachTiny, shots: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many pictures that look almost alike are pointed out with the option, unless it is given."""
    teach_tiny(shots, group=PATTERN)
    different = tmp_path / "different"
    different.mkdir()
    for number in range(20):
        (different / f"{number}.png").write_bytes(cv2.imencode(".png", draw(number))[1].tobytes())
    teach_tiny(different)
    assert "--group" not in caplog.text
    teach_tiny(shots)
    words = "of 30 pictures look almost like another one. If several pictures show one part, give --group"
    assert words in caplog.text


def test_groups_that_cannot_be_used_are_refused(teach_tiny: TeachTiny, shots: Path) -> None:
    """One part only, a name without a match and no expression are refused before anything is fitted."""
    with pytest.raises(DatasetError, match="all 30 pictures show one part by 'part'"):
        teach_tiny(shots, group="part")
    with pytest.raises(DatasetError, match=r"does not match 'part0_0\.png'"):
        teach_tiny(shots, group="lot")
    with pytest.raises(ChoiceError, match="not a regular expression"):
        teach_tiny(shots, group="(")


def shoot(folder: Path, parts: range) -> Path:
    """Write three pictures, that differ in noise only, of each of the parts."""
    folder.mkdir()
    for part in parts:
        for shot in range(3):
            noise = np.random.default_rng([part, shot]).normal(0, 0.4, (96, 96))
            picture = np.clip(draw(part) + noise, 0, 255).astype(np.uint8)
            (folder / f"part{part}_{shot}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


@pytest.mark.slow
def test_an_addition_counts_parts_too(
    onspect: Callable[..., Result], teach_tiny: TeachTiny, shots: Path, tmp_path: Path
) -> None:
    """With --group new pictures of a part are judged without each other, and their part counts once."""
    more = shoot(tmp_path / "more", range(20, 26))
    files = [teach_tiny(shots, name, group=PATTERN).path for name in ("grouped.onnx", "alone.onnx")]
    result = onspect("teach", more, "--add-to", files[0], "--group", PATTERN)
    assert result.exit_code == 0, result.stderr
    assert "With 16 good parts in 48 pictures" in result.stderr
    assert "taught with --group" not in result.stderr
    result = onspect("teach", more, "--add-to", files[1])
    assert "taught with --group; without it each of the 18 new pictures counts as a part" in result.stderr
    grouped, alone = (read_model_file(path).info.calibration for path in files)
    assert grouped is not None
    assert alone is not None
    assert (len(grouped.good_scores), len(alone.good_scores)) == (16, 28)
    middle = float(np.median(grouped.good_scores))
    assert sum(score < 0.5 * middle for score in grouped.good_scores) == 0
    assert sum(score < 0.5 * middle for score in alone.good_scores) >= 10  # judged by pictures of their own part


def test_groups_of_an_addition_that_cannot_be_used_are_refused(
    onspect: Callable[..., Result], teach_tiny: TeachTiny, shots: Path, tmp_path: Path
) -> None:
    """A name without a match leaves the file as it is; --undo takes no groups."""
    path = teach_tiny(shots, group=PATTERN).path
    before = path.read_bytes()
    result = onspect("teach", shoot(tmp_path / "more", range(20, 21)), "--add-to", path, "--group", "lot")
    assert (result.exit_code, "does not match" in result.stderr) == (1, True)
    assert path.read_bytes() == before
    result = onspect("teach", "--undo", path, "--group", PATTERN)
    assert (result.exit_code, "and no other option" in result.stderr) == (2, True)


def test_int8_of_a_grouped_file_is_refused(teach_tiny: TeachTiny, shots: Path) -> None:
    """Reducing to INT8 teaches again without the groups, and says so instead of promising too much."""
    taught = teach_tiny(shots, group=PATTERN)
    with pytest.raises(DatasetError, match="was taught with --group"):
        read_pictures(read_model_file(taught.path), shots)
