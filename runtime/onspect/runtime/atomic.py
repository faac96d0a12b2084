"""Write files completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from onspect.runtime.errors import OutputError

_ABANDONED_AFTER = 3600.0  # seconds
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def describe_os_error(error: OSError) -> str:
    """Return the operating system's words for an error.

    Parameters
    ----------
    error
        The error.

    Returns
    -------
    str
        The words without number and path.
    """
    return error.strerror or str(error)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError inside the block into an OutputError with the path.

    Parameters
    ----------
    path
        The file or folder that is written.

    Raises
    ------
    OutputError
        If the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = "free some space or choose another place" if error.errno in _FULL else "choose another place"
        raise OutputError(f"cannot write {str(path)!r}: {describe_os_error(error)}; {remedy}") from error


def check_place(path: Path, *, folder: bool = False) -> str:
    """Check whether a file, or into a folder, can be written. Nothing is written.

    Parameters
    ----------
    path
        The file or folder.
    folder
        Whether the path is that of a folder.

    Returns
    -------
    str
        The present state as text.

    Raises
    ------
    OutputError
        If it cannot be written: a part of its path is not a folder, or rights are missing.
    """
    if path.exists():
        right = os.W_OK | os.X_OK if folder else os.W_OK
        if path.is_dir() != folder:
            raise OutputError(f"cannot write {str(path)!r}: it is {'no' if folder else 'a'} folder; give another place")
        if not os.access(path, right):
            raise OutputError(f"cannot write {str(path)!r}: permission denied; change its rights or give another place")
        return "is there and can be written"
    parent = next(one for one in path.absolute().parents if one.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        why = "permission denied" if parent.is_dir() else f"{str(parent)!r} is not a folder"
        raise OutputError(f"cannot write {str(path)!r}: {why}; give another place")
    return "can be made"


def write_atomically(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never a part. A failure leaves the old content.

    If path is a link, its target is written.

    Parameters
    ----------
    path
        The file.
    data
        The new content.
    sync
        Whether to force the file to the disk. Without it a power cut may leave it empty.

    Raises
    ------
    OutputError
        If the disk is full or the folder cannot be written.
    """
    with ExitStack() as stack:
        _stage(path, data, stack, sync=sync)()


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files as `write_atomically` does, and their missing folders: all of them or none.

    Every file is complete on the disk before the first one gets its name. A failure leaves the old contents, and
    removes the folders that were created.

    Parameters
    ----------
    files
        The content of each file.

    Raises
    ------
    OutputError
        If the disk is full or a folder cannot be written.
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(path.parent for path in files):
            stack.enter_context(_making(folder))
        for finish in [_stage(path, data, stack) for path, data in files.items()]:
            finish()


def _stage(path: Path, data: bytes, stack: ExitStack, *, sync: bool = True) -> Callable[[], None]:
    """Write a temporary file, which the stack removes; return the function that gives it its name."""
    import secrets  # imported here: they load slowly, and printing verdicts needs neither
    import shutil

    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{_temporary_prefix(target)}{secrets.token_hex(8)}.tmp")

    def remove() -> None:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    def finish() -> None:
        with writing(path):
            temporary.replace(target)

    stack.callback(remove)
    with writing(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
    return finish


def write_new(path: Path, data: bytes) -> bool:
    """Write a file completely under a name that is free.

    Parameters
    ----------
    path
        The file.
    data
        The content.

    Returns
    -------
    bool
        False if the name is taken. Then nothing is changed.

    Raises
    ------
    OutputError
        If the disk is full or the folder cannot be written.
    """
    import secrets

    temporary = path.with_name(f"{_temporary_prefix(path)}{secrets.token_hex(8)}.tmp")
    with writing(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return _move_to_free_name(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _move_to_free_name(temporary: Path, path: Path) -> bool:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # a file system without links, as on a USB stick
        if os.path.lexists(path):
            return False
        temporary.rename(path)
    return True


def sweep_abandoned(path: Path) -> None:
    """Remove temporary files of an interrupted `write_atomically` of this file that are an hour old or more.

    No write takes an hour, so no write in progress loses its file, on any machine. It reads the whole folder, so it
    is for files that are seldom written. Files that cannot be removed are kept.

    Parameters
    ----------
    path
        The file that was written.
    """
    path = Path(os.path.realpath(path))
    with suppress(OSError):
        for abandoned in path.parent.glob(f"{_temporary_prefix(path)}*.tmp"):
            with suppress(OSError):
                if time.time() - abandoned.stat().st_mtime > _ABANDONED_AFTER:
                    abandoned.unlink()


def _temporary_prefix(path: Path) -> str:
    """Return the beginning of the names of a file's temporary files.

    It is not the file's own name, which may have the largest length already.
    """
    return f".onspect-{hashlib.blake2b(os.fsencode(path.name), digest_size=4).hexdigest()}-"


def make_folder(folder: Path) -> Path:
    """Create a folder with its missing parents.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        If it cannot be created.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Create a folder with its missing parents. If the block fails, remove those that are empty then."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for made in missing:
                made.rmdir()
        raise


@contextmanager
def new_folder(folder: Path, *, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Create a folder for results that are only useful together. If the block fails, they are removed.

    What was in the folder before stays, and an interruption counts as a failure. Only the block may write into the
    folder.

    Parameters
    ----------
    folder
        The folder; missing parents are created too, and removed again.
    keep
        Called after a failure: whether the results are kept nevertheless, because the work can be continued.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    OutputError
        If it cannot be created.
    """
    import shutil

    before = set(folder.iterdir()) if folder.is_dir() else set()
    with _making(folder):
        try:
            yield folder
        except BaseException:
            if not keep():
                with suppress(OSError):
                    for path in set(folder.iterdir()) - before:
                        if path.is_dir() and not path.is_symlink():
                            shutil.rmtree(path, ignore_errors=True)
                        else:
                            path.unlink()
            raise


def identify(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file, which differs from that of a file that replaces it.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    tuple[int, int] or None
        Device and inode number, None if there is no file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
