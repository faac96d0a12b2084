"""The output of a job: a folder of partitions, each written completely or not at all, and the facts for resuming."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, get_type_hints

from onspect.runtime.atomic import make_folder, write_atomically
from onspect.runtime.errors import OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.ray.urls import is_url, open_store, reach
from onspect.runtime.records import parse_dataclass
from onspect.runtime.sinks.columns import COLUMNS, encode_verdict, to_row

_LOG = logging.getLogger("onspect")

Kind = Literal["jsonl", "parquet"]

FORMAT_VERSION = 1

SMALLEST, LARGEST = 64, 4096
"""Limits of the images in a partition: a lost worker loses little, and there are not too many files."""

_EACH = 16  # partitions for each worker, so that all end at about the same time
_JOB = "_job.json"  # readers of Parquet folders skip names that begin with _
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


@dataclass(frozen=True)
class Job:
    """The images of a job and their partitions. It is stored beside the partitions."""

    model: str
    """Name and first digits of the model file's SHA-256."""

    sha256: str
    """SHA-256 of the model file, 64 hexadecimal digits."""

    sources: str
    """Fingerprint of the list of images, in order."""

    images: int
    """Number of images."""

    partition: int
    """Number of images in each partition but the last."""

    kind: Kind
    """Format of the partitions, ``jsonl`` or ``parquet``."""

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return math.ceil(self.images / self.partition)

    def name(self, number: int) -> str:
        """Return the file name of a partition.

        Parameters
        ----------
        number
            Number of the partition, from 0.

        Returns
        -------
        str
            Such as ``part-000000.jsonl``.
        """
        return f"part-{number:06d}.{self.kind}"

    def span(self, number: int) -> range:
        """Return the positions of a partition's images in the list.

        Parameters
        ----------
        number
            Number of the partition, from 0.

        Returns
        -------
        range
            The positions, from 0.
        """
        return range(number * self.partition, min(self.images, (number + 1) * self.partition))


def choose_partition(images: int, workers: int) -> int:
    """Choose the number of images in a partition.

    Parameters
    ----------
    images
        Number of images.
    workers
        Number of workers that share them.

    Returns
    -------
    int
        `SMALLEST` to `LARGEST`.
    """
    return min(LARGEST, max(SMALLEST, math.ceil(images / (_EACH * workers))))


def fingerprint_list(sources: Sequence[str]) -> str:
    """Return the fingerprint of a list of paths and URLs, in their order.

    Parameters
    ----------
    sources
        The paths and URLs.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        digest.update(source.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


class Folder(Protocol):
    """The folder of the partitions."""

    def names(self) -> list[str]:
        """Return the names of its files without hidden ones.

        Returns
        -------
        list[str]
            The names, sorted; empty if the folder does not exist yet.
        """

    def read(self, name: str) -> bytes:
        """Read a file.

        Parameters
        ----------
        name
            Its name.

        Returns
        -------
        bytes
            Its content.

        Raises
        ------
        OSError
            If it cannot be read.
        """

    def write(self, name: str, content: bytes) -> None:
        """Write a file completely or not at all.

        Parameters
        ----------
        name
            Its name.
        content
            Its content.

        Raises
        ------
        OutputError
            If it cannot be written.
        """


def open_folder(place: str) -> Folder:
    """Open a folder in which files appear completely or not at all.

    Parameters
    ----------
    place
        A path, or the URL of an object store.

    Returns
    -------
    Folder
        The folder.

    Raises
    ------
    OutputError
        If the URL has another scheme, or the path is a file.
    """
    if not is_url(place):
        if Path(place).exists() and not Path(place).is_dir():
            raise OutputError(f"{place!r} is a file; partitions need a folder: give another name")
        return _LocalFolder(Path(place))
    scheme = place.partition("://")[0].lower()
    if scheme not in _OBJECT_STORES:
        raise OutputError(f"partitions cannot be written to {scheme}://; give a folder, or s3://, gs:// or az://")
    return _RemoteFolder(place)


class _LocalFolder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        with _listing(str(self._path)), suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self._path) if not name.startswith("."))  # noqa: PTH208
        return []

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        make_folder(self._path)
        write_atomically(self._path / name, content)


class _RemoteFolder:
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._store, path = open_store(self._url)
        self._path = path.rstrip("/")

    def names(self) -> list[str]:
        self._store.invalidate_cache()
        found: list[str] = []
        with _listing(self._url), suppress(FileNotFoundError):
            found = reach(self._url, lambda: self._store.ls(self._path, detail=False))
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found if str(path).rstrip("/") != self._path}
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        return bytes(reach(self._url, lambda: self._store.cat_file(f"{self._path}/{name}")))

    def write(self, name: str, content: bytes) -> None:
        place = f"{self._url}/{name}"
        with explaining(OutputError, f"cannot write {place!r}", "check the bucket and the permission"):
            reach(self._url, lambda: self._store.pipe_file(f"{self._path}/{name}", content))


def find_job(folder: Folder, place: str) -> Job | None:
    """Return the job whose partitions are in a folder.

    Parameters
    ----------
    folder
        The folder.
    place
        Its name in messages.

    Returns
    -------
    Job or None
        The job, None if the folder is empty or does not exist yet.

    Raises
    ------
    OutputError
        If the folder has other content.
    """
    names = folder.names()
    if not names:
        return None
    if _JOB not in names:
        raise OutputError(f"{place!r} is not empty, and not the output of a job ({names[0]}); give a new folder")
    with _reading(f"{place}/{_JOB}"):
        content = json.loads(folder.read(_JOB))
        if content.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another version of onspect wrote it")
        return parse_dataclass(Job, content)


def write_job(folder: Folder, job: Job, counts: Counter[str] | None = None) -> None:
    """Write the description of a job beside its partitions.

    Parameters
    ----------
    folder
        The folder.
    job
        The job.
    counts
        Count of each verdict once the job is complete, otherwise None.
    """
    content = {"format_version": FORMAT_VERSION} | dataclasses.asdict(job) | {"complete": counts}
    folder.write(_JOB, json.dumps(content, indent=2).encode() + b"\n")


def check_same(job: Job, wanted: Job, place: str) -> None:
    """Check that a job can be continued as the wanted one.

    Parameters
    ----------
    job
        The job in the folder.
    wanted
        The wanted job.
    place
        Name of the folder in messages.

    Raises
    ------
    OutputError
        If model, images or format differ.
    """
    lists = f"its list of {job.images} images is not the list of {wanted.images} that is given now"
    differences = (
        (job.sha256 == wanted.sha256, f"the model was {job.model}, and is {wanted.model} now"),
        (job.sources == wanted.sources, lists),
        (job.kind == wanted.kind, f"its partitions are {job.kind}, not {wanted.kind}"),
    )
    for same, what in differences:
        if not same:
            raise OutputError(f"the job in {place!r} is a different one: {what}; give the same again, or a new folder")


def read_written(folder: Folder, job: Job) -> dict[int, Counter[str]]:
    """Return the counts of the partitions that are written already.

    A partition that cannot be read, or has the wrong length, is skipped with a warning and judged again.

    Parameters
    ----------
    folder
        The folder.
    job
        The job.

    Returns
    -------
    dict[int, Counter[str]]
        Count of each verdict, by the number of the partition.

    Raises
    ------
    OutputError
        If the folder cannot be read.
    """
    names = set(folder.names())
    written = {}
    for number in range(job.partitions):
        if job.name(number) not in names:
            continue
        try:
            counts = count_verdicts(job.kind, folder.read(job.name(number)))
            if counts.total() != len(job.span(number)):
                raise ValueError(f"it has {counts.total()} verdicts for {len(job.span(number))} images")  # noqa: TRY301
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors and OSErrors
            _LOG.warning("%s is damaged (%s), and judged again", job.name(number), error)
            continue
        written[number] = counts
    return written


def encode(kind: Kind, verdicts: Sequence[Verdict]) -> bytes:
    """Encode the verdicts of a partition.

    Parameters
    ----------
    kind
        ``jsonl`` or ``parquet``.
    verdicts
        The verdicts in order.

    Returns
    -------
    bytes
        The content of the file.
    """
    if kind == "jsonl":
        return b"".join(encode_verdict(verdict) + b"\n" for verdict in verdicts)
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([_to_row(verdict) for verdict in verdicts], schema=_schema())
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def count_verdicts(kind: Kind, content: bytes) -> Counter[str]:
    """Count the verdicts in the file of a partition.

    Parameters
    ----------
    kind
        ``jsonl`` or ``parquet``.
    content
        The content of the file.

    Returns
    -------
    Counter[str]
        Count of each verdict.

    Raises
    ------
    ValueError
        If the content is truncated or damaged.
    KeyError
        If a line is not a verdict.
    OSError
        If the content is not Parquet.
    """
    if kind == "jsonl":
        if content and not content.endswith(b"\n"):
            raise ValueError("its last line has no end")
        return Counter(json.loads(line)["verdict"] for line in content.splitlines())
    from pyarrow import parquet

    return Counter(parquet.read_table(io.BytesIO(content), columns=["verdict"])["verdict"].to_pylist())


def _to_row(verdict: Verdict) -> dict[str, Any]:
    return to_row(verdict) | {"time": datetime.fromisoformat(verdict.time), "regions": verdict.to_dict()["regions"]}


def _schema() -> Any:
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    region = pa.struct({name: kinds[kind] for name, kind in get_type_hints(Region).items()})
    names = kinds | {tuple: pa.list_(region)}
    return pa.schema({name: names[kind] for name, kind in COLUMNS.items()} | {"time": pa.timestamp("ms", tz="UTC")})


def _listing(place: str) -> AbstractContextManager[None]:
    return explaining(OutputError, f"cannot read {place!r}", "check the permission, or give another folder")


@contextmanager
def _reading(place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"cannot read {place!r}: {error}; give a new folder") from error
