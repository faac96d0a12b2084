from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from onspect.calibration import evaluate
from onspect.calibration.report.gallery import MOST, choose_examples
from onspect.calibration.scores import ScoredImage
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.model.schema import Threshold

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Make = Callable[..., Path]

GOOD = [125, 128, 131, 160]
BRIGHT = [200, 210, 129]


def refuse_constant(name: str) -> Any:
    """Fail on NaN and Infinity, which are not JSON."""
    raise AssertionError(name)


def read_metrics(folder: Path) -> Any:
    """Return metrics.json, read as strictly as JSON is defined."""
    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse_constant)


@dataclass(frozen=True)
class Report:
    """A report that several tests read, with the output of the command."""

    folder: Path
    stdout: str
    stderr: str
    page: str


@pytest.fixture(scope="module")
def report(
    onspect: Run,
    tmp_path_factory: pytest.TempPathFactory,
    write_model: Callable[..., Path],
    write_image: Callable[..., Path],
) -> Report:
    """Return the report on four good and three bright parts, of which the model misjudges one each."""
    root = tmp_path_factory.mktemp("evaluated")
    model = write_model(root / "part.onnx", threshold=Threshold(0.0062, 0.0062))
    for kind, brightnesses in (("good", GOOD), ("bright", BRIGHT)):
        for number, brightness in enumerate(brightnesses):
            write_image(root / f"parts/test/{kind}/{number}.png", brightness)
    result = onspect("evaluate", model, root / "parts", "-o", root / "report", "--title", "Line <7> & 8")
    assert result.exit_code == 0, result.output
    page = (root / "report/report.html").read_text()
    return Report(root / "report", result.stdout, result.stderr, page)


def test_metrics_hold_every_figure(onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path) -> None:
    """metrics.json has areas overall and by kind, and the confusion at the stamped threshold."""
    data = make_dataset({"test/good": GOOD, "test/bright": BRIGHT, "test/dark": [10]})
    result = onspect("evaluate", calibrated, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    metrics = read_metrics(tmp_path / "report")
    assert metrics["images"] == {"good": 4, "bright": 3, "dark": 1}
    assert metrics["threshold"] == {
        "score": 0.0062, "map": 0.0062, "review": None, "area": 0, "policy": "highest F1", "interval": None,
    }  # fmt: skip
    assert metrics["image"]["auroc"] == pytest.approx((4 + 4 + 4 + 1) / 16)
    confusion = metrics["confusion"]
    assert [confusion[name] for name in ("true_ng", "false_ng", "true_ok", "false_ok")] == [3, 1, 3, 1]
    assert (confusion["recall"], confusion["fpr"], confusion["precision"], confusion["f1"]) == (0.75, 0.25, 0.75, 0.75)
    expected = {"images": 1, "caught": 1, "missed": 0, "reviewed": 0, "recall": 1.0, "auroc": 1.0, "aupr": 1.0}
    assert metrics["kinds"]["dark"].items() >= (expected | {"reason": None}).items()
    assert metrics["kinds"]["bright"]["auroc"] == pytest.approx(9 / 12)
    assert metrics["pixel"]["auroc"] is None
    assert metrics["pixel"]["reason"] == "there are no defective pixels in any mask"
    assert metrics["pixel"]["images_without_mask"] == 4


def test_images_in_the_band_stand_apart(
    onspect: Run, write_model: Callable[..., Path], make_dataset: Make, tmp_path: Path
) -> None:
    """With a review band its images have a column of their own, on the page and on stdout, and figures in the JSON."""
    model = write_model(tmp_path / "part.onnx", threshold=Threshold(0.0062, 0.0062, review=0.001))
    data = make_dataset({"test/good": [128, 128, 140], "test/bright": [128, 140, 200]})
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert re.search(r"^ +judged ok +review +judged ng$", result.stdout, re.MULTILINE)
    assert re.search(r"^defective +1 +1 +1 ", result.stdout, re.MULTILINE)
    metrics = read_metrics(tmp_path / "report")
    assert (metrics["confusion"]["review_good"], metrics["confusion"]["review_defective"]) == (1, 1)
    assert metrics["confusion"]["escapes"] == pytest.approx(1 / 3)
    assert metrics["kinds"]["bright"]["reviewed"] == 1
    assert "<th>for review</th>" in (tmp_path / "report" / "report.html").read_text()


def test_the_table_is_short_and_names_the_report(report: Report) -> None:
    """Stdout has the main figures and a line for each kind; stderr says where the report is."""
    assert "4 good, 3 defective (3 bright), from parts, split test" in report.stdout
    assert re.search(r"^AUROC +0\.7500, 0\.\d{4} to 0\.9\d{3}$", report.stdout, re.MULTILINE)
    assert re.search(r"^bright +2 of 3 +0\.7500 +0\.\d{4}\b", report.stdout, re.MULTILINE)
    assert f"report: {report.folder / 'report.html'}" in report.stderr


def test_masks_give_pixel_figures(
    onspect: Run, calibrated: Path, tmp_path: Path, write_pixels: Callable[..., Path], write_image: Callable[..., Path]
) -> None:
    """Defects with a mask count for pixels; those without one, or with an empty or broken one, are counted apart."""
    part = np.full((32, 32), 128, np.uint8)
    part[8:16, 8:16] = 255
    mask = np.where(part == 255, 255, 0).astype(np.uint8)
    root = tmp_path / "parts"
    write_image(root / "test/good/0.png", 128, (32, 32))
    for number, name in enumerate(("masked", "unmasked", "empty", "broken")):
        part[-1, -1] = 128 + number  # no two images are equal
        write_pixels(root / f"test/spot/{name}.png", part)
    write_pixels(root / "ground_truth/spot/masked_mask.png", mask)
    write_pixels(root / "ground_truth/spot/empty_mask.png", mask * 0)
    (root / "ground_truth/spot/broken_mask.png").write_bytes(b"no image")
    result = onspect("evaluate", calibrated, root, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    pixel = read_metrics(tmp_path / "report")["pixel"]
    assert pixel["auroc"] > 0.99
    assert pixel["aupro"] > 0.95
    assert (pixel["images_with_mask"], pixel["images_without_mask"], pixel["images_with_empty_mask"]) == (1, 1, 1)
    assert (pixel["good_images"], pixel["regions"]) == (1, 1)
    assert len(pixel["unreadable_masks"]) == 1
    assert "1 of 3 masks cannot be used" in result.stderr


def test_unreadable_images_are_faults_and_never_ok(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path
) -> None:
    """An image that cannot be read is listed with its reason and is in no figure."""
    data = make_dataset({"test/good": GOOD, "test/bright": BRIGHT})
    (data / "test/good/broken.png").write_bytes(b"")
    result = onspect("evaluate", calibrated, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    metrics = read_metrics(tmp_path / "report")
    assert metrics["images"]["good"] == 4
    assert metrics["confusion"]["true_ok"] + metrics["confusion"]["false_ng"] == 4
    assert [fault["reason"] for fault in metrics["faults"]] == ["the file is empty (0 bytes)"]
    assert "1 of 8 images could not be judged" in result.stderr
    assert "faults        1 image could" in result.stdout
    assert "the file is empty (0 bytes)" in (tmp_path / "report/report.html").read_text()


def test_a_test_of_good_images_only_has_no_areas(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path
) -> None:
    """Without defects the areas are null with a reason, and the false rejects are still reported."""
    result = onspect("evaluate", calibrated, make_dataset({"test/good": GOOD}), "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    metrics = read_metrics(tmp_path / "report")
    assert metrics["image"].pop("reason") == "there are no defective images to compare with"
    assert {"auroc", "aupr"} <= set(metrics["image"])
    assert set(metrics["image"].values()) == {None}
    assert metrics["confusion"]["fpr"] == 0.25
    assert metrics["confusion"]["recall"] is None
    assert metrics["confusion"]["reason"] == (
        "recall: there are no defective images; escapes: there are no defective images"
    )
    assert "there are no defective images" in (tmp_path / "report/report.html").read_text()


def test_training_images_in_the_test_are_warned_about(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """Evaluating on training images warns on stderr, in metrics.json and in the page."""
    data = make_dataset({"test/good": GOOD, "test/bright": BRIGHT})
    known = [fingerprint_bytes((data / f"test/good/00{number}.png").read_bytes()) for number in range(2)]
    model = write_model(tmp_path / "part.onnx", threshold=Threshold(0.0062, 0.0062), training_images=known)
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert "Warning: 2 of 7 images were trained on" in result.stderr
    assert read_metrics(tmp_path / "report")["training_images"] == 2
    assert "2 of 7 images were trained on" in (tmp_path / "report/report.html").read_text()


def test_the_calibration_images_are_recognised(onspect: Run, model: Path, make_dataset: Make, tmp_path: Path) -> None:
    """Evaluating on the images that the threshold was chosen on is pointed out."""
    data = make_dataset({"val/good": GOOD, "val/bright": BRIGHT})
    onspect("calibrate", model, data)
    result = onspect("evaluate", model, data, "--split", "val", "-o", tmp_path / "report")
    assert "the threshold was chosen on exactly these images" in result.stderr


def test_a_model_without_a_threshold_is_measured_without_verdicts(
    onspect: Run, model: Path, make_dataset: Make, tmp_path: Path
) -> None:
    """Without a threshold there are AUROC and AUPR, no verdict and no confusion, and the page says so."""
    data = make_dataset({"test/good": GOOD, "test/bright": BRIGHT})
    result = onspect("evaluate", model, data, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "AUROC         0.7500" in result.stdout
    assert "threshold     none yet" in result.stdout
    assert "judged ok" not in result.stdout
    assert "verdict:" not in result.stdout
    metrics = read_metrics(tmp_path / "report")
    assert metrics["image"]["auroc"] == 0.75
    assert (metrics["threshold"], metrics["verdict"], metrics["confusion"]["recall"]) == (None, None, None)
    assert (metrics["kinds"]["bright"]["images"], metrics["kinds"]["bright"]["recall"]) == (3, None)
    page = (tmp_path / "report/report.html").read_text()
    assert "The file has no threshold yet" in page
    assert "Defects with the lowest scores" in page
    assert "judged ok" not in page


def test_images_of_which_none_can_be_judged_are_an_error(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path
) -> None:
    """When every image is a fault there is no report, and the error gives one with its reason."""
    data = make_dataset({"test/good": [128]})
    (data / "test/good/000.png").write_bytes(b"no image")
    result = onspect("evaluate", calibrated, data, "-o", tmp_path / "report")
    assert result.exit_code == 1
    assert "no image can be judged; 1 of 1 failed, such as" in result.stderr
    assert not (tmp_path / "report").exists()


def test_a_failure_leaves_the_old_report(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If drawing fails, neither file of an earlier report is touched and nothing is left beside them."""
    data = make_dataset({"test/good": GOOD, "test/bright": BRIGHT})
    arguments = ("evaluate", calibrated, data, "-o", tmp_path / "report")
    assert onspect(*arguments).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("onspect.calibration.report.page.draw_gallery", fail)
    assert onspect(*arguments).exit_code == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before
    assert set(before) == {"report.html", "metrics.json"}


def test_the_page_needs_nothing_else(report: Report) -> None:
    """The page refers to no other file and no network, runs no script, names no folder of this machine, is small."""
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]*)""", report.page)
    assert references
    assert all(reference.startswith("data:image/") for reference in references)
    assert "<script" not in report.page
    assert "@import" not in report.page
    assert str(report.folder.parent) not in report.page
    assert len(report.page) < 3_000_000


def test_the_page_takes_a_title_and_escapes_it(report: Report) -> None:
    """A title with markup in it is shown, not run, and is unchanged in metrics.json."""
    assert "<h1>Line &lt;7&gt; &amp; 8</h1>" in report.page
    assert "<7>" not in report.page
    assert read_metrics(report.folder)["title"] == "Line <7> & 8"


def test_the_gallery_shows_hits_misses_and_false_alarms(report: Report) -> None:
    """Two hits, one miss and one false alarm are drawn: image, reconstruction, marks and error."""
    assert report.page.count("data:image/jpeg;base64,") == 4 * 4


def test_the_plots_are_drawn(report: Report) -> None:
    """The page shows the scores' histogram, the ROC and PR curves, the cost of mistakes and what review saves."""
    assert report.page.count("data:image/svg+xml;base64,") == 5


def test_the_gallery_takes_the_most_confident() -> None:
    """Hits and false alarms come from the highest score down, misses from the lowest up, at most six of each."""
    good = [ScoredImage(LabelledImage(Path(f"{n}"), "good"), "", score=float(n)) for n in range(20)]
    defective = [ScoredImage(LabelledImage(Path(f"{n}"), "scratch"), "", score=n + 0.5) for n in range(20)]
    hits, misses, false_alarms = choose_examples([*good, *defective], Threshold(10.0, 10.0))
    assert [result.score for result in hits] == [19.5, 18.5, 17.5, 16.5, 15.5, 14.5]
    assert [result.score for result in misses] == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert [result.score for result in false_alarms] == [19.0, 18.0, 17.0, 16.0, 15.0, 14.0]
    assert MOST == 6


def test_colour_and_16_bit_images_are_drawn(
    onspect: Run, calibrated: Path, tmp_path: Path, write_pixels: Callable[..., Path]
) -> None:
    """Colour and 16-bit images go through scoring and gallery as 8-bit mono ones do."""
    root = tmp_path / "parts"
    write_pixels(root / "test/good/colour.png", np.full((20, 40, 3), 128, np.uint8))
    write_pixels(root / "test/bright/deep.png", np.full((40, 20), 60000, np.uint16))
    result = onspect("evaluate", calibrated, root, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert read_metrics(tmp_path / "report")["image"]["auroc"] == 1.0


def test_python_call_gives_the_table_and_writes_nothing(
    onspect: Run, calibrated: Path, make_dataset: Make, tmp_path: Path
) -> None:
    """In Python `evaluate` takes texts, prints as the command, hands its work to progress, and writes no report."""
    data = make_dataset({"test/good": GOOD, "test/bright": BRIGHT})
    printed = onspect("evaluate", calibrated, data, "-o", tmp_path / "report").stdout
    labels: list[str] = []

    def progress(items: Iterable[object], length: int, label: str) -> Iterator[object]:
        labels.append(f"{label} {length}")
        yield from items

    before = sorted(tmp_path.rglob("*"))
    evaluation = evaluate(str(calibrated), str(data), progress=progress)  # type: ignore[arg-type]
    assert f"{evaluation}\n" == printed
    assert labels == ["scoring 7"]
    assert sorted(tmp_path.rglob("*")) == before
