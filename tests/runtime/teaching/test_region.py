"""Teaching with a region and an alignment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.images.region import Reference, RegionFile
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.teaching import Taught, add

from ...moving_parts import draw_bracket, draw_scene

TeachTiny = Callable[..., Taught]
BOX = (100, 60, 120, 120)


def write_frames(folder: Path, count: int, *, moves: bool, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        rng = np.random.default_rng([1, number])
        pose = (160.0, 120.0, 0.0)
        if moves and number:
            pose = (160 + rng.uniform(-40, 40), 120 + rng.uniform(-20, 20), rng.uniform(-180, 180))
        cv2.imwrite(str(folder / f"{number:03}.png"), draw_scene(*pose, seed=number, light=0.02))
    return folder


def test_moved_parts_are_taught_and_judged(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Parts that are turned and shifted are taught with a reference; a new one is ok, a defect ng, no part a fault."""
    folder = write_frames(tmp_path / "good", 8, moves=True)
    region = RegionFile(rectangles=((110, 70, 100, 100),), reference=Reference(patch=BOX))
    taught = teach_tiny(folder, region=region, size=(96, 96))
    preprocess = taught.info.preprocess
    assert preprocess.region is not None
    assert preprocess.region.box == (110, 70, 100, 100)
    assert preprocess.align is not None
    assert preprocess.align.pictures == 8
    assert taught.info.format_version == 4
    inspector = Inspector(taught.path)
    good = inspector.inspect(draw_scene(180.0, 110.0, 65.0, seed=50, light=0.02))
    bad = inspector.inspect(draw_scene(150.0, 125.0, -120.0, seed=51, light=0.02, part=draw_bracket(defect=True)))
    assert (good.verdict, bad.verdict) == ("ok", "ng")
    assert inspector.inspect(draw_scene(160, 120, 0, part=np.zeros((120, 120), np.uint8))).verdict == "fault"


def test_more_pictures_are_cropped_alike(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """An addition goes through the file's own recipe."""
    folder = write_frames(tmp_path / "good", 6, moves=True)
    region = RegionFile(rectangles=(BOX,), reference=Reference())
    taught = teach_tiny(folder, region=region, size=(96, 96))
    more = write_frames(tmp_path / "more", 3, moves=True, first=20)
    added = add(taught.path, more)
    assert added.info.preprocess == taught.info.preprocess
    assert added.info.memory is not None
    assert added.info.memory.pictures == 9


def test_shapes_become_the_mask_of_the_graph(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Ignored areas raise no alarm, and the file has the inspected share."""
    folder = write_frames(tmp_path / "good", 6, moves=False)
    region = RegionFile(rectangles=(BOX,), ignored_rectangles=((100, 60, 60, 120),))
    taught = teach_tiny(folder, region=region, size=(96, 96))
    assert read_model_file(taught.path).info.score.inspected == pytest.approx(0.5, abs=0.02)
    inspector = Inspector(taught.path)
    frame = draw_scene(160.0, 120.0, 0.0, seed=60)
    marked = frame.copy()
    marked[100:130, 105:125] = 255
    usual, other = inspector.examine(frame), inspector.examine(marked)
    assert other.error_map is not None
    assert not other.error_map[:, :40].any()
    assert (other.verdict.score or 0.0) < 3 * (usual.verdict.score or 0.0)


def test_working_size_is_that_of_the_region(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Without a size, the region's own sides are taken, not the frame's."""
    folder = write_frames(tmp_path / "good", 4, moves=False)
    taught = teach_tiny(folder, region=RegionFile(rectangles=((60, 60, 240, 120),)), size=None)
    preprocess = taught.info.preprocess
    assert preprocess.width == pytest.approx(2 * preprocess.height, rel=0.1)


@pytest.mark.parametrize(
    ("region", "error", "words"),
    [
        (RegionFile(rectangles=((200, 60, 200, 120),)), ChoiceError, "does not fit into the pictures of 320x240"),
        (RegionFile(rectangles=(BOX,), frame=(640, 480)), ChoiceError, "drawn on a picture of 640x480"),
        (RegionFile(rectangles=(BOX,), reference=Reference(patch=(0, 0, 9, 9))), DatasetError, "at least 16 pixels"),
        (RegionFile(rectangles=(BOX,), mask=Path("none.png")), ChoiceError, "none.png"),
    ],
)
def test_region_that_cannot_be_used_is_refused(
    teach_tiny: TeachTiny, tmp_path: Path, region: RegionFile, error: type[Exception], words: str
) -> None:
    """A wrong region is one sentence, and no file is left."""
    folder = write_frames(tmp_path / "good", 3, moves=False)
    with pytest.raises(error, match=words):
        teach_tiny(folder, region=region)
    assert not (tmp_path / "new.onnx").exists()


def test_alignment_alone_takes_the_outline_of_the_part(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Without a region, the part's outline in the first picture is inspected, wherever the part is in the others."""
    taught = teach_tiny(write_frames(tmp_path / "good", 8, moves=True), region=RegionFile(reference=Reference()))
    region = taught.info.preprocess.region
    assert region is not None
    x, y, width, height = region.box
    assert np.allclose((x, y, x + width, y + height), (99, 59, 222, 180), atol=6)
    inspector = Inspector(taught.path)
    assert inspector.inspect(draw_scene(120.0, 100.0, 140.0, seed=50, light=0.02)).verdict == "ok"
    bad = draw_scene(200.0, 130.0, -70.0, seed=51, light=0.02, part=draw_bracket(defect=True))
    assert inspector.inspect(bad).verdict == "ng"


def test_alignment_alone_on_parts_that_fill_the_frame(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """If no outline is found, the frame less a tenth on each side is inspected; larger shifts are faults."""
    rng = np.random.default_rng(2)
    part = cv2.GaussianBlur(rng.integers(0, 256, (300, 400), np.uint8), (0, 0), 3)
    part = cv2.normalize(part, None, 0, 255, cv2.NORM_MINMAX)

    def cut(across: int, down: int) -> NDArray[np.uint8]:
        noise = rng.normal(0.0, 2.0, (240, 320))
        return (part[30 + down : 270 + down, 40 + across : 360 + across] + noise).clip(0, 255).astype(np.uint8)

    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), cut(*(rng.integers(-12, 13, 2) if number else (0, 0))))
    taught = teach_tiny(folder, region=RegionFile(reference=Reference(turn=10.0)))
    region = taught.info.preprocess.region
    assert region is not None
    assert region.box == (32, 24, 256, 192)
    inspector = Inspector(taught.path)
    assert inspector.inspect(cut(10, -8)).verdict == "ok"
    far = inspector.inspect(cut(40, 0))
    assert far.verdict == "fault"
    assert far.reason is not None
    assert "cut by the edge" in far.reason


def test_picture_without_the_part_is_named(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """A good picture in which the part is not found is refused by its name."""
    folder = write_frames(tmp_path / "good", 8, moves=True)
    cv2.imwrite(str(folder / "empty.png"), draw_scene(160, 120, 0, part=np.zeros((120, 120), np.uint8)))
    region = RegionFile(rectangles=(BOX,), reference=Reference())
    with pytest.raises(DatasetError, match=r"empty\.png'?: part not found"):
        teach_tiny(folder, region=region)


def test_command_teaches_with_region_and_alignment(
    onspect: Callable[..., object], base_file: Path, tmp_path: Path
) -> None:
    """The options reach the file; options that exclude each other are usage errors."""
    folder = write_frames(tmp_path / "good", 6, moves=True)
    output = tmp_path / "part.onnx"
    arguments = ("teach", folder, "--base", base_file, "--size", "96x96", "--copies", "none", "-o", output)
    result = onspect(*arguments, "--roi", "100,60,120,120", "--align", "--max-turn", "180")
    assert result.exit_code == 0, result.output
    assert "region 120x120 at 100,60 of 320x240 pixels" in result.output
    assert "aligned by a patch of 120x120" in result.output
    info = onspect("info", output)
    assert "120x120 at 100,60" in info.output
    for wrong, words in (
        (("--max-turn", "20"), "give --align as well"),
        (("--roi", "1,2,3,4", "--max-turn", "20"), "give --align as well"),
        (("--roi", "1,2,3"), "has 3 numbers"),
    ):
        result = onspect(*arguments, *wrong)
        assert result.exit_code == 2
        assert words in result.output
