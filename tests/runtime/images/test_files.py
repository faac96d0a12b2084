from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from onspect.runtime.atomic import new_folder, write_atomically, write_together
from onspect.runtime.errors import DatasetError, OutputError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.images.files import describe_left_out, list_images

AS_ROOT = sys.platform == "linux" and os.geteuid() == 0


def fail_full(*arguments: Any) -> NoReturn:
    """Fail as the operating system does where the disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    """Return the names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """If the disk fills up at any step, the old content stays and no temporary file does."""
    path = tmp_path / "part.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], fail_full)
    with pytest.raises(OutputError, match=r"part\.onnx.*No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["part.onnx"]


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a write leaves the old content and no temporary file."""

    def interrupt(*arguments: Any) -> NoReturn:
        raise KeyboardInterrupt

    path = tmp_path / "part.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["part.onnx"])


@pytest.mark.parametrize("count", [1, 2])
def test_files_are_written_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Where the disk is full at the first or at the last file, none is changed, and no new folder stays."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_bytes(b"old")
    writes = 0

    def fail(_descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes == count:
            fail_full()

    for folder in ("old", "new/deep"):
        writes = 0
        files = {tmp_path / folder / name: b"new" for name in "ab"}
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(OutputError, match="No space left"):
                write_together(files)
    assert (names(tmp_path), names(tmp_path / "old")) == (["old"], ["a"])
    assert (tmp_path / "old" / "a").read_bytes() == b"old"
    write_together(files)
    assert names(tmp_path / "new" / "deep") == ["a", "b"]


def test_a_folder_in_the_way_leaves_all_files(tmp_path: Path) -> None:
    """Where one of the names is a folder, the files before it keep their old content."""
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_together({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert ((tmp_path / "a").read_bytes(), names(tmp_path)) == (b"old", ["a", "b"])


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OutputError, ValueError])
def test_failure_leaves_no_new_folder(tmp_path: Path, failure: type[BaseException]) -> None:
    """After Ctrl-C or an error a folder and its parents are gone, and one that existed is unchanged."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"mine")

    def work(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").touch()
        (folder / "link").symlink_to(tmp_path / "mine")
        raise failure

    for folder in ("mine", "new/deep"):
        with pytest.raises(failure), new_folder(tmp_path / folder) as made:
            work(made)
    assert (names(tmp_path), names(tmp_path / "mine")) == (["mine"], ["file"])
    with pytest.raises(failure), new_folder(tmp_path / "kept", keep=(tmp_path / "kept" / "sub").exists) as made:
        work(made)
    assert names(tmp_path / "kept") == ["link", "sub"]


def test_failure_leaves_what_others_wrote(tmp_path: Path) -> None:
    """A parent that another process has used in the meantime is kept."""

    def work() -> NoReturn:
        (tmp_path / "new" / "theirs").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "new" / "mine"):
        work()
    assert names(tmp_path / "new") == ["theirs"]


@pytest.mark.skipif(not AS_ROOT, reason="mounting a small disk needs root on Linux")
def test_really_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """On a real disk of 64 KiB a write of 1 MiB leaves the old content and no temporary file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed in this container")
    try:
        write_atomically(disk / "part.onnx", b"old")
        with pytest.raises(OutputError, match="No space left"):
            write_atomically(disk / "part.onnx", bytes(1 << 20))
        assert ((disk / "part.onnx").read_bytes(), names(disk)) == (b"old", ["part.onnx"])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_write_replaces_the_old_file(tmp_path: Path) -> None:
    """A write that succeeds leaves the new content alone in the folder."""
    path = tmp_path / "part.onnx"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"new", ["part.onnx"])


def test_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    """Writing into a folder that is not there raises OutputError with the path."""
    with pytest.raises(OutputError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "x", b"")


def test_images_are_listed_sorted_and_by_ending(tmp_path: Path) -> None:
    """Images are sorted, with endings in any case; those that are hidden or a server's own come apart."""
    for name in (
        "b.PNG", "a.jpeg", "sub/c.TifF", "notes.txt", ".hidden.png", ".cache/d.png", "sub/Thumbs.db", ".DS_Store",
        "sub/@eaDir/c.TifF/thumb.jpg", "sub/@eaDir/c.TifF/x.txt", "e.jfif",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
    images, others = list_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in images] == ["a.jpeg", "b.PNG", "e.jfif", "sub/c.TifF"]
    found = {path.relative_to(tmp_path).as_posix() for path in others}
    assert found == {"notes.txt", ".hidden.png", ".cache/d.png", "sub/@eaDir/c.TifF/thumb.jpg"}
    words = "4 files (.txt: 1, hidden: 1, in '.cache': 1, in '@eaDir': 1)"
    assert sorted(describe_left_out(others, tmp_path)) == sorted(words)


def test_links_in_a_circle_are_read_once(tmp_path: Path) -> None:
    """Two links back to a parent neither go round for ever nor list an image twice."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "sub" / "self").symlink_to(tmp_path / "sub")
    assert list_images(tmp_path)[0] == [tmp_path / "sub" / "a.png"]


def test_linked_folder_is_read(tmp_path: Path) -> None:
    """The images of a folder that is only linked to are listed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "link").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "parts")[0] == [tmp_path / "parts" / "link" / "a.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    """A subfolder that may not be read stops the listing instead of being skipped."""
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "secret").mkdir(mode=0)
    tmp_path.chmod(0o755)
    # root may read everything, so the listing runs as nobody
    script = (
        "import os; from pathlib import Path; from onspect.runtime.images.files import list_images\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "list_images(Path('.'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    (tmp_path / "secret").chmod(0o755)
    assert re.search("DatasetError: .*secret.*Permission denied", done.stderr)


def test_missing_folder_is_a_dataset_error(tmp_path: Path) -> None:
    """A folder that is not there, and a file in its place, raise DatasetError with the path."""
    (tmp_path / "file").write_bytes(b"")
    for name in ("none", "file"):
        with pytest.raises(DatasetError, match=name):
            list_images(tmp_path / name)


def test_set_fingerprint_ignores_order() -> None:
    """The fingerprint of a set of images depends on its members, not on their order."""
    assert fingerprint_set(["a", "b"]) == fingerprint_set(["b", "a"]) != fingerprint_set(["a", "c"])
