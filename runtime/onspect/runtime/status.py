"""What a running line says about itself, and what it may be told; shared by the line, its sinks and its pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from onspect.runtime.errors import ChoiceError


@dataclass(frozen=True)
class SourceState:
    """How a source is: connected or not, how often it was opened again, and in words what went wrong last.

    message is empty where nothing is wrong, and never holds a password.
    """

    name: str
    connected: bool
    reconnects: int = 0
    message: str = ""


@dataclass(frozen=True)
class SinkState:
    """How a sink is: verdicts delivered, waiting in memory, kept on disk for later, and lost for good.

    message is empty where nothing is wrong, and never holds a password.
    """

    name: str
    delivered: int = 0
    queued: int = 0
    spooled: int = 0
    failed: int = 0
    message: str = ""


@dataclass(frozen=True)
class SignalState:
    """How the connection to a PLC is, and what became of the parts that it triggered.

    parts: accepted triggers. acknowledged, unacknowledged: results that the PLC has, or has not, acknowledged.
    failed: parts that had no verdict in time, so that their result was a fault. ejected: parts for which the reject
    coil was set. missed: parts that had to be rejected and passed the gate while the connection was broken. shift: as
    the PLC named it. message is empty where nothing is wrong, and never holds a password.
    """

    name: str
    connected: bool
    reconnects: int = 0
    parts: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    failed: int = 0
    ejected: int = 0
    missed: int = 0
    shift: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from a frame's capture to its verdict, over the last `count` frames; zeros where there were none."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    worst: float = 0.0
    count: int = 0


Now = Literal["waiting", "ok", "ng", "review", "fault", "lost"]
"""What a line shows at this moment.

``lost``: a camera is away; it goes before everything else. ``waiting``: no part came for `FADE_S` seconds, or none yet.
Else the verdict of the last part.
"""

FADE_S = 5.0
"""Seconds after which a verdict is no longer about now."""


@dataclass(frozen=True)
class Moment:
    """What a line shows now. source: the lost camera, or that of the last part; None while waiting for the first one.

    age: seconds since the last part's verdict, None before the first one.
    """

    now: Now = "waiting"
    source: str | None = None
    age: float | None = None


def describe_moment(lost: Sequence[str], last: tuple[Now, str] | None, age: float | None) -> Moment:
    """Return what a line shows now.

    lost: the names of cameras that are away. last: verdict and source of the last part. age: of this verdict, in
    seconds. Both are None before the first part.
    """
    age = None if age is None else round(age, 1)
    if lost:
        return Moment("lost", ", ".join(lost), age)
    if last is None or age is None:
        return Moment()
    return Moment("waiting" if age > FADE_S else last[0], last[1], age)


@dataclass(frozen=True)
class ThresholdMove:
    """A threshold that somebody set on a running line.

    score: the threshold that holds. before: the model file's own. model: the model on which it was set; with another
    model file the move is dropped.
    """

    score: float
    before: float
    model: str


@dataclass(frozen=True)
class LineStatus:
    """A line at one moment.

    Frames: captured == judged + dropped + faulted + empty + waiting, always; a frame is faulted where it could not be
    judged, dropped where a newer one took its place, empty where presence found no part in it that another frame does
    not show better, waiting while it is between capture and verdict.
    Verdicts: ok, ng, review, fault count what was handed to the sinks, one a part; where a part is one frame,
    ok + ng + review == judged and fault == faulted.
    model: name and checksum, as verdicts carry them. recipe: the model's name in the configuration, None without
    recipes. review: the score from which a part goes to a person, None where the model has no such band.
    alarm: in words why the alarm is raised, None where it is not. message: the last event worth a person's eye, such
    as a model that could not be loaded. drift: in words, None where none is seen. started, time: ISO 8601, UTC.
    signals: None without a PLC that triggers the parts.
    moved: the threshold that was set in place of the model file's, None if the file's own holds.
    now, now_source, now_age: as of `Moment`; `now` is what a display shows first.
    """

    started: str
    time: str
    running: bool
    model: str
    recipe: str | None
    threshold: float
    review_from: float | None
    captured: int = 0
    judged: int = 0
    dropped: int = 0
    faulted: int = 0
    waiting: int = 0
    empty: int = 0
    ok: int = 0
    ng: int = 0
    review: int = 0
    fault: int = 0
    swaps: int = 0
    sources: tuple[SourceState, ...] = ()
    sinks: tuple[SinkState, ...] = ()
    signals: SignalState | None = None
    latency: Latency = Latency()
    alarm: str | None = None
    drift: str | None = None
    message: str = ""
    moved: ThresholdMove | None = None
    now: Now = "waiting"
    now_source: str | None = None
    now_age: float | None = None

    @property
    def reconnects(self) -> int:
        """How often sources were opened again, all together."""
        return sum(source.reconnects for source in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of status messages."""
        return asdict(self) | {"reconnects": self.reconnects}


class Commands(Protocol):
    """What a running line may be told, from any thread; each takes effect between two parts.

    All raise ChoiceError or ModelFileError where the line cannot do it, and then it goes on as before.
    """

    def swap(self, path: Path | str) -> None:
        """Judge with another model file from the next part on; a bad file leaves the old one running."""
        ...

    def recipe(self, name: str) -> None:
        """Judge with the model that the configuration has under this name."""
        ...

    def set_threshold(self, score: float) -> float:
        """Move the running threshold, and return the one before; another model file drops the move."""
        ...

    def undo_threshold(self) -> tuple[float, float]:
        """Take the last move of the running threshold back, and return the threshold until then and from now on."""
        ...

    def stop(self) -> None:
        """Judge what was captured, flush the sinks and end."""
        ...

    def model_path(self) -> Path:
        """Return the model file that the next part is judged with."""
        ...

    def announce(self, change: Mapping[str, Any]) -> None:
        """Tell every sink of a change that a person made, as a JSON object (`labels.audit.Change`)."""
        ...


def obey(commands: Commands, message: Mapping[str, Any]) -> None:
    """Carry out a command as it comes over a wire, such as {"command": "swap", "model": "b.onnx"}.

    The others are {"command": "recipe", "name": "left"}, {"command": "threshold", "score": 3.2}, {"command": "undo"}
    (of the last move of the threshold) and {"command": "stop"}. Raises ChoiceError where the message is none of these,
    and as the commands do.
    """
    kinds: dict[str, tuple[str | None, type | tuple[type, ...], Any]] = {
        "swap": ("model", str, commands.swap),
        "recipe": ("name", str, commands.recipe),
        "threshold": ("score", (int, float), commands.set_threshold),
        "undo": (None, object, lambda _: commands.undo_threshold()),
        "stop": (None, object, lambda _: commands.stop()),
    }
    kind = message.get("command")
    if not isinstance(kind, str) or kind not in kinds:
        raise ChoiceError(f"the command is {kind!r}; give one of {', '.join(kinds)}")
    key, wanted, carry_out = kinds[kind]
    value = None if key is None else message.get(key)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ChoiceError(f"the command {kind!r} needs {key!r}, and it is {value!r}")
    carry_out(value)
