from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.conformal import conformal
from onspect.runtime.fingerprints import fingerprint_bytes, unpack_fingerprints
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.teaching import Taught, teach
from onspect.runtime.teaching.base_file import edit_graph, split_metadata
from onspect.runtime.teaching.extract import Extractor, open_session
from onspect.runtime.teaching.fit import fit_memory, limit_apart
from onspect.runtime.teaching.graph_values import Stored, read_metric
from onspect.runtime.teaching.memory import (
    Features,
    Metric,
    learn_metric,
    nearest_distances,
    score_images,
    score_whole,
    whole_vectors,
)

from .conftest import draw, write_pictures

HALF = 0.01
"""Relative difference to which scores agree: teaching keeps features in float16, and whitening makes more of that."""

Run = Callable[..., Result]
TeachTiny = Callable[..., Taught]


def load(model: Path, folder: Path) -> np.ndarray:
    """Return a folder's pictures as the model takes them."""
    preprocess = read_model_file(model).info.preprocess
    return np.stack([prepare(read_image(path), preprocess) for path in sorted(folder.iterdir())])


def graph_of(model: Path) -> bytes:
    return split_metadata(model, model.read_bytes())[0]


def score(model: Path, images: np.ndarray) -> np.ndarray:
    """Return scores by the model file, one image at a time."""
    inspector = Inspector(model)
    return np.concatenate([inspector.run(image[None]).score for image in images])


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_teach_separates_good_from_defective(count: int, teach_tiny: TeachTiny, parts: Path) -> None:
    """By the threshold that teaching chose, new good parts are ok and parts with a spot are not, also with 2 pictures.

    Among the 12 is a picture whose score is ten times that of the others by a metric without it.
    """
    taught = teach_tiny(sorted((parts / "train/good").iterdir())[:count])
    inspector = Inspector(taught.path)

    def judge(kind: str) -> set[str]:
        return {inspector.inspect(read_image(path)).verdict for path in (parts / "test" / kind).iterdir()}

    assert judge("good") == {"ok"}
    assert judge("spot") == {"ng"}


def test_no_metric_without_a_picture_raises_its_score_far() -> None:
    """A score by other pictures' metric is at most 1.5 times the usual ratio above that by the metric of all."""
    together = np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32)
    assert limit_apart(1.2 * together, together) == pytest.approx(1.2 * together)
    apart = np.array([1.2, 2.4, 3.6, 4.8, 60.0], np.float32)
    assert limit_apart(apart, together) == pytest.approx([1.2, 2.4, 3.6, 4.8, 1.5 * 1.2 * 5.0])
    assert limit_apart(np.zeros(3, np.float32), np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_taught_file_says_what_was_taught(taught: Path, parts: Path) -> None:
    """The file lists the pictures, by whom and how they were judged, and that it has no autoencoder."""
    file = read_model_file(taught)
    info = file.info
    assert info.format_version == 3
    assert info.network is None
    assert info.score.name == "memory"
    assert info.memory is not None
    (lesson,) = info.memory.lessons
    known = {fingerprint_bytes(path.read_bytes()) for path in (parts / "train/good").iterdir()}
    assert set(unpack_fingerprints(lesson.fingerprints)) == known == set(file.training_images)
    assert (lesson.pictures, info.memory.pictures, info.provenance.training_images) == (12, 12, 12)
    assert (info.memory.copies, info.memory.by_whole) == ("none", False)
    assert info.calibration is not None
    assert len(info.calibration.good_scores) == 12


COMMANDS = ("info", "score", "run", "calibrate", "threshold", "evaluate", "recalibrate", "drift")


@pytest.mark.parametrize("command", [*COMMANDS, pytest.param("bench", marks=pytest.mark.slow)])
def test_commands_accept_a_taught_file(command: str, taught: Path, parts: Path, tmp_path: Path, onspect: Run) -> None:
    """Every command that takes a model file takes one that was taught."""
    log = tmp_path / "verdicts.jsonl"
    if command == "recalibrate":
        assert onspect("calibrate", taught, parts, "--max-fpr", "10%").exit_code == 0
    if command == "drift":
        done = onspect("score", taught, parts / "test/good", "-o", log)
        assert done.exit_code == 0, done.output
    arguments = {
        "info": (taught,),
        "score": (taught, parts / "test/good", "-o", log),
        "run": (taught, parts / "test/good", "--sink", log),
        "calibrate": (taught, parts, "--max-fpr", "10%"),
        "threshold": (taught, "--set", "1.5"),
        "evaluate": (taught, parts),
        "recalibrate": (taught, parts / "test/good", "--count", "12"),
        "drift": (log, taught),
        "bench": (taught, "--seconds", 0.01),
    }[command]
    done = onspect(command, *arguments)
    assert done.exit_code in ((0, 2) if command in ("score", "run", "evaluate", "drift") else (0,)), done.output
    assert "Traceback" not in done.output


def test_numpy_score_is_the_graph_s(taught: Path, parts: Path) -> None:
    """Numpy and the model file compute the same, except for features kept in float16."""
    images = np.concatenate([load(taught, parts / "test" / kind) for kind in ("good", "spot")])
    graph = graph_of(taught)
    features, metric, stored = Extractor.open(graph).extract(images), read_metric(graph), Stored.read(graph)
    expected = score_images(metric.patches(features), stored.vectors.astype(np.float32), features.shapes)
    assert score(taught, images) == pytest.approx(expected, rel=HALF)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 57, 1001])
def test_search_in_parts_finds_the_nearest(taught: Path, parts: Path, count: int) -> None:
    """However many vectors the memory has, fewer than its parts too, the graph finds the nearest of all."""
    graph, images = graph_of(taught), load(taught, parts / "test/good")[:3]
    features = Extractor.open(graph).extract(images)
    patches = read_metric(graph).patches(features)
    flat, random = np.concatenate(patches), np.random.default_rng(0)
    vectors = (flat[random.integers(len(flat), size=count)] + random.normal(0, 0.1, (count, 1))).astype(np.float16)
    squares = np.square(vectors.astype(np.float32)).sum(axis=1)
    session = open_session(edit_graph(graph, {"memory.vectors": vectors, "memory.squares": squares}))
    found = [float(session.run(["score"], {"image": image[None]})[0][0]) for image in images]
    expected = score_images(patches, vectors.astype(np.float32), features.shapes)
    assert found == pytest.approx(expected, rel=HALF)


@pytest.mark.slow
def test_map_is_the_graph_s(taught: Path, parts: Path) -> None:
    """The error map is what numpy computes, enlarged."""
    images = load(taught, parts / "test/good")
    graph = graph_of(taught)
    features, metric, stored = Extractor.open(graph).extract(images), read_metric(graph), Stored.read(graph)
    maps = np.concatenate([Inspector(taught).run(image[None]).error_map for image in images])
    for found, vectors, shape in zip(maps, metric.places(features), features.shapes, strict=True):
        places = nearest_distances(vectors, stored.map_vectors.astype(np.float32))
        expected = cv2.resize(places.reshape(shape), (96, 96), interpolation=cv2.INTER_LINEAR)
        assert found == pytest.approx(expected, rel=2 * HALF, abs=HALF)


def test_scores_of_good_pictures_are_by_the_others(teach_tiny: TeachTiny, parts: Path) -> None:
    """Scores of few pictures are those of a metric and a memory of all the others, computed plainly.

    None is far above its score by the metric of all.
    """
    taught = teach_tiny(sorted((parts / "train/good").iterdir())[:5])
    images = np.stack([prepare(draw(number), taught.info.preprocess) for number in range(5)])
    features = Extractor.open(graph_of(taught.path)).extract(images)

    def judge(place: int, metric: Metric) -> float:
        patches = metric.patches(features)
        others = np.concatenate(patches[:place] + patches[place + 1 :]).astype(np.float16).astype(np.float32)
        return float(score_images([patches[place]], others, [features.shapes[place]])[0])

    apart = [judge(place, learn_metric(features.take(np.delete(np.arange(5), place)), 5)) for place in range(5)]
    together = [judge(place, learn_metric(features, 5)) for place in range(5)]
    limit = 1.5 * np.median(apart) / np.median(together)
    expected = np.minimum(apart, limit * np.array(together))
    assert taught.info.calibration is not None
    assert taught.info.calibration.good_scores == pytest.approx(sorted(expected), rel=1e-4)


@pytest.mark.slow
def test_coreset_without_a_picture_has_none_of_it() -> None:
    """If the memory is smaller than all places, a picture is still judged without any vector of its own."""
    random = np.random.default_rng(0)
    shape = (24, 4, 24, 24)
    middle = random.normal(0, 1, shape).astype(np.float16)
    middle[5] += 3.0  # unlike the others: it is far from all, unless its own vectors are in the memory
    features = Features(middle[:, :2], middle, middle[:, :, ::2, ::2])
    fitted = fit_memory(features, np.arange(24))
    assert len(fitted.vectors) < 24 * 24 * 24
    assert int(fitted.scores.argmax()) == 5
    assert fitted.scores[5] > 2 * np.median(fitted.scores)


def test_copies_are_left_out_with_their_picture(teach_tiny: TeachTiny, parts: Path) -> None:
    """A picture's flipped copies are not in the memory that judges it: symmetric pictures gain nothing by them."""
    pictures = []
    folder = parts.parent / "symmetric"
    folder.mkdir(exist_ok=True)
    for number in range(5):
        half = draw(number)[:48, :48]
        whole = np.block([[half, half[:, ::-1]], [half[::-1], half[::-1, ::-1]]])
        pictures.append(folder / f"{number}.png")
        cv2.imwrite(str(pictures[-1]), whole)
    plain, flipped = (teach_tiny(pictures, f"{copies}.onnx", copies=copies) for copies in ("none", "flips"))
    assert plain.info.calibration is not None
    assert flipped.info.calibration is not None
    assert flipped.info.calibration.good_scores == pytest.approx(plain.info.calibration.good_scores, rel=0.02)


def test_threshold_follows_from_the_scores(taught: Path) -> None:
    """The threshold is the conformal one of the pictures' own scores; with 12 pictures it rejects none of them."""
    info = read_model_file(taught).info
    assert info.calibration is not None
    assert info.threshold is not None
    scores = np.array(info.calibration.good_scores)
    assert info.threshold.score == conformal(scores, 1 / 13)
    assert info.threshold.score == pytest.approx(scores.max())
    assert info.calibration.rule is not None
    assert (info.calibration.rule.name, info.calibration.rule.rate) == ("conformal", 1 / 13)


def test_sentence_says_what_so_few_pictures_support(teach_tiny: TeachTiny, parts: Path) -> None:
    """Twelve pictures promise 7.7%, not 1%; the sentence says how many would."""
    assert teach_tiny(parts).describe_support() == (
        "With 12 good pictures the threshold rejects at most 7.7% of new good parts, on average. 99 pictures are "
        'needed to promise 1%. The pictures alone prove only "below 22.1%" with 95% confidence.'
    )


def test_rate_can_be_asked_for(teach_tiny: TeachTiny, parts: Path) -> None:
    """A larger share of false rejects gives a lower threshold."""
    strict, loose = teach_tiny(parts, "a.onnx"), teach_tiny(parts, "b.onnx", rate=0.3)
    assert strict.info.threshold is not None
    assert loose.info.threshold is not None
    assert loose.info.threshold.score < strict.info.threshold.score
    assert loose.rate == 0.3


@pytest.mark.slow
def test_same_seed_gives_the_same_file(teach_tiny: TeachTiny, parts: Path) -> None:
    """Two files of the same pictures differ in name and times alone."""
    first, second = teach_tiny(parts, "a.onnx", copies="auto"), teach_tiny(parts, "b.onnx", copies="auto")
    assert graph_of(first.path) == graph_of(second.path)

    def plain(taught: Taught) -> object:
        content = json.loads(json.dumps(taught.info.to_dict()))
        del content["name"], content["provenance"]["trained"], content["provenance"]["exported"]
        del content["calibration"]["time"], content["memory"]["lessons"][0]["time"]
        return content

    assert plain(first) == plain(second)


def test_mono_scores_as_colour_of_grey_pictures(teach_tiny: TeachTiny, parts: Path) -> None:
    """A grey channel summed into the first convolution gives the scores of three equal channels."""
    mono, colour = teach_tiny(parts, "mono.onnx"), teach_tiny(parts, "colour.onnx", channels=3)
    assert (mono.info.preprocess.channels, colour.info.preprocess.channels) == (1, 3)
    images = load(mono.path, parts / "test/spot")
    assert score(mono.path, images) == pytest.approx(score(colour.path, np.repeat(images, 3, axis=3)), rel=1e-3)


def test_colour_pictures_are_taught_in_colour(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Coloured pictures make a colour model that sees a change of hue."""
    taught = teach_tiny(write_pictures(tmp_path / "good", range(8), colour=True))
    assert taught.info.preprocess.channels == 3
    part = prepare(draw(50, colour=True), taught.info.preprocess)
    other = part.copy()
    other[40:56, 40:56] = other[40:56, 40:56, ::-1]
    before, after = score(taught.path, np.stack([part, other]))
    assert after > 1.05 * before


def write_mask(path: Path) -> Path:
    """Write a mask whose left third is ignored."""
    mask = np.full((96, 96), 255, np.uint8)
    mask[:, :32] = 0
    cv2.imwrite(str(path), mask)
    return path


def test_what_a_mask_ignores_changes_nothing(teach_tiny: TeachTiny, parts: Path, tmp_path: Path) -> None:
    """The black area does not change score and map; the map is 0 there."""
    taught = teach_tiny(parts, mask=write_mask(tmp_path / "mask.png"))
    assert taught.info.score.inspected == pytest.approx(2 / 3)
    images = load(taught.path, parts / "test/good")
    painted = images.copy()
    painted[:, :, :32] = np.random.default_rng(0).integers(0, 256, painted[:, :, :32].shape)
    inspector = Inspector(taught.path)
    for image, other in zip(images, painted, strict=True):
        first, second = inspector.run(image[None]), inspector.run(other[None])
        assert first.score.tolist() == second.score.tolist()
        assert np.array_equal(first.error_map, second.error_map)
        assert not first.error_map[:, :, :32].any()
    assert score(taught.path, load(taught.path, parts / "test/spot")).min() > score(taught.path, images).max()


def test_masked_numpy_score_is_the_graph_s(teach_tiny: TeachTiny, parts: Path, tmp_path: Path) -> None:
    """With a mask, too, the pictures' own scores are computed as the graph computes them."""
    taught = teach_tiny(parts, mask=write_mask(tmp_path / "mask.png"))
    graph = graph_of(taught.path)
    images = load(taught.path, parts / "test/good")
    features, metric, stored = Extractor.open(graph).extract(images), read_metric(graph), Stored.read(graph)
    inspected = np.ones(features.shapes[0], np.float32)
    inspected[:, :2] = 0
    expected = score_images(metric.patches(features), stored.vectors.astype(np.float32), features.shapes, inspected)
    assert score(taught.path, images) == pytest.approx(expected, rel=HALF)


def test_small_pictures_are_judged_whole(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Pictures with a side below 64 pixels are enlarged and judged by their mean features, as numpy computes them."""
    folder = write_pictures(tmp_path / "good", range(10), size=(28, 28))
    taught = teach_tiny(folder, size=None)
    assert taught.info.memory is not None
    assert taught.info.memory.by_whole
    assert (taught.info.preprocess.width, taught.info.preprocess.height) == (128, 128)
    images = np.stack([prepare(draw(number, size=(28, 28)), taught.info.preprocess) for number in range(50, 54)])
    graph = graph_of(taught.path)
    queries = whole_vectors(Extractor.open(graph).extract(images)).astype(np.float16)
    assert score(taught.path, images) == pytest.approx(
        score_whole(queries, Stored.read(graph).whole),
        abs=float(np.finfo(np.float16).eps),  # of vectors of a length of about 1
    )


def test_whole_or_places_can_be_asked_for(teach_tiny: TeachTiny, parts: Path) -> None:
    """The option overrides the choice by the pictures' size."""
    taught = teach_tiny(parts, by_whole=True)
    assert taught.info.memory is not None
    assert taught.info.memory.by_whole
    assert len(Stored.read(graph_of(taught.path)).whole) == 12


@pytest.mark.slow
def test_copies_are_taken_where_parts_come_turned(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """With `auto`, parts that are at any angle are taught with turned copies, and parts in one orientation without."""
    aligned, turned = tmp_path / "aligned", tmp_path / "turned"
    for folder in (aligned, turned):
        folder.mkdir()
    random = np.random.default_rng(1)
    for number in range(8):
        part = np.full((128, 128), 90, np.uint8)
        cv2.rectangle(part, (54, 20), (74, 100), 210, -1)
        cv2.circle(part, (64, 92), 18, 30, -1)
        part = np.clip(part + random.normal(0, 3, part.shape), 0, 255).astype(np.uint8)
        matrix = cv2.getRotationMatrix2D((63.5, 63.5), float(random.uniform(0, 360)), 1.0)
        other = cv2.warpAffine(part, matrix, (128, 128), borderMode=cv2.BORDER_REPLICATE)
        cv2.imwrite(str(aligned / f"{number}.png"), part)
        cv2.imwrite(str(turned / f"{number}.png"), other)
    found = [teach_tiny(folder, f"{folder.name}.onnx", copies="auto", size=(128, 128)) for folder in (aligned, turned)]
    assert [taught.info.memory and taught.info.memory.copies for taught in found] == ["none", "turns"]


def test_working_size_keeps_the_shape(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """Pictures of 192 x 224 pixels are worked on at that size, smaller ones at twice theirs; --size gives another."""
    folder = write_pictures(tmp_path / "large", range(3), size=(192, 224))
    preprocess = teach_tiny(folder, size=None).info.preprocess
    assert (preprocess.width, preprocess.height) == (224, 192)
    folder = write_pictures(tmp_path / "good", range(3), size=(96, 192))
    preprocess = teach_tiny(folder, size=None).info.preprocess
    assert (preprocess.width, preprocess.height) == (384, 192)
    preprocess = teach_tiny(folder, size=(64, 96)).info.preprocess
    assert (preprocess.width, preprocess.height) == (64, 96)


def test_batches_score_as_single_images(taught: Path, parts: Path) -> None:
    """A batch gives the scores of its images alone."""
    images = load(taught, parts / "test/good")
    assert Inspector(taught).run(images).score == pytest.approx(score(taught, images), rel=1e-4)


def test_metric_stays_finite_on_constant_channels() -> None:
    """Channels that never vary, as dead filters give, leave the metric finite."""
    features = Features(*(np.zeros((3, 4, side, side), np.float16) for side in (6, 6, 3)))
    metric = learn_metric(features, 10)
    assert np.isfinite(np.stack(metric.patches(features))).all()
    assert np.isfinite(np.stack(metric.places(features))).all()


def test_edited_graph_is_read_back() -> None:
    """Initializers of each type are read back unchanged; other bytes of the graph stay unchanged."""
    import onnx
    from onnx import helper, numpy_helper

    values = [
        numpy_helper.from_array(np.arange(6, dtype=kind).reshape(2, 3), np.dtype(kind).name)
        for kind in (np.float16, np.float32, np.int64)
    ]
    model = helper.make_model(helper.make_graph([], "g", [], [], values)).SerializeToString()
    new = {
        "float16": np.full((4, 1), 0.5, np.float16),
        "float32": np.array(2.0, np.float32),
        "int64": np.array([7], np.int64),
    }
    edited = onnx.load_from_string(edit_graph(model, new))
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in edited.graph.initializer}
    for name, value in new.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)
    assert edit_graph(model, {}) == model


def test_python_takes_a_list_of_files(teach_tiny: TeachTiny, parts: Path) -> None:
    """`teach` in Python takes image files as well as a folder."""
    taught = teach_tiny(sorted((parts / "train/good").iterdir())[:4])
    assert taught.pictures == 4
    assert taught.info.calibration is not None
    assert taught.info.calibration.data == "pictures"


def test_failing_write_leaves_the_old_file(
    base_file: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk fails in the middle, an older file of that name stays unchanged, and nothing is left beside it."""
    (tmp_path / "part.onnx").write_bytes(b"older")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(Exception, match="No space left on device"):
        teach(parts, tmp_path / "part.onnx", base=base_file, copies="none")
    assert (tmp_path / "part.onnx").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["part.onnx"]


def test_info_dict_survives_json(taught: Path) -> None:
    """The metadata of the memory is read back unchanged."""
    info = read_model_file(taught).info
    assert info.memory is not None
    assert dataclasses.asdict(info)["memory"]["lessons"][0]["pictures"] == 12
