from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.line.build import queue_sinks
from onspect.runtime.line.check import check_line
from onspect.runtime.line.config import read_config
from onspect.runtime.model.schema import Threshold
from onspect.runtime.sinks.registry import open_sink

Run = Callable[..., Result]


@pytest.fixture
def watched(tmp_path: Path, calibrated: Path) -> Path:
    """Return a configuration of a line on a watched folder."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "line.toml"
    address = f"watch:{tmp_path / 'in'}?done={tmp_path / 'done'}&poll=0.02"
    path.write_text(
        f"[model]\nfile = '{calibrated}'\n[[source]]\naddress = '{address}'\n"
        f"[[sink]]\nto = 'jsonl:{tmp_path / 'verdicts.jsonl'}'\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def process(watched: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that runs that line, and has begun to."""
    command = [sys.executable, "-m", "onspect.runtime", "run", "--config", str(watched)]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):  # a busy machine may take its time
        if (tmp_path / "verdicts.jsonl").exists():
            break
        time.sleep(0.05)
    bring(tmp_path / "in", "first.png", 128)
    wait_for_lines(tmp_path / "verdicts.jsonl", 1)
    yield child
    if child.poll() is None:
        child.kill()
        child.communicate()


def bring(folder: Path, name: str, brightness: int) -> None:
    """Put an image into a watched folder, as a camera would."""
    picture = np.random.default_rng(brightness).integers(brightness - 4, brightness + 4, (16, 16)).astype(np.uint8)
    (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def wait_for_lines(path: Path, count: int) -> list[str]:
    """Return the verdicts in a file as soon as there are enough."""
    for _ in range(1200):
        lines = path.read_text().splitlines()
        if len(lines) >= count:
            return [json.loads(line)["verdict"] for line in lines]
        time.sleep(0.05)
    raise AssertionError(f"only {len(lines)} verdicts")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could catch")
@pytest.mark.parametrize("ask", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_line_in_order(process: subprocess.Popen[str], tmp_path: Path, ask: int) -> None:
    """SIGTERM and Ctrl-C end a line with all captured frames judged and counted, and exit code 0."""
    process.send_signal(ask)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert told.splitlines()[-1] == "1 frames: 1 judged, 0 dropped, 0 faults; 1 ok, 0 ng, 0 review, 0 fault"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_hangup_reads_the_model_again(
    process: subprocess.Popen[str], tmp_path: Path, calibrated: Path, write_tiny_model: Callable[..., Path]
) -> None:
    """SIGHUP takes up a new model file, even one that looks as old as the last."""
    before = calibrated.stat()
    write_tiny_model(calibrated, gain=1e6, threshold=Threshold(0.0062, 0.0062))
    os.utime(calibrated, ns=(before.st_atime_ns, before.st_mtime_ns))
    process.send_signal(signal.SIGHUP)
    for number in range(600):  # until it is taken up
        bring(tmp_path / "in", f"{number}.png", 128)
        if wait_for_lines(tmp_path / "verdicts.jsonl", number + 2)[-1] == "ng":
            break
    else:
        raise AssertionError("the new model was never taken up")


def test_a_line_that_is_killed_leaves_whole_verdicts(process: subprocess.Popen[str], tmp_path: Path) -> None:
    """Verdicts from before a kill are complete in the file."""
    for number in range(5):
        bring(tmp_path / "in", f"{number}.png", 128)
    wait_for_lines(tmp_path / "verdicts.jsonl", 6)
    process.kill()
    process.communicate()
    assert (tmp_path / "verdicts.jsonl").read_text().endswith("}\n")


def test_flags_win_over_the_file(
    onspect: Run, tmp_path: Path, calibrated: Path, write_image: Callable[..., Path]
) -> None:
    """Model, source, sinks and frames per part on the command line take the place of the file's."""
    config = tmp_path / "line.toml"
    config.write_text('[model]\nfile = "none.onnx"\n[[source]]\naddress = "none.avi"\n[[sink]]\nto = "jsonl:none"\n')
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_image(tmp_path / "parts" / name, 250 if name == "d.png" else 128)
    flags = ["--sink", "jsonl:-", "--frames-per-part", 2]
    result = onspect("run", calibrated, tmp_path / "parts", "--config", config, *flags)
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["verdict"] for line in result.stdout.splitlines()] == ["ok", "ng"]


@pytest.mark.parametrize("text", ["", "[model]\nfile = 'a.onnx'", "[[source]]\naddress = 'a.avi'"])
def test_a_file_without_a_model_or_a_source_needs_them_as_flags(onspect: Run, tmp_path: Path, text: str) -> None:
    """A configuration that names no model or no source is wrong usage where no flag does, saying where it belongs."""
    (tmp_path / "line.toml").write_text(text)
    result = onspect("run", "--config", tmp_path / "line.toml")
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr
    assert "--config with [" in result.stderr


def test_a_mistake_in_the_file_is_wrong_usage(onspect: Run, tmp_path: Path) -> None:
    """A key that is not known ends with exit code 2, its line and its name."""
    (tmp_path / "line.toml").write_text("[health]\nlate = 3\n")
    result = onspect("run", "--config", tmp_path / "line.toml")
    assert result.exit_code == 2
    assert "line.toml, line 2: [health] late: is not known" in result.stderr


def test_check_says_what_works(onspect: Run, watched: Path, tmp_path: Path) -> None:
    """A correct line gives a table of its parts, exit code 0, and no verdict."""
    bring(tmp_path / "in", "first.png", 128)
    result = onspect("run", "--check", watched)
    assert result.exit_code == 0, result.stderr
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["model", "source", "sink"]
    assert "ng from 0.0062" in result.stdout
    assert "16x16 mono uint8, ok with score" in result.stdout
    assert not (tmp_path / "verdicts.jsonl").exists()
    assert not (tmp_path / "done").exists()


@pytest.fixture
def refused(tmp_path: Path, calibrated: Path, write_image: Callable[..., Path], onspect: Run) -> Callable[[str], str]:
    """Return a function that adds to a line's configuration what `run` and `run --check` refuse, with one reason.

    It returns the reason, and fails if either accepts it, or if the check writes anything.
    """
    write_image(tmp_path / "parts" / "a.png", 128)

    def check(text: str) -> str:
        config = tmp_path / "line.toml"
        config.write_text(f"[model]\nfile = '{calibrated}'\n[[source]]\naddress = '{tmp_path / 'parts'}'\n{text}")
        before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        checked = onspect("run", "--check", config)
        assert checked.exit_code == 1, checked.stdout
        assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
        ran = onspect("run", "--config", config)
        assert ran.exit_code != 0
        (reason,) = [line.partition(" FAILS  ")[2] for line in checked.stdout.splitlines() if " FAILS " in line]
        assert reason.partition(": ")[2].strip() in ran.stderr or reason in ran.stderr
        return reason

    return check


def test_check_refuses_a_sink_onto_an_input_as_run_does(
    refused: Callable[[str], str], calibrated: Path, tmp_path: Path
) -> None:
    """Neither the model nor an image is a place for verdicts, and both stay byte for byte as they are."""
    for target in (calibrated, tmp_path / "parts" / "a.png", tmp_path / "new.bmp"):
        assert "is an input" in refused(f"[[sink]]\nto = 'jsonl:{target}'\n")


def test_check_refuses_one_place_for_two_sinks_as_run_does(refused: Callable[[str], str], tmp_path: Path) -> None:
    """The same file under two names, or one port for two servers, is refused."""
    (tmp_path / "out").mkdir()
    files = [f"jsonl:{tmp_path / 'v.jsonl'}", f"csv:{tmp_path / 'out' / '..' / 'v.jsonl'}"]
    assert "same as sink 1" in refused("".join(f"[[sink]]\nto = '{file}'\n" for file in files))


def test_check_refuses_one_port_for_two_sinks_as_run_does(refused: Callable[[str], str]) -> None:
    """Two servers of one machine need a port each."""
    pytest.importorskip("prometheus_client")
    addresses = ["prometheus://127.0.0.1:9871", "prometheus://0.0.0.0:9871"]
    reason = refused("".join(f"[[sink]]\nto = '{address}'\n" for address in addresses))
    assert "port 9871 as sink 1 does" in reason


def test_check_refuses_voting_with_a_policy_that_drops_as_run_does(
    refused: Callable[[str], str], tmp_path: Path
) -> None:
    """Parts of several frames and the policy 'latest' do not go together."""
    text = f"policy = 'latest'\n[voting]\nframes = 3\n[[sink]]\nto = 'jsonl:{tmp_path / 'v.jsonl'}'\n"
    assert "'latest' drops" in refused(text)


def test_check_refuses_a_spool_in_use_as_run_does(refused: Callable[[str], str], tmp_path: Path) -> None:
    """A spool that another run has is refused before the line starts."""
    url = "http://127.0.0.1:9/hook"
    sink = open_sink(url, append=True)
    (queued,) = queue_sinks([(url, sink)], tmp_path / "spool", live=True)
    with queued:
        assert "is in use by another run" in refused(
            f"[[sink]]\nto = '{url}'\n[line]\nspool = '{tmp_path / 'spool'}'\n"
        )


def test_check_of_another_programs_database_fails(onspect: Run, watched: Path, tmp_path: Path) -> None:
    """A foreign database is refused, and a missing one is not created."""
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE theirs (x)")
    with watched.open("a", encoding="utf-8") as file:
        file.write(f"[[sink]]\nto = 'sqlite:{tmp_path / 'other.db'}'\n[[sink]]\nto = 'sqlite:{tmp_path / 'new.db'}'\n")
    found = [one for one in check_line(read_config(watched), quiet=0.1) if one.name in ("sink 2", "sink 3")]
    assert [one.works for one in found] == [False, True]
    assert "another program's database" in found[0].detail
    assert not (tmp_path / "new.db").exists()


def test_check_of_a_source_that_is_idle_or_away(watched: Path, tmp_path: Path) -> None:
    """A watched folder into which nothing comes works; a camera that is not there does not."""
    with watched.open("a", encoding="utf-8") as file:
        file.write("[[source]]\naddress = '/dev/video997'\n")
    idle, away = (found for found in check_line(read_config(watched), quiet=0.1) if found.name.startswith("source"))
    assert (idle.works, "no frame came within 0.1 s" in idle.detail) == (True, True)
    assert (away.works, "/dev/video997" in away.detail) == (False, True)


def test_check_judges_a_frame_of_each_source_and_names_what_fails(
    onspect: Run, tmp_path: Path, calibrated: Path, write_image: Callable[..., Path]
) -> None:
    """Everything is looked at, also after a failure; each row says what, and the exit code is 1."""
    write_image(tmp_path / "parts" / "a.png", 240)
    sources = [tmp_path / "parts", tmp_path / "none.avi"]
    (tmp_path / "line.toml").write_text(
        f"[model]\nfile = '{calibrated}'\n"
        + "".join(f"[[source]]\naddress = '{source}'\n" for source in sources)
        + f"[[sink]]\nto = 'fax:1'\n[[sink]]\nto = 'jsonl:{tmp_path / 'parts' / 'a.png' / 'x'}'\n"
    )
    result = onspect("run", "--check", tmp_path / "line.toml")
    assert result.exit_code == 1
    states = [line.split()[:3] for line in result.stdout.splitlines()]
    assert [state for *_, state in states[1:]] == ["ok", "FAILS", "FAILS", "FAILS"]
    assert "16x16 mono uint8, ng with score" in result.stdout
    assert "none.avi" in result.stdout
    assert "fax" in result.stdout
    assert "3 checks of the line failed" in result.stderr


def test_config_and_check_exclude_each_other(onspect: Run, watched: Path) -> None:
    """Running and checking at once is wrong usage."""
    assert onspect("run", "--config", watched, "--check", watched).exit_code == 2


def test_a_line_that_judges_nothing_says_why_and_fails(onspect: Run, tmp_path: Path, calibrated: Path) -> None:
    """If every image of a folder is a fault, one sentence has the reason, and the exit code is 1."""
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(b"")
    result = onspect("run", calibrated, tmp_path / "in", "--sink", f"jsonl:{tmp_path / 'out.jsonl'}")
    assert result.exit_code == 1
    assert result.stderr.count("none of the first 30 parts could be judged; 30 of them: 'the file is empty") == 1
    assert "no image could be judged; all 40: 'the file is empty" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could catch")
def test_a_live_line_that_judged_nothing_fails(watched: Path, tmp_path: Path) -> None:
    """A stopped line none of whose parts could be judged says why and ends with exit code 1."""
    command = [sys.executable, "-m", "onspect.runtime", "run", "--config", str(watched)]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if (tmp_path / "verdicts.jsonl").exists():
            break
        time.sleep(0.05)
    (tmp_path / "in" / "0.png").write_bytes(cv2.imencode(".png", np.full((16, 16), 3, np.uint8))[1].tobytes())
    for _ in range(1200):
        if (tmp_path / "verdicts.jsonl").exists() and (tmp_path / "verdicts.jsonl").read_text():
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "no part could be judged; the reason: 'the picture is black" in told
