"""Find and read images behind URLs: s3://, gs://, az://, file:// and the other schemes of fsspec."""

from __future__ import annotations

import errno
import glob
import logging
import posixpath
import re
from collections.abc import Callable
from typing import Any, TypeVar

from onspect.runtime.credentials import redact
from onspect.runtime.errors import ChoiceError, DatasetError, ImageError, SourceError
from onspect.runtime.explain import explaining
from onspect.runtime.images.files import IMAGE_SUFFIXES, describe_left_out, is_left_out

_LOG = logging.getLogger("onspect")

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # at least two letters: C:// is a drive of Windows
_UNREACHABLE = {errno.EBUSY, errno.EHOSTUNREACH, errno.ENETUNREACH}  # a busy store is not a fault of the file

_PASSWORD = re.compile(r"[^/]+://[^/]*:[^/]*@")

T = TypeVar("T")


def is_url(text: str) -> bool:
    """Return whether a text is a URL rather than a path.

    Parameters
    ----------
    text
        The text.

    Returns
    -------
    bool
        True if it begins with a scheme of two letters or more.
    """
    return _URL.match(text) is not None


def expand_url(url: str) -> list[str]:
    """Return the URLs of the images that a URL names: all below a folder, or all that match a glob pattern.

    Any other URL is returned unchanged, whatever its ending, so that it is judged or becomes a fault. Hidden images
    and images in a file server's own folders are left out and counted in a warning.

    Parameters
    ----------
    url
        The URL.

    Returns
    -------
    list[str]
        The URLs, sorted.

    Raises
    ------
    DatasetError
        If the URL names no image.
    ChoiceError
        If the URL contains a password.
    SourceError
        If the store cannot be reached.
    """
    if _PASSWORD.match(url):
        raise ChoiceError(
            f"{redact(url)!r} contains a password, which would appear in every verdict; give it in the environment "
            f"instead"
        )
    filesystem, path = open_store(url)
    if reach(url, lambda: filesystem.isdir(path)):
        return _list_folder(filesystem, url, path)
    if not glob.has_magic(url) or reach(url, lambda: filesystem.exists(path)):
        return [url]
    pattern = str(filesystem._strip_protocol(url))
    first = next(place for place, letter in enumerate(url) if letter in "*?[")
    base = url[: url.rindex("/", 0, first) + 1]
    matches = sorted(reach(url, lambda: filesystem.glob(pattern, detail=True)).items())
    files = [name for name, facts in matches if facts["type"] == "file"]
    if len(files) < len(matches) and "**" not in url:
        _LOG.warning("folders matched by %r and left out: %d; name them", url, len(matches) - len(files))
    found = [name for name in _under(filesystem, base, files) if "/." in url or "/." not in name[len(base) - 1 :]]
    if not found:
        raise DatasetError(f"no file matches {url!r}; check the pattern")
    return found


def read_url(url: str) -> bytes:
    """Read the file behind a URL.

    Parameters
    ----------
    url
        The URL.

    Returns
    -------
    bytes
        The bytes of the file.

    Raises
    ------
    ImageError
        If this file cannot be read.
    SourceError
        If the store cannot be reached. The file may be readable later.
    """
    filesystem, path = open_store(url)
    with explaining(ImageError, "cannot read the file"):
        return bytes(reach(url, lambda: filesystem.cat_file(path)))


def open_store(url: str) -> tuple[Any, str]:
    """Open the file system of a URL.

    Parameters
    ----------
    url
        The URL.

    Returns
    -------
    tuple[Any, str]
        The fsspec file system, and the path in it.

    Raises
    ------
    DatasetError
        If no file system supports the URL.
    """
    import fsspec

    what = f"cannot open {redact(url)!r}"
    with explaining(DatasetError, what, of=ImportError), explaining(DatasetError, what, "check the URL", of=ValueError):
        filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem, str(path)


def reach(url: str, work: Callable[[], T]) -> T:
    """Call a function that uses a store.

    Parameters
    ----------
    url
        The URL, for messages.
    work
        The function.

    Returns
    -------
    T
        The result of the function. Its OSError is raised unchanged.

    Raises
    ------
    SourceError
        If the store itself does not answer.
    """
    try:
        return work()
    except OSError as error:
        if not isinstance(error, ConnectionError | TimeoutError) and error.errno not in _UNREACHABLE:
            raise
        raise _unreachable(url, error) from error
    except Exception as error:  # every store's client has its own exceptions
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> SourceError:
    place = redact(posixpath.dirname(url))
    return SourceError(
        f"cannot reach {place!r}: {redact(str(error)) or type(error).__name__}; check access, and try again"
    )


def _list_folder(filesystem: Any, url: str, path: str) -> list[str]:
    found = sorted(str(name) for name in reach(url, lambda: filesystem.find(path)))
    start = len(path.rstrip("/")) + 1
    images, others = [], []
    for name in found:
        is_image = posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES
        hidden = any(is_left_out(part) for part in name[start:].split("/"))
        if is_image and not hidden:
            images.append(name)
        elif is_image or not hidden:
            others.append(name)
    words = describe_left_out(others, path)
    if not images:
        raise DatasetError(f"there are no images in {url!r} (left out: {words or '0 files'}); check the URL")
    if words:
        _LOG.warning("left out in %r: %s", url, words)
    return _under(filesystem, url.rstrip("/") + "/", images)


def _under(filesystem: Any, base: str, names: list[str]) -> list[str]:
    """Return URLs that begin as the user wrote them, whatever names a store uses for its files."""
    root = str(filesystem._strip_protocol(base)).rstrip("/")
    return [base + name[len(root) :].lstrip("/") for name in names]
