"""Base class of the rules for a threshold or a review band, and the data of their command-line options."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from onspect.calibration.metrics.image import Confusion
from onspect.calibration.statistics.support import Target
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError
from onspect.runtime.model.schema import Rule


@dataclass(frozen=True)
class OptionSpec:
    """An option of the commands. `calibrate` has a keyword argument with the same name."""

    name: str
    """The keyword. The option has dashes instead of underscores: ``max_fpr`` and ``--max-fpr``."""

    help: str
    """Help text of the option."""

    metavar: str = "RATE"
    """Format of the value: ``RATE`` is a share of 1, ``FP:FN`` two costs. Empty for a flag without a value."""

    no_limit: tuple[float, ...] = (0,)
    """Rates that have no effect as a limit. The command line refuses them."""

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class NamedRule(ABC):
    """A rule with a name and numbers. Its dataclass fields are fields of `Rule`; the first is the option's value."""

    name: ClassVar[str]
    """Name in the model file."""

    option: ClassVar[OptionSpec | None]
    """Option that chooses the rule; None if no option does."""

    extra: ClassVar[OptionSpec | None] = None
    """A second option that goes with `option` and sets the field of its name; None if there is none."""

    kinds: ClassVar[tuple[type[Any], ...]] = ()
    """All rules of a base class."""

    needs_defects: ClassVar[bool] = False
    """Whether the rule needs scores of defective images."""

    substitute: ClassVar[str] = ""
    """An option for the same purpose that needs no defective images."""

    def __post_init__(self) -> None:
        rate = getattr(self, "rate", None)
        if rate is not None and not 0.0 <= rate <= 1.0:
            raise ChoiceError(f"{self.name} is {rate}; a rate is a share of 1, such as 0.005 for 0.5%")

    @classmethod
    def from_rule(cls, rule: Rule) -> Self:
        """Return the object for a rule of a model file.

        Parameters
        ----------
        rule
            The rule of the model file.

        Returns
        -------
        Self
            An object of one of the `kinds`.

        Raises
        ------
        ModelFileError
            If this release does not know the rule, or its number is missing.
        """
        kind = next((kind for kind in cls.kinds if kind.name == rule.name), None)
        if kind is None:
            raise ModelFileError(f"the file has a rule {rule.name!r}, which this onspect does not know; update onspect")
        fields = dataclasses.fields(kind)
        values = {field.name: getattr(rule, field.name) for field in fields}
        if any(values[field.name] is None for field in fields if field.default is dataclasses.MISSING):
            raise ModelFileError(f"the number of the file's rule {rule.name!r} is missing; calibrate again")
        made: Self = kind(**values)
        return made

    @classmethod
    def list_options(cls) -> dict[str, OptionSpec]:
        """Return the options of the `kinds`.

        Returns
        -------
        dict[str, OptionSpec]
            Options by name, in the order of the help.
        """
        return {option.name: option for kind in cls.kinds for option in (kind.option, kind.extra) if option}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self | None:
        """Return the rule that options name.

        Parameters
        ----------
        options
            Such as ``{"max_fpr": 0.005}``. An option that is None or False counts as not given.

        Returns
        -------
        Self | None
            An object of one of the `kinds`; None if the options name no rule.

        Raises
        ------
        ChoiceError
            If an option is unknown, lacks the option that it belongs to, or names a second rule.
        """
        given = {name: value for name, value in options.items() if value is not None and value is not False}
        known = cls.list_options()
        if unknown := sorted(given.keys() - known.keys()):
            raise ChoiceError(f"{unknown[0]!r} is not an option; give one of {', '.join(known)}")
        owners = {kind.option.name: kind for kind in cls.kinds if kind.option}
        chosen = [name for name in given if name in owners]
        if len(chosen) > 1:
            flags = " and ".join(known[name].flag for name in chosen)
            raise ChoiceError(f"{flags} exclude each other; give one of them")
        extras = {kind.extra.name: kind.option for kind in cls.kinds if kind.extra and kind.extra.name in given}
        for name, owner in extras.items():
            if owner.name not in chosen:
                raise ChoiceError(f"{known[name].flag} goes with {owner.flag} {owner.metavar}; give both")
        if not chosen:
            return None
        values = [given[chosen[0]]] if known[chosen[0]].metavar else []
        made: Self = owners[chosen[0]](*values, **{name: given[name] for name in extras})
        return made

    @property
    def rule(self) -> Rule:
        """The rule as the model file has it."""
        return Rule(self.name, **dataclasses.asdict(self))

    def check(self, good: int, defective: int) -> None:
        """Check that there are enough images for the rule.

        Parameters
        ----------
        good
            Number of good images or parts, 0 or more.
        defective
            Number of defective images or parts, 0 or more.

        Raises
        ------
        DatasetError
            If there are too few.
        """
        if self.needs_defects and not defective:
            assert self.option is not None
            raise DatasetError(
                f"{self.option.flag} needs defective images, and there are {good} good ones only; "
                f"use {self.substitute}, which needs good images only"
            )

    @abstractmethod
    def describe(self) -> str:
        """Return a description of the rule.

        Returns
        -------
        str
            A phrase with the value of the rule.
        """

    def support(self, confusion: Confusion) -> str | None:
        """Return whether the images are enough to support the request.

        Parameters
        ----------
        confusion
            Counts at the chosen threshold.

        Returns
        -------
        str | None
            A sentence with the request and the rate that the images support; None if they support the request.
        """
        return None

    def target(self, confusion: Confusion, *, banded: bool) -> Target | None:
        """Return the requested rate with the rate of these images.

        Parameters
        ----------
        confusion
            Counts at the threshold.
        banded
            Whether the threshold has a review band.

        Returns
        -------
        Target | None
            The comparison; None if the rule requests no rate or there are no images for it.
        """
        return None
