"""A server on loopback that speaks as much of the Hub's protocol as fetching a model takes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from contextlib import AbstractContextManager
from pathlib import Path

from helpers.loopback import LoopbackHandler, serving

COMMIT = hashlib.sha1(b"the only revision").hexdigest()
_FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_TREE = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/tree/[^/?]+(?:\?.*)?")
_INFO = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([^/?]+))?(?:\?.*)?")


class Hub:
    """Folders as models. ``log`` holds (file, first byte, last byte) of all that was asked for."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.models = models
        self.log: list[tuple[str, int, int]] = []
        self.fails_after: int | None = None  # requests for weights, then errors that last
        self.gated: set[str] = set()
        self.tokens: set[str] = set()  # that clients have shown
        self.pushed: dict[str, dict[str, bytes]] = {}  # files by repository
        self._objects: dict[str, bytes] = {}  # uploaded apart, by their checksum

    @property
    def num_bytes_sent(self) -> int:
        """Of files, headers not counted."""
        return sum(last - first + 1 for _, first, last in self.log)


class _Handler(LoopbackHandler):
    """Answers as the Hub does."""

    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET(sends=False)

    def do_GET(self, sends: bool = True) -> None:
        if self.headers.get("Authorization"):
            self.hub.tokens.add(self.headers["Authorization"].removeprefix("Bearer "))
        info, file = _INFO.fullmatch(self.path), _FILE.fullmatch(self.path)
        tree = _TREE.fullmatch(self.path)
        if info is not None:
            self._tell(info[1], info[2])
        elif tree is not None and tree[1] in self.hub.models:
            self._answer([{**file, "type": "file", "path": file["rfilename"], "oid": COMMIT}
                          for file in self._files(tree[1])])  # fmt: skip
        elif file is not None and file[1] in self.hub.models:
            self._give(self.hub.models[file[1]] / file[3], file[3], sends)
        else:
            self._refuse(404, "RepoNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_writer":
            self._refuse(401, "RepoNotFound")
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            fields = json.loads(body)
            name = f"{fields['organization']}/{fields['name']}"
            self.hub.pushed.setdefault(name, {})
            self._answer({"url": f"{self._base()}/{name}", "name": name})
        elif self.path.endswith("/preupload/main"):
            files = [f["path"] for f in json.loads(body)["files"]]
            modes = {f: "lfs" if f.endswith(".safetensors") else "regular" for f in files}
            self._answer(
                {"files": [{"path": f, "uploadMode": modes[f], "shouldIgnore": False} for f in files]}
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self._base()}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")
        else:
            self._commit(self.path.split("/api/models/")[1].removesuffix("/commit/main"), body)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rsplit("/", 1)[1]
        if hashlib.sha256(data).hexdigest() != oid:
            self._refuse(400, "BadChecksum")
            return
        self.hub._objects[oid] = data
        self._send(200, b"", {})

    def _commit(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.hub.pushed[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.pushed[repo][value["path"]] = self.hub._objects[value["oid"]]
        url = f"{self._base()}/{repo}/commit/{COMMIT}"
        self._answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _base(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, value: object, kind: str = "application/json") -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": kind})

    def _tell(self, repo: str, revision: str | None) -> None:
        if repo not in self.hub.models:
            self._refuse(401, "RepoNotFound")
            return
        if repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
            return
        if revision not in (None, "main", COMMIT):
            self._refuse(404, "RevisionNotFound")
            return
        siblings = self._files(repo)
        body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False,
                "tags": [], "downloads": 0}  # fmt: skip
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _files(self, repo: str) -> list[dict[str, object]]:
        folder = self.hub.models[repo]
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return [{"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size} for p in paths]

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
        if name.endswith((".safetensors", ".gguf")) and sends:
            if self.hub.fails_after == 0:
                self._refuse(404, "EntryNotFound")
                return
            if self.hub.fails_after is not None:
                self.hub.fails_after -= 1
        with path.open("rb") as stored:
            stored.seek(first)
            data = stored.read(last - first + 1) if sends else b""
        if sends:
            self.hub.log.append((name, first, last))
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


def serve(hub: Hub) -> AbstractContextManager[str]:
    """The server's address."""
    return serving(type("Handler", (_Handler,), {"hub": hub}))
