"""The live page answers this machine, under its token, and serves no other path."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from coview_report.serving import HOST, Live, served

Written = Callable[..., Path]
Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def run(written: Written) -> Path:
    return written(finished=None)


@pytest.fixture
def live(run: Path) -> Live:
    return Live(run, False, "cpu", 0)


@pytest.fixture
def ask(live: Live) -> Iterator[Ask]:
    """Serve; return what is answered to a path: the status and the text."""
    server, address = served(live)
    assert server.server_address[0] == HOST == "127.0.0.1" and live.token in address
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def get(path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
        link = http.client.HTTPConnection(HOST, server.server_address[1], timeout=20)
        link.request(method, path, headers={} if host is None else {"Host": host})
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        return answer.status, text

    yield get
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_follows_the_run(ask: Ask, live: Live, run: Path) -> None:
    status, text = ask(f"/{live.token}/")
    assert status == 200 and "Stopped before its end" in text and "connect-src 'self'" in text
    stamp = json.loads(ask(f"/{live.token}/stamp")[1])
    assert json.dumps(stamp) in text
    assert json.loads(ask(f"/{live.token}/stamp")[1]) == stamp
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "finished": "2026-01-01T11:00:00+00:00"}))
    assert json.loads(ask(f"/{live.token}/stamp")[1]) != stamp
    assert "It learned" in ask(f"/{live.token}/")[1]


@pytest.mark.parametrize(
    "path", ["/", "/{}x/", "/{}/run.json", "/{}/../run.json", "/{}/%2e%2e/run.json", "/{}"]
)
def test_no_other_path(path: str, ask: Ask, live: Live) -> None:
    status, text = ask(path.format(live.token))
    assert status == 404 and text == "Not found."


def test_other_names_of_this_machine_are_refused(ask: Ask, live: Live) -> None:
    for host in ("attacker.example", "attacker.example:80", ""):
        assert ask(f"/{live.token}/", host)[0] == 403
    assert ask(f"/{live.token}/", method="POST")[0] == 501


def test_a_run_that_is_damaged_meanwhile_is_said(ask: Ask, live: Live, run: Path) -> None:
    (run / "run.json").write_text("{")
    status, text = ask(f"/{live.token}/")
    assert status == 503 and "damaged" in text


def test_every_token_is_another(run: Path) -> None:
    tokens = {Live(run, False, "cpu", 0).token for _ in range(20)}
    assert len(tokens) == 20 and min(map(len, tokens)) >= 32


def test_the_command_serves_until_ctrl_c(
    run: Path, coview_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def serve(server: ThreadingHTTPServer) -> None:
        seen.append(server.server_address)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", serve)
    answer = coview_command("report", run, "--serve", "--no-pictures")
    (host, port) = seen[0]
    assert host == HOST and answer.stdout.startswith(f"http://{HOST}:{port}/")
    assert "Ctrl-C ends it" in answer.stderr and "Traceback" not in answer.stderr
    assert "There is no run" in coview_command("report", run / "x", "--serve", status=2).stderr


@pytest.mark.parametrize("more", [("--out", "x.html"), ("--json",)])
def test_what_does_not_go_together(
    more: tuple[str, ...], run: Path, coview_command: Callable[..., Any]
) -> None:
    answer = coview_command("report", run, "--serve", *more, status=2)
    assert "--serve follows one RUN" in answer.stderr
