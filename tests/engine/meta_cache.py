"""vLLM's own division of a KV pool, from cache specs of models on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.v1.core.kv_cache_utils import (
    generate_scheduler_kv_cache_config,
    get_kv_cache_capacity,
    get_kv_cache_configs,
)

from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.layout import Layout
from tests.engine.meta_model import Rank, build_with_config


@dataclass(frozen=True)
class EngineCapacity:
    num_blocks: int
    tokens: int
    max_concurrency: float


def engine_capacity(
    config: Mapping[str, Any], layout: Layout, engine: EngineArgs, pool_bytes: int, folder: Path
) -> EngineCapacity:
    """What the engine would log for pools of `pool_bytes` on every rank."""
    specs = []
    for stage in range(layout.pipeline):
        _, vllm_config = build_with_config(config, layout, Rank(stage=stage), folder, engine)
        specs.append(_cache_specs(vllm_config))
    vllm_config.cache_config.kv_cache_layout = "LBNHC"
    vllm_config.parallel_config.decode_context_parallel_size = layout.decode_context
    with set_current_vllm_config(vllm_config):
        configs = get_kv_cache_configs(vllm_config, specs, [pool_bytes] * layout.pipeline)
        scheduler = generate_scheduler_kv_cache_config(configs)
        tokens, concurrency = get_kv_cache_capacity(vllm_config, scheduler)
    return EngineCapacity(scheduler.num_blocks, tokens, concurrency)


def _cache_specs(vllm_config: Any) -> dict[str, Any]:
    layers = vllm_config.compilation_config.static_forward_context
    with set_current_vllm_config(vllm_config):
        specs = {
            name: layer.get_kv_cache_spec(vllm_config)
            for name, layer in layers.items()
            if isinstance(layer, AttentionLayerBase)
        }
    return {name: spec for name, spec in specs.items() if spec is not None}
