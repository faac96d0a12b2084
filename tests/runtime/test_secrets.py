from __future__ import annotations

from pathlib import Path

import pytest

from onspect.runtime.errors import ChoiceError
from onspect.runtime.secrets import redact, resolve_secret


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
