from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.dataset.near_duplicates import dct_features, hash_look
from onspect.runtime.errors import DatasetError, ModelFileError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file, stamp
from onspect.runtime.teaching import Taught, add, take_back
from onspect.runtime.teaching.base_file import split_metadata
from onspect.runtime.teaching.graph_values import Stored

from .conftest import write_pictures
from .test_teach import graph_of, load, score

Run = Callable[..., Result]
TeachTiny = Callable[..., Taught]


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A folder with six further good pictures."""
    return write_pictures(tmp_path / "more", range(500, 506))


def test_adding_lowers_scores(taught: Path, parts: Path, more: Path) -> None:
    """No score rises by an addition, those of the added pictures fall to nearly nothing, and the file says so."""
    images, added = load(taught, parts / "test/good"), load(taught, more)
    before, before_added = score(taught, images), score(taught, added)
    answer = add(taught, more, rate=1 / 19)
    after, after_added = score(taught, images), score(taught, added)
    assert (after <= before + 1e-5).all()
    assert (after < before - 1e-3).any()
    assert (after_added < 0.2 * before_added).all()
    file = read_model_file(taught)
    assert file.info.memory is not None
    assert [lesson.pictures for lesson in file.info.memory.lessons] == [12, 6]
    assert (answer.pictures, file.info.memory.pictures, file.info.provenance.training_images) == (6, 18, 18)
    assert {fingerprint_bytes(path.read_bytes()) for path in more.iterdir()} <= file.training_images
    assert file.info.calibration is not None
    assert len(file.info.calibration.good_scores) == 18
    assert answer.rate == pytest.approx(1 / 19)


def test_undo_restores_everything(taught: Path, parts: Path, more: Path) -> None:
    """After --undo graph, threshold, calibration, history and scores are exactly as before."""
    old, images = read_model_file(taught), load(taught, parts / "test/good")
    graph, before = graph_of(taught), score(taught, images)
    add(taught, more)
    assert graph_of(taught) != graph
    take_back(taught)
    new = read_model_file(taught)
    assert graph_of(taught) == graph
    assert new.info == old.info
    assert new.training_images == old.training_images
    assert score(taught, images).tolist() == before.tolist()


@pytest.mark.parametrize("count", [4, 20])
def test_looks_of_added_pictures_are_known(teach_tiny: TeachTiny, tmp_path: Path, count: int) -> None:
    """Almost the same pictures as the added ones are known again; --undo takes their hashes back.

    Of 4 pictures the file has no hashes, and learns them from the added ones.
    """
    first = teach_tiny(write_pictures(tmp_path / "good", range(count)))
    old = read_model_file(first.path).looks
    folder = write_pictures(tmp_path / "more", range(500, 516))
    add(first.path, folder)
    looks = read_model_file(first.path).looks
    assert looks is not None
    hashes = {hash_look(dct_features(image), looks) for image in load(first.path, folder)}
    assert hashes <= set(looks.hashes)
    assert old is None if count == 4 else old is not None and looks.hashes[:20] == old.hashes
    take_back(first.path)
    assert read_model_file(first.path).looks == old


def test_two_additions_are_undone_one_by_one(taught: Path, more: Path, tmp_path: Path) -> None:
    """The last addition goes first; the first lesson stays."""
    states = [graph_of(taught)]
    for number, folder in enumerate((more, write_pictures(tmp_path / "others", range(600, 603)))):
        add(taught, folder, rate=0.1)
        assert len(read_model_file(taught).info.history) == number + 1
        states.append(graph_of(taught))
    take_back(taught)
    assert graph_of(taught) == states[1]
    take_back(taught)
    assert graph_of(taught) == states[0]
    with pytest.raises(ModelFileError, match=r"was taught only once; there is no addition to undo$"):
        take_back(taught)


def test_taught_pictures_are_refused(taught: Path, parts: Path) -> None:
    """Pictures that are in the memory already change nothing, and the message says so."""
    before = taught.read_bytes()
    with pytest.raises(DatasetError, match=r"^all 12 pictures of 'good' were taught already; nothing was changed$"):
        add(taught, parts / "train/good")
    assert taught.read_bytes() == before


def test_only_new_pictures_of_a_folder_are_added(taught: Path, parts: Path, more: Path) -> None:
    """If a folder has grown, only the new pictures are taught."""
    for path in (parts / "train/good").iterdir():
        shutil.copy(path, more / path.name)
    assert add(taught, more).pictures == 6


def test_threshold_of_a_calibration_stays(taught: Path, parts: Path, more: Path, onspect: Run) -> None:
    """A threshold that was chosen on labelled images is not replaced by an addition, and the command says so."""
    assert onspect("calibrate", taught, parts, "--max-fpr", "10%").exit_code == 0
    before = read_model_file(taught).info
    done = onspect("teach", more, "--add-to", taught)
    assert done.exit_code == 0, done.output
    assert "The threshold is that of an earlier calibration" in done.output
    after = read_model_file(taught).info
    assert (after.threshold, after.calibration, after.history) == (before.threshold, before.calibration, before.history)


def test_a_rejected_part_does_not_raise_the_threshold(taught: Path, tmp_path: Path, onspect: Run) -> None:
    """A part far from all others is taught and passes then; defects between the two thresholds are still found."""
    before = read_model_file(taught).info.threshold
    assert before is not None
    strange = write_pictures(tmp_path / "strange", range(900, 901), spot=True)
    assert Inspector(taught).inspect(strange / "0900.png").verdict == "ng"
    untouched = taught.read_bytes()
    done = onspect("teach", strange, "--add-to", taught)
    assert done.exit_code == 0, done.output
    assert "the threshold stays: chosen from all pictures it would be " in done.stderr
    assert read_model_file(taught).info.threshold == before
    assert Inspector(taught).inspect(strange / "0900.png").verdict == "ok"
    taught.write_bytes(untouched)
    done = onspect("teach", strange, "--add-to", taught, "--max-fpr", "7.2%")
    assert done.exit_code == 0, done.output
    assert "the threshold stays" not in done.stderr
    after = read_model_file(taught).info.threshold
    assert after is not None
    assert after.score > before.score


def test_a_raised_threshold_is_said(taught: Path, parts: Path, tmp_path: Path, onspect: Run) -> None:
    """A calibration that lets more pass than the threshold that teaching chose says so; others do not."""
    file = read_model_file(taught)
    lower = dataclasses.replace(file.info, threshold=dataclasses.replace(file.info.threshold, score=1e-6))
    taught.write_bytes(stamp(file.data, lower, file.training_images))
    words = "which teaching chose"
    assert words in onspect("calibrate", taught, parts, "--max-fpr", "10%").stderr
    assert words not in onspect("calibrate", taught, parts, "--max-fpr", "10%").stderr


def test_undo_after_a_calibration_goes_back_behind_it(taught: Path, parts: Path, more: Path, onspect: Run) -> None:
    """A calibration after the addition was of a memory that is no longer there: its threshold goes too."""
    before = read_model_file(taught).info
    add(taught, more)
    assert onspect("calibrate", taught, parts, "--max-fpr", "10%").exit_code == 0
    take_back(taught)
    after = read_model_file(taught).info
    assert (after.threshold, after.history) == (before.threshold, before.history)


def test_recalibrate_asks_for_a_calibration(taught: Path, parts: Path, onspect: Run) -> None:
    """A threshold that teaching chose has no test marks to carry it over; the one sentence says what to run."""
    before = taught.read_bytes()
    done = onspect("recalibrate", taught, parts / "test/good", "--count", "12")
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert f"run 'onspect calibrate {taught} DATA' on the workstation first" in line
    assert taught.read_bytes() == before


def test_other_sizes_are_refused(taught: Path, tmp_path: Path) -> None:
    """Pictures of another size than the model accepts are named, with what to do."""
    folder = write_pictures(tmp_path / "large", range(3), size=(200, 200))
    before = taught.read_bytes()
    with pytest.raises(DatasetError, match=r"0000\.png' is 200x200 pixels, which the model does not accept; take .*"):
        add(taught, folder)
    assert taught.read_bytes() == before


def test_any_size_takes_other_sizes(teach_tiny: TeachTiny, parts: Path, tmp_path: Path) -> None:
    """A file that was taught with --any-size takes them."""
    taught = teach_tiny(parts, any_size=True)
    assert add(taught.path, write_pictures(tmp_path / "large", range(3), size=(200, 200))).pictures == 3


def test_whole_images_are_added_and_taken_back(teach_tiny: TeachTiny, tmp_path: Path) -> None:
    """The memory of whole images grows by one vector a picture, and shrinks again."""
    taught = teach_tiny(write_pictures(tmp_path / "good", range(6), size=(28, 28)))
    graph = graph_of(taught.path)
    folder = write_pictures(tmp_path / "more", range(50, 54), size=(28, 28))
    images = load(taught.path, folder)
    before = score(taught.path, images)
    add(taught.path, folder)
    assert len(Stored.read(graph_of(taught.path)).whole) == 10
    assert (score(taught.path, images) < before).all()
    take_back(taught.path)
    assert graph_of(taught.path) == graph


def test_a_masked_file_takes_additions(teach_tiny: TeachTiny, parts: Path, more: Path, tmp_path: Path) -> None:
    """With a mask only inspected places are added, and ignored areas still change nothing."""
    import cv2

    mask = np.full((96, 96), 255, np.uint8)
    mask[:, :32] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    taught = teach_tiny(parts, mask=tmp_path / "mask.png")
    add(taught.path, more)
    image = load(taught.path, parts / "test/good")[:1]
    painted = image.copy()
    painted[:, :, :32] = 255
    inspector = Inspector(taught.path)
    assert inspector.run(image).score.tolist() == inspector.run(painted).score.tolist()
    assert score(taught.path, load(taught.path, more)).max() < 0.2


def test_a_lone_picture_is_named_and_strict_refuses(taught: Path, tmp_path: Path, onspect: Run) -> None:
    """A bad part among the added ones is named; with --strict the file stays unchanged."""
    folder = write_pictures(tmp_path / "more", range(700, 708))
    write_pictures(folder, range(900, 901), spot=True)
    before = taught.read_bytes()
    done = onspect("teach", folder, "--add-to", taught, "--strict")
    assert done.exit_code == 1
    assert "0900.png' is an outlier among the good pictures" in done.output
    assert taught.read_bytes() == before
    done = onspect("teach", folder, "--add-to", taught)
    assert done.exit_code == 0
    assert "taught 9 more good pictures" in done.output


def test_a_file_without_memory_is_refused(calibrated: Path, more: Path) -> None:
    """An autoencoder's file has no memory to add to."""
    for work in (lambda: add(calibrated, more), lambda: take_back(calibrated)):
        with pytest.raises(ModelFileError, match=r"has no memory of good parts; make a file with 'onspect teach"):
            work()


def test_failing_write_leaves_the_old_file(taught: Path, more: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails while an addition is written, the old file stays."""
    before = taught.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(Exception, match="No space left on device"):
        add(taught, more)
    assert taught.read_bytes() == before
    assert split_metadata(taught, before)[0] == graph_of(taught)
