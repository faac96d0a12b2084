from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.drift.detector import Alarm, Drift, make_drift
from onspect.runtime.errors import UncalibratedError
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.model.file import read_model_file, restamp
from onspect.runtime.model.schema import ModelInfo, Threshold

Run = Callable[..., Result]


def draw(seed: int, count: int, shift: float = 0.0) -> list[float]:
    """Return log-normal scores whose logarithms have a spread of one half, moved by `shift` spreads."""
    return np.exp(np.random.default_rng(seed).normal(shift, 1.0, count) * 0.5).tolist()  # type: ignore[no-any-return]


def watch(drift: Drift, scores: Sequence[float | None]) -> Alarm | None:
    """Feed a drift watch and return its alarm."""
    for score in scores:
        drift.update(score)
    return drift.alarm


@pytest.mark.parametrize(("shift", "direction"), [(1.5, "rose"), (-1.5, "fell")])
@pytest.mark.parametrize("start", [0, 700])
def test_change_is_found_where_it_began(shift: float, direction: str, start: int) -> None:
    """A change of either direction, on the way or before the first part, is dated to within twenty parts."""
    alarm = watch(Drift(draw(1, 60), 4.0), [*draw(2, start), *draw(3, 400, shift)])
    assert alarm is not None
    assert alarm.direction == direction
    assert abs(alarm.began - start) <= 20
    assert start <= alarm.noticed < start + 100


def test_unchanged_line_raises_none() -> None:
    """Scores that come as the calibration's raise no alarm."""
    assert watch(Drift(draw(1, 60), 4.0), draw(2, 3000)) is None


def test_false_alarms_keep_their_bound() -> None:
    """Of many short unchanged lines, each against its own calibration, the share with an alarm is within the bound."""
    alarms = [watch(Drift(draw(seed, 12), 3.0, run_length=200), draw(1000 + seed, 30)) for seed in range(150)]
    assert 0 < sum(alarm is not None for alarm in alarms) / 150 <= 30 / 200 + 0.001


def test_another_scale_gives_the_same_answer() -> None:
    """Only the order of the scores counts: as probabilities near 0 they give the same alarm as they are."""
    line = [*draw(2, 300), *draw(3, 300, 1.5)]
    scaled = watch(Drift([score / 1024 for score in draw(1, 60)], 4.0 / 1024), [score / 1024 for score in line])
    assert scaled == watch(Drift(draw(1, 60), 4.0), line)


def test_defects_are_no_drift() -> None:
    """Defects in one of six parts raise no alarm, however high their scores."""
    line: list[float | None] = [*draw(2, 3000)]
    line[::6] = draw(4, 500, 10.0)
    assert watch(Drift(draw(1, 60), 4.0), line) is None


def test_nothing_but_rejects_is_drift() -> None:
    """A line where every part is rejected leaves no score to compare, and is an alarm anyway."""
    drift = Drift(draw(1, 60), 4.0)
    alarm = watch(drift, [*draw(2, 300), *[50.0] * 40])
    assert alarm is not None
    assert (alarm.direction, alarm.began) == ("rose", 300)


def test_faults_are_counted_and_not_compared() -> None:
    """A fault has no score: it takes its place in the count of parts and changes nothing else."""
    drift, other = Drift(draw(1, 60), 4.0), Drift(draw(1, 60), 4.0)
    line: list[float | None] = [*draw(2, 40), *draw(3, 200, -2.0)]
    plain, faulty = watch(drift, line), watch(other, [None] * 7 + line)
    assert plain is not None
    assert faulty is not None
    assert (faulty.began, faulty.noticed) == (plain.began + 7, plain.noticed + 7)


def test_equal_scores_are_no_drift() -> None:
    """A calibration and a line of one and the same score are alike."""
    assert watch(Drift([1.0] * 30 + [2.0], 3.0), [1.0] * 2000) is None


def test_alarm_comes_once() -> None:
    """A watch reports one alarm, and keeps it."""
    drift = Drift(draw(1, 60), 4.0)
    alarms = [alarm for score in draw(3, 400, -2.0) if (alarm := drift.update(score)) is not None]
    assert alarms == [drift.alarm]


def test_model_without_scores_is_refused(tiny_info: Callable[..., ModelInfo]) -> None:
    """Without good scores in the file, or with fewer than two below its cut, there is nothing to compare with."""
    with pytest.raises(UncalibratedError, match="has no good scores"):
        make_drift(tiny_info(threshold=Threshold(1.0, 1.0)))
    with pytest.raises(UncalibratedError, match="1 of the calibration's 3 good scores"):
        Drift([1.0, 5.0, 6.0], 2.0)


def test_review_band_is_no_part_of_the_comparison(tiny_info: Callable[..., ModelInfo]) -> None:
    """If there is a review band, only scores below it are compared: parts that passed without a person."""
    info = tiny_info(threshold=Threshold(9.0, 9.0, review=4.0))
    assert info.calibration is not None
    info = dataclasses.replace(
        info, calibration=dataclasses.replace(info.calibration, good_scores=(1.0, 2.0, 3.0, 5.0))
    )
    drift = make_drift(info)
    assert (drift.cut, drift.reference) == (3.0, 2)


@pytest.fixture
def model(calibrated: Path) -> Path:
    """Return a model file with sixty good scores and a threshold of 4."""
    file = read_model_file(calibrated)
    assert file.info.calibration is not None
    restamp(
        file,
        Threshold(4.0, 4.0),
        dataclasses.replace(file.info.calibration, data="held back", good_scores=tuple(sorted(draw(1, 60)))),
    )
    return calibrated


def write_log(path: Path, model: Path, scores: Sequence[float | None], *, name: str = "tiny") -> Path:
    """Write verdicts as a line would."""
    label = f"{name}@{read_model_file(model).sha256[:12]}"
    lines = [
        Verdict(
            source=f"{number}.png",
            index=number,
            time="2026-01-01T00:00:00.000Z",
            verdict="fault" if score is None else "ng" if score >= 4.0 else "ok",
            score=score,
            threshold=4.0,
            regions=(),
            latency_ms=1.0,
            model=label,
        ).to_json()
        for number, score in enumerate(scores)
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_log_with_drift(onspect: Run, model: Path, tmp_path: Path) -> None:
    """The command names the direction, the first part with its file, both stretches, and the promised rate."""
    log = write_log(tmp_path / "v.jsonl", model, [None, *draw(2, 299), *draw(3, 200, -1.5)])
    result = onspect("drift", log, model)
    assert result.exit_code == 0, result.output
    assert "the scores fell" in result.stdout
    assert "defects may pass unnoticed" in result.stdout
    assert "60 good scores" not in result.stdout
    assert "'held back'" in result.stdout
    answer = json.loads(onspect("drift", log, model, "--json").stdout)
    assert abs(answer["alarm"]["began"] - 300) <= 20
    assert answer["began"]["source"] == f"{answer['alarm']['began']}.png"
    assert answer["before"]["parts"] == answer["alarm"]["began"]
    assert answer["since"]["median"] < answer["before"]["median"]
    assert answer["false_alarm_chance"] == pytest.approx(0.0015)


def test_log_without_drift(onspect: Run, model: Path, tmp_path: Path) -> None:
    """An unchanged line gets the answer that no drift is seen, and the number of compared parts."""
    result = onspect("drift", write_log(tmp_path / "v.jsonl", model, draw(2, 500)), model)
    assert result.exit_code == 0
    assert "none seen" in result.stdout
    assert "of 500 parts" in result.stdout


def test_log_with_stumps_and_an_older_stamp(onspect: Run, model: Path, tmp_path: Path) -> None:
    """Lines that are not verdicts are left out, older ones than the last stamp are compared, each with a warning."""
    log = write_log(tmp_path / "v.jsonl", model, draw(2, 30))
    text = log.read_text()
    log.write_text(f'{text}{{"source": "30.png", "ind\n' + text.replace("tiny@", "tiny@0")[: text.index("\n") + 2])
    result = onspect("drift", log, model)
    assert result.exit_code == 0, result.output
    assert "1 line of" in result.stderr
    assert "includes 1 part from before" in result.stderr


def test_log_that_cannot_be_compared_is_refused(onspect: Run, model: Path, calibrated: Path, tmp_path: Path) -> None:
    """No file, no verdict in it, or verdicts by another model end with one line that says so."""
    for log, words in (
        (tmp_path / "none.jsonl", "cannot read"),
        (model, "there is no verdict in"),
        (write_log(tmp_path / "other.jsonl", model, [1.0], name="screw"), "has verdicts by 'screw@"),
    ):
        result = onspect("drift", log, model)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr


def test_run_raises_the_alarm(onspect: Run, model: Path, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """A line whose scores all are far below the calibration's warns while it runs, and delivers every verdict."""
    for number in range(40):
        write_image(tmp_path / "parts" / f"{number:03}.png", 128)
    result = onspect("run", model, tmp_path / "parts")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 40
    assert result.stderr.count("drift: the scores fell, from about part 0 on") == 1


def test_run_without_scores_to_compare_is_no_error(
    onspect: Run, calibrated: Path, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    """A model file without good scores runs as before; -v says that drift is not watched for."""
    write_image(tmp_path / "parts" / "a.png", 128)
    result = onspect("run", calibrated, tmp_path / "parts", "-v")
    assert result.exit_code == 0
    assert "drift is not watched for" in result.stderr
