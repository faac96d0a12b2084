"""Hooks of mkdocs: the README is the site's first page, and links out of docs/ become plain text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add the README as index.md, with its links as they are from within docs/."""
    from mkdocs.structure.files import File

    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page in which a link to a file outside docs/ is plain text."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./[^)]+|LICENSE|CONTRIBUTING\.md|CHANGELOG\.md)\)", r"\1", markdown)
