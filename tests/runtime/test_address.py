"""Addresses of sinks and sources that nobody thought of: each is opened or refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onspect.runtime.errors import OnspectError
from onspect.runtime.sinks.registry import SINKS, open_sink
from onspect.runtime.sources.registry import SOURCES, open_source

from .test_credentials import forget_secrets

PREFIXES = [prefix for kind in (*SINKS, *SOURCES) for prefix in kind.prefixes]
SIGNS = st.sampled_from(
    ["//", "/", ":", "?", "&", "=", "@", "#", "%", "%00", "[", "]", "[::1]", ";", "..", "\0", "\udce4"]
)
WORDS = st.sampled_from(["host", "password", "qos", "unit", "max", "width", "1e999", "-1", "99999999999", "0", "nan"])
PIECES = st.lists(SIGNS | WORDS | st.text(max_size=4), max_size=10).map("".join)


@pytest.mark.parametrize("prefix", [*PREFIXES, "", "0?"])
@given(rest=PIECES)
@example(rest="//host/line/\udce4")
def test_any_address_is_opened_or_refused_in_one_line(prefix: str, rest: str) -> None:
    """No address ends in another error than ours, and the message is one line. Nothing is written or connected."""
    forget_secrets()
    text = prefix + rest
    for opens in (lambda: open_sink(text, append=True), lambda: open_source(text)):
        message = ""
        try:
            opens()
        except OnspectError as error:
            message = str(error)
        assert "\n" not in message
