"""The labels by which nodes of Ray are known here: written by cluster files, read by plans, placements and ranks."""

from __future__ import annotations

from collections.abc import Mapping

# A node's own name, which it keeps when it comes back after a failure; its address in the shipped files.
HOST = "orchestrator/host"
# "true" where CPUs stand in for the node's GPUs.
EMULATED = "orchestrator/emulated"
# What Ray gives every node by itself. A node that comes back has another one.
NODE_ID = "ray.io/node-id"


def node_name(labels: Mapping[str, str] | None, address: str) -> str:
    """What plans call a node: its label, else its address, which several nodes on one machine share."""
    return (labels or {}).get(HOST) or address
