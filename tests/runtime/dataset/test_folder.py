"""Folders of users: each is read as it is meant, or refused, and left-out files are counted."""

from __future__ import annotations

import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.runtime.dataset.folder import LabelledImage, labelled_images, training_images
from onspect.runtime.errors import DatasetError
from onspect.runtime.sources.registry import open_source

Log = pytest.LogCaptureFixture


def _draw(path: Path, value: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = {".jfif": ".jpg", ".jpe": ".jpg"}.get(path.suffix.lower(), path.suffix.lower())
    path.write_bytes(cv2.imencode(ending, np.full((16, 16), value, np.uint8))[1].tobytes())
    return path


def _fill(root: Path, *names: str, value: int = 128) -> Path:
    for name in names:
        _draw(root / name, value)
    return root


def _kinds(images: list[LabelledImage]) -> dict[str, int]:
    return dict(Counter(image.kind for image in images))


def _masked(images: list[LabelledImage]) -> int:
    return sum(image.mask is not None for image in images)


@pytest.mark.parametrize(
    "name", ["good", "Good", "GOOD", "ok", "OK", "normal", "Normal", "pass", "io", "defect-free", "i.O.", "Gut"]
)
def test_names_of_the_good_folder(tmp_path: Path, caplog: Log, name: str) -> None:
    """Any usual name of good parts is read as good, with a word where it is another."""
    _fill(tmp_path, f"test/{name}/0.png", f"test/{name}/1.png", "test/scratch/0.png", f"train/{name}/0.png")
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 2, "scratch": 1}
    assert len(training_images(tmp_path)) == 1
    assert ("is read as the folder 'good'" in caplog.text) == (name != "good")


@pytest.mark.parametrize("name", ["good parts", "goods", "ok_2", "Normal-new"])
def test_what_may_be_the_good_folder_is_asked(tmp_path: Path, name: str) -> None:
    """A name that only begins as one of good parts is neither good nor a defect."""
    _fill(tmp_path, f"test/{name}/0.png", "test/scratch/0.png")
    with pytest.raises(DatasetError, match=r"the folder 'good'\?"):
        labelled_images(tmp_path, "test")


def test_two_good_folders_are_asked_about(tmp_path: Path) -> None:
    """good and OK side by side may be two things."""
    _fill(tmp_path, "test/good/0.png", "test/OK/0.png")
    with pytest.raises(DatasetError, match="has the folders"):
        labelled_images(tmp_path, "test")


def _mvtec(root: Path) -> None:
    _fill(root, "train/good/0.png", "test/good/0.png", "test/hole/0.png", "test/hole/1.png")
    _fill(root, "ground_truth/hole/0_mask.png", "ground_truth/hole/1_mask.png", value=255)


def _loco(root: Path) -> None:
    _fill(root, "train/good/0.png", "validation/good/0.png", "test/good/0.png", "test/logical_anomalies/0.png")
    _fill(root, "test/logical_anomalies/1.png")
    _fill(root, "ground_truth/logical_anomalies/0/000.png", "ground_truth/logical_anomalies/0/001.png", value=255)
    _fill(root, "ground_truth/logical_anomalies/1/000.png", value=100)


def _ad2(root: Path) -> None:
    _fill(root, "train/good/0.png", "validation/good/0.png", "test_public/good/0.png", "test_public/bad/0.png")
    _fill(root, "test_public/bad/1.png", "test_private/0.png", "test_private_mixed/0.png")
    _fill(root, "test_public/ground_truth/bad/0_mask.png", "test_public/ground_truth/bad/1_mask.png", value=255)


def _btad(root: Path) -> None:
    _fill(root, "train/ok/0.bmp", "test/ok/0.bmp", "test/ko/0.bmp", "test/ko/1.bmp")
    _fill(root, "ground_truth/ko/0.png", "ground_truth/ko/1.bmp", value=255)


def _kolektor2(root: Path) -> None:
    _fill(root, "train/10.png", "train/11.png", "test/20.png", "test/21.png", "test/22.png")
    _fill(root, "train/10_GT.png", "train/11_GT.png", "test/20_GT.png", value=0)
    _fill(root, "train/11_GT.png", "test/21_GT.png", "test/22_GT.png", value=255)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (_mvtec, {"good": 1, "hole": 2}),
        (_loco, {"good": 1, "logical_anomalies": 2}),
        (_ad2, {"good": 1, "bad": 2}),
        (_btad, {"good": 1, "ko": 2}),
        (_kolektor2, {"good": 1, "defective": 2}),
    ],
)
def test_published_layouts_with_splits(tmp_path: Path, make: Callable[[Path], None], kinds: dict[str, int]) -> None:
    """Each published layout gives its good pictures, its kinds of defects and their masks; training takes good ones."""
    make(tmp_path)
    images = labelled_images(tmp_path, "test")
    assert _kinds(images) == kinds
    assert _masked(images) == 2
    assert len(training_images(tmp_path)) == 1


def test_loco_has_several_masks_for_an_image(tmp_path: Path) -> None:
    """The masks of one image are kept together, and `validation` is the split `val`."""
    _loco(tmp_path)
    first = next(image for image in labelled_images(tmp_path, "test") if image.defective)
    assert first.mask is not None
    assert len(first.further_masks) == 1
    assert _kinds(labelled_images(tmp_path, "val")) == {"good": 1}


def test_visa(tmp_path: Path) -> None:
    """VisA has Data/Images/Normal and Anomaly, and masks in Data/Masks."""
    _fill(tmp_path, "Data/Images/Normal/0.JPG", "Data/Images/Normal/1.JPG", "Data/Images/Anomaly/0.JPG")
    _fill(tmp_path, "Data/Masks/Anomaly/0.png", value=1)
    images = labelled_images(tmp_path, "test")
    assert _kinds(images) == {"good": 2, "Anomaly": 1}
    assert _masked(images) == 1
    assert len(training_images(tmp_path)) == 2


def test_real_iad(tmp_path: Path) -> None:
    """Real-IAD has OK and NG/DEFECT with folders for samples, and PNG masks beside JPEG images."""
    _fill(tmp_path, "OK/S0001/a.jpg", "OK/S0002/a.jpg", "NG/AK/S0003/b.jpg", "NG/BX/S0004/c.jpg")
    _fill(tmp_path, "NG/AK/S0003/b.png", "NG/BX/S0004/c.png", value=255)
    images = labelled_images(tmp_path, "test")
    assert _kinds(images) == {"good": 2, "AK": 1, "BX": 1}
    assert _masked(images) == 2
    assert len(training_images(tmp_path)) == 2


def test_kolektor(tmp_path: Path) -> None:
    """Kolektor's first collection has folders of pictures with masks beside them, empty ones for good surfaces."""
    _fill(tmp_path, "kos01/Part0.jpg", "kos01/Part1.jpg", "kos02/Part0.jpg")
    _fill(tmp_path, "kos01/Part0_label.bmp", "kos02/Part0_label.bmp", value=0)
    _fill(tmp_path, "kos01/Part1_label.bmp", value=255)
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 2, "defective": 1}
    assert len(training_images(tmp_path)) == 2


def test_masks_beside_images_are_masks(tmp_path: Path) -> None:
    """NAME_mask.png beside NAME.png is not a picture of a defect; without its image it is refused."""
    _fill(tmp_path, "test/good/0.png", "test/dent/0.png", "test/dent/0_mask.png", "test/dent/1.png")
    images = labelled_images(tmp_path, "test")
    assert _kinds(images) == {"good": 1, "dent": 2}
    assert _masked(images) == 1
    _fill(tmp_path, "test/dent/7_mask.png")
    with pytest.raises(DatasetError, match="named as a mask is, such as '7_mask"):
        labelled_images(tmp_path, "test")


@pytest.mark.parametrize(
    "mask", ["0_mask.PNG", "0_MASK.png", "0.png", "0_mask.tif", "0_mask.bmp", "0_gt.png", "sub/0_mask.png"]
)
@pytest.mark.parametrize(
    "place",
    ["ground_truth/dent", "ground_truth/test/dent", "Ground_Truth/Dent", "masks/dent", "test/ground_truth/dent"],
)
def test_masks_are_found(tmp_path: Path, mask: str, place: str) -> None:
    """A mask is found with each file extension, letter case and folder."""
    image = "test/dent/sub/0.png" if "/" in mask else "test/dent/0.png"
    _fill(tmp_path, "test/good/0.png", image, f"{place}/{mask}")
    assert _masked(labelled_images(tmp_path, "test")) == 1


def test_names_in_two_unicode_forms_match(tmp_path: Path) -> None:
    """A mask whose name came from a Mac, with its umlaut in two pieces, belongs to its image."""
    _fill(tmp_path, "test/good/0.png", f"test/dent/{unicodedata.normalize('NFC', 'grün')}.png")
    _fill(tmp_path, f"ground_truth/dent/{unicodedata.normalize('NFD', 'grün')}_mask.png")
    assert _masked(labelled_images(tmp_path, "test")) == 1


def test_masks_that_match_nothing_are_counted(tmp_path: Path, caplog: Log) -> None:
    """Masks that are there and belong to no image are named in one line."""
    _fill(tmp_path, "test/good/0.png", "test/dent/0.png", "ground_truth/dent/a.png", "ground_truth/dent/b.png")
    labelled_images(tmp_path, "test")
    assert "2 files match no image" in caplog.text


def test_names_of_a_flat_folder_say_what_is_good(tmp_path: Path, caplog: Log) -> None:
    """good_* and bad_* are labels; training takes the good ones only."""
    _fill(tmp_path, "good_1.png", "good_2.png", "bad_1.png")
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 2, "bad": 1}
    assert [path.name for path in training_images(tmp_path)] == ["good_1.png", "good_2.png"]
    assert "1 of 3 images" in caplog.text
    _fill(tmp_path, "part7.png")
    with pytest.raises(DatasetError, match="called neither good nor bad, such as 'part7"):
        training_images(tmp_path)


def test_bad_names_among_others_are_not_trained_on(tmp_path: Path) -> None:
    """If only bad pictures are named, the others are good."""
    _fill(tmp_path, "0.png", "1.png", "NG-2.png")
    assert len(training_images(tmp_path)) == 2


def test_folders_beside_flat_images_are_named(tmp_path: Path, caplog: Log) -> None:
    """A flat folder with NG/ in it trains on its own images, and says so."""
    _fill(tmp_path, "0.png", "NG/0.png")
    assert len(training_images(tmp_path)) == 1
    assert "folder not looked into: 'NG'" in caplog.text


def test_bad_folders_in_train_are_not_trained_on(tmp_path: Path, caplog: Log) -> None:
    """Training uses train/good, and counts the files beside it."""
    _fill(tmp_path, "train/good/0.png", "train/NG/0.png", "train/NG/1.png")
    assert len(training_images(tmp_path)) == 1
    assert "2 of 3 images are left out of training" in caplog.text
    assert "NG" in caplog.text


@pytest.mark.parametrize(
    "table",
    [
        "file,label\n0.png,good\n1.png,scratch\n",
        "\ufefffilename;class\r\n0.png;OK\r\n1.png;scratch\r\n",
        "image\tdefect\nimages/0.png\t0\nimages/1.png\tscratch\n",
    ],
)
def test_a_table_of_labels_is_read(tmp_path: Path, table: str) -> None:
    """labels.csv names the good images, with comma, semicolon or tab, with or without a mark at its start."""
    _fill(tmp_path, "0.png", "1.png")
    (tmp_path / "labels.csv").write_bytes(table.encode())
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 1, "scratch": 1}
    assert [path.name for path in training_images(tmp_path)] == ["0.png"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"a,b\n0.png,good\n", "are not understood"),
        (b"file,label\n0.png,good\n", "does not say what 1 of 2 images are, such as '1.png'"),
        (b"", "are not understood"),
        (b"file,label\n\xff\xfe.png,good\n", "it is not UTF-8"),
    ],
)
def test_a_table_that_is_not_understood_is_refused(tmp_path: Path, table: bytes, words: str) -> None:
    """An image that the table does not call good is not taken for good."""
    _fill(tmp_path, "0.png", "1.png")
    (tmp_path / "labels.csv").write_bytes(table)
    for read in (training_images, lambda folder: labelled_images(folder, "test")):
        with pytest.raises(DatasetError, match=words):
            read(tmp_path)


BAD_IN_A_FLAT_FOLDER = {
    "ng behind": ["img1_OK.png", "img2_OK.png", "img3_NG.png"],
    "ng behind, others without": ["img1.png", "img2.png", "img3-NG.png"],
    "bad before a number": ["1_good.png", "2_good.png", "3_bad.png"],
    "defect within": ["part_1.png", "part_2.png", "part_defect_3.png"],
    "name of a defect": ["part_1.png", "part_2.png", "scratch_3.png"],
    "not ok": ["ok_1.png", "ok_2.png", "not_ok_3.png"],
    "n.i.O.": ["i.O._1.png", "i.O._2.png", "n.i.O._3.png"],
}


@pytest.mark.parametrize("names", BAD_IN_A_FLAT_FOLDER.values(), ids=BAD_IN_A_FLAT_FOLDER)
def test_nothing_that_a_file_calls_bad_is_trained_on(tmp_path: Path, names: list[str]) -> None:
    """A word for defective counts wherever a name has it."""
    _fill(tmp_path, *names)
    assert [path.name for path in training_images(tmp_path)] == names[:2]
    images = labelled_images(tmp_path, "test")
    assert {image.path.name: image.defective for image in images} == dict(zip(names, [False, False, True], strict=True))


@pytest.mark.parametrize("name", ["reporting_1.png", "pass.png", "badge_1.png", "koenig.png", "bang.png", "scratchpad"])
def test_words_within_words_say_nothing(tmp_path: Path, name: str) -> None:
    """Only whole words of a name are read."""
    _fill(tmp_path, Path(name).with_suffix(".png").name, "part_2.png")
    assert len(training_images(tmp_path)) == 2


TABLES = {
    "semicolons, German": (b"Dateiname;Ergebnis\na.png;IO\nb.png;NIO\nc.png;IO\n", "labels.csv"),
    "bars": (b"image|label\na.png|OK\nb.png|NG\nc.png|OK\n", "labels.csv"),
    "tabs": (b"image\tlabel\na.png\tOK\nb.png\tNG\nc.png\tOK\n", "labels.tsv"),
    "no header": (b"a.png,OK\nb.png,scratch\nc.png,OK\n", "labels.csv"),
    "text": (b"a.png 0\nb.png 1\nc.png 0\n", "labels.txt"),
    "without endings": (b"file,label\na,OK\nb,NG\nc,OK\n", "labels.csv"),
    "other case": (b"file,label\nA.PNG,OK\nB.PNG,NG\nC.PNG,OK\n", "labels.csv"),
    "paths of elsewhere": (b"file,label\nD:\\x\\a.png,0\nD:\\x\\b.png,1\nD:\\x\\c.png,0\n", "labels.csv"),
    "utf-16": ("file,label\na.png,OK\nb.png,NG\nc.png,OK\n".encode("utf-16"), "labels.csv"),
    "column of good ones": (b"file,is_good\na.png,1\nb.png,0\nc.png,1\n", "labels.csv"),
    "Japanese": ("ファイル名,判定\na.png,良品\nb.png,不良品\nc.png,良\n".encode(), "labels.csv"),
    "Chinese": ("文件名,标签\na.png,合格\nb.png,不合格\nc.png,正常\n".encode(), "labels.csv"),
    "Korean": ("파일,라벨\na.png,양품\nb.png,불량\nc.png,정상\n".encode(), "labels.csv"),
    "Spanish": (b"archivo;etiqueta\na.png;bueno\nb.png;malo\nc.png;correcto\n", "labels.csv"),
    "French": ("fichier;état\na.png;bon\nb.png;défaut\nc.png;conforme\n".encode(), "labels.csv"),
    "Portuguese": (b"arquivo;label\na.png;aprovado\nb.png;reprovado\nc.png;bom\n", "labels.csv"),
    "numbers with decimals": (b"file,label\na.png,0.0\nb.png,1.0\nc.png,0.0\n", "labels.csv"),
    "crosses": (b"file,ok\na.png,x\nb.png,\nc.png,x\n", "labels.csv"),
    "spreadsheet line": (b"sep=;\nfile;label\na.png;OK\nb.png;NG\nc.png;OK\n", "labels.csv"),
    "comment": (b"# by line 3, shift 2\nfile,label\na.png,OK\nb.png,NG\nc.png,OK\n", "labels.csv"),
    "empty cell of a defect": (b"file,defect\na.png,\nb.png,dent\nc.png,none\n", "labels.csv"),
    "column of truth": (b"file,ok\na.png,true\nb.png,false\nc.png,true\n", "labels.csv"),
}


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize(("table", "name"), TABLES.values(), ids=TABLES)
def test_tables_of_many_kinds_are_read(tmp_path: Path, table: bytes, name: str, place: str) -> None:
    """Other separators, headings, encodings and paths say the same, in the folder or beside train/."""
    _fill(tmp_path / place, "a.png", "b.png", "c.png")
    (tmp_path / name).write_bytes(table)
    assert [path.name for path in training_images(tmp_path)] == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"file,label\na.png,OK\na.png,NG\nb.png,OK\n", "'defective' and 'good'"),
        (b"file,label\na.png,-1\nb.png,1\n", "below 0"),
        ("file,label\na.png,OK\nb.png,gr\u00f6\u00dfer\n".encode("latin-1"), "not UTF-8"),
        ("file,label\na.png,OK\nb.png,NG\n".encode("utf-16-le"), "not UTF-8"),
        (b"file,label\na.png,OK\nb.png,\n", "what 1 of 2 images are, such as 'b.png'"),
        (b"file,label\na.png,OK\nb.png,?\n", "what 1 of 2 images are"),
        (b"file,label\na.png,OK\nb.png,nan\n", "what 1 of 2 images are"),
        (b"path,score,verdict\na.png,0.1,ok\nb.png,0.2,review\n", "what 1 of 2 images are"),
        (b"file,label\na.png,1\nb.png,2\n", r"which of its labels means good \('2'\)"),
        (b"file,class\na.png,screw\nb.png,nut\n", r"which of its labels means good \('nut', 'screw'\)"),
        (b"file,ok\na.png,1\nb.png,perhaps\n", "'perhaps' in the column 'ok'"),
        (b"file,label\na.png,OK\nb.png," + b"x" * 200_000 + b"\n", "field larger than"),
    ],
)
def test_tables_that_contradict_are_refused(tmp_path: Path, table: bytes, words: str) -> None:
    """Two labels of one image, and labels that mean either, are refused."""
    _fill(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_bytes(table)
    with pytest.raises(DatasetError, match=words):
        training_images(tmp_path)


def test_a_table_is_held_against_folders(tmp_path: Path, caplog: Log) -> None:
    """A table that calls a picture of the folder good defective is refused; folders with equal names are kept apart."""
    _fill(tmp_path, "good/0.png", "good/1.png", "bad/0.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ngood/0.png,OK\ngood/1.png,OK\nbad/0.png,NG\n")
    assert len(training_images(tmp_path)) == 2
    table.write_text("file,label\ngood/0.png,OK\ngood/1.png,NG\nbad/0.png,NG\n")
    with pytest.raises(DatasetError, match="calls 1 of 2 images among the good ones"):
        training_images(tmp_path)
    table.write_text("what\n")
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 2, "bad": 1}
    assert "labels.csv' is not read" in caplog.text


def test_labels_in_another_format_are_named(tmp_path: Path, caplog: Log) -> None:
    """A file labels.json may name the good images, but is not read."""
    _fill(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.json").write_text("{}")
    assert len(training_images(tmp_path)) == 2
    assert "labels.json' may say which images are good" in caplog.text


@pytest.mark.parametrize(
    "mask", ["mask_0.png", "0Mask.png", "masks/0.png", "ground_truth/0_mask.png", "label/0.png", "seg/0_label.png"]
)
def test_masks_within_a_kind_are_no_images(tmp_path: Path, mask: str) -> None:
    """Masks beside the images of a kind, under other names or in a folder, are masks."""
    _fill(tmp_path, "test/good/0.png", "test/bad/0.png", "test/bad/1.png")
    _fill(tmp_path / "test" / "bad", mask, value=255)
    images = labelled_images(tmp_path, "test")
    assert _kinds(images) == {"good": 1, "bad": 2}
    assert _masked(images) == 1


@pytest.mark.parametrize("place", ["", "train", "good", "train/good"])
def test_a_mask_without_its_image_is_not_trained_on(tmp_path: Path, place: str) -> None:
    """A file among good parts that is named as a mask is refused."""
    _fill(tmp_path / place, "0.png", "1_mask.png")
    with pytest.raises(DatasetError, match=r"1 of 2 files .* is named as a mask is, such as '1_mask"):
        training_images(tmp_path)


@pytest.mark.parametrize("folder", ["masks", "ground_truth", "Label"])
@pytest.mark.parametrize("root", ["", "Train"])
def test_masks_say_what_is_bad_in_a_flat_folder(tmp_path: Path, folder: str, root: str) -> None:
    """An image of a flat folder whose mask marks something is not a good one; DAGM is such."""
    _fill(tmp_path / root, "0.png", "1.png", "2.png")
    _draw(tmp_path / root / folder / "1_label.png", 255)
    _draw(tmp_path / root / folder / "2_label.png", 0)
    assert [path.name for path in training_images(tmp_path)] == ["0.png", "2.png"]


def test_a_kind_called_label_is_a_kind(tmp_path: Path) -> None:
    """A defect of a bottle's label is not a folder of masks."""
    _fill(tmp_path, "test/good/0.png", "test/label/0.png", "test/label/1.png")
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 1, "label": 2}


def test_test_images_are_not_trained_on_for_their_masks(tmp_path: Path) -> None:
    """Masks beside the images of test/ do not make the whole dataset a flat folder."""
    _fill(tmp_path, "test/good/0.png", "test/bad/1.png")
    _draw(tmp_path / "test" / "bad" / "1_mask.png", 255)
    for read in (training_images, lambda folder: labelled_images(folder, "val")):
        with pytest.raises(DatasetError, match="has no folder"):
            read(tmp_path)


SYSTEM_FOLDERS = [
    "@eaDir", "#recycle", "#snapshot", "@Recycle", "@__thumb", ".@__thumb", "~snapshot", "lost+found", "$RECYCLE.BIN",
    "FOUND.000", "Thumbnails", "__MACOSX", ".AppleDouble", "Network Trash Folder", "System Volume Information",
]  # fmt: skip


@pytest.mark.parametrize("folder", SYSTEM_FOLDERS)
def test_system_folders_are_left_out_and_counted(tmp_path: Path, caplog: Log, folder: str) -> None:
    """Pictures of file servers and operating systems are not parts."""
    _fill(tmp_path, "good/0.png", f"good/{folder}/0.png", f"good/{folder}/deeper/1.jpg")
    assert len(training_images(tmp_path)) == 1
    assert f"left out in {str(tmp_path)!r}: 2 files (in {folder!r}: 2)" in caplog.text


def test_left_out_files_are_counted_by_every_reader(tmp_path: Path, caplog: Log) -> None:
    """Other endings, empty kinds, thumbnails and hidden files are named in one line; JFIF files are read."""
    _fill(tmp_path, "train/good/0.png", "test/good/0.png", "test/scratch/0.jfif", "test/scratch/1.JPE")
    for place in ("train/good", "test/good"):
        _fill(tmp_path, f"{place}/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", f"{place}/.trashed.png")
        (tmp_path / place / "0.heic").write_bytes(b"x")
    (tmp_path / "test/dent").mkdir()
    (tmp_path / "test/dent/0.avif").write_bytes(b"x")

    def lines(action: Callable[[], object]) -> list[str]:
        caplog.clear()
        action()
        return [record.getMessage() for record in caplog.records]

    (line,) = lines(lambda: training_images(tmp_path))
    assert line.endswith("3 files (.heic: 1, in '@eaDir': 1, hidden: 1)") or "3 files" in line
    (line,) = lines(lambda: labelled_images(tmp_path, "test"))
    assert "4 files" in line
    assert "folder without images: 'dent'" in line
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 1, "scratch": 2}
    (line,) = lines(lambda: open_source(str(tmp_path / "train/good")))
    assert "3 files" in line


def test_score_counts_left_out_files(tmp_path: Path, onspect: Callable[..., object], calibrated: Path) -> None:
    """`onspect score` names thumbnails and other endings in one line, as all commands do."""
    parts = _fill(tmp_path / "parts", "0.png", "@eaDir/0.png/t.jpg")
    (parts / "x.heic").write_bytes(b"x")
    result = onspect("score", calibrated, parts)
    assert "2 files" in result.stderr  # type: ignore[attr-defined]
    assert len(result.stdout.splitlines()) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_with_a_byte_order_mark(
    tmp_path: Path, onspect: Callable[..., object], calibrated: Path, encoding: str
) -> None:
    """A list of paths written by Windows tools is read."""
    image = _draw(tmp_path / "grün.png")
    result = onspect("score", calibrated, "-", stdin=f"{image}\r\n".encode(encoding))
    assert '"verdict": "ok"' in result.stdout  # type: ignore[attr-defined]


def test_list_in_utf_16_without_a_mark_is_one_sentence(
    tmp_path: Path, onspect: Callable[..., object], calibrated: Path
) -> None:
    """UTF-16 without its mark is refused, and not taken for broken names."""
    result = onspect("score", calibrated, "-", stdin=f"{_draw(tmp_path / 'a.png')}\n".encode("utf-16-le"))
    assert "write it as UTF-8" in result.stderr  # type: ignore[attr-defined]


@pytest.mark.slow
def test_folder_readers_end_in_images_or_a_dataset_error(tmp_path: Path) -> None:
    """Folders of random names and structure never end in another error, and bad names are never trained on."""
    random = np.random.default_rng(0)
    words = [
        "train",
        "test",
        "val",
        "good",
        "Good",
        "OK",
        "NG",
        "bad",
        "ground_truth",
        "masks",
        "scratch",
        "@eaDir",
        "x",
    ]
    files = [
        "good_1.png",
        "bad_1.png",
        "0.png",
        "0_mask.png",
        "0_GT.png",
        "1.jpg",
        "1.png",
        "labels.csv",
        "y.txt",
        ".h.png",
    ]
    for number in range(120):
        root = tmp_path / str(number)
        root.mkdir()
        for _ in range(int(random.integers(1, 9))):
            path = root.joinpath(*random.choice(words, int(random.integers(0, 4))), str(random.choice(files)))
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".csv":
                path.write_text(str(random.choice(["", "file,label\n0.png,good\n", "\x00;;\n"])))
            else:
                path.write_bytes(
                    b"" if path.suffix == ".txt" else cv2.imencode(path.suffix, np.zeros((4, 4), np.uint8))[1].tobytes()
                )
        for read in (
            training_images,
            lambda folder: labelled_images(folder, "test"),
            lambda f: labelled_images(f, "val"),
        ):
            try:
                found = read(root)
            except DatasetError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most end here
                continue
            assert found
            if read is training_images:
                names = [path.relative_to(root).as_posix() for path in training_images(root)]
                assert not any("NG/" in name or "bad" in name for name in names), names
        shutil.rmtree(root)


SHAPES = b'{"imagePath": "b.png", "shapes": [{"label": "dent", "points": [[1, 1], [5, 5], [1, 5]]}]}'
COCO = (
    b'{"images": [{"id": 1, "file_name": "x/b.png"}, {"id": 2, "file_name": "a.png"}],'
    b' "annotations": [{"image_id": 1}]}'
)
ANNOTATIONS = {
    "LabelMe": ("b.json", SHAPES),
    "COCO": ("_annotations.coco.json", COCO),
    "Pascal VOC": ("b.xml", b"<annotation><object><name>dent</name></object></annotation>"),
    "YOLO": ("b.txt", b"0 0.5 0.5 0.1 0.2\n"),
    "YOLO polygon": ("b.txt", b"3 0.1 0.1 0.5 0.5 0.1 0.5\n"),
}


@pytest.mark.parametrize("place", ["", "good", "train/good"])
@pytest.mark.parametrize(("name", "content"), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_annotated_images_are_not_taken_for_good(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    """Annotations are not read, so an image that they mark is not trained on as if it were good."""
    _fill(tmp_path / place, "a.png", "b.png")
    (tmp_path / place / name).write_bytes(content)
    with pytest.raises(DatasetError, match=r"1 of 2 images in .* has an annotation that is not read, such as 'b.png'"):
        training_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.json", b'{"exposure_us": 800}'),
        ("b.json", b'{"shapes": []}'),
        ("b.json", b"no JSON"),
        ("b.json", b"[1]"),
        ("b.xml", b"<camera><gain>3</gain></camera>"),
        ("b.txt", b"12:30 line 3\n"),
        ("b.txt", b""),
        ("all.json", b'{"images": [{"id": 1, "file_name": "b.png"}], "annotations": []}'),
        ("all.json", b'{"images": [3], "annotations": [{"image_id": 1}]}'),
    ],
)
def test_notes_of_a_camera_are_no_annotations(tmp_path: Path, name: str, content: bytes) -> None:
    """An annotation without a mark does not make a part defective."""
    _fill(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_bytes(content)
    assert len(training_images(tmp_path)) == 2


@pytest.mark.parametrize("name", ["images", "unlabeled", "overlays", "Reference", "old", "review"])
def test_folders_that_are_no_kind_of_defect_are_left_out_and_named(tmp_path: Path, caplog: Log, name: str) -> None:
    """Unlabelled and drawn images do not count as defects that a model must catch."""
    _fill(tmp_path, "test/good/0.png", "test/dent/0.png", f"test/{name}/0.png")
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 1, "dent": 1}
    assert f"not looked into: {name!r}" in caplog.text


def test_two_folders_of_one_split_are_asked_about(tmp_path: Path) -> None:
    """Train and train, or val and validation, are not halved silently; an empty one does not count."""
    _fill(tmp_path, "Train/good/0.png", "train/good/1.png", "val/good/0.png", "val/bad/0.png")
    with pytest.raises(DatasetError, match=r"has the folders 'Train' and 'train', each of them for train"):
        training_images(tmp_path)
    (tmp_path / "validation").mkdir()
    assert len(labelled_images(tmp_path, "val")) == 2


@pytest.mark.parametrize("inner", ["train/good", "Data/Images/Normal", "OK"])
def test_a_dataset_one_level_deeper_is_named(tmp_path: Path, inner: str) -> None:
    """Collections of several parts have a folder for each; the folder above them is not a dataset."""
    _fill(tmp_path, f"bottle/{inner}/0.png", f"cable/{inner}/0.png")
    for read in (training_images, lambda folder: labelled_images(folder, "test")):
        with pytest.raises(DatasetError, match=r"give '[^']*bottle' or '[^']*cable', or put"):
            read(tmp_path)


def test_good_images_that_are_called_bad_are_named(tmp_path: Path, caplog: Log) -> None:
    """A folder of a defect, or NG in a name, within the good ones: not trained on, and named in a test."""
    _fill(tmp_path, "train/good/0.png", "train/good/scratch/1.png", "test/good/0.png", "test/good/7_NG.png")
    assert [path.name for path in training_images(tmp_path)] == ["0.png"]
    assert _kinds(labelled_images(tmp_path, "test")) == {"good": 2}
    assert "1 of 2 images" in caplog.text
    assert "their names or folders call them bad" in caplog.text


def test_masks_below_another_folder_are_said_to_match_nothing(tmp_path: Path, caplog: Log) -> None:
    """Masks that are one folder too deep are not passed over in silence."""
    _fill(tmp_path, "test/good/0.png", "test/hole/0.png")
    _fill(tmp_path, "ground_truth/v2/hole/0_mask.png", value=255)
    assert _masked(labelled_images(tmp_path, "test")) == 0
    assert "in ground_truth 1 file matches no image" in caplog.text


def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    """good.png/ may be the folder good, which is asked."""
    _fill(tmp_path, "test/good.png/0.png", "test/dent/0.png")
    with pytest.raises(DatasetError, match=r"the folder 'good'\?"):
        labelled_images(tmp_path, "test")


def test_labels_know_names_in_both_unicode_forms(tmp_path: Path) -> None:
    """A table written on a Mac names the files that another computer wrote."""
    _fill(tmp_path, "\u00fc.png", "b.png")
    table = unicodedata.normalize("NFD", "file,label\n\u00fc.png,OK\nb.png,NG\n")
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    assert [path.name for path in training_images(tmp_path)] == ["\u00fc.png"]
