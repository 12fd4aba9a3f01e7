"""The shipped cluster files: up to date, fit for their model, closed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from orchestrator.catalog.registry import load_catalog
from orchestrator.cluster.spec import load_cluster
from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.make_plan import make_plan
from orchestrator.probes.hugging_face import find_model
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
def test_a_shipped_file_carries_the_hardware_its_model_is_planned_for(shipped: Shipped) -> None:
    """Read back as a cluster file, it gives the layout that its name and its head promise."""
    cluster = load_cluster(FOLDER / f"{shipped.name}.yaml")
    found = load_catalog().find(shipped.model)
    assert found is not None
    wishes = Wishes(needs_remote_code=found[0].needs_remote_code)
    plan = make_plan(build_request(find_model(shipped.model), cluster, wishes))
    assert plan.parallelism.label() == STRATEGY[shipped.name]
    assert f"Planned as {STRATEGY[shipped.name]}." in shipped.text()


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


@every_file
def test_only_a_rehearsal_says_that_its_nodes_are_emulated(shipped: Shipped) -> None:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert ("orchestrator/emulated=true" in document(shipped)[key][-1]) == shipped.rehearsal


@every_file
def test_a_silent_node_is_given_up_within_ten_seconds(shipped: Shipped) -> None:
    start = document(shipped)["head_start_ray_commands"][-1]
    period, timeout, failures = (
        int(start.partition(f"RAY_health_check_{name}=")[2].split()[0])
        for name in ("period_ms", "timeout_ms", "failure_threshold")
    )
    assert (period + timeout) * failures < 10_000


@every_file
def test_a_host_reached_over_ssh_may_fail_to_start_before_it_starts(shipped: Shipped) -> None:
    """Ray's autoscaler never comes back to such a worker; a cloud's machine is replaced instead."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert ("for try in" in document(shipped)[key][-1]) == (shipped.provider == "local")
