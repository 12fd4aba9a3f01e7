"""Expert parallelism on the CPU's MoE kernel, which takes no notice of `expert_map`.

vLLM 0.29.0's `CPUUnquantizedExperts.apply` hands the chosen experts' global ids to a kernel that reads them as
positions among the rank's own experts: tokens go to wrong experts, or past the end of the weights. Here the ids
are translated first, and an expert that lives on another rank gets weight zero; the ranks' sums then add up to
what one rank with all experts computes.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.experts import cpu_moe


def mend() -> None:
    """Make the kernel heed the map; a second call changes nothing."""
    kernel = cpu_moe.CPUUnquantizedExperts
    if hasattr(kernel, "own_experts"):
        return
    apply, select = kernel.apply, kernel._select_experts

    def apply_with_map(self: Any, *args: Any, expert_map: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
        self.own_experts = expert_map
        return apply(self, *args, expert_map=expert_map, **kwargs)

    def select_own(self: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        weights, ids = select(self, *args, **kwargs)
        return (weights, ids) if self.own_experts is None else to_own(weights, ids, self.own_experts)

    kernel.own_experts = None
    kernel.apply, kernel._select_experts = apply_with_map, select_own


def to_own(weights: torch.Tensor, ids: torch.Tensor, own_experts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and ids, both [tokens, top-k], for this rank's kernel.

    `own_experts` [experts] holds the place of each expert on this rank, -1 for those of other ranks.
    """
    own = own_experts[ids.long()]
    absent = own < 0
    return weights.masked_fill(absent, 0.0), own.masked_fill(absent, 0).to(ids.dtype)
