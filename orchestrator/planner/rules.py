"""The engine rules held against one candidate: errors put it out, warnings go with its plan."""

from __future__ import annotations

from typing import Literal

from orchestrator.catalog.engine_rules import EngineRule, Fact, built_in_rules, matching_rules
from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.shapes import LatentAttention
from orchestrator.memory.engine_args import ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.planner.candidate import Candidate
from orchestrator.planner.legality import Refusal
from orchestrator.planner.request import ENGINE, PlanRequest
from orchestrator.planner.traffic import ALL_REDUCES_PER_LAYER, all_reduce_bytes
from orchestrator.units import GIB, KIB


def broken_rule(request: PlanRequest, candidate: Candidate) -> Refusal | None:
    """The first rule of severity "error" that the candidate breaks on one of its kinds of GPU."""
    for rule, facts in _matches(request, candidate):
        if rule.severity == "error":
            return Refusal(rule.code, rule.sentence(facts))
    return None


def rule_sentences(
    request: PlanRequest, candidate: Candidate, severity: Literal["warning", "note"]
) -> tuple[tuple[str, str], ...]:
    """(code, sentence) of every rule of a severity, once each."""
    found = {
        rule.code: rule.sentence(facts) for rule, facts in _matches(request, candidate) if rule.severity == severity
    }
    return tuple(found.items())


def _matches(request: PlanRequest, candidate: Candidate) -> list[tuple[EngineRule, dict[str, Fact]]]:
    rules = (*built_in_rules(), *request.rules)
    every = [facts_of(request, candidate, gpu) for gpu in candidate.pool.gpus]
    return [(rule, facts) for facts in every for rule in matching_rules(facts, ENGINE, request.engine_version, rules)]


def facts_of(request: PlanRequest, candidate: Candidate, gpu: GpuSpec) -> dict[str, Fact]:
    """Everything a rule may ask about."""
    args = request.engine.resolve(request.spec, candidate.layout, gpu)
    return {
        **_model_facts(request),
        **_argument_facts(request, args, gpu),
        **_layout_facts(request, candidate.layout),
        "straddles": candidate.straddles,
        "interconnect": "pcie" if candidate.pool.link.name == "PCIe" else "nvlink",
        "link_gb_per_s": candidate.pool.link.bytes_per_s // 10**9,
        "gpu_type": gpu.name,
        "compute_capability": _capability(gpu),
        "objective": request.objective,
    }


def _model_facts(request: PlanRequest) -> dict[str, Fact]:
    spec = request.spec
    latent = isinstance(spec.attention, LatentAttention)
    return {
        "model": spec.name,
        "is_moe": spec.is_moe,
        "is_mla": latent,
        "is_sparse_attention": isinstance(spec.attention, LatentAttention) and spec.attention.indexer is not None,
        "trust_remote_code": request.trust_remote_code,
    }


def _argument_facts(request: PlanRequest, args: ResolvedArgs, gpu: GpuSpec) -> dict[str, Fact]:
    utilization = args.gpu_memory_utilization
    return {
        "dtype": request.engine.dtype,
        "compute_dtype": args.dtype,
        "quantization": args.quantization.weight_format if args.quantization else None,
        "kv_cache_dtype": args.kv_cache_dtype,
        "enable_prefix_caching": request.enable_prefix_caching,
        "gpu_memory_utilization": utilization,
        "unreserved_gib": round(gpu.memory_bytes * (1 - utilization) / GIB, 1),
        "max_model_len": args.max_model_len,
        "max_model_len_given": request.max_model_len_given,
    }


def _layout_facts(request: PlanRequest, layout: Layout) -> dict[str, Fact]:
    spec = request.spec
    per_pass = ALL_REDUCES_PER_LAYER * spec.num_layers
    return {
        "tensor": layout.tensor,
        "pipeline": layout.pipeline,
        "data": layout.data,
        "expert": layout.expert,
        "allreduces": per_pass,
        "allreduce_kib": per_pass * all_reduce_bytes(spec, layout.tensor) // KIB,
    }


def _capability(gpu: GpuSpec) -> float | None:
    """As a number that can be compared: 8.9, 12.0; None for GPUs that are not NVIDIA's."""
    if gpu.cuda_capability is None:
        return None
    major, minor = gpu.cuda_capability
    return major + minor / 10
