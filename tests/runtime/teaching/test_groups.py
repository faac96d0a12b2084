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
    folder = tmp_path / "shots"
    folder.mkdir()
    for part in range(10):
        for shot in range(3):
            noise = np.random.default_rng([part, shot]).normal(0, 0.4, (96, 96))
            picture = np.clip(draw(part) + noise, 0, 255).astype(np.uint8)
            (folder / f"part{part}_{shot}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


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
    """A pattern that tells every picture apart gives the threshold that no pattern gives."""
    plain = teach_tiny(parts, "plain.onnx").info
    grouped = teach_tiny(parts, "grouped.onnx", group=r"\d+").info
    assert grouped.threshold == plain.threshold
    assert grouped.calibration is not None
    assert plain.calibration is not None
    assert grouped.calibration.policy == plain.calibration.policy


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


def test_group_is_for_a_new_file(onspect: Callable[..., Result], taught: Path, shots: Path) -> None:
    """An addition judges its pictures otherwise, and takes no groups."""
    result = onspect("teach", shots, "--add-to", taught, "--group", PATTERN)
    assert (result.exit_code, "--group is for a new file" in result.stderr) == (2, True)


def test_int8_of_a_grouped_file_is_refused(teach_tiny: TeachTiny, shots: Path) -> None:
    """Reducing to INT8 teaches again without the groups, and says so instead of promising too much."""
    taught = teach_tiny(shots, group=PATTERN)
    with pytest.raises(DatasetError, match="was taught with --group"):
        read_pictures(read_model_file(taught.path), shots)
