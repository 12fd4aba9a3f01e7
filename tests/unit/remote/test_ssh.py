"""SSH's command lines: nothing asked, nothing hanging, nothing of a command in them; and what SSH's complaints mean."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.remote import ssh
from orchestrator.remote.cluster_file import Head

KNOWN_HOSTS = Path("/home/me/my state/known_hosts")


def options(command: list[str]) -> dict[str, str]:
    settings = (word for before, word in itertools.pairwise(command) if before == "-o")
    return dict(setting.split("=", 1) for setting in settings)


def test_a_connection_asks_nobody_and_never_hangs(head: Head) -> None:
    for command in (
        ssh.far_end_command(head, KNOWN_HOSTS),
        ssh.tunnel_command(head, KNOWN_HOSTS, 8000, ("127.0.0.1", 8000)),
    ):
        chosen = options(command)
        assert chosen["BatchMode"] == "yes"
        assert int(chosen["ConnectTimeout"]) <= 10
        assert int(chosen["ServerAliveInterval"]) * int(chosen["ServerAliveCountMax"]) <= 15


def test_a_host_key_is_kept_and_held_against_later_ones(head: Head) -> None:
    chosen = options(ssh.far_end_command(head, KNOWN_HOSTS))
    assert chosen["StrictHostKeyChecking"] == "accept-new"
    assert chosen["UserKnownHostsFile"] == '"/home/me/my state/known_hosts"'


def test_the_files_key_is_the_only_one_offered(head: Head) -> None:
    command = ssh.far_end_command(head, KNOWN_HOSTS)
    assert options(command)["IdentitiesOnly"] == "yes"
    assert command[command.index("-i") + 1] == "/home/me/.ssh/id 100%%", "SSH replaces % in paths"
    assert "IdentitiesOnly" not in options(ssh.far_end_command(replace(head, private_key=None), KNOWN_HOSTS))


def test_a_proxy_command_is_handed_on(head: Head) -> None:
    through = replace(head, file=replace(head.file, ssh_proxy_command="nc -x proxy:1 %h %p"))
    assert options(ssh.far_end_command(through, KNOWN_HOSTS))["ProxyCommand"] == "nc -x proxy:1 %h %p"


def test_host_and_user_are_never_options(head: Head) -> None:
    odd = replace(head, host="-oProxyCommand=x")
    assert ssh.far_end_command(odd, KNOWN_HOSTS)[-4:-1] == ["ubuntu", "--", "-oProxyCommand=x"]


def test_what_runs_there_is_always_the_same(head: Head) -> None:
    """What a command is to do is told over the line: there is nothing to quote, and nothing to read among processes."""
    words = shlex.split(ssh.far_end_command(head, KNOWN_HOSTS)[-1])
    assert words[:3] == ["exec", "bash", "-c"]
    assert words[3].endswith("exec ~/moe-orchestrator/.venv/bin/python -m orchestrator.remote.far_end")


def test_a_tunnel_listens_on_loopback_only(head: Head) -> None:
    command = ssh.tunnel_command(head, KNOWN_HOSTS, 8080, ("127.0.0.1", 8000))
    assert command[command.index("-L") + 1] == "127.0.0.1:8080:127.0.0.1:8000"
    assert options(command)["ExitOnForwardFailure"] == "yes"
    assert "ClearAllForwardings" not in options(command)


@pytest.mark.parametrize(
    ("exit_code", "complaints", "told"),
    [
        (255, "ssh: connect to host 10.0.0.1 port 22: Connection refused\n", "cannot reach ubuntu@10.0.0.1 over SSH"),
        (255, "ssh: Could not resolve hostname head: Name or service not known", "Name or service not known"),
        (255, "", "ssh ended with exit code 255"),
        (255, "ubuntu@10.0.0.1: Permission denied (publickey).", "ubuntu@10.0.0.1 refuses /home/me/.ssh/id 100%"),
        (
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending ED25519 key in /a b/known_hosts:1\n"
            "Host key verification failed.",
            "rm '/a b/known_hosts'",
        ),
        (69, "", "this project is not installed on ubuntu@10.0.0.1; bring it there: ray up "),
        (1, "python: No module named orchestrator.remote", "an older version of this project"),
        (1, "no Ray token in ~/.ray/auth_token", "ubuntu@10.0.0.1: no Ray token in ~/.ray/auth_token"),
        (None, "", "ubuntu@10.0.0.1: ssh ended"),
    ],
)
def test_a_complaint_becomes_one_line_with_the_way_out(
    exit_code: int | None, complaints: str, told: str, head: Head
) -> None:
    line = str(ssh.failure(head, exit_code, complaints))
    assert told in line
    assert "\n" not in line
