"""Sinks by their address: one row for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from onspect.runtime.address import Kind, find_kind
from onspect.runtime.credentials import resolve_secret, show_address, show_webhook
from onspect.runtime.errors import ChoiceError
from onspect.runtime.sinks.base import Sink

_row = partial(Kind, "onspect.runtime.sinks")

SINKS = (
    _row(("jsonl:", "csv:"), "lines", "open_lines", ("jsonl:FILE", "csv:FILE"), takes=("append",)),
    _row(("sqlite:",), "sqlite", "open_sqlite", ("sqlite:FILE",), takes=("evidence",)),
    _row(("evidence:",), "evidence", "open_evidence", ("evidence:FOLDER",)),
    _row(("mqtt:", "mqtts:"), "mqtt", "open_mqtt", ("mqtt[s]://HOST/TOPIC",)),
    _row(("http:", "https:"), "webhook", "open_webhook", ("http[s]://HOST/PATH",), show=show_webhook),
    _row(("modbus:",), "modbus", "open_modbus", ("modbus://HOST",)),
    _row(("opcua:",), "opcua", "open_opcua", ("opcua://HOST",)),
    _row(("prometheus:",), "prometheus", "open_prometheus", ("prometheus://HOST",)),
)


def open_sink(text: str, *, append: bool, evidence: bool = False) -> Sink:
    """Return the sink of an address such as ``jsonl:verdicts.jsonl``. It is opened when it is entered (``with``).

    Parameters
    ----------
    text
        The address. ``env:NAME`` and ``file:PATH`` name a variable or a file that contains the address.
    append
        JSONL and CSV files keep their content and are extended.
    evidence
        A sink of pictures runs beside this one, so a database can record the place of each picture.

    Returns
    -------
    Sink
        The sink.

    Raises
    ------
    ChoiceError
        If no sink has such a name, or an option is not valid.
    ImportError
        If the package of the sink is not installed.
    """
    address = resolve_secret(text)
    kind = find_kind(SINKS, address)
    if kind is None or not address.partition(":")[2]:
        forms = ", ".join(form for one in SINKS for form in one.forms)
        raise ChoiceError(
            f"the sink {show_sink(text)!r} is not known; give one of {forms} (for lines, FILE may be -: stdout)"
        )
    sink = kind.open(address, append=append, evidence=evidence)
    assert isinstance(sink, Sink)
    return sink


def open_sinks(texts: Sequence[str], *, append: bool) -> list[Sink]:
    """Return the sinks of one line, as `open_sink` does for each.

    Parameters
    ----------
    texts
        The addresses.
    append
        JSONL and CSV files keep their content and are extended.

    Returns
    -------
    list[Sink]
        The sinks, in the order of the addresses.

    Raises
    ------
    ChoiceError
        If no sink has such a name, or an option is not valid.
    ImportError
        If the package of a sink is not installed.
    """
    evidence = any(resolve_secret(text).startswith("evidence:") for text in texts)
    sinks = [open_sink(text, append=append, evidence=evidence) for text in texts]
    if evidence:
        from onspect.runtime.sinks.evidence import EvidenceSink
        from onspect.runtime.sinks.sqlite import SqliteSink

        recorders = [sink.forget_evidence for sink in sinks if isinstance(sink, SqliteSink)]
        for sink in sinks:
            if isinstance(sink, EvidenceSink):
                sink.recorders = list(recorders)
    return sinks


def show_sink(text: str) -> str:
    """Return the address of a sink without secrets, for messages.

    Parameters
    ----------
    text
        The address.

    Returns
    -------
    str
        The address without secrets.
    """
    kind = find_kind(SINKS, text)
    return show_address(text) if kind is None else kind.show(text)
