from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from sklearn.metrics import roc_auc_score

from onspect.calibration import compare_models
from onspect.calibration.statistics.bootstrap import difference_interval, mcnemar
from onspect.runtime.model.schema import Threshold

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]


def test_the_areas_are_those_of_scikit_learn() -> None:
    """Both AUROC are exact with ties, and the interval contains the difference."""
    random = np.random.default_rng(1)
    good, defective = random.integers(0, 9, (2, 60)).astype(float), random.integers(3, 12, (2, 40)).astype(float)
    areas, interval = difference_interval(good, defective)
    truth = [0] * 60 + [1] * 40
    for place in (0, 1):
        assert areas[place] == pytest.approx(roc_auc_score(truth, [*good[place], *defective[place]]))
    assert interval is not None
    assert interval[0] < areas[0] - areas[1] < interval[1]


def test_the_interval_is_paired() -> None:
    """Two models with almost the same scores differ surely by little, however wide the interval of each is."""
    random = np.random.default_rng(2)
    good, defective = random.normal(0, 1, 40), random.normal(1, 1, 40)
    _, interval = difference_interval(np.stack([good, good + 1e-3]), np.stack([defective, defective]))
    assert interval is None or interval[1] - interval[0] < 0.01
    _, interval = difference_interval(
        np.stack([good, random.permutation(good)]), np.stack([defective, random.permutation(defective)])
    )
    assert interval is not None
    assert interval[1] - interval[0] > 0.1


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 120 pairs of equally good models, an interval without 0 is about as rare as 1 in 20."""
    random, missed = np.random.default_rng(3), 0
    for number in range(120):
        common = random.normal(0, 1, 80) + np.repeat([0.0, 1.5], 40)
        scores = np.stack([common + random.normal(0, 0.7, 80) for _ in range(2)])
        _, interval = difference_interval(scores[:, :40], scores[:, 40:], seed=number)
        assert interval is not None
        missed += not interval[0] <= 0.0 <= interval[1]
    assert missed <= 14


def test_mcnemar_is_exact() -> None:
    """The p is that of the binomial test, and 1 where the models never differ."""
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert (mcnemar(0, 0), mcnemar(4, 4)) == (1.0, 1.0)


@pytest.fixture
def models(write_model: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Return a model that rejects images 20 off 128, and one that rejects hardly anything."""
    first = write_model(tmp_path / "first.onnx", threshold=Threshold(0.0062, 0.0062))
    return first, write_model(tmp_path / "second.onnx", threshold=Threshold(0.2, 0.2))


@pytest.mark.slow
def test_two_models_judge_the_same_images(
    onspect: Run, models: tuple[Path, Path], make_dataset: Make, tmp_path: Path
) -> None:
    """The command compares AUROC and verdicts, on stdout, in the JSON and on the page of the first model."""
    data = make_dataset({"test/good": [125, 128, 131, 160], "test/bright": [180, 185, 190, 195, 200, 210, 129]})
    result = onspect("evaluate", *models, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "first.onnx against second.onnx, 11 images that both scored:" in result.stdout
    assert "difference +0.0000: resampled images show no spread, so there is no interval" in result.stdout
    words = "defective images: 6 judged correctly by first.onnx alone, 0 by second.onnx alone, of 7 (McNemar p = 0.031"
    assert f"{words}3): a difference is shown" in result.stdout
    found = json.loads((tmp_path / "report/metrics.json").read_text())
    counts = {"images": 7, "only_first": 6, "only_second": 0, "p": pytest.approx(1 / 32)}
    assert found["comparison"]["defective"] == counts
    assert (found["comparison"]["good"]["only_first"], found["comparison"]["good"]["only_second"]) == (0, 1)
    assert found["model"]["sha256"] != found["comparison"]["model"]["sha256"]
    page = (tmp_path / "report/report.html").read_text()
    assert "<h2>Against another model</h2>" in page
    assert words in page


def test_a_model_without_a_threshold_is_compared_by_scores(
    models: tuple[Path, Path], model: Path, make_dataset: Make
) -> None:
    """Without both thresholds AUROC is compared, and verdicts are not."""
    data = make_dataset({"test/good": [125, 128, 131, 160], "test/bright": [200, 210, 129]})
    comparison = compare_models(models[0], str(model), data)
    assert comparison.auroc == (0.75, 0.75)
    assert comparison.good is None
    assert "verdicts are not compared" in str(comparison)


def test_three_models_are_refused(onspect: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """One or two models come before the folder; more, or none, is a usage error."""
    result = onspect("evaluate", *models, models[0], tmp_path, "-o", tmp_path / "report")
    assert result.exit_code == 2
    assert "there are 3 models; give one or two" in result.stderr
    assert onspect("evaluate", tmp_path, "-o", tmp_path / "report").exit_code == 2
    assert not (tmp_path / "report").exists()
