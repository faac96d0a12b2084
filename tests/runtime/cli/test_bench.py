from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from onspect.runtime.bench import measure, run
from onspect.runtime.bench.images import choose_images, draw_images
from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.measure import measure_paced, summarize_latency, take_turns
from onspect.runtime.bench.plot import draw_bench
from onspect.runtime.bench.results import STAGES, Bench, Load, Spread, Start
from onspect.runtime.bench.tables import describe_bench, describe_load
from onspect.runtime.errors import DatasetError, UncalibratedError
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import SourceLimits, Threshold

Run = Callable[..., Result]

START = Start(verdict=200.0, imports=150.0, first_memory=80.0, peak_memory=90.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure as shortly as can be, on two cores, and start no process."""
    monkeypatch.setattr(run, "BATCHES", (1, 2))
    monkeypatch.setattr(run, "available_cores", lambda: 2)
    monkeypatch.setattr(run, "measure_start", lambda *_: START)


def bench(*models: Path, images: tuple[Path, ...] = ()) -> Bench:
    """Run a bench in no time."""
    return run.run_bench(models, images, rate=1000.0, seconds=0.001)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_every_arrangement_is_measured(calibrated: Path) -> None:
    """Each number of workers and threads is there with each batch, and throughput with score's own too."""
    found = bench(calibrated)
    (model,) = found.models
    assert [(cell.workers, cell.batch) for cell in model.throughput] == [
        (workers, batch) for workers in (1, 2) for batch in (1, 2, 32)
    ]
    on_cpu = [(cell.threads, cell.batch) for cell in model.latency if cell.provider == "cpu"]
    assert on_cpu == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert tuple(model.stages.cpu) == STAGES
    assert model.bound == pytest.approx(2000.0 / sum(model.stages.cpu.values()))
    assert model.label == Inspector(calibrated).label
    assert found.ratios == ()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_second_model_is_compared_turn_by_turn(calibrated: Path, tmp_path: Path) -> None:
    """With two models every figure has a ratio, and table, JSON and picture show both."""
    other = tmp_path / "other.onnx"
    other.write_bytes(calibrated.read_bytes())
    found = bench(calibrated, other)
    assert [item.name for item in found.ratios][:2] == ["processor time, one image", "images/s, 1 worker, batch 1"]
    assert all(item.ratio.low <= item.ratio.median <= item.ratio.high for item in found.ratios)
    assert "taken in turns" in describe_bench(found)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(content["models"]) == 2
    assert content["models"][0]["bound"] == found.models[0].bound
    texts = [element.text or "" for element in ElementTree.fromstring(draw_bench(found)).iter() if element.text]
    assert texts.count(found.models[0].label) == 2


@pytest.mark.usefixtures("quick")
def test_command_writes_table_json_and_picture(
    onspect: Run,
    calibrated: Path,
    tmp_path: Path,
    write_image: Callable[..., Path],
) -> None:
    """The table goes to stdout, the figures and the picture into the named files."""
    image = write_image(tmp_path / "images/a.png", 130)
    result = onspect(
        *("bench", calibrated, image.parent, "--seconds", 0.01),
        *("--json", tmp_path / "new" / "b.json", "--plot", tmp_path / "b.svg"),
    )
    assert result.exit_code == 0, result.output
    assert "1 image of 16 x 16 pixels (such as a.png)" in result.stdout
    assert "process start to first verdict: 200 ms" in result.stdout
    assert json.loads((tmp_path / "new" / "b.json").read_text())["models"][0]["start"]["peak_memory"] == 90.0
    assert (tmp_path / "b.svg").read_text().startswith("<svg")


def test_an_uncalibrated_model_is_refused(uncalibrated: Path) -> None:
    """Without a threshold there are no verdicts to time: refused before anything is measured."""
    with pytest.raises(UncalibratedError, match="onspect calibrate"):
        bench(uncalibrated)


def test_an_image_that_the_model_cannot_judge_is_named(
    tmp_path: Path, write_tiny_model: Callable[..., Path], write_image: Callable[..., Path]
) -> None:
    """An image of another size would be timed as a fault; it is refused by name."""
    model = write_tiny_model(
        tmp_path / "part.onnx", threshold=Threshold(1.0, 1.0), source=SourceLimits((1,), (16, 16), (16, 16))
    )
    paths = [write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png", size=(20, 20))]
    with pytest.raises(DatasetError, match=r"b\.png.*20x20.*leave it out"):
        choose_images(paths, [Inspector(model)])


@pytest.mark.parametrize("channels", [(1,), (3,), (1, 3)])
def test_drawn_images_are_of_the_kind_that_the_model_takes(
    calibrated: Path, tmp_path: Path, channels: tuple[int, ...]
) -> None:
    """Drawn images pass the recipe's own check of size and channels."""
    file = read_model_file(calibrated)
    preprocess = dataclasses.replace(file.info.preprocess, source=SourceLimits(channels, (40, 60), (30, 30)))
    paths = draw_images(tmp_path, preprocess)
    inspector = Inspector(dataclasses.replace(file, info=dataclasses.replace(file.info, preprocess=preprocess)))
    assert sorted(choose_images(paths, [inspector])) == paths
    assert read_image(paths[0]).shape[:2] == (30, 50)


def test_turns_alternate() -> None:
    """Works are called one after the other, each as often as the others."""
    calls: list[str] = []
    found = take_turns([lambda: calls.append("a"), lambda: calls.append("b")], 0.0)
    assert "".join(calls) == "aaabbb" + "ab" * 5
    assert [len(samples) for samples in found] == [5, 5]


def test_paced_latency_counts_the_wait(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that had to wait for the one before it is late by that, as on a line."""
    inspector = Inspector(calibrated)
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def inspect(_: object) -> None:
        clock[0] += 0.15  # a frame comes each 0.1 s

    monkeypatch.setattr(inspector, "inspect", inspect)
    paced = measure_paced(inspector, [None], rate=10.0, seconds=0.5)  # type: ignore[list-item]
    assert paced.p50 == pytest.approx(250.0)
    assert paced.p99 == pytest.approx(350.0, abs=5.0)


def test_latency_percentiles() -> None:
    """The percentiles are those of all times."""
    found = summarize_latency("cpu", 1, 4, list(range(1, 102)))
    assert (found.p50, found.p95, found.p99, found.runs) == (51.0, 96.0, 100.0, 101)
    assert Spread.of([1.0, 2.0, 3.0]).median == 2.0


def test_a_busy_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that did not get its processor, or others that used one, make the figures no figures."""
    assert not Load(0.05, 0.99).busy
    assert not Load(None, 0.99).busy
    for load in (Load(0.0, 0.8), Load(0.5, 0.99)):
        assert load.busy
        assert "THIS MACHINE WAS BUSY" in describe_load(load, 2)
    meter = LoadMeter()
    meter.count(wall=2.0, cpu=1.0)
    assert meter.stop().share == 0.5


@pytest.mark.slow
def test_processes_of_their_own_are_measured(calibrated: Path, tmp_path: Path) -> None:
    """A real process gives its time to the first verdict, and what memory it came to use."""
    paths = draw_images(tmp_path, read_model_file(calibrated).info.preprocess)
    start = measure.measure_start(calibrated, "cpu", paths, starts=1)
    assert start.verdict > 0
    assert start.imports > 0
    if start.first_memory is not None:
        assert start.peak_memory is not None
        assert 20 < start.first_memory <= start.peak_memory
