"""One ``onspect train`` as several processes, one for each device: started, watched and ended together.

The process of the command trains nothing. It starts the others and forwards signals to them. When one fails, it ends
the others and reports the reason once. So it also notices a process that was killed, and one that waits for a killed
one.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from onspect.runtime.errors import ChoiceError, OnspectError, TrainingError
from onspect.training.interruption import stop_signals

_FOLDER = "ONSPECT_TRAIN_FOLDER"  # folder for the reason of a failure; set for the processes that are started here
_RANK = "LOCAL_RANK"
_CHECKPOINT = "checkpoint.safetensors"  # as in checkpoint.py, whose import loads torch
_GRACE_S = 2.0
"""Seconds that the other processes have to end by themselves after the first failure."""

_POLL_S = 0.05


@dataclass
class _Member:
    """One of the processes. folder: has its note and, except for the first, its output."""

    rank: int
    process: subprocess.Popen[bytes]
    folder: Path
    ended_here: bool = False

    @property
    def has_failed(self) -> bool:
        return bool(self.process.poll())

    @property
    def note(self) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads((self.folder / f"{self.rank}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return note


class _Trace(Exception):  # noqa: N818 - the cause of an error, for --debug
    """Another process's traceback."""


def start_is_due(devices: int) -> bool:
    """Return whether this process has to start the others.

    Parameters
    ----------
    devices
        Number of devices, 1 or more.

    Returns
    -------
    bool
        False for one device, and if torchrun or Slurm has started the processes.
    """
    return devices > 1 and _RANK not in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) == 1


def is_member() -> bool:
    """Return whether `train_together` started this process.

    Returns
    -------
    bool
        True in one of several processes.
    """
    return _FOLDER in os.environ


def train_together(arguments: Sequence[str], devices: int, run: Path) -> None:
    """Run ``onspect train`` as one process for each device, and wait for all of them.

    Parameters
    ----------
    arguments
        Arguments of the command, without ``train``.
    devices
        Number of devices, 2 or more.
    run
        Folder of the run, for messages.

    Raises
    ------
    ChoiceError
        If a process reported a wrong option.
    TrainingError
        If a process failed or was killed. The other processes are ended.
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
    """Report an error of the ``with`` block to the starting process, and end when the starting process ends.

    It has no effect in a process that trains alone.
    """
    if not is_member():
        yield
        return
    threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the starting process reports it
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    """Write the reason of the failure, and end this process."""
    kind, message = _describe(error)
    trace = "".join(traceback.format_exception(error))
    note = {"kind": kind, "message": message, "time": time.time(), "traceback": trace}
    with suppress(OSError):
        Path(os.environ[_FOLDER], f"{os.environ[_RANK]}.json").write_text(json.dumps(note), encoding="utf-8")
    sys.stderr.flush()
    os._exit(1)  # at once: cleaning up would wait for the others, which wait for this one


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
    """End this process when stdin ends, which is a pipe from the starting process."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


def _start(command: list[str], rank: int, devices: int, port: int, folder: Path) -> _Member:
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR"} | dict(os.environ)  # this process reports lost peers
    environment |= {_FOLDER: str(folder), _RANK: str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(devices)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with (folder / f"{rank}.txt").open("wb") as told:
        process = subprocess.Popen(  # noqa: S603 - this very command
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=None if rank == 0 else told,  # messages of all processes appear once
            start_new_session=os.name == "posix",  # so that Ctrl-C reaches each of them once, through this process
        )
    return _Member(rank, process, folder)


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _signals_handed_on(members: Sequence[_Member]) -> Iterator[threading.Event]:
    """Forward Ctrl-C and SIGTERM to all processes; yield an event that is set by either."""
    asked = threading.Event()

    def hand_on(number: int, _frame: object) -> None:
        asked.set()
        if os.name == "posix":  # on Windows the console signals them itself
            for member in members:
                member.process.send_signal(number)

    with stop_signals(hand_on):
        yield asked


def _wait(members: Sequence[_Member]) -> None:
    """Wait until all processes have ended; after a failure, end the others."""
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
    """Raise the cause: one of our own errors, a request to stop, a process that ended without words, or the rest.

    Our own errors come first. After an interruption that was saved, the signal may reach a process so late that it no
    longer handles it, and ends without words.
    """
    failed = [member for member in members if member.has_failed and not member.ended_here]
    notes = {member.rank: note for member in failed if (note := member.note) is not None}
    own = [note for note in notes.values() if note["kind"] in ("usage", "error")]
    if own:
        note = min(own, key=lambda one: one["time"])
        kind = ChoiceError if note["kind"] == "usage" else TrainingError
        raise kind(note["message"]) from _Trace(note["traceback"])
    if stopped:
        raise TrainingError(f"stopped before there was anything new to save. {_describe_rest(run)}")
    silent = sorted((one for one in failed if one.rank not in notes), key=lambda one: one.process.returncode)
    if silent:
        raise TrainingError(f"{_describe_end(silent[0], len(members))}; the others were ended. {_describe_rest(run)}")
    rank, note = min(notes.items(), key=lambda one: one[1]["time"])
    raise TrainingError(
        f"process {rank + 1} of {len(members)} failed: {note['message']}; the others were ended. {_describe_rest(run)}"
    ) from _Trace(note["traceback"])


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
