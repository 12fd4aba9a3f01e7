"""The KubeRay manifests: valid by KubeRay's own schemas, closed, and in step with the plan."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.cli.cluster_config import kuberay_text
from orchestrator.cli.planning import plan_for
from orchestrator.cluster.spec import parse_gpus
from orchestrator.errors import ConfigError
from orchestrator.render.kuberay import KubeTarget
from orchestrator.render.kuberay.pods import CPUS_PER_GPU, gpu_product
from orchestrator.render.machines import machines
from orchestrator.render.node_setup import RAY_VERSION
from scripts.cluster_configs import IMAGE, KUBERAY_FOLDER, SHIPPED_KUBE, ShippedKube
from tests.unit.render.crd_schemas import problems, schemas

every_file = pytest.mark.parametrize("shipped", SHIPPED_KUBE, ids=lambda shipped: shipped.path.stem)
UNEVEN = KubeTarget("uneven", "FILE", "test", IMAGE, "service", model_claim="models")


def documents(text: str) -> dict[str, dict[str, Any]]:
    """The manifests by kind and name."""
    loaded = [document for document in yaml.safe_load_all(text) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in loaded}


def ray_object(text: str) -> dict[str, Any]:
    (found,) = [document for document in documents(text).values() if document["apiVersion"] == "ray.io/v1"]
    return found


def cluster_spec(text: str) -> dict[str, Any]:
    spec: dict[str, Any] = ray_object(text)["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterConfig", spec)
    return cluster


def pod_specs(text: str) -> Iterator[dict[str, Any]]:
    cluster = cluster_spec(text)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]
    for key, document in documents(text).items():
        if key.startswith("Deployment/"):
            yield document["spec"]["template"]["spec"]


def test_every_file_in_the_folder_is_made_here() -> None:
    assert {path.name for path in KUBERAY_FOLDER.iterdir()} == {shipped.path.name for shipped in SHIPPED_KUBE}


@every_file
def test_a_shipped_manifest_is_what_the_program_writes_today(shipped: ShippedKube) -> None:
    """If this fails: `python -m scripts.cluster_configs` writes the files anew."""
    assert shipped.path.read_text(encoding="utf-8") == shipped.text()


@every_file
def test_ray_objects_meet_the_schemas_of_kuberay(shipped: ShippedKube) -> None:
    found = ray_object(shipped.text())
    assert problems(found, schemas()[found["kind"]]) == []


def test_uneven_hosts_and_a_volume_claim_meet_the_schemas_too() -> None:
    found = ray_object(kuberay_text(plan_for("kimi-k2", parse_gpus("6+6+4xH200")), UNEVEN))
    assert problems(found, schemas()["RayService"]) == []


@pytest.mark.parametrize("kind", ["cluster", "service"])
def test_one_wrong_key_anywhere_is_found(kind: str) -> None:
    """Kubernetes prunes keys that it does not know, so that a slip of the pen would vanish without a word."""
    (shipped,) = [file for file in SHIPPED_KUBE if file.name == "kimi-16xh100" and file.kind == kind]
    good = ray_object(shipped.text())
    mappings = list(_closed_mappings(good))
    assert len(mappings) > 40
    for path in mappings:
        bad = copy.deepcopy(good)
        _at(bad, path)["misspelt"] = 1
        assert problems(bad, schemas()[good["kind"]]), path
    bad = copy.deepcopy(good)
    spec = bad["spec"].get("rayClusterConfig", bad["spec"])
    spec["authOptions"]["mode"] = "tokens"
    assert problems(bad, schemas()[good["kind"]])
    del spec["workerGroupSpecs"][0]["groupName"]
    assert len(problems(bad, schemas()[good["kind"]])) > 1


_FREE = {"metadata", "labels", "rayStartParams", "requests", "limits", "nodeSelector"}


def _closed_mappings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all mappings whose keys a schema names."""
    if isinstance(value, dict) and not (path and path[-1] in _FREE):
        yield path
        for key, part in value.items():
            yield from _closed_mappings(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _closed_mappings(part, (*path, index))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@every_file
def test_the_rest_meets_the_schemas_that_kuberay_has_for_its_like(shipped: ShippedKube) -> None:
    """A Deployment's pod, a Service and a policy's rules have the same shape where KubeRay takes them in."""
    cluster, service = schemas()["rayClusterSpec"]["properties"], schemas()["RayService"]["properties"]["spec"]
    rules = cluster["networkPolicy"]["properties"]["head"]["properties"]["ingressRules"]
    for key, document in documents(shipped.text()).items():
        if key.startswith("NetworkPolicy/"):
            assert set(document["spec"]) == {"podSelector", "policyTypes", "ingress"}
            assert problems(document["spec"]["ingress"], rules) == []
        elif key.startswith("Service/"):
            assert problems(document["spec"], service["properties"]["serveService"]["properties"]["spec"]) == []
        elif key.startswith("Deployment/"):
            assert problems(document["spec"]["template"], schemas()["podTemplate"]) == []


@every_file
def test_every_rank_of_the_plan_finds_its_gpu(shipped: ShippedKube) -> None:
    """A group for each kind of node, as many pods as nodes, whole nodes, and CPUs for all ranks."""
    plan = shipped.plan()
    groups = cluster_spec(shipped.text())["workerGroupSpecs"]
    pods = [
        group["template"]["spec"]["containers"][0]["resources"] for group in groups for _ in range(group["replicas"])
    ]
    assert sorted(pod["limits"]["nvidia.com/gpu"] for pod in pods) == sorted(n.num_gpus for n in plan.cluster.nodes)
    assert all(pod["requests"]["cpu"] >= pod["limits"]["nvidia.com/gpu"] for pod in pods)
    for group in groups:
        assert group["minReplicas"] == group["maxReplicas"] == group["replicas"]
        assert group["labels"] == {"orchestrator/node-type": group["groupName"]}


def test_uneven_hosts_are_groups_of_their_own() -> None:
    groups = cluster_spec(kuberay_text(plan_for("kimi-k2", parse_gpus("6+6+4xH200")), UNEVEN))["workerGroupSpecs"]
    assert [(group["groupName"], group["replicas"]) for group in groups] == [("h200-x6", 2), ("h200-x4", 1)]
    for group in groups:
        (models,) = [volume for volume in group["template"]["spec"]["volumes"] if volume["name"] == "models"]
        assert models["persistentVolumeClaim"] == {"claimName": "models"}


def test_what_is_asked_of_a_node_is_less_than_every_known_machine_has() -> None:
    for machine in (machine for offered in machines().values() for machine in offered):
        assert machine.num_cpus > CPUS_PER_GPU * machine.num_gpus


@pytest.mark.parametrize(
    ("gpu_type", "label"),
    [("H100", "NVIDIA-H100-80GB-HBM3"), ("A100-80G", "NVIDIA-A100-SXM4-80GB"), ("L40S", "NVIDIA-L40S")],
)
def test_nodes_are_chosen_by_the_driver_s_name_for_the_gpu(gpu_type: str, label: str) -> None:
    assert gpu_product(gpu_type) == label
    assert resolve_gpu(gpu_type).product.replace(" ", "-") == label


@every_file
def test_nothing_is_open_to_strangers(shipped: ShippedKube) -> None:
    """Token authentication, ClusterIP only, policies for all pods, no rights in Kubernetes or on the node."""
    text = shipped.text()
    cluster = cluster_spec(text)
    assert cluster["authOptions"] == {"mode": "token", "secretName": f"{shipped.name}-ray-token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    for pod in pod_specs(text):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])
    found = documents(text)
    assert all(document["spec"]["type"] == "ClusterIP" for key, document in found.items() if key[:8] == "Service/")
    selected = [key for key in found if key.startswith("NetworkPolicy/")]
    assert len(selected) == (2 if shipped.kind == "service" else 1)
    ray = found[f"NetworkPolicy/{shipped.name}"]["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert ray["podSelector"]["matchLabels"].items() <= labels.items()
    for rule in ray["ingress"]:
        assert rule["from"], "a rule without `from` lets everybody in"


@every_file
def test_a_manifest_holds_no_secret(shipped: ShippedKube) -> None:
    """Tokens and keys are made by the operator and only named here."""
    assert not any(key.startswith("Secret/") for key in documents(shipped.text()))
    for pod in pod_specs(shipped.text()):
        for container in pod["containers"]:
            for variable in container["env"]:
                assert "TOKEN" not in variable["name"] or "secretKeyRef" in variable["valueFrom"]


def test_a_service_s_replicas_announce_themselves_at_its_front() -> None:
    """The control address is the front's Service, whose inner port only Ray's pods reach."""
    (shipped,) = [file for file in SHIPPED_KUBE if file.name == "kimi-16xh100" and file.kind == "service"]
    found = documents(shipped.text())
    config = yaml.safe_load(found["RayService/kimi-16xh100"]["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert config["proxy_location"] == "Disabled"
    assert application["args"]["control_url"] == "http://kimi-16xh100-front:8001"
    service = found["Service/kimi-16xh100-front"]["spec"]
    assert {port["name"]: port["port"] for port in service["ports"]} == {"public": 8000, "control": 8001}
    labels = found["Deployment/kimi-16xh100-front"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    inner = found["NetworkPolicy/kimi-16xh100-front"]["spec"]["ingress"][1]
    assert inner["ports"] == [{"protocol": "TCP", "port": 8001}]
    assert inner["from"] == [{"podSelector": {"matchLabels": {"orchestrator/cluster": "kimi-16xh100"}}}]


def test_a_service_runs_what_was_planned() -> None:
    (shipped,) = [file for file in SHIPPED_KUBE if file.name == "mixtral-4xh100"]
    config = yaml.safe_load(ray_object(shipped.text())["spec"]["serveConfigV2"])
    llm_config = config["applications"][0]["args"]["llm_config"]
    planned = {key: value for key, value in shipped.plan().engine.args.items() if key != "model"}
    assert llm_config["engine_kwargs"] == planned
    assert llm_config["placement_group_config"]["bundles"] == [{"GPU": 1, "CPU": 1}] * 4


@pytest.mark.parametrize(
    "image", ["", "moe-orchestrator", "moe-orchestrator:latest", "registry.example.com:5000/moe", "A:1", "a:1 b"]
)
def test_an_image_that_may_change_is_refused(image: str) -> None:
    target = KubeTarget("name", "FILE", "test", image)
    with pytest.raises(ConfigError, match="--image is"):
        kuberay_text(plan_for("mixtral-8x22b", parse_gpus("4xH100")), target)


def test_a_digest_is_an_image_too() -> None:
    target = KubeTarget("name", "FILE", "test", f"registry.example.com:5000/moe@sha256:{'0' * 64}")
    assert kuberay_text(plan_for("mixtral-8x22b", parse_gpus("4xH100")), target)


def test_the_image_has_the_versions_that_the_manifests_speak_of() -> None:
    """The Dockerfile takes Ray's image of this Ray, and ends where Ray or the engine is another one."""
    text = (KUBERAY_FOLDER.parents[1] / "Dockerfile").read_text(encoding="utf-8")
    (service,) = [file for file in SHIPPED_KUBE if file.name == "mixtral-4xh100"]
    assert f"ARG BASE=rayproject/ray-llm:{RAY_VERSION}-" in text
    assert f"assert got == ({RAY_VERSION!r}, {service.plan().engine.version!r})" in text
    assert cluster_spec(service.text())["rayVersion"] == RAY_VERSION


def test_the_image_gets_this_project_and_nothing_else_of_the_folder() -> None:
    project = KUBERAY_FOLDER.parents[1]
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", (project / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    let_in = {line[1:] for line in (project / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == let_in
    assert all((project / source).exists() for source in sources)
