"""The rule of thumb people plan by, shown beside the exact figure.

    total = parameters × bytes per parameter × 1.15 + KV cache budget

The 1.15 stands for activations, framework and routing buffers. The rule counts nominal gigabytes and
knows no utilisation, so it can differ from the exact figure both ways; `disagreement` says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from orchestrator.cluster.snapshot import NodeSnapshot
from orchestrator.memory.kv_cache import kv_bytes_per_token
from orchestrator.memory.layout import Layout
from orchestrator.planner.counts import total_params
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.traffic import model_bytes

OVERHEAD_FACTOR = 1.15
GB = 10**9
BYTES_PER_PARAMETER = {
    "fp8": 1.0,
    "mxfp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "mxfp4": 0.5,
    "nvfp4": 0.5,
    "bfloat16": 2.0,
    "float16": 2.0,
    "float32": 4.0,
}


@dataclass(frozen=True)
class RuleOfThumb:
    """The rule's figures, in bytes. `available_bytes` is the sum of nominal GPU memories."""

    parameters: int
    bytes_per_parameter: float
    kv_budget_bytes: int
    available_bytes: int
    # The share of a GPU that the engine may take, of which the rule knows nothing.
    utilization: float = 1.0

    @property
    def weights_bytes(self) -> int:
        return int(self.parameters * self.bytes_per_parameter)

    @property
    def total_bytes(self) -> int:
        return round(self.weights_bytes * OVERHEAD_FACTOR) + self.kv_budget_bytes

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.available_bytes

    def sentence(self) -> str:
        verdict = "fits" if self.fits else "does not fit"
        unit = "byte" if self.bytes_per_parameter == 1 else "bytes"
        budget = f" + {self.kv_budget_bytes / GB:,.0f} GB of KV cache" if self.kv_budget_bytes else ""
        return (
            f"rule of thumb: {self.parameters / GB:,.1f}e9 parameters × {self.bytes_per_parameter:g} {unit} "
            f"× {OVERHEAD_FACTOR}{budget} = {self.total_bytes / GB:,.0f} GB, which {verdict} the nominal "
            f"{self.available_bytes / GB:,.0f} GB{self._but()}"
        )

    def _but(self) -> str:
        """What the rule leaves out where it says yes to more than the engine may take."""
        if not self.fits or self.total_bytes <= self.utilization * self.available_bytes:
            return ""
        share = self.total_bytes / self.available_bytes
        return f" at {share:.0%} of it, above the {self.utilization:g} that the engine may take"


def rule_of_thumb(request: PlanRequest) -> RuleOfThumb:
    """The rule for a model on all free GPUs of a cluster; the KV budget is what was asked for, or nothing."""
    spec, quantization = request.spec, request.quantization
    return RuleOfThumb(
        parameters=total_params(spec),
        bytes_per_parameter=BYTES_PER_PARAMETER[quantization.weight_format if quantization else spec.dtype],
        kv_budget_bytes=_kv_budget_bytes(request),
        available_bytes=sum(nominal_bytes(node) * len(node.free_gpus) for node in request.cluster.nodes),
        utilization=request.engine.gpu_memory_utilization,
    )


def _kv_budget_bytes(request: PlanRequest) -> int:
    """The cache of as many requests of full length as were asked for at once, held once."""
    if request.constraints.concurrency is None:
        return 0
    args = request.engine.resolve(request.spec, Layout(), request.cluster.gpu_of(request.cluster.nodes[0].kind))
    token_bytes = kv_bytes_per_token(request.spec, Layout(), 0, args)
    return request.constraints.concurrency * args.max_model_len * token_bytes


def nominal_bytes(node: NodeSnapshot) -> int:
    """What the vendor's name says; what torch reports, where the name is not listed."""
    listed = _nominal_gb().get(node.gpu_type)
    return listed * GB if listed is not None else node.gpu_memory_bytes


@lru_cache(maxsize=1)
def _nominal_gb() -> dict[str, int]:
    data = resources.files("orchestrator.catalog").joinpath("data/nominal_memory.json")
    listed: dict[str, int] = json.loads(data.read_text("utf-8"))["gigabytes"]
    return listed


def disagreement(rule: RuleOfThumb, exact_fits: bool, request: PlanRequest) -> str | None:
    """Why the exact verdict differs from the rule's; None where they agree."""
    if rule.fits == exact_fits:
        return None
    utilization = request.engine.gpu_memory_utilization
    stored = sum(model_bytes(request.spec, request.quantization, request.spec.dtype))
    reported = sum(node.gpu_memory_bytes * len(node.free_gpus) for node in request.cluster.nodes)
    usable = int(utilization * reported)
    verdict = "fits" if exact_fits else "does not fit"
    return (
        f"the exact figure {verdict}: weights take {stored / GB:,.0f} GB as stored, where the rule counts "
        f"{rule.weights_bytes / GB:,.0f} and 15 % more; {utilization:g} of what torch reports is "
        f"{usable / GB:,.0f} GB, where the rule counts {rule.available_bytes / GB:,.0f}; and every rank must "
        "fit by itself, at legal degrees"
    )
