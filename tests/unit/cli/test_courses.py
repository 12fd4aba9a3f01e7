"""`deploy` for real and as a rehearsal: what is planned, what the engine is told, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.catalog.registry import load_catalog
from orchestrator.cli.courses import Rehearsal, Serving
from orchestrator.cli.planning import Asked, plan_of, snapshot_of
from orchestrator.deploy import models, pull_nodes
from orchestrator.deploy.pull_nodes import NodeState
from orchestrator.deploy.ray_api import RayApi, nodes_of
from orchestrator.deploy.service import make_service
from orchestrator.deploy.session import Live
from orchestrator.errors import ApplyFailed, CheckpointUnavailable, ConfigError, NoFeasiblePlan, StalePlan, UnknownModel
from orchestrator.units import GIB
from orchestrator.weights.meter import Reading

KNOWN = load_catalog()
MINI = json.loads((Path(__file__).parent / "kimi-k2-mini.json").read_text())


def live(
    *gpus: int,
    kind: str = "H100",
    emulated: bool = False,
    others: dict[str, set[int]] | None = None,
    free_bytes: int = 64 * GIB,
) -> Live:
    """A cluster with a node for each number of GPUs."""
    rows = [
        {
            "node_id": f"id-{index}",
            "node_ip": "10.0.0.9" if emulated else f"10.0.0.{index}",
            "state": "ALIVE",
            "resources_total": {"CPU": 9.0, "GPU": float(count), f"accelerator_type:{kind}": 1.0}
            if count
            else {"CPU": 9.0},
            "labels": {"orchestrator/host": f"node-{index}", "orchestrator/emulated": "true"} if emulated else {},
        }
        for index, count in enumerate(gpus)
    ]
    agents = [{"raylet": {"nodeId": row["node_id"]}, "mem": [2 * free_bytes, free_bytes]} for row in rows]
    return Live("http://ray", nodes_of(agents, rows), agents, rows, others or {}, {})


@pytest.fixture(autouse=True)
def _mini(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """kimi-k2-mini is its config here: no weights are built."""
    (tmp_path / "config.json").write_text(json.dumps(MINI))
    resolve = models.resolve

    def without_weights(model: str, *more: Any, **options: Any) -> models.Deployable:
        return models.Deployable(str(tmp_path)) if model in models.DEMOS else resolve(model, *more, **options)

    monkeypatch.setattr(models, "resolve", without_weights)


def test_on_gpus_the_engine_gets_what_was_planned() -> None:
    planned = Serving(KNOWN).plan(make_service(model="kimi-k2", engine={"seed": 7}), live(8, 8))
    assert planned is not None
    assert planned.plan is planned.contents
    assert planned.plan.parallelism.label() == "TP 8 × PP 2"
    assert planned.engine["seed"] == 7
    assert planned.engine["pipeline_parallel_size"] == 2
    assert "model" not in planned.engine
    assert {rank.node for rank in planned.plan.ranks} == {"10.0.0.0", "10.0.0.1"}


def test_gpus_that_another_deployment_holds_are_not_planned_on() -> None:
    service = make_service(model="mixtral-8x7b", engine={"tensor_parallel_size": 2})
    planned = Serving(KNOWN).plan(service, live(4, others={"10.0.0.0": {0, 1}}))
    assert planned is not None
    assert [rank.gpu_index for rank in planned.plan.ranks] == [2, 3]
    with pytest.raises(NoFeasiblePlan):
        Serving(KNOWN).plan(service, live(2, others={"10.0.0.0": {0, 1}}))


def test_without_gpus_a_published_model_is_refused_and_the_rehearsal_offered() -> None:
    with pytest.raises(ApplyFailed, match=r"kimi-k2 needs GPUs, .* has none: its weights alone take .* --emulate"):
        Serving(KNOWN).plan(make_service(model="kimi-k2"), live(0))
    assert Serving(KNOWN).plan(make_service(model="smol-moe"), live(0)) is None


def test_emulated_gpus_serve_nothing_for_real() -> None:
    with pytest.raises(ApplyFailed, match="are emulated, and no engine serves kimi-k2 on them; rehearse"):
        Serving(KNOWN).plan(make_service(model="kimi-k2"), live(8, 8, emulated=True))


def test_a_plan_from_a_file_is_applied_as_it_is_unless_the_cluster_or_the_wish_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = plan_of(Asked("kimi-k2"), snapshot_of(live(8, 8), KNOWN.gpus), KNOWN)
    file.write_text(plan.to_json())
    course = Serving(KNOWN, file)
    applied = course.plan(make_service(model="kimi-k2"), live(8, 8))
    assert applied is not None
    assert applied.plan == plan
    with pytest.raises(StalePlan, match=r"node 10.0.0.1 has num_gpus 4, not 8"):
        course.plan(make_service(model="kimi-k2"), live(8, 4))
    with pytest.raises(ConfigError, match="the plan is for kimi-k2, not for mixtral-8x7b"):
        course.plan(make_service(model="mixtral-8x7b"), live(8, 8))
    with pytest.raises(ConfigError, match="the plan has tensor_parallel_size 8, not 4; plan anew"):
        course.plan(make_service(model="kimi-k2", engine={"tensor_parallel_size": 4}), live(8, 8))
    with pytest.raises(ConfigError, match="the plan has 1 replicas, not 2"):
        course.plan(make_service(model="kimi-k2", replicas=2), live(8, 8))
    with pytest.raises(ApplyFailed, match="is a plan for GPUs"):
        course.plan(make_service(model="kimi-k2"), live(0))


def test_a_rehearsal_runs_the_small_model_by_the_real_models_plan() -> None:
    service = make_service(model="kimi-k2", engine={"kv_cache_dtype": "fp8", "dtype": "float32"})
    planned = Rehearsal(KNOWN).plan(service, live(8, 8, emulated=True))
    assert planned is not None
    assert planned.plan.model.name == "kimi-k2"
    assert planned.plan.kv_cache.dtype.startswith("fp8")
    assert planned.plan.ranks[0].layers == (0, 31)
    assert planned.contents.ranks[0].layers == (0, 3)
    places = [[(rank.node, rank.gpu_index) for rank in each.ranks] for each in (planned.plan, planned.contents)]
    assert places[0] == places[1]
    assert planned.engine["tensor_parallel_size"] == 8
    assert planned.engine["dtype"] == "float32"
    assert "kv_cache_dtype" not in planned.engine
    assert planned.env["ORCHESTRATOR_EMULATE"] == "1"


def test_a_rehearsal_needs_an_emulated_cluster_and_the_memory_for_its_ranks() -> None:
    service = make_service(model="kimi-k2")
    with pytest.raises(ApplyFailed, match="are real: a rehearsal needs an emulated cluster"):
        Rehearsal(KNOWN).plan(service, live(8, 8))
    with pytest.raises(ApplyFailed, match="do not exist"):
        Rehearsal(KNOWN).plan(service, live(0))
    with pytest.raises(ApplyFailed, match=r"too little memory to rehearse 16 ranks on 10\.0\.0\.9: about 12\.0 GiB"):
        Rehearsal(KNOWN).plan(service, live(8, 8, emulated=True, free_bytes=4 * GIB))


def test_only_architectures_with_a_small_model_can_be_rehearsed() -> None:
    with pytest.raises(UnknownModel, match="no small model stands in for GptOssForCausalLM yet"):
        Rehearsal(KNOWN).resolve("gpt-oss-120b", print)
    assert Rehearsal(KNOWN).resolve("kimi-k2", print).aliases == ("moonshotai/Kimi-K2-Instruct",)


def test_the_cluster_to_emulate_is_the_catalogues_unless_it_is_named() -> None:
    assert Rehearsal(KNOWN, model="kimi-k2")._usual_gpus() == "16xH100"
    with pytest.raises(ConfigError, match=r"say which GPUs to emulate for glm-4\.5"):
        Rehearsal(KNOWN, model="glm-4.5")._usual_gpus()


class _View:
    """What is said, line by line."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, name: str) -> None:
        self.said.append(name)

    def say(self, line: str) -> None:
        self.said.append(line)


def _node_state(node: str, error: str = "") -> NodeState:
    outcome = {"state": "fetched", "size_bytes": 10, "folder": "/cache/m", "revision": "a" * 40}
    return NodeState(node, Reading("fetching", 5, 10, 1.0, 5.0), None if error else outcome, error)


def test_weights_of_the_hub_come_to_every_node_before_anything_is_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their commit is what is deployed from then on; a node that cannot have them is named."""
    states = [_node_state("10.0.0.0"), _node_state("10.0.0.1")]
    asked: list[Any] = []

    def run(api: Any, wanted: Any, check_only: bool, show: Any) -> tuple[NodeState, ...]:
        asked.append((wanted.model, check_only))
        for state in states:
            show(state)
        return tuple(states)

    monkeypatch.setattr(pull_nodes, "run", run)
    course, view, service = Serving(KNOWN), _View(), make_service(model="mixtral-8x7b")
    model = course.resolve("mixtral-8x7b", view.say, from_cache=False)
    course.fetch(service, model, cast(RayApi, None), view)
    assert asked == [(model.source, False)]
    assert any(line.startswith("10.0.0.1: fetched") for line in view.said)
    assert course.resolve("mixtral-8x7b", view.say, from_cache=False).engine["revision"] == "a" * 40
    states[1] = _node_state("10.0.0.1", "no network")
    with pytest.raises(CheckpointUnavailable, match=r"^10\.0\.0\.1 has no weights of mixtral-8x7b: no network"):
        course.fetch(service, model, cast(RayApi, None), view)


def test_a_folder_is_not_fetched(tmp_path: Path) -> None:
    course = Serving(KNOWN)
    course.fetch(make_service(model=str(tmp_path)), models.Deployable(str(tmp_path)), cast(RayApi, None), _View())
