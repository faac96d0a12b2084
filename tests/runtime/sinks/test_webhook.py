from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from onspect.runtime.errors import ChoiceError, OutputError, RefusedError
from onspect.runtime.sinks.columns import encode_verdict
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink, Timing
from onspect.runtime.sinks.delivery.spool import Spool
from onspect.runtime.sinks.registry import open_sink
from onspect.runtime.sinks.webhook import WebhookSink, open_webhook

from ..services import Handler, Request, Server, free_port, write_certificates
from ..verdicts import inspection, wait_until

QUICK = Timing(first_pause=0.005, longest_pause=0.01)
"""Lets queued sinks try again at once."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a running web server."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_verdicts_are_posted_over_one_connection(server: Server) -> None:
    """Each verdict is one POST of its JSON to the whole address, in order, over a connection that is kept."""
    with open_sink(server.url, append=True) as sink:
        for index in range(5):
            sink.write(inspection(index=index, source="Prüfling"))
    assert [request.index for request in server.requests] == list(range(5))
    assert server.requests[0].target == "/hook?line=1"
    assert server.requests[0].headers["Content-Type"] == "application/json"
    assert json.loads(server.requests[0].body)["source"] == "Prüfling"
    assert server.connections == 1


def test_signature_can_be_checked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a secret each request has a time and the HMAC-SHA256 of time and body; without one it has neither."""
    monkeypatch.setenv("HOOK_SECRET", "geheim")
    with open_sink(f"{server.url}#secret=env:HOOK_SECRET", append=True) as sink:
        sink.write(inspection())
    with open_sink(server.url, append=True) as sink:
        sink.write(inspection())
    signed, plain = server.requests
    stamp = signed.headers["Onspect-Timestamp"]
    expected = hmac.new(b"geheim", stamp.encode() + b"." + signed.body, hashlib.sha256).hexdigest()
    assert signed.headers["Onspect-Signature"] == f"sha256={expected}"
    assert abs(time.time() - int(stamp)) < 60
    assert "Onspect-Signature" not in plain.headers
    assert "secret" not in signed.target


def test_server_that_fails_then_recovers_gets_everything(server: Server, tmp_path: Path) -> None:
    """While the server fails in its several ways verdicts wait, and then each arrives, in order, under one key."""
    answers: dict[int, list[int | None]] = {3: [500, None, 503], 4: [429, 404, None, None, 302]}

    def answer(request: Request) -> int | None:
        left = answers.get(request.index)
        return left.pop(0) if left else 200

    server.answer = answer
    with QueuedSink(open_sink(server.url, append=True), server.url, tmp_path, timing=QUICK) as queued:
        for index in range(8):
            queued.write(inspection(index=index))
        wait_until(lambda: queued.state().delivered == 8)
    assert list(dict.fromkeys(request.index for request in server.requests)) == list(range(8))
    assert len(server.requests) == 8 + 8
    for index in range(8):
        assert len({r.headers["Idempotency-Key"] for r in server.requests if r.index == index}) == 1
    assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 8


def test_bytes_of_the_spool_are_what_is_posted(server: Server, tmp_path: Path) -> None:
    """A line that waits in the spool is posted as it is, also one of a newer version with fields unknown to this."""
    line = encode_verdict(inspection().verdict)[:-1] + b',  "station": 7}'
    with Spool(tmp_path) as spool:
        spool.append([line])
    with QueuedSink(open_sink(server.url, append=True), server.url, tmp_path, timing=QUICK):
        wait_until(lambda: server.requests)
    assert [request.body for request in server.requests] == [line]


def test_server_that_is_not_there_yet(tmp_path: Path) -> None:
    """Verdicts of a run during which there was no server are posted by the next run."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    with QueuedSink(open_sink(url, append=True), url, tmp_path, timing=QUICK) as queued:
        for index in range(3):
            queued.write(inspection(index=index))
        wait_until(lambda: "refused" in queued.state().message)
    assert queued.state().spooled == 3
    with Server(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with QueuedSink(open_sink(url, append=True), url, tmp_path, timing=QUICK) as queued:
            queued.write(inspection(index=3))
        server.shutdown()
        thread.join()
    assert [request.index for request in server.requests] == [0, 1, 2, 3]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refused_verdict_is_counted_and_left(server: Server, tmp_path: Path, status: int) -> None:
    """A verdict that the server will never take is counted as failed, and the next ones are posted."""
    server.answer = lambda request: status if request.index == 1 else 200
    with QueuedSink(open_sink(server.url, append=True), server.url, tmp_path, timing=QUICK) as queued:
        for index in range(3):
            queued.write(inspection(index=index))
    assert (queued.state().delivered, queued.state().failed) == (2, 1)
    assert [request.index for request in server.requests] == [0, 1, 2]


def test_answers_are_told_apart(server: Server) -> None:
    """A refusal raises RefusedError, any other failure OutputError with the answer; a redirect is not followed."""
    with open_sink(server.url, append=True) as sink:
        for status, kind, message in (
            (400, RefusedError, "400 Bad Request"),
            (401, OutputError, "401 Unauthorized"),
            (302, OutputError, "give the last address"),
            (503, OutputError, "503 Service Unavailable"),
        ):
            server.answer = lambda request, status=status: status  # type: ignore[misc]
            with pytest.raises(OutputError, match=message) as caught:
                sink.write(inspection())
            assert type(caught.value) is kind
        server.answer = lambda request: 200
        sink.write(inspection())
    assert {request.target for request in server.requests} == {"/hook?line=1"}


def test_connection_that_the_server_closed_is_opened_again(server: Server) -> None:
    """If the server has closed the idle connection, the next verdict is posted over a new one without an error."""
    server.idle_limit = 0.05
    with open_sink(server.url, append=True) as sink:
        sink.write(inspection(index=0))
        time.sleep(0.2)
        sink.write(inspection(index=1))
    assert [request.index for request in server.requests] == [0, 1]


def test_silent_server_is_given_up(server: Server) -> None:
    """A server that does not answer is given up after the time limit."""
    release = threading.Event()
    server.answer = lambda request: 200 if release.wait(5) else None
    with open_webhook(server.url, timeout=0.1) as sink, pytest.raises(OutputError, match="timed out"):
        sink.write(inspection())
    release.set()


def test_tls_is_checked(server: Server, tmp_path: Path) -> None:
    """Over TLS verdicts go only to a server whose certificate the named authority has signed."""
    ca, cert, key = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    url = f"https://localhost:{server.server_address[1]}/hook"
    with open_sink(f"{url}#ca={ca}", append=True) as sink:
        sink.write(inspection())
    with open_sink(url, append=True) as sink, pytest.raises(OutputError, match="certificate verify failed"):
        sink.write(inspection())
    assert len(server.requests) == 1


def test_check_connects_and_posts_nothing(server: Server) -> None:
    """Checking reaches the server without a request, and reports a missing one."""
    with open_sink(server.url, append=True) as sink:
        assert sink.check() == "the server can be reached"  # type: ignore[attr-defined]
        sink.write(inspection())
    assert len(server.requests) == 1
    with (
        open_sink(f"http://127.0.0.1:{free_port()}", append=True) as sink,
        pytest.raises(OutputError, match="refused"),
    ):
        sink.check()  # type: ignore[attr-defined]


def test_large_answer_is_not_read(server: Server) -> None:
    """Only the beginning of a large answer is read, and the next verdict is still posted."""

    class Talker(Handler):
        def do_POST(self) -> None:  # noqa: N802 - as the standard library calls it
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(10**9))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(b"x" * 200_000)
            self.close_connection = True

    server.RequestHandlerClass = Talker
    with open_sink(server.url, append=True) as sink:
        for index in range(2):
            sink.write(inspection(index=index))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https:///hook", "names no host"),
        ("http://host:x/", "is not a URL"),
        ("https://me:geheim@host/hook", "has a user or password"),
        ("https://host/hook?token=geheim#sercet=env:A", "has the option 'sercet'"),
        ("https://host/hook#secret=geheim", "must be env:NAME or file:PATH"),
        ("https://host/hook#secret=env:ONSPECT_NOT_SET", "is not set"),
        ("http://host/hook#ca=ca.pem", "needs https://"),
        ("https://host/hook#ca=/nowhere/ca.pem", "No such file"),
        ("https://host/hook löschen", "as %XX"),
        ("env:ONSPECT_NOT_SET", "is not set"),
    ],
)
def test_wrong_url_is_refused(text: str, message: str) -> None:
    """An address that cannot work is refused when it is opened, with the reason and without its secrets."""
    with pytest.raises(ChoiceError) as caught:
        open_sink(text, append=True)
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_address_from_the_environment(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """An address with a token may be kept in the environment; the token is then in no message."""
    monkeypatch.setenv("HOOK", server.url.replace("line=1", "token=geheim"))
    server.answer = lambda request: 500
    sink = open_sink("env:HOOK", append=True)
    assert isinstance(sink, WebhookSink)
    with sink, pytest.raises(OutputError) as caught:
        sink.write(inspection())
    assert server.requests[0].target == "/hook?token=geheim"
    assert "geheim" not in str(caught.value)
