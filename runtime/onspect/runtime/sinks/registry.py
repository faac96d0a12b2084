"""Sinks by their address."""

from __future__ import annotations

from collections.abc import Sequence

from onspect.runtime.credentials import redact, resolve_secret
from onspect.runtime.errors import ChoiceError
from onspect.runtime.sinks.base import Sink

_FILES = ("jsonl:FILE", "csv:FILE", "sqlite:FILE", "evidence:FOLDER")


_URLS = ("mqtt[s]://HOST/TOPIC", "http[s]://HOST/PATH", "modbus://HOST", "opcua://HOST", "prometheus://HOST")


def open_sink(text: str, *, append: bool, evidence: bool = False) -> Sink:
    """Return the sink that a text such as ``jsonl:verdicts.jsonl`` names; it does nothing before it is entered.

    append: JSONL and CSV files keep what they hold. evidence: a sink of pictures runs beside it, so that a database
    can say where each picture lies. ``env:NAME`` and ``file:PATH`` stand for an address that is kept there.

    Raises ChoiceError where no sink has such a name, or not such options, and ImportError where its package is missing.
    """
    kind, _, target = text.partition(":")
    if target:
        match kind:
            case "jsonl" | "csv":
                from onspect.runtime.sinks.lines import open_lines

                return open_lines(text, append=append)
            case "sqlite":
                from onspect.runtime.sinks.sqlite import open_sqlite

                return open_sqlite(text, evidence=evidence)
            case "evidence":
                from onspect.runtime.sinks.evidence import open_evidence

                return open_evidence(text)
            case "mqtt" | "mqtts":
                from onspect.runtime.sinks.mqtt import open_mqtt

                return open_mqtt(text)
            case "http" | "https":
                from onspect.runtime.sinks.webhook import open_webhook

                return open_webhook(text)
            case "modbus":
                from onspect.runtime.sinks.modbus import open_modbus

                return open_modbus(text)
            case "prometheus":
                from onspect.runtime.sinks.prometheus import open_prometheus

                return open_prometheus(text)
            case "opcua":
                from onspect.runtime.sinks.opcua import open_opcua

                return open_opcua(text)
            case "env" | "file":
                return open_sink(resolve_secret(text), append=append, evidence=evidence)
    forms = ", ".join((*_FILES, *_URLS))
    raise ChoiceError(f"the sink {redact(text)!r} is not known; give one of {forms} (for lines, FILE may be -: stdout)")


def open_sinks(texts: Sequence[str], *, append: bool) -> list[Sink]:
    """Return the sinks that run side by side for one line, as `open_sink` does."""
    evidence = any(text.startswith("evidence:") for text in texts)
    return [open_sink(text, append=append, evidence=evidence) for text in texts]
