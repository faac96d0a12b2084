from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onspect.runtime.errors import ChoiceError, DatasetError, ImageError, SourceError
from onspect.runtime.ray.urls import expand_url, is_url, reach, read_url

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store() -> Iterator[str]:
    """Return the URL of a folder in memory with images, hidden ones, and a note."""
    memory = fsspec.filesystem("memory")
    for name in ("b.png", "a.PNG", "sub/c.jpg", "sub/[1].png", ".hidden.png", ".trash/d.png", "note.txt"):
        memory.pipe_file(f"/parts/{name}", name.encode())
    yield "memory://parts"
    memory.rm("/parts", recursive=True)


def names(urls: list[str]) -> list[str]:
    """Return URLs without their common beginning."""
    assert all(url.startswith("memory://parts/") for url in urls)
    return [url.removeprefix("memory://parts/") for url in urls]


@pytest.mark.parametrize(
    ("text", "answer"),
    [("s3://b/k", True), ("file:///x", True), ("C:/x", False), ("c://x", False), ("a/b.png", False), ("-", False)],
)
def test_urls_are_told_from_paths(text: str, answer: bool) -> None:
    """A URL has a scheme of two letters at least, so that no drive of Windows is one."""
    assert is_url(text) is answer


def test_folder_is_listed(store: str, caplog: pytest.LogCaptureFixture) -> None:
    """A folder behind a URL gives the images below it, sorted, without hidden ones, and a word on other files."""
    for url in (store, f"{store}/"):
        assert names(expand_url(url)) == ["a.PNG", "b.png", "sub/[1].png", "sub/c.jpg"]
    assert "left out in 'memory://parts': 3 files" in caplog.text


def test_glob_is_expanded(store: str) -> None:
    """A glob gives the files that match, as the shell would; an existing name with brackets is that file."""
    assert names(expand_url(f"{store}/*.png")) == ["b.png"]
    assert names(expand_url(f"{store}/.*.png")) == [".hidden.png"]
    assert names(expand_url(f"{store}/*/c.*")) == ["sub/c.jpg"]
    assert names(expand_url(f"{store}/sub/[1].png")) == ["sub/[1].png"]


def test_file_outright_is_taken_as_it_is(store: str) -> None:
    """A URL that is neither a folder nor a glob is taken, whether it is there or not."""
    assert expand_url(f"{store}/note.txt") == [f"{store}/note.txt"]
    assert expand_url(f"{store}/none.png") == [f"{store}/none.png"]


def test_url_that_names_nothing_is_refused(store: str) -> None:
    """A glob without a match, a folder without images and an unknown scheme give one sentence each."""
    with pytest.raises(DatasetError, match="no file matches"):
        expand_url(f"{store}/*.gif")
    fsspec.filesystem("memory").pipe_file("/parts/empty/note.txt", b"")
    with pytest.raises(DatasetError, match="no images"):
        expand_url(f"{store}/empty")
    with pytest.raises(DatasetError, match="nowhere"):
        expand_url("nowhere://bucket/a.png")


def test_password_is_refused_and_not_shown() -> None:
    """A URL with a password would write it into every verdict; the message does not show it either."""
    with pytest.raises(ChoiceError, match="contains a password") as caught:
        expand_url("sftp://user:geheim@host/parts")
    assert "geheim" not in str(caught.value)


def test_file_urls_are_read(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """file:// names a file of this machine."""
    path = write_image(tmp_path / "sub" / "a.png")
    (url,) = expand_url(tmp_path.as_uri())
    assert url == path.as_uri()
    assert read_url(url) == path.read_bytes()


def test_missing_file_is_its_own_fault(store: str) -> None:
    """A file that is not there is an error of that image."""
    assert read_url(f"{store}/b.png") == b"b.png"
    with pytest.raises(ImageError, match="cannot read the file"):
        read_url(f"{store}/none.png")


@pytest.mark.parametrize(
    "error", [ConnectionResetError("gone"), TimeoutError(), OSError(16, "SlowDown"), KeyError("x")]
)
def test_store_that_does_not_answer_is_no_fault_of_a_file(error: Exception) -> None:
    """If the store itself cannot be reached, the message names the store, and no file is blamed."""

    def fail() -> None:
        raise error

    with pytest.raises(SourceError, match="cannot reach 's3://bucket/parts'"):
        reach("s3://bucket/parts/a.png", fail)
    with pytest.raises(FileNotFoundError):
        reach("s3://bucket/parts/a.png", Path("/none/at/all").read_bytes)
