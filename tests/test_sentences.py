"""Messages, help and docs are short and in plain words: no sentence over 30 words, no word of the old dialect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .sentences import PARTS, ROOT, find_documentation, find_modules, find_page_sentences, find_sentences

MOST_WORDS = 30

DIALECT = re.compile(
    r"\b(stands?|stood|lies?|bears?|holds?(?! out)|anew|nowhere|amiss|lest|wherefore|besides"
    r"|so many|cannot be had|all the same|go(es)? on|going on|say(s)? nothing|of use|as (it|they) (was|were|must)"
    r"|what (is|was|it|they) \w+|which no|takes? it back|taken back|told (from|apart)|lost sight|grows? on"
    r"|kept any more|is none|are none|(?<!there )(?<!here )(is|are) no(?! longer))\b",
    re.IGNORECASE,
)

DOCUMENTATION = re.compile(
    r"\b(stands?|stood|lies?|bears?|holds?(?! (out|up|for ever))|anew|nowhere|amiss|lest|wherefore|so many"
    r"|cannot be had|all the same|go(es)? on|going on|say(s)? nothing|as (it|they) (was|were|must)|taken back"
    r"|told (from|apart)|lost sight|grows? on|kept any more|whoever|that (is|are) none|(is|are) told|is said"
    r"|(thread|process) of (its|their) own)\b"
)
"""The old dialect in docstrings and comments, of tests too. None is a value there, so its words are fewer."""

TABLES = {Path("compare/onspect/compare/published.py")}
"""Modules whose long texts are tables of numbers."""

PAGES = sorted(
    path.relative_to(ROOT) for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
)


def find_faults(path: Path) -> list[str]:
    """Return the sentences of a module that are too long or have a word of the old dialect, with the place."""
    return [
        f"{path}:{sentence.line}: {sentence.text}"
        for sentence in find_sentences(path)
        if sentence.words > MOST_WORDS or DIALECT.search(sentence.text)
    ]


@pytest.mark.parametrize("part", PARTS)
def test_sentences_are_short_and_in_todays_words(part: str) -> None:
    """No message and no help has more than 30 words a sentence, or a word of the old dialect."""
    modules = [path for path in find_modules() if path.parts[0] == part and path not in TABLES]
    assert len(modules) > 1
    assert [fault for path in modules for fault in find_faults(path)] == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ('raise ValueError(f"{path!r} holds no images")', 1),
        ('raise ValueError(f"there are no images in {path!r}; give another folder")', 0),
        ('_LOG.warning("the provider %r cannot be had", name)', 1),
        ('@click.command()\ndef run():\n    """Run anew what was stopped."""', 1),
        ('def run():\n    """Run anew what was stopped."""', 0),
        ("x = " + repr("word " * 31), 1),
        ("x = " + repr("word " * 30), 0),
    ],
)
def test_faults_are_found(tmp_path: Path, text: str, faults: int) -> None:
    """The search finds faults in errors, logs and the help of commands, and leaves other docstrings out."""
    (tmp_path / "module.py").write_text(text, encoding="utf-8")
    assert len(find_faults(tmp_path / "module.py")) == faults


@pytest.mark.parametrize("root", ["benchmarks", "docs", "examples", "tests", *PARTS])
def test_docstrings_and_comments_are_in_todays_words(root: str) -> None:
    """No docstring and no comment has a word of the old dialect."""
    own = [Path("tests/test_sentences.py"), Path("tests/sentences.py")]
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / root).rglob("*.py"))]
    found = [line for path in paths if path not in own for line in find_documentation(path)]
    assert len(found) > 3
    assert [f"{one.path}:{one.line}: {one.text}" for one in found if DOCUMENTATION.search(one.text)] == []


def test_faults_of_documentation_are_found(tmp_path: Path) -> None:
    """Docstrings of modules and fields, and comments, are searched; other texts are not."""
    module = '"""It stands here."""\n\nx = 1  # it goes on\n"""Where it lies."""\ny = "it stands"\n'
    (tmp_path / "module.py").write_text(module, encoding="utf-8")
    found = [one.line for one in find_documentation(tmp_path / "module.py") if DOCUMENTATION.search(one.text)]
    assert sorted(found) == [1, 3, 4]


def test_pages_are_in_todays_words() -> None:
    """No page has a sentence of over 30 words, or a word of the old dialect."""
    found = [(path, one) for path in PAGES for one in find_page_sentences(path)]
    wrong = [(path.name, one.text) for path, one in found if one.words > MOST_WORDS or DIALECT.search(one.text)]
    assert wrong == []


def test_faults_of_pages_are_found(tmp_path: Path) -> None:
    """Prose, list items and cells of tables are searched, code is not."""
    page = "It lies\nin `what is it`.\n\n- An item stands.\n\n| what is it | b |\n|---|---|\n\n```sh\nlies\n```\n"
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    found = [sentence.text for sentence in find_page_sentences(tmp_path / "page.md") if DIALECT.search(sentence.text)]
    assert found == ["It lies in X.", "An item stands.", "what is it"]
