"""The status of a running line and its commands. The line, its sinks and its pages share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from onspect.runtime.errors import ChoiceError
from onspect.runtime.judgement import Judgement


@dataclass(frozen=True)
class SourceState:
    """The state of a source."""

    name: str
    """Name of the source."""

    connected: bool
    """Whether frames arrive."""

    reconnects: int = 0
    """Number of times it was opened again."""

    message: str = ""
    """The present problem, empty without one. It never has a password."""


@dataclass(frozen=True)
class SinkState:
    """The state of a sink."""

    name: str
    """Name of the sink, without secrets."""

    delivered: int = 0
    """Number of delivered verdicts."""

    queued: int = 0
    """Number of verdicts that wait in memory."""

    spooled: int = 0
    """Number of verdicts on disk for later."""

    failed: int = 0
    """Number of verdicts that are lost for good."""

    message: str = ""
    """The present problem, empty without one. It never has a password."""


@dataclass(frozen=True)
class SignalState:
    """The state of the connection to a PLC, and of the parts that it triggered."""

    name: str
    """Name of the connection, without secrets."""

    connected: bool
    """Whether the PLC answers."""

    reconnects: int = 0
    """Number of times it was connected again."""

    parts: int = 0
    """Number of accepted triggers."""

    acknowledged: int = 0
    """Number of results that the PLC has acknowledged."""

    unacknowledged: int = 0
    """Number of results that the PLC has not acknowledged."""

    failed: int = 0
    """Number of parts without a verdict in time. Their result was a fault."""

    ejected: int = 0
    """Number of parts for which the reject coil was set."""

    missed: int = 0
    """Number of parts to reject that passed the gate while the connection was broken."""

    shift: str | None = None
    """Name of the shift from the PLC, None without one."""

    message: str = ""
    """The present problem, empty without one. It never has a password."""


@dataclass(frozen=True)
class Latency:
    """Latency from a frame's capture to its verdict, over the last `count` frames. All values are 0 without frames."""

    p50: float = 0.0
    """Median in milliseconds."""

    p95: float = 0.0
    """95% quantile in milliseconds."""

    p99: float = 0.0
    """99% quantile in milliseconds."""

    worst: float = 0.0
    """Maximum in milliseconds."""

    count: int = 0
    """Number of frames."""


Now = Literal["waiting", Judgement, "lost"]
"""What a line shows now.

``lost``: a camera is away; this precedes all others. ``waiting``: no part for `FADE_S` seconds, or none yet. Otherwise
the verdict of the last part.
"""

FADE_S = 5.0
"""Seconds after which a verdict is no longer current."""


@dataclass(frozen=True)
class Moment:
    """What a line shows now."""

    now: Now = "waiting"
    """One of `Now`."""

    source: str | None = None
    """The lost camera, or that of the last part; None before the first part."""

    age: float | None = None
    """Seconds since the last part's verdict, None before the first part."""


def describe_moment(
    lost: Sequence[str], last: tuple[Now, str] | None, age: float | None, *, fade: float = FADE_S
) -> Moment:
    """Return what a line shows now.

    Parameters
    ----------
    lost
        Names of the lost cameras.
    last
        Verdict and source of the last part, None before the first part.
    age
        Seconds since this verdict, None before the first part.
    fade
        Seconds after which a verdict is no longer shown.

    Returns
    -------
    Moment
        What a display shows first.
    """
    age = None if age is None else round(age, 1)
    if lost:
        return Moment("lost", ", ".join(lost), age)
    if last is None or age is None:
        return Moment()
    return Moment("waiting" if age > fade else last[0], last[1], age)


@dataclass(frozen=True)
class ThresholdMove:
    """A threshold that a person set on a running line."""

    score: float
    """The threshold in use."""

    before: float
    """The threshold of the model file."""

    model: str
    """The model on which it was set. With another model file the move is dropped."""


@dataclass(frozen=True)
class LineStatus:
    """The status of a line at one moment.

    Always: captured == judged + dropped + faulted + empty + waiting. If each part has one frame, ok + ng + review
    == judged and fault == faulted.
    """

    started: str
    """Start of the line, ISO 8601, UTC."""

    time: str
    """Time of this status, ISO 8601, UTC."""

    running: bool
    """Whether the line runs."""

    model: str
    """Name and checksum of the model, as in verdicts."""

    recipe: str | None
    """Name of the model in the configuration, None without recipes."""

    threshold: float
    """The threshold in use."""

    review_from: float | None
    """The score from which a part goes to a person, None without a review band."""

    captured: int = 0
    """Number of frames that the sources gave."""

    judged: int = 0
    """Number of frames with ``ok``, ``ng`` or ``review``."""

    dropped: int = 0
    """Number of frames that a newer one replaced."""

    faulted: int = 0
    """Number of frames that could not be judged."""

    waiting: int = 0
    """Number of frames between capture and verdict."""

    empty: int = 0
    """Number of frames without a part, or whose part another frame shows better, by presence."""

    ok: int = 0
    """Number of ``ok`` verdicts given to the sinks, one for each part."""

    ng: int = 0
    """Number of ``ng`` verdicts given to the sinks."""

    review: int = 0
    """Number of ``review`` verdicts given to the sinks."""

    fault: int = 0
    """Number of ``fault`` verdicts given to the sinks."""

    swaps: int = 0
    """Number of changes of the model."""

    sources: tuple[SourceState, ...] = ()
    """State of each source."""

    sinks: tuple[SinkState, ...] = ()
    """State of each sink."""

    signals: SignalState | None = None
    """State of the PLC that triggers the parts, None without one."""

    latency: Latency = Latency()
    """Latency of the last frames."""

    alarm: str | None = None
    """Reason of the alarm, None without an alarm."""

    drift: str | None = None
    """The drift as text, None without drift."""

    message: str = ""
    """The last event that a person should see, such as a model that could not be loaded."""

    moved: ThresholdMove | None = None
    """The threshold that replaces the model file's, None if the file's own is used."""

    now: Now = "waiting"
    """What a display shows first, as in `Moment`."""

    now_source: str | None = None
    """Source as in `Moment`."""

    now_age: float | None = None
    """Seconds as in `Moment`."""

    @property
    def reconnects(self) -> int:
        """Number of times that sources were opened again, in total."""
        return sum(source.reconnects for source in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Return the status as the JSON object of status messages.

        Returns
        -------
        dict[str, Any]
            Every field under its name, with ``reconnects``.
        """
        return asdict(self) | {"reconnects": self.reconnects}


class Commands(Protocol):
    """The commands of a running line, from any thread. Each takes effect between two parts.

    All raise ChoiceError or ModelFileError if the line cannot carry them out. The line is then unchanged.
    """

    def swap(self, path: Path | str) -> None:
        """Judge with another model file from the next part on. A bad file leaves the old model in use.

        Parameters
        ----------
        path
            The model file.
        """

    def recipe(self, name: str) -> None:
        """Judge with a model of the configuration.

        Parameters
        ----------
        name
            Its name in the configuration.
        """

    def set_threshold(self, score: float) -> float:
        """Move the threshold in use. Another model file drops the move.

        Parameters
        ----------
        score
            The new threshold.

        Returns
        -------
        float
            The threshold before.
        """

    def undo_threshold(self) -> tuple[float, float]:
        """Undo the last move of the threshold in use.

        Returns
        -------
        tuple[float, float]
            The threshold before and the threshold now.
        """

    def stop(self) -> None:
        """Judge the captured frames, flush the sinks and end."""

    def model_path(self) -> Path:
        """Return the model file of the next part.

        Returns
        -------
        Path
            The file.
        """

    def announce(self, change: Mapping[str, Any]) -> None:
        """Tell every sink of a change that a person made.

        Parameters
        ----------
        change
            The change as a JSON object (`labels.audit.Change`).
        """


def obey(commands: Commands, message: Mapping[str, Any]) -> None:
    """Carry out a command that came as a message.

    The commands are {"command": "swap", "model": "b.onnx"}, {"command": "recipe", "name": "left"}, {"command":
    "threshold", "score": 3.2}, {"command": "undo"} (of the last move of the threshold) and {"command": "stop"}.

    Parameters
    ----------
    commands
        The line.
    message
        The message.

    Raises
    ------
    ChoiceError
        If the message is not a command, or the line cannot carry it out.
    ModelFileError
        If the model file cannot be used.
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
