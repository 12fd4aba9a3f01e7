"""Who may reach what: network policies, which hold where the cluster's network enforces them."""

from __future__ import annotations

from typing import Any

from orchestrator.render.kuberay.names import CONTROL_PORT, DASHBOARD_PORT, PUBLIC_PORT, Names

# The operator's pod, as its Helm chart labels it, in whatever namespace it runs.
_OPERATOR = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
}


def ray_policy(names: Names, with_front: bool) -> dict[str, Any]:
    """Ray's pods are reached by one another and by the front on every port, by the operator on the dashboard's."""
    members = [_pods(names.ray_labels)] + ([_pods(names.front_labels)] if with_front else [])
    return _policy(
        names.cluster,
        names.ray_labels,
        [{"from": members}, {"from": [_OPERATOR], "ports": [_port(DASHBOARD_PORT)]}],
    )


def front_policy(names: Names) -> dict[str, Any]:
    """The front is reached by the pods of its namespace, its inner door only by Ray's."""
    return _policy(
        names.front,
        names.front_labels,
        [
            {"from": [{"podSelector": {}}], "ports": [_port(PUBLIC_PORT)]},
            {"from": [_pods(names.ray_labels)], "ports": [_port(CONTROL_PORT)]},
        ],
    )


def _policy(name: str, labels: dict[str, str], ingress: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _pods(labels: dict[str, str]) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels}}


def _port(number: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": number}
