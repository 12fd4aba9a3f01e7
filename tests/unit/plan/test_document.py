"""The plan document: a public contract, the same after a round trip, refused by field when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, StalePlan
from orchestrator.plan import Parallelism, Plan, PlannedCluster, load_plan
from orchestrator.plan.diff import diff
from tests.unit.plan.helpers import plan, rank


def test_the_document_has_exactly_the_keys_of_the_contract() -> None:
    document = json.loads(plan().to_json())
    assert list(document) == [
        "schema_version", "model", "cluster", "objective", "constraints", "parallelism", "ranks", "kv_cache",
        "engine", "rejected", "warnings", "estimate", "cost", "sources",
    ]  # fmt: skip
    assert list(document["model"]) == [
        "name", "architecture", "checkpoint", "quantization", "total_params", "active_params",
    ]  # fmt: skip
    assert list(document["cluster"]["nodes"][0]) == [
        "name", "gpu_type", "num_gpus", "gpu_memory_bytes", "interconnect",
    ]  # fmt: skip
    assert list(document["parallelism"]) == [
        "tensor", "pipeline", "data", "decode_context", "expert", "redundant_experts", "replicas",
    ]  # fmt: skip
    assert list(document["ranks"][0]) == [
        "rank", "replica", "data_rank", "tensor_rank", "pipeline_stage", "node", "gpu_index", "layers",
        "experts", "memory",
    ]  # fmt: skip
    assert list(document["ranks"][0]["memory"]) == [
        "weights_bytes", "kv_cache_bytes", "activation_bytes", "overhead_bytes", "free_bytes",
        "capacity_bytes",
    ]  # fmt: skip
    assert list(document["kv_cache"]) == [
        "dtype", "bytes_per_token", "capacity_tokens", "max_model_len", "max_concurrent_sequences",
    ]  # fmt: skip
    assert list(document["engine"]) == ["name", "version", "args", "env"]
    assert list(document["rejected"][0]) == ["parallelism", "code", "reason"]
    assert list(document["warnings"][0]) == ["code", "message"]
    assert (document["estimate"], document["cost"]) == (None, None)


def test_a_round_trip_gives_an_equal_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan().to_json())
    assert load_plan(path) == plan()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("schema_version", {"schema_version": 2}),
        ("ranks", {"ranks": [{}]}),
        ("parallelism.tensor", {"parallelism": {"tensor": 0, "pipeline": 1}}),
        (
            "kv_cache.capacity_tokens",
            {"kv_cache": json.loads(plan().to_json())["kv_cache"] | {"capacity_tokens": "1"}},
        ),
        ("colour", {"colour": "red"}),
    ],
)
def test_a_document_that_is_no_plan_is_refused_by_field(field: str, change: dict[str, object]) -> None:
    text = json.dumps(json.loads(plan().to_json()) | change)
    with pytest.raises(ConfigError, match=field) as failure:
        Plan.from_json(text, "p.json")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_text_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.json"):
        Plan.from_json(text, "p.json")


def test_a_changed_cluster_makes_a_plan_stale_and_the_change_is_named() -> None:
    node = plan().cluster.nodes[0]
    grown = PlannedCluster(name="c", nodes=(node.model_copy(update={"num_gpus": 2}),))
    other = PlannedCluster(name="c", nodes=(node.model_copy(update={"name": "b"}),))
    plan().require_cluster(plan().cluster)
    with pytest.raises(StalePlan, match="node a has num_gpus 2, not 4"):
        plan().require_cluster(grown)
    with pytest.raises(StalePlan, match=r"node a is gone \(and 1 more\)"):
        plan().require_cluster(other)


def test_equal_plans_do_not_differ() -> None:
    assert diff(plan(), plan()) == ()


def test_a_difference_names_the_field_and_the_rank() -> None:
    moved = plan(
        ranks=(rank(0, gpu_index=3), rank(1), rank(2), rank(3, gpu_index=0)),
        parallelism=Parallelism(tensor=2, pipeline=2, expert=True, replicas=2),
    )
    changes = {change.path: (change.before, change.after) for change in diff(plan(), moved)}
    assert changes == {
        "parallelism.replicas": (1, 2),
        "ranks[0/0].gpu_index": (0, 3),
        "ranks[0/3].gpu_index": (3, 0),
    }


def test_what_only_one_plan_has_is_a_difference_too() -> None:
    (change,) = diff(plan(), plan(warnings=()))
    assert change.path == "warnings[w/m]"
    assert change.after is None


@pytest.mark.parametrize(
    ("degrees", "label"),
    [
        (Parallelism(tensor=8, pipeline=2), "TP 8 × PP 2"),
        (Parallelism(tensor=4, pipeline=1, expert=True), "TP 4 + EP"),
        (Parallelism(tensor=1, pipeline=1, data=8, expert=True), "TP 1 × DP 8 + EP"),
        (Parallelism(tensor=8, pipeline=1, decode_context=2), "TP 8 (DCP 2)"),
        (Parallelism(tensor=8, pipeline=1, replicas=3), "3 replicas of TP 8"),
        (
            Parallelism(tensor=8, pipeline=1, expert=True, redundant_experts=8),
            "TP 8 + EP with 8 redundant experts",
        ),
    ],
)
def test_degrees_are_written_as_people_write_them(degrees: Parallelism, label: str) -> None:
    assert degrees.label() == label
