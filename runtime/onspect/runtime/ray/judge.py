"""Scoring on Ray: one worker for each core or GPU, each with its own Inspector, and one writer of the verdicts.

The list of images is divided into partitions. A worker takes one partition at a time. The process that started the job
writes it, under a name that follows from its place in the list. So work that Ray repeats after a lost worker does not
appear twice. When a job stops, the partitions that were not written remain to be done.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onspect.runtime.cpu import available_cores
from onspect.runtime.errors import ChoiceError, EngineError, ImageError, OnspectError, OutputError, SourceError
from onspect.runtime.images.decode import Frame, decode_image, quieten_opencv, read_image
from onspect.runtime.inspection.batch import judge_files
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.model.file import ModelFile, parse_model_file
from onspect.runtime.model.providers import runs_on_processor
from onspect.runtime.ray.partitions import (
    LARGEST,
    Folder,
    Job,
    Kind,
    check_same,
    choose_partition,
    encode,
    find_job,
    fingerprint_list,
    open_folder,
    read_written,
    write_job,
)
from onspect.runtime.ray.urls import is_url, read_url

_LOG = logging.getLogger("onspect")

DEATHS = 2
"""Number of workers that die on an image before it is a fault: a single one may have another cause."""

ATTEMPTS = 5
"""Number of other workers that may die on a partition before the job ends."""

_READERS = 8  # threads that wait for a store while others judge
_AHEAD = 2  # partitions queued at each worker
_PATIENCE_S = 5.0
_STORE_BYTES = 512 << 20  # of a new cluster: the model, and some partitions of text


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of every worker."""

    folder: str
    """Working folder of the driver, from which relative paths start."""

    sample: str | None
    """An image file that the driver can read; None if all images have URLs."""

    provider: str
    """Our name of the provider."""

    threads: int
    """Number of threads that judge."""

    kind: Kind
    """Format of the partitions."""

    version: str
    """Version of onspect of the driver."""


class Retries:
    """Counts how often work on each partition has begun, and where it ended early. It outlives the workers."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._at: dict[int, int] = {}
        self._deaths: Counter[int] = Counter()

    def begin(self, number: int) -> tuple[int, list[int]]:
        """Count one more attempt at a partition.

        Parameters
        ----------
        number
            Number of the partition, from 0.

        Returns
        -------
        tuple[int, list[int]]
            The number of attempts, and the images on which workers die.
        """
        self._begun[number] += 1
        self.end(number, died=True)
        return self._begun[number], [index for index, deaths in self._deaths.items() if deaths >= DEATHS]

    def judging(self, number: int, index: int) -> None:
        """Note the image that a worker judges.

        Parameters
        ----------
        number
            Number of the partition, from 0.
        index
            Position of the image in the list.
        """
        self._at[number] = index

    def end(self, number: int, *, died: bool = False) -> None:
        """Note that no worker judges an image of a partition any more.

        Parameters
        ----------
        number
            Number of the partition, from 0.
        died
            Whether the worker died on the image.
        """
        index = self._at.pop(number, None)
        if died and index is not None:
            self._deaths[index] += 1


class Scorer:
    """A worker: judges one partition at a time and returns the content of its file.

    Parameters
    ----------
    model
        Ray's reference to the bytes of the model file, so that no other machine needs the file.
    retries
        Handle of the job's `Retries`.
    name
        Name of the model file in messages.
    config
        Settings of the worker.
    """

    def __init__(self, model: Any, retries: Any, name: str, config: WorkerConfig) -> None:
        import ray

        quieten_opencv()
        data = ray.get(model)
        self._inspector = Inspector(parse_model_file(Path(name), data), provider=config.provider)
        self._retries = retries
        self._config = config
        self._checked = False
        context = ray.get_runtime_context()
        self._node = f"{ray.util.get_node_ip_address()} ({context.get_node_id()[:8]})"

    def __call__(self, rows: Any) -> Any:
        """Judge the partition in a table of one row, and return a table of one row.

        A problem of the machine, rather than of an image, is returned as ``error``.
        """
        import pyarrow

        (row,) = rows.to_pylist()
        answer = {
            "number": row["number"],
            "content": b"",
            "counts": "{}",
            "node": self._node,
            "attempt": 1,
            "error": "",
        }
        try:
            self._check()
            sources = json.loads(row["sources"])
            answer["attempt"], deadly = self._begin(row["number"], sources)
            if answer["attempt"] == 1:
                verdicts = self.judge(sources, row["first"])
            else:
                verdicts = self.judge_isolated(sources, row["first"], row["number"], deadly)
            answer["content"] = encode(self._config.kind, verdicts)
            answer["counts"] = json.dumps(Counter(verdict.verdict for verdict in verdicts))
        except OnspectError as error:
            answer["error"] = str(error)
        return pyarrow.Table.from_pylist([answer])

    def judge(self, sources: list[str], first: int) -> list[Verdict]:
        """Judge the images of a partition.

        Parameters
        ----------
        sources
            Paths and URLs.
        first
            Index of the first image.

        Returns
        -------
        list[Verdict]
            The verdicts in order.
        """
        waits = any(is_url(source) for source in sources)
        workers = max(self._config.threads, _READERS if waits else 1)
        return list(judge_files(self._inspector, sources, workers=workers, first_index=first, read=self._read))

    def judge_isolated(self, sources: list[str], first: int, number: int, deadly: list[int]) -> list[Verdict]:
        """Judge the images of a partition one by one, so that it is known on which one a worker dies.

        Parameters
        ----------
        sources
            Paths and URLs.
        first
            Index of the first image.
        number
            Number of the partition, from 0.
        deadly
            Indices of images on which workers died. They become faults.

        Returns
        -------
        list[Verdict]
            The verdicts in order.
        """
        import ray

        verdicts: list[Verdict] = []
        for index, source in enumerate(sources, first):
            ray.get(self._retries.judging.remote(number, index))
            read = _refuse if index in deadly else self._read
            verdicts += judge_files(self._inspector, [source], workers=1, first_index=index, read=read)
        ray.get(self._retries.end.remote(number))
        return verdicts

    def _begin(self, number: int, sources: list[str]) -> tuple[int, list[int]]:
        import ray

        attempt, deadly = ray.get(self._retries.begin.remote(number))
        if attempt > ATTEMPTS + DEATHS * len(deadly):
            raise EngineError(
                f"{attempt - 1} workers died on the images from {sources[0]!r} to {sources[-1]!r}, never twice on the "
                f"same one; check whether something ends the workers, such as a lack of memory (-v shows more)"
            )
        return attempt, deadly

    def _read(self, source: Path | str) -> Frame:
        text = str(source)
        return decode_image(read_url(text)) if is_url(text) else read_image(Path(self._config.folder, text))

    def _check(self) -> None:
        if self._checked:
            return
        version = importlib.metadata.version("onspect")
        if version != self._config.version:
            raise EngineError(
                f"the machine {self._node} has onspect {version}, and this one {self._config.version}; "
                "install the same on all"
            )
        sample = self._config.sample
        if sample is not None and not os.path.isfile(sample):  # noqa: PTH113 - Path.is_file raises for some names
            raise SourceError(
                f"the machine {self._node} does not see {sample!r}; put the images where all machines see them at the "
                "same path, or give a URL such as s3://bucket/images"
            )
        self._checked = True


@dataclass(frozen=True)
class _Cluster:
    """The cluster to use, and how much of it. None: a new one on this machine, and all of it."""

    address: str | None
    provider: str
    workers: int | None


@dataclass(frozen=True)
class _WorkerPool:
    """The number of workers, each with its resources in Ray's terms and a number of threads that judge."""

    size: int
    provider: str
    resources: dict[str, float]
    threads: int


def _refuse(_: Path | str) -> Frame:
    raise ImageError(
        f"{DEATHS} workers died while they judged this image: it is too large for the memory, or crashes the decoder"
    )


def load_ray(address: str | None) -> Any:
    """Import Ray, set so that it reports nothing to its makers or to the terminal.

    Parameters
    ----------
    address
        Address of the cluster to join. None: Ray listens on loopback only, on every system, unless this process
        has imported it before.

    Returns
    -------
    Any
        The module.

    Raises
    ------
    ImportError
        If Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # important messages are exceptions too
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def score_on_ray(
    model: ModelFile,
    sources: Sequence[str],
    output: str,
    *,
    provider: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Judge images on all cores (or GPUs) of a Ray cluster, and write partitions into a folder.

    Parameters
    ----------
    model
        The model file.
    sources
        Paths and URLs of images.
    output
        A folder, or the URL of one in an object store. The partitions are Parquet if its name ends in
        ``.parquet``, otherwise JSONL.
    provider
        As in `Inspector`.
    workers
        Number of workers, from 1. None: one for each core, or one for each GPU with the provider ``cuda`` or
        ``tensorrt``.
    address
        Address of a running cluster (``auto``, ``HOST:PORT``); None starts one on this machine.
    resume
        Continue the job with this output.
    tell
        Called with a sentence on the images that an earlier run judged.

    Returns
    -------
    Iterator[str]
        ``ok``, ``ng``, ``review`` or ``fault`` for each image, in no order. Those of an earlier run come first.

    Raises
    ------
    ChoiceError
        If the address is that of Ray's clients.
    UncalibratedError
        If the model has no threshold.
    OutputError
        If the folder cannot be written or has another job.
    EngineError
        If the cluster cannot be joined, its workers die, or images cannot be reached.
    """
    if address is not None and address.startswith("ray://"):
        raise ChoiceError(f"{address!r} is for Ray's clients; run this on a machine of the cluster: --address auto")
    inspector = Inspector(model, provider="cpu")
    _ = inspector.threshold
    folder = open_folder(output)
    wanted = Job(
        model=inspector.label,
        sha256=model.sha256,
        sources=fingerprint_list(sources),
        images=len(sources),
        partition=LARGEST,
        kind="parquet" if output.rstrip("/").lower().endswith(".parquet") else "jsonl",
    )
    earlier, written = find_job(folder, output), dict[int, Counter[str]]()
    if earlier is not None:
        if not resume:
            raise OutputError(f"{output!r} already contains a job; add --resume to continue it, or give a new folder")
        check_same(earlier, wanted, output)
        written = read_written(folder, earlier)
        if tell is not None:
            done = sum(counts.total() for counts in written.values())
            tell(f"{done} of {len(sources)} images have been judged already")
    return _run(model, sources, folder, earlier or wanted, written, _Cluster(address, provider, workers))


def _run(
    model: ModelFile,
    sources: Sequence[str],
    folder: Folder,
    job: Job,
    written: dict[int, Counter[str]],
    cluster: _Cluster,
) -> Iterator[str]:
    for counts in written.values():
        yield from counts.elements()
    if len(written) < job.partitions:
        with _joined(cluster) as ray:
            pool = _choose_pool(cluster, ray.cluster_resources())
            if not written:  # the number of workers is known now
                job = dataclasses.replace(job, partition=choose_partition(job.images, pool.size))
            write_job(folder, job)
            missing = [number for number in range(job.partitions) if number not in written]
            for number, content, counts in _judge(model, sources, job, missing, pool, ray):
                folder.write(job.name(number), content)
                written[number] = counts
                yield from counts.elements()
    write_job(folder, job, sum(written.values(), Counter()))


def _judge(
    model: ModelFile, sources: Sequence[str], job: Job, missing: list[int], pool: _WorkerPool, ray: Any
) -> Iterator[tuple[int, bytes, Counter[str]]]:
    """Yield the partitions as they are finished, each once: number, content of its file, and count of each verdict."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    config = WorkerConfig(
        folder=os.getcwd(),  # noqa: PTH109 - a text
        sample=_find_sample(sources),
        provider=pool.provider,
        threads=pool.threads,
        kind=job.kind,
        version=importlib.metadata.version("onspect"),
    )
    rows = [
        {
            "number": number,
            "first": job.span(number).start,
            "sources": json.dumps([sources[place] for place in job.span(number)]),  # escapes names that are not UTF-8
        }
        for number in missing
    ]
    retries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Retries).remote()
    partitions = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Scorer,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pool.size, max_tasks_in_flight_per_actor=_AHEAD),
        fn_constructor_args=(ray.put(model.data), retries, model.path.name, config),
        **pool.resources,
    )
    judged_on: Counter[str] = Counter()
    try:
        for answer in partitions.iter_rows():
            if answer["error"]:
                raise EngineError(f"{answer['error']}; --resume continues from the written partitions")
            if answer["attempt"] > 1:
                _LOG.warning("a worker died; %s was judged again", job.name(answer["number"]))
            counts = Counter(json.loads(answer["counts"]))
            judged_on[answer["node"]] += counts.total()
            yield answer["number"], answer["content"], counts
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"Ray gave up: {_summarise(error)}; --resume continues from the written partitions"
        ) from error
    for node, count in sorted(judged_on.items()):
        _LOG.info("%d images were judged on %s", count, node)


def _find_sample(sources: Sequence[str]) -> str | None:
    paths = (os.path.abspath(source) for source in sources[:1000] if not is_url(source))  # noqa: PTH100
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - some names raise


def _choose_pool(cluster: _Cluster, resources: dict[str, float]) -> _WorkerPool:
    import onnxruntime

    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    provider = cluster.provider
    if provider == "auto":
        provider = "cuda" if gpus and "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"
    seats = cores if runs_on_processor(provider) else gpus
    if seats == 0:
        raise EngineError(f"no device for the provider {provider!r}: the cluster has {cores} cores, {gpus} GPUs")
    size = min(seats, cluster.workers or seats)
    if runs_on_processor(provider):
        return _WorkerPool(size, provider, {"num_cpus": 1}, threads=1)
    return _WorkerPool(size, provider, {"num_cpus": 1, "num_gpus": 1}, threads=max(1, cores // gpus))


@contextmanager
def _joined(cluster: _Cluster) -> Iterator[Any]:
    """Join a cluster, or start one that only this machine can reach and that ends with this process; yield Ray."""
    ray = load_ray(cluster.address)
    verbose = _LOG.isEnabledFor(logging.INFO)
    common: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.ERROR}
    if cluster.address is None:
        what, cores = "start Ray", cluster.workers or available_cores()
        common |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    else:
        what = f"join the Ray cluster at {cluster.address!r}"
    with ExitStack() as stack:
        # Ray prints to stdout, which is for verdicts
        aside = sys.stderr if verbose else stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123 - no path
        stack.enter_context(redirect_stdout(aside))
        try:
            _check_address(cluster.address)
            with nullcontext() if verbose else _without_stderr():
                ray.init(cluster.address or "local", **common)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise EngineError(f"cannot {what}: {_explain(error)}") from error
        stack.callback(ray.shutdown)
        yield ray


def _check_address(address: str | None) -> None:
    """Raise OSError if nothing listens at HOST:PORT. Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep the output of libraries in other languages from the terminal. Python's exceptions are not affected."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _explain(error: BaseException) -> str:
    """Return why a cluster is not available. A missing token is deep in the causes of Ray's error."""
    cause: BaseException | None = error
    while cause is not None:
        if "InvalidAuthToken" in str(cause):
            return "it asks for its token; set RAY_AUTH_MODE=token, and the token as Ray's documentation says"
        cause = cause.__cause__ or cause.__context__
    return _summarise(error)


def _summarise(error: BaseException) -> str:
    """Return the last line of an error's text that is not empty. Ray's errors contain a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
