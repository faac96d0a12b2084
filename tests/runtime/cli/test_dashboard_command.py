from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.line.build import open_dashboard
from onspect.runtime.line.config import DashboardConfig
from onspect.runtime.sinks.registry import open_sinks

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")

TOKEN = "a-long-enough-token"


@pytest.fixture
def parts(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Return a folder with two images."""
    for name in ("a", "b"):
        write_image(tmp_path / "parts" / f"{name}.png")
    return tmp_path / "parts"


def test_run_says_where_its_dashboard_is(onspect: Callable[..., Result], calibrated: Path, parts: Path) -> None:
    """With --dashboard a run says the page's address, and ends as without."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = onspect("run", calibrated, parts, "--dashboard", f"127.0.0.1:{port}")
    assert result.exit_code == 0
    assert f"the dashboard is at http://127.0.0.1:{port}/" in result.stderr
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dashboard", "0.0.0.0:8080"], "give it a token"),
        (["--dashboard", "8080"], "HOST:PORT"),
        (["--dashboard", "127.0.0.1:8080", "--dashboard-token", TOKEN], "env:NAME or file:PATH"),
        (["--dashboard", "127.0.0.1:8080", "--dashboard-token", "env:NO_SUCH_NAME"], "NO_SUCH_NAME"),
        (["--dashboard-token", "env:HOME"], "--dashboard HOST:PORT too"),
    ],
)
def test_wrong_dashboard_is_refused_before_anything_runs(
    onspect: Callable[..., Result], calibrated: Path, parts: Path, arguments: list[str], words: str
) -> None:
    """What cannot be, or would show the line to everybody, is wrong usage; a token is not repeated."""
    result = onspect("run", calibrated, parts, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert TOKEN not in result.stderr


def test_check_looks_at_the_dashboard(
    onspect: Callable[..., Result], calibrated: Path, parts: Path, tmp_path: Path
) -> None:
    """A port that another program has is found before the line runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = tmp_path / "line.toml"
        config.write_text(
            f"[model]\nfile = {json.dumps(str(calibrated))}\n[[source]]\naddress = {json.dumps(str(parts))}\n"
            f'[dashboard]\nlisten = "{address}"\n'
        )
        result = onspect("run", "--check", config)
    assert result.exit_code == 1
    line = next(line for line in result.stdout.splitlines() if line.startswith("dashboard"))
    assert "FAILS" in line
    assert address in line


def test_page_shows_what_the_line_s_own_sinks_have_kept(calibrated: Path, tmp_path: Path) -> None:
    """Rejects and hours come from the database and the folder of evidence, also those of an earlier run."""
    sinks = open_sinks([f"sqlite:{tmp_path / 'history.db'}", f"evidence:{tmp_path / 'evidence'}"], append=True)
    inspector = Inspector(calibrated)
    inspections = [inspect(inspector, *part) for part in enumerate((128, 250, 128, 255))]
    for sink in sinks:
        with sink:
            for inspection in inspections:
                sink.write(inspection)
    (dashboard,) = open_dashboard(DashboardConfig("127.0.0.1:0"), sinks)
    with dashboard:
        rejects = ask(dashboard.url, "/rejects")["rejects"]
        hours = ask(dashboard.url, "/hours")["hours"]
        assert [reject["index"] for reject in rejects] == [3, 1]
        for reject in rejects:
            assert ask(dashboard.url, reject["picture"])[:2] == b"\xff\xd8"
    assert len(hours) == 24
    assert [sum(hour[name] for hour in hours) for name in ("ok", "ng", "review", "fault")] == [2, 2, 0, 0]


def test_history_that_cannot_be_read_is_no_end(calibrated: Path, tmp_path: Path) -> None:
    """If the database is gone the page shows what this run had."""
    sinks = open_sinks([f"sqlite:{tmp_path / 'nothing.db'}"], append=True)
    (dashboard,) = open_dashboard(DashboardConfig("127.0.0.1:0"), sinks)
    with dashboard:
        dashboard.write(inspect(Inspector(calibrated), 0, 250))
        assert [hour["ng"] for hour in ask(dashboard.url, "/hours")["hours"]] == [1]
        assert "rejects" in ask(dashboard.url, "/rejects")


def inspect(inspector: Inspector, index: int, brightness: int) -> Inspection:
    return inspector.examine(np.full((32, 32), brightness, np.uint8), source="camera", index=index)


def ask(url: str, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]), timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return json.loads(content) if response.getheader("Content-Type") == "application/json" else content
    finally:
        connection.close()
