"""``coview report RUN --serve``: the page of a run that goes on, on this machine only."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from coview.errors import CoviewError
from coview_report.looking import look
from coview_report.page import page
from coview_report.reading import read
from coview_report.states import state

HOST = "127.0.0.1"
WATCHED = ("run.json", "metrics.jsonl", "evaluations.jsonl", "backbone.safetensors")


class Live:
    """The page of a run, made anew when a file of the run has changed.

    Attributes:
        token: the secret part of the address.
    """

    def __init__(self, run: Path, pictures: bool, device: str, workers: int) -> None:
        self.run, self.pictures = run, pictures
        self.options: dict[str, Any] = {"device": device, "workers": workers}
        self.token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._page = ("", "")
        self._looked: Any = None
        self._looked_at = ""

    def stamp(self) -> str:
        """Return what changes when a file of the run does, or the process that trains it."""
        facts = read(self.run).facts
        return " ".join([state(self.run, facts), *map(self._stamp_of, WATCHED)])

    def text(self) -> str:
        """Return the page as the run is now."""
        with self._lock:
            stamp = self.stamp()
            if self._page[0] != stamp:
                self._page = (stamp, page([read(self.run)], self._seen(), live=stamp))
            return self._page[1]

    def _seen(self) -> Any:
        """Look at the weights, which are there at the end: once."""
        weights = self._stamp_of("backbone.safetensors")
        if self.pictures and self._looked_at != weights:
            self._looked, self._looked_at = look(self.run, **self.options), weights
        return self._looked

    def _stamp_of(self, name: str) -> str:
        try:
            status = (self.run / name).stat()
        except OSError:
            return "none"
        return f"{status.st_mtime_ns}.{status.st_size}"


class Handler(BaseHTTPRequestHandler):
    """Answers for the page and its stamp under the token, and for nothing else."""

    live: Live
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        """Answer a request."""
        if not self._is_local():
            self._answer(HTTPStatus.FORBIDDEN, "Only for this machine.")
            return
        _, token, *rest = [*self.path.split("/"), ""]
        if not hmac.compare_digest(token.encode(), self.live.token.encode()):
            self._answer(HTTPStatus.NOT_FOUND, "Not found.")
        elif rest == ["", ""]:
            self._told(self.live.text, "text/html")
        elif rest == ["stamp", ""]:
            self._told(lambda: json.dumps(self.live.stamp()), "application/json")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "Not found.")

    def _is_local(self) -> bool:
        """Whether the request names this machine: a page elsewhere may name it otherwise."""
        port = self.server.server_address[1]
        return self.headers.get("Host", "") in (f"{HOST}:{port}", f"localhost:{port}")

    def _told(self, make: Any, kind: str) -> None:
        try:
            text = make()
        except (CoviewError, OSError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self._answer(HTTPStatus.OK, text, kind)

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of requests."""


def served(live: Live, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Return a server that is ready to serve, and the page's address.

    Args:
        live: the page.
        port: its port; 0: any that is free.

    Raises:
        CoviewError: the port is taken.
    """
    handler = type("OfThisRun", (Handler,), {"live": live})
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise CoviewError(f"Port {port} cannot be used: {error.strerror}.") from error
    return server, f"http://{HOST}:{server.server_address[1]}/{live.token}/"
