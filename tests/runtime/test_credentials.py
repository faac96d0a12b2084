from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onspect.runtime import credentials
from onspect.runtime.address import parse_url
from onspect.runtime.credentials import redact, resolve_secret, show_address
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.registry import open_sink, show_sink
from onspect.runtime.sources import open_source


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@10.0.0.4/stream", "rtsp://***@10.0.0.4/stream"),
        ("rtsp://admin:hun@ter/2@10.0.0.4/stream", "rtsp://***@10.0.0.4/stream"),
        ("cannot open 'http://u:p@a/x' or 'http://u:p@b/y'", "cannot open 'http://***@a/x' or 'http://***@b/y'"),
        ("http://a/hook?id=4&api_key=abc&x=1", "http://a/hook?id=4&api_key=***&x=1"),
        ("mqtt://a/t?password=env:BROKER", "mqtt://a/t?password=env:BROKER"),
        ("http://10.0.0.4:8080/video", "http://10.0.0.4:8080/video"),
        (
            "rtsp://10.0.0.4:554/user=admin_password=tlJwpbo6_channel=1_stream=0.sdp?real_stream",
            "rtsp://10.0.0.4:554/user=***_password=***_channel=1_stream=0.sdp?real_stream",
        ),
        (
            "http://10.0.0.4/snap.cgi?loginuse=a&loginpas=b&x=1",
            "http://10.0.0.4/snap.cgi?loginuse=***&loginpas=***&x=1",
        ),
        ("rtsp://10.0.0.4/live?usr=a&psw=geheim", "rtsp://10.0.0.4/live?usr=***&psw=***"),
        ("parts/user=5/a.png", "parts/user=5/a.png"),
        ("rtsp://user:p%40ss@10.0.0.4/stream", "rtsp://***@10.0.0.4/stream"),
        ("http://a/v?sid=abcd&x=1", "http://a/v?sid=***&x=1"),
        ("http://a/v?u=admin&p=geheim&size=4", "http://a/v?u=***&p=***&size=4"),
        ("http://a/v;jsessionid=geheim", "http://a/v;jsessionid=***"),
        ("http://a/v?jwt=a.b.c&pin=1234&code=77", "http://a/v?jwt=***&pin=***&code=***"),
        ("srt://a:9000?streamid=#!::u=admin,s=geheim&mode=caller", "srt://a:9000?streamid=***&mode=caller"),
        ("cannot open rtmp://a/app/live_123_geheim: lost", "cannot open rtmp://a/app/***: lost"),
        ("rtmp://a/app/live", "rtmp://a/app/live"),
        ("opcua://a?node=ns=2;s=Line1&poll=5", "opcua://a?node=ns=2;s=Line1&poll=5"),
    ],
)
def test_no_secret_is_shown(text: str, shown: str) -> None:
    """User names, passwords and tokens in URLs are replaced; hosts, and names of places of secrets, stay."""
    assert redact(text) == shown


def test_secrets_come_from_environment_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """env:NAME and file:PATH give the stored text, without a file's last line end; anything else is itself."""
    monkeypatch.setenv("ONSPECT_TEST_SECRET", "from the environment")
    (tmp_path / "token").write_text("from a file\n", encoding="utf-8")
    assert resolve_secret("env:ONSPECT_TEST_SECRET") == "from the environment"
    assert resolve_secret(f"file:{tmp_path / 'token'}") == "from a file"
    assert resolve_secret("plain") == "plain"


@pytest.mark.parametrize("value", ["env:ONSPECT_NOT_SET", "file:no/such/file"])
def test_missing_secret_is_refused(value: str) -> None:
    """A secret whose place is empty is refused with the place's name."""
    with pytest.raises(ChoiceError, match=value.partition(":")[2]):
        resolve_secret(value)


SECRETS = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="'\""), min_size=1, max_size=20).map(
    "x9Q{}".format
)
"""Passwords of all signs but spaces and quotes, which end a URL; no other text here begins like them."""

ARGUMENTS = SECRETS.map(lambda secret: "".join(sign for sign in secret if sign not in "&;"))
FRAMES = st.sampled_from(["{}", "cannot open '{}': refused", 'the sink "{}" is lost; trying again', "{} {}"])


@given(SECRETS, FRAMES, st.sampled_from(["rtsp", "mqtts", "http"]))
def test_no_generated_password_is_shown(secret: str, frame: str, scheme: str) -> None:
    """A password with any signs, also unescaped ones, is not shown, and the host is."""
    url = f"{scheme}://admin:{secret}@10.0.0.4:8554/stream?id=4"
    shown = redact(frame.format(url, url))
    assert "x9Q" not in shown
    assert secret not in shown
    assert "admin" not in shown
    assert "10.0.0.4:8554/stream" in shown
    assert redact(shown) == shown


@given(ARGUMENTS, FRAMES, st.sampled_from(["password", "api_key", "TOKEN", "client-secret", "hmac", "x.auth"]))
def test_no_generated_parameter_is_shown(secret: str, frame: str, name: str) -> None:
    """Nor is a secret behind the name of one, wherever it is among the parameters."""
    for url in (f"http://10.0.0.4/hook?{name}={secret}&id=4", f"http://10.0.0.4/hook?id=4;{name}={secret}"):
        shown = redact(frame.format(url, url))
        assert "x9Q" not in shown
        assert secret not in shown
        assert redact(shown) == shown


@given(SECRETS, st.sampled_from(["mqtt", "opcua", "modbus"]))
def test_no_refusal_shows_a_generated_password(secret: str, scheme: str) -> None:
    """An address with a password in it is refused without showing it."""
    with pytest.raises(ChoiceError) as refusal:
        parse_url(f"{scheme}://admin:{secret}@host/topic", {})
    assert "x9Q" not in str(refusal.value)
    assert secret not in str(refusal.value)


ANY = st.text(min_size=4, max_size=20).map("x9Q{}".format)
"""Passwords of all signs, spaces and quotes among them."""

ADDRESSES = {
    "before the host": "rtsp://admin:{}@10.0.0.4:8554/stream",
    "of a recorder": "rtsp://10.0.0.4:554/user=admin_password={}_channel=1_stream=0.sdp",
    "short name": "rtsp://10.0.0.4/live?psw={}",
    "of a web camera": "http://10.0.0.4/videostream.cgi?loginuse=admin&loginpas={}",
}
MESSAGES = ["cannot open {}: refused", "the source {!r} is lost", "{} {}", '{{"source": {!r}}}']


def forget_secrets() -> None:
    """Forget the secrets of the example before."""
    credentials._known.clear()
    credentials._ordered = ()


@pytest.mark.parametrize("form", ADDRESSES.values(), ids=ADDRESSES)
@given(secret=ANY, message=st.sampled_from(MESSAGES))
@example(secret="x9Qmy pass'wo\"rd\\", message="the source {!r} is lost")
def test_no_password_of_a_source_is_shown(form: str, secret: str, message: str) -> None:
    """The name of an opened source has no part of its password, nor has any message about it; its host is shown."""
    forget_secrets()
    if "?" in form:
        secret = secret.replace("&", "").replace(";", "")
    address = form.format(secret)
    source = open_source(address)
    for text in (source.name, source.state().name, repr(source.state())):
        assert "x9Q" not in text
    for told in (address, secret):
        text = redact(message.format(told, told))
        assert "x9Q" not in text
        assert secret not in text
    if "@" not in secret:
        assert "10.0.0.4" in source.name


@pytest.mark.slow
@given(secret=ANY, message=st.sampled_from(MESSAGES))
@example(secret="x9Q/B0/\" '", message="{}")
def test_what_comes_from_the_environment_is_not_shown(secret: str, message: str) -> None:
    """An address, a password or a token that was read from env: is its place in every message, log line and name."""
    forget_secrets()
    for value in (secret, f"rtsp://u:{secret}@10.0.0.4/a", f"https://hooks.example.com/{secret}"):
        if "\0" in value:
            continue
        with pytest.MonkeyPatch.context() as patch:
            try:
                patch.setenv("ONSPECT_TEST_SECRET", value)
            except UnicodeEncodeError:  # half of a surrogate pair
                continue
            assert resolve_secret("env:ONSPECT_TEST_SECRET") == value
        shown = redact(message.format(value, value))
        assert "x9Q" not in shown
        assert "env:ONSPECT_TEST_SECRET" in shown
        assert show_address(value) == "env:ONSPECT_TEST_SECRET"


PATHS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4, max_size=40).map("x9Q{}".format)


@pytest.mark.slow
@given(secret=PATHS, message=st.sampled_from(MESSAGES))
def test_no_path_of_a_webhook_is_shown(secret: str, message: str) -> None:
    """The path of a webhook is its secret: neither the sink's name nor a message about it has it; the host is shown."""
    forget_secrets()
    url = f"https://hooks.example.com/services/{secret}?id={secret}"
    queued = QueuedSink(open_sink(url, append=True), url)
    assert queued.name == "https://hooks.example.com/***"
    assert show_sink(url) == "https://hooks.example.com/***"
    shown = redact(message.format(url, url))
    assert "x9Q" not in shown
    assert "hooks.example.com" in shown


def test_no_secret_is_in_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log line and its traceback have the place of a secret, not the secret, from any logger."""
    monkeypatch.setenv("ONSPECT_TEST_SECRET", "geheim und lang")
    secret = resolve_secret("env:ONSPECT_TEST_SECRET")
    with caplog.at_level(logging.WARNING):
        logging.getLogger("onspect").warning("it refuses %s", secret, exc_info=OutputError(f"refused: {secret}"))
    assert "geheim" not in caplog.text
    assert caplog.text.count("env:ONSPECT_TEST_SECRET") >= 2


@pytest.mark.parametrize("text", ["a", "_pas", "?pas", "/user=a", "a@", "://a_pas="])
def test_time_grows_with_the_text_only(text: str) -> None:
    """No text of a hundred kilobytes keeps the log waiting: a pattern that tries again at each sign takes minutes."""
    begun = time.process_time()
    redact(f"x://{text * (100_000 // len(text))}")
    assert time.process_time() - begun < 5.0
