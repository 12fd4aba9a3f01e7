"""The operator of a cluster on hosts of the test bed: the two commands, the OpenAI SDK, and how they are set up."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI

from orchestrator.units import GIB
from tests.cluster.hosts import running_hosts
from tests.cluster.laptop import Laptop
from tests.cluster.ray_cluster import RayCluster
from tests.cluster.variant import bring_stand_in, cluster_file

JOIN_S = 180


@dataclass(frozen=True)
class Size:
    """A model, and how many GPUs of which kind each of the two hosts has for it."""

    model: str
    num_gpus: int
    gpu_type: str
    layout: str


SMALL = Size("kimi-k2-thinking", 2, "B200", "TP 2 × PP 2")
WHOLE = Size("kimi-k2", 8, "H100", "TP 8 × PP 2")


class Operator:
    """`python -m orchestrator` on the laptop, and the OpenAI SDK there."""

    def __init__(self, cluster: RayCluster, size: Size) -> None:
        self.cluster, self.size = cluster, size
        self.env = {**cluster.laptop.env, "ORCHESTRATOR_HOME": str(cluster.laptop.home / ".orchestrator")}
        self.base_url, self.key = "", ""

    def run(self, *words: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words], env=self.env, capture_output=True, text=True,
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - begun
        self.cluster.say(f"orchestrator {' '.join(words[:2])} ended with {done.returncode} after {seconds:.0f} s")
        return done

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    def deploy(self) -> Any:
        said = self.json("deploy", self.size.model, "--emulate", "--cluster", str(self.cluster.file))
        self.base_url, self.key = said["base_url"], Path(said["api_key_file"]).read_text().strip()
        return said

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0, timeout=120)

    def ask(self) -> tuple[int, str | None]:
        """Status and `Retry-After` of a short completion."""
        host, _, port = self.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        body = json.dumps({"model": self.size.model, "prompt": "Hello", "max_tokens": 1})
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        try:
            connection.request("POST", "/v1/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("retry-after")
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def until(self, what: str, met: Callable[[], bool], timeout_s: float) -> float:
        return self.cluster.wait(what, met, timeout_s)


@contextmanager
def operating(size: Size, folder: Path, shared_memory_bytes: int = 4 * GIB) -> Iterator[Operator]:
    """A cluster that one plain `ray up` has made, and an operator outside of it; all taken down in the end."""
    laptop = Laptop(folder / "laptop")
    laptop.make_token()
    with running_hosts(folder, 2, laptop.public_key, shared_memory_bytes) as hosts:
        bring_stand_in(hosts)
        file = laptop.folder / "kimi.yaml"
        head, worker = hosts
        file.write_text(cluster_file((head.address, worker.address), laptop.key, size.num_gpus, size.gpu_type))
        cluster = RayCluster(laptop, hosts, file)
        cluster.up()
        cluster.wait("both hosts are in the cluster", lambda: cluster.gpus() == 2 * size.num_gpus, JOIN_S)
        operator = Operator(cluster, size)
        try:
            yield operator
        finally:
            operator.run("down", "--cluster", str(file))
            cluster.down()
