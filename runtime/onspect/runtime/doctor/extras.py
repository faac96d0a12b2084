"""The installed extras, by the metadata of onspect, and the purpose of each."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onspect.runtime.doctor.findings import Finding
from onspect.runtime.doctor.packages import find_version
from onspect.runtime.extras import PURPOSES

_ALTERNATIVES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "opencv-python": ("opencv-python", "opencv-python-headless"),
    "opencv-python-headless": ("opencv-python", "opencv-python-headless"),
}
"""Packages that another one can replace."""

_REQUIREMENT = re.compile(
    r"^(?P<package>[\w.-]+)(?:\[[^]]*\])?\s*(?:>=\s*(?P<oldest>[\d.]+))?[^;]*;\s*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"]"
)


@dataclass(frozen=True)
class Requirement:
    """A package of an extra."""

    package: str
    """Name of the package."""
    oldest: str
    """Oldest version; empty for any."""
    extra: str
    """Name of the extra."""


def parse_requirements(lines: Iterable[str]) -> list[Requirement]:
    """Return the packages of extras among the requirements of a distribution.

    Parameters
    ----------
    lines
        The requirements.

    Returns
    -------
    list[Requirement]
        The packages of extras.

    Examples
    --------
    >>> parse_requirements(["click>=8.2", 'av>=14; extra == "video"'])
    [Requirement(package='av', oldest='14', extra='video')]
    """
    found = (_REQUIREMENT.match(line) for line in lines)
    return [Requirement(match["package"], match["oldest"] or "", match["extra"]) for match in found if match]


def check_extras() -> Iterator[Finding]:
    """Check which extras are installed.

    Returns
    -------
    Iterator[Finding]
        One finding for each extra.
    """
    requirements = parse_requirements(importlib.metadata.requires("onspect") or [])
    for extra, purpose in PURPOSES.items():
        packages = [requirement for requirement in requirements if requirement.extra == extra]
        if not packages:  # the installed onspect is older than this source
            continue
        states = [_find_state(package) for package in packages]
        cure = f"pip install 'onspect[{extra}]'"
        if extra in ("cpu", "gpu"):
            cure += " into an environment without the other build"
        missing = [package.package for package, state in zip(packages, states, strict=True) if state == "missing"]
        old = [package for package, state in zip(packages, states, strict=True) if state == "old"]
        if old:
            words = ", ".join(f"{package.package} is older than {package.oldest}" for package in old)
            yield Finding(f"extra {extra}", "warning", f"{purpose}: {words}", f"pip install -U 'onspect[{extra}]'")
        elif not missing:
            yield Finding(f"extra {extra}", "ok", purpose)
        else:
            names = "" if len(missing) == len(packages) else f"{', '.join(missing)} "
            yield Finding(f"extra {extra}", "absent", f"{purpose}: {names}not installed", cure)


def _find_state(requirement: Requirement) -> str:
    versions = [find_version(name) for name in _ALTERNATIVES.get(requirement.package, (requirement.package,))]
    found = [version for version in versions if version is not None]
    if not found:
        return "missing"
    return "old" if all(_numbers(version) < _numbers(requirement.oldest) for version in found) else "installed"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) of 2.13.0+cpu."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
