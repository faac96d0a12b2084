"""The sentences that a user reads: messages, help and logs in the syntax tree of a module, and the prose of a page."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("runtime", "calibration", "training", "export", "compare", "demo")

_ENDS = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n|\x08")
_PAGE_ENDS = re.compile(r"(?<=[.!?:;])[)*]*\s+")
_SQL = re.compile(r"(CREATE|SELECT|INSERT|UPDATE|DELETE) ")
_COMMAND = re.compile(r"\.?(command|group)\(")


@dataclass(frozen=True)
class Sentence:
    """One sentence or clause of a text that a user reads."""

    path: Path
    """The module, relative to the root of the repository."""
    line: int
    """The line where the text begins, 1 or more."""
    text: str
    """The sentence on one line; each value that is filled in is written as X."""

    @property
    def words(self) -> int:
        """Number of words; a value that is filled in counts as one."""
        return len(self.text.split())


def find_modules() -> list[Path]:
    """Return all modules of the package, relative to the root of the repository."""
    return sorted(path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*.py"))


def find_sentences(path: Path) -> Iterator[Sentence]:
    """Yield the sentences of all texts of three words or more in a module.

    Docstrings are texts for users only if they belong to a command. A text under a field documents it and is left out.
    """
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            left_out.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            left_out.update(id(inner) for inner in ast.walk(node) if inner is not node)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            _COMMAND.search(ast.unparse(item)) for item in node.decorator_list
        ):
            first = node.body[0]
            if isinstance(first, ast.Expr):
                left_out.discard(id(first.value))
    for node in ast.walk(tree):
        text = None if id(node) in left_out else _text_of(node)
        if text is None or len(text.split()) < 3 or _SQL.match(text):
            continue
        for sentence in _ENDS.split(text):
            words = " ".join(sentence.split())
            if words:
                yield Sentence(path, getattr(node, "lineno", 0), words)


def find_documentation(path: Path) -> Iterator[Sentence]:
    """Yield the lines of a module's docstrings and comments."""
    source = (ROOT / path).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number, line in enumerate(node.value.value.splitlines()):
                yield Sentence(path, node.value.lineno + number, line.strip())
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Sentence(path, token.start[0], token.string)


def _text_of(node: ast.AST) -> str | None:
    """Return the text of a string, with X for each value that is filled in; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(item.value) if isinstance(item, ast.Constant) else "X" for item in node.values)
    return None


def find_page_sentences(path: Path) -> Iterator[Sentence]:
    """Yield the sentences of a Markdown page: headings, prose, list items and cells of tables, without code.

    Inline code is written as X, and a link as its text.
    """
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]+`", "X", re.sub(r"\]\([^)\s]+\)", "]", text))
    text = re.sub(r"(?m)^(?=\s*([-*]|\d+\.) |#|\|)|^(#.*)$|(?<!\\)\|", r"\n\n\2", text)
    for block in re.split(r"\n\s*\n", text):
        for sentence in _PAGE_ENDS.split(" ".join(block.split())):
            words = re.sub(r"^([-*]|\d+\.) ", "", sentence.strip())
            if words:
                yield Sentence(path, 1, words)
