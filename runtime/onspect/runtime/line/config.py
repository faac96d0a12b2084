"""Content of line.toml, checked when the file is read."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from onspect.runtime.credentials import redact, resolve_secret
from onspect.runtime.errors import ChoiceError, OnspectError
from onspect.runtime.explain import explaining
from onspect.runtime.judgement import WORST_FIRST
from onspect.runtime.line.alarm import AlarmRule
from onspect.runtime.line.frame_check import Health
from onspect.runtime.line.frame_queue import Policy
from onspect.runtime.line.views import Join
from onspect.runtime.line.voting import Rule, Voting
from onspect.runtime.model.providers import CHOICES
from onspect.runtime.records import to_float

if TYPE_CHECKING:
    from onspect.runtime.presence.settings import PresenceSettings
    from onspect.runtime.signals.ejector import EjectorRule
    from onspect.runtime.signals.handshake import HandshakeTimes


def _usual_times() -> HandshakeTimes:
    from onspect.runtime.signals.handshake import HandshakeTimes  # most lines have no PLC

    return HandshakeTimes()


@dataclass(frozen=True)
class SourceConfig:
    """One source of a line."""

    address: str
    """The address, as `open_source` takes it."""
    policy: Policy | None = None
    """What happens to frames that come too fast; None for the default of the source."""
    recipe: str | None = None
    """Name of the model that judges its frames; None for the active one."""


@dataclass(frozen=True)
class SignalConfig:
    """The PLC that triggers the parts."""

    address: str
    """The address, as `open_signal` takes it."""
    times: HandshakeTimes = field(default_factory=_usual_times)
    """Time limits of the handshake."""


@dataclass(frozen=True)
class DashboardConfig:
    """The dashboard of a line."""

    listen: str
    """Address, HOST:PORT."""
    token: str | None = field(default=None, repr=False)
    """The token that changes need; None for no token."""


@dataclass(frozen=True)
class LineConfig:
    """Content of one line.toml, after the command line's options."""

    model: str | Path
    """The model file, if there are no recipes; an empty path if none is given."""
    sources: tuple[SourceConfig, ...]
    """The sources; empty if none is given."""
    sinks: tuple[str, ...] = ("jsonl:-",)
    """The sinks, as `open_sink` takes them."""
    provider: str = "auto"
    """Execution provider of onnxruntime, or ``auto``."""
    recipes: Mapping[str, str | Path] = field(default_factory=dict)
    """Model files by the name of the recipe."""
    recipe: str | None = None
    """The recipe at the start; None without recipes."""
    health: Health | None = None
    """Checks of the frames; None for those that fit the sources."""
    voting: Voting = field(default_factory=Voting)
    """How frames become parts."""
    alarm: AlarmRule | None = None
    """When an alarm is raised; None for lost sources only."""
    dashboard: DashboardConfig | None = None
    """The dashboard; None for no dashboard."""
    presence: PresenceSettings | None = None
    """How parts are found in the frames; None if each frame shows one part."""
    signal: SignalConfig | None = None
    """The PLC that triggers each part; None if the sources decide."""
    ejector: EjectorRule | None = None
    """When the PLC's ejector fires; needs a `signal`."""
    spool: str | Path = Path("onspect-spool")
    """Folder for verdicts whose receiver is away."""


def read_config(path: Path | str) -> LineConfig:
    """Read line.toml; docs/line.md describes every section and key.

    Paths in the file are relative to the working directory, like those on the command line. The command line may add a
    model or a source that the file does not give.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    LineConfig
        The configuration. `model` is an empty path and `sources` is empty if the file gives none.

    Raises
    ------
    ChoiceError
        If the file cannot be read or a value is not valid; the message has line and key.
    """
    path = Path(path)
    try:
        with explaining(ChoiceError, f"cannot read the configuration {str(path)!r}", "give a TOML file (docs/line.md)"):
            text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ChoiceError(
            f"{str(path)!r} is not text; give the line's configuration, a TOML file (docs/line.md)"
        ) from error
    with explaining(ChoiceError, f"{path}: not TOML", "correct it there", of=tomllib.TOMLDecodeError):
        content = tomllib.loads(text)
    try:
        return _build(content)
    except _Wrong as wrong:
        line = _find_line(text.splitlines(), wrong)
        place = f"{path}, line {line}" if line else str(path)
        name = f"[{wrong.section}] {wrong.key}".strip() if wrong.section else wrong.key
        raise ChoiceError(f"{place}: {name}: {wrong}") from wrong


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    """A value that is not valid: section, its number if there are several, key or "", and the problem."""

    def __init__(self, section: str, number: int, key: str, message: str) -> None:
        super().__init__(message)
        self.section, self.number, self.key = section, number, key


def _find_line(lines: Sequence[str], wrong: _Wrong) -> int | None:
    """Return the number of the line of a key, or of its section; None if the file has neither."""
    section, key = re.escape(wrong.section), re.escape(wrong.key)
    header = re.compile(rf"\s*\[\[?\s*[\"']?{section}[\"']?\s*\]\]?\s*(#.*)?$")
    any_header = re.compile(r"\s*\[\[?[^\[\]]+\]\]?\s*(#.*)?$")
    assignment = re.compile(rf"\s*[\"']?{key}[\"']?\s*=")
    dotted = re.compile(rf"\s*{section}\s*(\.\s*[\"']?{key}[\"']?\s*)?=")
    seen, here, start = -1, section == "", None
    for count, line in enumerate(lines, 1):
        if any_header.match(line):
            seen += bool(header.match(line))
            here = bool(header.match(line)) and seen == wrong.number
            start = count if here else start
        elif here and key and assignment.match(line):
            return count
        elif section and seen < 0 and dotted.match(line):
            start = count
    return start


class _Table:
    """One table of the file, whose values are taken key by key; a key that is left at the end is unknown."""

    def __init__(self, section: str, content: object, number: int = 0) -> None:
        self.section, self.number = section, number
        if not isinstance(content, dict):
            raise self.wrong("", f"is {content!r}, and a table is expected")
        self._content = dict(content)
        self._known: list[str] = []

    def wrong(self, key: str, message: str) -> _Wrong:
        return _Wrong(self.section, self.number, key, message)

    def take(self, key: str, kind: type[Any]) -> Any:
        """Return a value, or None if the key is missing."""
        self._known.append(key)
        if key not in self._content:
            return None
        value = self._content.pop(key)
        if kind is float and (number := to_float(value)) is not None:
            return number
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            words = {str: "a text", int: "a whole number", float: "a number", list: "a list"}
            raise self.wrong(key, f"is {redact(repr(value))}, and {words[kind]} is expected")
        return value

    def need(self, key: str, kind: type[Any]) -> Any:
        value = self.take(key, kind)
        if value is None:
            raise self.wrong(key, "is missing")
        return value

    def choose(self, key: str, allowed: tuple[str, ...]) -> Any:
        value = self.take(key, str)
        if value is not None and value not in allowed:
            raise self.wrong(key, f"is {value!r}; give one of {', '.join(allowed)}")
        return value

    def number_from(self, key: str, kind: type[Any], low: float) -> Any:
        """Return a number of at least `low`, or None if the key is missing."""
        value = self.take(key, kind)
        if value is not None and not low <= value < float("inf"):
            raise self.wrong(key, f"is {value!r}; give {low:g} or more")
        return value

    def seconds(self, key: str, low: float) -> float | None:
        """Return a number of milliseconds from `low` on, in seconds; None if it is missing."""
        value = self.number_from(key, float, low)
        return None if value is None else value / 1000.0

    def secret(self, key: str) -> str | None:
        """Return a secret, which the file may only refer to."""
        value = self.take(key, str)
        if value is None:
            return None
        if not value.startswith(("env:", "file:")):
            raise self.wrong(key, "is written in the file itself; give env:NAME or file:PATH instead")
        try:
            return resolve_secret(value)
        except OnspectError as error:
            raise self.wrong(key, str(error)) from error

    @property
    def names(self) -> list[str]:
        """The keys that are not taken yet."""
        return list(self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Refuse keys that were not taken, unless another error is on its way."""
        if kind is None and self._content:
            raise self.wrong(next(iter(self._content)), f"is not known; there are {', '.join(self._known)}")


def _build(content: dict[str, Any]) -> LineConfig:
    sections = ("model", "recipes", "source", "sink", "line", *_READERS)
    for name in content:
        if name not in sections:
            raise _Wrong(name, 0, "", f"is not known; there are {', '.join(sections)}")
    with _Table("model", content.get("model", {})) as model:
        file, provider = model.take("file", str), model.choose("provider", CHOICES)
        recipe = model.take("recipe", str)
    recipes = _read_recipes(content)
    if recipes and (recipe is None or recipe not in recipes):
        message = "is missing" if recipe is None else f"is {recipe!r}"
        raise model.wrong("recipe", f"{message}; give the one to begin with, of {', '.join(recipes)}")
    if recipe is not None and not recipes:
        raise model.wrong("recipe", f"is {recipe!r}, and there are no [recipes]")
    if "ejector" in content and "signal" not in content:
        raise _Wrong("ejector", 0, "", "needs a [signal]: its triggers tell which parts are on the belt")
    with _Table("line", content.get("line", {})) as line:
        spool = line.take("spool", str)
    return LineConfig(
        model=recipes[recipe] if recipe is not None else Path(file or ""),
        sources=tuple(_read_source(table, recipes) for table in _tables(content, "source")),
        sinks=tuple(_read_sink(table) for table in _tables(content, "sink")) or ("jsonl:-",),
        provider=provider or "auto",
        recipes=recipes,
        recipe=recipe,
        spool=Path(spool or "onspect-spool"),
        **{name: read(content[name]) for name, read in _READERS.items() if name in content},
    )


def _tables(content: dict[str, Any], section: str) -> list[_Table]:
    value = content.get(section, [])
    several = value if isinstance(value, list) else [value]
    return [_Table(section, one, number) for number, one in enumerate(several)]


def _read_recipes(content: dict[str, Any]) -> dict[str, Path]:
    table = _Table("recipes", content.get("recipes", {}))
    return {name: Path(table.take(name, str)) for name in table.names}


def _read_source(table: _Table, recipes: Mapping[str, Path]) -> SourceConfig:
    with table:
        address = table.need("address", str)
        policy, recipe = table.choose("policy", typing.get_args(Policy)), table.take("recipe", str)
        if recipe is not None and recipe not in recipes:
            raise table.wrong("recipe", f"is {recipe!r}; [recipes] has {', '.join(recipes) or 'none'}")
        return SourceConfig(address, policy, recipe)


def _read_sink(table: _Table) -> str:
    with table:
        return str(table.need("to", str))


def _read_health(content: object) -> Health:
    with _Table("health", content) as table:
        brightness, identical = table.take("brightness", list), table.number_from("identical", int, 0)
        if brightness is not None and not (
            len(brightness) == 2
            and all(isinstance(value, int | float) and not isinstance(value, bool) for value in brightness)
            and 0 <= brightness[0] <= brightness[1] <= 255
        ):
            raise table.wrong("brightness", f"is {brightness!r}; give [LOWEST, HIGHEST] of the mean, from 0 to 255")
        return Health(
            brightness=None if brightness is None else (float(brightness[0]), float(brightness[1])),
            sharpness=table.number_from("sharpness", float, 0),
            identical=Health.identical if identical is None else identical,
            width=table.number_from("width", int, 1),
            height=table.number_from("height", int, 1),
            late_ms=table.number_from("late_ms", float, 0),
        )


def _read_voting(content: object) -> Voting:
    with _Table("voting", content) as table:
        return Voting(
            frames=table.number_from("frames", int, 1),
            rule=table.choose("rule", typing.get_args(Rule)) or "worst",
            timeout=table.number_from("timeout", float, 0),
            views=table.choose("views", typing.get_args(Join)),
        )


def _read_presence(content: object) -> PresenceSettings:
    from onspect.runtime.presence.settings import build_presence, read_presence

    table = _Table("presence", content)
    assert isinstance(content, dict)
    try:
        if "file" not in content:
            return build_presence(content, Path())
        with table:
            file = table.need("file", str)
        return read_presence(Path(file))
    except ChoiceError as error:
        raise table.wrong("", str(error)) from error


def _read_alarm(content: object) -> AlarmRule:
    with _Table("alarm", content) as table:
        rule = AlarmRule(
            count=table.number_from("count", int, 1) or AlarmRule.count,
            of=table.number_from("of", int, 1) or AlarmRule.of,
            clear=table.number_from("clear", int, 1) or AlarmRule.clear,
        )
    if not rule.clear <= rule.count <= rule.of:
        raise table.wrong("count", f"is {rule.count}; clear ({rule.clear}) <= count <= of ({rule.of}) is required")
    return rule


def _read_dashboard(content: object) -> DashboardConfig:
    with _Table("dashboard", content) as table:
        return DashboardConfig(table.need("listen", str), table.secret("token"))


def _read_signal(content: object) -> SignalConfig:
    with _Table("signal", content) as table:
        address, usual = table.need("address", str), _usual_times()
        result, ack = table.seconds("result_ms", 1), table.seconds("ack_ms", 1)
        return SignalConfig(address, replace(usual, result=result or usual.result, ack=ack or usual.ack))


def _read_ejector(content: object) -> EjectorRule:
    from onspect.runtime.signals.ejector import EjectorRule

    with _Table("ejector", content) as table:
        parts, delay = table.number_from("parts", int, 0), table.seconds("delay_ms", 0)
        pulse, rejects = table.seconds("pulse_ms", 1), table.take("rejects", list)
    if (parts is None) == (delay is None):
        raise table.wrong("parts", "or delay_ms must be given, and not both: parts or time between camera and gate")
    allowed = [name for name in WORST_FIRST if name != "ok"]
    if rejects is not None and (not rejects or any(one not in allowed for one in rejects)):
        raise table.wrong("rejects", f"is {rejects!r}; give a list of {', '.join(allowed)}")
    return EjectorRule(parts, delay, pulse, EjectorRule.rejects if rejects is None else tuple(rejects))


_READERS: dict[str, Callable[[object], Any]] = {
    "health": _read_health,
    "voting": _read_voting,
    "alarm": _read_alarm,
    "dashboard": _read_dashboard,
    "signal": _read_signal,
    "ejector": _read_ejector,
    "presence": _read_presence,
}
"""Sections that may be missing, which are fields of `LineConfig` under the same name."""
