"""Experiments in worker processes, several at a time; with one job they run in this process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from onspect.compare.datasets import Dataset, load_dataset
from onspect.compare.experiments import Experiment, InterruptedExperimentError, Settings, complete_experiment
from onspect.runtime.cpu import available_cores
from onspect.runtime.errors import OnspectError, TrainingError
from onspect.training.interruption import stop_signals

_GRACE = 3.0  # seconds that a process has to stop


@dataclass(frozen=True)
class Work:
    """Input of a worker process. It reads the data again."""

    settings: Settings
    """Settings that all experiments share."""
    data: Path
    """The dataset folder."""
    preset: str | None
    """Name of a preset; None chooses it from the images."""
    folder: Path
    """Folder of the comparison."""
    jobs: int
    """Number of experiments that run at the same time, 1 or more."""


def complete_experiments(
    experiments: Sequence[Experiment], work: Work, dataset: Dataset, done: Callable[[Experiment], None]
) -> None:
    """Complete experiments, `work.jobs` at a time. The cores are divided among the jobs.

    Parameters
    ----------
    experiments
        The experiments.
    work
        Input of the worker processes.
    dataset
        The images.
    done
        Called after each experiment.

    Raises
    ------
    InterruptedExperimentError
        If Ctrl-C or SIGTERM stopped them; all are saved.
    TrainingError
        If an experiment failed. Those that had begun are finished first.
    """
    if work.jobs == 1:
        _use_cores(1)
        for experiment in experiments:
            complete_experiment(experiment, work.settings, dataset, work.folder)
            done(experiment)
        return
    with stop_signals(_interrupt):
        _run_processes(list(experiments), work, done)


def _run_processes(waiting: list[Experiment], work: Work, done: Callable[[Experiment], None]) -> None:
    context = multiprocessing.get_context("spawn")
    running: dict[int, tuple[Experiment, SpawnProcess, multiprocessing.connection.Connection]] = {}
    failures: list[str] = []
    interrupted = False
    while running or (waiting and not failures and not interrupted):
        try:
            while waiting and len(running) < work.jobs and not failures and not interrupted:
                experiment = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(experiment, work, sender))
                process.start()
                sender.close()
                running[process.sentinel] = (experiment, process, receiver)
            for sentinel in multiprocessing.connection.wait(list(running)):
                experiment, process, receiver = running.pop(sentinel)  # type: ignore[arg-type]  # sentinels went in
                process.join()
                reason = _read_reason(receiver)
                if process.exitcode == 0 and reason is None:
                    done(experiment)
                elif not interrupted:
                    failures.append(f"{experiment}: {reason or f'its process ended with {process.exitcode}'}")
        except KeyboardInterrupt:
            interrupted = True
            _stop([process for _, process, _ in running.values()])
    if interrupted:
        raise InterruptedExperimentError("interrupted and saved; the same command continues")
    if failures:
        raise TrainingError("; ".join(failures))


def _read_reason(receiver: multiprocessing.connection.Connection) -> str | None:
    """Return the reason why a process failed; None if it gave no reason."""
    try:
        return str(receiver.recv())
    except EOFError:
        return None


def _stop(processes: Sequence[SpawnProcess]) -> None:
    """Let processes save and end. A terminal's Ctrl-C has reached them already; a second signal interrupts that."""
    for process in processes:
        process.join(_GRACE)
    for process in processes:
        process.terminate()


def _work(experiment: Experiment, work: Work, sender: multiprocessing.connection.Connection) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    _use_cores(work.jobs)
    try:
        dataset = load_dataset(work.data, preset=work.preset, limit=work.settings.limit)
        complete_experiment(experiment, work.settings, dataset, work.folder, jobs=work.jobs)
    except OnspectError as error:
        sender.send(str(error))
    except KeyboardInterrupt:
        sender.send("interrupted")


def _follow_parent() -> None:
    """Stop as on Ctrl-C if the parent has ended; otherwise two processes could train one experiment."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _use_cores(jobs: int) -> None:
    """Divide the cores among the jobs. OMP_NUM_THREADS is the limit of a job, as for torch itself."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = available_cores() // jobs
    torch.set_num_threads(max(1, min(threads, int(limit)) if limit.isdecimal() else threads))


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)
