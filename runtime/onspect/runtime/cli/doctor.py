"""The command `onspect doctor`."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onspect.runtime.cli.base import Command, echo_json, say

if TYPE_CHECKING:
    from onspect.runtime.doctor.findings import Finding

_LABELS = {"ok": "ok", "absent": "-", "warning": "WARN", "broken": "FAIL"}
_COLOURS = {"ok": "green", "absent": None, "warning": "yellow", "broken": "red"}
_WIDTH = 80


@click.command(cls=Command)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def doctor(model: Path | None, as_json: bool) -> None:
    """Check what this computer needs to run Onspect: libraries, processor, disk, clock, cameras, and MODEL if given.

    Each provider of onnxruntime has to start a session, and each GenTL producer has to load. 32 MB are written into the
    current folder, and removed, to measure the disk. The exit code is 1 if something that is needed is broken.

    \b
    Example:
      onspect doctor
      onspect doctor part.onnx --json
    """
    from onspect.runtime.doctor.check import check_computer

    findings = []
    for finding in check_computer(Path(), model):
        findings.append(finding)
        if not as_json:
            label = click.style(f"{_LABELS[finding.status]:<4}", fg=_COLOURS[finding.status])
            lines = textwrap.wrap(finding.detail, _WIDTH - 5 - 21) or [""]
            click.echo(f"{label} {finding.name:<20} {lines[0]}".rstrip())
            for line in lines[1:]:
                click.echo(f"{'':<26}{line}")
            if finding.remedy and finding.status != "ok" and not _names_its_extra(finding):
                for line in textwrap.wrap(f"-> {finding.remedy}", _WIDTH - 26, subsequent_indent="   "):
                    click.echo(f"{'':<26}{line}")
    broken = [finding.name for finding in findings if finding.status == "broken"]
    if as_json:
        echo_json({"works": not broken, "findings": [asdict(finding) for finding in findings]})
    if broken:
        raise click.ClickException(f"needed, but broken: {', '.join(broken)}")
    say("everything that is needed works; pip install 'onspect[NAME]' adds an extra")


def _names_its_extra(finding: Finding) -> bool:
    """Return whether the name of an optional package says what to install, so that the table can be short."""
    return finding.status == "absent" and finding.name.startswith(("extra ", "provider openvino"))
