"""How a model is split over ranks: sizes of the groups, layers of a stage, experts of a rank.

All rules are vLLM 0.29's own: `get_pp_indices` (vllm/distributed/utils.py) divides the layers,
`determine_expert_map` (vllm/model_executor/layers/fused_moe/expert_map_manager.py) the experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from orchestrator.errors import ConfigError

ExpertPlacement = Literal["linear", "round_robin"]


@dataclass(frozen=True)
class Layout:
    """One replica's split. Ranks count tensor fastest, then pipeline, then data."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    decode_context: int = 1
    redundant_experts: int = 0
    # Layers of each stage, where vLLM's own division is not wanted (VLLM_PP_LAYER_PARTITION).
    layers_per_stage: tuple[int, ...] | None = None
    expert_placement: ExpertPlacement = "linear"

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline * self.data

    @property
    def expert_parallel_size(self) -> int:
        """Ranks that share a layer's experts whole; 1 without expert parallelism."""
        return self.tensor * self.data if self.expert else 1

    @property
    def expert_tensor_size(self) -> int:
        """Ranks that each expert is cut over. Without expert parallelism data ranks cut it too."""
        return 1 if self.expert else self.tensor * self.data

    @property
    def shared_experts_replicated(self) -> bool:
        """Whether MoE layers run on a sequence shard per rank, which takes whole shared experts.

        vLLM's `ParallelConfig.use_sequence_parallel_moe` with its default all-to-all backend.
        """
        return self.expert and self.tensor > 1 and self.data > 1

    def expert_rank(self, tensor_rank: int, data_rank: int) -> int:
        return data_rank * self.tensor + tensor_rank if self.expert else 0

    def stage_layers(self, num_layers: int) -> tuple[tuple[int, int], ...]:
        """[first, end) of every stage. Raises `ConfigError` where a custom division does not add up."""
        return _stage_layers(num_layers, self.pipeline, self.layers_per_stage)

    def num_local_experts(self, num_experts: int, tensor_rank: int = 0, data_rank: int = 0) -> int:
        """Physical experts a rank holds, redundant ones included."""
        return len(self.local_experts(num_experts, tensor_rank, data_rank))

    def local_experts(self, num_experts: int, tensor_rank: int, data_rank: int) -> tuple[int, ...]:
        """Physical expert ids of a rank; ids past `num_experts` are redundant copies.

        All of them without expert parallelism, where each rank holds a slice of every expert.
        """
        rank = self.expert_rank(tensor_rank, data_rank)
        total = num_experts + self.redundant_experts
        return _local_experts(total, self.expert_parallel_size, rank, self.expert_placement)


@lru_cache(maxsize=4096)
def _stage_layers(num_layers: int, stages: int, custom: tuple[int, ...] | None) -> tuple[tuple[int, int], ...]:
    sizes = list(custom) if custom is not None else _even_stages(num_layers, stages)
    if len(sizes) != stages or sum(sizes) != num_layers or min(sizes) < 1:
        raise ConfigError(
            f"layers per stage {tuple(sizes)} must be {stages} positive numbers that add up to {num_layers}"
        )
    ends = [sum(sizes[: i + 1]) for i in range(stages)]
    return tuple((end - size, end) for end, size in zip(ends, sizes, strict=True))


def _even_stages(num_layers: int, stages: int) -> list[int]:
    """Equal stages; what is left over goes to those before the last, which holds the head."""
    sizes = [num_layers // stages] * stages
    for i in range(2, num_layers % stages + 2):
        sizes[-i] += 1
    return sizes


@lru_cache(maxsize=65536)
def _local_experts(total: int, size: int, rank: int, placement: ExpertPlacement) -> tuple[int, ...]:
    if placement == "round_robin":
        return tuple(range(rank, total, size))
    base, remainder = divmod(total, size)
    first = rank * base + min(rank, remainder)
    return tuple(range(first, first + base + (rank < remainder)))
