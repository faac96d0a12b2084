"""Pictures of different shapes: each keeps its aspect ratio, on every way through the product."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.export import quantize
from onspect.runtime.dataset.good_images import stack_images
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.working_size import own_size
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import RegionOfInterest
from onspect.runtime.teaching import Taught, add, take_back, teach
from onspect.runtime.teaching.extract import Extractor
from onspect.runtime.teaching.graph_values import Stored, read_metric
from onspect.runtime.teaching.memory import score_images

from ...sharing import Share
from ...test_docs import find_blocks, judge_with_inspector
from .conftest import write_pictures
from .test_teach import HALF, graph_of

Run = Callable[..., Result]
TeachTiny = Callable[..., Taught]
WIDE, TALL = (192, 384), (384, 192)  # height and width


def write_shapes(folder: Path, numbers: range, *, spot: bool = False) -> Path:
    """Write pictures, half of them wide and half tall."""
    for size, some in ((WIDE, numbers[::2]), (TALL, numbers[1::2])):
        for number in some:
            write_pictures(folder, range(number, number + 1), size=size, spot=spot)
    return folder


@pytest.fixture(scope="session")
def shapes(share: Share) -> Path:
    """A dataset with wide and tall pictures; masks of the spots."""

    def fill(folder: Path) -> None:
        write_shapes(folder / "train/good", range(16))
        for split, first in (("val", 100), ("test", 200)):
            write_shapes(folder / split / "good", range(first, first + 10))
            for path in sorted(
                write_shapes(folder / split / "spot", range(first + 50, first + 54), spot=True).iterdir()
            ):
                height, width = read_image(path).shape
                mask = np.zeros((height, width), np.uint8)
                cv2.circle(mask, (width // 2 + 10, height // 2 - 8), 11, 255, -1)
                (folder / "ground_truth" / split / "spot").mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / "ground_truth" / split / "spot" / f"{path.stem}_mask.png"), mask)

    return share("tiny-shapes", fill)


@pytest.fixture(scope="session")
def once(share: Share, base_file: Path, shapes: Path) -> Path:
    return (
        share("tiny-aspect", lambda folder: teach(shapes, folder / "part.onnx", base=base_file, copies="none"))
        / "part.onnx"
    )


@pytest.fixture
def model(once: Path, tmp_path: Path) -> Path:
    """A model file of pictures of two shapes, which a test may change."""
    return Path(shutil.copy(once, tmp_path / "part.onnx"))


def paths(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_each_picture_keeps_its_aspect_ratio(model: Path, shapes: Path) -> None:
    """The model input is wide for wide frames and tall for tall ones, with about the pixels of the usual size."""
    inspector = Inspector(model)
    preprocess = inspector.info.preprocess
    assert (preprocess.keep_aspect, preprocess.height, preprocess.width) == (True, 256, 256)
    sides = {inspector.prepare(read_image(path)).shape for path in paths(shapes / "test/good")}
    assert sides == {(192, 352, 1), (352, 192, 1)}


def test_good_and_defective_parts_are_told_apart(model: Path, shapes: Path) -> None:
    """By the threshold that teaching chose, in both shapes; several files at a time, alone, and as a batch."""
    inspector = Inspector(model)
    for kind, expected in (("good", "ok"), ("spot", "ng")):
        files = paths(shapes / "test" / kind)
        alone = [inspector.inspect(path) for path in files]
        assert {verdict.verdict for verdict in alone} == {expected}
        many = list(inspector.inspect_many(files, workers=2))
        batch = [one.verdict for one in inspector.examine_batch([read_image(path) for path in files])]
        assert [verdict.score for verdict in many] == [verdict.score for verdict in alone]
        assert [verdict.score for verdict in batch] == [verdict.score for verdict in alone]
        assert [verdict.regions for verdict in batch] == [verdict.regions for verdict in alone]


def test_a_batch_with_a_fault_keeps_the_others(model: Path, shapes: Path) -> None:
    """A frame that is refused between frames of two shapes takes no verdict from them."""
    files = paths(shapes / "test/spot")
    frames = [read_image(files[0]), np.zeros((4000, 4000), np.uint8), read_image(files[1])]
    found = [one.verdict.verdict for one in Inspector(model).examine_batch(frames)]
    assert found == ["ng", "fault", "ng"]


def test_regions_lie_on_the_spot(model: Path, shapes: Path) -> None:
    """Regions and error maps are in the frame's pixels, in both shapes."""
    for path in paths(shapes / "test/spot"):
        inspection = Inspector(model).examine(path)
        height, width = read_image(path).shape
        (region,) = inspection.verdict.regions[:1]
        x, y = width // 2 + 10, height // 2 - 8
        assert region.x <= x < region.x + region.width
        assert region.y <= y < region.y + region.height
        assert inspection.resize_error_map().shape == (height, width)
        assert inspection.plot().shape[2] == 3


def test_numpy_score_is_the_graph_s(model: Path, shapes: Path) -> None:
    """The pictures' own scores are computed as the graph computes them."""
    inspector, graph = Inspector(model), graph_of(model)
    images = stack_images([inspector.prepare(read_image(path)) for path in paths(shapes / "test/good")])
    features = Extractor.open(graph).extract(images)
    vectors = Stored.read(graph).vectors.astype(np.float32)
    expected = score_images(read_metric(graph).patches(features), vectors, features.shapes)
    assert [float(inspector.infer(image[None]).score[0]) for image in images] == pytest.approx(expected, rel=HALF)


def test_documented_reader_judges_alike(model: Path, shapes: Path) -> None:
    """The reader of docs/model-file.md computes the same sizes; readers of version 4 refuse the file."""
    assert read_model_file(model).info.format_version == 5
    (code,) = find_blocks("model-file.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "model-file.md", "exec"), names)
    reader, inspector = names["Reader"](model), Inspector(model)
    for path in paths(shapes / "test/spot"):
        assert reader.judge(read_image(path)) == judge_with_inspector(inspector, read_image(path))


def test_adding_and_undoing(model: Path, tmp_path: Path) -> None:
    """Further pictures of both shapes are taught, and the addition is undone."""
    before = graph_of(model)
    assert add(model, write_shapes(tmp_path / "more", range(500, 506))).pictures == 6
    assert read_model_file(model).info.preprocess.keep_aspect
    take_back(model)
    assert graph_of(model) == before


def test_the_same_pictures_give_the_same_file(shapes: Path, base_file: Path, once: Path, tmp_path: Path) -> None:
    """A seed decides everything here too."""
    teach(shapes, tmp_path / "again.onnx", base=base_file, copies="none")
    assert graph_of(tmp_path / "again.onnx") == graph_of(once)


COMMANDS = ("info", "score", "run", "calibrate", "evaluate", "recalibrate")


@pytest.mark.parametrize("command", [*COMMANDS, pytest.param("bench", marks=pytest.mark.slow)])
def test_commands_accept_the_file(command: str, model: Path, shapes: Path, tmp_path: Path, onspect: Run) -> None:
    """Every command works on frames of both shapes."""
    if command == "recalibrate":
        assert onspect("calibrate", model, shapes, "--max-fpr", "10%").exit_code == 0
    arguments = {
        "info": (model,),
        "score": (model, shapes / "test", "-o", tmp_path / "verdicts.jsonl", "--overlays", tmp_path / "overlays"),
        "run": (model, shapes / "test/good", "--sink", f"jsonl:{tmp_path}/verdicts.jsonl"),
        "calibrate": (model, shapes, "--max-fpr", "10%"),
        "evaluate": (model, shapes, "-o", tmp_path / "report"),
        "recalibrate": (model, shapes / "test/good", "--count", "10"),
        "bench": (model, "--seconds", 0.01),
    }[command]
    done = onspect(command, *arguments)
    allowed = {"score": (0, 2), "evaluate": (0, 2), "recalibrate": (0, 1)}  # 1: too few frames prove too little
    assert done.exit_code in allowed.get(command, (0,)), done.output
    assert "Traceback" not in done.output
    if command == "info":
        assert "each frame keeps its aspect ratio" in done.output
    if command == "score":
        lines = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
        assert {line["verdict"] for line in lines} == {"ok", "ng"}
        assert all(line["verdict"] == ("ng" if "spot" in line["source"] else "ok") for line in lines)
    if command == "evaluate":
        figures = json.loads((tmp_path / "report/metrics.json").read_text())
        assert figures["image"]["auroc"] == 1.0
        assert figures["pixel"]["aupro"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_small_forms(model: Path, shapes: Path, tmp_path: Path, precision: str) -> None:
    """The small forms take both shapes and judge alike."""
    small = tmp_path / "small.onnx"
    quantize(model, small, precision, shapes, max_flips=2)
    for kind, expected in (("good", "ok"), ("spot", "ng")):
        assert {one.verdict for one in Inspector(small).inspect_many(paths(shapes / "test" / kind))} == {expected}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino(model: Path, shapes: Path) -> None:
    """OpenVINO gives onnxruntime's scores for both shapes."""
    files = paths(shapes / "test/good")
    expected = [Inspector(model).inspect(path).score for path in files]
    assert [Inspector(model, provider="openvino").inspect(path).score for path in files] == pytest.approx(
        expected, rel=1e-3
    )


def test_some_choices_need_one_size(teach_tiny: TeachTiny, shapes: Path) -> None:
    """A given size, whole images, and pictures of almost the same shape are resized to one size."""
    assert not teach_tiny(shapes).info.preprocess.keep_aspect  # its size is given
    assert not teach_tiny(shapes, size=None, by_whole=True).info.preprocess.keep_aspect
    wide = [path for path in paths(shapes / "train/good") if read_image(path).shape == WIDE]
    assert not teach_tiny(wide, size=None).info.preprocess.keep_aspect


def test_a_region_has_one_size(once: Path) -> None:
    """Metadata with a region and several sizes are refused."""
    region = RegionOfInterest((0, 0, 96, 96), (384, 192))
    with pytest.raises(ValueError, match="a region has one size"):
        dataclasses.replace(read_model_file(once).info.preprocess, region=region)


@pytest.mark.parametrize(
    ("height", "width"), [(256, 256), (100, 400), (2000, 500), (10, 4000), (1, 60_000), (289, 103)]
)
def test_own_size_keeps_the_area(height: int, width: int) -> None:
    """Sides are multiples of 32; area and aspect ratio are as close as that allows."""
    rows, columns = own_size(height, width, 96_000)
    assert rows % 32 == columns % 32 == 0
    assert min(rows, columns) >= 32
    assert rows * columns <= 1.2 * 96_000  # a strip takes no more time and memory than other frames
    if min(height, width) > 50:
        assert rows * columns == pytest.approx(96_000, rel=0.2)
        assert rows / columns == pytest.approx(height / width, rel=0.25)
