"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_part.ipynb"


def read_cells() -> list[str]:
    """Return the notebook's code cells, in order."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 4)
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_notebook_is_kept_without_outputs() -> None:
    """No outputs are kept: they would be old, and pictures in them large."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell runs in one namespace, as in a notebook, and gives verdicts, a report and model files."""
    pytest.importorskip("torch", reason="the extra 'train' is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(read_cells(), 1):
        exec(compile(cell, f"first_part.ipynb, code cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.count("parts/test/scratch/000.png ng") == 2
    assert (tmp_path / "report" / "report.html").exists()
    assert (tmp_path / "autoencoder.onnx").exists()
    assert names["overlay"].dtype == "uint8"
    assert names["inspection"]._repr_png_() is not None
