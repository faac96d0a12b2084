"""What a line is to be: the content of line.toml, and what flags make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onspect.runtime.line.alarm import AlarmRule
from onspect.runtime.line.handover import Policy
from onspect.runtime.line.health import Health
from onspect.runtime.line.voting import Voting


@dataclass(frozen=True)
class SourceConfig:
    """One source: its address as `open_source` takes it, its policy (None: what fits it), and its recipe."""

    address: str
    policy: Policy | None = None
    recipe: str | None = None


@dataclass(frozen=True)
class DashboardConfig:
    """Where the dashboard listens, as HOST:PORT, and the token that changes need; None where none is set."""

    listen: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LineConfig:
    """A whole line.

    recipes: model files by name, and recipe the one to begin with; without recipes, model is the file. sinks: as
    `open_sink` takes them. health None: what fits the sources. spool: the folder in which verdicts wait for receivers
    that are away.
    """

    model: Path
    sources: tuple[SourceConfig, ...]
    sinks: tuple[str, ...] = ("jsonl:-",)
    provider: str = "auto"
    recipes: Mapping[str, Path] = field(default_factory=dict)
    recipe: str | None = None
    health: Health | None = None
    voting: Voting = field(default_factory=Voting)
    alarm: AlarmRule | None = None
    dashboard: DashboardConfig | None = None
    spool: Path = Path("onspect-spool")
