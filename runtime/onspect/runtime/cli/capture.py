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
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from onspect.runtime.cli.base import PictureCommand, ProgressLines, say, shows_progress, usage_errors
from onspect.runtime.cli.options import presence_white_option
from onspect.runtime.errors import ChoiceError, OutputError, SourceError
from onspect.runtime.text import count_of

if TYPE_CHECKING:
    from onspect.runtime.capture.frames import Exposure
    from onspect.runtime.capture.recorder import CaptureCounts, Recorded
    from onspect.runtime.capture.triggers import Trigger
    from onspect.runtime.sources.base import Capture, Source

_LOG = logging.getLogger("onspect")

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_PREVIEW_PAUSE = 0.2  # seconds
_CLIPPED = 1.0  # percent of white values that cause a warning
_FEW = 10  # pictures that 'teach' should have


@dataclass(frozen=True)
class _Every:
    """A distance between pictures: seconds, or frames."""

    seconds: float | None
    frames: int


def _read_every(context: click.Context, option: click.Parameter, text: str | None) -> _Every | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)?", text.strip())
    number = float(found[1]) if found else 0.0
    if found is None or not number or (found[2] is None and not number.is_integer()):
        words = f"{text!r} is neither a time such as 500ms, 2s, 5min or 1h nor a number of frames such as 10"
        raise click.BadParameter(words, context, option)
    return _Every(None, int(number)) if found[2] is None else _Every(number * _UNITS[found[2]], 1)


@click.command(cls=PictureCommand)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder for the pictures.")
@click.option(
    "--every",
    metavar="TIME|FRAMES",
    callback=_read_every,
    help="A picture each 2s (ms, s, min, h), or each 10 frames  [default: a key for cameras, each frame of files].",
)
@click.option(
    "--presence",
    metavar="learn=5s|FILE",
    help="A picture of each part that passes, cut out of its best frame. Their appearance is learnt from the first "
    "seconds, or read from a file that 'onspect parts' wrote (docs/presence.md).",
)
@presence_white_option
@click.option("--count", type=click.IntRange(min=1), help="Stop after this number of pictures.")
@click.option("--keep-similar", is_flag=True, help="Also keep frames that repeat an earlier picture.")
def capture(
    source: str,
    output: Path,
    every: _Every | None,
    presence: str | None,
    white_level: int | None,
    count: int | None,
    keep_similar: bool,
) -> None:
    """Write frames of SOURCE as pictures into a folder.

    SOURCE is a camera, a URL, genicam:SERIAL, a video file or a folder, as for 'onspect run'. With a camera and without
    --every, SPACE or Enter takes a picture and q ends. The terminal shows sharpness and exposure. Frames that repeat a
    picture of this call are left out. Pictures are PNG files with all bits of the camera. Numbers continue after the
    last one in the folder; nothing is overwritten. Ctrl-C ends. With --presence each part gives one picture: the crop
    that 'onspect run --presence' judges.

    \b
    Example:
      onspect capture 0 -o parts/train/good
      onspect capture rtsp://10.0.0.5/stream --every 2s --count 50 -o parts/train/good
      onspect capture line.mp4 --every 10 -o parts/train/good
      onspect capture 0 --presence learn=5s --count 50 -o parts/train/good
    """
    from onspect.runtime.capture.recorder import CaptureCounts, PictureFolder, record
    from onspect.runtime.sources.registry import open_source

    if every is not None and presence is not None:
        raise click.UsageError("--every and --presence exclude each other; give one")
    if white_level is not None and presence is None:
        raise click.UsageError("--white-level needs --presence; without it pictures keep the values of the camera")
    counts = CaptureCounts()
    with usage_errors(), ExitStack() as stack:
        opened = stack.enter_context(open_source(source))
        _check_place(source, output)
        trigger = _choose_trigger(opened, Path(source), every, presence, white_level, stack)
        folder = PictureFolder(output)
        display = _Display(counts, trigger)
        captures = stack.enter_context(_Interruptible(opened))
        keep_similar = keep_similar or presence is not None  # two parts may look equal
        for item in record(captures, folder, trigger, counts=counts, count=count, keep_similar=keep_similar):
            display.show(item)
        display.end()
    judge = ""
    if presence is not None:
        judge = f", then onspect run part.onnx {shlex.quote(source)} --presence {shlex.quote(presence)}"
    _summarize(output, folder.list_written(), counts, display, trigger, judge)


def _check_place(source: str, output: Path) -> None:
    folder = Path(source)
    if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{str(output)!r} is in the folder that is read; give another folder with -o")


def _choose_trigger(
    source: Source,
    path: Path,
    every: _Every | None,
    presence: str | None,
    white_level: int | None,
    stack: ExitStack,
) -> Trigger:
    """Return the trigger that chooses the frames to write."""
    from onspect.runtime.capture.triggers import CountTrigger, KeyTrigger, PresenceTrigger, TimeTrigger

    if presence is not None:
        from onspect.runtime.presence.settings import parse_presence

        return PresenceTrigger(parse_presence(presence, white_level), live=source.live)
    if every is not None and every.seconds is not None:
        return TimeTrigger(every.seconds) if source.live else CountTrigger(_count_frames(path, every.seconds))
    if every is not None or not source.live:
        return CountTrigger(1 if every is None else every.frames)
    if not sys.stdin.isatty():
        raise ChoiceError("taking pictures by key needs a terminal; give --every, such as --every 2s, or --presence")
    from onspect.runtime.capture.keys import Keys

    return KeyTrigger(stack.enter_context(Keys(sys.stdin)).read)


def _count_frames(path: Path, seconds: float) -> int:
    """Return the number of frames of a video in a number of seconds."""
    import cv2

    rate = 0.0
    if path.is_file():
        video = cv2.VideoCapture(str(path))
        rate = video.get(cv2.CAP_PROP_FPS)
        video.release()
    if not rate > 0:
        raise ChoiceError(f"{str(path)!r} does not say when a frame was taken; give a number of frames, as --every 10")
    return max(1, round(rate * seconds))


class _Interruptible:
    """The captures of a source until Ctrl-C or SIGTERM, which ends the capture in order. The second signal aborts."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._asked = self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __iter__(self) -> Iterator[Capture]:
        captures = iter(self._source)
        while not self._asked:
            self._waiting = True
            try:
                capture = next(captures)
            except (StopIteration, KeyboardInterrupt):
                return
            finally:
                self._waiting = False
            yield capture

    def _note(self, *_: object) -> None:
        again, self._asked = self._asked, True
        if again or self._waiting:
            raise KeyboardInterrupt


class _Display:
    """The preview line of a terminal, or a line from time to time if stderr is not a terminal."""

    def __init__(self, counts: CaptureCounts, trigger: Trigger) -> None:
        from onspect.runtime.capture.frames import ExposureMeter

        self.overexposed = 0
        self._counts = counts
        self._trigger = trigger
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
        """Clear the line."""
        if self._width:
            self._draw("")
            click.echo("\r", nl=False, err=True)

    def _describe(self, exposure: Exposure) -> str:
        words = [
            f"sharpness {exposure.sharpness:.1f} (best {self._sharpest:.1f})",
            f"brightness {exposure.brightness:.0f}%, white {exposure.white:.1f}%",
            self._describe_counts(),
            self._trigger.hint,
        ]
        return " | ".join(word for word in words if word)

    def _describe_counts(self) -> str:
        similar = f", {self._counts.similar} similar" if self._counts.similar else ""
        return f"{self._counts.saved} saved{similar}"

    def _draw(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        click.echo("\r" + text.ljust(self._width), nl=False, err=True)
        self._width = len(text)


def _summarize(
    output: Path, saved: list[Path], counts: CaptureCounts, display: _Display, trigger: Trigger, judge: str
) -> None:
    facts = [f"{count_of(counts.similar, 'frame')} left out that repeat a picture"] if counts.similar else []
    facts += [f"{count_of(counts.damaged, 'frame')} could not be read"] if counts.damaged else []
    facts += [f"{count_of(number, 'part')} not taken: {reason}" for reason, number in trigger.failed.items()]
    left = "; ".join(["", *facts])
    if not saved:
        raise SourceError(f"no picture was written from {count_of(counts.seen, 'frame')}{left}{trigger.advice}")
    names = saved[0].name if len(saved) == 1 else f"{saved[0].name} to {saved[-1].name}"
    say(f"wrote {count_of(len(saved), 'picture')} to {output} ({names}){left}")
    if display.overexposed:
        words = "%d of %d pictures have more than 1%% of white pixels: lower the exposure and take them again"
        _LOG.warning(words, display.overexposed, len(saved))
    number = int(saved[-1].stem)
    if output.resolve().parent.name in ("val", "test"):
        return
    if number < _FEW:
        say(f"next: take more pictures, {_FEW} or more of different good parts")
    else:
        say(f"next: onspect teach {shlex.quote(str(output))} -o part.onnx{judge}")
