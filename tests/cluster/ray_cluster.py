"""A Ray cluster on hosts of the test bed, as its operator sees it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.host import Host
from tests.cluster.laptop import Laptop

_ASK = """\
import json, sys, urllib.error, urllib.request
path, *token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token[0]}"} if token else {}
try:
    with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8265" + path, headers=headers)) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, None]))
"""


class RayCluster:
    """`file` brought up, asked and brought down by `ray`, from `laptop`."""

    def __init__(self, laptop: Laptop, hosts: tuple[Host, ...], file: Path) -> None:
        self.laptop, self.hosts, self.file = laptop, hosts, file
        self._started = time.monotonic()

    @property
    def head(self) -> Host:
        return self.hosts[0]

    def say(self, text: str) -> None:
        """A line of progress, past pytest's capture."""
        print(f"  [{time.monotonic() - self._started:5.1f} s] {text}", file=sys.__stderr__, flush=True)

    def ray(self, command: str, *words: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """`ray COMMAND FILE …` on the laptop."""
        begun = time.monotonic()
        done = self.laptop.run("ray", command, *words, str(self.file), timeout_s=timeout_s)
        self.say(
            f"ray {' '.join((command, *words))} ended with {done.returncode} after {time.monotonic() - begun:.1f} s"
        )
        return done

    def up(self) -> None:
        done = self.ray("up", "-y")
        assert done.returncode == 0, done.stdout[-5000:]

    def down(self) -> None:
        done = self.ray("down", "-y")
        assert done.returncode == 0, done.stdout[-5000:]

    def status(self) -> str:
        """What `ray status` says on the head."""
        done = self.laptop.run("ray", "exec", str(self.file), "ray status")
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def ask(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """The dashboard's status code and answer to somebody on the head."""
        words = (path,) if token is None else (path, token)
        asked = subprocess.run(
            ["nsenter", "--net", f"--target={self.head.first}", sys.executable, "-c", _ASK, *words],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if asked.returncode:
            return 0, asked.stderr[-500:]
        code, answer = json.loads(asked.stdout)
        return code, answer

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes that are alive by Ray's book, by address; none while the head does not answer."""
        code, answer = self.ask("/api/v0/nodes?detail=1", self.laptop.token)
        if code != 200:
            return {}
        listed = answer["data"]["result"]["result"]
        return {node["node_ip"]: node for node in listed if node["state"] == "ALIVE"}

    def gpus(self) -> int:
        return int(sum(node["resources_total"].get("GPU", 0) for node in self.nodes().values()))

    def wait(self, what: str, met: Callable[[], bool], timeout_s: float) -> float:
        """Until `met`; how long it took, in seconds. Fails with what the autoscaler said last."""
        begun = time.monotonic()
        while not met():
            if time.monotonic() - begun > timeout_s:
                raise AssertionError(f"{what}: not within {timeout_s:g} s\n{self.autoscaler_log()}")
            time.sleep(0.5)
        took = time.monotonic() - begun
        self.say(f"{what}, after {took:.1f} s")
        return took

    def autoscaler_log(self) -> str:
        return self.head.run("tail -n 40 /tmp/ray/session_latest/logs/monitor.*").stdout

    def environment(self, host: Host) -> dict[str, str]:
        """What a host's raylet has handed down to workers."""
        (raylet,) = host.pids(r"raylet/raylet ")
        words = Path(f"/proc/{raylet}/environ").read_bytes().decode().split("\0")
        return dict(word.split("=", 1) for word in words if "=" in word)

    def session(self) -> str:
        """Ray's name for this life of the head."""
        return self.head.output("readlink /tmp/ray/session_latest").strip()


def listening(host: Host, port: int) -> set[str]:
    """The addresses at which something on the host listens on a TCP port."""
    lines = host.output("ss --listening --tcp --numeric --no-header").splitlines()
    ends = (line.split()[3].rpartition(":") for line in lines)
    return {re.sub(r"[\[\]]|::ffff:", "", address) for address, _, listened in ends if listened == str(port)}
