"""A stand-in for the Hub on this machine: the requests that the client library makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_of_the_tests"
REPOSITORY = r"(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+?)"


class Hub:
    """Repositories in memory, each a dict of files; every request is remembered."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.private: dict[str, bool] = {}
        self.address = ""

    def sha(self, repo: str) -> str:
        digest = hashlib.sha1()
        for name, content in sorted(self.files[repo].items()):
            digest.update(name.encode() + hashlib.sha256(content).digest())
        return digest.hexdigest()

    def put(self, repo: str, folder: Path) -> None:
        """Fill a repository from a folder."""
        self.files[repo] = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


@contextmanager
def served() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def answer(self, content: Any, status: int = 200, **headers: str) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def refuse(self, status: int, code: str) -> None:
            self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def path_of(self) -> str:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            return path

        def allowed(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self.refuse(401, "Unauthorized")
            return False

        def do_GET(self) -> None:
            path = self.path_of()
            if found := re.fullmatch(rf"/{REPOSITORY}/resolve/[^/]+/(?P<file>.+)", path):
                self.resolve(found["repo"], found["file"])
            elif found := re.fullmatch(
                r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/tree/[^/]+(?:/(?P<at>.+))?",
                path,
            ):
                self.tree(found["repo"], found["at"] or "")
            elif found := re.fullmatch(
                r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(/revision/.+)?", path
            ):
                self.info(found["repo"])
            else:
                self.refuse(404, "EntryNotFound")

        do_HEAD = do_GET

        def resolve(self, repo: str, file: str) -> None:
            if repo not in hub.files:
                self.refuse(404, "RepoNotFound")
            elif file not in hub.files[repo]:
                self.refuse(404, "EntryNotFound")
            else:
                content = hub.files[repo][file]
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                self.answer(content, ETag=etag, X_Repo_Commit=hub.sha(repo))

        def info(self, repo: str) -> None:
            if repo not in hub.files:
                self.refuse(404, "RepoNotFound")
                return
            siblings = [{"rfilename": name} for name in hub.files[repo]]
            self.answer({"id": repo, "sha": hub.sha(repo), "siblings": siblings, "tags": []})

        def entry(self, repo: str, name: str) -> dict[str, Any]:
            content = hub.files[repo][name]
            oid = hashlib.sha1(content).hexdigest()
            return {"type": "file", "path": name, "size": len(content), "oid": oid}

        def tree(self, repo: str, at: str) -> None:
            names = [n for n in hub.files.get(repo, {}) if not at or n.startswith(f"{at}/")]
            folders = {n.rpartition("/")[0] for n in names if "/" in n[len(at) + bool(at) :]}
            listed = [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders]
            flat = "recursive=true" not in self.path.lower()
            inside = [n for n in names if not flat or "/" not in n[len(at) + bool(at) :]]
            if not names:
                self.refuse(404, "EntryNotFound")
                return
            self.answer([*listed, *(self.entry(repo, name) for name in inside)])

        def do_POST(self) -> None:
            path, body = self.path_of(), self.body()
            if found := re.fullmatch(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/paths-info/.+", path):
                asked = self.asked_paths(body)
                repo = found["repo"]
                self.answer([self.entry(repo, name) for name in asked if name in hub.files[repo]])
                return
            if path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
                return
            if not self.allowed():
                return
            if path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked['organization']}/{asked['name']}"
                hub.files.setdefault(repo, {})
                hub.private[repo] = (
                    asked.get("private") is True or asked.get("visibility") == "private"
                )
                self.answer({"url": f"{hub.address}/{repo}"})
            elif found := re.fullmatch(r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/main", path):
                self.answer({"files": [self.mode(each) for each in json.loads(body)["files"]]})
            elif path.endswith(".git/info/lfs/objects/batch"):
                objects = [self.upload(each) for each in json.loads(body)["objects"]]
                self.answer({"objects": objects, "transfer": "basic"})
            elif found := re.fullmatch(r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/main", path):
                self.commit(found["repo"], body)
            else:
                self.refuse(404, "EntryNotFound")

        def asked_paths(self, body: bytes) -> list[str]:
            try:
                found = json.loads(body)["paths"]
            except ValueError:
                from urllib.parse import parse_qs

                found = parse_qs(body.decode())["paths"]
            return found if isinstance(found, list) else [found]

        def mode(self, file: dict[str, Any]) -> dict[str, Any]:
            large = file["path"].endswith(".safetensors")
            mode = "lfs" if large else "regular"
            return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

        def upload(self, thing: dict[str, Any]) -> dict[str, Any]:
            actions = {"upload": {"href": f"{hub.address}/large/{thing['oid']}"}}
            return {"oid": thing["oid"], "size": thing["size"], "actions": actions}

        def do_PUT(self) -> None:
            hub.large[self.path_of().rpartition("/")[2]] = self.body()
            self.answer(b"")

        def commit(self, repo: str, body: bytes) -> None:
            for line in body.splitlines():
                step = json.loads(line)
                value = step["value"]
                if step["key"] == "file":
                    hub.files[repo][value["path"]] = base64.b64decode(value["content"])
                elif step["key"] == "lfsFile":
                    content = hub.large[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"]
                    hub.files[repo][value["path"]] = content
            sha = hub.sha(repo)
            self.answer({"commitUrl": f"{hub.address}/{repo}/commit/{sha}", "commitOid": sha})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub of this test alone, which every process that it starts takes for the real one."""
    with served() as server:
        for name, value in {
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "hf-home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",  # the stand-in takes plain uploads
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "COVIEW_NO_REPORT": "1",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def coview() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs the command as users do, in a process of its own without a terminal."""

    def run(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coview", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run
