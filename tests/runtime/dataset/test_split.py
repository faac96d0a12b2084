"""Pictures of a flat folder become train, val and test."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.dataset.split import NamePatterns, PlacedImage, plan_split, write_split
from onspect.runtime.errors import ChoiceError, DatasetError

Run = Callable[..., Result]
Write = Callable[..., Path]


def fill(folder: Path, *names: str) -> Path:
    """Write a different file under each name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(4, "big"))
    return folder


def named(good: int, bad: int) -> list[str]:
    return [f"good_{n:03}.png" for n in range(good)] + [f"bad_{n:03}.png" for n in range(bad)]


def sides(plan: list[PlacedImage]) -> dict[str, set[str]]:
    return {side: {item.image.path.name for item in plan if item.split == side} for side in ("train", "val", "test")}


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_names_are_read_and_counted(tmp_path: Path, onspect: Run) -> None:
    """Good pictures are divided by the shares, bad ones between val and test, and one line counts them."""
    folder = fill(tmp_path / "photos", *named(10, 4))
    result = onspect("split", folder, "-o", tmp_path / "parts")
    assert result.exit_code == 0, result.stderr
    assert "train 6 good; val 2 good, 2 bad; test 2 good, 2 bad" in result.stderr
    assert f"next: onspect teach {tmp_path / 'parts' / 'train' / 'good'} -o part.onnx" in result.stderr
    assert len(training_images(tmp_path / "parts")) == 6
    test = labelled_images(tmp_path / "parts", "test")
    assert sorted(image.kind for image in test) == ["bad", "bad", "good", "good"]
    source = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "parts").rglob("*.png")} == source


@pytest.mark.slow
@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30),
    seed=st.integers(0, 3),
)
def test_no_group_is_on_two_sides(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], seed: int
) -> None:
    """Whatever the groups: each is on one side, train is good, every picture has one place, and the seed decides."""
    names = [
        f"{word}_{part}_{n}.png"
        for part, (good, bad) in enumerate(sizes)
        for word, count in (("good", good), ("bad", bad))
        for n in range(count)
    ]
    clean = sum(1 for good, bad in sizes if good and not bad)
    if clean < 3:
        return
    folder = fill(tmp_path_factory.mktemp("photos"), *names)
    plan = plan_split(folder, group=r"_(\d+)_", seed=seed)
    found = sides(plan)
    assert sorted(name for side in found.values() for name in side) == sorted(names)
    assert all(name.startswith("good") for name in found["train"])
    parts = {side: {name.split("_")[1] for name in members} for side, members in found.items()}
    assert not parts["train"] & parts["val"]
    assert not parts["train"] & parts["test"]
    assert not parts["val"] & parts["test"]
    assert plan_split(folder, group=r"_(\d+)_", seed=seed) == plan


def test_seed_changes_the_split(tmp_path: Path) -> None:
    """Another seed takes other pictures to train."""
    folder = fill(tmp_path, *named(40, 0))
    assert sides(plan_split(folder, seed=1)) != sides(plan_split(folder, seed=2))


def test_equal_files_stay_together(tmp_path: Path) -> None:
    """Copies of one file are on one side, whatever their names."""
    folder = fill(tmp_path, *named(12, 0))
    for n in range(6):
        (folder / f"good_copy{n}.png").write_bytes((folder / "good_000.png").read_bytes())
    copies = {"good_000.png", *(f"good_copy{n}.png" for n in range(6))}
    assert any(copies <= side for side in sides(plan_split(folder)).values())


def test_equal_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    """A file that is good under one name and bad under another is an error that names both."""
    folder = fill(tmp_path, *named(8, 2))
    (folder / "bad_000.png").write_bytes((folder / "good_003.png").read_bytes())
    with pytest.raises(DatasetError, match=r"good_003.*equal files|bad_000.*equal files"):
        plan_split(folder)


def test_table_is_read(tmp_path: Path, onspect: Run) -> None:
    """A CSV file at any place labels the pictures below a folder."""
    folder = fill(tmp_path / "photos", *(f"sub/{n}.png" for n in range(8)))
    rows = "".join(f"{n}.png,{'scratch' if n < 2 else 'ok'}\n" for n in range(8))
    (tmp_path / "list.csv").write_text("file,label\n" + rows)
    result = onspect("split", folder, "--labels", tmp_path / "list.csv", "-o", tmp_path / "parts")
    assert result.exit_code == 0, result.stderr
    assert {name[-5] for name in tree(tmp_path / "parts") if "scratch" in name} == {"0", "1"}


def test_table_that_cannot_tell_files_apart_is_refused(tmp_path: Path) -> None:
    """Two images with one name cannot both be meant by a row."""
    folder = fill(tmp_path / "photos", "a/1.png", "b/1.png")
    (tmp_path / "list.csv").write_text("file,label\n1.png,ok\n")
    with pytest.raises(DatasetError, match=r"2 images .* are called '1.png'"):
        plan_split(folder, labels=tmp_path / "list.csv")


def test_patterns_are_read(tmp_path: Path, onspect: Run) -> None:
    """A pattern of a defect wins over the one of good parts; a picture that no pattern matches is refused."""
    folder = fill(tmp_path / "photos", *(f"IMG_{n}.png" for n in range(8)), "IMG_8_scr.png", "IMG_9_scr.png")
    arguments = ("split", folder, "--defect", "scratch=*_scr*", "-o", tmp_path / "parts")
    refused = onspect(*arguments)
    assert refused.exit_code == 1
    assert "no pattern matches 8 of 10 images" in refused.stderr
    assert not (tmp_path / "parts").exists()
    result = onspect(*arguments, "--good", "*")
    assert "val 2 good, 1 scratch; test 1 good, 1 scratch" in result.stderr, result.stderr


def test_ambiguous_patterns_are_refused() -> None:
    """A name that two defects claim is an error."""
    with pytest.raises(DatasetError, match="'dent' and 'scratch'"):
        NamePatterns(defects=(("scratch", "*s*"), ("dent", "*d*"))).read_kind("sd.png")


def test_masks_go_with_their_images(tmp_path: Path, write_image: Write, onspect: Run) -> None:
    """The masks of a folder with kinds are found again in the new dataset."""
    folder = tmp_path / "photos"
    for n in range(8):
        write_image(folder / "good" / f"{n}.png", n)
    for n in range(2):
        write_image(folder / "scratch" / f"{n}.png", 100 + n)
        write_image(folder / "ground_truth" / "scratch" / f"{n}_mask.png", 255)
    result = onspect("split", folder, "-o", tmp_path / "parts")
    assert result.exit_code == 0, result.stderr
    for side in ("val", "test"):
        (defective,) = [image for image in labelled_images(tmp_path / "parts", side) if image.defective]
        assert defective.mask is not None
        original = defective.path.stem[-1]
        assert defective.path.read_bytes() == (folder / "scratch" / f"{original}.png").read_bytes()


def test_links_lead_to_the_pictures(tmp_path: Path, onspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --link nothing is copied, and the links work from anywhere."""
    fill(tmp_path / "photos", *named(5, 2))
    monkeypatch.chdir(tmp_path)
    assert onspect("split", "photos", "-o", "parts", "--link").exit_code == 0
    links = list((tmp_path / "parts").rglob("*.png"))
    assert len(links) == 7
    assert all(path.is_symlink() and path.resolve().parent == tmp_path / "photos" for path in links)


def test_nothing_is_overwritten(tmp_path: Path, onspect: Run) -> None:
    """A second split into the same folder is refused and changes nothing; so is the folder of the pictures."""
    folder = fill(tmp_path / "photos", *named(5, 2))
    onspect("split", folder, "-o", tmp_path / "parts")
    before = tree(tmp_path / "parts")
    result = onspect("split", folder, "-o", tmp_path / "parts", "--seed", 5)
    assert result.exit_code == 1
    assert "nothing is overwritten" in result.stderr
    assert tree(tmp_path / "parts") == before
    assert "is the folder of the pictures" in onspect("split", folder, "-o", folder).stderr
    assert "is split already" in onspect("split", tmp_path / "parts", "-o", tmp_path / "again").stderr


def test_failure_leaves_nothing(tmp_path: Path, onspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the message names the file that was asked for, and no folder is left behind."""
    folder = fill(tmp_path / "photos", *named(6, 2))
    (tmp_path / "parts").mkdir()
    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        if "test" in path.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    for output in (tmp_path / "parts", tmp_path / "new" / "parts"):
        result = onspect("split", folder, "-o", output)
        assert result.exit_code == 1
        assert re.search(rf"cannot write '{output}/test/\w+/\w+\.png': No space left on device; free", result.stderr)
    assert list((tmp_path / "parts").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_a_picture_that_vanishes_is_named(tmp_path: Path) -> None:
    """A picture that is gone when it is copied is the one that the message names, and no folder is left behind."""
    folder = fill(tmp_path / "photos", *named(6, 2))
    plan = plan_split(folder)
    plan[-1].image.path.unlink()
    with pytest.raises(DatasetError, match=f"cannot read '{plan[-1].image.path}'"):
        write_split(plan, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_equal_names_of_two_folders_are_told_apart(tmp_path: Path) -> None:
    """Pictures with the same name keep the name of their folder, so that none replaces another."""
    folder = fill(tmp_path, *(f"good/{a}/1.png" for a in "abcd"), "scratch/1.png", "scratch/2.png")
    names = sorted(item.name for item in plan_split(folder))
    assert names == ["2.png", "good_a_1.png", "good_b_1.png", "good_c_1.png", "good_d_1.png", "scratch_1.png"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"group": "("}, "not a regular expression"),
        ({"shares": (0.0, 50.0, 50.0)}, "the shares are 0:50:50"),
        ({"shares": (60.0, float("nan"), 20.0)}, "the shares are"),
    ],
)
def test_wrong_choices_are_refused(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    """A choice that cannot work is named with its value."""
    fill(tmp_path, *named(6, 0))
    with pytest.raises(ChoiceError, match=re.escape(words)):
        plan_split(tmp_path, **settings)  # type: ignore[arg-type]


def test_unmatched_group_and_too_few_groups_are_refused(tmp_path: Path) -> None:
    """An image whose part is unknown is refused, and so are fewer groups than sides."""
    folder = fill(tmp_path, *named(6, 0))
    with pytest.raises(DatasetError, match=r"does not match 'good_000\.png'"):
        plan_split(folder, group="part")
    with pytest.raises(DatasetError, match="too few good images for val"):
        plan_split(folder, group="good")
    with pytest.raises(DatasetError, match="defective images need a share"):
        plan_split(fill(tmp_path, *named(6, 1)), shares=(1.0, 0.0, 0.0))


def test_pictures_without_labels_are_said_to_be_taken_for_good(tmp_path: Path, onspect: Run) -> None:
    """If no label or name marks a picture as bad, the command states its assumption."""
    folder = fill(tmp_path / "photos", *(f"IMG_{n}.png" for n in range(6)))
    assert "all are taken as good parts" in onspect("split", folder, "-o", tmp_path / "parts").stderr
