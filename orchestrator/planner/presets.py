"""The catalogue's engine presets: settings known good for a model on some hardware."""

from __future__ import annotations

from typing import Any

from orchestrator.catalog.entries import CatalogEntry, Preset
from orchestrator.catalog.gpus import GpuSpec
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.units import GIB

# A preset's degrees are what the planner should find by itself; tests hold that it does.
_LAYOUT = {
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "enable_expert_parallel",
}


def preset_for(entry: CatalogEntry | None, cluster: ClusterSnapshot) -> Preset | None:
    """The preset made for exactly this many GPUs of this family; None where there is none."""
    if entry is None or len({node.gpu_type for node in cluster.nodes}) != 1:
        return None
    gpus = cluster.gpus
    family = _family(gpus.resolve(cluster.nodes[0].gpu_type))
    return next(
        (
            preset
            for preset in entry.presets
            if preset.num_gpus == cluster.num_free_gpus and _family(gpus.resolve(preset.gpu)) == family
        ),
        None,
    )


def engine_settings(preset: Preset) -> dict[str, Any]:
    """The preset's arguments, without its degrees."""
    return {name: value for name, value in preset.engine_args.items() if name not in _LAYOUT}


def _family(gpu: GpuSpec) -> tuple[str, int]:
    """SXM and PCIe cards of one generation and size are one family."""
    return gpu.ray_accelerator_type or gpu.name, round(gpu.memory_bytes / (10 * GIB))
