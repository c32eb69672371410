"""A hook of mkdocs: links to files outside the documentation become their names."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text with links out of ``docs/`` replaced by the file's path."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, found[2]))
        inside = path.startswith("docs/") and not path.endswith(".py")
        return found[0] if inside else f"{found[1]} (`{path}`)"

    return LINK.sub(named, markdown)
