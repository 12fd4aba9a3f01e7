"""The front in Kubernetes: a Deployment of its own, so that it answers while Ray is away, and its Service."""

from __future__ import annotations

from typing import Any

from orchestrator.render.kuberay.names import CONTROL_PORT, PUBLIC_PORT, Names
from orchestrator.render.kuberay.pods import CLOSED, UNPRIVILEGED, secret

_FOLDER = "/run/front"
_SECRETS = "/run/secrets/front"
# A Secret's file can be read by the pod's group, which the front refuses of a key; so it gets a copy of its own.
_START = f"""\
umask 077 && cat {_SECRETS}/api-key > {_FOLDER}/api-key && exec python -m deployments.front \\
  --folder {_FOLDER}/state --key-file {_FOLDER}/api-key --host 0.0.0.0 --port {PUBLIC_PORT} \\
  --control-host 0.0.0.0 --control-port {CONTROL_PORT}
"""


def front_deployment(names: Names, image: str) -> dict[str, Any]:
    """One front: replicas announce themselves to it alone."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": names.front, "labels": names.front_labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": names.front_labels},
            "template": {
                "metadata": {"labels": names.front_labels},
                "spec": {
                    **UNPRIVILEGED,
                    "containers": [_container(names, image)],
                    "volumes": [
                        {"name": "state", "emptyDir": {"sizeLimit": "1Gi"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                        {"name": "api-key", "secret": {"secretName": names.api_key, "defaultMode": 0o440}},
                    ],
                },
            },
        },
    }


def _container(names: Names, image: str) -> dict[str, Any]:
    return {
        "name": "front",
        "image": image,
        "command": ["/bin/bash", "-c", _START],
        "env": [
            secret("RAY_AUTH_TOKEN", names.ray_token, "auth_token"),
            {"name": "ORCHESTRATOR_HOME", "value": f"{_FOLDER}/home"},
            {"name": "HOME", "value": _FOLDER},
        ],
        "ports": [
            {"name": "public", "containerPort": PUBLIC_PORT},
            {"name": "control", "containerPort": CONTROL_PORT},
        ],
        "readinessProbe": {"tcpSocket": {"port": PUBLIC_PORT}, "periodSeconds": 2},
        "livenessProbe": {"tcpSocket": {"port": CONTROL_PORT}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": {"requests": {"cpu": 2, "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {**CLOSED, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "state", "mountPath": _FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in a pod of its own
            {"name": "api-key", "mountPath": _SECRETS, "readOnly": True},
        ],
    }


def front_service(names: Names) -> dict[str, Any]:
    """The address of the front inside the Kubernetes cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.front, "labels": names.front_labels},
        "spec": {
            "type": "ClusterIP",
            "selector": names.front_labels,
            "ports": [
                {"name": "public", "port": PUBLIC_PORT, "targetPort": "public"},
                {"name": "control", "port": CONTROL_PORT, "targetPort": "control"},
            ],
        },
    }
