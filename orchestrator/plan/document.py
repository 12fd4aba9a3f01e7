"""The plan: one frozen document that is printed, saved, compared and applied.

Its JSON is a public contract (docs/planner.md). Sizes are integers in bytes. Within a rank

    weights + kv_cache + activation + overhead + free = capacity

`capacity_bytes` is what torch reports as the GPU's total, `kv_cache_bytes` the pool the engine will get by
its own rule, `free_bytes` the share that the engine leaves unreserved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.errors import ConfigError, StalePlan
from orchestrator.validation import first_problem, read_text

MAX_FILE_BYTES = 256 * 1024 * 1024

Objective = Literal["latency", "throughput", "cost"]
Size = Annotated[int, Field(ge=0)]
Degree = Annotated[int, Field(ge=1)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlannedModel(_Document):
    """What is served: the catalogue's name, the checkpoint as the engine is given it, and its counts."""

    name: str
    architecture: str
    checkpoint: str
    quantization: str
    total_params: Size
    active_params: Size


class PlannedNode(_Document):
    """One machine of the cluster the plan was made for."""

    name: str
    gpu_type: str
    num_gpus: Degree
    gpu_memory_bytes: Degree
    interconnect: Literal["nvlink", "pcie"]


class PlannedCluster(_Document):
    """All machines, used or not: a changed cluster makes the plan stale."""

    name: str
    nodes: tuple[PlannedNode, ...]

    @staticmethod
    def of(cluster: ClusterSnapshot) -> PlannedCluster:
        """What a plan remembers of a cluster; deploy compares it with what it finds."""
        nodes = tuple(
            PlannedNode(
                name=node.name,
                gpu_type=node.gpu_type,
                num_gpus=node.num_gpus,
                gpu_memory_bytes=node.gpu_memory_bytes,
                interconnect=node.interconnect,
            )
            for node in cluster.nodes
        )
        return PlannedCluster(name=cluster.name, nodes=nodes)


class Constraints(_Document):
    """What the plan had to meet; null where nothing was asked for. `concurrency` is requests of full length."""

    max_model_len: Degree | None = None
    concurrency: Degree | None = None
    gpus: Degree | None = None
    gpu_type: str | None = None
    replicas: Degree | None = None


class Parallelism(_Document):
    """Degrees of one replica, and how many replicas. `expert` is vLLM's `enable_expert_parallel`."""

    tensor: Degree
    pipeline: Degree
    data: Degree = 1
    decode_context: Degree = 1
    expert: bool = False
    redundant_experts: Size = 0
    replicas: Degree = 1

    @property
    def gpus_per_replica(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def num_gpus(self) -> int:
        return self.gpus_per_replica * self.replicas

    def label(self) -> str:
        """`TP 8 × PP 2`, `TP 4 + EP`, `2 replicas of TP 8`: as people write it."""
        degrees = [f"TP {self.tensor}"]
        degrees += [f"PP {self.pipeline}"] if self.pipeline > 1 else []
        degrees += [f"DP {self.data}"] if self.data > 1 else []
        text = " × ".join(degrees)
        text += f" (DCP {self.decode_context})" if self.decode_context > 1 else ""
        text += " + EP" if self.expert else ""
        text += f" with {self.redundant_experts} redundant experts" if self.redundant_experts else ""
        return f"{self.replicas} replicas of {text}" if self.replicas > 1 else text


class RankMemory(_Document):
    """The five shares of one GPU, and the total they add up to."""

    weights_bytes: Size
    kv_cache_bytes: Size
    activation_bytes: Size
    overhead_bytes: Size
    free_bytes: Size
    capacity_bytes: Size

    @property
    def accounted_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.overhead_bytes + self.free_bytes

    @property
    def headroom(self) -> float:
        """The KV pool as a share of everything that is not KV: 0.2 and 0.4 separate the labels."""
        return self.kv_cache_bytes / max(1, self.weights_bytes + self.activation_bytes + self.overhead_bytes)


class PlannedRank(_Document):
    """One GPU's part. `rank` counts within the replica, tensor ranks fastest, then stages, then data ranks.

    `layers` is [first, end); `experts` lists the experts held whole, null where experts are sharded or
    the stage has none.
    """

    rank: Size
    replica: Size
    data_rank: Size
    tensor_rank: Size
    pipeline_stage: Size
    node: str
    gpu_index: Size
    layers: tuple[int, int]
    experts: tuple[int, ...] | None
    memory: RankMemory


class PlannedKVCache(_Document):
    """The KV cache of one engine (one data rank of one replica), as the engine itself will report it."""

    dtype: str
    # One figure for each pipeline stage: bytes a token takes on each rank of that stage.
    bytes_per_token: tuple[int, ...]
    capacity_tokens: Size
    max_model_len: Degree
    max_concurrent_sequences: Size


class PlannedEngine(_Document):
    """The engine, with exactly the arguments and environment it is started with."""

    name: str
    version: str
    args: dict[str, Any]
    env: dict[str, str]


class Rejected(_Document):
    """A candidate that lost: a code for programs, a sentence with the numbers for people."""

    parallelism: Parallelism
    code: str
    reason: str


class PlanWarning(_Document):
    """Something to know before applying the plan."""

    code: str
    message: str


class Plan(_Document):
    """The document. `from_json(plan.to_json())` gives an equal plan."""

    schema_version: Literal[1] = 1
    model: PlannedModel
    cluster: PlannedCluster
    objective: Objective
    constraints: Constraints
    parallelism: Parallelism
    ranks: tuple[PlannedRank, ...]
    kv_cache: PlannedKVCache
    engine: PlannedEngine
    rejected: tuple[Rejected, ...]
    warnings: tuple[PlanWarning, ...]
    estimate: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None
    sources: dict[str, str]

    @property
    def tightest(self) -> PlannedRank:
        """The rank with the least headroom; it decides the KV cache of all."""
        return min(self.ranks, key=lambda rank: (rank.memory.headroom, rank.replica, rank.rank))

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(text: str, source: str = "plan") -> Plan:
        """Read a plan. Raises `ConfigError`, naming the field, for anything that is not one."""
        try:
            return Plan.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"{source}: {first_problem(error)}") from None

    def require_cluster(self, now: PlannedCluster) -> None:
        """Raise `StalePlan`, naming the differences, unless the cluster is the one planned for."""
        differences = cluster_differences(self.cluster, now)
        if differences:
            more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
            raise StalePlan(f"the cluster has changed since it was planned: {differences[0]}{more}; plan again")


def cluster_differences(planned: PlannedCluster, now: PlannedCluster) -> tuple[str, ...]:
    """What has changed, a sentence a node."""
    before = {node.name: node for node in planned.nodes}
    after = {node.name: node for node in now.nodes}
    gone = [f"node {name} is gone" for name in before if name not in after]
    new = [f"node {name} is new" for name in after if name not in before]
    changed = [
        f"node {name} has {field} {new_value}, not {old_value}"
        for name in before
        if name in after
        for field, old_value, new_value in _changed_fields(before[name], after[name])
    ]
    return (*gone, *changed, *new)


def _changed_fields(before: PlannedNode, after: PlannedNode) -> list[tuple[str, object, object]]:
    fields = ("gpu_type", "num_gpus", "gpu_memory_bytes", "interconnect")
    pairs = [(field, getattr(before, field), getattr(after, field)) for field in fields]
    return [(field, old, new) for field, old, new in pairs if old != new]


def load_plan(path: Path) -> Plan:
    """Read a plan from a file. Raises `ConfigError` for anything that is not one."""
    return Plan.from_json(read_text(path, MAX_FILE_BYTES, "plan"), source=str(path))
