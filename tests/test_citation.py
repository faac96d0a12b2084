"""CITATION.cff agrees with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_citation_names_the_version_and_the_licence() -> None:
    """Version and licence are those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    facts = dict(re.findall(r"^(version|license): (\S+)$", citation, re.MULTILINE))
    assert facts == {"version": project["version"], "license": project["license"]}


def test_citation_and_package_link_the_same_paper() -> None:
    """The address of the paper in the package's metadata is one of the references of the citation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    references = re.findall(r'^    url: "(https://\S+)"$', citation, re.MULTILINE)
    assert len(references) == 2
    assert project["urls"]["Paper"] in references


def test_classifiers_name_the_oldest_python_that_is_allowed() -> None:
    """The first Python of the classifiers, which CI tries one by one, is the one that `requires-python` begins with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one) for one in project["classifiers"]]
    assert next(found[1] for found in versions if found) == project["requires-python"].removeprefix(">=")
