"""Which Ray to talk to: the one named, the one started here, or one that runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import psutil

from orchestrator.deploy import local_ray
from orchestrator.deploy.ray_api import RAY_VERSION, RayApi, RayNode
from orchestrator.errors import ClusterUnavailable
from orchestrator.store.secrets import read_ray_token

LOCAL_HOST = "127.0.0.1"
DASHBOARD_PORT = 8265


@dataclass(frozen=True)
class Cluster:
    """A Ray to deploy to. `ours`: started by this tool, on this machine; `is_new`: by this very command."""

    dashboard_url: str
    ours: bool
    is_new: bool = False

    def api(self) -> RayApi:
        return RayApi(self.dashboard_url, read_ray_token())


def find_cluster(address: str | None) -> Cluster | None:
    """The Ray that a command means, or None when none runs.

    In order: --address, RAY_DASHBOARD_URL (or Ray's own RAY_API_SERVER_ADDRESS), the one recorded as started here,
    one whose dashboard answers on the usual port. The address `local` means the one started here and no other.
    """
    named = address or os.environ.get("RAY_DASHBOARD_URL") or os.environ.get("RAY_API_SERVER_ADDRESS")
    if named and named != "local":
        return Cluster(_as_url(named), ours=False)
    if (url := local_ray.running_url()) is not None:
        return Cluster(url, ours=True)
    if named == "local":
        return None
    usual = f"http://{LOCAL_HOST}:{DASHBOARD_PORT}"
    return Cluster(usual, ours=False) if _is_ray(usual) else None


def address_for_replicas(nodes: Sequence[RayNode]) -> str:
    """Where a front on this machine is reached from every node: loopback, unless there are nodes elsewhere.

    Raises `ClusterUnavailable` where this machine is none of the cluster's.
    """
    addresses = {node.address for node in nodes}
    if len(addresses) <= 1 and all(address.startswith("127.") for address in addresses):
        return LOCAL_HOST
    here = {each.address for interface in psutil.net_if_addrs().values() for each in interface}
    ours = sorted(addresses & here)
    if not ours:
        raise ClusterUnavailable(
            f"this machine is no node of the cluster ({', '.join(sorted(addresses)[:4])}), so its replicas would not "
            "reach a front here; deploy from the cluster's head"
        )
    return LOCAL_HOST if len(addresses) == 1 else ours[0]


def check_usable(cluster: Cluster) -> RayApi:
    """An API to a cluster that can serve: right version, token authentication on.

    Raises `ClusterUnavailable` saying what to change.
    """
    api = cluster.api()
    version = api.version()
    if version != RAY_VERSION:
        raise ClusterUnavailable(
            f"Ray at {cluster.dashboard_url} is version {version}, and this orchestrator needs {RAY_VERSION}; "
            f"restart it with ray=={RAY_VERSION}, or name another with --address"
        )
    if not api.requires_token():
        raise ClusterUnavailable(
            f"Ray at {cluster.dashboard_url} runs without token authentication, so anyone who reaches it can run "
            "code there; restart it with RAY_AUTH_MODE=token, or stop it and let `deploy` start its own"
        )
    return api


def start_local(say: Callable[[str], None], nodes: Sequence[local_ray.EmulatedNode] = ()) -> Cluster:
    """Start a Ray on this machine: one node, or as many emulated ones as are given."""
    url, is_new = local_ray.start(say, nodes)
    return Cluster(url, ours=True, is_new=is_new)


def _is_ray(url: str) -> bool:
    """Whether a Ray dashboard is there: another program on that port is none of ours."""
    try:
        response = httpx.get(f"{url}/api/version", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return False
    return response.status_code == 401 or (response.status_code == 200 and "ray_version" in response.text)


def _as_url(address: str) -> str:
    """`http://host:port` of a dashboard; a bare host gets the usual port."""
    if "://" in address:
        return address
    return f"http://{address}" if ":" in address else f"http://{address}:{DASHBOARD_PORT}"
