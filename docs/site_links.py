"""Hooks of mkdocs: every method's page is in the navigation, and links that lead out are names."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_config(config: Any, **_: Any) -> Any:
    """Return the configuration with the methods' pages, which are generated, in its navigation."""
    folder = Path(config["docs_dir"]) / "methods"
    pages = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    for section in config["nav"]:
        if "Methods" in section:
            named = [f"methods/{name}" for name in ("README.md", *pages)]
            section["Methods"] = [*section["Methods"], {"Each method": named}]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text with links out of ``docs/`` replaced by the file's path."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, found[2]))
        inside = path.startswith("docs/") and not path.endswith(".py")
        return found[0] if inside else f"{found[1]} (`{path}`)"

    return LINK.sub(named, markdown)
