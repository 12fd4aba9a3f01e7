"""Hosts out of thin air: network namespaces behind a switch, each with an SSH server, for the real `ray up`.

Nothing outlives the process that made them. Namespaces live as long as their processes, these die with it by
the kernel's hand, even after SIGKILL, and with a namespace goes its end of every cable. One bed at a time.
"""

from __future__ import annotations

import fcntl
import json
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import psutil

from tests.cluster.host import MARK, Host, end, first_process, holder, prepare, sh

# A corner of the private range that home and office networks rarely use.
NETWORK = "10.213.197"
_OUTSIDE = f"{NETWORK}.254"
_CABLE = MARK  # the network device by which this machine reaches the hosts
_LOCK = Path(tempfile.gettempdir()) / f"{MARK}.lock"
_WAIT_S = 20
_GIB = 1024**3


@contextmanager
def running_hosts(
    folder: Path, count: int, public_key: str, shared_memory_bytes: int = 4 * _GIB
) -> Iterator[tuple[Host, ...]]:
    """`count` hosts that are on, with their disks in `folder`; `public_key` is let in.

    Raises `RuntimeError` while another process has such hosts, or where the machine's network has their addresses.
    """
    with ExitStack() as stack:
        stack.enter_context(_only_one())
        stack.enter_context(_ended_by_signals())
        _clear_away()
        _check_free()
        stack.callback(_wait_until_gone)
        switch = stack.enter_context(_switch())
        addresses = {f"host{number}": f"{NETWORK}.{number}" for number in range(1, count + 1)}
        hosts = tuple(
            Host(name, address, folder / name, switch, shared_memory_bytes) for name, address in addresses.items()
        )
        for host in hosts:
            prepare(host.folder, host.name, addresses, public_key)
            stack.callback(host.kill)
            host.start()
        yield hosts


@contextmanager
def _only_one() -> Iterator[None]:
    with _LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another process on this machine has hosts of this kind ({_LOCK} is locked)") from None
        yield


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, fixtures included."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear_away() -> None:
    """What a run left that ended without its last words. The lock says that no other run is alive."""
    for process in leftover_processes():
        process.kill()
    _wait_until_gone()


def leftover_processes() -> list[psutil.Process]:
    """Processes that hold a namespace of the bed."""
    return [process for process in psutil.process_iter() if _is_holder(process)]


def _is_holder(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return bool(words) and words[-1] == MARK and Path(words[0]).name == "unshare"


def leftover_devices() -> list[str]:
    links = json.loads(sh("ip", "-json", "link", "show"))
    return [link["ifname"] for link in links if link["ifname"] == _CABLE]


def _wait_until_gone() -> None:
    """The kernel takes a namespace apart a moment after its last process."""
    deadline = time.monotonic() + _WAIT_S
    while leftover_devices() or leftover_processes():
        if time.monotonic() > deadline:
            raise RuntimeError(f"still there: {leftover_devices()} {leftover_processes()}")
        time.sleep(0.05)


def _check_free() -> None:
    route = sh("ip", "-4", "route", "show", "root", f"{NETWORK}.0/24", "match", f"{NETWORK}.0/24")
    taken = [line for line in route.splitlines() if not line.startswith(("default", "0.0.0.0/0"))]
    if taken:
        raise RuntimeError(f"this machine's network has {NETWORK}.0/24 already: {taken[0]}")


@contextmanager
def _switch() -> Iterator[int]:
    """A bridge in a network namespace of its own, so that no firewall of this machine has a say between hosts."""
    unshare = holder("--net", "bash", "-c", "exec sleep infinity", MARK)
    first = 0
    try:
        first = first_process(unshare)
        inside = ("nsenter", "--net", f"--target={first}")
        sh(*inside, "ip", "link", "add", "bridge", "type", "bridge")
        sh(*inside, "ip", "link", "set", "bridge", "up")
        sh("ip", "link", "add", _CABLE, "type", "veth", "peer", "name", "uplink", "netns", str(first))
        sh(*inside, "ip", "link", "set", "uplink", "master", "bridge", "up")
        sh("ip", "address", "add", f"{_OUTSIDE}/24", "dev", _CABLE)
        sh("ip", "link", "set", _CABLE, "up")
        yield first
    finally:
        end(unshare, first or unshare.pid)
