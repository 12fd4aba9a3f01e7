"""What the KubeRay manifests start is what Ray, Serve and the front take: each asked itself, without Kubernetes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ray._common.utils import import_attr
from ray._private.label_utils import parse_node_labels_from_yaml_file, validate_node_labels
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
from ray.scripts.scripts import start
from ray.serve.schema import ServeDeploySchema

from orchestrator.store.secrets import control_token
from scripts.cluster_configs import FOLDER, SHIPPED_KUBE, ShippedKube
from tests.ports import free_port
from tests.serve.front_process import eventually

pytestmark = pytest.mark.serve
every_file = pytest.mark.parametrize("shipped", SHIPPED_KUBE, ids=lambda shipped: shipped.path.stem)
SERVICES = [shipped for shipped in SHIPPED_KUBE if shipped.kind == "service"]
KEY = "moe-the-key-of-the-secret"


def documents(shipped: ShippedKube) -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load_all(shipped.path.read_text(encoding="utf-8"))
    return {document["kind"]: document for document in loaded if document}


def groups(shipped: ShippedKube) -> list[dict[str, Any]]:
    found = documents(shipped)
    spec = found["RayService"]["spec"]["rayClusterConfig"] if "RayService" in found else found["RayCluster"]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@every_file
def test_ray_start_knows_every_parameter(shipped: ShippedKube) -> None:
    """KubeRay makes an option of each; `labels`, and resources in two places, it would refuse."""
    known = {option for parameter in start.params for option in parameter.opts}
    for group in groups(shipped):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known
        assert "labels" not in group["rayStartParams"]
        assert "resources" not in group


@every_file
def test_the_command_before_ray_start_names_the_host(shipped: ShippedKube, tmp_path: Path) -> None:
    """Run as KubeRay's shell runs it, it leaves labels that Ray takes."""
    labels = tmp_path / "labels.yaml"
    for group in groups(shipped):
        (line,) = group["template"]["spec"]["containers"][0]["args"]
        script = line.replace(group["rayStartParams"]["labels-file"], str(labels))
        subprocess.run(["bash", "-c", "--", f" {script}  && true"], env={"VLLM_HOST_IP": "10.0.0.7"}, check=True)
        read = parse_node_labels_from_yaml_file(str(labels))
        validate_node_labels(read)
        assert read == {"orchestrator/host": "10.0.0.7"}
        validate_node_labels(group["labels"])


@pytest.mark.parametrize("shipped", SERVICES, ids=lambda shipped: shipped.name)
def test_serve_takes_the_configuration_and_builds_the_application(shipped: ShippedKube) -> None:
    config = yaml.safe_load(documents(shipped)["RayService"]["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    built = import_attr(application.import_path)(application.args)
    assert built._bound_deployment.name == "engine"


@pytest.fixture(params=SERVICES, ids=lambda shipped: shipped.name)
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The front's container on this machine: its own command, with other folders and ports. Public and inner URL."""
    (container,) = documents(request.param)["Deployment"]["spec"]["template"]["spec"]["containers"]
    secrets, folder = tmp_path / "secrets", tmp_path / "front"
    secrets.mkdir()
    folder.mkdir()
    (secrets / "api-key").write_text(KEY)
    # As Kubernetes mounts it for a pod with a group of its own.
    (secrets / "api-key").chmod(0o440)
    public, control = free_port(), free_port()
    script = container["command"][2]
    everywhere = "0.0.0.0"  # noqa: S104 - replaced, not bound
    for ours, here in {
        "/run/secrets/front": str(secrets), "/run/front": str(folder), everywhere: "127.0.0.1",
        "--port 8000": f"--port {public}", "--control-port 8001": f"--control-port {control}",
    }.items():  # fmt: skip
        assert ours in script
        script = script.replace(ours, here)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PYTHONPATH": str(FOLDER.parent), "HOME": str(folder), "RAY_AUTH_TOKEN": "of-the-secret"}
    process = subprocess.Popen([*container["command"][:2], script], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        yield f"http://127.0.0.1:{public}", f"http://127.0.0.1:{control}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_front_s_container_serves_with_the_secrets_it_is_given(
    pod: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of the one Secret lets clients in, the token of the other replicas."""
    public, control = pod
    eventually(lambda: httpx.get(f"{public}/health").status_code == 200)
    assert httpx.get(f"{public}/v1/models").status_code == 401
    assert httpx.get(f"{public}/v1/models", headers={"authorization": f"Bearer {KEY}"}).json()["data"] == []
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-secret")
    inner = {"authorization": f"Bearer {control_token()}"}
    assert httpx.get(f"{control}/directory", headers=inner).status_code == 200
    assert httpx.get(f"{control}/directory", headers={"authorization": "Bearer other"}).status_code in (401, 403)


def test_the_path_of_the_readiness_probe_needs_no_token() -> None:
    """Kubernetes asks the agent without one; Ray's agent lets exactly this path pass."""
    asked = {
        container["readinessProbe"]["httpGet"]["path"]
        for shipped in SERVICES
        for group in groups(shipped)
        for container in group["template"]["spec"]["containers"]
        if "readinessProbe" in container
    }
    assert asked == {"/api/healthz"}
    assert asked <= set(PUBLIC_EXACT_PATHS)
