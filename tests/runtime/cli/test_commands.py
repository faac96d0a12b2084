from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import pytest
from click.testing import Result

from onspect.runtime.cli import main
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.model.schema import Threshold
from onspect.runtime.sinks.lines import JsonlSink

Run = Callable[..., Result]

NAMES = main.list_commands(click.Context(main))


@pytest.fixture
def parts(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Return a folder with a good part, a broken file and a defective part."""
    folder = tmp_path / "parts ü [1]"
    write_image(folder / "a.png", 128)
    write_image(folder / "sub" / "c.png", 250)
    (folder / "b.png").write_bytes(b"")
    return folder


def verdicts(text: str) -> list[tuple[str, str]]:
    """Return file name and verdict of each line of JSON."""
    return [(Path(line["source"]).name, line["verdict"]) for line in map(json.loads, text.splitlines())]


ALL = [("a.png", "ok"), ("b.png", "fault"), ("c.png", "ng")]


def refuses(result: Result, *words: str, code: int = 1) -> None:
    """Check that a command failed with one line of error that has these words, and printed nothing else."""
    assert result.exit_code == code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    if code == 1:
        assert len(lines) == 1
    for word in words:
        assert word in lines[-1]


def test_folder_is_scored(onspect: Run, calibrated: Path, parts: Path) -> None:
    """A folder gives a line for every image below it on stdout, and the counts on stderr."""
    result = onspect("score", calibrated, parts)
    assert (result.exit_code, verdicts(result.stdout)) == (0, ALL)
    assert "3 images: 1 ok, 1 ng, 1 fault" in result.stderr


def test_faults_are_warned_of(onspect: Run, calibrated: Path, parts: Path) -> None:
    """If some images are faults the command says how many and ends well; if all are, it fails."""
    result = onspect("score", calibrated, parts)
    assert result.exit_code == 0
    assert "Warning: 1 of 3 images could not be judged (fault); the reason: 'the file is empty" in result.stderr
    assert "could not be judged" not in onspect("score", calibrated, parts / "a.png").stderr
    refused = onspect("score", calibrated, parts / "b.png")
    assert refused.exit_code == 1
    assert "no image could be judged; the reason: " in refused.stderr


def test_files_globs_and_lists_are_scored(onspect: Run, calibrated: Path, parts: Path) -> None:
    """Files, a glob and a list on stdin are judged in the order given."""
    flat = parts.rename(parts.with_name("parts"))
    result = onspect("score", calibrated, flat / "sub" / "c.png", "-", f"{flat}/**/*.png", stdin=f"{flat}/a.png\n\n")
    assert verdicts(result.stdout) == [("c.png", "ng"), ("a.png", "ok"), *ALL]


def test_missing_file_is_a_fault(onspect: Run, calibrated: Path, tmp_path: Path) -> None:
    """A file named outright that is not there, or cannot be, is a fault and not left out."""
    result = onspect("score", calibrated, tmp_path / "none.png", "x" * 300, "-", stdin=b"a\0b\n")
    assert [verdict for _, verdict in verdicts(result.stdout)] == ["fault"] * 3


def test_list_of_any_bytes_is_read(onspect: Run, calibrated: Path) -> None:
    """A file name on stdin that is not UTF-8 becomes a verdict, not a traceback."""
    result = onspect("score", calibrated, "-", stdin=b"Pr\xe4fling.png\n")
    assert json.loads(result.stdout)["source"] == "Pr\udce4fling.png"


def test_csv_is_written(onspect: Run, calibrated: Path, parts: Path, tmp_path: Path) -> None:
    """An output that ends in .csv is CSV, and stdout stays empty."""
    result = onspect("score", calibrated, parts, "-o", tmp_path / "out.CSV")
    with (tmp_path / "out.CSV").open(newline="", encoding="utf-8") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["ok", "fault", "ng"]
    assert result.stdout == ""


def test_overlays_are_drawn(onspect: Run, calibrated: Path, parts: Path, tmp_path: Path) -> None:
    """Each readable image gets its overlay, in folders like its own."""
    onspect("score", calibrated, parts, "--overlays", tmp_path / "overlays")
    drawn = sorted((tmp_path / "overlays").rglob("*.png"))
    assert [path.relative_to(tmp_path / "overlays").as_posix() for path in drawn] == ["a.png", "sub/c.png"]
    assert all(cv2.imread(str(path)) is not None for path in drawn)


@pytest.mark.parametrize("command", ["score", "run"])
def test_overlays_have_a_style_and_a_format(
    command: str, onspect: Run, calibrated: Path, parts: Path, tmp_path: Path
) -> None:
    """`score` and `run` draw the same styles: beside has the plain image to the left, as JPEG if requested."""
    to = ["--overlays", tmp_path / "plain"], ["--overlays", tmp_path / "beside", "--overlay-style", "beside"]
    onspect(command, calibrated, parts, *to[0])
    onspect(command, calibrated, parts, *to[1], "--overlay-format", "jpg")
    plain, beside = cv2.imread(str(tmp_path / "plain/a.png")), cv2.imread(str(tmp_path / "beside/a.jpg"))
    assert plain is not None
    assert beside is not None
    assert beside.shape[1] >= 2 * plain.shape[1]


def test_quiet_says_nothing(onspect: Run, calibrated: Path, parts: Path) -> None:
    """With -q nothing but the verdicts is printed."""
    assert onspect("score", calibrated, parts, "-q").stderr == ""


def test_nothing_to_judge_is_refused(onspect: Run, calibrated: Path, tmp_path: Path) -> None:
    """An empty folder, a glob without a match and an empty list are errors, beside good images too."""
    (tmp_path / "empty").mkdir()
    refuses(onspect("score", calibrated, tmp_path / "empty"), "no images")
    refuses(onspect("score", calibrated, f"{tmp_path}/*.gif"), "no file matches")
    refuses(onspect("score", calibrated, tmp_path / "any.png", "-", stdin=""), "stdin names no image")


def test_other_files_are_counted(onspect: Run, calibrated: Path, parts: Path) -> None:
    """Files of a folder that are not taken for images are counted in a warning, as are folders that a glob matches."""
    (parts / "notes.txt").write_text("x")
    assert "1 file (.txt: 1)" in onspect("score", calibrated, parts).stderr
    flat = parts.rename(parts.with_name("parts"))
    assert "Warning: 1 folder matched" in onspect("score", calibrated, f"{flat}/[as]*").stderr


def test_uncalibrated_model_is_refused_before_anything_is_written(
    onspect: Run, uncalibrated: Path, parts: Path, tmp_path: Path
) -> None:
    """Without a threshold the command fails, names the cure and leaves the old output alone."""
    (tmp_path / "old.jsonl").write_text("old")
    refuses(onspect("score", uncalibrated, parts, "-o", tmp_path / "old.jsonl"), "onspect calibrate")
    assert (tmp_path / "old.jsonl").read_text() == "old"


@pytest.fixture
def many(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Return a folder with forty parts, one of them broken, one defective."""
    for number in range(40):
        write_image(tmp_path / "many" / f"{number:02}.png", 250 if number == 30 else 128)
    (tmp_path / "many" / "07.png").write_bytes(b"")
    return tmp_path / "many"


def judgements(path: Path) -> list[tuple[str, int, str]]:
    """Return source, index and verdict of each line of a file."""
    lines = map(json.loads, path.read_text().splitlines())
    return [(Path(line["source"]).name, line["index"], line["verdict"]) for line in lines]


def test_interrupted_run_leaves_whole_lines_and_is_resumed(
    onspect: Run, calibrated: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C the lines so far are whole, and with --resume the file becomes that of an undisturbed run."""
    onspect("score", calibrated, many, "-o", tmp_path / "whole.jsonl")
    write, calls = JsonlSink.write_many, 0

    def interrupted(sink: JsonlSink, inspections: Sequence[Inspection]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        write(sink, inspections)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlSink, "write_many", interrupted)
        result = onspect("score", calibrated, many, "-o", tmp_path / "some.jsonl")
    assert result.exit_code == 1
    assert "stopped after 32 of 40 images" in result.stderr
    assert "--resume" in result.stderr
    assert judgements(tmp_path / "some.jsonl") == judgements(tmp_path / "whole.jsonl")[:32]
    result = onspect("score", calibrated, many, "-o", tmp_path / "some.jsonl", "--resume")
    assert "32 of 40 images have been judged already" in result.stderr
    assert "40 images: 38 ok, 1 ng, 1 fault" in result.stderr
    assert judgements(tmp_path / "some.jsonl") == judgements(tmp_path / "whole.jsonl")


@pytest.mark.parametrize("end", ["whole", "half a line", "no end", "nothing", "all"])
def test_resumed_file_may_end_anywhere(onspect: Run, calibrated: Path, many: Path, tmp_path: Path, end: str) -> None:
    """A file of a killed run is completed wherever it stops, and a complete one stays unchanged."""
    target = tmp_path / "verdicts.jsonl"
    onspect("score", calibrated, many, "-o", target)
    whole, lines = judgements(target), target.read_bytes().splitlines(keepends=True)
    begun = b"".join(lines[:5])
    endings = {"whole": begun, "half a line": begun + lines[5][:30], "no end": begun[:-1], "nothing": b""}
    target.write_bytes(endings.get(end, b"".join(lines)))
    assert onspect("score", calibrated, many, "-o", target, "--resume").exit_code == 0
    assert judgements(target) == whole


def test_resuming_something_else_is_refused(
    onspect: Run, calibrated: Path, many: Path, tmp_path: Path, write_tiny_model: Callable[..., Path]
) -> None:
    """Verdicts of another model, threshold or list of images, and invalid lines, are left unchanged."""
    target = tmp_path / "verdicts.jsonl"
    onspect("score", calibrated, many, "-o", target)
    before = target.read_bytes()
    other = write_tiny_model(tmp_path / "other.onnx", threshold=Threshold(0.5, 0.5))
    refuses(onspect("score", other, many, "-o", target, "--resume"), "has verdicts of tiny@", "at 0.5")
    refuses(onspect("score", calibrated, many / "01.png", "-o", target, "--resume"), "line 1", "'", "image 1 is")
    (many / "39.png").unlink()
    refuses(onspect("score", calibrated, many, "-o", target, "--resume"), "line 40", "no more images")
    assert target.read_bytes() == before
    target.write_text("a note\n")
    refuses(onspect("score", calibrated, many, "-o", target, "--resume"), "line 1", "is not a verdict")
    for output in ("-", "verdicts.csv"):
        refuses(onspect("score", calibrated, many, "-o", output, "--resume"), "--resume", "JSONL", code=2)


def test_resumed_overlays_take_no_other_image_s_file(
    onspect: Run, calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """Of two images that differ in their ending only, the second gets the same file as in an undisturbed run."""
    images = [write_image(tmp_path / "in" / name) for name in ("a.bmp", "a.png")]
    target, overlays = tmp_path / "verdicts.jsonl", tmp_path / "overlays"
    onspect("score", calibrated, *images, "-o", target, "--overlays", overlays)
    target.write_bytes(target.read_bytes().splitlines(keepends=True)[0])
    for path in overlays.iterdir():
        path.unlink()
    onspect("score", calibrated, *images, "-o", target, "--overlays", overlays, "--resume")
    assert [path.name for path in overlays.iterdir()] == ["a.png.png"]


def test_output_never_replaces_an_input(onspect: Run, calibrated: Path, parts: Path, tmp_path: Path) -> None:
    """Image, model and linked input files are refused as outputs, as is drawing overlays over the images."""
    (tmp_path / "link.jsonl").symlink_to(parts / "a.png")
    before = {path: path.read_bytes() for path in [calibrated, *parts.rglob("*.png")]}
    for output in (parts / "a.png", calibrated, tmp_path / "link.jsonl"):
        refuses(onspect("score", calibrated, parts, "-o", output), "is an input")
        refuses(onspect("run", calibrated, parts / "a.png", "--sink", f"jsonl:{output}"), "is an input")
    for command in ("score", "run"):
        refuses(onspect(command, calibrated, parts, "--overlays", parts), "the images to judge are in")
        refuses(onspect(command, calibrated, parts, "--overlays", parts / "sub"), "the images to judge are in")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "arguments", [["score"], ["score", "m.onnx"], ["score", "m.onnx", "a", "--workers", "0"], ["run", "m"], ["nothing"]]
)
def test_bad_usage_has_exit_code_2(onspect: Run, arguments: list[str]) -> None:
    """Missing arguments, bad values and unknown commands are usage errors."""
    refuses(onspect(*arguments), code=2)


@pytest.mark.parametrize("command", ["score", "run", "info"])
def test_model_that_is_none_is_refused(onspect: Run, parts: Path, command: str) -> None:
    """A picture in the place of the model is one line of error, for every command."""
    images = [] if command == "info" else [parts]
    refuses(onspect(command, parts / "a.png", *images), "a.png", "not an ONNX file")


def test_debug_shows_the_error_itself(onspect: Run, parts: Path) -> None:
    """With --debug the exception is let through."""
    assert type(onspect("info", parts / "a.png", "--debug").exception).__name__ == "ModelFileError"


def test_run_appends_to_its_sinks(onspect: Run, calibrated: Path, parts: Path, tmp_path: Path) -> None:
    """Running twice on a folder leaves both runs' verdicts in each sink."""
    for _ in range(2):
        sinks = ["--sink", f"jsonl:{tmp_path}/out.jsonl", "--sink", f"csv:{tmp_path}/out.csv"]
        result = onspect("run", calibrated, parts, *sinks, "--overlays", tmp_path / "overlays")
        assert (result.exit_code, result.stdout) == (0, "")
    assert verdicts((tmp_path / "out.jsonl").read_text()) == ALL * 2
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 7
    assert (tmp_path / "overlays" / "sub" / "c.png").exists()


def test_run_writes_to_stdout(onspect: Run, calibrated: Path, parts: Path) -> None:
    """Without a sink the verdicts are lines on stdout."""
    assert verdicts(onspect("run", calibrated, parts).stdout) == ALL


def test_run_refuses_bad_sources_and_sinks(onspect: Run, calibrated: Path, parts: Path) -> None:
    """A missing source is one line of error, an unknown sink is bad usage."""
    refuses(onspect("run", calibrated, parts / "none.avi"), "none.avi")
    result = onspect("run", calibrated, parts, "--sink", "fax:1")
    assert result.exit_code == 2
    assert "fax:1" in result.stderr


def test_info_shows_the_card(onspect: Run, calibrated: Path, uncalibrated: Path) -> None:
    """The card has network, input and threshold, and names the next step if there is no threshold."""
    card = onspect("info", calibrated).stdout
    assert "CAE, 100 parameters" in card
    assert "16 x 16 pixels, mono" in card
    assert "ng at score >= 0.0062" in card
    assert "onspect calibrate" in onspect("info", uncalibrated).stdout


def test_info_is_json(onspect: Run, calibrated: Path) -> None:
    """With --json the card is the metadata and the file's checksum."""
    card: dict[str, Any] = json.loads(onspect("info", calibrated, "--json").stdout)
    assert card["threshold"] == {"score": 0.0062, "map": 0.0062, "review": None, "area": 0}
    assert len(card["sha256"]) == 64


def test_url_needs_ray(onspect: Run, calibrated: Path) -> None:
    """The local engine reads no URL, named or in a list, and says what does."""
    for arguments, stdin in ((["s3://plant/parts"], None), (["-"], "s3://plant/a.png")):
        refused = onspect("score", calibrated, *arguments, stdin=stdin)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "score --engine ray" in refused.stderr
    assert onspect("bench", calibrated, "s3://plant/parts").exit_code == 2


@pytest.mark.parametrize("options", [["--engine", "ray"], ["--address", "auto"]])
def test_options_of_an_archive_go_together(onspect: Run, calibrated: Path, parts: Path, options: list[str]) -> None:
    """Ray needs a folder for its partitions, and its options need Ray."""
    refuses(onspect("score", calibrated, parts, *options), code=2)


def test_help_lists_every_command(onspect: Run) -> None:
    """The help of the program lists every command with its purpose."""
    text = onspect("--help").stdout
    for name in NAMES:
        assert f"\n  {name} " in text


def test_every_command_that_a_part_defines_is_listed() -> None:
    """No part defines a command that `onspect` does not know, or under another name."""
    parts = [Path(folder) for folder in importlib.import_module("onspect").__path__]
    files = [file for part in parts for pattern in ("*/*command*.py", "*/cli/*.py") for file in part.glob(pattern)]
    named = [file.with_suffix("") for file in files if file.stem != "__init__"]  # it defines the group of them all
    names = [".".join(("onspect", *file.parts[-2 - (file.parent.name == "cli") :])) for file in named]
    modules = [importlib.import_module(name) for name in names]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, click.Command)]
    below = [command for group in found if isinstance(group, click.Group) for command in group.commands.values()]
    assert {command.name for command in found if command not in below} == set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_of_each_command_has_an_example(onspect: Run, name: str) -> None:
    """Each command's help shows how it is called."""
    text = onspect(name, "--help").stdout
    assert f"Example:\n    onspect {name}" in text


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_option_has_a_sentence(name: str) -> None:
    """No option of any command is listed without an explanation."""
    context = click.Context(main, **main.context_settings)  # click keeps the help option of the first context
    command = main.get_command(context, name)
    assert command is not None
    below = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    options = [option for one in below for option in one.get_params(click.Context(one, parent=context))]
    named = [option for option in options if isinstance(option, click.Option) and not option.hidden]
    assert not [option.opts for option in named if not option.help]


def test_options_of_train_are_in_sections(onspect: Run) -> None:
    """Each heading comes once, and each option below one heading only."""
    text = onspect("train", "--help").stdout
    headings = ["Images:", "Network:", "Training:", "Devices:", "Options:"]
    assert [line for line in text.splitlines() if line in headings] == headings
    assert "DATA]" not in text.partition("Images:")[2]
    for option in ("--tile", "--preset", "--epochs", "--device ", "--resume  ", "--debug"):
        assert text.count(f"  {option}") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes of this kind")
def test_closed_stdout_ends_without_a_traceback(calibrated: Path, parts: Path) -> None:
    """If the reader of stdout has gone, as with `| head -1`, the command ends with code 1 and no message."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from onspect.runtime.cli import main; main()", "score", calibrated, parts]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_stdout_is_one_line_of_error(calibrated: Path, parts: Path) -> None:
    """If stdout takes nothing, the command fails with one line that says so."""
    command = [sys.executable, "-c", "from onspect.runtime.cli import main; main()", "score", calibrated, parts]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "Error: cannot write to stdout: No space left on device"
    assert "Traceback" not in done.stderr
