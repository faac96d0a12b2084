"""The documentation is true: its examples run, its page of commands is up to date, and its model file is readable."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.calibration.metrics.image import IMAGE_METRICS
from onspect.calibration.metrics.pixel import PIXEL_METRICS
from onspect.calibration.review import BANDS
from onspect.calibration.thresholds import POLICIES
from onspect.demo.parts import draw_dataset, draw_part
from onspect.export.scores import MEMORY, SCORES
from onspect.runtime.cli import main
from onspect.runtime.images.region import read_region
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line.config import DashboardConfig, read_config
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import ModelInfo, SourceLimits, Threshold
from onspect.runtime.presence.settings import KEYS
from onspect.runtime.records import parse_dataclass
from onspect.runtime.signals import Inputs, Outputs, open_signal
from onspect.runtime.signals.handshake import ERRORS
from onspect.runtime.signals.modbus import IN_REGISTERS, OUT_REGISTERS
from onspect.runtime.signals.mqtt import merge
from onspect.runtime.signals.opcua import INPUTS, OUTPUTS
from onspect.runtime.sinks.modbus import CODES, REGISTERS
from onspect.runtime.sinks.opcua import LAST_PART, LINE
from onspect.runtime.sinks.registry import SINKS, open_sink
from onspect.runtime.sinks.sqlite import SqliteSink
from onspect.runtime.sources.registry import SOURCES
from onspect.training.features import make_base

from .runtime.services import write_certificates
from .runtime.teaching.conftest import base_file, parts
from .runtime.verdicts import inspection

__all__ = ["base_file", "parts"]

DOCS = Path(__file__).parents[1] / "docs"

Judged = tuple[str, float | None, list[tuple[int, int, int, int, float, int]]]


def find_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are marked with a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_examples(page: str, capsys: pytest.CaptureFixture[str], **given: object) -> int:
    """Run a page's Python blocks one after the other, compare what they print with the text below, and count them."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = dict(given)
    for code, printed in found:
        exec(compile(code, page, "exec"), names)
        assert capsys.readouterr().out == printed
    return len(found)


def judge_with_inspector(inspector: Inspector, frame: NDArray[Any]) -> Judged:
    """Return what Onspect makes of a frame, in the documented reader's words."""
    verdict = inspector.inspect(frame)
    boxes = [(r.x, r.y, r.width, r.height, r.peak, r.area) for r in verdict.regions]
    return verdict.verdict, verdict.score, boxes


@pytest.fixture(scope="module")
def reader() -> Any:
    """Return the class of the reader in docs/model-file.md, which imports nothing of Onspect."""
    (code,) = find_blocks("model-file.md", "python")
    assert "onspect." not in code.replace('"onspect.', "").replace("'onspect.", "")
    names: dict[str, Any] = {}
    exec(compile(code, "model-file.md", "exec"), names)
    return names["Reader"]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Return the example file of docs/model-file-example.md."""
    (text,) = find_blocks("model-file-example.md", "base64")
    path = tmp_path / "example.onnx"
    path.write_bytes(base64.b64decode(text))
    return path


def test_commands_page_is_up_to_date() -> None:
    """docs/commands.md is what docs/generate_commands.py writes from the help of the commands as they are."""
    specification = importlib.util.spec_from_file_location("generate_commands", DOCS / "generate_commands.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render(), "run: python docs/generate_commands.py"


@pytest.mark.slow
def test_python_examples_run(
    calibrated: Path,
    tmp_path: Path,
    write_image: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    base_file: Path,
    parts: Path,
) -> None:
    """Every example of docs/python.md runs and prints the text below it."""
    assert calibrated == tmp_path / "part.onnx"
    write_image(tmp_path / "parts" / "a.png", 128, (32, 48))
    spot = np.full((32, 48), 128, np.uint8)
    spot[8:16, 12:24] = 255
    png = cv2.imencode(".png", spot)[1].tobytes()
    (tmp_path / "parts" / "b.png").write_bytes(png)
    (tmp_path / "parts" / "c.png").touch()
    shutil.copy(base_file, tmp_path / "base.onnx")
    shutil.copytree(parts, tmp_path / "disks")
    monkeypatch.chdir(tmp_path)
    assert run_examples("python.md", capsys) > 5


@pytest.mark.slow
def test_teaching_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of docs/teach.md teaches drawn parts and prints the text that the page has."""
    (tmp_path / "base.onnx").write_bytes(make_base())
    for folder, numbers in (("good", range(10)), ("more_good", range(10, 13))):
        (tmp_path / folder).mkdir()
        for number in numbers:
            part, _ = draw_part(np.random.default_rng(number))
            (tmp_path / folder / f"{number}.png").write_bytes(cv2.imencode(".png", part)[1].tobytes())
    monkeypatch.chdir(tmp_path)
    assert run_examples("teach.md", capsys) == 1


@pytest.mark.slow
def test_training_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of training in docs/python.md trains (here one epoch), exports and converts."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(Path("parts"), seed=0, train=24, good=6, defective=2, size=64)
    (code,) = find_blocks("python.md", "py")
    shorter = code.replace('preset="fast"', 'preset="fast", epochs=1')
    assert shorter != code
    exec(compile(shorter, "python.md", "exec"), {})
    assert read_model_file("small.onnx").info.provenance.precision == "int8"


def test_archive_example_reads_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/scale.md reads the rejects of a folder of Parquet files."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    Path("verdicts.parquet").mkdir()
    parquet.write_table(pyarrow.table({"verdict": ["ok", "ng", "fault"]}), "verdicts.parquet/0.parquet")
    names: dict[str, Any] = {}
    (code,) = find_blocks("scale.md", "python")
    exec(compile(code, "scale.md", "exec"), names)
    assert names["table"].num_rows == 1


def test_configuration_files_of_pages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard's section of line.toml in docs/dashboard.md and the region file in docs/regions.md are valid."""
    monkeypatch.setenv("ONSPECT_TOKEN", "geheim")
    (section,) = find_blocks("dashboard.md", "toml")
    (tmp_path / "line.toml").write_text(section, encoding="utf-8")
    assert read_config(tmp_path / "line.toml").dashboard == DashboardConfig("0.0.0.0:8080", "geheim")
    (content,) = find_blocks("regions.md", "toml")
    (tmp_path / "roi.toml").write_text(content, encoding="utf-8")
    assert read_region(tmp_path / "roi.toml").frame == (640, 480)


@pytest.mark.slow
def test_readme_examples_run(
    tmp_path: Path,
    base_file: Path,
    onspect: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The README's lines of shell and Python work as printed in a folder where the demo has run."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(Path("onspect-demo/parts"), seed=0, train=12, good=6, defective=2)
    shutil.copy(base_file, "onspect-demo/base.onnx")
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    shell, python = (
        re.findall(rf"^## Eight lines of {language}\n.*?^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
        for language in ("shell", "Python")
    )
    for line in shell.splitlines():
        program, *words = shlex.split(line)
        assert program == "onspect"
        done = onspect(*words)
        assert done.exit_code == 0, done.stderr
    assert len(Path("verdicts.jsonl").read_text(encoding="utf-8").splitlines()) == 12
    exec(compile(python, "README.md", "exec"), {})
    verdict, is_above, _ = capsys.readouterr().out.split()
    assert (verdict == "ng") == (is_above == "True")


@pytest.mark.parametrize(
    ("page", "count"), [pytest.param("networks.md", 3, marks=pytest.mark.slow), ("paper-networks.md", 1)]
)
def test_network_examples_run(capsys: pytest.CaptureFixture[str], page: str, count: int) -> None:
    """Every example of the pages about networks prints the figures below it."""
    import torch

    try:
        assert run_examples(page, capsys) == count
    finally:
        torch.set_flush_denormal(False)  # which an example sets


def test_line_examples_print_what_the_page_says(
    tmp_path: Path, calibrated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every example of docs/line-python.md prints the text below it, and the configuration of docs/line.md is read."""
    monkeypatch.chdir(tmp_path)
    assert run_examples("line-python.md", capsys) == 2
    (configuration,) = find_blocks("line.md", "toml")
    (tmp_path / "line.toml").write_text(configuration, encoding="utf-8")
    assert read_config(tmp_path / "line.toml").sources[0].address == "env:CAMERA"


def test_presence_settings_are_read(tmp_path: Path) -> None:
    """Each configuration of the pages about presence is read, and the table has every key."""
    for block in (*find_blocks("presence.md", "toml"), *find_blocks("several-parts.md", "toml")):
        (tmp_path / "line.toml").write_text(block, encoding="utf-8")
        config = read_config(tmp_path / "line.toml")
        assert config.presence is not None or config.voting.views is not None
    rows = re.findall(r"^\| (`.*?) \| .* \| .* \|$", (DOCS / "presence.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(KEYS) == {key for row in rows for key in re.findall(r"`(\w+)`", row)}


SINK_PAGES = ("sinks.md", "sink-files.md", "sink-network.md", "sink-plc.md")


def read_pages(*pages: str) -> str:
    """Return the text of several pages of docs/, one after the other."""
    return "\n".join((DOCS / page).read_text(encoding="utf-8") for page in pages)


def test_sink_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every example of the pages about sinks runs and prints the text below it."""
    monkeypatch.chdir(tmp_path)
    with SqliteSink(Path("history.db"), evidence=True) as sink:
        for index in range(4):
            sink.write(inspection("camera", index, time=f"2026-01-01T00:00:{index:02d}.000Z"))
    assert [run_examples(page, capsys, inspection=inspection()) for page in SINK_PAGES] == [1, 1, 1, 0]


def test_documented_addresses_of_sinks_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sink in a command of the pages about sinks can be opened, and every kind in the table."""
    monkeypatch.chdir(tmp_path)
    write_certificates(tmp_path)
    (tmp_path / "ca.pem").rename("factory-ca.pem")
    monkeypatch.setenv("LINE_USER", "line")
    monkeypatch.setenv("LINE_PASSWORD", "geheim")
    page = read_pages(*SINK_PAGES)
    given = [first or second for first, second in re.findall(r"--sink (?:'([^']+)'|(\S+))", page)]
    table = re.findall(r"`(\w+:[^`]+)`", page[page.index("| sink |") : page.index("An extra is")])
    assert len(given) >= 12
    assert len(table) >= 10
    for text in (*given, *table):
        open_sink(text.replace("HOST:PORT", "127.0.0.1:9"), append=True)


OPTIONS = [kind.option.name.replace("_", "-") for kind in (*POLICIES, *BANDS) if kind.option]
WORDS = {
    "scores.md": [f"| `{name}` |" for name in SCORES if name != MEMORY],  # memory.md has the memory
    "calibration.md": [f"`--{name}" for name in OPTIONS],
    "line.md": [prefix.removesuffix("//").removesuffix(":") for row in SOURCES for prefix in row.prefixes],
    "sinks.md": [f"`{prefix}" for row in SINKS for prefix in row.prefixes],
    "glossary.md": [f"| {metric.title} |" for metric in (*IMAGE_METRICS, *PIXEL_METRICS)],
}
"""For each page, words about each row of the tables that it describes."""


@pytest.mark.parametrize("page", WORDS)
def test_every_row_of_a_table_is_on_its_page(page: str) -> None:
    """Each score, policy, source, sink and metric is on the page that describes all of them."""
    text = read_pages(page)
    assert [words for words in WORDS[page] if words not in text] == []


def test_documented_nodes_and_registers_are_there() -> None:
    """The tables of OPC UA variables and Modbus registers are those of the code."""
    page = read_pages("sink-plc.md")
    for folder, variables in (("LastPart", LAST_PART), ("Line", LINE)):
        (row,) = re.findall(rf"^\| `{folder}` \| (.*) \|$", page, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == list(variables)
    assert "verdict: " + ", ".join(f"{code} {name}" for name, code in CODES.items()) in page
    assert f"+8 to +{REGISTERS - 1}" in page


def test_documented_signals_are_there(tmp_path: Path) -> None:
    """The pages about a PLC: the configuration is read, addresses open, registers, nodes and errors are the code's."""
    page = read_pages("plc.md", "plc-signals.md")
    (configuration,) = find_blocks("plc.md", "toml")
    (tmp_path / "line.toml").write_text(configuration, encoding="utf-8")
    config = read_config(tmp_path / "line.toml")
    assert config.signal is not None
    assert config.ejector is not None
    assert config.ejector.parts == 3
    (message,) = find_blocks("plc-signals.md", "json")
    assert merge(Inputs(), message.encode()) == Inputs(trigger=True, part="P-1", shift="late")
    for address in (config.signal.address, *re.findall(r"^`(\w+://HOST[^`]*)`", page, re.MULTILINE)):
        open_signal(re.sub(r"\[:\d+\]", "", address))
    assert f"| `outreg` +6 to +{OUT_REGISTERS - 1} |" in page
    assert f"| `inreg` +2 to +{IN_REGISTERS - 1} |" in page
    assert all(f"`{name}`" in page or f"`.{name}`" in page or f".{name}`" in page for name in (*INPUTS, *OUTPUTS))
    handshake = page[page.index("| event |") : page.index("`error` is cleared")]
    assert {int(code) for code in re.findall(r"\| (\d) \|$", handshake, re.MULTILINE)} == {0, *ERRORS}
    assert all(f"| `{field.name}`" in page or f"`{field.name}`" in page for field in dataclasses.fields(Outputs))


def test_documented_example_is_read_by_onspect(example: Path) -> None:
    """The format's page has a model file as its example, with the JSON, checksums and bytes that the page names."""
    page = read_pages("model-file-example.md")
    file = read_model_file(example)
    content = json.loads(find_blocks("model-file-example.md", "json")[0])
    assert parse_dataclass(ModelInfo, content) == file.info
    assert f"`{content['graph_sha256']}`" in page
    assert f"SHA-256 of the whole file: `{hashlib.sha256(file.data).hexdigest()}`" in page
    assert all(f"`{fingerprint}`" in page for fingerprint in file.training_images)
    rows = re.findall(r"^\| (\d+) to (\d+) \| `([0-9a-f ]+)` \|", page, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [0, *(int(row[1]) + 1 for row in rows[:-1])]
    assert int(rows[-1][1]) + 1 == len(file.data)
    for first, _, begins in rows:
        assert file.data[int(first) :].startswith(bytes.fromhex(begins))


def test_documented_frames_are_judged_as_the_page_says(example: Path, reader: Any) -> None:
    """Onspect and the documented reader make of each frame on the page the input, score, verdict and regions there."""
    inspector, independent = Inspector(example, provider="cpu"), reader(example)
    frames = json.loads(find_blocks("model-file-example.md", "json")[1])
    assert {item["verdict"] for item in frames} == {"ok", "ng", "fault"}
    for item in frames:
        frame = np.array(item["frame"], item["dtype"])
        if item["input"] is not None:
            assert inspector.prepare(frame)[:, :, 0].tolist() == item["input"]
            assert independent.prepare(frame)[0, :, :, 0].tolist() == item["input"]
        regions = [tuple(region.values()) for region in item["regions"]]
        for verdict, score, found in (judge_with_inspector(inspector, frame), independent.judge(frame)):
            assert verdict == item["verdict"]
            assert (score is None) == (item["score"] is None)
            assert score is None or score == pytest.approx(item["score"], rel=1e-4)
            assert [region[:4] for region in found] == [region[:4] for region in regions]
            assert [region[5] for region in found] == [region[5] for region in regions]
            assert [region[4] for region in found] == pytest.approx([region[4] for region in regions], rel=1e-4)


@pytest.mark.parametrize(
    ("channels", "threshold", "expected"),
    [
        (1, Threshold(0.03, 0.2), {"ok", "ng", "fault"}),
        (3, Threshold(0.03, 0.2), {"ok", "ng", "fault"}),
        (1, Threshold(0.04, 0.1, review=0.01, area=3), {"ok", "review", "ng", "fault"}),
    ],
)
def test_documented_reader_agrees_with_inspector(
    tmp_path: Path,
    write_tiny_model: Callable[..., Path],
    reader: Any,
    channels: int,
    threshold: Threshold,
    expected: set[str],
) -> None:
    """The format's reader finds Onspect's fingerprints, scores, verdicts and regions, whatever the frame."""
    path = write_tiny_model(
        tmp_path / "part.onnx",
        width=24,
        height=16,
        channels=channels,
        threshold=threshold,
        white_level=4095,
        source=SourceLimits((1, 3), (12, 96), (8, 64)),
        training_images=["ab" * 8, "0123456789abcdef"],
    )
    inspector, independent, file = Inspector(path, provider="cpu"), reader(path), read_model_file(path)
    assert independent.info == json.loads(json.dumps(file.info.to_dict()))
    assert independent.training_images == file.training_images
    random = np.random.default_rng(0)
    verdicts = set()
    for height, width in ((16, 24), (50, 70), (8, 12), (40, 13), (64, 96), (65, 96), (8, 11)):
        for shape in ((height, width), (height, width, 3)):
            for kind, white in ((np.uint8, 255), (np.uint16, 4095)):
                for spread in (0.1, 1.0):
                    values = random.uniform(0.5 - spread / 2, 0.5 + spread / 2, shape)
                    frame = (values * white).astype(kind)
                    judged = judge_with_inspector(inspector, frame)
                    assert independent.judge(frame) == judged
                    verdicts.add(judged[0])
    assert verdicts == expected


@pytest.mark.parametrize("position", [300, 700, -100, -10])
def test_documented_reader_refuses_damage(example: Path, reader: Any, position: int) -> None:
    """A changed byte in the graph, the JSON, the fingerprints or the checksum is refused by the documented reader."""
    data = bytearray(example.read_bytes())
    data[position] ^= 1
    example.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged|truncated|JSON|Expecting|utf-8"):
        reader(example)


def test_documented_reader_refuses_an_uncalibrated_file(uncalibrated: Path, reader: Any) -> None:
    """Without a threshold the documented reader gives no verdict, as the page asks."""
    with pytest.raises(ValueError, match="not calibrated"):
        reader(uncalibrated).judge(np.zeros((16, 16), np.uint8))


ROOT = DOCS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
MOST_WORDS = 1500
LONG = {"commands.md"}
"""Pages that may be longer: a generated one."""


def find_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link of a page to a file or a heading of this repository has its target."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        file = page.parent / place if place else page
        assert file.exists(), target
        assert not anchor or anchor in find_anchors(file), target


def test_pages_are_short() -> None:
    """A page has at most 1,500 words outside its code, so that it is read to its end."""
    words = {}
    for page in DOCS.glob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        words[page.name] = len(text.split())
    assert {name: count for name, count in words.items() if count > MOST_WORDS and name not in LONG} == {}


def test_pages_begin_with_a_command() -> None:
    """Before the first section of a page there is a command; the list of all commands is one by itself."""
    begins = {page.name: page.read_text(encoding="utf-8").split("\n## ")[0] for page in DOCS.glob("*.md")}
    assert [name for name, text in begins.items() if "\n```sh\n" not in text] == ["commands.md"]


def test_contributing_names_what_is_there() -> None:
    """Every path that CONTRIBUTING.md gives exists, and every table or class that it names is in the source."""
    text = re.sub(r"```.*?```", "", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paths = re.findall(r"`([\w/]+/[\w/.]+\.(?:py|md))`", text)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for part in ("runtime", "training", "export", "calibration", "tests/contracts")
        for path in (ROOT / part).rglob("*.py")
    )
    names = set(re.findall(r"`([A-Z_]{4,}|[A-Z][a-z]\w+)`", text)) - {"None"}
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"(^|class ){name}\b", source, re.MULTILINE)] == []


def test_page_of_faults_names_tests_that_exist() -> None:
    """Each test that docs/line-faults.md names is a function in the file that it names."""
    text = (DOCS / "line-faults.md").read_text(encoding="utf-8")
    root, file, count = Path(__file__).parent / "runtime", "", 0
    for name, test in re.findall(r"`([\w/]*(?:\.py)?)::(test_\w+)`", text):
        file = name or file
        assert f"def {test}(" in (root / file).read_text(encoding="utf-8"), test
        count += 1
    assert count >= 25


def find_commands(text: str) -> list[list[str]]:
    """Return the words of each command of Onspect and of benchmarks/ in shell blocks and inline code of Markdown.

    Inline code may end in an option whose value is left out, so it gets one more word.
    """
    found = []
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        found += [line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found += [" ".join([*code.split(), "VALUE"]) for code in re.findall(r"`([^`]+)`", prose)]
    commands = []
    for line in found:
        for part in re.split(r" (?:&&|\|\||\||;|>) ", line):
            begin = re.match(r"(?:\w+=\S+ )*(?:sudo )?(onspect [a-z]|python benchmarks/)", part)
            if begin is not None:
                commands.append(shlex.split(part[begin.start(1) :].replace("\\|", "|"), comments=True))
    return commands


def find_wrong_words(words: list[str]) -> list[str]:
    """Return why a command's words would be refused: an unknown command, script or option, or a missing value."""
    if words[0] == "python":
        script = ROOT / words[1]
        if not script.exists():
            return [f"there is no {words[1]}"]
        source = script.read_text(encoding="utf-8")
        options = [word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)]
        return [f"{words[1]} has no {option}" for option in options if f'"{option}"' not in source]
    command, rest = main, words[1:]
    context = click.Context(main, **main.context_settings)  # click keeps the help option of the first context
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(context, rest[0])
        if inner is None:
            return [f"there is no command {rest[0]}"]
        command, rest = inner, rest[1:]
    try:
        command.make_parser(click.Context(command, parent=context)).parse_args(
            [word for word in rest if word not in ("...", "..", "…")]
        )
    except click.UsageError as error:
        return [error.format_message()]
    return []


def test_commands_of_pages_are_valid() -> None:
    """Each command of a page exists with its options, and each benchmark is a script of this repository."""
    commands = [(page.name, words) for page in PAGES for words in find_commands(page.read_text(encoding="utf-8"))]
    assert len(commands) > 100
    assert [(name, " ".join(words), wrong) for name, words in commands if (wrong := find_wrong_words(words))] == []


def test_wrong_commands_are_found() -> None:
    """Unknown commands, options and scripts are found, in blocks and in inline code."""
    page = (
        "```sh\nonspect teach good/ -o part.onnx  # a file\nonspect teach good/ --best\nonspect score part.onnx -o\n"
        "python benchmarks/none.py\n```\n`onspect fly`, `python benchmarks/lamp.py --fast` and `onspect score -o`.\n"
    )
    found = [find_wrong_words(words) for words in find_commands(page)]
    assert [len(wrong) for wrong in found] == [0, 1, 1, 1, 1, 1, 0]


FIGURE = re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])|\d ?%|\d (?:ms|us|s|minutes|MB|MiB)\b")
"""A measured number in prose or a table: with decimals, in percent or with a unit, but not a version."""


def find_unproved_sections(text: str) -> list[str]:
    """Return the headings of the sections of Markdown that have a figure and no command that measures it."""
    found = []
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        prose = re.sub(r"^```.*?^```$|`[^`]+`", "", section, flags=re.DOTALL | re.MULTILINE)
        if FIGURE.search(prose) and not find_commands(section):
            found.append(section.splitlines()[0])
    return found


def test_figures_of_the_research_log_have_a_command() -> None:
    """Each section of a page of research that has a figure has a command of Onspect or of benchmarks/."""
    pages = sorted(DOCS.glob("research-*.md"))
    assert len(pages) > 8
    found = {page.name: find_unproved_sections(page.read_text(encoding="utf-8")) for page in pages}
    assert {name: headings for name, headings in found.items() if headings} == {}


def test_figures_without_a_command_are_found() -> None:
    """A figure in prose or in a table needs a command in its own section; numbers in code and versions do not."""
    page = (
        "# Page\n\n## A\n\nIt took 3 ms.\n\n## B\n\n| rate |\n|---|\n| 4% |\n\n`onspect bench part.onnx` prints it.\n"
        "\n## C\n\n| AUROC |\n|---|\n| 0.97 |\n\n## D\n\nOf 0.1.0, `--size 0.5`.\n"
    )
    assert find_unproved_sections(page) == ["## A", "## C"]
