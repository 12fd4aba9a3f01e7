"""A host of the test bed: a machine in all that Ray and SSH can tell, made of namespaces.

It has a network, processes, a host name, a home, /tmp and /dev/shm of its own and shares the rest of this
machine's file system. `HOME` is the same path on every host, as it is on machines set up alike.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "moe-hosts"  # in the arguments of every process that holds a namespace of the bed
USER = "ubuntu"
HOME = Path("/srv/ubuntu")
# New namespaces whose processes die with the thread that made them.
UNSHARE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child")
ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("host.sh")
# What a host must see even where it lies below one of the folders that it has of its own.
_VISIBLE = tuple(dict.fromkeys(str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix)))
_START_S = 20
_SSHD_CONFIG = f"""\
HostKey /run/host_key
AuthorizedKeysFile /run/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PidFile none
# The environment is installed from this machine's sources; what `ray up` has brought comes before them.
SetEnv PYTHONPATH={HOME}/moe-orchestrator
"""


def sh(*command: str) -> str:
    """Runs a command of this machine. Raises `RuntimeError` with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def holder(*command: str) -> subprocess.Popen[bytes]:
    """`unshare …`, which ends with the thread that calls this, however that ends, and takes its namespaces along."""
    return subprocess.Popen([*UNSHARE, *command], stdin=subprocess.DEVNULL)


def first_process(unshare: subprocess.Popen[bytes]) -> int:
    """The process that `unshare` started in the new namespaces."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and unshare.poll() is None:
        children = psutil.Process(unshare.pid).children()
        if children:
            return int(children[0].pid)
        time.sleep(0.01)
    raise RuntimeError(f"{unshare.args!r} ended with {unshare.poll()} before it had made its namespaces")


def end(unshare: subprocess.Popen[bytes], first: int) -> None:
    """SIGKILL for a whole PID namespace: its first process takes all the others with it."""
    for pid in (first, unshare.pid):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
    unshare.wait()


@dataclass
class Host:
    """One host. `address` is where the others and this machine reach it; `folder` holds its disks.

    switch: the process whose network namespace holds the bridge; shared_memory_bytes: the size of /dev/shm.
    """

    name: str
    address: str
    folder: Path
    switch: int
    shared_memory_bytes: int
    first: int = 0
    _unshare: subprocess.Popen[bytes] | None = None
    _boots: int = 0
    _blocked: set[int] = field(default_factory=set)

    @property
    def home(self) -> Path:
        """The host's home as this machine sees it."""
        return self.folder / "srv" / HOME.name

    def start(self) -> None:
        """Power on: the disks are as they were, /tmp is empty. Call it from the thread that outlives the host."""
        if self._unshare is not None:
            raise RuntimeError(f"{self.name} is running")
        self._boots += 1
        if (tmp := self.folder / "tmp").exists():
            tmp.rename(self.folder / f"tmp-{self._boots - 1}")  # kept for who wants to read old logs
        tmp.mkdir(mode=0o1777)
        namespaces = ("--pid", "--mount-proc", "--uts", "--mount", "--ipc", "--net")
        words = (str(self.folder), self.name, str(self.shared_memory_bytes), *_VISIBLE)
        self._unshare = holder(*namespaces, "bash", str(_SCRIPT), *words, MARK)
        self.first = first_process(self._unshare)
        self._plug_in()
        self._blocked.clear()
        self._wait_for_ssh()

    def _plug_in(self) -> None:
        switch = ("nsenter", "--net", f"--target={self.switch}")
        # A machine keeps its network card: with another one, its neighbours would talk to the old one for a while.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))
        end = ("peer", "name", "eth0", "address", card, "netns", str(self.first))
        sh(*switch, "ip", "link", "add", self.name, "type", "veth", *end)
        sh(*switch, "ip", "link", "set", self.name, "master", "bridge", "up")
        inside = ("nsenter", "--net", f"--target={self.first}")
        sh(*inside, "ip", "link", "set", "lo", "up")
        sh(*inside, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        sh(*inside, "ip", "link", "set", "eth0", "up")

    def _wait_for_ssh(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection((self.address, 22), timeout=1).close()
                return
            except OSError as error:
                if time.monotonic() > deadline or (self._unshare and self._unshare.poll() is not None):
                    log = (self.folder / "sshd.log").read_text() if (self.folder / "sshd.log").exists() else ""
                    raise RuntimeError(f"{self.name} ({self.address}) has no SSH: {error}\n{log[-2000:]}") from None
                time.sleep(0.05)

    def kill(self) -> None:
        """A power cut: no packet leaves any more, and every process is gone. Harmless on a host that is off."""
        if self._unshare is None:
            return
        # The cable first: a dying process must not be able to say goodbye over its connections.
        subprocess.run(
            ["nsenter", "--net", f"--target={self.switch}", "ip", "link", "delete", self.name],
            capture_output=True, check=False,
        )  # fmt: skip
        end(self._unshare, self.first)
        self._unshare, self.first = None, 0

    def block(self, port: int) -> None:
        """Drops what comes in for a TCP port, as a firewall does that answers nothing."""
        self._blocked.add(port)
        self._filter()

    def block_new(self, ports: str) -> None:
        """Drops what would begin a TCP connection from outside to a range such as 32768-60999."""
        self._rules(f'iifname "eth0" tcp dport {ports} tcp flags & (syn | ack) == syn drop')

    def unblock(self, port: int) -> None:
        self._blocked.discard(port)
        self._filter()

    def _filter(self) -> None:
        ports = ", ".join(map(str, sorted(self._blocked)))
        self._rules(f'iifname "eth0" tcp dport {{ {ports} }} drop' if ports else "")

    def _rules(self, rule: str) -> None:
        chain = f"chain input {{\ntype filter hook input priority 0; policy accept;\n{rule}\n}}"
        rules = f"add table inet bed\ndelete table inet bed\ntable inet bed {{\n{chain}\n}}\n"
        subprocess.run(
            ["nsenter", "--net", f"--target={self.first}", "nft", "--file", "-"],
            input=rules, text=True, capture_output=True, check=True, timeout=30,
        )  # fmt: skip

    def run(self, command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of the host's user, inside the host but not over SSH: it works behind any firewall."""
        environment = [f"HOME={HOME}", f"USER={USER}", f"PYTHONPATH={HOME}/moe-orchestrator", "TERM=dumb"]
        inside = ["nsenter", "--all", f"--target={self.first}", "env", "-i", *environment]
        script = f"cd; . ~/.bashrc; {command}"
        return subprocess.run(
            [*inside, "timeout", "--kill-after=5", str(timeout_s), "bash", "-c", script],
            capture_output=True, text=True, check=False, timeout=timeout_s + 20, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def output(self, command: str, timeout_s: float = 60) -> str:
        """What a command of the host prints. Raises `RuntimeError` when it fails."""
        done = self.run(command, timeout_s)
        if done.returncode:
            raise RuntimeError(f"{self.name}: `{command}` ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def pids(self, pattern: str = "") -> list[int]:
        """Processes of the host whose command line matches, by their ids on this machine."""
        if not self.first:
            return []
        own = _pid_namespace(self.first)
        here = [process for process in psutil.process_iter() if _pid_namespace(process.pid) == own]
        return [process.pid for process in here if re.search(pattern, _command_line(process))]


def _pid_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _command_line(process: psutil.Process) -> str:
    try:
        return shlex.join(process.cmdline())
    except psutil.Error:
        return ""


def prepare(folder: Path, name: str, addresses: dict[str, str], public_key: str) -> None:
    """The disks of a host that was set up by hand: a user, an SSH server, a Python, and our environment in place.

    addresses: of all hosts by name; public_key: of who may come in.
    """
    home = folder / "srv" / HOME.name
    (folder / "etc").mkdir(parents=True)
    home.mkdir(parents=True)
    # By this name a process has the rights of root, which everything here needs anyway.
    users = f"{USER}:x:0:0::{HOME}:/bin/bash\n" + Path("/etc/passwd").read_text()
    (folder / "etc/passwd").write_text(users)
    names = "".join(f"{address} {name}\n" for name, address in addresses.items())
    (folder / "etc/hosts").write_text(f"127.0.0.1 localhost\n{names}")
    (home / ".bashrc").write_text(f"export PATH={Path(sys.base_prefix) / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin\n")
    (folder / "authorized_keys").write_text(public_key)
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / "host_key"))
    (folder / "sshd_config").write_text(_SSHD_CONFIG)
    _environment(home / "moe-orchestrator")


def _environment(project: Path) -> None:
    """The environment under test as the host's own, with the stamp by which scripts/env knows it is right."""
    venv = project / ".venv"
    venv.mkdir(parents=True)
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith(".installed"):
            (venv / path.name).symlink_to(path)
    stamp = sh("bash", "-c", 'cd "$1" && cksum pyproject.toml scripts/env | cksum', "cksum", str(ROOT))
    (venv / ".installed-cpu").write_text(stamp.rstrip("\n"))
