import errno
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import Result

from ..conversions import converted
from ..sharing import Share

__all__ = ["converted"]

Run = Callable[..., Result]


def draw(folder: Path, count: int, brightness: int = 100) -> None:
    folder.mkdir(parents=True)
    for seed in range(count):
        image = np.random.default_rng(seed + brightness).integers(brightness, brightness + 50, (28, 28), np.uint8)
        cv2.imwrite(str(folder / f"{seed}.png"), image)


@pytest.fixture(scope="module")
def job(share: Share, onspect: Run) -> Path:
    """A folder with parts, a run of one epoch on them, and its calibrated model."""
    return share("bad-input", lambda folder: do_job(folder, onspect))


def do_job(folder: Path, onspect: Run) -> None:
    """Draw parts, train, export and calibrate."""
    torch.set_num_threads(1)
    for name, count, brightness in (("train/good", 6, 100), ("val/good", 3, 90), ("val/dark", 2, 0)):
        draw(folder / "parts" / name, count, brightness)
    (folder / "parts/test").symlink_to("val")
    for step in (
        ["train", folder / "parts", "-o", folder / "run", "--epochs", 1, "--device", "cpu"],
        ["export", folder / "run", "-o", folder / "part.onnx", "--score", "mse"],
        ["calibrate", folder / "part.onnx", folder / "parts"],
    ):
        result = onspect(*step)
        assert result.exit_code == 0, result.output


def commands(job: Path, place: Path) -> list[list[object]]:
    """Return every command that writes, writing into a place."""
    return [
        ["train", job / "parts", "-o", place / "run", "--epochs", 1, "--device", "cpu"],
        ["export", job / "run", "-o", place / "part.onnx", "--score", "mse"],
        ["calibrate", place / "part.onnx", job / "parts"],
        ["evaluate", job / "part.onnx", job / "parts", "-o", place / "report"],
        ["score", job / "part.onnx", job / "parts/val", "-o", place / "v.jsonl", "--overlays", place / "overlays"],
    ]


@pytest.mark.parametrize(
    "number",
    [0, pytest.param(1, marks=pytest.mark.slow), 2, 3, 4],
    ids=["train", "export", "calibrate", "evaluate", "score"],
)
def test_a_full_disk_leaves_the_old_files(
    onspect: Run, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """If the disk is full, a command ends with one sentence and code 1, old files complete and no part of a new one."""
    (tmp_path / "part.onnx").write_bytes((job / "part.onnx").read_bytes())
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.html").write_text("older")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    result = onspect(*commands(job, tmp_path)[number])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines()[-1].startswith("Error: cannot write ")
    assert "No space left on device" in result.stderr
    assert before == {path: path.read_bytes() for path in before}
    assert not list(tmp_path.rglob("*.tmp"))
    assert {path.name for path in tmp_path.iterdir()} <= {"part.onnx", "report", "v.jsonl", "overlays"}
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow), 3], ids=["train", "export", "evaluate"])
def test_ctrl_c_leaves_no_new_folder(
    onspect: Run, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A command that is interrupted at its first file leaves neither its folder nor the folder's parent."""

    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    result = onspect(*commands(job, tmp_path / "new")[number])
    assert (result.exit_code, "Aborted" in result.stderr) == (1, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "number", [0, pytest.param(1, marks=pytest.mark.slow), 3, 4], ids=["train", "export", "evaluate", "score"]
)
def test_an_output_below_a_file_is_refused(onspect: Run, job: Path, tmp_path: Path, number: int) -> None:
    """An output whose folder is a file ends a command with one sentence that names it, and the file stays."""
    (tmp_path / "file").write_text("mine")
    result = onspect(*commands(job, tmp_path / "file")[number])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert str(tmp_path / "file") in result.stderr.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0 cut"], ids=["empty", "text", "cut"])
def test_a_broken_image_is_named(onspect: Run, job: Path, tmp_path: Path, content: bytes) -> None:
    """A file that is not an image is refused by name if every image counts, and is a fault if parts are judged."""
    for name in ("train/good", "val/good"):
        draw(tmp_path / name, 3, 91)
        (tmp_path / name / "unreadable.png").write_bytes(content)
    (tmp_path / "part.onnx").write_bytes((job / "part.onnx").read_bytes())
    for step in (
        ["train", tmp_path, "-o", tmp_path / "run", "--device", "cpu"],
        ["calibrate", tmp_path / "part.onnx", tmp_path],
        ["export", job / "run", "-o", tmp_path / "new.onnx", "--score", "mse", "--data", tmp_path],
    ):
        result = onspect(*step)
        assert result.exit_code == 1, result.output
        assert "unreadable.png" in result.stderr
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "new.onnx").exists()
    assert (tmp_path / "part.onnx").read_bytes() == (job / "part.onnx").read_bytes()
    result = onspect("score", job / "part.onnx", tmp_path / "val/good")
    assert result.exit_code == 0
    assert '"verdict": "fault"' in result.stdout


@pytest.mark.slow
def test_black_images_go_the_whole_way_to_the_model_file(onspect: Run, tmp_path: Path) -> None:
    """A camera with its cap on trains to errors far below a grey level, and these are still exported."""
    folder = tmp_path / "black"
    folder.mkdir()
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((28, 28), np.uint8))
    assert onspect("train", folder, "-o", tmp_path / "run", "--epochs", 30, "--device", "cpu").exit_code == 0
    for score in ("mse", "peak", "relative"):
        result = onspect("export", tmp_path / "run", "-o", tmp_path / "part.onnx", "--score", score)
        assert result.exit_code == 0, result.output


def test_images_unlike_the_others_are_pointed_out(onspect: Run, tmp_path: Path) -> None:
    """Training images of another size or with colour are named in a warning, since they change the model."""
    draw(tmp_path / "parts", 4)
    cv2.imwrite(str(tmp_path / "parts/large.png"), np.full((40, 28, 3), (0, 50, 99), np.uint8))
    result = onspect("train", tmp_path / "parts", "-o", tmp_path / "run", "--epochs", 1, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "2 sizes" in result.stderr
    assert "1 of 5 images are coloured" in result.stderr
    assert "large.png' of 28x40, is stretched 1.43 times" in result.stderr
    assert result.stderr.count("large.png") == 3


def test_demo_needs_an_empty_folder(onspect: Run, tmp_path: Path) -> None:
    """The demo refuses a file, and a folder that is not empty, and changes neither."""
    (tmp_path / "file").write_text("mine")
    for output, words in ((tmp_path / "file", "is a file"), (tmp_path, "is not empty")):
        result = onspect("demo", "-o", output)
        assert result.exit_code == 1
        assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_demo_that_is_interrupted_leaves_nothing(onspect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the demo's folder is gone, so that the same command can start again."""

    def interrupt(*_: object, **__: object) -> None:
        assert (tmp_path / "demo" / "parts" / "train").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("onspect.training.features.make_base", interrupt)
    result = onspect("demo", "-o", tmp_path / "demo")
    assert (result.exit_code, "Aborted" in result.stderr) == (1, True)
    assert not list(tmp_path.iterdir())


def test_demo_ignores_the_epochs_of_older_releases(onspect: Run, tmp_path: Path) -> None:
    """A number of epochs, as older releases took it, is ignored with a warning; the folder is checked as without it."""
    (tmp_path / "mine.txt").touch()
    result = onspect("demo", "-o", tmp_path, "--epochs", 2)
    assert result.exit_code == 1
    assert "Warning: --epochs is ignored" in result.stderr
    assert "is not empty" in result.stderr
    assert "--epochs" not in onspect("demo", "--help").output
