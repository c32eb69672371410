"""The command line. Nothing else imports it; no command imports torch until it runs."""

from __future__ import annotations

from coview.cli.main import main

__all__ = ["main"]
