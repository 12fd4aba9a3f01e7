"""The shipped cluster files: up to date, fit for their model, closed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from orchestrator.cli.planning import plan_for
from orchestrator.cluster.spec import load_cluster, parse_gpus
from orchestrator.plan import Plan, PlannedCluster
from scripts.cluster_configs import FOLDER, SHIPPED, Shipped

STRATEGY = {
    "kimi-16xh100": "TP 8 × PP 2",
    "kimi-16xh100-aws": "TP 8 × PP 2",
    "kimi-16xh100-gcp": "TP 8 × PP 2",
    "kimi-16xh100-gcp-spot": "TP 8 × PP 2",
    "kimi-8xb200": "TP 8 + EP",
    "kimi-16xh200": "TP 8 × PP 2",
    "deepseek-8xh200": "TP 8 + EP",
    "deepseek-8xb200": "TP 8 + EP",
    "maverick-8xh100": "TP 8 + EP",
    "maverick-4xh200": "TP 4 + EP",
    "mixtral-4xa100": "TP 4 + EP",
    "mixtral-4xh100": "TP 4 + EP",
    "mixtral-8x7b-2xh100": "TP 2 + EP",
    "qwen2-1xh100": "TP 1",
    "llama3-70b-2xh100": "TP 2",
    "cpu-rehearsal": "TP 8 × PP 2",
}
every_file = pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)


def document(shipped: Shipped) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f"{shipped.name}.yaml").read_text(encoding="utf-8"))
    return loaded


def test_every_file_in_the_folder_is_made_here() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {f"{shipped.name}.yaml" for shipped in SHIPPED}


@every_file
def test_a_shipped_file_is_what_the_program_writes_today(shipped: Shipped) -> None:
    """If this fails: `python -m scripts.cluster_configs` writes the files anew."""
    assert (FOLDER / f"{shipped.name}.yaml").read_text(encoding="utf-8") == shipped.text()


@every_file
def test_the_plan_made_from_a_shipped_file_is_the_plan_it_was_made_from(shipped: Shipped) -> None:
    """Read back as a cluster file, it gives every rank, byte and argument again, and the layout its head promises."""
    again = without_names(plan_for(shipped.model, load_cluster(FOLDER / f"{shipped.name}.yaml")))
    assert again == without_names(plan_for(shipped.model, parse_gpus(shipped.gpus)))
    assert again.parallelism.label() == STRATEGY[shipped.name]
    assert f"Planned as {STRATEGY[shipped.name]}." in shipped.text()


def without_names(plan: Plan) -> Plan:
    """The plan with its nodes counted through: where a cluster was described does not matter."""
    names = {node.name: str(index) for index, node in enumerate(plan.cluster.nodes)}
    nodes = tuple(node.model_copy(update={"name": names[node.name]}) for node in plan.cluster.nodes)
    ranks = tuple(rank.model_copy(update={"node": names[rank.node]}) for rank in plan.ranks)
    cluster = PlannedCluster(name="", nodes=nodes)
    return plan.model_copy(update={"cluster": cluster, "ranks": ranks, "sources": {**plan.sources, "cluster": ""}})


@every_file
def test_a_shipped_file_opens_nothing_and_needs_a_token(shipped: Shipped) -> None:
    text, loaded = shipped.text(), document(shipped)
    (head,) = [command for command in loaded["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in head
    assert len(re.findall(r"--dashboard-host", text)) == 1
    assert "IpPermissions" not in text
    assert "export RAY_AUTH_MODE=token" in text
    assert loaded["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for command in (*loaded["head_start_ray_commands"], *loaded["worker_start_ray_commands"]):
        assert command == "ray stop\n" or "--disable-usage-stats" in command


@every_file
def test_a_shipped_file_holds_no_secret(shipped: Shipped) -> None:
    assert not re.search(r"hf_[A-Za-z0-9]{10}|AKIA|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{32}", shipped.text())


@every_file
def test_the_autoscaler_that_starts_ssh_workers_is_chosen_by_the_file_itself(shipped: Shipped) -> None:
    """One plain `ray up` is enough: Ray's default, v2, never starts the workers of a local provider."""
    chosen = "export RAY_enable_autoscaler_v2=0" in "".join(document(shipped)["head_start_ray_commands"])
    assert chosen == (shipped.provider == "local")
