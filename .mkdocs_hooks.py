"""What the site needs beyond docs/: README.md as its first page, CHANGELOG.md, and links that fit both places."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages that lie above docs/."""
    for name, page in PAGES.items():
        text = _LINK.sub(lambda found: f"]({_from_above(found[1])}", (ROOT / name).read_text())
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "LICENSE.txt", content=(ROOT / "LICENSE").read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links from docs/ to the pages above it."""
    up = "../" * page.file.src_uri.count("/")
    for name, target in PAGES.items():
        markdown = markdown.replace(f"]({up}../{name}", f"]({up}{target}")
    return markdown


def _from_above(target: str) -> str:
    if target == "LICENSE":
        return "LICENSE.txt"
    return PAGES.get(target, target.removeprefix("docs/"))
