from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onspect.runtime.errors import ModelFileError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.card import describe
from onspect.runtime.model.file import read_model_file, read_model_info, restamp, stamp
from onspect.runtime.model.schema import Calibration, ModelInfo, SourceLimits, Threshold
from onspect.runtime.records import parse_dataclass

from ...tiny_model import SIDE, build_graph, make_info

EVIDENCE = Calibration("99% of good", "line 3", {"good": 5}, None, None, 0, 0, 5, 0, "f" * 32, "2026-02-01T00:00:00Z")


def without_metadata(path: Path) -> bytes:
    """Return the graph's bytes with every metadata entry removed, as onnx sees them."""
    model = onnx.load(path)
    del model.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))


def rewrite_metadata(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the onspect metadata of a file through the onnx package."""
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "onspect":
            content = json.loads(entry.value)
            change(content)
            entry.value = json.dumps(content)
    path.write_bytes(model.SerializeToString())


def test_info_survives_json(tiny_info: Callable[..., ModelInfo]) -> None:
    """A ModelInfo written as JSON and read again equals itself, tuples and absent values among it."""
    limits = SourceLimits((1, 3), (10, 20), None)
    info = dataclasses.replace(tiny_info(threshold=Threshold(0.1, 0.2), source=limits), calibration=EVIDENCE)
    assert parse_dataclass(ModelInfo, json.loads(json.dumps(info.to_dict()))) == info


def test_a_file_of_0_1_0_with_a_head_judges_as_before(tmp_path: Path, tiny_info: Callable[..., ModelInfo]) -> None:
    """The score `head` is the map's maximum, so that the map's cut follows the score's, and the card names the head."""
    info = tiny_info(threshold=Threshold(0.1, 0.1), score="head")
    content = info.to_dict()
    content["network"] |= {"reduction": 2, "head": [16, 32, 64, 96, 128]}
    content["score"] |= {"why": "AUROC on synthetic defects drawn on held-out images: head 0.972, relative 0.813"}
    del content["score"]["maximum"]
    old = parse_dataclass(ModelInfo, json.loads(json.dumps(content)))
    path = tmp_path / "part.onnx"
    path.write_bytes(stamp(build_graph(), old, []))
    file = read_model_file(path)
    assert file.info.network.head == (16, 32, 64, 96, 128)
    assert file.info.score.is_peak
    assert "trained on synthetic defects" in describe(file)
    assert "relative 0.813" in describe(file)
    assert Inspector(path).inspect(np.full((SIDE, SIDE), 128, np.uint8)).verdict == "ok"
    assert Inspector(path).inspect(np.full((SIDE, SIDE), 255, np.uint8)).verdict == "ng"


@pytest.mark.parametrize(
    ("name", "is_peak"),
    [("mse", False), ("peak", True), ("relative", True), ("expected", True), ("memory", False), ("combined", False)],
)
def test_files_that_do_not_say_whether_the_score_is_the_maximum(
    tiny_info: Callable[..., ModelInfo], name: str, is_peak: bool
) -> None:
    """In a file without `maximum` the score's name says it, as in 0.1.0; with it, the name means nothing."""
    content = json.loads(json.dumps(tiny_info(score=name).to_dict()))
    for value in (None, "missing"):
        content["score"]["maximum"] = value
        if value == "missing":
            del content["score"]["maximum"]
        assert parse_dataclass(ModelInfo, content).score.is_peak is is_peak
    content["score"]["maximum"] = not is_peak
    assert parse_dataclass(ModelInfo, content).score.is_peak is not is_peak


def test_unknown_keys_are_left_out(tiny_info: Callable[..., ModelInfo]) -> None:
    """A key that a later release added within the format version does not stop this one."""
    info = tiny_info()
    assert parse_dataclass(ModelInfo, json.loads(json.dumps(info.to_dict() | {"colour_of_the_sky": "grey"}))) == info


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", True, pytest.param(10**400, id="huge")])
def test_threshold_that_is_no_finite_number_is_refused(calibrated: Path, value: object) -> None:
    """A threshold of NaN, with which no part would ever be ng, is refused as damage."""
    rewrite_metadata(calibrated, lambda content: content.update(threshold={"score": value, "map": 0.1}))
    with pytest.raises(ModelFileError, match="damaged metadata"):
        read_model_info(calibrated)


@pytest.mark.parametrize(
    ("threshold", "version"),
    [(Threshold(0.5, 0.25), 1), (Threshold(0.5, 0.25, review=0.4), 2), (Threshold(0.5, 0.25, area=3), 2)],
)
def test_format_version_is_the_oldest_that_judges_alike(uncalibrated: Path, threshold: Threshold, version: int) -> None:
    """A review band or a least area, which version 1 does not know, makes version 2, as long as it is there."""
    restamp(read_model_file(uncalibrated), threshold, EVIDENCE)
    info = read_model_info(uncalibrated)
    assert (info.format_version, info.threshold) == (version, threshold)
    restamp(read_model_file(uncalibrated), Threshold(0.5, 0.25), EVIDENCE)
    assert read_model_info(uncalibrated).format_version == 1


def test_threshold_without_band_and_area_is_read() -> None:
    """A threshold written before there were review bands and least areas has neither."""
    assert parse_dataclass(Threshold, {"score": 0.5, "map": 0.1}) == Threshold(0.5, 0.1, review=None, area=0)


def test_band_above_the_cut_is_damage(calibrated: Path) -> None:
    """A review band that does not begin below the cut is refused as damage."""
    rewrite_metadata(calibrated, lambda content: content["threshold"].update(review=9.0))  # type: ignore[attr-defined]
    with pytest.raises(ModelFileError, match=r"damaged metadata.*begins at 9"):
        read_model_info(calibrated)


def test_stamped_file_is_valid_onnx(calibrated: Path) -> None:
    """The onnx package accepts a stamped file and sees the metadata in it."""
    model = onnx.load(calibrated)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["onspect"])["name"] == "tiny"


def test_restamp_leaves_the_graph_as_it_was(uncalibrated: Path) -> None:
    """A new threshold changes no byte outside the metadata, and the file can be read again."""
    before = without_metadata(uncalibrated)
    checksum = read_model_info(uncalibrated).graph_sha256
    returned = restamp(read_model_file(uncalibrated), Threshold(0.5, 0.25), EVIDENCE)
    after = read_model_info(uncalibrated)
    assert hashlib.sha256(without_metadata(uncalibrated)).digest() == hashlib.sha256(before).digest()
    assert (after.threshold, after.calibration) == (Threshold(0.5, 0.25), EVIDENCE)
    assert after.graph_sha256 == checksum
    assert returned.threshold == after.threshold


def test_restamp_keeps_the_training_fingerprints(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """The fingerprints of the training images are still there after a new threshold."""
    path = write_tiny_model(tmp_path / "part.onnx", training_images=["0" * 16, "ab" * 8])
    restamp(read_model_file(path), Threshold(0.5, 0.25), EVIDENCE)
    assert read_model_file(path).training_images == {"0" * 16, "ab" * 8}


def test_restamp_keeps_other_metadata(uncalibrated: Path) -> None:
    """What another program wrote into the metadata stays there."""
    model = onnx.load(uncalibrated)
    onnx.helper.set_model_props(model, {e.key: e.value for e in model.metadata_props} | {"plant": "Ulm"})
    uncalibrated.write_bytes(model.SerializeToString())
    restamp(read_model_file(uncalibrated), Threshold(0.5, 0.25), EVIDENCE)
    assert {entry.key: entry.value for entry in onnx.load(uncalibrated).metadata_props}["plant"] == "Ulm"


def test_training_fingerprints_are_capped(
    tiny_graph: Callable[..., bytes], tiny_info: Callable[..., ModelInfo]
) -> None:
    """Of more than 10,000 training fingerprints the file keeps the 10,000 smallest."""
    many = [f"{number:016x}" for number in reversed(range(10_050))]
    data = stamp(tiny_graph(), tiny_info(), many)
    model = onnx.ModelProto.FromString(data)
    kept = {entry.key: entry.value for entry in model.metadata_props}["onspect.training_images"]
    assert base64.b64decode(kept) == b"".join(number.to_bytes(8, "big") for number in range(10_000))


@pytest.mark.slow
def test_every_prefix_is_refused(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """However much of the end is missing, the file is refused with ModelFileError and nothing else."""
    path = write_tiny_model(tmp_path / "part.onnx", threshold=Threshold(0.1, 0.1), training_images=["ab" * 8])
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"truncated|damaged|empty|onspect made"):
            read_model_file(path)


@pytest.mark.slow
def test_no_flipped_byte_escapes_as_another_error(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A flipped bit anywhere either leaves a readable file or raises ModelFileError."""
    path = write_tiny_model(tmp_path / "part.onnx", threshold=Threshold(0.1, 0.1), training_images=["ab" * 8])
    data = path.read_bytes()
    refused = 0
    for position in range(0, len(data), 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x80]) + data[position + 1 :])
        try:
            read_model_file(path)
        except ModelFileError:
            refused += 1
    assert refused > len(data) / 3 * 0.9


def test_flipped_byte_in_the_weights_is_damage(calibrated: Path) -> None:
    """A changed weight is found by the checksum and called damage."""
    data = calibrated.read_bytes()
    weight = onnx.load(calibrated).graph.initializer[0].raw_data
    position = data.index(weight)
    calibrated.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    with pytest.raises(ModelFileError, match=r"damaged or truncated: its graph does not match"):
        read_model_file(calibrated)


def test_foreign_onnx_file_is_refused(tmp_path: Path, tiny_graph: Callable[..., bytes]) -> None:
    """An ONNX file of another program is refused with the command that makes the right one."""
    path = tmp_path / "foreign.onnx"
    path.write_bytes(tiny_graph())
    with pytest.raises(ModelFileError, match=r"not a model file that onspect made.*onspect export"):
        read_model_file(path)


def test_newer_format_is_refused_with_both_versions(calibrated: Path) -> None:
    """A file of a newer format names its version and the newest that this release reads."""
    rewrite_metadata(calibrated, lambda content: content.update(format_version=7))
    with pytest.raises(ModelFileError, match=r"format version 7, and this onspect reads up to 5: upgrade"):
        read_model_file(calibrated)


@pytest.mark.parametrize("content", [b"", b"not a model\n", b"\x89PNG\r\n\x1a\n", b"\xff" * 40, b"\x00" * 40])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file, text, a picture and garbage raise ModelFileError that names the file."""
    path = tmp_path / "part.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"part\.onnx"):
        read_model_file(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """A path without a file, and a folder, raise ModelFileError that says which it is."""
    with pytest.raises(ModelFileError, match="No such file"):
        read_model_file(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="is a folder, not a model file"):
        read_model_file(tmp_path)


def abandon_a_stamp(path: Path, age: float) -> Path:
    """Leave the temporary file of a stamp that was killed this number of seconds ago; return it."""
    before = set(path.parent.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        file = read_model_file(path)
        with pytest.raises(KeyboardInterrupt):
            restamp(file, Threshold(2.0, 2.0), EVIDENCE)
    (left,) = set(path.parent.iterdir()) - before
    os.utime(left, (time.time() - age,) * 2)
    return left


def test_what_a_killed_stamp_left_is_swept(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A stamp removes what killed ones of the same file left an hour ago, and nothing younger or of another file."""
    path, other = (write_tiny_model(tmp_path / name, threshold=Threshold(1.0, 1.0)) for name in ("a.onnx", "b.onnx"))
    old, young, foreign = (abandon_a_stamp(*which) for which in ((path, 4000.0), (path, 60.0), (other, 4000.0)))
    restamp(read_model_file(path), Threshold(2.0, 2.0), EVIDENCE)
    assert set(tmp_path.iterdir()) == {path, other, young, foreign}
    assert not old.exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(data=st.data(), value=JSON)
def test_any_metadata_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: object
) -> None:
    """Metadata with any other value at any place is read, or refused with ModelFileError in one line."""
    info = make_info(threshold=Threshold(0.1, 0.1), source=SourceLimits((1, 3), (10, 20), None))
    content = json.loads(json.dumps(dataclasses.replace(info, calibration=EVIDENCE).to_dict()))
    holder, name = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(holder[name], dict) and holder[name] and not data.draw(st.booleans()):
        holder = holder[name]
        name = data.draw(st.sampled_from(sorted(holder)))
    holder[name] = value
    model = onnx.load_from_string(stamp(build_graph(), info, []))
    next(entry for entry in model.metadata_props if entry.key == "onspect").value = json.dumps(content)
    path = tmp_path_factory.getbasetemp() / "part.onnx"
    path.write_bytes(model.SerializeToString())
    message = ""
    try:
        assert describe(read_model_file(path))
    except ModelFileError as error:
        message = str(error)
    assert "\n" not in message
