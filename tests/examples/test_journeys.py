"""The journeys of a new user run from the first picture to verdicts, each with a few short commands."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner

from onspect.runtime.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
JOURNEYS = sorted((EXAMPLES / "journeys").glob("*.sh"))


def load(path: Path) -> ModuleType:
    """Load a script as a module."""
    specification = importlib.util.spec_from_file_location(f"onspect_example_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def type_here(words: list[str], folder: Path, _program: object) -> SimpleNamespace:
    """Run a command in this process, which has loaded the libraries already."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(main, words[1:])
    return SimpleNamespace(code=done.exit_code, answer=done.output)


ANSWERS = {
    1: ["taught 8 good pictures", "With 8 good pictures the threshold rejects at most 11.1", "6 images: 3 ok, 3 ng"],
    2: ["taught 10 good pictures", "the images have 3 sizes"],
    3: ["train 18 good; val 6 good, 3 bad; test 6 good, 3 bad", "next: onspect evaluate part.onnx parts -o report"],
    4: ["next: onspect teach parts/train/good --group '^(part[0-9]+)_' -o", "parts in ", "report: report/report.html"],
    5: ["frames left out that repeat a picture", "18 images: 9 ok, 9 ng"],
    6: [
        "a base file for 'onspect teach --base'",
        "everything that is needed works",
        "taught 10 good pictures",
        "6 images: ",
    ],
}
"""Texts that the small journeys must print."""


@pytest.mark.slow
@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda path: path.stem)
def test_journey_leads_to_verdicts(journey: Path, tmp_path: Path) -> None:
    """Each command works, nothing says more than it knows, and lines meant for a person name real files."""
    module = load(EXAMPLES / "journeys" / "run.py")
    if not journey.name.startswith("6"):  # whose processes have no torch
        module._type = type_here
    steps = module.run(journey, tmp_path, small=True)
    said = "\n".join(step.answer for step in steps)
    assert [step.code for step in steps] == [0] * len(steps), said
    assert "Traceback" not in said
    for words in ANSWERS[int(journey.name[0])]:
        assert words in said
    for folder in re.findall(r"^next: onspect \w+ (\S+)", said, re.MULTILINE):
        assert (tmp_path / folder).exists()
    if (tmp_path / "verdicts.jsonl").exists():
        lines = (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["verdict"] for line in lines} <= {"ok", "ng"}
    else:
        assert (tmp_path / "report" / "report.html").exists()


def test_every_journey_is_short() -> None:
    """There are the six journeys, each at most four commands."""
    read_commands = load(EXAMPLES / "journeys" / "run.py").read_commands
    commands = [read_commands(journey) for journey in JOURNEYS]
    assert [int(journey.name[0]) for journey in JOURNEYS] == sorted(ANSWERS)
    assert all(words[0] == "onspect" for journey in commands for words in journey)
    assert max(map(len, commands)) <= 4
