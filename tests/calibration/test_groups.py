"""Several pictures of one part count as one part, by the worst of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.calibration import calibrate, compare_models, evaluate, move_threshold
from onspect.calibration.metrics.image import Confusion, count_confusion, measure_area_intervals, measure_rates
from onspect.calibration.statistics.intervals import rate_interval
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.schema import Threshold

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]
PATTERN = r"^\d\d"  # 000 to 009 are one part


@pytest.fixture
def shots(make_dataset: Make) -> Path:
    """Return a dataset with ten pictures of each of four good parts and two defective ones, in val and in test."""
    good = [128 + part + shot % 2 for part in range(4) for shot in range(10)]
    bright = [180 + 20 * part + shot for part in range(2) for shot in range(10)]
    return make_dataset(
        {
            f"{split}/{kind}": shades
            for split in ("val", "test")
            for kind, shades in (("good", good), ("bright", bright))
        }
    )


def test_calibration_counts_parts(model: Path, shots: Path) -> None:
    """The threshold, its evidence and the output are those of four good parts, each with its highest score."""
    found = calibrate(model, shots, group=PATTERN, max_fpr=0.25)
    evidence = found.calibration
    assert evidence.counts == {"good": 4, "bright": 2}
    assert (len(evidence.good_scores), len(evidence.defective_scores)) == (4, 2)
    score = Inspector(model).inspect(np.full((32, 32), 129, np.uint8)).score
    assert evidence.good_scores[0] == pytest.approx(score, rel=1e-3)
    assert evidence.intervals["fpr"] == pytest.approx(rate_interval(found.confusion.false_ng, 4))
    assert "(6 parts in 60 pictures)" in evidence.policy
    text = str(found)
    assert "parts         4 good, 2 defective (2 bright)" in text
    assert "more good parts without a false reject" in text
    assert any("4 good parts, " in note for note in found.notes)


def test_the_threshold_is_moved_by_parts(model: Path, shots: Path) -> None:
    """A threshold moved without images still counts parts, and says so."""
    calibrate(model, shots, group=PATTERN, max_fpr=0.25)
    moved = move_threshold(model, max_fpr=0.5)
    assert moved.calibration.counts == {"good": 4, "bright": 2}
    assert "(6 parts in 60 pictures)" in moved.calibration.policy
    assert moved.confusion.noun == "part"


@pytest.mark.slow
def test_evaluation_counts_parts(onspect: Run, model: Path, shots: Path, tmp_path: Path, make_dataset: Make) -> None:
    """A good part is rejected if one picture is, a defective one passes if one does; figures and intervals agree."""
    calibrate(model, shots, group=PATTERN, max_fpr=0.25)
    make_dataset({"test/good": [128] * 39 + [200], "test/bright": [200] * 19 + [128]})
    evaluation = evaluate(model, shots, group=PATTERN)
    assert evaluation.count_parts() == (4, 2)
    assert evaluation.confusion == Confusion(true_ng=1, false_ng=1, true_ok=3, false_ok=1)
    assert evaluation.intervals["fpr"] == pytest.approx(rate_interval(1, 4))
    assert evaluation.kinds["bright"].images == 2
    result = onspect("evaluate", model, shots, "--group", PATTERN, "-o", tmp_path / "report")
    assert "caught of parts" in result.stdout
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["parts"] == {"good": 4, "defective": 2, "group": PATTERN}
    assert (metrics["counted"], len(metrics["scores"]["good"])) == ("parts", 4)
    assert metrics["images"] == {"good": 40, "bright": 20}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "show 4 distinct good parts and 2 distinct defective ones" in page
    assert "share of the parts here" in page


def test_pictures_of_a_file_that_counts_parts_are_warned_of(model: Path, shots: Path) -> None:
    """If the threshold was chosen by parts, an evaluation by images says what to give."""
    calibrate(model, shots, group=PATTERN, max_fpr=0.25)
    assert any("give --group" in words for words in evaluate(model, shots).list_warnings())
    assert not any("give --group" in words for words in evaluate(model, shots, group=PATTERN).list_warnings())


def test_models_are_compared_by_parts(model: Path, shots: Path) -> None:
    """The comparison of two models counts parts too."""
    calibrate(model, shots, group=PATTERN, max_fpr=0.25)
    comparison = compare_models(model, model, shots, group=PATTERN)
    assert (comparison.images, comparison.parts) == (60, 6)
    assert comparison.good is not None
    assert (comparison.good.images, comparison.good.only_first, comparison.good.only_second) == (4, 0, 0)
    assert "60 images of 6 parts that both scored" in comparison.describe()[0]


def test_a_pattern_that_cannot_be_used_is_refused_before_any_work(
    model: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without a match, or no regular expression, changes nothing and scores nothing."""
    before = model.read_bytes()
    monkeypatch.setattr(Inspector, "infer_frames", None)
    for work in (calibrate, evaluate):
        with pytest.raises(DatasetError, match=r"does not match '000\.png'"):
            work(model, shots, group="lot")
        with pytest.raises(ChoiceError, match="not a regular expression"):
            work(model, shots, group="(")
    assert model.read_bytes() == before


def draw_parts(random: np.random.Generator, parts: int, shots: int, shift: float) -> NDArray[np.float64]:
    """Draw scores [parts, shots]: pictures of a part are alike."""
    return random.normal(shift, 1.0, (parts, 1)) + random.normal(0.0, 0.3, (parts, shots))


@pytest.mark.slow
def test_intervals_over_parts_cover_as_often_as_they_say() -> None:
    """Of 300 test sets of 40 parts with five pictures, at least 93% of the intervals over parts contain the true rate.

    Intervals that count the pictures contain the true rate of pictures far too seldom.
    """
    random = np.random.default_rng(5)
    cut = Threshold(1.5, 1.5)
    many = draw_parts(random, 200_000, 5, 0.0)
    of_parts, of_pictures = (many.max(axis=1) >= 1.5).mean(), (many >= 1.5).mean()
    bad = draw_parts(random, 2000, 5, 1.5).min(axis=1)
    area = (np.searchsorted(np.sort(many.max(axis=1)), bad) / len(many)).mean()
    held = {"parts": 0, "pictures": 0, "auroc": 0}
    for _ in range(300):
        good, defective = draw_parts(random, 40, 5, 0.0), draw_parts(random, 20, 5, 1.5)
        for name, scores, truth in (("parts", good.max(axis=1), of_parts), ("pictures", good.ravel(), of_pictures)):
            low, high = measure_rates(count_confusion(scores, scores[:0], cut), banded=False)["fpr"]
            held[name] += low <= truth <= high
        low, high = measure_area_intervals(good.max(axis=1), defective.min(axis=1))["auroc"]
        held["auroc"] += low <= area <= high
    assert held["parts"] >= 0.93 * 300
    assert held["auroc"] >= 0.91 * 300
    assert held["pictures"] < 0.85 * 300
