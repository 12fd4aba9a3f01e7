"""A Hugging Face hub on loopback: as much of its HTTP as huggingface_hub uses, and its ways to fail.

GET  /api/models/ID/revision/REV?blobs=true    the commit, and every file with size and digest
HEAD /ID/resolve/COMMIT/FILE                   etag, size and commit in headers
GET  the same                                  the bytes, from `Range` on
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# Files from this size on are told with their SHA-256, as git LFS has it; smaller ones by their git blob.
LFS_FROM_BYTES = 4096


@dataclass
class Repository:
    """A model on the hub: its files at one commit, and how the hub treats who asks."""

    commit: str
    files: dict[str, bytes]
    gated: bool = False
    # A token that is accepted but has no access to gated files.
    stranger: str = "hf_stranger"
    # Bytes after which the connection for a file breaks, the first time it is asked for.
    break_after: dict[str, int] = field(default_factory=dict)
    # Bytes that are sent instead of the file's own, so many times.
    corrupt: dict[str, int] = field(default_factory=dict)
    # Seconds to wait before each 64 KiB, so that a download can be killed in its middle.
    slow_s: float = 0.0


@dataclass
class Hub:
    """The server, and what has been asked of it: (method, file, first byte, bytes sent)."""

    url: str
    repositories: dict[str, Repository]
    asked: list[tuple[str, str, int, int]] = field(default_factory=list)

    def sent(self) -> dict[str, int]:
        """Bytes of each file that were sent since the last look."""
        total: dict[str, int] = {}
        for method, name, _, size_bytes in self.asked:
            if method == "GET":
                total[name] = total.get(name, 0) + size_bytes
        self.asked.clear()
        return total


def lfs_sha256(body: bytes) -> str | None:
    return hashlib.sha256(body).hexdigest() if len(body) >= LFS_FROM_BYTES else None


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()  # noqa: S324 - git's own


@contextmanager
def fake_hub(repositories: dict[str, Repository], port: int = 0) -> Iterator[Hub]:
    """Serve `repositories` for the length of the block."""
    hub = Hub("", repositories)
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None:
            return None

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/models/"):
                hf_id, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                self._info(hf_id, revision or "main")
            elif "/resolve/" in path:
                hf_id, _, rest = path.lstrip("/").partition("/resolve/")
                revision, _, name = rest.partition("/")
                self._file(hf_id, revision, name)
            else:
                self._refuse(404, "EntryNotFound")

        def _repository(self, hf_id: str, revision: str, gate: bool) -> Repository | None:
            repository = hub.repositories.get(hf_id)
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            if repository is None:
                self._refuse(404 if token else 401, "RepoNotFound")
            elif revision not in ("main", repository.commit):
                self._refuse(404, "RevisionNotFound")
            elif gate and repository.gated and token in ("", repository.stranger):
                self._refuse(403 if token else 401, "GatedRepo")
            else:
                return repository
            return None

        def _info(self, hf_id: str, revision: str) -> None:
            # The real hub shows what a gated repository holds to everybody.
            repository = self._repository(hf_id, revision, gate=False)
            if repository is None:
                return
            siblings = [_sibling(name, body) for name, body in repository.files.items()]
            document = {"_id": "1", "id": hf_id, "modelId": hf_id, "sha": repository.commit, "siblings": siblings}
            body = json.dumps(document).encode()
            self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
            self.wfile.write(body)

        def _file(self, hf_id: str, revision: str, name: str) -> None:
            repository = self._repository(hf_id, revision, gate=True)
            if repository is None:
                return
            body = repository.files.get(name)
            if body is None:
                self._refuse(404, "EntryNotFound")
                return
            first = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {
                "ETag": f'"{lfs_sha256(body) or git_sha1(body)}"',
                "X-Repo-Commit": repository.commit,
                "Accept-Ranges": "bytes",
                "Content-Length": str(len(body) - first),
            }
            if lfs_sha256(body):
                headers |= {"X-Linked-Size": str(len(body)), "X-Linked-Etag": headers["ETag"]}
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            self._head(206 if first else 200, headers)
            if self.command == "GET":
                self._send(repository, name, first)
            else:
                hub.asked.append(("HEAD", name, first, 0))

        def _send(self, repository: Repository, name: str, first: int) -> None:
            body = repository.files[name]
            if repository.corrupt.get(name):
                repository.corrupt[name] -= 1
                body = bytes(len(body))
            end = repository.break_after.pop(name, len(body))
            sent = 0
            try:
                for at in range(first, end, 65536):
                    if repository.slow_s:
                        threading.Event().wait(repository.slow_s)
                    piece = body[at : min(at + 65536, end)]
                    self.wfile.write(piece)
                    sent += len(piece)
            except OSError:
                pass
            hub.asked.append(("GET", name, first, sent))
            if end < len(body):
                self.close_connection = True

        def _refuse(self, status: int, code: str) -> None:
            self._head(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"})

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

    return Handler


def _sibling(name: str, body: bytes) -> dict[str, object]:
    row: dict[str, object] = {"rfilename": name, "size": len(body), "blobId": git_sha1(body)}
    if sha256 := lfs_sha256(body):
        row["lfs"] = {"size": len(body), "sha256": sha256, "pointerSize": 135}
    return row
