"""The real front and its replicas as processes, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import openai
import psutil

from orchestrator.store.secrets import control_token
from tests.ports import free_port

KEY = "moe-the-right-key"


def eventually(holds: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """What `holds` returns once it is true; fails the test when that takes longer than `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)
    return found


@dataclass
class FrontProcess:
    """`python -m deployments.front` in a folder of its own, with replicas that announce themselves to it."""

    folder: Path
    port: int = field(default_factory=free_port)
    control_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    replicas: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def key_path(self) -> Path:
        return self.folder / "api-key"

    def write_key(self, key: str) -> None:
        """Replace the key file as the operator's side does: whole, readable by its owner only."""
        temporary = self.folder / ".api-key"
        temporary.write_text(key + "\n")
        temporary.chmod(0o600)
        temporary.replace(self.key_path)

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "deployments.front", "--folder", str(self.folder / "front"),
            "--port", str(self.port), "--control-port", str(self.control_port), "--key-file", str(self.key_path),
            "--settings", str(self.folder / "front.yaml"),
        ]  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it says that it listens."""
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "listening" in self.process.stdout.readline()

    def add_replica(self, deployment: str, replica: str, *options: str) -> subprocess.Popen[str]:
        """A replica that has announced itself; routed to within a moment."""
        command = [sys.executable, "-m", "tests.serve.fake_replica", self.control_url, deployment, replica, *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.replicas[replica] = process
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"
        return process

    def client(self, key: str = KEY, **options: Any) -> openai.OpenAI:
        """OpenAI's own client; it does not retry, so that every refusal is seen."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20, **options)

    def ask(self, model: str, key: str = KEY, **options: Any) -> Any:
        """A chat completion; its `system_fingerprint` tells which replica answered."""
        messages: Any = [{"role": "user", "content": "Hello"}]
        return self.client(key).chat.completions.create(model=model, messages=messages, **options)

    def control(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Through the inner door, with its token."""
        headers = {"authorization": f"Bearer {control_token()}"}
        return httpx.request(method, self.control_url + path, headers=headers, trust_env=False, **options)

    def served(self, model: str) -> bool:
        """Whether a request to `model` is answered."""
        with contextlib.suppress(openai.APIError):
            return bool(self.ask(model).choices)
        return False

    def in_flight(self, deployment: str) -> int:
        """Requests being answered, as the replicas told with their last heartbeats."""
        known = self.control("GET", "/state").json()["deployments"]
        return sum(sum(row["in_flight"].values()) for row in known if row["name"] == deployment)

    def forget(self, deployment: str) -> None:
        """End a deployment's replicas and let the front forget it."""
        for replica in [each for each in self.replicas if each.startswith(f"{deployment}-")]:
            process = self.replicas.pop(replica)
            process.kill()
            process.wait()
        self.control("DELETE", f"/deployments/{deployment}")

    def family(self) -> list[psutil.Process]:
        """The front's process, its HAProxy and HAProxy's workers."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def stop(self) -> None:
        """End everything that was started."""
        for process in [*self.replicas.values(), *([self.process] if self.process else [])]:
            process.send_signal(signal.SIGTERM)
        for process in [*self.replicas.values(), *([self.process] if self.process else [])]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()


@contextlib.contextmanager
def running_front(folder: Path) -> Iterator[FrontProcess]:
    """A front with a key file and no replica yet. While it runs, this process has its Ray's token."""
    with mock.patch.dict(os.environ, {"RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)}):
        front = FrontProcess(folder)
        front.write_key(KEY)
        try:
            front.start()
            yield front
        finally:
            front.stop()
