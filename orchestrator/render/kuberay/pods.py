"""Pods: what all of them may not do, and the head and the workers of a Ray cluster.

KubeRay writes the `ray start` command, sets the token's environment and waits for the head.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.cluster.labels import HOST
from orchestrator.plan import Plan
from orchestrator.render import sections
from orchestrator.render.kuberay.names import AGENT_PORT, DASHBOARD_PORT, GCS_PORT, PUBLIC_PORT, Names
from orchestrator.units import GIB

# The image's user, as rayproject/ray-llm has it.
USER_ID = 1000
GROUP_ID = 100
MODEL_FOLDER = "/models"
# For a GPU; every machine of data/machines.json has more.
CPUS_PER_GPU = 8
MEMORY_PER_GPU_BYTES = 64 * GIB
# NCCL's and the engine's own, beside Ray's objects.
SHARED_MEMORY_BYTES = sections.OBJECT_STORE_BYTES + 8 * GIB
HEAD_MEMORY_BYTES = 8 * GIB
HEAD_OBJECT_STORE_BYTES = GIB
# Compiled kernels and graphs, beside the checkpoint.
FURTHER_CACHE_BYTES = 30 * GIB
_NODE_LABELS = "/tmp/node-labels.yaml"  # noqa: S108 - in a pod of its own

# A container's `securityContext`.
CLOSED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
# What every pod's `spec` begins with: no rights in Kubernetes, nor on the node. (A Service named `vllm` would leave
# VLLM_PORT in the environment, which the engine would obey.)
UNPRIVILEGED: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": GROUP_ID,
        "fsGroup": GROUP_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


@dataclass(frozen=True)
class RayPods:
    """The pods of one Ray cluster.

    image: with this project, Ray and the engine in it; model_claim: the volume claim for models, None for the node's
    own disk; serving: whether KubeRay is to tell by them whether a service is ready.
    """

    names: Names
    image: str
    model_claim: str | None = None
    serving: bool = False

    def head(self) -> dict[str, Any]:
        """`headGroupSpec`: no GPU and no work, only what keeps the cluster together."""
        ports = {"gcs-server": GCS_PORT, "dashboard": DASHBOARD_PORT, "serve": PUBLIC_PORT}
        memory = _gib(HEAD_MEMORY_BYTES)
        container = {
            **self._container("head"),
            "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
            "resources": {"requests": {"cpu": 2, "memory": memory}, "limits": {"memory": memory}},
        }
        shared = HEAD_OBJECT_STORE_BYTES + GIB
        return {
            "serviceType": "ClusterIP",
            "labels": {"orchestrator/node-type": "head"},
            "rayStartParams": {"num-cpus": "0", **_start_params(HEAD_OBJECT_STORE_BYTES)},
            "template": self._template(container, shared, {"emptyDir": {"sizeLimit": _gib(GIB)}}),
        }

    def workers(self, plan: Plan) -> list[dict[str, Any]]:
        """`workerGroupSpecs`: a group for each kind of node of the plan, all of them at once and for good."""
        kinds = Counter((node.gpu_type, node.num_gpus) for node in plan.cluster.nodes)
        cache = sections.checkpoint_bytes(plan) + FURTHER_CACHE_BYTES
        return [self._group(*kind, number, cache) for kind, number in kinds.items()]

    def _group(self, gpu_type: str, num_gpus: int, number: int, cache_bytes: int) -> dict[str, Any]:
        name = sections.node_type_name(gpu_type, num_gpus)
        memory = _gib(num_gpus * MEMORY_PER_GPU_BYTES)
        disk = {} if self.model_claim else {"ephemeral-storage": _gib(cache_bytes)}
        container = {
            **self._container("worker"),
            "resources": {
                "requests": {"cpu": num_gpus * CPUS_PER_GPU, "memory": memory, **disk},
                "limits": {"memory": memory, "nvidia.com/gpu": num_gpus},
            },
            **self._readiness(),
        }
        models = self._models(cache_bytes)
        template = self._template(container, SHARED_MEMORY_BYTES, models)
        template["spec"] |= {
            "nodeSelector": {"nvidia.com/gpu.product": gpu_product(gpu_type)},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        }
        return {
            "groupName": name,
            "replicas": number,
            "minReplicas": number,
            "maxReplicas": number,
            "labels": {"orchestrator/node-type": name},
            "rayStartParams": _start_params(sections.OBJECT_STORE_BYTES),
            "template": template,
        }

    def _models(self, cache_bytes: int) -> dict[str, Any]:
        if self.model_claim is not None:
            return {"persistentVolumeClaim": {"claimName": self.model_claim}}
        return {"emptyDir": {"sizeLimit": _gib(cache_bytes)}}

    def _readiness(self) -> dict[str, Any]:
        """KubeRay's own question to the workers of a service is for Serve's proxy, and none runs here."""
        if not self.serving:
            return {}
        probe = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}, "periodSeconds": 5, "failureThreshold": 3}
        return {"readinessProbe": {**probe, "timeoutSeconds": 5}}

    def _container(self, role: str) -> dict[str, Any]:
        return {
            "name": f"ray-{role}",
            "image": self.image,
            # Before `ray start`: the label by which a placement names this host.
            "args": [f'echo "{HOST}: $VLLM_HOST_IP" > {_NODE_LABELS}'],
            "env": self._environment(),
            "securityContext": CLOSED,
            "volumeMounts": [
                {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - in a pod of its own
                {"name": "models", "mountPath": MODEL_FOLDER},
            ],
        }

    def _environment(self) -> list[dict[str, Any]]:
        fixed = {
            # The pod's own interface, as nearly all networks of Kubernetes call it.
            "NCCL_SOCKET_IFNAME": "eth0",
            "GLOO_SOCKET_IFNAME": "eth0",
            "HF_HOME": f"{MODEL_FOLDER}/huggingface",
            "VLLM_CACHE_ROOT": f"{MODEL_FOLDER}/vllm",
            "RAY_USAGE_STATS_ENABLED": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        }
        return [
            {"name": "VLLM_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            secret("HF_TOKEN", self.names.hugging_face, "token", optional=True),
            *({"name": name, "value": value} for name, value in fixed.items()),
        ]

    def _template(self, container: dict[str, Any], shared_bytes: int, models: dict[str, Any]) -> dict[str, Any]:
        shared = {"emptyDir": {"medium": "Memory", "sizeLimit": _gib(shared_bytes)}}
        return {
            "metadata": {"labels": self.names.ray_labels},
            "spec": {
                **UNPRIVILEGED,
                "containers": [container],
                "volumes": [{"name": "shared-memory", **shared}, {"name": "models", **models}],
            },
        }


def gpu_product(gpu_type: str) -> str:
    """The node label that NVIDIA's GPU feature discovery makes of the driver's name for the GPU."""
    return resolve_gpu(gpu_type).product.replace(" ", "-")


def secret(variable: str, name: str, key: str, optional: bool = False) -> dict[str, Any]:
    """An environment variable out of a Secret."""
    reference: dict[str, Any] = {"name": name, "key": key}
    return {
        "name": variable,
        "valueFrom": {"secretKeyRef": {**reference, "optional": True} if optional else reference},
    }


def _start_params(object_store_bytes: int) -> dict[str, str]:
    return {
        "node-ip-address": "$VLLM_HOST_IP",
        "labels-file": _NODE_LABELS,
        "object-store-memory": str(object_store_bytes),
        "disable-usage-stats": "true",
    }


def _gib(size_bytes: int) -> str:
    """`64Gi`, rounded up, as Kubernetes writes it."""
    return f"{math.ceil(size_bytes / GIB)}Gi"
