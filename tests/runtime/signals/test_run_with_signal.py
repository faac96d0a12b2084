from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.line.check import check_line
from onspect.runtime.line.config import LineConfig, SignalConfig, SourceConfig

from ..services import free_port
from .test_connections import modbus_site

Run = Callable[..., Result]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder of a good, a bad and a good part."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, brightness in enumerate((128, 250, 128)):
        picture = np.full((16, 16), brightness, np.uint8)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def test_a_folder_is_judged_part_by_part_as_the_plc_triggers(
    onspect: Run, calibrated: Path, pictures: Path, tmp_path: Path
) -> None:
    """`run --signal` with a line.toml: the PLC names the parts, gets each verdict, and has the coil one part later."""
    config = tmp_path / "line.toml"
    with modbus_site(tmp_path) as site:
        config.write_text(
            f'[signal]\naddress = "{site.address}"\nresult_ms = 10000\nack_ms = 10000\n[ejector]\nparts = 1\n',
            encoding="utf-8",
        )
        results: list[Any] = []
        plc = threading.Thread(target=lambda: results.extend(site.program.run_part(name) for name in "abcd"))
        plc.start()
        target = f"jsonl:{tmp_path / 'verdicts.jsonl'}"
        ended = onspect("run", calibrated, pictures, "--config", config, "--signal", site.address, "--sink", target)
        plc.join(20)
    assert ended.exit_code == 0, ended.output
    assert [(one.part, one.verdict) for one in results] == [("a", 1), ("b", 2), ("c", 1), ("d", 4)]
    assert [one.reject for one in results] == [False, False, True, False]
    record = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [one["part"] for one in record] == list("abcd")
    assert "no more images" in record[3]["reason"]


def test_check_reads_the_signals_and_writes_nothing(calibrated: Path, pictures: Path, tmp_path: Path) -> None:
    """A PLC that answers is ok; one that does not is named."""
    config = LineConfig(str(calibrated), (SourceConfig(str(pictures)),), sinks=(), spool=str(tmp_path / "spool"))
    with modbus_site(tmp_path) as site:
        found = list(check_line(LineConfig(**(vars(config) | {"signal": SignalConfig(site.address)}))))[-1]
        assert (found.name, found.works) == ("signal", True)
        assert site.program.look().error == 0
        assert not site.program.look().ready
    away = f"modbus://127.0.0.1:{free_port()}"
    found = list(check_line(LineConfig(**(vars(config) | {"signal": SignalConfig(away)}))))[-1]
    assert (found.name, found.works) == ("signal", False)
    assert away in found.detail


def test_an_unknown_signal_ends_the_run_before_it_begins(onspect: Run, calibrated: Path, pictures: Path) -> None:
    """One sentence with the kinds that there are."""
    result = onspect("run", calibrated, pictures, "--signal", "canopen://plc")
    assert result.exit_code != 0
    assert "give one of modbus://HOST" in result.output
