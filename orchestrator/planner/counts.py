"""How many parameters a model has, and how many of them one token passes."""

from __future__ import annotations

from functools import lru_cache

from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.shards import Cut, stage_totals


@lru_cache(maxsize=256)
def total_params(spec: ModelSpec) -> int:
    """All parameters of the decoder, as vLLM builds it on one rank (the vocabulary padded)."""
    return _params(spec, spec.moe.num_experts if spec.moe else 0)


def active_params(spec: ModelSpec) -> int:
    """Parameters of which one token makes use: `top_k` experts of each sparse layer, and all else."""
    return _params(spec, spec.moe.top_k if spec.moe else 0)


@lru_cache(maxsize=256)
def _params(spec: ModelSpec, experts: int) -> int:
    everything = (0, spec.num_layers)
    return stage_totals(spec, None, spec.dtype, everything, Cut(local_experts=experts)).parameters
