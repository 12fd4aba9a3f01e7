"""What a worker tells of itself, from inside: vLLM mixes this class into every rank's worker."""

from __future__ import annotations

import re
from typing import Any

from deployments.loaded_weights import loaded_bytes
from orchestrator.cluster import labels

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class WorkerExtension:
    """Methods for `collective_rpc`, beside the worker's own."""

    def report_rank(self) -> dict[str, Any]:
        """Where this rank runs and what it holds, as `rank_map.ReportedRank` reads it."""
        from vllm.distributed.parallel_state import get_pp_group, get_tp_group

        worker: Any = self
        model = worker.model_runner.get_model()
        names = [name for name, _ in model.named_parameters()]
        return {
            "rank": worker.rank,
            "tensor_rank": get_tp_group().rank_in_group,
            "pipeline_stage": get_pp_group().rank_in_group,
            "node": node_name(),
            "gpu_index": _gpu_index(worker),
            "layers": held_layers(names),
            "experts": _held_experts(model),
            "weights_bytes": loaded_bytes(model),
        }


def _gpu_index(worker: Any) -> int:
    """The worker's GPU as its node counts them."""
    from vllm.platforms import current_platform

    # What Ray's executor was given, by local rank. The platform knows of it only where its devices are real.
    assigned = worker.parallel_config.assigned_physical_gpu_ids
    return int(
        assigned[worker.local_rank] if assigned else current_platform.device_id_to_physical_device_id(worker.local_rank)
    )


def held_layers(parameter_names: list[str]) -> list[int]:
    """The numbers of the layers that parameters belong to, ascending."""
    found = (_LAYER.search(name) for name in parameter_names)
    return sorted({int(match.group(1)) for match in found if match})


def _held_experts(model: Any) -> list[int] | None:
    """The experts of the first MoE layer under expert parallelism; None where experts are split, or there are none."""
    for module in model.modules():
        manager = getattr(module, "expert_map_manager", None)
        if manager is not None:
            return None if manager.expert_map is None else list(manager.get_local_expert_ids())
    return None


def node_name(otherwise: str = "") -> str:
    """The name that plans give this node: its `orchestrator/host` label, else its address.

    `otherwise` where this process is none of Ray's.
    """
    import ray

    if not ray.is_initialized():
        return otherwise
    return labels.node_name(ray.get_runtime_context().get_node_labels(), str(ray.util.get_node_ip_address()))
