"""A line whose camera runs freely: one verdict a part, empty frames counted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.demo.belt import Belt, make_belt
from onspect.runtime.errors import ChoiceError, GapError, ImageError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line import Health, Line, Models, Voting
from onspect.runtime.line.config import read_config
from onspect.runtime.model.schema import SourceLimits, Threshold
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.sources.fake import FakeSource
from onspect.runtime.sources.folder import FolderSource
from onspect.runtime.status import LineStatus

from ...tiny_model import write_model

SETTINGS = PresenceSettings(learn=2.0)


class BeltSource(Source):
    """The frames of a belt, as those of a file; an error is in the place of some."""

    def __init__(self, belt: Belt, errors: dict[int, ImageError] | None = None) -> None:
        super().__init__("belt")
        self._belt, self._errors = belt, errors or {}

    def __iter__(self) -> Iterator[Capture]:
        for number in range(self._belt.frames):
            yield Capture("belt", self._errors.get(number) or self._belt.draw(number))


def accounts(status: LineStatus) -> bool:
    """Return whether every captured frame of an ended line is accounted for."""
    counted = status.judged + status.dropped + status.faulted + status.empty
    return status.captured == counted and status.waiting == 0


@pytest.fixture(scope="module")
def belt() -> Belt:
    """Return a belt of 12 parts."""
    return make_belt(12, stops=1, stop_frames=20, seed=5)


@pytest.fixture
def crops(tmp_path: Path) -> Models:
    """Return a model that takes colour crops of 112x112 pixels, with all checks of frames."""
    limits = SourceLimits((3,), (112, 112), (112, 112))
    path = write_model(tmp_path / "crops.onnx", channels=3, threshold=Threshold(score=0.02, map=0.05), source=limits)
    return Models({None: path}, None, Inspector, Health(brightness=(0.0, 255.0), sharpness=0.0))


@pytest.mark.slow
def test_each_part_has_one_verdict_and_empty_frames_are_counted(belt: Belt, crops: Models, keeper: Any) -> None:
    """Twelve parts give twelve verdicts with their numbers; all other frames are empty, and none is ok."""
    status = Line(crops, [BeltSource(belt)], [keeper], presence=SETTINGS).run()
    assert accounts(status)
    assert [verdict.part for verdict in keeper.verdicts] == [str(number) for number in range(1, 13)]
    assert [verdict.index for verdict in keeper.verdicts] == list(range(12))
    assert (status.captured, status.fault, status.faulted) == (belt.frames, 0, 0)
    assert status.ok + status.ng + status.review == 12
    assert status.judged <= 12
    assert status.empty == belt.frames - status.judged


@pytest.mark.slow
def test_frames_that_are_no_frames_are_faults(belt: Belt, crops: Models, keeper: Any) -> None:
    """A damaged frame and a camera that is lost are faults without a part; the parts are still one verdict each."""
    source = BeltSource(belt, {100: ImageError("damaged"), 150: GapError("lost")})
    status = Line(crops, [source], [keeper], presence=SETTINGS).run()
    assert accounts(status)
    assert status.faulted == 2
    assert [verdict.part for verdict in keeper.verdicts if verdict.verdict == "fault"] == [None, None]
    assert sorted(int(verdict.part) for verdict in keeper.verdicts if verdict.part) == list(range(1, 13))


@pytest.mark.slow
def test_a_verdict_from_the_camera_is_that_of_the_file(
    belt: Belt, crops: Models, keeper: Any, onspect: Callable[..., Result], tmp_path: Path
) -> None:
    """The crops that 'onspect parts' writes, scored as files, have the scores of the run, bit for bit."""
    (tmp_path / "frames").mkdir()
    for number in range(belt.frames):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:04d}.png"), belt.draw(number))
    (tmp_path / "presence.toml").write_text("learn = 2.0\nwindow = [112, 112]\n")
    told = onspect("parts", tmp_path / "frames", "-o", tmp_path / "cut", "--presence", tmp_path / "presence.toml")
    assert told.exit_code == 0, told.output
    assert "12 parts written" in told.output
    settings = dataclasses.replace(SETTINGS, window=(112, 112))
    Line(crops, [FolderSource(tmp_path / "frames")], [keeper], presence=settings).run()
    inspector = crops.current.inspector
    files = sorted((tmp_path / "cut" / "parts").iterdir())
    scored = [inspector.inspect(file) for file in files]
    assert [verdict.score for verdict in keeper.verdicts] == [verdict.score for verdict in scored]
    assert [verdict.verdict for verdict in keeper.verdicts] == [verdict.verdict for verdict in scored]


@pytest.mark.slow
def test_run_takes_presence_from_the_command_line(
    belt: Belt, onspect: Callable[..., Result], crops: Models, tmp_path: Path
) -> None:
    """`run --presence` on a folder of frames prints one line a part."""
    (tmp_path / "frames").mkdir()
    for number in range(150):
        cv2.imwrite(str(tmp_path / "frames" / f"{number:04d}.png"), belt.draw(number))
    told = onspect("run", crops.current.inspector.path, tmp_path / "frames", "--presence", "learn=2s")
    verdicts = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert [verdict["part"] for verdict in verdicts] == [str(number) for number in range(1, len(verdicts) + 1)]
    assert len(verdicts) == np.count_nonzero(belt.places(149) > -45)
    known = ("run", crops.current.inspector.path, tmp_path / "frames")
    refused = onspect(*known, "--presence", "learn=2s", "--signal", "modbus://127.0.0.1:1502")
    assert refused.exit_code == 2
    assert "give parts = 1 to find the part in each triggered frame" in refused.output
    refused = onspect("run", "m.onnx", "frames", "--presence", "always")
    assert refused.exit_code == 2
    assert "give learn=SECONDS" in refused.output


def test_parts_of_a_tray_have_their_own_verdicts(keeper: Any, tmp_path: Path) -> None:
    """A frame with three parts has three verdicts, with regions in the frame's pixels; a missing part is a fault."""
    limits = SourceLimits((1,), (32, 32), (32, 32))
    path = write_model(tmp_path / "part.onnx", threshold=Threshold(score=0.05, map=0.1), source=limits)

    def draw(number: int) -> np.ndarray:
        frame = np.full((60, 150), 128, np.uint8)
        for place in range(3 if number == 0 else 2):
            cv2.circle(frame, (25 + 50 * place, 30), 12, (255 if place == 1 else 160,), -1)
        return frame

    models = Models({None: path}, None, Inspector)
    source = FakeSource(draw, count=2, rate=0)
    status = Line(models, [source], [keeper], policies=["wait"], presence=PresenceSettings(parts=3)).run()
    assert [verdict.part for verdict in keeper.verdicts] == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    assert [verdict.verdict for verdict in keeper.verdicts] == ["ok", "ng", "ok", "ok", "ng", "fault"]
    assert "only 2 of 3" in keeper.reasons[0]
    bright = keeper.verdicts[1].regions[0]
    assert 60 <= bright.x <= 75
    assert 90 >= bright.x + bright.width > 80
    assert accounts(status)
    assert (status.judged, status.faulted) == (1, 1)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"policies": ["latest"]}, "use 'every'"),
        ({"voting": Voting(frames=2)}, "leave one of them out"),
        ({"voting": Voting(views="part")}, "another [[source]]"),
    ],
)
def test_what_does_not_go_with_presence_is_refused(crops: Models, facts: dict[str, Any], words: str) -> None:
    """Policies that drop frames, several frames a part, and views of one camera are refused."""
    with pytest.raises(ChoiceError) as caught:
        Line(crops, [FakeSource(lambda _: np.zeros((9, 9), np.uint8))], [], presence=SETTINGS, **facts)
    assert words in str(caught.value)


def test_presence_is_read_from_the_configuration(tmp_path: Path) -> None:
    """[presence] takes the keys or a file; a mistake is named with its line."""
    file = tmp_path / "line.toml"
    file.write_text('[presence]\nlearn = 3\nwindow = [64, 48]\n[voting]\nviews = "trigger"\n')
    config = read_config(file)
    assert config.presence == PresenceSettings(learn=3.0, window=(64, 48))
    assert config.voting.views == "trigger"
    (tmp_path / "presence.toml").write_text("area = 900\n")
    file.write_text(f'[presence]\nfile = "{tmp_path.as_posix()}/presence.toml"\n')
    assert read_config(file).presence == PresenceSettings(area=900.0)
    file.write_text("[presence]\nwindow = 3\n")
    with pytest.raises(ChoiceError, match=r"line 1: \[presence\]: window is 3"):
        read_config(file)
