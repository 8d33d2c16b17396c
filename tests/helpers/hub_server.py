"""A server on loopback that speaks as much of the Hub's protocol as fetching a model takes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = hashlib.sha1(b"the only revision").hexdigest()
_FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_INFO = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([^/?]+))?(?:\?.*)?")


class Hub:
    """Folders as models. ``log`` holds (file, first byte, last byte) of all that was asked for."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.models = models
        self.log: list[tuple[str, int, int]] = []
        self.fails_after: int | None = None  # requests for weights, then errors that last
        self.gated: set[str] = set()
        self.tokens: set[str] = set()  # that clients have shown

    @property
    def num_bytes_sent(self) -> int:
        """Of files, headers not counted."""
        return sum(last - first + 1 for _, first, last in self.log)


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The server's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a body waits until the client has acknowledged the headers

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET(sends=False)

        def do_GET(self, sends: bool = True) -> None:
            if self.headers.get("Authorization"):
                hub.tokens.add(self.headers["Authorization"].removeprefix("Bearer "))
            info, file = _INFO.fullmatch(self.path), _FILE.fullmatch(self.path)
            if info is not None:
                self._tell(info[1], info[2])
            elif file is not None and file[1] in hub.models:
                self._give(hub.models[file[1]] / file[3], file[3], sends)
            else:
                self._refuse(404, "RepoNotFound")

        def _tell(self, repo: str, revision: str | None) -> None:
            if repo not in hub.models:
                self._refuse(401, "RepoNotFound")
                return
            if repo in hub.gated:
                self._refuse(403, "GatedRepo")
                return
            if revision not in (None, "main", COMMIT):
                self._refuse(404, "RevisionNotFound")
                return
            files = [path for path in sorted(hub.models[repo].rglob("*")) if path.is_file()]
            siblings = [
                {"rfilename": path.relative_to(hub.models[repo]).as_posix(), "size": path.stat().st_size}
                for path in files
            ]
            body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False,
                    "tags": [], "downloads": 0}  # fmt: skip
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        def _give(self, path: Path, name: str, sends: bool) -> None:
            if not path.is_file():
                self._refuse(404, "EntryNotFound")
                return
            size, status = path.stat().st_size, 200
            first, last = 0, size - 1
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked:
                first, status = int(asked[1]), 206
                last = min(int(asked[2] or last), last)
            if name.endswith(".safetensors") and sends:
                if hub.fails_after == 0:
                    self._refuse(404, "EntryNotFound")
                    return
                if hub.fails_after is not None:
                    hub.fails_after -= 1
            with path.open("rb") as stored:
                stored.seek(first)
                data = stored.read(last - first + 1) if sends else b""
            if sends:
                hub.log.append((name, first, last))
            etag = hashlib.sha1(name.encode()).hexdigest()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if asked:
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            self._send(status, data, headers, None if sends else size)

        def _refuse(self, status: int, code: str) -> None:
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

        def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
