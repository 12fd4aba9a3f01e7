"""What one forward pass moves: bytes read from a GPU's own memory, bytes sent to its neighbours.

Layouts are ranked by this arithmetic. It is a floor, not an estimate of speed: kernels, launches and
queues come on top. Weights that every rank copies are counted as if they were cut, which holds a
comparison between layouts of one model to within a few per cent.

    read  = (dense weights + routed experts × share touched) ÷ tensor ranks
    sent  = 2 all-reduces a layer × 2(n−1)/n × hidden size × 2 bytes × tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.quantization import Quantization
from orchestrator.memory.engine_args import ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import Cut, stage_totals

ACTIVATION_BYTES = 2
ALL_REDUCES_PER_LAYER = 2


@dataclass(frozen=True)
class Traffic:
    """Bytes of one forward pass over `tokens` tokens, for one GPU of each stage, summed over the stages."""

    tokens: int
    read_bytes: int
    sent_bytes: int
    all_reduces: int

    def floor_s(self, memory_bytes_per_s: int, link_bytes_per_s: int) -> float:
        """Seconds that memory and links need at their full rate."""
        return self.read_bytes / memory_bytes_per_s + self.sent_bytes / link_bytes_per_s


def traffic(spec: ModelSpec, layout: Layout, args: ResolvedArgs, tokens: int) -> Traffic:
    dense, routed = model_bytes(spec, args.quantization, args.dtype)
    read = (dense + routed * touched_share(spec, tokens)) / layout.tensor
    reduces = ALL_REDUCES_PER_LAYER * spec.num_layers if layout.tensor > 1 else 0
    return Traffic(
        tokens=tokens,
        read_bytes=int(read),
        sent_bytes=reduces * all_reduce_bytes(spec, layout.tensor, tokens),
        all_reduces=reduces,
    )


def all_reduce_bytes(spec: ModelSpec, ranks: int, tokens: int = 1) -> int:
    """Bytes that each of `ranks` sends in one ring all-reduce of the hidden states."""
    return 2 * (ranks - 1) * spec.hidden_size * ACTIVATION_BYTES * tokens // ranks


def touched_share(spec: ModelSpec, tokens: int) -> float:
    """The share of routed experts that `tokens` tokens need between them, if routing is even."""
    if spec.moe is None:
        return 1.0
    return float(1 - (1 - spec.moe.top_k / spec.moe.num_experts) ** tokens)


@lru_cache(maxsize=256)
def model_bytes(spec: ModelSpec, quantization: Quantization | None, dtype: str) -> tuple[int, int]:
    """Bytes of all but the routed experts, and of these, of one whole model."""
    everything = (0, spec.num_layers)
    experts = spec.moe.num_experts if spec.moe else 0
    without = stage_totals(spec, quantization, dtype, everything, Cut()).size_bytes
    total = stage_totals(spec, quantization, dtype, everything, Cut(local_experts=experts)).size_bytes
    return without, total - without
