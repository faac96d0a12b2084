"""The program itself: versions, groups of commands, colours, mistakes and completion."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import onspect.runtime
from onspect.runtime.cli import main
from onspect.runtime.errors import ModelFileError
from onspect.runtime.model.file import read_model_file

Run = Callable[..., Result]


def test_versions_are_printed(onspect: Run) -> None:
    """--version names Onspect, Python and the packages that do the work; the module has the same version."""
    lines = onspect("--version").stdout.splitlines()
    assert lines[0] == f"onspect, version {importlib.metadata.version('onspect')}"
    for package in ("numpy", "onnxruntime"):
        assert f"{package} {importlib.metadata.version(package)}" in lines
    assert onspect_version() == importlib.metadata.version("onspect")


def onspect_version() -> str:
    return onspect.runtime.__version__


def test_commands_are_in_groups(onspect: Run) -> None:
    """The help lists the commands by where they are used."""
    text = onspect("--help").stdout
    titles = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert titles == ["Options", "Workstation", "Line", "Upkeep"]
    assert text.index("\n  teach ") < text.index("\nLine:") < text.index("\n  run ") < text.index("\nUpkeep:")


def test_module_is_the_program() -> None:
    """`python -m onspect.runtime` is the same program."""
    command = [sys.executable, "-m", "onspect.runtime", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("onspect, version ")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    folder.mkdir()
    for name in ("config.json", "weights.safetensors"):
        (folder / name).touch()
    return folder


def test_training_run_is_not_a_model_file(onspect: Run, run_folder: Path) -> None:
    """A training run in the place of a model file, or of a command, is answered with the command that exports it."""
    for arguments in (("score", run_folder, "a.png"), ("info", run_folder), (run_folder,)):
        result = onspect(*arguments)
        assert result.exit_code in (1, 2)
        assert (
            f"is a training run, not a model file; export it first: onspect export '{run_folder}' -o" in result.stderr
        )


def test_folder_is_not_a_model_file(onspect: Run, tmp_path: Path, calibrated: Path) -> None:
    """Swapped arguments are answered with what comes first."""
    result = onspect("score", tmp_path, calibrated)
    assert result.exit_code == 1
    assert "is a folder, not a model file; give a file such as part.onnx first" in result.stderr


def test_base_file_is_not_a_model_file(tmp_path: Path, tiny_graph: Callable[..., bytes]) -> None:
    """A base file in the place of a model file names the command that makes one of it."""
    entry = b"\x0a\x0conspect.base\x12\x02{}"
    (tmp_path / "base.onnx").write_bytes(tiny_graph() + b"\x72" + bytes([len(entry)]) + entry)
    with pytest.raises(ModelFileError, match=r"is a base file.*onspect teach GOOD --base"):
        read_model_file(tmp_path / "base.onnx")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("teech", "there is no command 'teech'; is 'teach' meant?"),
        ("xyz", "there is no command 'xyz'; 'onspect --help' lists all"),
        ("good", "'good' is a folder, not a command; to learn from its pictures: onspect teach good -o part.onnx"),
        ("part.onnx", "'part.onnx' is a file, not a command; to use it: onspect score part.onnx IMAGES"),
        ("a.png", "'a.png' is a file, not a command; to judge it: onspect score part.onnx a.png"),
    ],
)
def test_word_that_is_no_command_is_answered(
    onspect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, answer: str
) -> None:
    """A typing error, a folder or a file in the place of a command gets the command that is probably meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    (tmp_path / "part.onnx").touch()
    (tmp_path / "a.png").touch()
    result = onspect(word)
    assert result.exit_code == 2
    assert answer in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "coloured"),
    [([], {}, True), (["--no-color"], {}, False), ([], {"NO_COLOR": "1"}, False), ([], {"NO_COLOR": ""}, True)],
)
def test_colours_can_be_switched_off(
    tmp_path: Path,
    write_image: Callable[..., Path],
    arguments: list[str],
    environment: dict[str, str],
    coloured: bool,
) -> None:
    """A warning is coloured on a terminal, unless --no-color or NO_COLOR says otherwise."""
    for number in range(6):
        write_image(tmp_path / "in" / f"IMG_{number}.png", 100 + number)
    command = ["split", str(tmp_path / "in"), "-o", str(tmp_path / "parts"), *arguments]
    result = CliRunner(env={"NO_COLOR": None, **environment}).invoke(main, command, color=True)
    assert result.exit_code == 0, result.output
    assert "Warning:" in result.stderr
    assert ("\x1b[33mWarning:" in result.stderr) == coloured
    assert ("\x1b[" in result.stderr) == coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that the documentation names can be made, and completes commands and options."""
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda self: None, raising=False)
    script = CliRunner(env={"_ONSPECT_COMPLETE": f"{shell}_source"}).invoke(main, prog_name="onspect")
    assert "_ONSPECT_COMPLETE" in script.stdout
    assert complete(shell, "onspect te") == ["teach"]
    assert "--max-fpr" in complete(shell, "onspect teach --max")


def complete(shell: str, line: str) -> list[str]:
    """Return the completions that a shell would offer at the end of a line."""
    words = line.split()
    environment = {"_ONSPECT_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        environment["COMP_CWORD"] = words[-1]
    result = CliRunner(env=environment).invoke(main, prog_name="onspect")
    if shell == "zsh":
        return result.stdout.splitlines()[1::3]
    return [text.partition(",")[2].partition("\t")[0] for text in result.stdout.splitlines()]
