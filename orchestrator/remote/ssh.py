"""The command lines by which SSH reaches a head, and what its complaints mean. Pure.

Ray's launcher takes any host key (`StrictHostKeyChecking=no`); here a head's key is kept at the first meeting and
held against every later one, in a file of the cluster's own.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from orchestrator.errors import ClusterUnavailable
from orchestrator.remote.cluster_file import Head
from orchestrator.render.node_setup import HOME

CONNECT_TIMEOUT_S = 10
# A connection that carries nothing is given up after three of these.
ALIVE_INTERVAL_S = 5
ALIVE_COUNT = 3
NOT_INSTALLED = 69  # EX_UNAVAILABLE of sysexits.h
CONNECTION_FAILED = 255  # ssh's own exit code

# The same program at the other end, in the environment that Ray has there.
_FAR_END = f"""\
[ -x {HOME}/.venv/bin/python ] && [ -r {HOME}/node-env.sh ] || exit {NOT_INSTALLED}
. {HOME}/node-env.sh || exit 1
exec {HOME}/.venv/bin/python -m orchestrator.remote.far_end"""


def far_end_command(head: Head, known_hosts: Path) -> list[str]:
    """The command that runs the far end of a line. What it is to do is told over the line, not in its arguments."""
    # Forwardings of a user's own configuration belong to that user's own connections.
    options = [*_options(head, known_hosts), "-o", "ClearAllForwardings=yes"]
    return [*options, *_destination(head), f"exec bash -c {shlex.quote(_FAR_END)}"]


def tunnel_command(head: Head, known_hosts: Path, local_port: int, to: tuple[str, int]) -> list[str]:
    """The command that lets `local_port` here, on loopback only, lead to the address `to` as the head sees it."""
    forward = f"127.0.0.1:{local_port}:{to[0]}:{to[1]}"
    options = [*_options(head, known_hosts), "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward]
    return [*options, *_destination(head)]


def _options(head: Head, known_hosts: Path) -> list[str]:
    settings = {
        "BatchMode": "yes",  # nobody is there to answer
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": str(ALIVE_INTERVAL_S),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": f'"{_literal(known_hosts)}"',
        # A connection of its own, that ends when it is ended.
        "ControlMaster": "no",
        "ControlPath": "none",
        "LogLevel": "ERROR",
    }
    if head.file.ssh_proxy_command is not None:
        settings["ProxyCommand"] = head.file.ssh_proxy_command
    if head.private_key is not None:
        settings["IdentitiesOnly"] = "yes"
    words = ["ssh", "-T"]
    for name, value in settings.items():
        words += ["-o", f"{name}={value}"]
    return [*words, *(["-i", _literal(head.private_key)] if head.private_key else [])]


def _destination(head: Head) -> list[str]:
    return ["-l", head.file.ssh_user, "--", head.host]


def _literal(path: Path) -> str:
    """A path in which SSH replaces nothing."""
    return str(path).replace("%", "%%")


def failure(head: Head, exit_code: int | None, complaints: str) -> ClusterUnavailable:
    """What the end of a connection means that told nothing else, in one line with the way out."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    last, file = lines[-1] if lines else f"ssh ended with exit code {exit_code}", head.file.path
    if exit_code == NOT_INSTALLED:
        return ClusterUnavailable(f"this project is not installed on {head.login}; bring it there: ray up {file}")
    if "No module named" in complaints:
        return ClusterUnavailable(other_version(head, "an older version"))
    if "HOST IDENTIFICATION HAS CHANGED" in complaints or "Host key verification failed" in complaints:
        return ClusterUnavailable(
            f"{head.host} shows another host key than before; if the host was made anew, forget the old key "
            f"({_known_hosts_named_in(complaints)}), else somebody may be listening in"
        )
    if "Permission denied" in complaints:
        key = head.private_key or "the keys of this user"
        return ClusterUnavailable(
            f"{head.login} refuses {key}; check auth.ssh_user and auth.ssh_private_key in {file} ({last})"
        )
    if exit_code == CONNECTION_FAILED:
        return ClusterUnavailable(
            f"cannot reach {head.login} over SSH ({last}); see whether the cluster is up (ray up {file}) "
            "and whether its network lets this machine in"
        )
    return ClusterUnavailable(f"{head.login}: {last}")


def _known_hosts_named_in(complaints: str) -> str:
    """`rm FILE` for the file in which SSH found the old key."""
    named = [line.split(" key in ")[1].rpartition(":")[0] for line in complaints.splitlines() if " key in " in line]
    return f"rm {shlex.quote(named[-1])}" if named else "ssh-keygen -R"


def other_version(head: Head, what: str) -> str:
    """The head has another source than this machine: `what` says which."""
    return (
        f"{head.login} has {what} of this project; bring this one there: ray up {head.file.path} "
        "(it restarts Ray, and with it what is served)"
    )
