"""A Hugging Face Hub on this machine, for huggingface_hub as it is installed: repositories in memory, over HTTP.

It knows what uploading and loading a model asks for, answers 404 as the Hub does, and keeps every commit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

OWNER = "me"


class FakeHub:
    """`repositories`: name -> file -> content; `commits` and `cards`: what was sent, in order."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[dict[str, Any]] = []
        self.cards: list[str] = []
        """What clients asked to check as YAML."""
        self.downloads: list[str] = []
        self.tokens: set[str | None] = set()
        self.url = ""

    def sha(self, name: str) -> str:
        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization'] or OWNER}/{told['name']}"
            if name in self.repositories:
                return 409, {"url": f"{self.url}/{name}", "error": "You already created this model repo"}
            self.repositories[name], self.private[name] = {}, told.get("visibility") == "private"
            return 200, {"url": f"{self.url}/{name}"}
        if path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            self.cards.append(content)
            yaml.safe_load(content.split("---")[1])
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/discussions"):
            return 200, {"num": 1}
        name, _, action = path.removeprefix("/api/models/").partition("/preupload/" if "/preupload/" in path else "/co")
        if "/preupload/" in path:
            files = [one["path"] for one in json.loads(body)["files"]]
            return 200, {"files": [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        if action.startswith("mmit/"):
            self._commit(name, [json.loads(line) for line in body.splitlines()], "pr%2F" in path)
            return 200, {"commitUrl": f"{self.url}/{name}/commit/x", "commitOid": self.sha(name), "success": True}
        return 404, {"error": f"the fake hub does not know POST {path}"}

    def _commit(self, name: str, lines: list[dict[str, Any]], is_pull_request: bool) -> None:
        commit: dict[str, Any] = {"name": name, "files": {}, "is_pull_request": is_pull_request}
        for line in lines:
            if line["key"] == "header":
                commit["message"] = line["value"]["summary"]
            elif line["key"] == "file":
                commit["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.commits.append(commit)
        if not is_pull_request:
            self.repositories[name] |= commit["files"]

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/api/models/"):
            name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            if name not in self.repositories:
                return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            if "/discussions/" in path:
                about = {
                    "title": "",
                    "num": 1,
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "status": "draft",
                    "events": [],
                }
                changes = {"isPullRequest": True, "changes": {"base": "refs/heads/main"}, "filesWithConflicts": []}
                return 200, {**about, **changes, "repo": {"name": name, "type": "model"}}, {}
            siblings = [{"rfilename": file} for file in self.repositories[name]]
            return 200, {"id": name, "_id": "0", "sha": self.sha(name), "siblings": siblings}, {}
        name, _, file = path.strip("/").partition("/resolve/")
        file = unquote(file.partition("/")[2])
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        headers = {"X-Repo-Commit": self.sha(name)}
        if file not in self.repositories[name]:
            return 404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"}
        content = self.repositories[name][file]
        return 200, content, {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}


@contextlib.contextmanager
def serve() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, content: Any, headers: dict[str, str]) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.tokens.add(self.headers.get("Authorization"))
            if self.command == "GET" and "/resolve/" in path:
                hub.downloads.append(path)
            self.answer(*hub.get(path))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            path = urlsplit(self.path).path
            hub.tokens.add(self.headers.get("Authorization"))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(iter(self._chunk, b""))
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(*hub.post(path, body), {})

        def _chunk(self) -> bytes:
            chunk = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return chunk

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
