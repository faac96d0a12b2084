"""Figures of the line for Prometheus to scrape: ``http://HOST:PORT/metrics``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Self, get_args
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from onspect.runtime.address import Address, parse_url
from onspect.runtime.errors import FAULT_CODES, ChoiceError, OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.judgement import JUDGEMENTS
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.status import LineStatus, Now

if TYPE_CHECKING:
    from prometheus_client import Metric

PORT = 9464
"""Default port, from the port list of Prometheus for exporters of applications."""

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class PrometheusSink(Sink):
    """Serve counts, latencies and states in the text format of Prometheus, from its own thread.

    Parts and their latencies are counted at once; figures of the whole line are those of the last report.

    Parameters
    ----------
    address
        The parsed address.
    port
        TCP port; 0 for a free one.
    """

    delivery: Delivery = "live"
    pictures = False
    wants_status = True

    def __init__(self, address: Address, *, port: int) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app

        self._address = address
        self._port = port
        self.listens = address.host, port
        self._status: LineStatus | None = None
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        registry = CollectorRegistry()
        registry.register(self)
        meanings = ", ".join(f"{name}: {facts.meaning}" for name, facts in JUDGEMENTS.items())
        self._parts = Counter("onspect_parts", f"Parts by their verdict ({meanings}).", ["verdict"], registry=registry)
        self._latency = Histogram(
            "onspect_latency_seconds",
            "Time from a frame's capture to its verdict.",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._application = make_wsgi_app(registry)
        self._faults = Counter(
            "onspect_faults", "Parts that could not be judged, by code.", ["code"], registry=registry
        )
        for verdict in JUDGEMENTS:
            self._parts.labels(verdict)
        for code in FAULT_CODES:
            self._faults.labels(code)

    def __enter__(self) -> Self:
        host = self._address.host
        kind = _Server6 if ":" in host else _Server
        with explaining(OutputError, f"cannot serve {self._address.shown}", "give another port or address"):
            self._server = kind((host, self._port), _Handler)
        self._server.set_app(self._application)
        self._thread = threading.Thread(target=self._server.serve_forever, name="prometheus", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = None

    @property
    def port(self) -> int:
        """The port that the sink listens on."""
        return self._port if self._server is None else int(self._server.server_port)

    def write(self, inspection: Inspection) -> None:
        """Count one part.

        Parameters
        ----------
        inspection
            The inspection.
        """
        self._parts.labels(inspection.verdict.verdict).inc()
        if inspection.verdict.code is not None:
            self._faults.labels(inspection.verdict.code).inc()
        self._latency.observe(inspection.verdict.latency_ms / 1000.0)

    def report(self, status: LineStatus) -> None:
        """Keep the status of the line for the next scrape.

        Parameters
        ----------
        status
            The status.
        """
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Return the figures of the whole line, as of its last report.

        Returns
        -------
        Iterable[Metric]
            The figures; none before the first report.
        """
        return () if self._status is None else _describe(self._status)


def _describe(status: LineStatus) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    def gauge(name: str, words: str, value: float) -> Metric:
        return GaugeMetricFamily(f"onspect_{name}", words, value=value)

    def family(kind: Any, name: str, words: str, label: str, values: Iterable[tuple[str, float]]) -> Any:
        found = kind(f"onspect_{name}", words, labels=[label])
        for one, value in values:
            found.add_metric([one], value)
        return found

    model = {"model": status.model, "recipe": status.recipe or "", "started": status.started}
    yield InfoMetricFamily("onspect_line", "The model that judges, and the start time of the line.", value=model)
    yield gauge("running", "1 while the line runs.", status.running)
    words = "1 for the state that a display shows, 0 for the others."
    states = [(state, state == status.now) for state in get_args(Now)]
    yield family(GaugeMetricFamily, "now", words, "state", states)
    if status.now_age is not None:
        yield gauge("now_age_seconds", "Time since the last verdict.", status.now_age)
    yield gauge("alarm", "1 while the alarm is raised.", status.alarm is not None)
    yield gauge("drift", "1 while the scores have drifted since calibration.", status.drift is not None)
    yield gauge("threshold", "Parts with this score or a higher one are ng.", status.threshold)
    yield gauge("frames_waiting", "Frames between capture and verdict.", status.waiting)
    with suppress(ValueError):
        told = datetime.fromisoformat(status.time).timestamp()
        yield gauge("reported_timestamp_seconds", "Time of the line's last status.", told)
    yield CounterMetricFamily("onspect_swaps", "Models exchanged.", value=status.swaps)
    outcomes = [(name, getattr(status, name)) for name in ("captured", "judged", "dropped", "faulted", "empty")]
    yield family(CounterMetricFamily, "frames", "Frames by outcome.", "state", outcomes)
    connected = [(source.name, source.connected) for source in status.sources]
    yield family(GaugeMetricFamily, "source_connected", "1 while the source is connected.", "source", connected)
    words = "Number of times that the source was opened again."
    reconnects = [(source.name, source.reconnects) for source in status.sources]
    yield family(CounterMetricFamily, "source_reconnects", words, "source", reconnects)
    for kind, name, words in (
        (CounterMetricFamily, "delivered", "Verdicts delivered."),
        (CounterMetricFamily, "failed", "Verdicts that are lost."),
        (GaugeMetricFamily, "queued", "Verdicts waiting in memory."),
        (GaugeMetricFamily, "spooled", "Verdicts waiting on disk."),
    ):
        yield family(kind, f"sink_{name}", words, "sink", [(sink.name, getattr(sink, name)) for sink in status.sinks])
    if status.signals is not None:
        yield gauge("signal_connected", "1 while the PLC is connected.", status.signals.connected)
        for name, words in (
            ("parts", "Accepted triggers."),
            ("acknowledged", "Results that the PLC acknowledged."),
            ("unacknowledged", "Results that the PLC did not acknowledge in time."),
            ("failed", "Parts without a verdict in time."),
            ("ejected", "Parts for which the reject coil was set."),
            ("missed", "Bad parts that passed the gate without the reject coil."),
        ):
            yield CounterMetricFamily(f"onspect_signal_{name}", words, value=getattr(status.signals, name))


class _Server(ThreadingMixIn, WSGIServer):
    """Answer each scrape in a thread, so that a slow one delays no other."""

    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # WSGIServer asks the name server for its own name, which takes seconds if there is no name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, *arguments: object) -> None:
        """Log nothing: a scrape every few seconds is not worth a line."""


def open_prometheus(text: str) -> PrometheusSink:
    """Return the sink for Prometheus.

    Parameters
    ----------
    text
        The address, ``prometheus://HOST[:PORT]``.

    Returns
    -------
    PrometheusSink
        The sink.

    Raises
    ------
    ChoiceError
        If the address is not valid.
    """
    address = parse_url(text, {})
    if address.path not in ("", "metrics"):
        raise ChoiceError(f"the sink {address.shown!r} has a path; the figures are always at /metrics")
    return PrometheusSink(address, port=PORT if address.port is None else address.port)
