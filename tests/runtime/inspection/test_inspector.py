from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError, ImageError, ModelFileError, OutputError, UncalibratedError
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.batch import choose_batch, draw_files, in_order, judge_files
from onspect.runtime.inspection.inspector import Inspection, Inspector, Scored
from onspect.runtime.inspection.verdict import FrameContext
from onspect.runtime.model.schema import ModelInfo, SourceLimits, Threshold

CUT = Threshold(0.0062, 0.0062)


@pytest.fixture
def inspector(calibrated: Path) -> Inspector:
    """Return an inspector that finds brightness 128 good."""
    return Inspector(calibrated, provider="cpu")


def frame(brightness: int) -> NDArray[np.uint8]:
    """Return a frame of one brightness, larger than the model's input."""
    return np.full((32, 48), brightness, np.uint8)


def noise(count: int) -> list[NDArray[np.uint8]]:
    """Return frames of noise at the model's size."""
    return list(np.random.default_rng(1).integers(0, 256, (count, 16, 16), np.uint8))


def test_good_part_is_ok(inspector: Inspector) -> None:
    """A part like the good ones is ok, with its score and without regions."""
    verdict = inspector.inspect(frame(128), source="camera", index=5)
    assert (verdict.verdict, verdict.source, verdict.index, verdict.regions) == ("ok", "camera", 5, ())
    assert verdict.score == pytest.approx((128 / 255 - 0.5) ** 2, rel=1e-3)
    assert verdict.threshold == CUT.score


def test_defective_part_is_ng_with_regions_of_the_source(inspector: Inspector) -> None:
    """A defect makes the part ng and is boxed in pixels of the frame that came."""
    part = frame(128)
    part[8:16, 12:24] = 255
    inspection = inspector.examine(part)
    region = inspection.verdict.regions[0]
    assert inspection.verdict.verdict == "ng"
    assert (region.x, region.y, region.width, region.height, region.area) == (12, 8, 12, 8, 96)
    assert inspection.frame is part
    assert inspection.error_map is not None
    assert inspection.error_map.shape == (16, 16)


def test_part_in_the_band_is_for_review(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A score in the review band gives the verdict review, with both cuts."""
    band = Threshold(0.0062, 0.0062, review=0.001)
    verdict = Inspector(write_tiny_model(tmp_path / "part.onnx", threshold=band)).inspect(frame(140))
    assert (verdict.verdict, verdict.threshold, verdict.review_threshold) == ("review", 0.0062, 0.001)


def test_least_area_never_changes_a_verdict(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A defect smaller than the least area is as ng as without it, and is boxed; on an ok part it is not."""
    part = frame(128)
    part[8:16, 12:24] = 255
    for cut, verdict, boxes in ((0.0062, "ng", 1), (0.1, "ok", 0)):
        path = write_tiny_model(tmp_path / "part.onnx", threshold=Threshold(cut, 0.0062, area=17))
        judged = Inspector(path).inspect(part)
        assert (judged.verdict, len(judged.regions)) == (verdict, boxes)


def test_wrong_frame_is_a_fault_with_its_reason(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A frame of a size that the model was not made for is a fault without score or map, never ok."""
    path = write_tiny_model(tmp_path / "part.onnx", threshold=CUT, source=SourceLimits((1,), (48, 48), (30, 30)))
    inspection = Inspector(path).examine(frame(128))
    assert (inspection.verdict.verdict, inspection.verdict.score, inspection.error_map) == ("fault", None, None)
    assert "48x32" in str(inspection.verdict.reason)


@pytest.mark.parametrize("gain", [float("nan"), float("inf")])
def test_score_that_is_not_finite_is_a_fault(
    tmp_path: Path, write_tiny_model: Callable[..., Path], gain: float
) -> None:
    """A model that answers NaN or infinity yields a fault that can be written as JSON."""
    path = write_tiny_model(tmp_path / "part.onnx", threshold=CUT, gain=gain)
    verdict = Inspector(path).inspect(frame(128))
    assert (verdict.verdict, verdict.score) == ("fault", None)
    assert "score is" in str(verdict.reason)
    assert '"score": null' in verdict.to_json()


def test_map_below_zero_is_a_fault(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A model whose error map has a value below 0 cannot be calibrated, and nothing that it judges is ok."""
    path = write_tiny_model(tmp_path / "part.onnx", threshold=CUT, gain=-1.0)
    inspection = Inspector(path).examine(frame(255))
    assert (inspection.verdict.verdict, inspection.verdict.score, inspection.error_map) == ("fault", None, None)
    assert inspection.verdict.reason == "the model's error map has values that are not finite or below 0"


def test_map_that_is_not_finite_is_a_fault_of_its_image_alone(inspector: Inspector) -> None:
    """In one run, the image whose map has a NaN is a fault, and the others keep verdict, regions and place."""
    frames: list[NDArray[np.uint8] | ImageError] = [frame(255), ImageError("torn"), frame(255), frame(128), frame(250)]
    scored = inspector.infer_frames([inspector.prepare_frame(one) for one in frames])
    assert scored is not None
    maps = scored.error_map.copy()
    maps[1, 3, 3] = np.nan
    judged = [inspection.verdict for inspection in inspector.judge(frames, Scored(scored.score, maps))]
    assert [verdict.verdict for verdict in judged] == ["ng", "fault", "fault", "ok", "ng"]
    assert [len(verdict.regions) for verdict in judged] == [1, 0, 0, 0, 1]
    assert judged[4].regions[0].peak < judged[0].regions[0].peak


def test_model_without_threshold_names_the_command(uncalibrated: Path) -> None:
    """Without a threshold nothing is judged: each way in raises UncalibratedError with the command that helps."""
    inspector = Inspector(uncalibrated)
    for judge in (lambda: inspector.inspect(frame(128)), lambda: inspector.inspect_many([])):
        with pytest.raises(UncalibratedError, match=r"onspect calibrate .*uncalibrated\.onnx DATA"):
            judge()


def test_scores_do_not_depend_on_the_batch(inspector: Inspector) -> None:
    """A frame's score is the same to the last bit alone and in a batch of any size."""
    frames = noise(9)
    alone = [inspector.inspect(each).score for each in frames]
    for size in (2, 4, 9):
        batch = inspector.examine_batch(frames[:size])
        assert [inspection.verdict.score for inspection in batch] == alone[:size]


def test_files_and_frames_get_equal_scores(
    inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """A file is judged as its pixels are, by many workers as by one."""
    paths = [write_image(tmp_path / f"{value}.png", value) for value in range(100, 130)]
    alone = [inspector.inspect(np.full((16, 16), value, np.uint8)).score for value in range(100, 130)]
    for workers in (1, 3):
        assert [verdict.score for verdict in inspector.inspect_many(paths, workers=workers)] == alone


def test_broken_files_keep_their_place(inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """Verdicts come in the order of the paths, with a fault for each file that cannot be read."""
    paths = [write_image(tmp_path / f"{number:02}.png") for number in range(11)]
    for broken in (0, 5, 6, 10):
        paths[broken].write_bytes(paths[broken].read_bytes()[:40])
    paths.insert(3, tmp_path / "missing.png")
    verdicts = list(inspector.inspect_many((path for path in paths), workers=3))
    assert [verdict.source for verdict in verdicts] == [str(path) for path in paths]
    assert [verdict.index for verdict in verdicts] == list(range(12))
    assert [verdict.index for verdict in verdicts if verdict.verdict == "fault"] == [0, 3, 6, 7, 11]


def test_slow_files_hold_no_other_worker_up(
    inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """Workers that take turns do not wait for one whose files are slow to come: all can be reading at once."""
    path, all_reading = write_image(tmp_path / "a.png"), threading.Barrier(3)

    def read(one: Path | str) -> NDArray[np.uint8]:
        if int(str(one)) % choose_batch(inspector.info.preprocess, "cpu") == 0:
            all_reading.wait(timeout=10)
        return read_image(path)

    numbers = [str(number) for number in range(3 * choose_batch(inspector.info.preprocess, "cpu"))]
    verdicts = list(judge_files(inspector, numbers, workers=3, read=read))
    assert [verdict.source for verdict in verdicts] == numbers


@pytest.mark.parametrize(
    ("side", "provider", "images"),
    [(16, "cpu", 32), (64, "cpu", 16), (256, "cpu", 1), (4000, "cpu", 1), (256, "cuda", 16), (16, "cuda", 512)],
)
def test_small_inputs_share_a_run(tiny_info: Callable[..., ModelInfo], side: int, provider: str, images: int) -> None:
    """A large input has a run for itself on a processor, small ones share one; a GPU takes more of both."""
    assert choose_batch(tiny_info(width=side, height=side).preprocess, provider) == images


def test_paths_are_taken_only_as_far_as_needed(
    inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """However many paths there are, at most two batches a worker are taken before the first verdict."""
    path, taken = write_image(tmp_path / "a.png"), 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield path

    verdicts = inspector.inspect_many(endless(), workers=2)
    next(verdicts)
    assert taken <= 2 * 2 * max(4, choose_batch(inspector.info.preprocess, "cpu"))


def test_drawing_is_done_by_the_workers(inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """Places are given in the order of the paths; drawing is not done by the thread that reads the verdicts."""
    paths = [write_image(tmp_path / f"{number:02}.png", 120 + number) for number in range(9)]
    places: list[str] = []
    drawn: dict[int, str] = {}

    def place(source: str) -> int:
        places.append(source)
        return len(places) - 1

    def draw(inspection: Inspection, target: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert inspection.frame is not None
        drawn[target] = inspection.verdict.source

    verdicts = list(draw_files(inspector, paths, place, draw, workers=3))
    assert [verdict.source for verdict in verdicts] == places == [str(path) for path in paths]
    assert drawn == dict(enumerate(places))
    assert [verdict.score for verdict in verdicts] == [v.score for v in inspector.inspect_many(paths)]


def test_error_while_drawing_comes_at_its_place(
    inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """The verdicts before the image that cannot be drawn are handed out, then the error."""
    paths = [write_image(tmp_path / f"{number:02}.png") for number in range(6)]

    def draw(inspection: Inspection, _: str) -> None:
        if inspection.verdict.index == 4:
            raise OutputError("the disk is full")

    verdicts = draw_files(inspector, paths, str, draw, workers=2)
    assert [next(verdicts).index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OutputError, match="full"):
        next(verdicts)


def test_work_in_order_hands_on_an_error() -> None:
    """An error in a worker reaches the caller at its place, after the results before it."""
    results = in_order(lambda number: 1 // (3 - number), range(6), workers=2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_workers_is_refused(inspector: Inspector) -> None:
    """Fewer than one worker raises ValueError at once."""
    with pytest.raises(ValueError, match="workers is 0"):
        inspector.inspect_many([], workers=0)


def test_missing_provider_is_said_aloud(
    calibrated: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the requested provider is not available, a warning names it and its replacement."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(logging.getLogger("onspect"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("onspect"), "level", logging.WARNING)
    assert Inspector(calibrated, provider="cuda").provider == "cpu"
    assert "'cuda' is not available" in caplog.text
    assert "running on 'cpu'" in caplog.text


def test_unknown_provider_is_refused(calibrated: Path) -> None:
    """A provider that does not exist raises ValueError with those that do."""
    with pytest.raises(ValueError, match="provider is 'warp'; choose one of auto, cpu, cuda, tensorrt, openvino"):
        Inspector(calibrated, provider="warp")


def test_one_inspector_serves_many_threads(inspector: Inspector) -> None:
    """Threads that share an inspector get the scores that one thread gets."""
    frames = noise(64)
    alone = [inspector.inspect(each).score for each in frames]
    with ThreadPoolExecutor(8) as pool:
        assert [verdict.score for verdict in pool.map(inspector.inspect, frames)] == alone


def test_reconstruction_has_the_layout_of_the_input(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """Reconstructions are uint8 [n, height, width, channels] and latent vectors float32 [n, latent]."""
    inspector = Inspector(write_tiny_model(tmp_path / "part.onnx", width=6, height=4, channels=3))
    batch = np.stack([inspector.prepare(np.zeros((9, 9, 3), np.uint8))] * 2)
    reconstruction, latent = inspector.reconstruct(batch), inspector.encode(batch)
    assert (reconstruction.shape, reconstruction.dtype, np.unique(reconstruction).tolist()) == (
        (2, 4, 6, 3),
        np.uint8,
        [128],
    )
    assert (latent.shape, latent.dtype) == ((2, 4), np.float32)


def test_label_names_model_and_checksum(inspector: Inspector) -> None:
    """Each verdict carries the model's name and the first 12 digits of its file's SHA-256."""
    assert inspector.inspect(frame(0)).model == f"tiny@{inspector.sha256[:12]}"


def test_graph_that_contradicts_its_metadata_is_refused(
    tmp_path: Path, write_tiny_model: Callable[..., Path], tiny_graph: Callable[..., bytes]
) -> None:
    """A graph of another input size than the metadata say raises ModelFileError with both."""
    from onspect.runtime.model.file import read_model_info, stamp

    info = read_model_info(write_tiny_model(tmp_path / "part.onnx", width=8))
    (tmp_path / "mixed.onnx").write_bytes(stamp(tiny_graph(width=16), info, []))
    with pytest.raises(ModelFileError, match=r"16, 16, 1.*metadata say.*16, 8, 1"):
        Inspector(tmp_path / "mixed.onnx")


def test_graph_that_cannot_run_is_a_model_file_error(
    tmp_path: Path, tiny_graph: Callable[..., bytes], tiny_info: Callable[..., object]
) -> None:
    """A stamped graph that onnxruntime refuses raises ModelFileError."""
    from onspect.runtime.model.file import stamp

    model = onnx.ModelProto.FromString(tiny_graph())
    model.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "part.onnx").write_bytes(stamp(model.SerializeToString(), tiny_info(), []))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="onnxruntime cannot load"):
        Inspector(tmp_path / "part.onnx")


def test_the_steps_give_the_verdict_of_inspect(inspector: Inspector) -> None:
    """Prepare, infer and judge, one after the other, give what `inspect` gives; an error in a place is a fault."""
    good, bad = frame(128), frame(250)
    scored = inspector.infer(np.stack([inspector.prepare(good), inspector.prepare(bad)]))
    inspections = inspector.judge([good, ImageError("torn"), bad], scored)
    for inspection, one in ((inspections[0], good), (inspections[2], bad)):
        alone = inspector.examine(one, index=inspection.verdict.index)
        told = dataclasses.replace(
            alone.verdict, time=inspection.verdict.time, latency_ms=inspection.verdict.latency_ms
        )
        assert inspection.verdict == told
        assert inspection.frame is one
    assert (inspections[1].verdict.verdict, inspections[1].verdict.reason) == ("fault", "torn")


def test_a_verdict_repeats_its_frames_context(inspector: Inspector) -> None:
    """Source, index and part are those of the context, and the latency counts from its moment of capture."""
    context = FrameContext("camera 1", index=7, part="A-12", captured=time.perf_counter() - 5.0)
    (inspection,) = inspector.examine_batch([frame(128)], [context])
    verdict = inspection.verdict
    assert (verdict.source, verdict.index, verdict.part) == ("camera 1", 7, "A-12")
    assert 5000.0 <= verdict.latency_ms < 65000.0


def test_a_late_verdict_is_a_fault(inspector: Inspector) -> None:
    """A verdict that took longer than late_ms is a fault with both times, and shows no score, region or map."""
    part = frame(250)
    scored = inspector.infer(inspector.prepare(part)[None])
    contexts = [FrameContext(captured=time.perf_counter() - 5.0)]
    (late,) = inspector.judge([part], scored, contexts, late_ms=100.0)
    (timely,) = inspector.judge([part], scored, contexts, late_ms=1e6)
    assert (late.verdict.verdict, late.verdict.score, late.verdict.regions, late.error_map) == ("fault", None, (), None)
    assert re.fullmatch(r"the verdict took 5\d\d\d ms, and late_ms is 100", str(late.verdict.reason))
    assert (timely.verdict.verdict, timely.verdict.reason) == ("ng", None)


def test_scores_of_other_frames_are_refused(inspector: Inspector) -> None:
    """Scores, contexts and frames that differ in number raise ValueError; none is judged by another's score."""
    scored = inspector.infer(inspector.prepare(frame(128))[None])
    with pytest.raises(ValueError, match="2 frames can be judged, and there are 1 scores"):
        inspector.judge([frame(128), frame(250)], scored)
    with pytest.raises(ValueError, match="1 frames can be judged, and there are 0 scores"):
        inspector.judge([frame(128)], None)
    with pytest.raises(ValueError, match="zip"):
        inspector.judge([frame(128)], scored, [FrameContext(), FrameContext()])


def test_a_path_is_read(inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """`inspect` and `examine` take a file's path, as text too; a file that is not there is a fault under its name."""
    path = write_image(tmp_path / "a.png", 250)
    for given in (path, str(path)):
        inspection = inspector.examine(given)
        assert (inspection.verdict.verdict, inspection.verdict.source) == ("ng", str(path))
        assert inspection.verdict == dataclasses.replace(
            inspector.inspect(read_image(path), source=str(path)),
            time=inspection.verdict.time,
            latency_ms=inspection.verdict.latency_ms,
        )
    missing = inspector.inspect(tmp_path / "b.png", source="part 2")
    assert (missing.verdict, missing.source) == ("fault", "part 2")
    assert "cannot read the file" in str(missing.reason)


def test_a_folder_is_listed(inspector: Inspector, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """`inspect_many` and `examine_many` take a folder with its subfolders, or one file."""
    (tmp_path / "more").mkdir()
    paths = [
        write_image(tmp_path / name, value) for name, value in (("a.png", 128), ("b.png", 250), ("more/c.png", 128))
    ]
    wanted = [(str(path), verdict) for path, verdict in zip(paths, ("ok", "ng", "ok"), strict=True)]
    for folder in (tmp_path, str(tmp_path)):
        assert [(v.source, v.verdict) for v in inspector.inspect_many(folder)] == wanted
        assert [(i.verdict.source, i.verdict.verdict) for i in inspector.examine_many(folder)] == wanted
    assert [(v.source, v.verdict) for v in inspector.inspect_many(str(paths[1]))] == wanted[1:2]


def test_a_folder_without_images_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    """A folder without an image raises DatasetError with its other files, because nothing would be judged."""
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DatasetError, match=r"there are no images in .*\.txt: 1"):
        inspector.inspect_many(tmp_path)
