"""The files of a comparison: compare.md, compare.csv and compare.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from onspect.compare.results import Comparison
from onspect.compare.tables import RULES, make_tables, to_csv, to_json, to_markdown
from onspect.runtime.cores import available_cores
from onspect.runtime.files import write_atomically


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write the comparison into its folder in every format, each file whole or not at all; return the paths.

    Raises OutputError where the folder cannot be written.
    """
    files = {
        "compare.md": render_markdown(comparison),
        "compare.csv": to_csv(comparison),
        "compare.json": to_json(comparison, describe_machine()),
    }
    for name, content in files.items():
        write_atomically(folder / name, content.encode())
    return [folder / name for name in files]


def render_markdown(comparison: Comparison) -> str:
    """Return the whole comparison as Markdown."""
    head = f"# {comparison.collection.name}: {', '.join(variant.upper() for variant in comparison.variants)}\n"
    machine = describe_machine()
    where = f"{machine['cores']} cores, {machine['processor']}; " + ", ".join(
        f"{name} {version}" for name, version in machine["versions"].items()
    )
    tables = [to_markdown(table) for table in make_tables(comparison)]
    return "\n".join([head, f"{RULES}\n", *tables, f"Measured with {where}.\n"])


def describe_machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "system": platform.system(),
        "versions": {name: importlib.metadata.version(name) for name in ("onspect", "torch", "onnxruntime")},
    }


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):  # noqa: PTH110
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
