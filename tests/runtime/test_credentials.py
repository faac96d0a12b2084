from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onspect.runtime.credentials import redact, resolve_secret
from onspect.runtime.errors import ChoiceError
from onspect.runtime.sinks.address import read_address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@10.0.0.4/stream", "rtsp://***@10.0.0.4/stream"),
        ("rtsp://admin:hun@ter/2@10.0.0.4/stream", "rtsp://***@10.0.0.4/stream"),
        ("cannot open 'http://u:p@a/x' or 'http://u:p@b/y'", "cannot open 'http://***@a/x' or 'http://***@b/y'"),
        ("http://a/hook?id=4&api_key=abc&x=1", "http://a/hook?id=4&api_key=***&x=1"),
        ("mqtt://a/t?password=env:BROKER", "mqtt://a/t?password=env:BROKER"),
        ("http://10.0.0.4:8080/video", "http://10.0.0.4:8080/video"),
    ],
)
def test_no_secret_is_shown(text: str, shown: str) -> None:
    """User names, passwords and tokens in URLs are replaced; hosts, and names of places of secrets, stay."""
    assert redact(text) == shown


def test_secrets_come_from_environment_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """env:NAME and file:PATH stand for what is there, a file's last line end left out; anything else is itself."""
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
"""Passwords of all signs but spaces and quotes, in which a URL ends; they begin as nothing else does here."""

ARGUMENTS = SECRETS.map(lambda secret: "".join(sign for sign in secret if sign not in "&;"))
FRAMES = st.sampled_from(["{}", "cannot open '{}': refused", 'the sink "{}" is lost; trying again', "{} {}"])


@given(SECRETS, FRAMES, st.sampled_from(["rtsp", "mqtts", "http"]))
def test_no_generated_password_is_shown(secret: str, frame: str, scheme: str) -> None:
    """Whatever a password holds, also signs that should be escaped, it is not shown, and the host is."""
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
        read_address(f"{scheme}://admin:{secret}@host/topic", {})
    assert "x9Q" not in str(refusal.value)
    assert secret not in str(refusal.value)
