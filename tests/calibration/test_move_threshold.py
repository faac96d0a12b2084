import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

from onspect.calibration.calibration import calibrate, move_threshold
from onspect.calibration.thresholds import Conformal, Cost, MaxFpr, MinRecall, Policy, Quantile, Youden
from onspect.runtime.errors import ChoiceError, ModelFileError, UncalibratedError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.model.file import read_model_file, undo_restamp

Make = Callable[[Mapping[str, Iterable[int]]], Path]
Run = Callable[..., Result]


@pytest.fixture
def data(make_dataset: Make) -> Path:
    """Sixteen good images around grey and four bright ones, of which two are among the good."""
    return make_dataset({"val/good": range(120, 136), "val/bright": [133, 135, 200, 240]})


@pytest.mark.parametrize(
    "policy",
    [
        MaxFpr(0.1),
        MinRecall(1.0),
        Youden(),
        Cost((1, 50)),
        Conformal(0.1),
        Quantile(0.75),
    ],
)
def test_moved_threshold_is_the_calibrated_one(tmp_path: Path, model: Path, data: Path, policy: Policy) -> None:
    """Moving the threshold by the stored scores gives what calibrating on the images by that policy gives."""
    other = tmp_path / "other.onnx"
    other.write_bytes(model.read_bytes())
    calibrate(model, data)
    moved, calibrated = move_threshold(model, policy), calibrate(other, data, policy=policy)
    assert moved.threshold == calibrated.threshold
    assert moved.confusion == calibrated.confusion
    assert read_model_file(model).info.graph_sha256 == read_model_file(other).info.graph_sha256
    evidence = read_model_file(model).info.calibration
    assert evidence is not None
    assert evidence.rule is not None
    assert Policy.from_rule(evidence.rule) == policy, "the file tells a program how its threshold was chosen"


def test_set_by_hand(model: Path, data: Path, onspect: Run) -> None:
    """A threshold set by hand is stamped as it is, with the confusion that it gives and the policy in words."""
    calibrate(model, data)
    result = onspect("threshold", model, "--set", "0.05")
    assert result.exit_code == 0, result.output
    info = read_model_file(model).info
    assert info.threshold is not None
    assert info.calibration is not None
    assert info.threshold.score == 0.05
    assert info.calibration.policy == "set by hand to 0.05"
    assert (info.calibration.true_ng, info.calibration.true_ok) == (2, 16)


def test_undo_goes_back_step_by_step(model: Path, data: Path, onspect: Run) -> None:
    """Each --undo restores the earlier threshold and evidence; without one the command says so."""
    calibrate(model, data)
    first = read_model_file(model).info
    move_threshold(model, MaxFpr(0.5))
    second = read_model_file(model).info
    move_threshold(model, MinRecall(1.0))
    assert "before" in onspect("info", model).stdout
    for expected in (second, first):
        assert onspect("threshold", model, "--undo").exit_code == 0
        info = read_model_file(model).info
        assert (info.threshold, info.calibration) == (expected.threshold, expected.calibration)
    result = onspect("threshold", model, "--undo")
    assert result.exit_code == 1
    assert "no earlier threshold" in result.stderr
    with pytest.raises(ModelFileError):
        undo_restamp(read_model_file(model))


def test_uncalibrated_model_has_nothing_to_move(model: Path) -> None:
    """Without stored scores the command to run is named."""
    with pytest.raises(UncalibratedError, match="onspect calibrate"):
        move_threshold(model, Youden())


def test_training_images_are_not_forgotten(tmp_path: Path, data: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A threshold moved on scores of training images still says that there were some, and warns."""
    known = [fingerprint_bytes((data / "val" / "good" / f"{number:03}.png").read_bytes()) for number in range(3)]
    model = write_tiny_model(tmp_path / "seen.onnx", training_images=known)
    calibrate(model, data, training="allow")
    moved = move_threshold(model, Youden())
    assert moved.calibration.policy.endswith("(3 training images among them)")
    assert any("3 of the images were trained on" in note for note in moved.notes)


@pytest.mark.parametrize("arguments", [[], ["--undo", "--youden"], ["--set", "nan"], ["--set", "1", "--max-f1"]])
def test_bad_usage(model: Path, onspect: Run, arguments: list[str]) -> None:
    """Nothing requested, two things at once, or a threshold that is not a number end with exit code 2."""
    assert onspect("threshold", model, *arguments).exit_code == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path, model: Path, data: Path) -> None:
    """A process killed while it stamps repeatedly leaves a readable file with an unchanged graph."""
    calibrate(model, data)
    graph = read_model_file(model).info.graph_sha256
    program = (
        "import sys; from pathlib import Path; from onspect.runtime.model.file import *\n"
        "path = Path(sys.argv[1]); print('ready', flush=True)\n"
        "while True:\n"
        "    file = read_model_file(path); restamp(file, Threshold(1.0, 1.0), file.info.calibration)\n"
        "    undo_restamp(read_model_file(path))\n"
    )
    for turn in range(5):
        process = subprocess.Popen([sys.executable, "-c", program, str(model)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 + 0.013 * turn)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        info = read_model_file(model).info
        assert info.graph_sha256 == graph
        assert info.threshold is not None
        assert math.isfinite(info.threshold.score)


def test_areas_do_not_move_with_the_threshold(model: Path, data: Path) -> None:
    """The intervals of AUROC and AUPR are those of the calibration: no threshold changes them."""
    calibrate(model, data)
    first = read_model_file(model).info.calibration
    move_threshold(model, MaxFpr(0.5))
    moved = read_model_file(model).info.calibration
    assert first is not None
    assert moved is not None
    assert [moved.intervals[name] for name in ("auroc", "aupr")] == [
        first.intervals[name] for name in ("auroc", "aupr")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--set", "0.01"], ["--max-fpr", "10%"], ["--max-f1"], ["--review", "--youden"]])
def test_moving_loads_neither_scipy_nor_scikit_learn(model: Path, data: Path, options: list[str]) -> None:
    """The command that moves a threshold works where those are not installed, and so does not wait for them."""
    calibrate(model, data)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('scipy', 'sklearn', 'matplotlib', 'onnx', 'torch')));"
        "from onspect.runtime.cli import main; main(['threshold', *sys.argv[1:]])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(model), *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "stamped into" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-fpr", "1%"], "you asked for at most 1% false rejects; 16 good images, 0 of them rejected, support"),
        (["--min-recall", "99%"], "you asked to catch at least 99% of defects; 4 defective images, 4 of them caught"),
        (["--quantile", "99%"], "99% of good images passing means at most 1% false rejects; 16 good images"),
        (["--conformal", "1%"], "--conformal 1% needs at least 99 good images to promise that, and there are 16"),
        (["--max-f1", "--review-recall", "99%"], "you asked to catch or review at least 99% of defects; 4 defective"),
        (["--youden", "--review-share", "10%"], "you asked to review at most 10% of good parts; 16 good images"),
        (["--set", "0.1", "--review-share", "10%"], "you asked to review at most 10% of good parts; 16 good images"),
    ],
)
def test_strict_refuses_what_is_not_supported(
    onspect: Run, model: Path, data: Path, options: list[str], message: str
) -> None:
    """With --strict each rate that so few images cannot support is an error in its own words; nothing is stamped."""
    calibrate(model, data)
    before = model.read_bytes()
    result = onspect("threshold", model, *options, "--strict")
    assert result.exit_code == 1
    assert message in result.stderr
    assert model.read_bytes() == before


@pytest.mark.parametrize("options", [["--max-f1"], ["--youden"], ["--cost", "1:50"]])
def test_strict_passes_what_claims_nothing(onspect: Run, model: Path, data: Path, options: list[str]) -> None:
    """A policy without a rate claims none, so --strict has nothing to refuse."""
    calibrate(model, data)
    result = onspect("threshold", model, *options, "--strict")
    assert result.exit_code == 0, result.output


def test_python_calls_name_options_like_the_command(model: Path, data: Path) -> None:
    """Paths are texts or paths, options are keyword arguments, and results print as the command's table."""
    result = calibrate(str(model), str(data), max_fpr=0.1, review_share=0.2)
    assert result.calibration.policy.startswith("false rejects at most 10%; review of at most 20%")
    assert f"threshold     {result.threshold.score:.6g} (ng from this score on)" in str(result)
    assert move_threshold(str(model), min_recall=1.0).calibration.policy == "defects caught at least 100%"
    with pytest.raises(ChoiceError, match="'max_fpt' is not an option"):
        move_threshold(model, max_fpt=0.1)
    with pytest.raises(ChoiceError, match="regions are chosen on images"):
        move_threshold(model, max_fpr=0.1, pixel_fpr=0.1)
    with pytest.raises(ChoiceError, match="exclude each other"):
        calibrate(model, data, MaxFpr(0.1), max_f1=True)
