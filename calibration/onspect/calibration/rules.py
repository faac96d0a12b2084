"""Base class of the rules for a threshold or a review band, and the data of their command-line options."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

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

    needs_defects: ClassVar[bool] = False
    """Whether the rule needs scores of defective images."""

    substitute: ClassVar[str] = ""
    """An option for the same purpose that needs no defective images."""

    def __post_init__(self) -> None:
        rate = getattr(self, "rate", None)
        if rate is not None and not 0.0 <= rate <= 1.0:
            raise ChoiceError(f"{self.name} is {rate}; a rate is a share of 1, such as 0.005 for 0.5%")

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


R = TypeVar("R", bound=NamedRule)


def read_rule(kinds: Sequence[type[R]], rule: Rule) -> R:
    """Return the object for a rule of a model file.

    Parameters
    ----------
    kinds
        Classes of the rules that are known.
    rule
        The rule of the model file.

    Returns
    -------
    R
        An object of one of the classes.

    Raises
    ------
    ModelFileError
        If no class has this name, or the number of the rule is missing.
    """
    known = {kind.name: kind for kind in kinds}
    if rule.name not in known:
        raise ModelFileError(f"the file has a rule {rule.name!r}, which this onspect does not know; update onspect")
    kind = known[rule.name]
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(kind)}
    if any(values[field.name] is None for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING):
        raise ModelFileError(f"the number of the file's rule {rule.name!r} is missing; calibrate again")
    return kind(**values)


def make_rule(kinds: Sequence[type[R]], options: Mapping[str, Any]) -> R | None:
    """Return the rule that options name.

    Parameters
    ----------
    kinds
        Classes of the rules that are known.
    options
        Such as ``{"max_fpr": 0.005}``. An option that is None or False counts as not given.

    Returns
    -------
    R | None
        An object of one of the classes; None if the options name no rule.

    Raises
    ------
    ChoiceError
        If an option is unknown, lacks the option that it belongs to, or names a second rule.
    """
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    known, owners = list_options(kinds), {kind.option.name: kind for kind in kinds if kind.option}
    if unknown := sorted(given.keys() - known.keys()):
        raise ChoiceError(f"{unknown[0]!r} is not an option; give one of {', '.join(known)}")
    chosen = [name for name in given if name in owners]
    if len(chosen) > 1:
        raise ChoiceError(f"{' and '.join(known[name].flag for name in chosen)} exclude each other; give one of them")
    extras = {name: field for kind in kinds for name, field in _list_extras(kind).items()}
    for name in given.keys() & extras.keys():
        owner = next(kind.option for kind in kinds if name in _list_extras(kind))
        if owner is not None and owner.name not in chosen:
            raise ChoiceError(f"{known[name].flag} goes with {owner.flag} {owner.metavar}; give both")
    if not chosen:
        return None
    values = [given[chosen[0]]] if known[chosen[0]].metavar else []
    return owners[chosen[0]](*values, **{extras[name]: given[name] for name in given.keys() & extras.keys()})


def list_options(kinds: Sequence[type[NamedRule]]) -> dict[str, OptionSpec]:
    """Return the options of rules.

    Parameters
    ----------
    kinds
        Classes of the rules.

    Returns
    -------
    dict[str, OptionSpec]
        Options by name, in the order of the help.
    """
    found = []
    for kind in kinds:
        found += [] if kind.option is None else [kind.option]
        found += [field.metadata["option"] for field in dataclasses.fields(kind) if "option" in field.metadata]
    return {option.name: option for option in found}


def _list_extras(kind: type[NamedRule]) -> dict[str, str]:
    """Return the additional options of a rule, each with the field that it sets."""
    fields = [field for field in dataclasses.fields(kind) if "option" in field.metadata]
    return {field.metadata["option"].name: field.name for field in fields}
