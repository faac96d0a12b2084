"""Files of a comparison: tables as Markdown, CSV, JSON and one HTML page, and the figures."""

from __future__ import annotations

import base64
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from onspect.calibration.report.page import open_templates
from onspect.compare.figures import draw_figures
from onspect.compare.results import Comparison
from onspect.compare.tables import RULES, make_tables, to_csv, to_json, to_markdown
from onspect.runtime.atomic import write_together
from onspect.runtime.cpu import available_cores, processor_name


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write the comparison into its folder in every format, all files or none.

    Parameters
    ----------
    folder
        Folder of the comparison.
    comparison
        The results.

    Returns
    -------
    list[Path]
        Paths of the tables, Markdown first.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    figures = draw_figures(comparison, folder)
    files = {
        "compare.md": render_markdown(comparison),
        "compare.html": render_page(comparison, figures),
        "compare.csv": to_csv(comparison),
        "compare.json": to_json(comparison, describe_machine()),
    }
    tables = {name: content.encode() for name, content in files.items()}
    write_together({folder / name: content for name, content in (figures | tables).items()})
    return [folder / name for name in files]


def render_page(comparison: Comparison, figures: dict[str, bytes]) -> str:
    """Return the comparison as an HTML page that needs no other file, no network and no script.

    Parameters
    ----------
    comparison
        The results.
    figures
        SVG by file name.

    Returns
    -------
    str
        The page.
    """
    environment = open_templates("onspect.compare")
    return environment.get_template("compare.html.j2").render(
        title=_title(comparison),
        rules=RULES,
        tables=make_tables(comparison),
        pictures=[(_caption(name), base64.b64encode(picture).decode()) for name, picture in figures.items()],
        machine=_machine_in_words(),
    )


def _caption(name: str) -> str:
    if name == "examples.svg":
        return "Inputs and reconstructions: of each class the test image of median score"
    score = name.removeprefix("curves-").removesuffix(".svg")
    return f"ROC and PR curves, score {score}: all anomalous classes together, first seed"


def _title(comparison: Comparison) -> str:
    return f"{comparison.dataset.name}: {', '.join(variant.upper() for variant in comparison.variants)}"


def render_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown.

    Parameters
    ----------
    comparison
        The results.

    Returns
    -------
    str
        The text.
    """
    tables = [to_markdown(table) for table in make_tables(comparison)]
    return "\n".join([f"# {_title(comparison)}\n", f"{RULES}\n", *tables, f"Measured with {_machine_in_words()}.\n"])


def _machine_in_words() -> str:
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cores']} cores, {machine['processor']}; {versions}"


def describe_machine() -> dict[str, Any]:
    """Return a description of this machine.

    Returns
    -------
    dict[str, Any]
        The keys ``processor``, ``cores``, ``system`` and ``versions``.
    """
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "system": platform.system(),
        "versions": {name: importlib.metadata.version(name) for name in ("onspect", "torch", "onnxruntime")},
    }
