import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from onspect.runtime.cli import main
from onspect.runtime.errors import TrainingError
from onspect.training import session
from onspect.training.autoencoder import trainer

CPU = session.Devices(accelerator="cpu")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "onspect.runtime", "train", *map(str, arguments)]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "training ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_to_the_same_weights(parts: Path, tmp_path: Path) -> None:
    """A kill in the middle of training costs nothing but time: --resume ends the same."""
    chosen = session.TrainOptions(epochs=15, batch_size=4, latent=4)
    run = tmp_path / "cut"
    arguments = [parts, "-o", run, "--epochs", 15, "--batch-size", 4, "--latent", 4, "--device", "cpu"]
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, env=ALONE) as process:
        wait_for(run / "checkpoint.safetensors", process)
        process.kill()
        error = process.communicate(timeout=60)[1]
    assert process.returncode == -9, error
    assert len((run / "log.jsonl").read_text().splitlines()) < 15
    assert session.resume(run, devices=CPU).reason == "finished"
    session.train(parts, tmp_path / "whole", chosen, devices=CPU)
    whole, cut = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_termination_is_saved_and_told(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends the command with code 1 and one sentence, and --resume finishes the run."""
    save, asked = trainer.Trainer.save, []

    def save_and_ask(*arguments: Any) -> None:
        save(*arguments)
        if not asked:
            asked.append(True)
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "save", save_and_ask)
        result = CliRunner().invoke(
            main, ["train", str(parts), "-o", str(tmp_path / "run"), "--epochs", "4", "--device", "cpu"]
        )
    assert (result.exit_code, "interrupted and saved" in result.stderr) == (1, True), result.output
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) < 4
    assert session.resume(tmp_path / "run", devices=CPU).reason == "finished"


def test_resume_from_another_directory(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a relative DATA is resumed from anywhere, and says where its images were when they are gone."""
    monkeypatch.chdir(tmp_path)
    session.train(Path("parts"), tmp_path / "run", session.TrainOptions(epochs=1), devices=CPU)
    monkeypatch.chdir("/")
    assert session.resume(tmp_path / "run", devices=CPU).reason == "finished"
    parts.rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match=r"parts' .* is gone; put it back, or write its new place into .*config"):
        session.resume(tmp_path / "run", devices=CPU)


def test_resume_refuses_other_choices(parts: Path, tmp_path: Path) -> None:
    """A config.json other than the checkpoint's is refused, even where its tensors fit, in one line."""
    for name, variant in (("run", "cae"), ("vae", "vae"), ("aae", "aae")):
        session.train(parts, tmp_path / name, session.TrainOptions(variant=variant, epochs=1), devices=CPU)
    config = tmp_path / "run" / "config.json"
    own = config.read_text()
    others = [(tmp_path / name / "config.json").read_text() for name in ("vae", "aae")]
    for other in (*others, own.replace('"seed": 0', '"seed": 1'), own.replace('"adam"', '"adamw"')):
        config.write_text(other)
        with pytest.raises(
            TrainingError, match=r"checkpoint\.safetensors' does not fit config\.json \(.*put back"
        ) as e:
            session.resume(tmp_path / "run", devices=CPU)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("checkpoint.safetensors", "cannot read"), ("log.jsonl", "is damaged"), ("config.json", "is damaged")],
)
def test_resume_names_a_damaged_file(parts: Path, tmp_path: Path, name: str, words: str) -> None:
    """A truncated file of the run is an error with exit code 1 that names it."""
    session.train(parts, tmp_path / "run", session.TrainOptions(epochs=1), devices=CPU)
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = CliRunner().invoke(main, ["train", "--resume", "-o", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert words in result.stderr.splitlines()[-1]
    assert name in result.stderr.splitlines()[-1]


def test_resume_without_a_checkpoint(parts: Path, tmp_path: Path) -> None:
    """A run that was killed in its first epoch has nothing to resume, and that is reported."""
    session.train(parts, tmp_path / "run", session.TrainOptions(epochs=1), devices=CPU)
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with pytest.raises(TrainingError, match="nothing to resume"):
        session.resume(tmp_path / "run", devices=CPU)
    with pytest.raises(TrainingError, match="already contains a training run"):
        session.train(parts, tmp_path / "run", session.TrainOptions(epochs=1), devices=CPU)


def test_resume_names_the_options_to_leave_out(tmp_path: Path) -> None:
    """An option that --resume cannot take is named as the user wrote it."""
    result = CliRunner().invoke(main, ["train", "--resume", "-o", str(tmp_path), "-m", "vae"])
    assert result.exit_code == 2
    assert "leave out --model" in result.stderr


@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_divergence_in_the_last_step_is_told(parts: Path, tmp_path: Path, holdout: float) -> None:
    """Weights ruined by an epoch's last step are noticed before they are saved."""
    ruinous = session.TrainOptions(epochs=1, batch_size=100, learning_rate=1e30, holdout=holdout)
    with pytest.raises(TrainingError, match=r"diverged: the (training|held-out) loss is nan .*lower --learning-rate"):
        session.train(parts, tmp_path / "run", ruinous, devices=CPU)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_half_precision_needs_a_gpu(parts: Path, tmp_path: Path) -> None:
    """16-mixed on a CPU is refused with what to use instead, and nothing is written."""
    with pytest.raises(TrainingError, match="bf16-mixed"):
        session.train(parts, tmp_path / "run", devices=session.Devices("cpu", 1, "16-mixed"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_bar_keeps_to_its_line(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of 80 columns there is one bar with loss and time left that never wraps; none elsewhere."""
    read_end, terminal = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while piece := os.read(read_end, 65536):
                shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["train", str(parts), "-o", str(tmp_path / "run"), "--epochs", "12", "--device", "cpu"]
    with os.fdopen(terminal, "w") as stderr, contextlib.redirect_stderr(stderr):
        main(arguments, standalone_mode=False)
    reader.join(60)
    os.close(read_end)
    plain = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", b"".join(shown).decode())
    frames = [frame for frame in plain.split("\r") if frame.startswith("training ")]
    assert frames
    assert all(len(frame) <= 80 for frame in frames)
    assert "held out 0." in frames[-1]
    quiet = CliRunner().invoke(
        main, ["train", str(parts), "-o", str(tmp_path / "b"), "--epochs", "1", "--device", "cpu"]
    )
    assert "training " not in quiet.stderr
