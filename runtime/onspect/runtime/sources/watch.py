"""A folder into which a camera or another program writes images: each image is taken once it is complete."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from onspect.runtime.address import parse_place
from onspect.runtime.atomic import check_place, describe_os_error, make_folder
from onspect.runtime.errors import ChoiceError, DatasetError, ImageError, OutputError, SourceError
from onspect.runtime.explain import explaining
from onspect.runtime.fingerprints import Signature, sign_file
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.files import IMAGE_SUFFIXES, describe_left_out, is_left_out, list_images
from onspect.runtime.outliers import name_some
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.reopen import LiveSource
from onspect.runtime.text import count_of

_LOG = logging.getLogger("onspect")

_POLL = 0.2  # seconds between two reads of the folder
_GRACE = 5.0  # seconds to wait for an incomplete image that no longer grows


def open_watch(text: str) -> WatchSource:
    """Return a watched folder as a source.

    Parameters
    ----------
    text
        The address, ``watch:DIR?done=DIR&poll=SECONDS``.

    Returns
    -------
    WatchSource
        The source.

    Raises
    ------
    ChoiceError
        If an option is unknown, or DIR is not a folder.
    """
    folder, options = parse_place(text, {"done": "DIR", "poll": "SECONDS"})
    if not Path(folder).is_dir():
        raise ChoiceError(f"{folder!r} in {text!r} is not a folder; create it, or name the one that images come into")
    return WatchSource(Path(folder), done=options.path("done"), poll=options.number("poll") or _POLL)


class WatchSource(LiveSource):
    """The images that come into a folder, in the order of their times, each once it is complete.

    A file is complete if it is a whole image and two reads, `poll` seconds apart, give the same size and time. This
    works on network shares too, which do not announce new files. A file that is written again is a new image. A file
    that vanishes before it is taken is a fault. Files that are not images are counted in a warning. When the source is
    stopped, all waiting images are taken, and an incomplete one is a fault at once.

    Parameters
    ----------
    folder
        The watched folder; its subfolders are ignored.
    done
        Folder to which each image is moved once its verdict was handed to the sinks. Images that are in the watched
        folder at the start are then judged. None leaves all images in place and ignores those at the start.
    poll
        Seconds between two reads of the folder.
    grace
        Seconds after which an incomplete image that no longer grows is a fault.
    retry
        Pauses before a lost folder is read again.
    """

    can_wait = True

    def __init__(
        self,
        folder: Path,
        *,
        done: Path | None = None,
        poll: float = _POLL,
        grace: float = _GRACE,
        retry: Retry = Retry(),
    ) -> None:
        self._done = done
        self._poll = poll
        self._grace = grace
        self._known: dict[str, Signature] | None = {} if done is not None else None
        self._folder = folder
        self._device: _Folder | None = None
        super().__init__(f"watch:{folder}", self._open, patience=None, retry=retry)

    def __iter__(self) -> Iterator[Capture]:
        yield from super().__iter__()
        device = self._device
        if self._stopped.is_set() and device is not None:
            self._device = None
            yield from device.finish()

    def __enter__(self) -> Self:
        """Check that images can be moved to `done`; raises OutputError if not."""
        if self._done is not None:
            check_place(self._done, folder=True)
        return self

    def task_done(self, capture: Capture) -> None:
        """Move a judged image to `done`, if it is set.

        Parameters
        ----------
        capture
            The capture.
        """
        path = Path(capture.source)
        if self._done is None or self._known is None or sign_file(path) != self._known.get(path.name):
            return  # another image has come under the same name and is not judged yet
        try:
            shutil.move(path, _free_name(make_folder(self._done) / path.name))
        except (OSError, OutputError) as error:
            why = describe_os_error(error) if isinstance(error, OSError) else error
            _LOG.warning("cannot move %r to %r: %s", str(path), str(self._done), why)

    def _open(self) -> _Folder:
        if self._known is None:
            self._known = _look(self._folder)
            if self._known:
                _LOG.warning("%s: %s already there, not judged", self.name, count_of(len(self._known), "image"))
        self._device = _Folder(self._folder, self._known, self, self._grace)
        return self._device

    def list_folders(self) -> list[str]:
        """Return the subfolders of the watched folder that have images, other than `done`.

        Returns
        -------
        list[str]
            Names of the folders.
        """
        found = []
        with suppress(OSError, DatasetError):
            for path in sorted(self._folder.iterdir()):
                is_done = self._done is not None and self._done.exists() and path.samefile(self._done)
                if path.is_dir() and not is_left_out(path.name) and not is_done and list_images(path)[0]:
                    found.append(path.name)
        return found

    def wait_for_next_look(self) -> None:
        """Wait until the next read of the folder, or until the source is stopped."""
        self._stopped.wait(min(self._poll, 1.0))


@dataclass
class _Candidate:
    """A file that is new or has changed: its last signature, and the time since it has it."""

    signature: Signature
    since: float
    looks: int = 1


class _Folder:
    """The folder between two losses. known: signature of each file when it was taken; the source keeps it."""

    def __init__(self, folder: Path, known: dict[str, Signature], source: WatchSource, grace: float) -> None:
        self._folder = folder
        self._known = known
        self._source = source
        self._grace = grace
        self._candidates: dict[str, _Candidate] = {}
        self._ready: deque[str] = deque()
        self._vanished: deque[str] = deque()
        """Files that vanished before they were taken and are not reported yet."""
        self._others: set[str] = set()
        self._name = source.name
        _look(folder)

    def read(self) -> Capture | None:
        if not self._ready:
            self._source.wait_for_next_look()
            self._find_complete()
        if self._vanished:
            return self._tell_vanished()
        while self._ready:
            capture = self._take(self._ready.popleft())
            if capture is not None:
                return capture
        return None

    def _tell_vanished(self) -> Capture:
        path = str(self._folder / self._vanished.popleft())
        _LOG.warning("%s: the image %r vanished before it was judged", self._name, path)
        return Capture(path, ImageError("the file vanished before it was judged", code="vanished"))

    def finish(self) -> Iterator[Capture]:
        """Yield the waiting images, complete or as faults, and warn of the ignored files."""
        try:
            self._find_complete()
        except SourceError:
            return  # a capture already reports the loss of the folder
        self._ready.clear()
        for name in sorted(self._candidates, key=lambda name: (self._candidates[name].signature[0], name)):
            capture = self._take(name, patient=False)
            if capture is not None:
                yield capture
        while self._vanished:
            yield self._tell_vanished()
        facts = [words] if (words := describe_left_out(self._others, self._folder)) else []
        if folders := self._source.list_folders():
            facts.append(f"folder{'s' * (len(folders) != 1)} not looked into: {name_some(folders)}")
        if facts:
            _LOG.warning("left out in %r: %s", str(self._folder), "; ".join(facts))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _find_complete(self) -> None:
        found = _look(self._folder, self._others)
        for name in set(self._known) - set(found):
            del self._known[name]
        files = {(time_, file) for time_, _, file in found.values()}  # a new file may get the number of a deleted one
        for name in sorted(set(self._candidates) - set(found)):
            time_, _, file = self._candidates[name].signature
            if (time_, file) not in files:  # otherwise it was only renamed
                self._vanished.append(name)
        self._candidates = {name: one for name, one in self._candidates.items() if name in found}
        for name, signature in found.items():
            if self._known.get(name) == signature:
                continue
            candidate = self._candidates.get(name)
            if candidate is None or candidate.signature != signature:
                self._candidates[name] = _Candidate(signature, time.monotonic())
            else:
                candidate.looks += 1
        complete = [name for name, one in self._candidates.items() if one.looks >= 2]
        self._ready.extend(sorted(complete, key=lambda name: (self._candidates[name].signature[0], name)))

    def _take(self, name: str, *, patient: bool = True) -> Capture | None:
        candidate = self._candidates[name]
        path = self._folder / name
        try:
            frame: Capture | None = Capture(str(path), read_image(path))
        except ImageError as error:
            young = patient and time.monotonic() - candidate.since < self._grace
            frame = None if young else Capture(str(path), error.with_traceback(None))
        signature = sign_file(path)
        if signature is None and not patient:
            self._vanished.append(name)
            return None
        if patient and (frame is None or signature != candidate.signature):  # it grew while it was read
            return None
        del self._candidates[name]
        self._known[name] = candidate.signature
        return frame


def _look(folder: Path, others: set[str] | None = None) -> dict[str, Signature]:
    """Return the images of a folder, and add the names of other files to others."""
    with explaining(SourceError, f"cannot read the folder {str(folder)!r}"):
        names = os.listdir(folder)  # noqa: PTH208 - names, no paths
    shown = [name for name in names if not is_left_out(name)]
    images = [name for name in shown if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    signed = {name: sign_file(folder / name) for name in images}
    if others is not None:
        others.update(str(folder / name) for name in set(shown) - set(images) if (folder / name).is_file())
        unsigned = (folder / name for name, signature in signed.items() if signature is None)
        others.update(str(path) for path in unsigned if path.is_symlink() or path.is_fifo())
    return {name: signature for name, signature in signed.items() if signature is not None}


def _free_name(path: Path) -> Path:
    """Return the path, or one with a number if the path is taken."""
    free, number = path, 1
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free
