"""A whole bench run, the Python function of ``onspect bench``."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from onspect.runtime.bench.images import choose_images, describe_images, draw_images
from onspect.runtime.bench.machine import LoadMeter, describe_machine
from onspect.runtime.bench.measure import (
    measure_latency,
    measure_paced,
    measure_stages,
    measure_start,
    measure_throughput,
    summarize_latency,
    summarize_stages,
)
from onspect.runtime.bench.results import Bench, Latency, ModelBench, Paced, Ratio, Spread, Stages, Start, Throughput
from onspect.runtime.cpu import available_cores
from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.batch import choose_batch
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.model.providers import BFLOAT16, ONNXRUNTIME, runs_on_processor
from onspect.runtime.model.session import load_model
from onspect.runtime.progress import Progress, no_progress
from onspect.runtime.text import count_of

_LOG = logging.getLogger("onspect")

BATCHES = (1, 4, 16)

_FRAMES = 16  # frames kept in memory for the latencies


def run_bench(
    models: Sequence[Path | str],
    images: Sequence[Path | str] = (),
    *,
    rate: float = 30.0,
    seconds: float = 0.5,
    progress: Progress | None = None,
) -> Bench:
    """Measure one model file, or two in turns.

    Parameters
    ----------
    models
        One or two model files.
    images
        Image files; without any, images are drawn.
    rate
        Frames a second at which the load of the processor is measured.
    seconds
        Seconds for one result. A model has about twenty results on two cores.
    progress
        Function of steps, count and label that yields the steps and shows the progress; None shows nothing.

    Returns
    -------
    Bench
        The results.

    Raises
    ------
    ModelFileError
        If a file cannot be used.
    UncalibratedError
        If a model has no threshold.
    DatasetError
        If a model cannot judge an image, or aligns frames and there are no images.
    """
    files = [read_model_file(path) for path in models]
    given = [Path(path) for path in images]
    inspectors = [Inspector(file) for file in files]
    for inspector in inspectors:
        _ = inspector.threshold
    with tempfile.TemporaryDirectory() as folder:
        paths = choose_images(given or draw_images(Path(folder), files[0].info.preprocess), inspectors)
        run = _Run(files, inspectors, paths, rate, seconds)
        steps = run.list_steps()
        for step in (progress or no_progress)(steps, len(steps), "measuring"):
            step()
        load = run.meter.stop()
        words = describe_images(paths, drawn=not given)
    models_found = tuple(run.conclude(number) for number in range(len(files)))
    return Bench(now(), describe_machine(), load, words, models_found, tuple(run.ratios))


class _Run:
    """A bench run in progress: its settings, and a list of results for each model."""

    def __init__(
        self,
        files: Sequence[ModelFile],
        inspectors: Sequence[Inspector],
        paths: Sequence[Path],
        rate: float,
        seconds: float,
    ) -> None:
        self.files, self.inspectors, self.paths = files, inspectors, paths
        self.rate, self.seconds = rate, seconds
        self.meter = LoadMeter()
        self.frames = [read_image(path) for path in paths[:_FRAMES]]
        self.stages: list[Stages] = []
        self.throughput: list[list[Throughput]] = [[] for _ in files]
        self.latency: list[list[Latency]] = [[] for _ in files]
        self.paced: list[Paced] = []
        self.starts: list[Start] = []
        self.ratios: list[Ratio] = []

    def list_steps(self) -> list[Callable[[], None]]:
        """Return the measurements in their order."""
        own = {choose_batch(inspector.info.preprocess, inspector.provider) for inspector in self.inspectors}
        batches = sorted({*BATCHES, *own})
        cells = [(count, batch) for count in _list_counts() for batch in batches]
        return [
            self._measure_stages,
            *(partial(self._measure_throughput, *cell) for cell in cells),
            *(partial(self._measure_latency, *cell) for cell in self._list_latency_cells()),
            self._measure_paced,
            self._measure_starts,
        ]

    def conclude(self, number: int) -> ModelBench:
        """Return the results of one model."""
        file, inspector = self.files[number], self.inspectors[number]
        preprocess = file.info.preprocess
        return ModelBench(
            label=inspector.label,
            path=str(file.path),
            precision=file.info.provenance.precision,
            provider=inspector.provider,
            size=(preprocess.width, preprocess.height, preprocess.channels),
            stages=self.stages[number],
            cores=available_cores(),
            throughput=tuple(self.throughput[number]),
            latency=tuple(self.latency[number]),
            paced=self.paced[number],
            start=self.starts[number],
        )

    def _list_latency_cells(self) -> Iterator[tuple[str, int, int]]:
        for name in _list_providers(self.files):
            for threads in _list_counts() if runs_on_processor(name) else (1,):
                for batch in BATCHES:
                    yield name, threads, batch

    def _measure_stages(self) -> None:
        found = measure_stages(self.inspectors, self.paths, 2 * self.seconds, self.meter)
        self.stages = [summarize_stages(samples) for samples in found]
        self._compare("processor time, one image", [[float(sample[:, 1].sum()) for sample in one] for one in found])

    def _measure_throughput(self, workers: int, batch: int) -> None:
        pace = workers * min(1000.0 / sum(stages.wall.values()) for stages in self.stages)
        found = measure_throughput(self.inspectors, self.paths, workers, batch, self.seconds, pace)
        for cells, passes in zip(self.throughput, found, strict=True):
            cells.append(Throughput(workers, batch, Spread.of(passes)))
        self._compare(f"images/s, {count_of(workers, 'worker')}, batch {batch}", found)

    def _measure_latency(self, provider: str, threads: int, batch: int) -> None:
        inspectors = [Inspector(file, provider=provider, threads=threads) for file in self.files]
        found = measure_latency(inspectors, self.frames, batch, self.seconds)
        for cells, times in zip(self.latency, found, strict=True):
            cells.append(summarize_latency(provider, threads, batch, times))
        self._compare(f"latency, {provider}, {count_of(threads, 'thread')}, batch {batch}", found)

    def _compare(self, name: str, found: Sequence[Sequence[float]]) -> None:
        """Store the ratio of the second model to the first, turn by turn."""
        if len(found) > 1:
            self.ratios.append(Ratio(name, Spread.of([float(x) for x in np.divide(found[1], found[0])])))

    def _measure_paced(self) -> None:
        for inspector in self.inspectors:
            self.paced.append(measure_paced(inspector, self.frames, self.rate, 4 * self.seconds))

    def _measure_starts(self) -> None:
        for file, inspector in zip(self.files, self.inspectors, strict=True):
            self.starts.append(measure_start(file.path, inspector.provider, self.paths))


def _list_counts() -> list[int]:
    """Return 1, 2, 4 and so on up to the number of cores, and that number itself."""
    cores = available_cores()
    return sorted({cores, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)})


def _list_providers(files: Sequence[ModelFile]) -> list[str]:
    """Return our names of the available providers, and those of OpenVINO if it is installed and accepts the files.

    ``openvino-bf16`` is for files with a margin. The reason why OpenVINO refuses a file is logged.
    """
    here = onnxruntime.get_available_providers()
    names = [name for name, chain in ONNXRUNTIME.items() if chain[0] in here]
    if importlib.util.find_spec("openvino") is None:
        return names
    for name in ("openvino", BFLOAT16) if all(file.info.valid_margin for file in files) else ("openvino",):
        try:
            for file in files:
                load_model(file, provider=name)
        except (ModelFileError, ChoiceError) as error:
            _LOG.warning("not measured on %s: %s", name, error)
            continue
        names.append(name)
    return names
