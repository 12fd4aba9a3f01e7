"""The test bed holds what it promises: hosts are apart from one another and leave nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cluster.host import MARK, ROOT
from tests.cluster.hosts import leftover_devices, leftover_processes, running_hosts
from tests.cluster.laptop import Laptop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

# Another process's bed: says that it is up, then does what the test is about.
_BED = """\
import sys, time
from pathlib import Path
from tests.cluster.hosts import running_hosts
with running_hosts(Path(sys.argv[1]), 1, "") as (host,):
    host.run("nohup sleep 1234567 >/dev/null 2>&1 &")
    print("up", flush=True)
    sys.stdin.readline()
    {then}
"""
_SLEEPER = ["sleep", "1234567"]


def nothing_left() -> bool:
    mounted = any(MARK in line for line in Path("/proc/self/mounts").read_text().splitlines())
    return not (leftover_devices() or leftover_processes() or sleepers() or mounted)


def sleepers() -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == _SLEEPER]


def eventually(met: Callable[[], bool], timeout_s: float = 20) -> bool:
    deadline = time.monotonic() + timeout_s
    while not met() and time.monotonic() < deadline:
        time.sleep(0.05)
    return met()


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except TimeoutError:
        return False
    return True


def bed(folder: Path, then: str) -> subprocess.Popen[str]:
    script = _BED.replace("{then}", then)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n", process.communicate()[1]
        assert eventually(lambda: len(sleepers()) == 1)
    except BaseException:  # or it would hold the lock, and every later bed would be refused
        process.kill()
        raise
    process.stdin.write("go on\n")
    process.stdin.flush()
    return process


def test_hosts_are_machines_of_their_own(tmp_path: Path) -> None:
    """Name, address, home, /tmp, /dev/shm and processes are each host's own, at the same paths; SSH lets us in."""
    laptop = Laptop(tmp_path / "laptop")
    with running_hosts(tmp_path, 2, laptop.public_key, shared_memory_bytes=64 * 1024**2) as hosts:
        for host in hosts:
            host.output("touch ~/mine /tmp/mine /dev/shm/mine")
        first, second = hosts
        first.output("rm ~/mine /tmp/mine /dev/shm/mine")
        second.output("ls ~/mine /tmp/mine /dev/shm/mine")
        itself = "echo $HOME $(hostname) $(df --output=size -B1M /dev/shm | tail -n 1)"
        assert [host.output(itself) for host in hosts] == ["/srv/ubuntu host1 64\n", "/srv/ubuntu host2 64\n"]
        assert int(first.output("ls -d /proc/[0-9]* | wc -l")) < 9  # sshd and what asks
        secure = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
        for host in hosts:
            words = laptop.run("ssh", *secure, "-i", str(laptop.key), f"ubuntu@{host.address}", "hostname; whoami")
            assert words.stdout.split() == [host.name, "ubuntu"]
        refused = first.run("touch ~/moe-orchestrator/.venv/lib/mine")
        assert "Read-only" in refused.stderr


def test_a_power_cut_is_silent_and_a_host_comes_back_with_its_disk(tmp_path: Path) -> None:
    """Nobody hears from a host that lost its power, not even over connections it had; its home survives."""
    with running_hosts(tmp_path, 1, "") as (host,):
        host.output("echo kept > ~/disk; touch /tmp/gone")
        with socket.create_connection((host.address, 22), timeout=2) as connection:
            assert connection.recv(4) == b"SSH-"
            connection.settimeout(0.5)
            connection.recv(1000)
            host.kill()
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert host.pids() == []
        host.start()
        assert host.output("cat ~/disk; ls /tmp") == "kept\n"


def test_a_blocked_port_drops_packets_and_others_stay_open(tmp_path: Path) -> None:
    with running_hosts(tmp_path, 1, "") as (host,):
        assert reaches(host.address, 22)
        host.block(22)
        host.block(23)
        assert not reaches(host.address, 22)
        assert not reaches(host.address, 23)
        with pytest.raises(ConnectionRefusedError):
            reaches(host.address, 24)
        host.unblock(22)
        assert reaches(host.address, 22)
        assert not reaches(host.address, 23)


@pytest.mark.parametrize(
    ("then", "number"),
    [("raise ValueError", None), ("time.sleep(60)", signal.SIGINT), ("time.sleep(60)", signal.SIGTERM)],
    ids=["failure", "Ctrl-C", "SIGTERM"],
)
def test_nothing_is_left_however_a_bed_ends(tmp_path: Path, then: str, number: int | None) -> None:
    process = bed(tmp_path, then)
    if number is not None:
        process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert nothing_left()


def test_the_kernel_cleans_up_after_a_bed_that_was_killed(tmp_path: Path) -> None:
    process = bed(tmp_path, "time.sleep(60)")
    process.kill()
    process.communicate(timeout=30)
    assert eventually(nothing_left)


def test_a_start_removes_what_an_earlier_run_left(tmp_path: Path) -> None:
    """Should a namespace outlive its run all the same, the next one ends it by its mark."""
    stray = subprocess.Popen(["unshare", "--net", "--fork", "--kill-child", "bash", "-c", "exec sleep 1234567", MARK])
    try:
        assert eventually(lambda: bool(sleepers()))
        with running_hosts(tmp_path, 1, ""):
            assert not sleepers()
        assert stray.wait(10) == -signal.SIGKILL
    finally:
        stray.kill()


def test_a_second_bed_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running_hosts(tmp_path / "one", 1, "") as (host,):
        with pytest.raises(RuntimeError, match="another process"), running_hosts(tmp_path / "two", 1, ""):
            pass
        assert host.output("echo alive") == "alive\n"
