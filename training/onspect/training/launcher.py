"""One ``onspect train`` as several processes, one for each device: started, watched, and ended together.

The command's own process trains nothing. It starts the others, hands signals on to them, and when one of them fails it
ends the rest and says why, once. So a process that is killed, or that waits for ever for one that was, is noticed from
outside, whatever the devices and however they talk to each other.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from onspect.runtime.errors import ChoiceError, OnspectError, TrainingError
from onspect.runtime.records import parse_dataclass
from onspect.training.interruption import stop_signals

_FOLDER = "ONSPECT_TRAIN_FOLDER"  # where a process leaves why it failed; set for those that are started here
_RANK = "LOCAL_RANK"
_CHECKPOINT = "checkpoint.safetensors"  # the name that checkpoint.py has, which loads torch
_GRACE_S = 2.0
"""How long the others may take to end by themselves after the first has failed."""

_POLL_S = 0.05


@dataclass(frozen=True)
class _Note:
    """Why a process failed. kind: ``usage``, ``error`` (both on purpose), ``stop`` (by the user) or ``surprise``."""

    kind: str
    message: str
    time: float
    traceback: str


@dataclass
class _Member:
    """One of the processes. folder: where it leaves a note, and what it says unless it is the first."""

    rank: int
    process: subprocess.Popen[bytes]
    folder: Path
    ended_here: bool = False

    @property
    def has_failed(self) -> bool:
        return bool(self.process.poll())

    @property
    def note(self) -> _Note | None:
        try:
            return parse_dataclass(_Note, json.loads((self.folder / f"{self.rank}.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


class _Trace(Exception):  # noqa: N818 - it is what stands behind an error, for --debug
    """Another process's traceback."""


def start_is_due(devices: int) -> bool:
    """Tell whether the processes are to be started here; not so where torchrun or Slurm has started them."""
    return devices > 1 and _RANK not in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) == 1


def is_member() -> bool:
    """Tell whether this process is one of several that `train_together` started."""
    return _FOLDER in os.environ


def train_together(arguments: Sequence[str], devices: int, run: Path) -> None:
    """Run ``onspect train`` with these arguments as one process a device, and wait for all.

    Raises the error that one of them ended with, or TrainingError where one was killed; the others are ended then.
    """
    command = [sys.executable, "-P", "-m", "onspect.runtime", "train", *arguments]
    port = _find_port()
    members: list[_Member] = []
    with tempfile.TemporaryDirectory(prefix="onspect-train-") as folder, _signals_handed_on(members) as asked:
        try:
            members.extend(_start(command, rank, devices, port, Path(folder)) for rank in range(devices))
            _wait(members)
        finally:
            _end(members)
        if any(member.has_failed for member in members):
            _raise_cause(members, run, stopped=asked.is_set())


@contextmanager
def membership() -> Iterator[None]:
    """In one of several processes, leave why the body failed to the one that started them, and end when that is gone.

    Does nothing in a process that trains alone.
    """
    if not is_member():
        yield
        return
    threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - it is told by the process that started this one
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    """Write down why this process fails, and end it."""
    kind, message = _describe(error)
    note = _Note(kind, message, time.time(), "".join(traceback.format_exception(error)))
    with suppress(OSError):
        Path(os.environ[_FOLDER], f"{os.environ[_RANK]}.json").write_text(json.dumps(asdict(note)), encoding="utf-8")
    sys.stderr.flush()
    os._exit(1)  # at once: tidying up would wait for the others, which wait for this one


def _describe(error: BaseException) -> tuple[str, str]:
    match error:
        case ChoiceError():
            return "usage", str(error)
        case OnspectError():
            return "error", str(error)
        case KeyboardInterrupt():
            return "stop", "stopped"
        case _:
            words = str(error).strip().splitlines() or ["without words"]
            return "surprise", f"{type(error).__name__}: {words[0]}"


def _end_with_starter() -> None:
    """Wait for the end of stdin, a pipe from the process that started this one, and end with it."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


def _start(command: list[str], rank: int, devices: int, port: int, folder: Path) -> _Member:
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR"} | dict(os.environ)  # what peers lose each other over is told here
    environment |= {_FOLDER: str(folder), _RANK: str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(devices)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with (folder / f"{rank}.txt").open("wb") as told:
        process = subprocess.Popen(  # noqa: S603 - this very command
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=None if rank == 0 else told,  # what all of them say is said once
            start_new_session=os.name == "posix",  # so that Ctrl-C reaches each of them once, through this process
        )
    return _Member(rank, process, folder)


def _find_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _signals_handed_on(members: Sequence[_Member]) -> Iterator[threading.Event]:
    """Hand Ctrl-C and SIGTERM on to all; yields whether one came."""
    asked = threading.Event()

    def hand_on(number: int, _frame: object) -> None:
        asked.set()
        if os.name == "posix":  # elsewhere the console tells them itself
            for member in members:
                member.process.send_signal(number)

    with stop_signals(hand_on):
        yield asked


def _wait(members: Sequence[_Member]) -> None:
    """Wait until all have ended; those that go on after another has failed are ended."""
    deadline = math.inf
    while any(member.process.poll() is None for member in members):
        if deadline == math.inf and any(member.has_failed for member in members):
            deadline = time.monotonic() + _GRACE_S
        if time.monotonic() >= deadline:
            _end(members)
        time.sleep(_POLL_S)


def _end(members: Sequence[_Member]) -> None:
    for member in members:
        if member.process.poll() is None:
            member.ended_here = True
            member.process.kill()
        if member.process.stdin is not None:
            member.process.stdin.close()
        member.process.wait()


def _raise_cause(members: Sequence[_Member], run: Path, *, stopped: bool) -> NoReturn:
    """Raise what made the first of them fail: a kill, an error on purpose, or what came first of the rest."""
    failed = [member for member in members if member.has_failed and not member.ended_here]
    notes = {member.rank: note for member in failed if (note := member.note) is not None}
    silent = sorted((one for one in failed if one.rank not in notes), key=lambda one: one.process.returncode)
    if stopped and all(note.kind in ("stop", "surprise") for note in notes.values()):
        raise TrainingError(f"stopped before there was anything new to save. {_describe_rest(run)}")
    if silent:
        raise TrainingError(f"{_describe_end(silent[0], len(members))}; the others were ended. {_describe_rest(run)}")
    rank, note = min(notes.items(), key=lambda one: (one[1].kind == "surprise", one[1].time))
    cause = _Trace(note.traceback)
    if note.kind == "usage":
        raise ChoiceError(note.message) from cause
    if note.kind == "error":
        raise TrainingError(note.message) from cause
    raise TrainingError(
        f"process {rank + 1} of {len(members)} failed: {note.message}; the others were ended. {_describe_rest(run)}"
    ) from cause


def _describe_end(member: _Member, count: int) -> str:
    code = member.process.returncode
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        how += ", possibly by the system because memory ran out" if code == -9 else ""
    else:
        how = f"ended with code {code}"
        told = (member.folder / f"{member.rank}.txt").read_text(encoding="utf-8", errors="replace").strip()
        how += f": {told.splitlines()[-1]}" if told else ""
    return f"process {member.rank + 1} of {count} {how}"


def _describe_rest(run: Path) -> str:
    if (run / _CHECKPOINT).exists():
        return f"The last checkpoint was saved: continue with onspect train --resume -o {shlex.quote(str(run))}"
    return f"No checkpoint was written: train again, and give another folder if {str(run)!r} exists"
