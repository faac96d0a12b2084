"""The measurements. Two models are measured in turns, so that a disturbance affects both."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.results import STAGES, Latency, Paced, Stages, Start
from onspect.runtime.errors import SourceError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.inspection.batch import judge_files
from onspect.runtime.inspection.inspector import Inspector

_ROUNDS = 5  # smallest number of rounds, however long one takes
_WARM_UP = 3
_PASS, _PASS_SHARE = 0.4, 0.8  # seconds of one pass over image files, and its largest share of a result

Sample = TypeVar("Sample")


def take_turns(works: Sequence[Callable[[], Sample]], seconds: float) -> list[list[Sample]]:
    """Call the functions in turn, each equally often.

    Parameters
    ----------
    works
        The functions.
    seconds
        Seconds for each function. Each is called at least five times.

    Returns
    -------
    list[list[Sample]]
        The results of each function.
    """
    for work in works:
        for _ in range(_WARM_UP):
            work()
    samples: list[list[Sample]] = [[] for _ in works]
    ends = time.perf_counter() + seconds * len(works)
    while time.perf_counter() < ends or len(samples[0]) < _ROUNDS:
        for work, found in zip(works, samples, strict=True):
            found.append(work())
    return samples


def measure_stages(
    inspectors: Sequence[Inspector], paths: Sequence[Path], seconds: float, meter: LoadMeter
) -> list[list[NDArray[np.float64]]]:
    """Measure the stages from file to verdict, on one thread.

    The stages are `STAGES`: reading, `prepare`, `infer` and `judge`.

    Parameters
    ----------
    inspectors
        The models.
    paths
        Image files.
    seconds
        Seconds for each model.
    meter
        Counts the work.

    Returns
    -------
    list[list[NDArray[np.float64]]]
        For each model and image the seconds of each stage, float64 [stage, 2]: by the clock, and of this thread
        on a processor.
    """

    def work(inspector: Inspector, images: Iterator[Path]) -> NDArray[np.float64]:
        marks = [_read_clocks()]
        frame = read_image(next(images))
        marks.append(_read_clocks())
        items = [inspector.prepare_frame(frame)]
        marks.append(_read_clocks())
        scored = inspector.infer_frames(items)
        marks.append(_read_clocks())
        inspector.judge(items, scored)
        marks.append(_read_clocks())
        meter.count(marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1])
        return np.diff(marks, axis=0)

    return take_turns([partial(work, inspector, itertools.cycle(paths)) for inspector in inspectors], seconds)


def summarize_stages(samples: Sequence[NDArray[np.float64]]) -> Stages:
    """Return the medians of several images.

    Parameters
    ----------
    samples
        Seconds of each image, float64 [stage, 2].

    Returns
    -------
    Stages
        The medians in milliseconds.
    """
    wall, cpu = (1000.0 * np.median(samples, axis=0).clip(0.0)).T.tolist()
    return Stages(dict(zip(STAGES, wall, strict=True)), dict(zip(STAGES, cpu, strict=True)))


def _read_clocks() -> tuple[float, float]:
    """Return the seconds by the clock, and those in which this thread ran on a processor."""
    return time.perf_counter(), time.thread_time()


def measure_throughput(
    inspectors: Sequence[Inspector], paths: Sequence[Path], workers: int, batch: int, seconds: float, pace: float
) -> list[list[float]]:
    """Measure the throughput from files to verdicts.

    Parameters
    ----------
    inspectors
        The models.
    paths
        Image files.
    workers
        Number of threads.
    batch
        Images in one run.
    seconds
        Seconds for each model.
    pace
        Expected images a second, which sets the length of a pass.

    Returns
    -------
    list[list[float]]
        For each model the images a second of each pass.
    """
    count = max(2 * workers * batch, round(pace * min(_PASS, _PASS_SHARE * seconds)))
    images = list(itertools.islice(itertools.cycle(paths), count))

    def work(inspector: Inspector) -> float:
        started = time.perf_counter()
        for _ in judge_files(inspector, images, workers=workers, batch=batch):
            pass
        return count / (time.perf_counter() - started)

    return take_turns([partial(work, inspector) for inspector in inspectors], seconds)


def measure_latency(
    inspectors: Sequence[Inspector], frames: Sequence[Frame], batch: int, seconds: float
) -> list[list[float]]:
    """Measure the latency from a batch of frames to their verdicts.

    Parameters
    ----------
    inspectors
        The models.
    frames
        Frames in memory.
    batch
        Frames in one run.
    seconds
        Seconds for each model.

    Returns
    -------
    list[list[float]]
        For each model the milliseconds of each batch.
    """
    source = list(itertools.islice(itertools.cycle(frames), batch))

    def work(inspector: Inspector) -> float:
        started = time.perf_counter()
        inspector.examine_batch(source)
        return 1000.0 * (time.perf_counter() - started)

    return take_turns([partial(work, inspector) for inspector in inspectors], seconds)


def summarize_latency(provider: str, threads: int, batch: int, times: Sequence[float]) -> Latency:
    """Return the percentiles of many batches.

    Parameters
    ----------
    provider
        Our name of the provider.
    threads
        Threads of one run.
    batch
        Frames in one run.
    times
        Milliseconds of each batch.

    Returns
    -------
    Latency
        The latency.
    """
    p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
    return Latency(provider, threads, batch, p50, p95, p99, len(times))


def measure_paced(inspector: Inspector, frames: Sequence[Frame], rate: float, seconds: float) -> Paced:
    """Judge frames at a camera's rate. A frame that arrives while another is judged waits for its turn.

    Parameters
    ----------
    inspector
        The model.
    frames
        Frames in memory.
    rate
        Frames a second, above 0.
    seconds
        Seconds of the measurement.

    Returns
    -------
    Paced
        Latency and load.
    """
    times = []
    source = itertools.cycle(frames)
    cpu, started = time.process_time(), time.perf_counter()
    for number in range(max(_ROUNDS, round(seconds * rate))):
        due = started + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        inspector.inspect(next(source))
        times.append(1000.0 * (time.perf_counter() - max(due, started)))
    burnt = (time.process_time() - cpu) / (time.perf_counter() - started)
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
    return Paced(rate, p50, p99, burnt)


def measure_start(model: Path, provider: str, paths: Sequence[Path], *, starts: int = 3) -> Start:
    """Measure new processes: the time to the first verdict and the time of the imports, in turns, and the memory.

    Parameters
    ----------
    model
        The model file.
    provider
        Our name of the provider.
    paths
        Image files.
    starts
        Number of starts.

    Returns
    -------
    Start
        The medians and the memory.

    Raises
    ------
    SourceError
        If a process fails.
    """
    python = [sys.executable, "-m"]
    command = [*python, "onspect.runtime", "score", str(model), str(paths[0]), "--provider", provider, "-q"]
    imports = [sys.executable, "-c", "import numpy, cv2, onnxruntime; print()"]
    verdicts, bare = [], []
    for _ in range(starts):
        verdicts.append(time_first_line(command))
        bare.append(time_first_line(imports))
    names = json.dumps([str(path) for path in paths])
    memory = json.loads(_run([*python, "onspect.runtime.bench.child", str(model), provider], names))
    return Start(statistics.median(verdicts), statistics.median(bare), memory["first"], memory["peak"])


def time_first_line(command: Sequence[str]) -> float:
    """Measure the time from the start of a process to its first line.

    Parameters
    ----------
    command
        The command with its arguments.

    Returns
    -------
    float
        Milliseconds.

    Raises
    ------
    SourceError
        If the process prints no line.
    """
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        line = process.stdout.readline()
        took = 1000.0 * (time.perf_counter() - started)
        _, errors = process.communicate()
    if not line:
        raise SourceError(f"the process {' '.join(command[:4])} failed: {errors.decode(errors='replace').strip()}")
    return took


def _run(command: Sequence[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise SourceError(f"the process {' '.join(command[:4])} failed: {done.stderr.strip()}")
    return done.stdout
