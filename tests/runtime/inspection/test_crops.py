"""Regions and alignment from the frame to the verdict: the same for files, cameras and calibration."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.runtime.bench.images import draw_images
from onspect.runtime.errors import DatasetError, ModelFileError
from onspect.runtime.images.fit_alignment import fit_alignment
from onspect.runtime.images.region import parse_region
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.inspection.verdict import parse_verdict
from onspect.runtime.inspection.visualization import draw_overlay, draw_view
from onspect.runtime.line import Line, Models
from onspect.runtime.model.card import describe
from onspect.runtime.model.file import read_model_file, stamp
from onspect.runtime.model.schema import Alignment, Preprocess, RegionOfInterest, SourceLimits, Threshold
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.lines import CsvSink
from onspect.runtime.sources.fake import FakeSource

from ...moving_parts import draw_scene
from ...tiny_model import build_graph, make_info

SIDE = 32
REGION = RegionOfInterest((40, 20, 64, 64), (160, 120))


def write_model(path: Path, region: RegionOfInterest | None, align: Alignment | None = None) -> Path:
    """Write the tiny model, for which grey is good, with a crop."""
    info = make_info(width=SIDE, height=SIDE, threshold=Threshold(0.02, 0.1))
    preprocess = Preprocess(SIDE, SIDE, 1, 65535, SourceLimits((1, 3), None, None), region, align)
    path.write_bytes(stamp(build_graph(width=SIDE, height=SIDE), dataclasses.replace(info, preprocess=preprocess), []))
    return path


class Keeper(Sink):
    """A sink that keeps its inspections."""

    delivery = "live"
    pictures = True

    def __init__(self) -> None:
        self.inspections: list[Inspection] = []

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, inspection: Inspection) -> None:
        self.inspections.append(inspection)


@functools.cache
def fit() -> Alignment:
    frames = [draw_scene(*pose, seed=n) for n, pose in enumerate([(160, 120, 0), (150, 130, 40), (170, 110, 170)])]
    readers = [functools.partial(np.asarray, frame) for frame in frames]
    patch = (100, 60, 120, 120)
    return fit_alignment(readers, patch, picture=frames[0], turn=180, scale=0, white_level=65535)


@pytest.fixture
def cropped(tmp_path: Path) -> Inspector:
    return Inspector(write_model(tmp_path / "cropped.onnx", REGION))


@pytest.fixture
def aligned(tmp_path: Path) -> Inspector:
    return Inspector(write_model(tmp_path / "aligned.onnx", RegionOfInterest((130, 90, 60, 60), (320, 240)), fit()))


def frame_with_spot(x: int, y: int) -> np.ndarray:
    """Return a grey frame with a white spot of 10 x 10 pixels."""
    frame = np.full((120, 160), 128, np.uint8)
    frame[y : y + 10, x : x + 10] = 255
    return frame


def test_only_the_region_is_judged(cropped: Inspector) -> None:
    """A spot inside the region is reported where the frame shows it; one outside is not seen."""
    verdict = cropped.inspect(frame_with_spot(70, 50))
    (region,) = verdict.regions
    assert (region.x, region.y, region.width, region.height, region.area) == (70, 50, 10, 10, 100)
    outside = cropped.inspect(frame_with_spot(10, 90))
    assert (outside.verdict, outside.regions, outside.score) == ("ok", (), pytest.approx(0.0, abs=1e-4))
    assert (verdict.pose_x, verdict.pose_angle) == (None, None)


def test_frame_that_the_region_leaves_is_a_fault(cropped: Inspector) -> None:
    """A smaller frame is a fault with both sizes, never ok."""
    verdict = cropped.inspect(np.full((60, 80), 128, np.uint8))
    assert verdict.verdict == "fault"
    assert "64x64 pixels at 40,20" in str(verdict.reason)
    assert "80x60" in str(verdict.reason)


def test_file_with_a_region_needs_the_newest_readers(cropped: Inspector, aligned: Inspector, tmp_path: Path) -> None:
    """Only files with a region have format version 4; the card shows region and reference."""
    assert read_model_file(cropped.path).info.format_version == 4
    assert read_model_file(write_model(tmp_path / "whole.onnx", None)).info.format_version == 1
    card = describe(read_model_file(aligned.path))
    assert "60x60 at 130,90 of 320x240 pixels" in card
    assert "by a patch of 120x120 at 100,60, turned by up to 180 degrees; found from correlation 0." in card
    assert "\nregion" not in describe(read_model_file(tmp_path / "whole.onnx"))
    data = aligned.path.read_bytes().replace(b'"turn": 180.0', b'"turn": 999.0')
    with pytest.raises(ModelFileError, match="damaged"):
        _ = Inspector(_write(tmp_path / "damaged.onnx", data))


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_pose_is_in_the_verdict(aligned: Inspector) -> None:
    """A moved part is found, and x, y and angle are in the verdict's JSON and come back from it."""
    verdict = aligned.inspect(draw_scene(190.0, 100.0, -75.0, seed=5))
    assert verdict.verdict in ("ok", "ng")
    assert (verdict.pose_x, verdict.pose_y, verdict.pose_angle) == pytest.approx((190.0, 100.0, -75.0), abs=0.5)
    assert parse_verdict(verdict.to_json()) == verdict
    assert json.loads(verdict.to_json())["pose_angle"] == verdict.pose_angle


def test_verdicts_without_a_pose_are_read() -> None:
    """A line that an older release wrote has no pose."""
    line = (
        '{"source": "a", "index": 0, "time": "", "verdict": "ok", "score": 0.1, "threshold": 1.0, "regions": [], '
        '"latency_ms": 1.0, "model": "m"}'
    )
    assert parse_verdict(line).pose_x is None


def test_part_that_is_not_found_is_a_fault(aligned: Inspector) -> None:
    """An empty frame and a part that the edge cuts are faults with their reasons; neither has a pose or a score."""
    empty = aligned.inspect(draw_scene(160, 120, 0, part=np.zeros((120, 120), np.uint8)))
    assert (empty.verdict, empty.score, empty.pose_x) == ("fault", None, None)
    assert str(empty.reason).startswith("part not found")
    cut = aligned.inspect(draw_scene(15.0, 120.0, 0.0))
    assert (cut.verdict, cut.score) == ("fault", None)


def test_region_of_a_turned_part_is_where_the_frame_shows_it(aligned: Inspector) -> None:
    """The box of a spot on a turned part is around the spot in the frame."""
    frame = draw_scene(180.0, 110.0, 90.0, seed=3)
    frame[90:98, 190:198] = 255
    verdict = aligned.inspect(frame)
    assert any(
        region.x <= 192 <= region.x + region.width and region.y <= 94 <= region.y + region.height
        for region in verdict.regions
    )


@pytest.mark.slow
def test_file_and_camera_give_the_same_verdict(aligned: Inspector, tmp_path: Path) -> None:
    """Score, regions and pose of a frame are the same bit for bit from a file and from a camera's line."""
    frames = [draw_scene(150 + 9 * n, 115 + 5 * n, 50.0 * n, seed=n) for n in range(4)]
    frames.append(draw_scene(160, 120, 0, part=np.zeros((120, 120), np.uint8)))
    paths = []
    for number, frame in enumerate(frames):
        path = tmp_path / f"{number}.png"
        path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
        paths.append(path)

    sink = Keeper()
    source = FakeSource(frames.__getitem__, count=len(frames), rate=5.0)
    Line(Models({None: aligned.path}, None, Inspector, None), [source], [sink], policies=["every"]).run()
    from_files = list(aligned.inspect_many(paths))
    single = [aligned.inspect(frame) for frame in frames]
    assert len(sink.inspections) == len(frames)

    def facts(verdict: object) -> tuple[object, ...]:
        return tuple(
            getattr(verdict, name)
            for name in ("verdict", "score", "regions", "reason", "pose_x", "pose_y", "pose_angle", "threshold")
        )

    assert (
        [facts(one.verdict) for one in sink.inspections]
        == [facts(one) for one in from_files]
        == [facts(one) for one in single]
    )
    assert [one.verdict for one in from_files].count("fault") == 1


def test_overlay_shows_region_heat_and_pose(aligned: Inspector, cropped: Inspector) -> None:
    """Heat is drawn inside the region only, and the region's outline in its colour."""
    whole = cropped.examine(frame_with_spot(70, 50))
    picture = draw_overlay(whole, heat=True)
    assert picture is not None
    scale = picture.shape[1] // 160
    body = picture[picture.shape[0] - 120 * scale :]
    assert tuple(body[(20 + 1) * scale - scale // 2 - 1, 80 * scale]) != (128, 128, 128)
    assert tuple(body[5 * scale, 5 * scale]) == (128, 128, 128)
    inspection = aligned.examine(draw_scene(190.0, 100.0, 30.0))
    for picture in (draw_overlay(inspection), draw_view(inspection, longest=640, heat=True)):
        assert picture is not None
        assert (np.abs(picture.astype(int) - (255, 211, 143)).max(axis=2) < 40).sum() > 50


def test_error_map_of_a_crop_lies_in_the_frame(cropped: Inspector) -> None:
    """At the frame's size the map is 0 outside the crop, and highest at the spot."""
    inspection = cropped.examine(frame_with_spot(70, 50))
    full = inspection.resize_error_map()
    assert full.shape == (120, 160)
    assert full[:10].max() == 0.0
    row, column = np.unravel_index(int(full.argmax()), full.shape)
    (region, *_) = inspection.verdict.regions
    assert region.x <= column < region.x + region.width
    assert region.y <= row < region.y + region.height


def test_csv_has_the_pose(aligned: Inspector, tmp_path: Path) -> None:
    """A table's header and rows have the same columns, the pose among them."""
    path = tmp_path / "verdicts.csv"
    with CsvSink(path) as sink:
        sink.write(aligned.examine(draw_scene(190.0, 100.0, 30.0)))
    header, row = path.read_text().splitlines()
    assert header.endswith("review_threshold,pose_x,pose_y,pose_angle,code")
    assert float(row.split(",")[-4]) == pytest.approx(190.0, abs=0.5)


def test_older_table_keeps_its_columns(cropped: Inspector, tmp_path: Path) -> None:
    """Rows that are added to a table of an older release have its columns, not three more."""
    path = tmp_path / "verdicts.csv"
    path.write_bytes(b"source,index,time,verdict,score\r\na.png,0,now,ok,0.1\r\n")
    with CsvSink(path, append=True) as sink:
        sink.write(cropped.examine(frame_with_spot(70, 50)))
    assert [len(line.split(",")) for line in path.read_text().splitlines()] == [5, 5, 5]


def test_bench_asks_for_pictures_of_parts(aligned: Inspector, cropped: Inspector, tmp_path: Path) -> None:
    """Drawn images do for a region; for an alignment they do not."""
    paths = draw_images(tmp_path, cropped.info.preprocess)
    assert cropped.inspect(paths[0]).verdict != "fault"
    with pytest.raises(DatasetError, match="give pictures of parts"):
        draw_images(tmp_path, aligned.info.preprocess)


def test_region_of_the_option_is_that_of_the_file(tmp_path: Path) -> None:
    """What --roi says judges as the same region in a file."""
    inspector = Inspector(write_model(tmp_path / "part.onnx", parse_region(["40,20,64,64"]).place(160, 120)))
    assert inspector.info.preprocess.region == REGION
