"""Commands about the labels from the dashboard: labels export, labels audit."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from onspect.runtime.cli.base import Command, say
from onspect.runtime.errors import OutputError


@click.group()
def labels() -> None:
    """Use the labels that people gave on the dashboard, and check the log of changes.

    \b
    Example:
      onspect labels export history.db labelled/
      onspect labels audit history.db
    """


@labels.command(cls=Command)
@click.argument("database", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def export(database: Path, folder: Path) -> None:
    """Write labelled pictures from DATABASE into FOLDER, as a dataset in the layout of MVTec AD.

    DATABASE is the line's history, such as history.db; the labels are beside it, in history.labels.db. Good parts go
    to train/good, every fifth to test/good, bad parts to test/bad. pictures.jsonl says who labelled each part, and what
    the line decided. FOLDER must be new or empty.

    \b
    Example:
      onspect labels export history.db labelled/
      onspect teach --add-to part.onnx labelled/train/good
    """
    from onspect.runtime.labels.export import export_labels
    from onspect.runtime.labels.store import open_existing

    with closing(open_existing(database)) as store:
        found = export_labels(store, folder)
    say(
        f"wrote {found.train + found.test_good + found.test_bad} pictures to {str(folder)!r}: "
        f"{found.train} in train/good, {found.test_good} in test/good, {found.test_bad} in test/bad"
    )


@labels.command(cls=Command)
@click.argument("database", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The changes as JSON, one object a line.")
@click.option("--contains", metavar="HASH", help="Fail too if no row has this hash, which you noted before.")
def audit(database: Path, *, as_json: bool, contains: str | None) -> None:
    """Print the log of changes of DATABASE, and check that nothing in it was changed afterwards.

    DATABASE is the line's history or the labels beside it. Every label, addition, undo, threshold and model has a row
    with who and when. Each row has a hash of itself and of the row before it. The exit code is 1 if a row, a label or a
    labelled picture was changed. Rows cut off at the end, and the log of another line in its place, are noticed with
    --contains only: give a hash that you noted, or one of an MQTT message on the topic audit.

    \b
    Example:
      onspect labels audit history.db
    """
    from onspect.runtime.labels.audit import START
    from onspect.runtime.labels.store import open_existing

    with closing(open_existing(database)) as store:
        changes, broken = store.changes(), store.verify()
    for change in changes:
        facts = json.dumps(dict(change.facts), ensure_ascii=False)
        row = json.dumps(change.to_dict(), ensure_ascii=False)
        click.echo(row if as_json else f"{change.id:>5}  {change.time}  {change.kind:<9}  {change.who or '-'}  {facts}")
    if contains is not None and all(change.hash != contains.strip().lower() for change in changes):
        broken.append(f"no row has the hash {contains!r}: rows were cut off, or it is the log of another line")
    if broken:
        raise OutputError(f"{str(store.path)!r} was changed: {'; '.join(broken)}")
    say(
        f"{len(changes)} changes, none of them tampered with; the last hash is {changes[-1].hash if changes else START}"
    )
