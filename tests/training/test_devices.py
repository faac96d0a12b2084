"""Several processes train as one: the same curve, one writer, one voice, one end."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import TrainingError
from onspect.training import launcher, session
from onspect.training.autoencoder.loop import TrainingProgress
from onspect.training.checkpoint import read_record

CPU = session.Devices(accelerator="cpu")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
CHOICES = session.TrainOptions(preset="fast", epochs=3, holdout=0.25, batch_size=5, seed=2)
ARGUMENTS = [
    "--preset",
    "fast",
    "--epochs",
    "3",
    "--holdout",
    "0.25",
    "--batch-size",
    "5",
    "--seed",
    "2",
]

TOLERANCES = {"32-true": 1e-4, "bf16-mixed": 0.03}
"""Largest relative difference between the losses of two processes and those of one: sums are in another order."""

WITNESS = """
import hashlib, os, sys
from pathlib import Path
from onspect.training.autoencoder import trainer

def digest(*modules):
    found = hashlib.sha256()
    for module in modules:
        for tensor in module.state_dict().values():
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()

folder = Path(sys.argv.pop(1))
save = trainer.Trainer.save

def note(self, run, *rest):
    (folder / os.environ["LOCAL_RANK"]).write_text(digest(self.plain_encoder, self.plain_decoder))
    save(self, run, *rest)

trainer.Trainer.save = note
sys.argv[0] = "onspect"
from onspect.runtime.cli import main
main()
"""


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """A flat folder of 12 good mono images of 64 x 48 pixels, smooth with a little noise."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for seed in range(12):
        random = np.random.default_rng(seed)
        image = 90 + 30 * np.linspace(0, 1, 64)[None] + random.normal(0, 2, (48, 64))
        cv2.imwrite(str(folder / f"{seed:02d}.png"), image.clip(0, 255).astype(np.uint8))
    return folder


def command(*arguments: object) -> list[str]:
    """Return the command that trains on two CPU processes."""
    two = ["--device", "cpu", "--devices", "2"]
    return [sys.executable, "-m", "onspect.runtime", "train", *map(str, arguments), *two]


def train_on_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Train on two CPU processes to the end."""
    return subprocess.run(command(*arguments), check=False, capture_output=True, text=True, timeout=300, env=ALONE)


def read_losses(run: Path, name: str) -> list[list[float]]:
    """Return the losses of a log, a list for each of its lines."""
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    kinds = ("loss", "held_out", "kl", "critic", "regularization")
    return [[line[kind] for kind in kinds if kind in line] for line in lines]


def assert_same_curves(one: Path, other: Path, precision: str = "32-true") -> None:
    """Compare two runs' curves within the tolerances."""
    losses = [read_losses(run, "log.jsonl") for run in (one, other)]
    assert np.allclose(*losses, rtol=TOLERANCES[precision], atol=0)


def children(process: subprocess.Popen[Any]) -> list[int]:
    """Return the process ids of those that a process started, in order."""
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for(condition: Any, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, "training ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_train_as_one(plates: Path, tmp_path: Path) -> None:
    """Two processes have one device's losses in 16 bits, and the run its usual files, each once."""
    one = session.Devices("cpu", 1, "bf16-mixed")
    session.train(plates, tmp_path / "one", dataclasses.replace(CHOICES, variant="vae"), devices=one)
    result = train_on_two(plates, "-o", tmp_path / "two", *ARGUMENTS, "-m", "vae", "--precision", "bf16-mixed")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("VAE on 9 good images") == 1
    assert result.stderr.count("next: onspect export") == 1
    assert_same_curves(tmp_path / "one", tmp_path / "two", "bf16-mixed")
    written = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in ("one", "two")]
    assert written[0] == written[1]


@pytest.mark.slow
def test_weights_are_equal_in_both_processes(plates: Path, tmp_path: Path) -> None:
    """After each save both processes have the same weights to the bit, and the losses are one device's."""
    (tmp_path / "witness").mkdir()
    arguments = ["train", str(plates), "-o", str(tmp_path / "two"), *ARGUMENTS, "-m", "aae", "--device", "cpu"]
    ranks = []
    port = free_port()
    for rank in ("0", "1"):
        environment = {**ALONE, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        script = [sys.executable, "-c", WITNESS, str(tmp_path / "witness"), *arguments, "--devices", "2"]
        ranks.append(subprocess.Popen(script, env=environment, stderr=subprocess.PIPE))
    for process in ranks:
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, error
    assert len({(tmp_path / "witness" / str(rank)).read_text() for rank in (0, 1)}) == 1
    session.train(plates, tmp_path / "one", dataclasses.replace(CHOICES, variant="aae"), devices=CPU)
    assert_same_curves(tmp_path / "one", tmp_path / "two")


def free_port() -> str:
    """Return a free port."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_others(plates: Path, tmp_path: Path) -> None:
    """If the process that saves is killed, all end within seconds; one device continues to the same curve."""
    run = tmp_path / "cut"
    endless = [*ARGUMENTS, "--epochs", "400", "--patience", "0"]
    with subprocess.Popen(command(plates, "-o", run, *endless), stderr=subprocess.PIPE, env=ALONE) as process:
        wait_for((run / "checkpoint.safetensors").exists, process)
        ranks = children(process)
        os.kill(ranks[0], signal.SIGKILL)
        killed = time.monotonic()
        error = process.communicate(timeout=240)[1].decode()
    assert time.monotonic() - killed < 20  # the devices' own patience with each other is half an hour
    assert process.returncode == 1
    said = [line for line in error.splitlines() if "Error" in line]
    assert len(said) == 1, error
    assert "process 1 of 2 was killed by SIGKILL" in said[0]
    assert "continue with onspect train --resume -o" in said[0]
    assert "Traceback" not in error
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    done = len(read_losses(run, "log.jsonl"))

    def stop(moment: TrainingProgress) -> None:
        if moment.epoch > done + 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert session.resume(run, devices=CPU, callbacks=session.Callbacks(step=stop)).reason == "interrupted"
    whole = dataclasses.replace(CHOICES, epochs=400, patience=0)
    session.train(plates, tmp_path / "whole", whole, devices=CPU, callbacks=session.Callbacks(step=stop))
    curves = [read_losses(tmp_path / name, "log.jsonl")[: done + 3] for name in ("cut", "whole")]
    assert np.allclose(*curves, rtol=0.01, atol=0)


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped(plates: Path, tmp_path: Path) -> None:
    """A run that one device left in the middle of an epoch ends on two as one device would have ended it."""
    session.train(plates, tmp_path / "whole", CHOICES, devices=CPU)

    def stop(moment: TrainingProgress) -> None:
        if moment.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    session.train(plates, tmp_path / "cut", CHOICES, devices=CPU, callbacks=session.Callbacks(step=stop))
    result = train_on_two("--resume", "-o", tmp_path / "cut")
    assert result.returncode == 0, result.stderr
    assert_same_curves(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_ctrl_c_saves_once(plates: Path, tmp_path: Path) -> None:
    """Ctrl-C on two processes saves at the same step, says so once, and one device continues from there."""
    run = tmp_path / "cut"
    arguments = [plates, "-o", run, *ARGUMENTS, "--epochs", "300", "--patience", "0"]
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, env=ALONE) as process:
        wait_for((run / "checkpoint.safetensors").exists, process)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=240)[1].decode()
    assert process.returncode == 1
    assert error.count("interrupted and saved") == 1
    assert error.count("Error") == 1
    done = len(read_losses(run, "log.jsonl"))
    assert 0 < done < 300


MEMBER = """#!{python}
import os, signal, time
from onspect.runtime.errors import TrainingError
from onspect.training.launcher import membership
with membership():
    {work}
"""
"""A process that the launcher starts in place of a training: it loads no torch."""


needs_scripts = pytest.mark.skipif(os.name != "posix", reason="on Windows a script is not a program")


def write_member(folder: Path, work: str) -> Path:
    """Write the program of such a process, and return it."""
    program = folder / "member"
    program.write_text(MEMBER.format(python=sys.executable, work=work))
    program.chmod(0o755)
    return program


@needs_scripts
def test_an_error_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failure in every process is one error of the command, and the processes themselves print nothing."""
    monkeypatch.setattr(sys, "executable", str(write_member(tmp_path, 'raise TrainingError("training diverged")')))
    with pytest.raises(TrainingError, match=r"^training diverged$"):
        launcher.train_together([], 2, tmp_path / "run")
    assert capfd.readouterr() == ("", "")


@needs_scripts
@pytest.mark.parametrize("late", ["SIGINT", "SIGTERM"])
def test_a_late_signal_does_not_hide_that_the_run_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """If the first process has saved the run before the signal reaches the second, the command says so."""
    work = f"""
    if os.environ["LOCAL_RANK"] == "0":
        raise TrainingError("interrupted and saved")
    while not os.path.exists(os.path.join(os.environ["ONSPECT_TRAIN_FOLDER"], "0.json")):
        time.sleep(0.01)
    signal.signal(signal.{late}, signal.SIG_DFL)
    os.kill(os.getpid(), signal.{late})
    """
    monkeypatch.setattr(sys, "executable", str(write_member(tmp_path, work)))
    with pytest.raises(TrainingError, match=r"^interrupted and saved$"):
        launcher.train_together([], 2, tmp_path / "run")


@pytest.mark.slow
@needs_scripts
@pytest.mark.parametrize("victim", [0, 1])
def test_whichever_process_is_killed_the_other_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """The one that waits for a killed one is ended, and the sentence names the killed one."""
    work = f"time.sleep(600 * (os.environ['LOCAL_RANK'] != '{victim}')); os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(sys, "executable", str(write_member(tmp_path, work)))
    started = time.monotonic()
    with pytest.raises(TrainingError, match=f"^process {victim + 1} of 2 was killed by SIGKILL"):
        launcher.train_together([], 2, tmp_path / "run")
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_no_process_outlives_the_command(tmp_path: Path) -> None:
    """If the command itself is killed, its processes end too."""
    work = "open(os.environ['LOCAL_RANK'], 'w').close(); time.sleep(600)"
    program = (
        "import sys; from pathlib import Path; from onspect.training import launcher\n"
        "sys.executable = sys.argv[1]; launcher.train_together([], 2, Path('run'))"
    )
    arguments = [sys.executable, "-c", program, str(write_member(tmp_path, work))]
    with subprocess.Popen(arguments, cwd=tmp_path) as process:
        wait_for(lambda: all((tmp_path / rank).exists() for rank in "01"), process)
        ranks = children(process)
        process.kill()
    assert len(ranks) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_device_needs_a_share_of_the_batch(plates: Path, tmp_path: Path) -> None:
    """More devices than a batch has images are refused with the number that there may be."""
    session.train(plates, tmp_path / "run", dataclasses.replace(CHOICES, epochs=1), devices=CPU)
    fabric: Any = SimpleNamespace(world_size=6)
    with pytest.raises(TrainingError, match=r"--devices 6 is more than the 5 images of a batch"):
        session._check_shares(read_record(tmp_path / "run"), fabric)
