from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.runtime import Inspector, draw_overlay, read_model_info, write_picture
from onspect.runtime.errors import ImageError, OutputError
from onspect.runtime.images.placement import Placement
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.visualization import mark_regions
from onspect.runtime.judgement import Judgement

from ..verdicts import inspection as inspect_part

Run = Callable[..., Result]


def make_inspection(verdict: Judgement, side: int = 300) -> Inspection:
    """Return an inspection of a grey frame with a region of 4 x 4 pixels in its middle."""
    error_map = np.zeros((side, side), np.float32)
    error_map[148:152, 148:152] = 1.0
    region = Region(148, 148, 4, 4, 1.0, 16)
    made = inspect_part(
        frame=np.full((side, side), 128, np.uint8), verdict=verdict, regions=(region,), review_threshold=0.2
    )
    return dataclasses.replace(made, error_map=error_map)


def find_marks(inspection: Inspection) -> NDArray[np.bool_]:
    """Return what an overlay draws on a frame of one grey, without its banner."""
    picture = draw_overlay(inspection)
    assert picture is not None
    assert inspection.frame is not None
    below = picture[-inspection.frame.shape[0] :]
    return np.asarray((below != 128).any(axis=2), np.bool_)


def test_a_part_that_passed_has_no_marks() -> None:
    """An ok part is shown as it is, though its error map has a region."""
    assert not find_marks(make_inspection("ok")).any()


@pytest.mark.parametrize("verdict", ["ng", "review"])
def test_a_box_is_large_enough_to_be_seen_and_outside(verdict: Judgement) -> None:
    """A region of 4 pixels has a box of 12 or more; most of the picture, and the region's middle, is free."""
    marks = find_marks(make_inspection(verdict))
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    for places in (rows, columns):
        assert 12 <= places[-1] - places[0] + 1 <= 24
        assert places[0] < 147
        assert places[-1] > 152
    assert not marks[148:152, 148:152].any()
    assert marks.mean() < 0.01


def test_a_box_at_the_edge_stays_in_the_picture() -> None:
    """A region in the corner has its box and outline drawn as far as the picture goes."""
    picture = np.full((40, 60, 3), 128, np.uint8)
    mark_regions(picture, [Region(0, 0, 2, 2, 1.0, 4), Region(58, 38, 2, 2, 1.0, 4)], None, 0.5)
    marks = (picture != 128).any(axis=2)
    assert marks[0, :5].any()
    assert marks[-1, -5:].any()


def test_the_outline_follows_the_error_map() -> None:
    """The outline of a round region is round: its corners are free inside the box."""
    error_map = np.zeros((200, 200), np.float32)
    cv2.circle(error_map, (100, 100), 40, 1.0, -1)
    picture = np.full((200, 200, 3), 128, np.uint8)
    mark_regions(picture, [Region(60, 60, 81, 81, 1.0, 5000)], error_map, 0.5)
    marks = (picture != 128).any(axis=2)
    assert marks[100, 54:60].any()
    assert not marks[62:66, 62:66].any()
    assert not marks[75:125, 75:125].any()


def test_beside_and_legend_make_the_picture_larger() -> None:
    """The plain image is to the left, and a legend below explains the marks."""
    inspection = make_inspection("ng")
    plain, beside, legend = (
        draw_overlay(inspection, **options) for options in ({}, {"beside": True}, {"legend": True})
    )
    assert plain is not None
    assert beside is not None
    assert legend is not None
    assert beside.shape[1] == 2 * plain.shape[1] + 4
    assert (beside[-300:, :300] == 128).all()
    assert legend.shape[0] > plain.shape[0]
    heat = draw_overlay(make_inspection("ok"), heat=True)
    assert heat is not None
    assert (heat[-300:] != 128).any()


def test_a_legend_has_a_line_for_each_kind_of_mark() -> None:
    """Boxes and outlines, the inspected region and the heat have a line each; without marks one line says why."""
    found = make_inspection("ng")
    bare = dataclasses.replace(found, verdict=dataclasses.replace(found.verdict, regions=()))
    fault = dataclasses.replace(make_inspection("fault"), error_map=None)
    crop = dataclasses.replace(found, placement=Placement(300, 300, (1, 0, 0, 0, 1, 0), (300, 300)))
    for inspection, heat, lines in (
        (found, False, 2),
        (found, True, 3),
        (bare, False, 1),
        (fault, True, 1),
        (make_inspection("ok"), False, 1),
        (crop, False, 3),
    ):
        with_legend, without = (draw_overlay(inspection, heat=heat, legend=legend) for legend in (True, False))
        assert with_legend is not None
        assert without is not None
        assert (with_legend.shape[0] - without.shape[0]) // 20 == lines


def test_an_inspector_and_an_inspection_print_one_line(calibrated: Path, write_image: Callable[..., Path]) -> None:
    """The name of the model, its threshold and its provider are shown, and no array is."""
    inspector = Inspector(calibrated)
    assert repr(inspector).startswith(f"<Inspector {inspector.label}, ng from ")
    shown = repr(inspector.examine(write_image(calibrated.parent / "bright.png", 200, (32, 48))))
    assert "array" not in shown
    assert "\n" not in shown


def test_an_inspection_is_a_picture_in_a_notebook(calibrated: Path, write_image: Callable[..., Path]) -> None:
    """`plot` gives a BGR array, a notebook gets a PNG; a fault without a frame has none and plots as an error."""
    inspector = Inspector(calibrated)
    inspection = inspector.examine(write_image(calibrated.parent / "bright.png", 200, (32, 48)))
    picture = inspection.plot()
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    png = inspection._repr_png_()
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert inspection.resize_error_map().shape == (32, 48)
    fault = inspector.examine(calibrated.parent / "missing.png")
    assert fault._repr_png_() is None
    for failing in (fault.plot, fault.resize_error_map):
        with pytest.raises(ImageError, match=r"missing\.png"):
            failing()


def test_a_verdict_plots_on_its_file_or_a_frame(calibrated: Path, write_image: Callable[..., Path]) -> None:
    """A verdict reads its source again, or takes a frame; its table in a notebook is escaped."""
    path = write_image(calibrated.parent / "a<b>.png", 200, (300, 300))
    verdict = Inspector(calibrated).inspect(path)
    assert verdict.regions
    np.testing.assert_array_equal(verdict.plot(), verdict.plot(np.full((300, 300), 200, np.uint8)))
    table = verdict._repr_html_()
    assert "<td>ng</td>" in table
    assert "a&lt;b&gt;.png" in table
    path.unlink()
    with pytest.raises(ImageError):
        verdict.plot()
    with pytest.raises(ImageError, match="give HxW"):
        verdict.plot(np.zeros((3, 3), np.float32))


def test_a_verdict_plots_frames_of_12_bits(calibrated: Path) -> None:
    """Without a white level, the usual bit depth that fits the frame is white, and not black; a white level counts."""
    frame = np.full((300, 300), 4000, np.uint16)
    verdict = dataclasses.replace(Inspector(calibrated).inspect(frame), verdict="ok", regions=())
    assert verdict.plot(frame)[150, 150].tolist() == [round(4000 * 255 / 4095)] * 3
    assert verdict.plot(frame, white_level=65535)[150, 150].tolist() == [round(4000 * 255 / 65535)] * 3
    for wrong in (frame[:0], frame.astype(np.float32)):
        with pytest.raises(ImageError, match="give HxW"):
            verdict.plot(wrong)


def test_a_model_prints_ten_lines(calibrated: Path, uncalibrated: Path) -> None:
    """`ModelInfo` prints as ten lines, with a threshold and without one."""
    lines = repr(read_model_info(calibrated)).splitlines()
    assert len(lines) == 10
    assert lines[0].split() == ["model", "tiny"]
    assert "threshold    ng at score >= 0.0062, regions at 0.0062" in lines
    bare = str(read_model_info(uncalibrated)).splitlines()
    assert len(bare) == 10
    assert "threshold    none yet" in bare


def test_pictures_are_written_as_png_or_jpeg(tmp_path: Path) -> None:
    """The ending decides; another one is refused and writes nothing."""
    picture = np.full((8, 8, 3), 60, np.uint8)
    for name, start in (("a.png", b"\x89PNG"), ("b.JPG", b"\xff\xd8"), ("c.jpeg", b"\xff\xd8")):
        write_picture(tmp_path / name, picture)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(OutputError, match=r"as .png or .jpg, not as 'd.bmp'"):
        write_picture(tmp_path / "d.bmp", picture)
    assert not (tmp_path / "d.bmp").exists()


def test_score_draws_overlays_as_asked(
    onspect: Run, calibrated: Path, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    """`onspect score` writes JPEG and the plain image beside the marks on request."""
    image = write_image(tmp_path / "parts/a.png", 200, (300, 300))
    arguments = ("score", calibrated, image, "-o", tmp_path / "v.jsonl", "--overlays", tmp_path / "drawn")
    result = onspect(*arguments, "--overlay-format", "jpg", "--overlay-style", "beside")
    assert result.exit_code == 0, result.output
    drawn = cv2.imread(str(tmp_path / "drawn/a.jpg"))
    assert drawn is not None
    assert drawn.shape[1] == 604
