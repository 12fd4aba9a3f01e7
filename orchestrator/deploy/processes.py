"""Processes that outlive the command that started them: begun in a session of their own, found again, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil


def start_detached(command: Sequence[str], log_path: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own (so that Ctrl-C here does not reach it), output to `log_path`."""
    with log_path.open("wb") as log:
        return subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=dict(env), start_new_session=True, cwd="/",
        )  # fmt: skip


def identity(pid: int) -> float | None:
    """What tells a process from a later one with the same id: the time it began. None when there is no such process."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_running(pid: int, started: float) -> bool:
    """Whether the process `pid` that began at `started` still runs."""
    now = identity(pid)
    return now is not None and abs(now - started) < 0.1


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants, it first; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def end(pid: int, started: float, timeout_s: float = 20.0, all_at_once: bool = False) -> bool:
    """End a process with all its descendants: asked first, killed after `timeout_s`. Whether it was running.

    `all_at_once` asks the descendants too, where the first would otherwise wait for them in vain (Ray drains its node
    for 30 s, and leaves helpers of its dashboard behind).
    """
    if not is_running(pid, started):
        return False
    members = family(pid)
    for process in members if all_at_once else members[:1]:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(members, timeout=timeout_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return True


def end_leftovers(leader_pid: int, started: float) -> bool:
    """End what a process that was killed left behind in its session; whether there was anything.

    The kernel gives no new process the number of a session that still has members.
    """
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader_pid and process.create_time() > started - 0.1:
                process.terminate()
                left.append(process)
    psutil.wait_procs(left, timeout=5)
    return bool(left)


def bind_error(host: str, port: int) -> OSError | None:
    """Why a server could not listen there now; None if it could."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
        return None


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    return bind_error(host, port) is None


def free_port(host: str, preferred: int) -> int:
    """`preferred` if a server could listen there, else a port that the system chooses."""
    if port_is_free(host, preferred):
        return preferred
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def who_listens(port: int) -> str:
    """`nginx (pid 4211)`: the process that holds a port, as far as this user may see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            local_port = connection.laddr[1] if connection.laddr else None
            if connection.status == psutil.CONN_LISTEN and local_port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


def tail(path: Path, lines: int = 1) -> str:
    """The last non-empty lines of a log file, as one line."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return "(no output)"
    kept = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(kept[-lines:]) if kept else "(no output)"


def wait_until_free(host: str, port: int, timeout_s: float) -> bool:
    """Wait for a port that is being given up; whether it became free."""
    deadline = time.monotonic() + timeout_s
    while not port_is_free(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
