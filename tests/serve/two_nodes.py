"""A Ray of two nodes on one machine, each with a model cache of its own, as `ray up` would have set it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.ports import free_port

# Ray takes 127.0.0.1 for the name of the machine, and goes by another of its addresses.
ADDRESSES = ("127.0.0.2", "127.0.0.3")
START_TIMEOUT_S = 120.0


@contextmanager
def two_nodes(home: Path, environments: tuple[dict[str, str], dict[str, str]]) -> Iterator[str]:
    """The dashboard's URL; whatever the nodes started is ended when the block is left, to the last process."""
    token = home / "ray-token"
    token.write_text("0" * 64)
    token.chmod(0o600)
    shared = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    port, dashboard_port = free_port(), free_port()
    url = f"http://127.0.0.1:{dashboard_port}"
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard_port}", f"--temp-dir={home / 'r'}"]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        nodes.append(_start(ADDRESSES[0], head, {**shared, **environments[0]}))
        _wait(url, token.read_text(), nodes, 1)
        nodes.append(_start(ADDRESSES[1], [f"--address={ADDRESSES[0]}:{port}"], {**shared, **environments[1]}))
        _wait(url, token.read_text(), nodes, 2)
        yield url
    finally:
        for node in reversed(nodes):
            _end(node)


def _start(address: str, words: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    ray = Path(sys.executable).parent / "ray"
    command = [
        str(ray), "start", "--block", *words, f"--node-ip-address={address}", "--num-cpus=1", "--disable-usage-stats",
        "--object-store-memory=80000000", f"--dashboard-agent-listen-port={free_port()}",
    ]  # fmt: skip
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(url: str, token: str, nodes: list[subprocess.Popen[bytes]], number: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            answer = httpx.get(
                f"{url}/api/v0/nodes?detail=true", headers={"Authorization": f"Bearer {token}"}, trust_env=False
            )
            states = answer.json()["data"]["result"]["result"] if answer.status_code == 200 else []
            if sum(row["state"] == "ALIVE" for row in states) == number:
                return
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            pass
        assert all(node.poll() is None for node in nodes), "a Ray node ended while starting"
        assert time.monotonic() < deadline, f"no {number} Ray nodes after {START_TIMEOUT_S} s"
        time.sleep(0.5)


def _end(node: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
    node.kill()
    node.wait()
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
