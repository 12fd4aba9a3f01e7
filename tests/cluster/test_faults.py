"""What hosts and networks do to a deployment that begins: found, named with rank and node, and undone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from orchestrator.units import MIB
from tests.cluster.operator import SMALL, Operator, operating

pytestmark = [pytest.mark.cluster, pytest.mark.full, pytest.mark.timeout(1200)]

# Where Linux takes ports for what asks for any, as the ranks' own meeting points do; Ray's are below.
_ANY_PORTS = "32768-60999"


def _refused(operator: Operator) -> str:
    """The one line of a deployment that must fail, and leave nothing."""
    words = ("--emulate", "--cluster", str(operator.cluster.file), "--timeout", "300")
    done = operator.run("deploy", operator.size.model, *words)
    assert done.returncode == 1, done.stderr[-3000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert operator.json("status", "--cluster", str(operator.cluster.file))["models"] == []
    return line


def test_a_firewall_between_the_nodes_is_found_before_ranks_begin(
    tmp_path_factory: pytest.TempPathFactory, record_property: Callable[[str, object], None]
) -> None:
    """New connections to the ports that ranks meet at are dropped; those that Ray holds already stay."""
    with operating(SMALL, tmp_path_factory.mktemp("firewall")) as operator:
        head, worker = operator.cluster.hosts
        head.block_new(_ANY_PORTS)
        begun = time.monotonic()
        line = _refused(operator)
        record_property("shown", f"refused and undone {time.monotonic() - begun:.0f} s after the command: {line}")
        assert f"{worker.address} cannot work with {head.address}: " in line
        assert "a firewall between the nodes?" in line


def test_too_little_shared_memory_is_told_with_the_node_that_lacks_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with operating(SMALL, tmp_path_factory.mktemp("shm"), shared_memory_bytes=128 * MIB) as operator:
        line = _refused(operator)
        assert "of shared memory left in /dev/shm" in line
        assert any(f" on {host.address} has" in line for host in operator.cluster.hosts)
