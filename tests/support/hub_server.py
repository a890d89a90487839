"""A hub on this machine: what ``snapshot_download`` asks of the real one, for repositories that are folders."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "5" * 40
PULL = "6" * 40
BOT = {"title": "Adding `safetensors` variant of this model", "num": 3, "author": {"name": "SFconvertbot"}}
BOT |= {"createdAt": "2024-01-01T00:00:00.000Z", "status": "open", "isPullRequest": True}


@contextmanager
def hub_of(folders: Mapping[str, Path], pulls: Mapping[str, Path] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serves each folder under the name of its repository; yields the address and what is asked for.

    Args:
        folders: By name of the repository.
        pulls: What the hub's bot has put into a pull request of a repository, by its name.
    """
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?", maxsplit=1)[0].replace("%2F", "/")
            asked.append(path)
            name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
            pulled = PULL in path or "refs/pr" in path
            folder = (pulls or {}).get(name) if pulled else folders.get(name)
            if path == "/":
                self.answer(b"")
            elif folder is None:
                self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
            elif path.endswith("/discussions"):
                found = [BOT | {"repo": {"name": name, "type": "model"}}] if name in (pulls or {}) else []
                self.answer_json({"discussions": found, "count": len(found), "start": 0})
            elif "/revision/" in path or path == f"/api/models/{name}":
                files = [{"rfilename": one} for one in _files(folder)]
                self.answer_json({"id": name, "sha": PULL if pulled else COMMIT, "siblings": files})
            elif "/tree/" in path:
                self.answer_json([_entry(folder, one) for one in _files(folder)])
            elif (file := folder / path.split("/", 5)[-1]).is_file():
                self.answer(file.read_bytes())
            else:
                self.answer(b"{}", 404, {"X-Error-Code": "EntryNotFound"})

        def answer_json(self, value: Any) -> None:
            self.answer(json.dumps(value).encode())

        def answer(self, content: bytes, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", PULL if PULL in self.path else COMMIT)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, name: str) -> dict[str, Any]:
    content = (folder / name).read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
