from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from onspect.calibration.calibration import calibrate, move_threshold
from onspect.calibration.metrics.image import Confusion, count_confusion, trace_cost, trace_curves
from onspect.calibration.report.page import _dump
from onspect.calibration.review import Band, ReviewShare
from onspect.calibration.thresholds import Conformal, Cost, MaxFpr, Policy
from onspect.runtime.model.schema import Rule, Threshold

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]


AcceptanceSheet = tuple[dict[str, Any], str, str]


def read_rule(rule: Rule) -> Policy | Band:
    """Return the object for a rule of a threshold, or of a review band."""
    return Band.from_rule(rule) if rule.name.startswith("review") else Policy.from_rule(rule)


@pytest.fixture
def data(make_dataset: Make) -> Path:
    """Return sixteen good and four bright images to calibrate on, and others to evaluate on."""
    return make_dataset(
        {
            "val/good": range(120, 136),
            "val/bright": [133, 135, 200, 240],
            "test/good": range(118, 138),
            "test/bright": [131, 134, 150, 210],
        }
    )


@pytest.fixture
def write_sheet(onspect: Run, model: Path, data: Path, tmp_path: Path) -> Callable[..., AcceptanceSheet]:
    """Return a function that evaluates the model and returns metrics, page (its spaces evened out) and stderr."""

    def write(*arguments: str) -> AcceptanceSheet:
        result = onspect("evaluate", model, data, "-o", tmp_path / "report", *arguments)
        assert result.exit_code == 0, result.output
        page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
        return json.loads((tmp_path / "report/metrics.json").read_text()), re.sub(r"\s+", " ", page), result.stderr

    return write


@pytest.mark.slow
def test_operating_point_is_told_in_parts(model: Path, data: Path, write_sheet: Callable[..., AcceptanceSheet]) -> None:
    """The sheet says from which score what happens, and how many of 1,000 parts are rejected, reviewed and passed."""
    calibrate(model, data, policy=MaxFpr(0.1), band=ReviewShare(0.2))
    metrics, page, _ = write_sheet()
    words = " ".join(metrics["operating_point"])
    assert re.search(r"score is \d.* or more is rejected \(ng\); from \d.* on it goes to a person", words)
    assert re.search(
        r"Of 1,000 good parts like these, \d+ \(\d+ to \d+\) are rejected and \d+ \(\d+ to \d+\) go", words
    )
    assert re.search(r"Of 1,000 defective parts .* go to a person, and \d+ \(\d+ to \d+\) pass unseen", words)
    assert all(sentence.replace("'", "&#39;") in page for sentence in metrics["operating_point"])


@pytest.mark.parametrize(
    ("rule", "confusion", "rate", "answer"),
    [
        (Rule("max_fpr", rate=0.1), Confusion(0, 2, 98, 0), 0.02, "kept with 95%"),
        (Rule("max_fpr", rate=0.05), Confusion(0, 2, 98, 0), 0.02, "kept here; the images"),
        (Rule("conformal", rate=0.01), Confusion(0, 2, 98, 0), 0.02, "missed here, but chance can"),
        (Rule("quantile", rate=0.999), Confusion(0, 2, 98, 0), 0.02, "broken with 95%"),
        (Rule("min_recall", rate=0.95), Confusion(98, 0, 9, 2), 0.98, "kept here; the images"),
        (Rule("min_recall", rate=0.999), Confusion(98, 0, 9, 2), 0.98, "broken with 95%"),
        (Rule("review_share", rate=0.1), Confusion(5, 0, 60, 0, 40, 5), 0.4, "broken with 95%"),
        (Rule("review_recall", rate=0.85), Confusion(50, 0, 60, 5, 1, 45), 0.95, "kept with 95%"),
    ],
)
def test_promise_is_held_against_other_images(rule: Rule, confusion: Confusion, rate: float, answer: str) -> None:
    """A requested rate is kept, missed or broken, by the 95% interval of the rate of these images."""
    promise = read_rule(rule).target(confusion, banded=confusion.review_good > 0)
    assert promise is not None
    assert promise.rate == pytest.approx(rate)
    assert promise.answer.startswith(answer)
    assert promise.broken == answer.startswith("broken")


@pytest.mark.parametrize("rule", [Rule("max_f1"), Rule("cost", costs=(1, 2)), Rule("review_share", rate=0.1)])
def test_what_promises_no_rate_is_not_held(rule: Rule) -> None:
    """Policies without a rate, and a band that is not there, promise nothing."""
    confusion = Confusion(1, 1, 1, 1)
    assert read_rule(rule).target(confusion, banded=False) is None


@pytest.mark.slow
def test_broken_promise_is_warned_of(
    model: Path, data: Path, make_dataset: Make, write_sheet: Callable[..., AcceptanceSheet]
) -> None:
    """If these images contradict the calibration, the command says so."""
    calibrate(model, data, policy=MaxFpr(0.001))
    make_dataset({"test/good": [*range(10, 20), *range(240, 250)]})
    metrics, page, stderr = write_sheet()
    assert "the requirement is at most 0.1% of good parts rejected; the rate of these images is 100.0%" in stderr
    assert metrics["promises"][0]["broken"] is True
    assert "broken with 95% confidence" in page


@pytest.mark.slow
def test_history_and_fingerprints_are_on_the_sheet(
    model: Path, data: Path, write_sheet: Callable[..., AcceptanceSheet]
) -> None:
    """Each threshold that the file has had is listed, newest first, and files and image sets by their digits."""
    calibrate(model, data)
    move_threshold(model, MaxFpr(0.2))
    metrics, page, _ = write_sheet()
    policies = [stamp["policy"].split(";")[0] for stamp in metrics["stamps"]]
    assert policies == ["false rejects at most 20%", "highest F1"]
    assert metrics["stamps"][0]["threshold"]["score"] == metrics["threshold"]["score"]
    assert {item["role"] for item in metrics["fingerprints"]} == {
        "model file", "graph", "training images", "calibration images", "test images", "images of this sheet",
    }  # fmt: skip
    assert metrics["fingerprints"][0]["digits"] == metrics["model"]["sha256"]
    assert all(item["digits"] in page for item in metrics["fingerprints"])


@pytest.mark.slow
def test_every_number_of_the_plots_is_in_the_json(
    model: Path, data: Path, write_sheet: Callable[..., AcceptanceSheet]
) -> None:
    """Scores, the points of each curve and the review table are in metrics.json."""
    calibrate(model, data, policy=Cost((1, 50), prevalence=0.02), band=ReviewShare(0.2))
    metrics, page, _ = write_sheet()
    assert (len(metrics["scores"]["good"]), len(metrics["scores"]["defective"])) == (20, 4)
    assert set(metrics["curves"]) == {"image", "cost", "review"}
    assert metrics["curves"]["image"]["true_positive_rate"][-1] == 1.0
    assert metrics["review"][0]["review"] == metrics["threshold"]["score"]
    assert metrics["threshold"]["review"] in [row["review"] for row in metrics["review"]]
    assert "the file&#39;s</th>" in page


@pytest.mark.slow
def test_sheet_can_be_signed(model: Path, data: Path, write_sheet: Callable[..., AcceptanceSheet]) -> None:
    """Two people can sign, behind the evidence; the paper is the printer's, and pages have numbers."""
    calibrate(model, data)
    _, page, _ = write_sheet("--title", 'a "title" } </style>')
    for words in ("<dt>Signature</dt>", "<dt>Date</dt>", "<dt>Name</dt>"):
        assert page.count(words) == 2
    assert "counter(page)" in page
    assert "size:" not in page[page.index("@page") : page.index("@media print")].replace("font-size:", "")
    assert page.index("<h2>Scores</h2>") < page.index("<h2>Fingerprints</h2>") < page.index("<h2>Acceptance</h2>")
    assert "a &#34;title&#34; } &lt;/style&gt;" in page


def test_sheet_of_good_images_only(
    onspect: Run, model: Path, data: Path, tmp_path: Path, write_sheet: Callable[..., AcceptanceSheet]
) -> None:
    """Without defects there are no curves and no recall, and the known figures are shown."""
    calibrate(model, data, policy=Conformal(0.2))
    shutil.rmtree(data / "test/bright")
    metrics, page, _ = write_sheet()
    assert metrics["curves"] == {"image": None, "cost": None, "review": None}
    assert metrics["review"] == []
    assert [promise["asked"] for promise in metrics["promises"]] == ["at most 20% of good parts rejected"]
    assert "defective parts like these" not in page


def test_cost_is_least_at_the_cheapest_threshold() -> None:
    """No threshold costs less than the best, inspection is never worse than none at its best, and a band only saves."""
    random = np.random.default_rng(3)
    good, defective = random.normal(0, 1, 60), random.normal(1.5, 1, 40)
    curves = trace_curves(good, defective)
    for score in (-1.0, 0.5, 1.0, 3.0):
        curve = trace_cost(curves, count_confusion(good, defective, Threshold(score, score, review=score - 1.0)))
        assert (curve.best <= curve.stamped + 1e-12).all()
        assert (curve.reviewed <= curve.stamped).all()
        assert (curve.best <= 1.0).all()
    everything = trace_cost(curves, Confusion(40, 60, 0, 0))
    assert everything.stamped == pytest.approx(1.0 / np.minimum(1.0, everything.weight))


def test_arrays_stand_on_one_line_and_words_as_they_are() -> None:
    """Only arrays of numbers are joined; a name with brackets and spaces in it is not touched."""
    content = {"a": [1, 2.5, -3e-05], "b": "x [1,   2]", "c": [["q"], []]}
    text = _dump(content)
    assert "[ 1, 2.5, -3e-05 ]" in text
    assert json.loads(text) == content


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_sheet_prints(model: Path, data: Path, write_sheet: Callable[..., AcceptanceSheet], tmp_path: Path) -> None:
    """A browser prints the sheet to a few pages without the network."""
    calibrate(model, data)
    write_sheet()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}/profile"]
    page = (tmp_path / "report/report.html").as_uri()
    subprocess.run(
        ["chromium", *options, f"--print-to-pdf={tmp_path}/sheet.pdf", page],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert 2 <= len(re.findall(rb"/Type /Page\b", (tmp_path / "sheet.pdf").read_bytes())) <= 12
