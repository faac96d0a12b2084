from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

from onspect.calibration import Requirement, calibrate, evaluate
from onspect.calibration.fitness import find_targets, judge_fitness
from onspect.calibration.metrics.image import Confusion
from onspect.calibration.statistics.intervals import upper_bound
from onspect.calibration.statistics.support import count_missing
from onspect.calibration.thresholds import MinRecall
from onspect.runtime.errors import ChoiceError

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]

BOTH = Requirement(max_fpr=0.01, min_recall=0.95)


def judge(confusion: Confusion, requirement: Requirement = BOTH, blindness: Iterable[str] = ()) -> tuple[str, str]:
    """Return outcome and sentence for how images were judged."""
    targets = find_targets(None, confusion, banded=False, requirement=requirement)
    fitness = judge_fitness(targets, confusion, list(blindness))
    return fitness.outcome, fitness.words


@pytest.mark.parametrize(
    ("confusion", "outcome", "words"),
    [
        (Confusion(100, 0, 400, 0), "PASS", "fit for use at the requirement: false rejects 0 of 400 prove at most 1%"),
        (
            Confusion(100, 0, 60, 0),
            "NOT PROVEN",
            "not proven with so few pictures: false rejects 0 of 60; 239",
        ),
        (Confusion(100, 20, 380, 0), "FAIL", "not fit for use: false rejects 20 of 400 disprove at most 1%"),
        (Confusion(40, 0, 400, 60), "FAIL", "escapes 60 of 100 disprove at least 95% of defective parts rejected"),
        (Confusion(0, 0, 400, 0), "NOT PROVEN", "escapes are not known, there are no defective pictures"),
    ],
)
def test_one_sentence_says_whether_a_model_is_fit(confusion: Confusion, outcome: str, words: str) -> None:
    """Both sides proven is fit, one disproven is not, anything else is open, with the pictures that would prove it."""
    found, sentence = judge(confusion)
    assert found == outcome
    assert words in sentence


def test_a_side_without_a_limit_leaves_it_undecided() -> None:
    """False rejects alone make no model fit: the escapes are reported, with the option that sets their limit."""
    outcome, words = judge(Confusion(30, 0, 400, 30), Requirement(max_fpr=0.01))
    assert outcome == "NOT PROVEN"
    assert words.startswith("not decided: false rejects 0 of 400 prove")
    assert "escapes 30 of 60, so at most 62%, and no limit was asked for (--min-recall sets one)" in words


def test_parts_for_a_person_have_not_escaped() -> None:
    """A requirement on escapes counts defects that pass unseen; a file calibrated for rejects is judged by rejects."""
    confusion = Confusion(true_ng=60, false_ng=0, true_ok=400, false_ok=0, review_defective=40)
    targets = find_targets(None, confusion, banded=True, requirement=BOTH)
    assert judge_fitness(targets, confusion, []).outcome == "PASS"
    recall = MinRecall(0.95).target(confusion, banded=True)
    assert recall is not None
    words = judge_fitness([recall], confusion, []).words
    assert "defects not rejected 40 of 100 disprove at least 95% of defective parts rejected" in words


def test_a_model_that_is_of_no_use_is_not_fit() -> None:
    """A proof that the model does not separate good from bad decides; too few images do not."""
    good_enough = Confusion(100, 0, 400, 0)
    assert judge(good_enough, blindness=["the model does not tell good from defective images"])[0] == "FAIL"
    assert judge(good_enough, blindness=["it is not shown that the model tells them apart"])[0] == "NOT PROVEN"


@pytest.mark.parametrize(("limit", "wrong", "total"), [(0.01, 0, 60), (0.05, 2, 40), (0.002, 1, 0 + 10), (0.3, 0, 0)])
def test_the_missing_images_are_just_enough(limit: float, wrong: int, total: int) -> None:
    """With the stated number of images the bound is within the limit, with one fewer it is not."""
    missing = count_missing(limit, wrong, total)
    assert missing is not None
    assert upper_bound(wrong, total + missing) <= limit < upper_bound(wrong, total + missing - 1)


def test_a_limit_of_zero_is_never_proven() -> None:
    """No number of pictures proves that nothing is ever rejected, and the sentence says so."""
    words = judge(Confusion(100, 0, 60, 0), Requirement(max_fpr=0.0, min_recall=0.95))[1]
    assert "no number of pictures would prove at most 0% of good parts rejected" in words


def test_a_rate_that_is_none_is_refused() -> None:
    """A requirement is a share of 1."""
    with pytest.raises(ChoiceError, match="max_fpr is 5"):
        Requirement(max_fpr=5.0)


def test_calibrate_ends_with_the_verdict(onspect: Run, model: Path, make_dataset: Make) -> None:
    """The last line of `calibrate` judges the policy's rate by the pictures that chose the threshold."""
    data = make_dataset({"val/good": range(120, 136), "val/bright": [180, 190, 200]})
    last = onspect("calibrate", model, data, "--max-fpr", "5%").stdout.splitlines()[-1]
    assert last.startswith("so far, on the pictures that the threshold was chosen on: not proven with so few pictures:")
    assert "43 more good pictures without a false reject would prove at most 5% of good parts rejected" in last


@pytest.mark.slow
def test_evaluate_ends_with_the_verdict(onspect: Run, model: Path, make_dataset: Make, tmp_path: Path) -> None:
    """The last line of `evaluate` judges by its options instead of the calibration's policy."""
    data = make_dataset(
        {
            "val/good": range(120, 136),
            "val/bright": [180, 190, 200],
            "test/good": [*range(122, 134)] * 6,
            "test/bright": [181, 191, 201] * 8,
        }
    )
    calibrate(model, data, max_fpr=0.05)
    arguments = ("evaluate", model, data, "-o", tmp_path / "report")
    assert "(--min-recall sets one)" in onspect(*arguments).stdout.splitlines()[-1]
    result = onspect(*arguments, "--max-fpr", "10%", "--min-recall", "80%")
    assert result.stdout.splitlines()[-1].startswith("verdict: fit for use at the requirement: false rejects 0 of 72")
    assert "PASS: fit for use" in (tmp_path / "report/report.html").read_text()
    assert onspect(*arguments, "--strict").exit_code == 0


def test_figures_of_known_pictures_prove_nothing(model: Path, make_dataset: Make) -> None:
    """On the pictures that the threshold was chosen on, a model is never fit."""
    data = make_dataset({"val/good": [*range(120, 136)] * 6, "val/bright": [180, 190, 200] * 8})
    calibrate(model, data, max_fpr=0.1)
    fitness = evaluate(model, data, split="val", max_fpr=0.2, min_recall=0.8).fitness
    assert fitness is not None
    assert fitness.outcome == "NOT PROVEN"
    assert "the threshold was chosen on these pictures" in fitness.words


@pytest.mark.slow
def test_the_sheet_has_fields_and_the_part_as_its_title(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path
) -> None:
    """Fields are on the sheet and in the JSON, escaped; the part's name is the title; a nameless one is refused."""
    data = make_dataset({"test/good": [128, 129], "test/bright": [200, 210]})
    arguments = ("evaluate", calibrated, data, "-o", tmp_path / "report", "--field")
    result = onspect(*arguments, "part=Disc <4>", "--field", "lens = 50 mm", "--field", "shift=2")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report/report.html").read_text()
    assert "<h1>Disc &lt;4&gt;</h1>" in page
    for name, value in (("camera", ""), ("lens", "50 mm"), ("shift", "2")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    assert '"lens": "50 mm"' in (tmp_path / "report/metrics.json").read_text()
    refused = onspect(*arguments, "dome")
    assert refused.exit_code == 2
    assert "'dome' is not a field; write name=value" in refused.stderr
