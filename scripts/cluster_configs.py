"""Writes the shipped files in cluster-configs/ anew: `python -m scripts.cluster_configs`. A test holds them to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.cluster_config import KUBERAY, command_line, kuberay_text
from orchestrator.cli.planning import plan_for
from orchestrator.cluster.spec import parse_gpus
from orchestrator.plan import Plan
from orchestrator.render.kuberay import KubeTarget
from orchestrator.render.kuberay.manifests import Kind
from orchestrator.render.ray_cluster import render_ray_cluster
from orchestrator.render.target import Provider, Target

FOLDER = Path(__file__).parents[1] / "cluster-configs"
KUBERAY_FOLDER = FOLDER / "kuberay"
# A name that nobody has (RFC 2606): who builds the image chooses its own.
IMAGE = "registry.example.com/moe-orchestrator:0.1.0"


@dataclass(frozen=True)
class Shipped:
    """One file for `ray up`: its name without the ending, and what `cluster-config` is asked for."""

    name: str
    model: str
    gpus: str
    provider: Provider = "local"
    spot: bool = False
    rehearsal: bool = False

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.yaml"

    def plan(self) -> Plan:
        return plan_for(self.model, parse_gpus(self.gpus))

    def text(self) -> str:
        options = {"--spot": self.spot, "--rehearsal": self.rehearsal}
        target = Target(
            provider=self.provider,
            name=self.name,
            path=f"cluster-configs/{self.name}.yaml",
            made_by=command_line(self.model, self.gpus, self.provider, options),
            spot=self.spot,
            rehearsal=self.rehearsal,
        )
        return render_ray_cluster(self.plan(), target)


@dataclass(frozen=True)
class ShippedKube:
    """One file for KubeRay."""

    name: str
    model: str
    gpus: str
    kind: Kind = "service"

    @property
    def path(self) -> Path:
        return KUBERAY_FOLDER / f"{self.name}-{self.kind}.yaml"

    def plan(self) -> Plan:
        return plan_for(self.model, parse_gpus(self.gpus))

    def text(self) -> str:
        options = {"--kind": self.kind, "--image": IMAGE}
        target = KubeTarget(
            name=self.name,
            path=f"cluster-configs/kuberay/{self.path.name}",
            made_by=command_line(self.model, self.gpus, KUBERAY, options),
            image=IMAGE,
            kind=self.kind,
        )
        return kuberay_text(self.plan(), target)


SHIPPED = (
    Shipped("kimi-16xh100", "kimi-k2", "16xH100"),
    Shipped("kimi-16xh100-aws", "kimi-k2", "16xH100", "aws"),
    Shipped("kimi-16xh100-gcp", "kimi-k2", "16xH100", "gcp"),
    Shipped("kimi-16xh100-gcp-spot", "kimi-k2", "16xH100", "gcp", spot=True),
    Shipped("kimi-8xb200", "kimi-k2", "8xB200"),
    Shipped("kimi-16xh200", "kimi-k2", "16xH200"),
    Shipped("deepseek-8xh200", "deepseek-v3.2", "8xH200"),
    Shipped("deepseek-8xb200", "deepseek-v3.2", "8xB200"),
    Shipped("maverick-8xh100", "llama-4-maverick", "8xH100"),
    Shipped("maverick-4xh200", "llama-4-maverick", "4xH200"),
    Shipped("mixtral-4xa100", "mixtral-8x22b", "4xA100-80G"),
    Shipped("mixtral-4xh100", "mixtral-8x22b", "4xH100"),
    Shipped("mixtral-8x7b-2xh100", "mixtral-8x7b", "2xH100"),
    Shipped("qwen2-1xh100", "qwen2-57b-a14b", "1xH100"),
    Shipped("llama3-70b-2xh100", "llama-3-70b", "2xH100"),
    Shipped("cpu-rehearsal", "kimi-k2", "16xH100", rehearsal=True),
)


SHIPPED_KUBE = (
    ShippedKube("kimi-16xh100", "kimi-k2", "16xH100", "cluster"),
    ShippedKube("kimi-16xh100", "kimi-k2", "16xH100"),
    ShippedKube("mixtral-4xh100", "mixtral-8x22b", "4xH100"),
)


def main() -> None:
    KUBERAY_FOLDER.mkdir(exist_ok=True)
    for shipped in (*SHIPPED, *SHIPPED_KUBE):
        shipped.path.write_text(shipped.text(), encoding="utf-8")


if __name__ == "__main__":
    main()
