"""The command `onspect capture`."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.cli.base import Command, ProgressLines, say, shows_progress, usage_errors
from onspect.runtime.errors import ChoiceError, OutputError, SourceError
from onspect.runtime.text import count_of

if TYPE_CHECKING:
    from onspect.runtime.capture.frames import Exposure
    from onspect.runtime.capture.recorder import CaptureCounts, Recorded
    from onspect.runtime.sources.base import Capture, Source

_LOG = logging.getLogger("onspect")

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_PREVIEW_PAUSE = 0.2  # seconds
_CLIPPED = 1.0  # percent of white values from which on a user is told
_FEW = 10  # pictures that 'teach' should have


@dataclass(frozen=True)
class _Every:
    """A distance between pictures: seconds, or frames."""

    seconds: float | None
    frames: int


class _EveryType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A time such as 2s, or a number of frames such as 10."""

    name = "TIME|FRAMES"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> _Every:
        if isinstance(value, _Every):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)?", str(value).strip())
        number = float(found[1]) if found else 0.0
        if found is None or not number or (found[2] is None and not number.is_integer()):
            self.fail(f"{value!r} is neither a time such as 2s nor a number of frames such as 10", param, ctx)
        return _Every(None, int(number)) if found[2] is None else _Every(number * _UNITS[found[2]], 1)


@click.command(cls=Command)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder for the pictures.")
@click.option(
    "--every",
    type=_EveryType(),
    help="A picture each 2s (ms, s, min, h), or each 10 frames  [default: a key for cameras, each frame of files].",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after this number of pictures.")
@click.option("--keep-similar", is_flag=True, help="Also keep frames that repeat an earlier picture.")
def capture(source: str, output: Path, every: _Every | None, count: int | None, keep_similar: bool) -> None:
    """Write frames of SOURCE as pictures into a folder.

    SOURCE is a camera, a URL, genicam:SERIAL, a video file or a folder, as for 'onspect run'. With a camera and without
    --every, SPACE or Enter takes a picture and q ends. The terminal shows sharpness and exposure. Frames that repeat a
    picture of this call are left out. Pictures are PNG files with all bits of the camera. Numbers continue after the
    last one in the folder; nothing is overwritten. Ctrl-C ends.

    \b
    Example:
      onspect capture 0 -o parts/train/good
      onspect capture rtsp://10.0.0.5/stream --every 2s --count 50 -o parts/train/good
      onspect capture line.mp4 --every 10 -o parts/train/good
    """
    from onspect.runtime.capture.recorder import CaptureCounts, PictureFolder, record
    from onspect.runtime.images.decode import quieten_opencv
    from onspect.runtime.sources.registry import open_source

    quieten_opencv()
    counts = CaptureCounts()
    with usage_errors(), ExitStack() as stack:
        opened = stack.enter_context(open_source(source))
        _check_place(source, output)
        wants, ended = _choose_trigger(opened, Path(source), every, stack)
        folder = PictureFolder(output)
        display = _Display(counts, hint="SPACE: picture, q: end" if ended is not None else "")
        with _stopping_at_signals():
            for item in record(opened, folder, wants, counts=counts, count=count, keep_similar=keep_similar):
                display.show(item)
                if ended is not None and ended():
                    break
        display.end()
    _summarize(output, folder.list_written(), counts, display)


def _check_place(source: str, output: Path) -> None:
    folder = Path(source)
    if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{str(output)!r} is in the folder that is read; give another folder with -o")


def _choose_trigger(
    source: Source, path: Path, every: _Every | None, stack: ExitStack
) -> tuple[Callable[[Capture], bool], Callable[[], bool] | None]:
    """Return what tells whether a frame is wanted, and for keys what tells whether the user has ended it."""
    if every is not None and every.seconds is not None:
        return (_Timer(every.seconds) if source.live else _Counter(_count_frames(path, every.seconds))), None
    if every is not None or not source.live:
        return _Counter(1 if every is None else every.frames), None
    if not sys.stdin.isatty():
        raise ChoiceError("taking pictures by key needs a terminal; give --every, such as --every 2s")
    from onspect.runtime.capture.keys import Keys

    trigger = _KeyTrigger(stack.enter_context(Keys(sys.stdin)).read)
    return trigger, trigger.has_ended


class _Timer:
    """Wants the first frame, and then one after each pause."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = time.monotonic()

    def __call__(self, _: Capture) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = max(self._due + self._seconds, now)
        return True


class _Counter:
    """Wants the first frame, and then each so many."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._count = -1

    def __call__(self, _: Capture) -> bool:
        self._count += 1
        return self._count % self._step == 0


class _KeyTrigger:
    """Wants a frame after SPACE or Enter."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._ended = False

    def __call__(self, _: Capture) -> bool:
        keys = self._read().lower()
        self._ended = self._ended or "q" in keys or "\x1b" in keys
        return any(key in keys for key in " \r\n")

    def has_ended(self) -> bool:
        return self._ended


def _count_frames(path: Path, seconds: float) -> int:
    """Return how many frames of a video last so many seconds."""
    import cv2

    rate = 0.0
    if path.is_file():
        video = cv2.VideoCapture(str(path))
        rate = video.get(cv2.CAP_PROP_FPS)
        video.release()
    if not rate > 0:
        raise ChoiceError(f"{str(path)!r} does not say when a frame was taken; give a number of frames, as --every 10")
    return max(1, round(rate * seconds))


@contextmanager
def _stopping_at_signals() -> Iterator[None]:
    """Leave the block at Ctrl-C or SIGTERM; a picture that is being written is then whole or not there."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


class _Display:
    """The preview line of a terminal, or a line from time to time where stderr is none."""

    def __init__(self, counts: CaptureCounts, hint: str) -> None:
        from onspect.runtime.capture.frames import ExposureMeter

        self.overexposed = 0
        self._counts = counts
        self._hint = hint
        self._meter = ExposureMeter()
        self._lines = ProgressLines()
        self._sharpest = 0.0
        self._due = 0.0
        self._width = 0

    def show(self, item: Recorded) -> None:
        """Show a frame."""
        due = shows_progress() and time.monotonic() >= self._due
        if item.frame is not None and (due or item.path is not None):
            exposure = self._meter.measure(item.frame)
            self._sharpest = max(self._sharpest, exposure.sharpness)
            if item.path is not None:
                self.overexposed += exposure.white > _CLIPPED
            if due:
                self._draw(self._describe(exposure))
                self._due = time.monotonic() + _PREVIEW_PAUSE
        if self._lines.are_due():
            say(f"{count_of(self._counts.seen, 'frame')}, {self._describe_counts()}")

    def end(self) -> None:
        """Leave the line empty."""
        if self._width:
            self._draw("")
            click.echo("\r", nl=False, err=True)

    def _describe(self, exposure: Exposure) -> str:
        words = [
            f"sharpness {exposure.sharpness:.1f} (best {self._sharpest:.1f})",
            f"brightness {exposure.brightness:.0f}%, white {exposure.white:.1f}%",
            self._describe_counts(),
            self._hint,
        ]
        return " | ".join(word for word in words if word)

    def _describe_counts(self) -> str:
        similar = f", {self._counts.similar} similar" if self._counts.similar else ""
        return f"{self._counts.saved} saved{similar}"

    def _draw(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        click.echo("\r" + text.ljust(self._width), nl=False, err=True)
        self._width = len(text)


def _summarize(output: Path, saved: list[Path], counts: CaptureCounts, display: _Display) -> None:
    facts = [f"{count_of(counts.similar, 'frame')} left out that repeat a picture"] if counts.similar else []
    facts += [f"{count_of(counts.damaged, 'frame')} could not be read"] if counts.damaged else []
    left = "; ".join(["", *facts])
    if not saved:
        raise SourceError(f"no picture was written from {count_of(counts.seen, 'frame')}{left}")
    names = saved[0].name if len(saved) == 1 else f"{saved[0].name} to {saved[-1].name}"
    say(f"wrote {count_of(len(saved), 'picture')} to {output} ({names}){left}")
    if display.overexposed:
        _LOG.warning(
            "%d of %d pictures have more than 1%% of white pixels: lower the exposure and take them again",
            display.overexposed,
            len(saved),
        )
    number = int(saved[-1].stem)
    if number < _FEW:
        say(f"next: take more pictures, {_FEW} or more of different good parts")
    else:
        say(f"next: onspect teach {shlex.quote(str(output))} -o part.onnx")
