"""A small plan of the right shape, to be broken on purpose."""

from __future__ import annotations

from typing import Any

from orchestrator.plan import (
    Constraints,
    Parallelism,
    Plan,
    PlannedCluster,
    PlannedEngine,
    PlannedKVCache,
    PlannedModel,
    PlannedNode,
    PlannedRank,
    PlanWarning,
    RankMemory,
    Rejected,
)

MEMORY = RankMemory(
    weights_bytes=50,
    kv_cache_bytes=20,
    activation_bytes=10,
    overhead_bytes=10,
    free_bytes=10,
    capacity_bytes=100,
)


def rank(number: int, **changes: Any) -> PlannedRank:
    """Rank `number` of a TP 2 × PP 2 replica with four experts placed whole."""
    stage, tensor = divmod(number, 2)
    facts: dict[str, Any] = {
        "rank": number,
        "replica": 0,
        "data_rank": 0,
        "tensor_rank": tensor,
        "pipeline_stage": stage,
        "node": "a",
        "gpu_index": number,
        "layers": ((0, 3), (3, 5))[stage],
        "experts": ((0, 1), (2, 3))[tensor],
        "memory": MEMORY,
    }
    return PlannedRank(**{**facts, **changes})


def plan(**changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "model": PlannedModel(
            name="m",
            architecture="A",
            checkpoint="org/m",
            quantization="fp8",
            total_params=10,
            active_params=5,
        ),
        "cluster": PlannedCluster(
            name="c",
            nodes=(
                PlannedNode(
                    name="a",
                    gpu_type="H100",
                    num_gpus=4,
                    gpu_memory_bytes=100,
                    interconnect="nvlink",
                ),
            ),
        ),
        "objective": "throughput",
        "constraints": Constraints(),
        "parallelism": Parallelism(tensor=2, pipeline=2, expert=True),
        "ranks": tuple(rank(number) for number in range(4)),
        "kv_cache": PlannedKVCache(
            dtype="fp8",
            bytes_per_token=(3, 2),
            capacity_tokens=64,
            max_model_len=8,
            max_concurrent_sequences=8,
        ),
        "engine": PlannedEngine(name="vllm", version="0.29.0", args={"tensor_parallel_size": 2}, env={}),
        "rejected": (Rejected(parallelism=Parallelism(tensor=4, pipeline=1), code="c", reason="r 1"),),
        "warnings": (PlanWarning(code="w", message="m"),),
        "sources": {"model": "here"},
    }
    return Plan(**{**facts, **changes})
