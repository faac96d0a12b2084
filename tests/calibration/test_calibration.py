from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from onspect.calibration.calibration import calibrate, move_threshold
from onspect.calibration.thresholds import MaxFpr
from onspect.runtime.fingerprints import fingerprint_bytes, fingerprint_set
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file

Run = Callable[..., Result]
Make = Callable[..., Path]

GOOD = range(120, 136)
BRIGHT = range(170, 220, 5)


def strip_metadata(path: Path) -> bytes:
    """Return a model file's graph, by onnx's own reading of it."""
    import onnx

    model = onnx.load_from_string(path.read_bytes())
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


def test_defects_give_the_highest_f1(onspect: Run, model: Path, make_dataset: Make) -> None:
    """With defects, the threshold separates them from the good images, and the file has the evidence."""
    data = make_dataset({"val/good": GOOD, "val/bright": BRIGHT, "val/dark": [20, 40]})
    result = onspect("calibrate", model, data)
    assert result.exit_code == 0, result.output
    info = read_model_file(model).info
    assert info.threshold is not None
    assert info.calibration is not None
    assert (0.5 - 120 / 255) ** 2 < info.threshold.score < (170 / 255 - 0.5) ** 2
    evidence = info.calibration
    assert (evidence.policy, evidence.data) == ("highest F1", "parts")
    assert list(evidence.counts.items()) == [("good", 16), ("bright", 10), ("dark", 2)]
    assert (evidence.true_ng, evidence.false_ng, evidence.true_ok, evidence.false_ok) == (12, 0, 16, 0)
    assert (evidence.auroc, evidence.aupr) == (1.0, 1.0)
    paths = (data / "val").rglob("*.png")
    assert evidence.images == fingerprint_set(fingerprint_bytes(path.read_bytes()) for path in paths)


def test_the_table_says_what_was_used_and_found(onspect: Run, model: Path, make_dataset: Make) -> None:
    """Stdout names counts, split, policy, areas, thresholds and the confusion with FPR and recall."""
    data = make_dataset({"val/good": GOOD, "val/bright": BRIGHT})
    lines = onspect("calibrate", model, data, "--max-fpr", "12.5%").stdout.splitlines()
    table = "\n".join(lines)
    assert "16 good, 10 defective (10 bright), from parts, split val" in table
    assert "false rejects at most 12.5%" in table
    assert "AUROC         1.0000" in table
    assert "AUPR          1.0000" in table
    assert "map threshold" in table
    good, defective, blank, verdict = lines[-4:]
    assert good.split()[:3] == ["good", "14", "2"]
    assert "12.50% (FPR)" in good
    assert defective.split()[:3] == ["defective", "0", "10"]
    assert "100.00% (recall)" in defective
    assert not blank
    assert verdict.startswith("so far, ")


def test_the_graph_stays_byte_for_byte(onspect: Run, model: Path, make_dataset: Make) -> None:
    """Stamping a threshold twice keeps the graph, and the last policy is in the file."""
    data = make_dataset({"val/good": GOOD, "val/bright": BRIGHT})
    before = strip_metadata(model)
    assert onspect("calibrate", model, data).exit_code == 0
    assert onspect("calibrate", model, data, "--min-recall", "0.9").exit_code == 0
    assert strip_metadata(model) == before
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.policy == "defects caught at least 90%"


def test_good_images_alone_give_the_99_percent_quantile(onspect: Run, model: Path, make_dataset: Make) -> None:
    """A flat folder of good images is calibrated by quantile, has no AUROC, and too few images are pointed out."""
    data = make_dataset({".": range(118, 138)})
    result = onspect("calibrate", model, data)
    assert result.exit_code == 0, result.output
    info = read_model_file(model).info
    assert info.calibration is not None
    assert info.calibration.policy == "99% of good images pass"
    assert info.calibration.auroc is None
    assert info.calibration.false_ng == 0
    assert "parts (it has no splits)" in result.stdout
    assert "AUROC         undefined" in result.stdout
    assert "99% of good images passing means at most 1% false rejects; 20 good images" in result.stderr
    assert "299 good images with none rejected would support it" in result.stderr


def test_the_runtime_judges_by_the_stamped_threshold(onspect: Run, model: Path, make_dataset: Make) -> None:
    """The verdicts of an Inspector that loads the stamped file are the confusion matrix in it."""
    data = make_dataset({"val/good": range(100, 160, 3), "val/bright": range(140, 200, 3)})
    assert onspect("calibrate", model, data, "--max-fpr", "10%").exit_code == 0
    inspector = Inspector(model)
    verdicts = [v.verdict for v in inspector.inspect_many(sorted((data / "val/good").iterdir()))]
    assert inspector.info.calibration is not None
    assert verdicts.count("ng") == inspector.info.calibration.false_ng == 2


def test_the_map_threshold_spares_999_of_1000_good_pixels(
    onspect: Run, model: Path, tmp_path: Path, write_pixels: Callable[..., Path]
) -> None:
    """At most one good pixel in a thousand reaches the map threshold, and defects do not move it."""
    generator = np.random.default_rng(3)
    for number in range(20):
        write_pixels(tmp_path / f"parts/val/good/{number}.png", generator.integers(90, 166, (16, 16)).astype(np.uint8))
    write_pixels(tmp_path / "parts/val/bright/0.png", np.full((16, 16), 255, np.uint8))
    assert onspect("calibrate", model, tmp_path / "parts").exit_code == 0
    inspector = Inspector(model)
    frames = [inspector.prepare(read_image(path)) for path in (tmp_path / "parts/val/good").iterdir()]
    errors = inspector.run(np.stack(frames)).error_map
    share = np.mean(errors >= inspector.threshold.map)
    assert share <= 0.001
    assert np.mean(errors >= inspector.threshold.map * (1 - 2 / 4096)) > 0.001


@pytest.mark.parametrize(
    "options",
    [
        ["--max-f1", "--quantile", "99%"],
        ["--max-fpr", "1%", "--min-recall", "0.9"],
        ["--skip-training-images", "--allow-training-images"],
        ["--max-fpr", "5"],
        ["--max-fpr", "much"],
        ["--max-fpr", "100%"],
        ["--max-fpr", "-1%"],
        ["--min-recall", "0"],
        ["--quantile", "nan"],
        ["--split", "train"],
    ],
)
def test_bad_options_are_usage_errors(onspect: Run, model: Path, make_dataset: Make, options: list[str]) -> None:
    """Policies that exclude each other and invalid rates end with exit code 2 and do not change the file."""
    before = model.read_bytes()
    result = onspect("calibrate", model, make_dataset({"val/good": GOOD, "val/bright": BRIGHT}), *options)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert model.read_bytes() == before


@pytest.mark.parametrize(("folders", "options", "message"), [
    ({"test/good": GOOD}, [], "has no folder 'val', and it has 'test': use --split test"),
    ({"val/good": GOOD}, ["--split", "test"], "use --split val"),
    ({"train/good": GOOD}, [], "no folder 'val'"),
    ({"val/bright": BRIGHT}, [], "10 defective images and no good ones"),
    ({"val/good": GOOD}, ["--max-f1"], "--max-f1 needs defective images"),
    ({"val/good": GOOD}, ["--min-recall", "99%"], "use --quantile 99%"),
    ({"val/good": [128, 128], "val/bright": [128]}, [], "the model cannot tell them apart"),
])  # fmt: skip
def test_data_that_will_not_do_is_refused(
    onspect: Run, model: Path, make_dataset: Make, folders: dict[str, list[int]], options: list[str], message: str
) -> None:
    """Data that no threshold can come from is refused in one sentence with the cure, and nothing is stamped."""
    before = model.read_bytes()
    result = onspect("calibrate", model, make_dataset(folders), *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert model.read_bytes() == before


def test_a_missing_folder_is_named(onspect: Run, model: Path, tmp_path: Path) -> None:
    """A folder that does not exist is an error that names it."""
    result = onspect("calibrate", model, tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "nowhere' does not exist" in result.stderr


def test_the_other_split_is_used_when_asked_for(onspect: Run, model: Path, make_dataset: Make) -> None:
    """--split test calibrates on the test folder and says so."""
    result = onspect("calibrate", model, make_dataset({"test/good": GOOD, "test/bright": BRIGHT}), "--split", "test")
    assert result.exit_code == 0
    assert "split test" in result.stdout


def test_unreadable_images_are_listed_and_nothing_is_stamped(onspect: Run, model: Path, make_dataset: Make) -> None:
    """One error counts the images that cannot be scored and gives up to three with their reasons."""
    data = make_dataset({"val/good": GOOD, "val/bright": BRIGHT})
    for number in range(4):
        (data / f"val/good/broken{number}.png").write_bytes(f"no image {number}".encode())
    before = model.read_bytes()
    result = onspect("calibrate", model, data)
    assert result.exit_code == 1
    assert "4 of 30 images cannot be scored" in result.stderr
    assert "broken2.png': the file is not a JPEG" in result.stderr
    assert "broken3.png" not in result.stderr
    assert "nothing was stamped" in result.stderr
    assert model.read_bytes() == before


def test_scores_that_are_no_numbers_blame_the_model(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """A NaN score is an error about the model, not about the image."""
    model = write_model(tmp_path / "nan.onnx", gain=float("nan"))
    result = onspect("calibrate", model, make_dataset({"val/good": GOOD, "val/bright": BRIGHT}))
    assert result.exit_code == 1
    assert "the model's score is nan" in result.stderr
    assert "train and export it again" in result.stderr


def test_maps_below_zero_blame_the_model(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """An error map with values below 0 is refused, with the same message as on a line."""
    model = write_model(tmp_path / "negative.onnx", gain=-1.0)
    result = onspect("calibrate", model, make_dataset({"val/good": GOOD, "val/bright": BRIGHT}))
    assert result.exit_code == 1
    assert "the model's error map has values that are not finite or below 0" in result.stderr


def fingerprints(folder: Path, count: int) -> list[str]:
    """Return the fingerprints of the first images of a folder."""
    return [fingerprint_bytes(path.read_bytes()) for path in sorted(folder.rglob("*.png"))[:count]]


def test_training_images_are_refused_with_both_cures(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """Calibrating on training images is refused: how many, one of them, and what to do."""
    data = make_dataset({".": GOOD})
    model = write_model(tmp_path / "part.onnx", training_images=fingerprints(data, 12))
    before = model.read_bytes()
    result = onspect("calibrate", model, data)
    assert result.exit_code == 1
    assert "12 of 16 images were trained on, such as" in result.stderr
    assert "000.png" in result.stderr
    assert "--skip-training-images calibrates on the other 4" in result.stderr
    assert "--allow-training-images" in result.stderr
    assert model.read_bytes() == before


def test_training_images_can_be_skipped(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """--skip-training-images calibrates on the rest and says how many were left out."""
    data = make_dataset({".": GOOD})
    model = write_model(tmp_path / "part.onnx", training_images=fingerprints(data, 12))
    result = onspect("calibrate", model, data, "--skip-training-images")
    assert result.exit_code == 0, result.output
    assert "4 good, from parts (it has no splits); 12 left out (training images)" in result.stdout
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.counts == {"good": 4}


def test_training_images_can_be_allowed_and_the_file_says_so(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """--allow-training-images uses all, and the policy in the file has the number of training images."""
    data = make_dataset({".": GOOD})
    model = write_model(tmp_path / "part.onnx", training_images=fingerprints(data, 12))
    result = onspect("calibrate", model, data, "--allow-training-images")
    assert result.exit_code == 0, result.output
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.counts == {"good": 16}
    assert calibration.policy == "99% of good images pass (12 training images among them)"
    assert "expect more false rejects" in result.stderr


def test_skipping_every_image_is_refused(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """If all images were trained on, skipping them leaves nothing, and neither message offers it."""
    data = make_dataset({".": GOOD})
    model = write_model(tmp_path / "part.onnx", training_images=fingerprints(data, 16))
    assert "skip-training-images" not in onspect("calibrate", model, data).stderr
    result = onspect("calibrate", model, data, "--skip-training-images")
    assert result.exit_code == 1
    assert "all 16 images were trained on" in result.stderr


def test_an_incomplete_record_clears_only_what_it_covers(
    onspect: Run, make_dataset: Make, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    """If the file records the smallest fingerprints only, skipping also leaves out images above the highest one."""
    data = make_dataset({".": GOOD})
    every = sorted(fingerprints(data, 16))
    model = write_model(tmp_path / "part.onnx", training_images=every[4:10:2], trained_on=8)
    assert onspect("calibrate", model, data, "--skip-training-images").exit_code == 0
    calibration = read_model_file(model).info.calibration
    assert calibration is not None
    assert calibration.images == fingerprint_set([*every[:4], every[5], every[7]])


def test_a_threshold_that_rejects_everything_is_pointed_out(onspect: Run, model: Path, make_dataset: Make) -> None:
    """When the best F1 is to reject every part, a warning says that the model does not separate these images."""
    result = onspect("calibrate", model, make_dataset({"val/good": [100, 101, 102], "val/odd": range(115, 130)}))
    assert result.exit_code == 0
    assert "rejects 3 of 3 good images" in result.stderr


def test_info_shows_the_calibration(onspect: Run, model: Path, make_dataset: Make) -> None:
    """The model card as JSON carries the stamped threshold exactly."""
    onspect("calibrate", model, make_dataset({"val/good": GOOD, "val/bright": BRIGHT}))
    card = json.loads(onspect("info", model, "--json").stdout)
    threshold = read_model_file(model).info.threshold
    assert threshold is not None
    assert card["threshold"] == {"score": threshold.score, "map": threshold.map, "review": None, "area": 0}


def test_test_marks_are_stored(model: Path, make_dataset: Make) -> None:
    """Every good image's scores with marks are in the file, above its own, and outlive a move of the threshold."""
    calibrate(model, make_dataset({"val/good": range(126, 131), "val/bright": [200]}))
    evidence = read_model_file(model).info.calibration
    assert evidence is not None
    assert [len(row) for row in evidence.mark_scores] == [4] * 5
    assert min(min(row) for row in evidence.mark_scores) > max(evidence.good_scores)
    move_threshold(model, MaxFpr(0.5))
    moved = read_model_file(model).info.calibration
    assert moved is not None
    assert moved.mark_scores == evidence.mark_scores
