"""A job's output: a folder of partitions, each written whole or not at all, and what it takes to go on with a job."""

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
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, get_type_hints

from onspect.runtime.atomic import describe_os_error, make_folder, write_atomically
from onspect.runtime.errors import OutputError
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.ray.urls import is_url, open_store, reach
from onspect.runtime.records import parse_dataclass
from onspect.runtime.sinks.columns import COLUMNS, encode_verdict, to_row

_LOG = logging.getLogger("onspect")

Kind = Literal["jsonl", "parquet"]

FORMAT_VERSION = 1

SMALLEST, LARGEST = 64, 4096
"""Images of a partition: few enough that a lost worker loses little, many enough that a file is worth its name."""

_EACH = 16  # partitions a worker, so that the last ones end at about the same time
_JOB = "_job.json"  # the readers of Parquet folders pass over names that begin with _
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


@dataclass(frozen=True)
class Job:
    """What a job judges, and how it is parted; kept beside its partitions.

    model: name and first digits of the model file's SHA-256. sha256: all digits. sources: fingerprint of the list of
    images, in order. images: how many. partition: images in each partition but the last.
    """

    model: str
    sha256: str
    sources: str
    images: int
    partition: int
    kind: Kind

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return math.ceil(self.images / self.partition)

    def name(self, number: int) -> str:
        """Return the file name of a partition, by its number from 0."""
        return f"part-{number:06d}.{self.kind}"

    def span(self, number: int) -> range:
        """Return the positions of a partition's images in the list."""
        return range(number * self.partition, min(self.images, (number + 1) * self.partition))


def choose_partition(images: int, workers: int) -> int:
    """Return how many images a partition has where so many workers share so many images."""
    return min(LARGEST, max(SMALLEST, math.ceil(images / (_EACH * workers))))


def fingerprint_list(sources: Sequence[str]) -> str:
    """Return the fingerprint (32 hexadecimal digits) of a list of paths and URLs, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        digest.update(source.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


class Folder(Protocol):
    """Where the partitions lie."""

    def names(self) -> list[str]:
        """Return the names of its files, hidden ones left out; none where there is no such folder yet."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; raises OSError."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; raises OutputError."""
        ...


def open_folder(place: str) -> Folder:
    """Return the folder at a path, or at a URL of an object store, whose files appear whole or not at all.

    Raises OutputError for a URL of another kind, or a path that is a file.
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
        try:
            return sorted(name for name in os.listdir(self._path) if not name.startswith("."))  # noqa: PTH208
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(str(self._path), error) from error

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
        try:
            found = reach(self._url, lambda: self._store.ls(self._path, detail=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._url, error) from error
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found if str(path).rstrip("/") != self._path}
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        return bytes(reach(self._url, lambda: self._store.cat_file(f"{self._path}/{name}")))

    def write(self, name: str, content: bytes) -> None:
        try:
            reach(self._url, lambda: self._store.pipe_file(f"{self._path}/{name}", content))
        except OSError as error:
            place = f"{self._url}/{name}"
            raise OutputError(
                f"cannot write {place!r}: {describe_os_error(error)}; check the bucket and the permission"
            ) from error


def find_job(folder: Folder, place: str) -> Job | None:
    """Return the job whose partitions lie in a folder, None where the folder is empty or not there yet.

    Raises OutputError where it holds anything else.
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
    """Write what a job is beside its partitions; counts, of each verdict, stand there once it is complete."""
    content = {"format_version": FORMAT_VERSION} | dataclasses.asdict(job) | {"complete": counts}
    folder.write(_JOB, json.dumps(content, indent=2).encode() + b"\n")


def check_same(job: Job, wanted: Job, place: str) -> None:
    """Raise OutputError where a job cannot go on as the one that is wanted."""
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
    """Return what is written already: the count of each verdict by partition number.

    A partition that cannot be read, or is not as long as it should be, is left out with a warning: it is judged again.
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
    """Return the content of a partition's file."""
    if kind == "jsonl":
        return b"".join(encode_verdict(verdict) + b"\n" for verdict in verdicts)
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([_to_row(verdict) for verdict in verdicts], schema=_schema())
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def count_verdicts(kind: Kind, content: bytes) -> Counter[str]:
    """Return how many of each verdict a partition's file holds; raises ValueError, KeyError, OSError."""
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


def _unreadable(place: str, error: OSError) -> OutputError:
    return OutputError(
        f"cannot read {place!r}: {describe_os_error(error)}; check the permission, or give another folder"
    )


@contextmanager
def _reading(place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"cannot read {place!r}: {error}; give a new folder") from error
