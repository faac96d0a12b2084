from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.runtime.bench import margin as margin_module
from onspect.runtime.bench import run
from onspect.runtime.bench.margin import choose_margin, measure_margin
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError, UncalibratedError
from onspect.runtime.inspection.doubtful import find_doubtful
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line.config import read_config
from onspect.runtime.line.models import Models
from onspect.runtime.model.file import read_model_file, restamp, restamp_margin, undo_restamp
from onspect.runtime.model.schema import Bfloat16Margin, Threshold
from onspect.runtime.model.session import LoadedModel, load_model

MARGIN = Bfloat16Margin(-0.001, 0.002, 0.9, 20, "good", "2026-01-01T00:00:00.000Z", "2026.4.1", "")
MIDDLES = [128, 140, 147, 148, 149, 150, 160, 200]
IMAGES = np.array([np.full((16, 16, 1), value, np.uint8) for value in MIDDLES])

Outputs = list[NDArray[np.float32]]


class Session:
    """A session that adds a number to the scores of another one and its size to the maps, and counts its images."""

    def __init__(self, session: Any, added: float) -> None:
        self.session, self.added, self.images, self.version = session, added, 0, "2026.4.1"

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.uint8]]) -> Outputs:
        """Run the other session."""
        (batch,) = feeds.values()
        self.images += len(batch)
        outputs = dict(zip(names, self.session.run(names, feeds), strict=True))
        added = {"score": self.added, "error_map": abs(self.added)}
        return [np.asarray(outputs[name] + added[name], np.float32) for name in names]


def write_margin(path: Path, margin: Bfloat16Margin = MARGIN) -> Path:
    """Write a margin for the file's own graph into a model file."""
    file = read_model_file(path)
    restamp_margin(file, dataclasses.replace(margin, graph_sha256=file.info.graph_sha256))
    return path


def open_cascade(path: Path, added: float) -> tuple[Inspector, Session, Session]:
    """Return an inspector whose fast scores are too high by a number, with its fast and its full session."""
    file = read_model_file(write_margin(path))
    session = load_model(file, provider="cpu").session
    fast, full = Session(session, added), Session(session, 0.0)
    return Inspector(LoadedModel(file, full, "openvino-bf16", fast)), fast, full  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "doubtful"),
    [
        (0.4989, False),
        (0.4991, True),
        (0.5, True),
        (0.5019, True),
        (0.5021, False),
        (0.3989, False),
        (0.3991, True),
        (0.4019, True),
        (0.4021, False),
        (0.0, False),
        (9.0, False),
        (float("nan"), True),
        (float("inf"), True),
    ],
)
def test_scores_near_either_cut_are_doubtful(score: float, doubtful: bool) -> None:
    """A score within the margin of the threshold or of the review band's lower end is doubtful, and NaN is too."""
    found = find_doubtful(np.array([score, 0.0], np.float32), Threshold(0.5, 0.1, review=0.4), MARGIN)
    assert found.tolist() == [doubtful, False]


@pytest.mark.parametrize("added", [0.0, 0.0009, 0.0019, -0.0009])
def test_verdicts_are_those_of_float32(calibrated: Path, added: float) -> None:
    """With differences within the margin every verdict is float32's, and score and map are from the deciding run."""
    inspector, fast, full = open_cascade(calibrated, added)
    expected = Inspector(calibrated, provider="cpu")
    found, exact = inspector.infer(IMAGES), expected.infer(IMAGES)
    frames = [image[:, :, 0] for image in IMAGES]
    verdicts = [item.verdict.verdict for item in inspector.judge(frames, found)]
    assert verdicts == [item.verdict.verdict for item in expected.judge(frames, exact)]
    assert set(verdicts) == {"ok", "ng"}
    assert fast.images == len(IMAGES)
    assert 0 < full.images < len(IMAGES)
    decided = np.where(find_doubtful(exact.score + np.float32(added), inspector.threshold, MARGIN), 0.0, added)
    np.testing.assert_allclose(found.score, exact.score + decided, atol=1e-7)
    np.testing.assert_allclose(found.error_map, exact.error_map + np.abs(decided)[:, None, None], atol=1e-7)


def test_margin_is_around_the_threshold_in_force(calibrated: Path) -> None:
    """With another threshold, other scores are doubtful; with none in reach, nothing runs again."""
    inspector, _, full = open_cascade(calibrated, 0.0015)
    far = inspector.with_threshold(Threshold(5.0, 5.0))
    far.infer(IMAGES)
    assert full.images == 0
    (white,) = inspector.infer(IMAGES[-1:]).score
    assert full.images == 0
    near = inspector.with_threshold(Threshold(float(white), 5.0))
    assert near.infer(IMAGES[-1:]).score[0] == pytest.approx(white - 0.0015)
    assert full.images == 1
    banded = inspector.with_threshold(Threshold(5.0, 5.0, review=float(white)))
    assert banded.infer(IMAGES[-1:]).score[0] == pytest.approx(white - 0.0015)


def test_files_are_judged_the_same_one_by_one_and_in_batches(
    calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """`inspect` and `inspect_many` give the same scores and verdicts."""
    inspector, _, _ = open_cascade(calibrated, 0.0012)
    paths = [write_image(tmp_path / f"{value}.png", value) for value in MIDDLES]
    many = [(verdict.score, verdict.verdict) for verdict in inspector.inspect_many(paths, workers=2)]
    one = [(verdict.score, verdict.verdict) for verdict in map(inspector.inspect, paths)]
    assert many == one


def test_nan_of_the_fast_run_is_judged_in_float32(calibrated: Path) -> None:
    """A score that is not finite in bfloat16 alone is no fault: float32 decides."""
    inspector, _, full = open_cascade(calibrated, float("nan"))
    assert inspector.inspect(IMAGES[0, :, :, 0]).verdict == "ok"
    assert full.images == 1


def test_a_threshold_is_needed(uncalibrated: Path) -> None:
    """Without a threshold no score is near it, so inference raises UncalibratedError."""
    with pytest.raises(UncalibratedError, match="onspect calibrate"):
        open_cascade(uncalibrated, 0.0)[0].infer(IMAGES)


def test_a_line_tries_both_sessions(calibrated: Path) -> None:
    """A line runs both sessions once when it loads a file, and judges with the pair."""
    inspector, fast, full = open_cascade(calibrated, 0.0)
    Models({None: calibrated}, None, lambda _: inspector, None)
    assert (fast.images, full.images) == (1, 1)


def test_line_configuration_takes_it(tmp_path: Path, calibrated: Path) -> None:
    """`[model] provider` accepts openvino-bf16."""
    text = f"[model]\nfile = {str(calibrated)!r}\nprovider = 'openvino-bf16'\n[[source]]\naddress = 'frames'\n"
    (tmp_path / "line.toml").write_text(text)
    assert read_config(tmp_path / "line.toml").provider == "openvino-bf16"


def test_file_without_a_margin_says_how_to_get_one(calibrated: Path) -> None:
    """A file without a margin, and one whose graph has changed since, is refused with the command to run."""
    remedy = r"which the provider 'openvino-bf16' needs; measure it: onspect bench .*part\.onnx GOOD --margin 90%$"
    with pytest.raises(ModelFileError, match="has no margin of bfloat16, " + remedy):
        Inspector(calibrated, provider="openvino-bf16")
    restamp_margin(read_model_file(calibrated), dataclasses.replace(MARGIN, graph_sha256="0" * 64))
    with pytest.raises(ModelFileError, match="has a margin of bfloat16 for an earlier graph, " + remedy):
        Inspector(calibrated, provider="openvino-bf16")


def test_margin_outlives_a_new_threshold(calibrated: Path) -> None:
    """The margin stays in the file and stays valid if the threshold changes, and if that is undone."""
    file = read_model_file(write_margin(calibrated))
    assert file.info.calibration is not None
    restamp(file, Threshold(0.5, 0.5), file.info.calibration)
    moved = read_model_file(calibrated)
    assert (moved.info.valid_margin, moved.info.threshold) == (file.info.bfloat16, Threshold(0.5, 0.5))
    undo_restamp(moved)
    assert read_model_file(calibrated).info.valid_margin == file.info.bfloat16


def test_margin_without_zero_is_damage(calibrated: Path) -> None:
    """A margin must contain 0: without it a verdict could differ from the score in the same line."""
    with pytest.raises(ValueError, match="0 is not between"):
        dataclasses.replace(MARGIN, low=0.001)


@pytest.mark.parametrize(("count", "wanted", "expected"), [(2000, 0.95, 0.95), (39, 0.9, 0.9), (10, 0.95, 9 / 11)])
def test_margin_contains_its_share_of_new_differences(count: int, wanted: float, expected: float) -> None:
    """On average over draws, the share that the margin states is the share of new differences within."""
    random, within, stated = np.random.default_rng(1), [], 0.0
    for _ in range(300):
        low, high, stated = choose_margin(random.normal(0.3, 1.0, count), wanted)
        assert low <= 0.0 <= high
        new = random.normal(0.3, 1.0, 500)
        within.append(((new >= low) & (new <= high)).mean())
    assert stated == pytest.approx(expected)
    assert np.mean(within) == pytest.approx(expected, abs=0.015)


def test_margin_of_one_sided_differences_contains_zero() -> None:
    """If bfloat16 raises every score, the margin begins at 0, and so do the scores that run again."""
    assert choose_margin(np.linspace(0.1, 0.2, 50), 0.9)[0] == 0.0
    with pytest.raises(DatasetError, match="not finite"):
        choose_margin(np.array([0.1, np.nan]), 0.9)


@pytest.fixture
def fake_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace OpenVINO in bfloat16 by onnxruntime with scores that are too high by 0.001."""

    def open_fake(file: Any, threads: int, *, bfloat16: bool) -> Session:
        assert bfloat16
        return Session(load_model(file, provider="cpu", threads=threads).session, 0.001)

    monkeypatch.setattr(margin_module, "open_on_openvino", open_fake)


@pytest.mark.usefixtures("fake_openvino")
def test_bench_measures_the_margin(
    onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """`bench --margin` writes the margin with its evidence; `info` shows it, and the threshold stays."""
    for value in range(20):
        write_image(tmp_path / f"good/{value}.png", 120 + value)
    before = read_model_file(calibrated).info
    result = onspect("bench", calibrated, tmp_path / "good", "--margin", "90%")
    assert result.exit_code == 0, result.output
    info = read_model_file(calibrated).info
    margin = info.valid_margin
    assert margin is not None
    assert (margin.low, margin.high) == (0.0, pytest.approx(0.001, abs=1e-6))
    assert (margin.pictures, margin.data, margin.share) == (20, "good", pytest.approx(0.9))
    assert (info.threshold, info.history) == (before.threshold, before.history)
    shown = onspect("info", calibrated).stdout
    assert "moves scores by 0 to 0.001 (90% of pictures, measured on 20 of 'good', OpenVINO 2026.4.1" in shown
    assert "not valid" not in shown
    assert json.loads(onspect("info", calibrated, "--json").stdout)["bfloat16"]["pictures"] == 20


@pytest.mark.usefixtures("fake_openvino")
def test_copies_of_a_picture_count_once(
    onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """A copy, also in another format, is no more evidence: too few different pictures are refused."""
    content = calibrated.read_bytes()
    for value in range(9):
        write_image(tmp_path / f"good/{value}.png", 120 + value)
        write_image(tmp_path / f"good/copy{value}.bmp", 120 + value)
    few = onspect("bench", calibrated, tmp_path / "good", "--margin", "90%")
    assert few.exit_code == 1
    assert "a margin needs at least 10 different pictures, and there are 9; give the good pictures" in few.output
    assert calibrated.read_bytes() == content
    write_image(tmp_path / "good/9.png", 150)
    enough = onspect("bench", calibrated, tmp_path / "good", "--margin", "90%")
    assert enough.exit_code == 0, enough.output
    margin = read_model_file(calibrated).info.valid_margin
    assert margin is not None
    assert (margin.pictures, margin.share) == (10, pytest.approx(1 - 2 / 11))


@pytest.mark.usefixtures("fake_openvino")
def test_bad_input_of_bench_changes_nothing(
    onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """Too few pictures, a damaged one, other options and a share of 100% are refused; the file stays as it is."""
    content = calibrated.read_bytes()
    images = [write_image(tmp_path / f"good/{value}.png", 120 + value) for value in range(9)]
    few = onspect("bench", calibrated, *images, "--margin", "90%")
    assert "a margin needs at least 10 different pictures, and there are 9; give the good pictures" in few.output
    (tmp_path / "good/x.png").write_bytes(b"no picture")
    damaged = onspect("bench", calibrated, tmp_path / "good", "--margin", "90%")
    assert "cannot measure on" in damaged.output
    assert "leave it out" in damaged.output
    other = onspect("bench", calibrated, *images, "--margin", "90%", "--compare", calibrated)
    assert "measures nothing else" in other.output
    whole = onspect("bench", calibrated, *images, "--margin", "100%")
    assert [few.exit_code, damaged.exit_code, other.exit_code, whole.exit_code] == [1, 1, 2, 2]
    assert calibrated.read_bytes() == content


def test_bench_names_it_for_files_with_a_margin(
    calibrated: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The table of providers has openvino-bf16 if the file has a margin, and the log has the reason if it fails."""
    refused: set[str] = set()

    def load(_: object, *, provider: str) -> None:
        if provider in refused:
            raise ChoiceError("this processor has no bfloat16")

    monkeypatch.setattr(run, "load_model", load)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    assert run._list_providers([read_model_file(calibrated)])[-1] == "openvino"
    file = read_model_file(write_margin(calibrated))
    assert run._list_providers([file])[-2:] == ["openvino", "openvino-bf16"]
    refused.add("openvino-bf16")
    assert run._list_providers([file])[-1] == "openvino"
    assert "not measured on openvino-bf16: this processor has no bfloat16" in caplog.text


def test_changed_graph_is_shown(onspect: Callable[..., Result], calibrated: Path) -> None:
    """`info` reports a margin that was measured on another graph."""
    restamp_margin(read_model_file(calibrated), dataclasses.replace(MARGIN, graph_sha256="0" * 64))
    assert "not valid: the graph has changed since" in onspect("info", calibrated).stdout


def test_processor_without_bfloat16_is_refused(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bfloat16 in the processor there is one sentence, and no slower or other route."""
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'onspect[openvino]'")
    monkeypatch.setattr("onspect.runtime.model.openvino.has_bfloat16", lambda _: False)
    with pytest.raises(ChoiceError, match=r"no bfloat16 \(AVX512-BF16 or AMX\).*; use the provider 'cpu' or"):
        Inspector(write_margin(calibrated), provider="openvino-bf16")


def test_missing_openvino_is_named(
    onspect: Callable[..., Result], calibrated: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path]
) -> None:
    """Without OpenVINO the command names the extra to install."""
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    image = write_image(calibrated.parent / "a.png")
    result = onspect("score", write_margin(calibrated), image, "--provider", "openvino-bf16")
    assert result.exit_code == 1
    assert "onspect[openvino]" in result.output


def has_real_bfloat16() -> bool:
    """Return whether OpenVINO is installed and this processor has bfloat16."""
    if importlib.util.find_spec("openvino") is None:
        return False
    from onspect.runtime.model.openvino import _import_openvino, has_bfloat16

    return has_bfloat16(_import_openvino().Core())


def test_real_bfloat16_gives_the_verdicts_of_float32(
    calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """On a processor with bfloat16, measured margin and second run give the verdicts of onnxruntime."""
    if not has_real_bfloat16():
        pytest.skip("needs OpenVINO and a processor with AVX512-BF16 or AMX")
    paths = [write_image(tmp_path / f"good/{value}.png", value) for value in range(100, 160)]
    measure_margin(calibrated, paths, 0.95)
    found = Inspector(calibrated, provider="openvino-bf16")
    assert found.provider == "openvino-bf16"
    expected = Inspector(calibrated, provider="cpu")
    verdicts = [verdict.verdict for verdict in found.inspect_many(paths)]
    assert verdicts == [verdict.verdict for verdict in expected.inspect_many(paths)]
    assert set(verdicts) == {"ok", "ng"}
