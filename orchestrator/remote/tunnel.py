"""The way from a port of this machine's loopback to the front on a head: an SSH tunnel that outlives its command."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestrator.deploy import processes
from orchestrator.remote import ssh
from orchestrator.remote.cluster_file import Head
from orchestrator.store.home import forget_record, locked, read_record, write_record

LOCAL_HOST = "127.0.0.1"
# A proxy command may take its time before SSH's own limit begins.
START_TIMEOUT_S = 2.0 * ssh.CONNECT_TIMEOUT_S
_ATTEMPTS = 3


@dataclass(frozen=True)
class Tunnel:
    """A tunnel as it is recorded: its process, its port here, and where it leads to as the head sees it."""

    pid: int
    started: float
    local_port: int
    host: str
    port: int

    @property
    def base_url(self) -> str:
        """What the OpenAI SDK takes as `base_url` here."""
        return f"http://{LOCAL_HOST}:{self.local_port}/v1"

    @property
    def runs(self) -> bool:
        return processes.is_running(self.pid, self.started)


@dataclass(frozen=True)
class Tunnels:
    """The one tunnel of a cluster, kept in the cluster's folder `folder` of the state folder as `record`.json."""

    head: Head
    folder: Path
    record: str

    @property
    def _lock(self) -> str:
        return f"tunnel-{self.folder.name}"

    def ensure(self, to: tuple[str, int]) -> tuple[Tunnel, bool]:
        """The tunnel to the address `to`, and whether it is new.

        One that runs is used again, one that died is begun again on its old port. The port here is that of the front
        where nothing else listens on it. Raises `ClusterUnavailable` when SSH refuses.
        """
        with locked(self._lock):
            earlier = self._recorded()
            if earlier is not None and earlier.runs and (earlier.host, earlier.port) == to:
                return earlier, False
            self._end(earlier)
            return self._begin(to, earlier.local_port if earlier else to[1]), True

    def end(self) -> bool:
        """End the tunnel; whether one ran."""
        with locked(self._lock):
            ended = self._end(self._recorded())
            forget_record(self.record)
            return ended

    def _recorded(self) -> Tunnel | None:
        try:
            return Tunnel(**(read_record(self.record) or {}))
        except TypeError:  # none, or one of another version
            return None

    def _end(self, tunnel: Tunnel | None) -> bool:
        return tunnel is not None and processes.end(tunnel.pid, tunnel.started, timeout_s=5.0, all_at_once=True)

    def _begin(self, to: tuple[str, int], wanted_port: int) -> Tunnel:
        for _ in range(_ATTEMPTS):
            tunnel, complaints = self._try(to, processes.free_port(LOCAL_HOST, wanted_port))
            if tunnel is not None:
                return tunnel
            if "already in use" not in complaints:  # else somebody was faster: on to another port
                break
        raise ssh.failure(self.head, ssh.CONNECTION_FAILED, complaints)

    def _try(self, to: tuple[str, int], local_port: int) -> tuple[Tunnel | None, str]:
        """A tunnel that listens, or None and what SSH had to say."""
        log_path = self.folder / "tunnel.log"
        command = ssh.tunnel_command(self.head, self.folder / "known_hosts", local_port, to)
        process = processes.start_detached(command, log_path, os.environ)
        tunnel = Tunnel(process.pid, processes.identity(process.pid) or 0.0, local_port, *to)
        write_record(self.record, asdict(tunnel))
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _listens(process.pid, local_port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                self._end(tunnel)
                forget_record(self.record)
                return None, log_path.read_text(errors="replace")
            time.sleep(0.05)
        return tunnel, ""


def _listens(pid: int, port: int) -> bool:
    """Whether this process listens there. The port is not tried: that would open a connection on the head."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr[1] == port for each in sockets)
