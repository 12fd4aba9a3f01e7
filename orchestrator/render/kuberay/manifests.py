"""The manifests of one cluster, in one file: `RayCluster`, or `RayService` with the front that serves it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.catalog.gpus import shipped_gpus
from orchestrator.errors import ConfigError
from orchestrator.plan import Plan
from orchestrator.render import node_setup, sections
from orchestrator.render.kuberay.front import front_deployment, front_service
from orchestrator.render.kuberay.names import PUBLIC_PORT, Names
from orchestrator.render.kuberay.network import front_policy, ray_policy
from orchestrator.render.kuberay.pods import RayPods
from orchestrator.render.target import check_gpus, check_name
from orchestrator.render.text import block, comment

Kind = Literal["cluster", "service"]
# A tag or a digest that does not move: `latest`, and no tag at all, do.
_PINNED = re.compile(r"[a-z0-9][\w./:-]*(?::(?!latest$)[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})")
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class KubeTarget:
    """Where the cluster is to be.

    name: of the cluster; path: of the file, for the commands in its head; made_by: the command that writes it;
    image: built from the Dockerfile; model_claim: a ReadWriteMany volume claim for models.
    """

    name: str
    path: str
    made_by: str
    image: str
    kind: Kind = "cluster"
    model_claim: str | None = None

    @property
    def names(self) -> Names:
        return Names(self.name)


def render_kuberay(plan: Plan, target: KubeTarget, applications: Sequence[dict[str, Any]] = ()) -> str:
    """The whole file. `applications` are those of a service, their replicas announcing at `names.control_url`.

    Raises `ConfigError` for a name, an image or a claim that cannot be.
    """
    _check(plan, target)
    documents = _service(plan, target, applications) if target.kind == "service" else _cluster(plan, target)
    return "\n---\n".join((_head(plan, target), *map(block, documents)))


def _check(plan: Plan, target: KubeTarget) -> None:
    check_name(target.name)
    check_gpus(plan, shipped_gpus())
    if not _PINNED.fullmatch(target.image):
        raise ConfigError(
            f"--image is {target.image!r}; name one you built from the Dockerfile, with a tag that does not move: "
            "registry.example.com/moe-orchestrator:0.1.0"
        )
    if target.model_claim is not None and not _CLAIM.fullmatch(target.model_claim):
        raise ConfigError(f"--model-claim {target.model_claim!r} is no name of a PersistentVolumeClaim")


def _cluster(plan: Plan, target: KubeTarget) -> list[dict[str, Any]]:
    pods = RayPods(target.names, target.image, target.model_claim)
    return [ray_policy(target.names, with_front=False), _ray("RayCluster", target, _ray_spec(plan, pods))]


def _service(plan: Plan, target: KubeTarget, applications: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = target.names
    pods = RayPods(names, target.image, target.model_claim, serving=True)
    spec = {
        # A second cluster of the same size beside the first, as KubeRay would make for a change, has no GPUs to run on.
        "upgradeStrategy": {"type": "None"},
        "excludeHeadPodFromServeSvc": True,
        "serveConfigV2": block({"proxy_location": "Disabled", "applications": list(applications)}),
        "rayClusterConfig": _ray_spec(plan, pods),
    }
    policies = [ray_policy(names, with_front=True), front_policy(names)]
    return [*policies, front_service(names), front_deployment(names, target.image), _ray("RayService", target, spec)]


def _ray(kind: str, target: KubeTarget, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": target.name}, "spec": spec}


def _ray_spec(plan: Plan, pods: RayPods) -> dict[str, Any]:
    return {
        "rayVersion": node_setup.RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": pods.names.ray_token},
        "enableInTreeAutoscaling": False,
        "headGroupSpec": pods.head(),
        "workerGroupSpecs": pods.workers(plan),
    }


# --- the head of the file --------------------------------------------------------------------------------


def _head(plan: Plan, target: KubeTarget) -> str:
    names = target.names
    key = f"""\
  kubectl create secret generic {names.api_key} --from-literal=api-key="moe-$(openssl rand -hex 32)"
"""
    return comment(f"""
{plan.model.name} on {sections.gpus(plan)} of a Kubernetes cluster, by KubeRay 1.6 or newer. Planned as \
{plan.parallelism.label()}.

The image first, in the project's folder; it holds Ray {node_setup.RAY_VERSION}, vLLM {plan.engine.version} and this \
project:
  docker build -t {target.image} . && docker push {target.image}
Then the secrets, once, in the namespace of the rest:
  ray get-auth-token --generate && chmod 600 ~/.ray/auth_token
  kubectl create secret generic {names.ray_token} --from-literal=auth_token="$(cat ~/.ray/auth_token)"
{key if target.kind == "service" else ""}\
  kubectl create secret generic {names.hugging_face} --from-literal=token=YOUR-TOKEN  # only for gated models
Then:
  kubectl apply -f {target.path}
{_use(target)}
To edit: nodeSelector where nodes are not labelled by NVIDIA's GPU feature discovery (GKE: \
cloud.google.com/gke-accelerator); NCCL_SOCKET_IFNAME where pods have another interface; requests, which leave room \
on every machine we know. {_models(target)} Network policies hold where the cluster's network enforces them.

Written by: {target.made_by}
""")


def _use(target: KubeTarget) -> str:
    if target.kind == "cluster":
        return (
            f"  kubectl port-forward service/{target.name}-head-svc 8265  # Ray's dashboard, which asks for the token\n"
        )
    return f"""\
  kubectl port-forward service/{target.names.front} {PUBLIC_PORT}  # base_url http://127.0.0.1:{PUBLIC_PORT}/v1

Requests go to the front, {target.names.front}:{PUBLIC_PORT} inside the Kubernetes cluster; KubeRay's own \
{target.name}-serve-svc leads nowhere, since no proxy of Serve runs. RayService's condition Ready means that Ray \
runs; whether the model does, `kubectl describe rayservice {target.name}` tells under Applications.
"""


def _models(target: KubeTarget) -> str:
    if target.model_claim is not None:
        return f"The claim {target.model_claim} must be there and ReadWriteMany, since every worker mounts it."
    return "Models lie on the node's own disk and are fetched again by a new pod; --model-claim keeps them."
