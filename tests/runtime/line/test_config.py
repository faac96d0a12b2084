from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onspect.runtime.errors import ChoiceError
from onspect.runtime.line import AlarmRule, Health, Voting
from onspect.runtime.line.config import DashboardConfig, LineConfig, SignalConfig, SourceConfig, read_config
from onspect.runtime.signals import EjectorRule, HandshakeTimes

WHOLE = """\
# a line with everything
[model]
provider = "cpu"
recipe = "left"

[recipes]
left = "left.onnx"
"right part" = "right.onnx"

[[source]]
address = "0?width=1280"

[[source]]
address = "env:CAMERA"
policy = "every"
recipe = "right part"

[[sink]]
to = "jsonl:verdicts.jsonl"
[[sink]]
to = "mqtts://broker/line?password=env:BROKER"

[line]
spool = "/var/lib/onspect/spool"

[health]
brightness = [20, 200.5]
sharpness = 3
identical = 0
width = 640
height = 480
late_ms = 80

[voting]
frames = 4
rule = "majority"
timeout = 0.5

[alarm]
count = 2
of = 20

[dashboard]
listen = "127.0.0.1:8080"
token = "env:ONSPECT_TEST_TOKEN"

[signal]
address = "modbus://10.0.0.7?unit=3"
result_ms = 250
ack_ms = 2000

[ejector]
delay_ms = 900
pulse_ms = 50
rejects = ["ng", "fault", "review"]
"""


def read(tmp_path: Path, text: str) -> LineConfig:
    """Read a configuration of this text."""
    path = tmp_path / "line.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_every_key_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each section and key of a whole configuration is read as it is written, and secrets from their sources."""
    monkeypatch.setenv("ONSPECT_TEST_TOKEN", "open sesame")
    config = read(tmp_path, WHOLE)
    assert config == LineConfig(
        model=Path("left.onnx"),
        provider="cpu",
        recipe="left",
        recipes={"left": Path("left.onnx"), "right part": Path("right.onnx")},
        sources=(SourceConfig("0?width=1280"), SourceConfig("env:CAMERA", "every", "right part")),
        sinks=("jsonl:verdicts.jsonl", "mqtts://broker/line?password=env:BROKER"),
        health=Health((20.0, 200.5), 3.0, 0, 640, 480, 80.0),
        voting=Voting(4, "majority", 0.5),
        alarm=AlarmRule(2, 20, 1),
        dashboard=DashboardConfig("127.0.0.1:8080", "open sesame"),
        spool=Path("/var/lib/onspect/spool"),
        signal=SignalConfig("modbus://10.0.0.7?unit=3", HandshakeTimes(0.25, 2.0)),
        ejector=EjectorRule(seconds=0.9, pulse=0.05, rejects=("ng", "fault", "review")),
    )
    assert "sesame" not in repr(config)


def test_a_small_configuration_is_enough(tmp_path: Path) -> None:
    """A model and one source, written as a plain table, are a line; missing keys have their defaults."""
    config = read(tmp_path, 'model.file = "a.onnx"\nsource.address = "0"\n')
    assert config == LineConfig(Path("a.onnx"), (SourceConfig("0"),))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[model]\nfile = "a"\nfiel = "b"', 3, ["[model] fiel", "not known", "file, provider, recipe"]),
        ('[modle]\nfile = "a"', 1, ["[modle]", "not known", "recipes"]),
        ("[model]\n\nfile = 3", 3, ["file", "3", "a text"]),
        ('[[source]]\naddress = "0"\n[[source]]\npolicy = "all"', 3, ["[source] address", "missing"]),
        ('[[source]]\naddress = "0"\n[[source]]\naddress = "1"\npolicy = "all"', 5, ["'all'", "latest, every, wait"]),
        ('[[source]]\naddress = "0"\nrecipe = "x"', 3, ["recipe", "'x'", "none"]),
        ("[health]\nidentical = true", 2, ["identical", "True", "whole number"]),
        ("[health]\nsharpness = -1", 2, ["sharpness", "-1", "0 or more"]),
        ("[health]\nsharpness = nan", 2, ["sharpness", "nan"]),
        ("[health]\nbrightness = [3]", 2, ["brightness", "[3]"]),
        ("[voting] # how\nrule = 'best'", 2, ["rule", "'best'", "worst, majority"]),
        ("[voting]\nframes = 0", 2, ["frames", "0", "1 or more"]),
        ("[alarm]\ncount = 5\nof = 4", 2, ["count", "5", "4"]),
        ('[dashboard]\nlisten = ":80"\ntoken = "hunter2"', 3, ["token", "env:NAME"]),
        ('[dashboard]\nlisten = ":80"\ntoken = "env:ONSPECT_NOT_SET"', 3, ["token", "ONSPECT_NOT_SET", "not set"]),
        ('[dashboard]\ntoken = "x"', 1, ["listen", "missing"]),
        ('[recipes]\na = "a.onnx"', None, ["[model] recipe", "missing", "of a"]),
        ('[model]\nrecipe = "b"\n[recipes]\na = "a.onnx"', 2, ["'b'", "of a"]),
        ('[model]\nrecipe = "b"', 2, ["no [recipes]"]),
        ('[recipes]\n"a b" = 1', 2, ["a b", "a text"]),
        ("health.identical = 'no'", 1, ["identical", "'no'"]),
        ("health = 3", 1, ["[health]", "3", "table"]),
        ("[signal]\nresult_ms = 100", 1, ["[signal] address", "missing"]),
        ('[signal]\naddress = "modbus://plc"\nresult_ms = 0', 3, ["result_ms", "0", "1 or more"]),
        ("[ejector]\nparts = 3", 1, ["[ejector]", "needs a [signal]"]),
        ('[signal]\naddress = "modbus://plc"\n[ejector]\npulse_ms = 5', 3, ["parts", "or delay_ms must be given"]),
        ('[signal]\naddress = "modbus://plc"\n[ejector]\nparts = 1\ndelay_ms = 5', 4, ["not both"]),
        (
            '[signal]\naddress = "modbus://plc"\n[ejector]\nparts = 1\nrejects = ["ok"]',
            5,
            ["rejects", "['ok']", "ng, fault, review"],
        ),
        ('[[sink]]\nto = ""', 2, ["to", "text"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, line: int | None, words: list[str]) -> None:
    """Each mistake is refused with its line, its key, its value and what would be right, and without secrets."""
    with pytest.raises(ChoiceError) as error:
        read(tmp_path, text)
    message = str(error.value)
    assert f"line.toml{'' if line is None else f', line {line}'}: " in message
    assert all(word in message for word in words)
    assert "hunter2" not in message


def test_what_is_no_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    """A file that cannot be parsed, or read, is refused with the place."""
    with pytest.raises(ChoiceError, match="line 2"):
        read(tmp_path, "[model]\nfile = a.onnx")
    with pytest.raises(ChoiceError, match=r"none\.toml"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "line.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ChoiceError, match=r"line\.toml' is not text; give the line's configuration, a TOML file"):
        read_config(tmp_path / "line.toml")


LONG = WHOLE.splitlines().index("timeout = 0.5")

VALUES = [
    *(
        '""',
        '"a"',
        '"a\\nb"',
        '"\\u0000"',
        "-1",
        "0",
        "7",
        "1e999",
        "nan",
        "true",
        "[]",
        "[1]",
        "[nan, inf]",
        "{}",
        '["ng"]',
    ),
    *("1979-05-27", str(2**70), "9" * 400, "0.1", "[[]]", '{ file = "a.onnx" }', "=", ""),
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, WHOLE.count("\n") - 1), st.sampled_from(["", "twice", "text", *VALUES]), st.text(max_size=5)
    ),
    max_size=4,
)


@given(edits=EDITS)
@example(edits=[(LONG, "9" * 400, "")])
def test_any_configuration_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, str, str]]
) -> None:
    """A configuration with lines that are gone, twice, or have other values is read, or refused in one line."""
    lines = WHOLE.replace("env:ONSPECT_TEST_TOKEN", "open sesame").splitlines()
    for number, change, text in edits:
        key, equals, _ = lines[number].partition(" = ")
        if change == "twice":
            lines[number] += f"\n{lines[number]}"
        elif change == "text":
            lines[number] += text
        else:
            lines[number] = f"{key} = {change}" if equals and change else ""
    path = tmp_path_factory.getbasetemp() / "line.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    try:
        assert isinstance(read_config(path), LineConfig)
        message = ""
    except ChoiceError as error:
        message = str(error)
    assert "\n" not in message
