"""A head as SSH reaches it, on this machine: a real sshd, a home of its own, and a laptop to call it from."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

import psutil
import yaml

from orchestrator.deploy import processes
from tests.ports import free_port
from tests.serve.front_process import eventually

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4


def sshd_path() -> str:
    """The sshd of this machine; its folder is not on every user's PATH."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found is not None, "no sshd here; on Debian and Ubuntu: apt-get install openssh-server"
    return found


@dataclass
class SshHead:
    """An sshd for the user who runs the test, and what a cluster file's setup would have made of the home there."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home of the head"

    @property
    def key(self) -> Path:
        return self.folder / "laptop key"

    @property
    def project(self) -> Path:
        return self.home / "moe-orchestrator"

    @property
    def cluster_file(self) -> Path:
        return self.folder / "cluster.yaml"

    def make(self) -> None:
        """Keys, the home, the project in it, and the cluster file that names it all."""
        (self.project / ".venv/bin").mkdir(parents=True)
        for name in ("host", "other host"):
            make_key(self.folder / name)
        make_key(self.key)
        (self.project / "node-env.sh").write_text(f"export RAY_AUTH_TOKEN={TOKEN}\n")
        self.install()
        self.write_cluster_file()

    def install(self, root: Path = ROOT, real: bool = False) -> None:
        """Put the project's source at `root` there; its command is the fake one unless `real`."""
        program = "-m orchestrator" if real else "-m tests.serve.fake_orchestrator"
        # A Ray that happens to run on this machine is none of this head's.
        nowhere = f"RAY_DASHBOARD_URL=http://127.0.0.1:{free_port()}" if real else ""
        for name, does in (("python", ""), ("orchestrator", program)):
            script = self.project / ".venv/bin" / name
            environment = f"PYTHONPATH='{root}' {nowhere if does else ''}"
            script.write_text(f"#!/bin/sh\n{environment} exec '{sys.executable}' {does} \"$@\"\n")
            script.chmod(0o755)

    def write_cluster_file(self, **auth: str) -> None:
        relay = f"{sys.executable} {ROOT / 'tests/serve/relay.py'} {self.port}"
        document = {
            "cluster_name": "rehearsal",
            "provider": {"type": "local", "head_ip": "10.255.0.1", "worker_ips": []},
            "auth": {
                "ssh_user": getuser(), "ssh_private_key": str(self.key), "ssh_proxy_command": relay, **auth
            },
        }  # fmt: skip
        self.cluster_file.write_text(yaml.safe_dump(document))

    def start(self, host_key: str = "host") -> None:
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\n"
            f'HostKey "{self.folder / host_key}"\n'
            f'AuthorizedKeysFile "{self.key}.pub"\n'
            f'SetEnv "HOME={self.home}"\n'
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "sshd.log").open("wb") as log:
            self.process = subprocess.Popen([sshd_path(), "-D", "-e", "-f", str(config)], stderr=log)
        eventually(lambda: not processes.port_is_free("127.0.0.1", self.port))

    def stop(self) -> None:
        """End this sshd with every connection it keeps."""
        if self.process is not None:
            for each in reversed(processes.family(self.process.pid)):
                with contextlib.suppress(psutil.Error):
                    each.kill()
            self.process.wait()
            self.process = None


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@dataclass
class Laptop:
    """A machine of an operator: a state folder and a working folder of its own."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ORCHESTRATOR_"))}
        own = {
            "HOME": str(self.folder), "ORCHESTRATOR_HOME": str(self.state), "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(self.folder / "tmp"), "TMPDIR": str(self.folder / "tmp"),
            "NO_COLOR": "1", "COLUMNS": "200",
        }  # fmt: skip
        self.environ = {**kept, **own, **self.environ}

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """`python -m orchestrator WORDS`, as the leader of a group of its own, as under a shell."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *(str(word) for word in words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environ, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str | Path, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """Exit code, output and errors of a command."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return process.returncode, out, err

    def relays(self) -> list[psutil.Process]:
        """The proxy commands of the connections that are open."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(word.endswith("tests/serve/relay.py") for word in process.info["cmdline"] or [])
        ]


@contextlib.contextmanager
def running_head(folder: Path) -> Iterator[SshHead]:
    head = SshHead(folder)
    head.make()
    try:
        head.start()
        yield head
    finally:
        head.stop()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C at a terminal: to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)
