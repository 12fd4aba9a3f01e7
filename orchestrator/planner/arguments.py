"""From engine arguments to a plan request: what the user fixed, what a preset says, what is left.

The order is: the user's own argument, the catalogue's preset for this hardware, the planner's default.
A whole command line is different: there an argument that is not given means vLLM's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.catalog.engine_arguments import AUTO_LENGTH
from orchestrator.catalog.engine_rules import EngineRule, matching_rules
from orchestrator.catalog.models import ModelSpec
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.errors import ConfigError
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.layout import ExpertPlacement
from orchestrator.plan import Constraints, Objective
from orchestrator.planner.request import DEFAULT_OBJECTIVE, ENGINE, ENGINE_VERSION, FixedDegrees, PlanRequest

# 0.90 leaves room for routing buffers outside the engine's count; a maximum length is always set.
DEFAULT_UTILIZATION = 0.90
DEFAULT_MAX_MODEL_LEN = 32_768
# Arguments that are layout, not engine settings.
_DEGREES = {
    "tensor_parallel_size": "tensor",
    "pipeline_parallel_size": "pipeline",
    "data_parallel_size": "data",
    "decode_context_parallel_size": "decode_context",
    "enable_expert_parallel": "expert",
}
# Arguments that go to the engine as they are given.
_VERBATIM = {"enable_eplb", "eplb_config", "speculative_config"}
_APART = {*_DEGREES, *_VERBATIM, "expert_placement_strategy", "enable_prefix_caching", "trust_remote_code"}
# Speculation by the model's own prediction layers; other methods bring weights of their own, or none.
_OWN_PREDICTION = ("mtp", "deepseek_mtp", "glm4_moe_mtp")


@dataclass(frozen=True)
class Wishes:
    """What the user said. `arguments` are vLLM's names with underscores, values already read."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=dict)
    preset_source: str = ""
    whole_command: bool = False
    objective: Objective = DEFAULT_OBJECTIVE
    constraints: Constraints = field(default_factory=Constraints)
    engine_version: str = ENGINE_VERSION
    needs_remote_code: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[EngineRule, ...] = ()


def build_request(spec: ModelSpec, cluster: ClusterSnapshot, wishes: Wishes) -> PlanRequest:
    """The request. Raises `ConfigError` for arguments that contradict one another."""
    given = dict(wishes.arguments)
    longest = given.get("max_model_len") == AUTO_LENGTH
    if longest:
        given["max_model_len"] = spec.max_model_len
    mended, remarks = mend_dtype(spec, given, wishes.engine_version)
    merged, sources = _merge(spec, mended, wishes)
    _check_length(spec, merged.get("max_model_len"))
    _check_quantization(spec, merged.get("quantization"))
    _check_batch(merged)
    _check_gpu_type(cluster, wishes.constraints.gpu_type)
    return PlanRequest(
        spec=spec,
        checkpoint=spec.checkpoint or spec.name,
        cluster=cluster,
        engine=_engine(merged),
        objective=wishes.objective,
        constraints=wishes.constraints.model_copy(
            update={"max_model_len": None if longest else mended.get("max_model_len")}
        ),
        fixed=_fixed(spec, mended, wishes),
        engine_version=wishes.engine_version,
        max_model_len_given="max_model_len" in mended or "max_model_len" in wishes.preset,
        longest_context=longest,
        exact_args=wishes.whole_command,
        enable_prefix_caching=merged.get("enable_prefix_caching", True),
        verbatim={name: value for name, value in merged.items() if name in _VERBATIM},
        trust_remote_code=merged.get("trust_remote_code", False) or wishes.needs_remote_code,
        env=tuple(wishes.env.items()),
        sources=tuple(sources.items()),
        rules=wishes.rules,
        remarks=(*remarks, *_speculation_remarks(merged)),
    )


def _engine(merged: Mapping[str, Any]) -> EngineArgs:
    settings = {name: value for name, value in merged.items() if name not in _APART}
    method, tokens = _speculation(merged)
    return EngineArgs(**settings, num_speculative_tokens=tokens if method in _OWN_PREDICTION else 0)


def _speculation(merged: Mapping[str, Any]) -> tuple[str, int]:
    """(method, tokens) of `speculative_config`; ("", 0) without one."""
    config = merged.get("speculative_config", {})
    tokens = config.get("num_speculative_tokens", 0) if isinstance(config, Mapping) else None
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
        raise ConfigError(f"speculative_config is {config!r}; it must be an object with num_speculative_tokens")
    return str(config.get("method", "draft_model")) if config else "", tokens


def _speculation_remarks(merged: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    method, _ = _speculation(merged)
    if not method or method in _OWN_PREDICTION or method.startswith(("ngram", "suffix")):
        return ()
    return (("draft_model_not_planned", f"speculation by {method!r} loads weights that this plan does not count"),)


def _check_length(spec: ModelSpec, length: int | None) -> None:
    if length is not None and length > spec.max_model_len:
        raise ConfigError(
            f"max_model_len is {length:,}, and {spec.name} is made for {spec.max_model_len:,} tokens at "
            "most: vLLM refuses more"
        )


def _check_batch(merged: Mapping[str, Any]) -> None:
    """`SchedulerConfig.verify_max_model_len` refuses a batch with fewer tokens than sequences."""
    tokens, sequences = merged.get("max_num_batched_tokens"), merged.get("max_num_seqs")
    if tokens is not None and sequences is not None and tokens < sequences:
        raise ConfigError(f"max_num_batched_tokens is {tokens}; it must be at least max_num_seqs, {sequences}")


def _check_quantization(spec: ModelSpec, wanted: str | None) -> None:
    """vLLM refuses a method that is not the checkpoint's own (`ModelConfig._verify_quantization`)."""
    stored = spec.quantization.method if spec.quantization else None
    if wanted is None or stored is None or _family(wanted) == _family(stored):
        return
    raise ConfigError(
        f"quantization is {wanted!r}, but {spec.checkpoint or spec.name} is stored as {stored!r}: "
        "leave quantization out"
    )


def _family(method: str) -> str:
    """Kernels of one format share its name: awq and awq_marlin, gptq and gptq_marlin."""
    return method.removesuffix("_marlin").removeprefix("auto_")


def _check_gpu_type(cluster: ClusterSnapshot, gpu_type: str | None) -> None:
    if gpu_type is None:
        return
    present = sorted({node.gpu_type for node in cluster.nodes})
    if cluster.gpus.resolve(gpu_type).name not in present:
        raise ConfigError(f"gpu_type {gpu_type!r} is not in the cluster, which has {', '.join(present)}")


def mend_dtype(
    spec: ModelSpec, arguments: Mapping[str, Any], version: str
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """`dtype fp8` as it was meant: FP8 weights. The mend is told, and the mended arguments are planned."""
    rule = _dtype_rule(arguments, version)
    if rule is None:
        return dict(arguments), ()
    mended = {name: value for name, value in arguments.items() if name != "dtype"}
    if spec.quantization is None and "quantization" not in mended:
        mended["quantization"] = "fp8"
    sentence = rule.sentence({"dtype": arguments["dtype"]})
    return mended, ((rule.code, f"{sentence}; planned as mended"),)


def _dtype_rule(arguments: Mapping[str, Any], version: str) -> EngineRule | None:
    if not str(arguments.get("dtype", "")).startswith(("fp8", "float8")):
        return None
    return next(iter(matching_rules({"dtype": arguments["dtype"]}, ENGINE, version)), None)


def _merge(spec: ModelSpec, arguments: Mapping[str, Any], wishes: Wishes) -> tuple[dict[str, Any], dict[str, str]]:
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    defaults = {} if wishes.whole_command else _planner_defaults(spec)
    layers = (
        (defaults, "planner default"),
        (wishes.preset, wishes.preset_source),
        (arguments, "user"),
    )
    for values, source in layers:
        merged |= values
        sources |= {f"engine.{name}": source for name in values}
    if wishes.others:
        sources["arguments not planned for"] = ", ".join(sorted(wishes.others))
    return merged, sources


def _planner_defaults(spec: ModelSpec) -> dict[str, Any]:
    return {
        "gpu_memory_utilization": DEFAULT_UTILIZATION,
        "max_model_len": min(DEFAULT_MAX_MODEL_LEN, spec.max_model_len),
    }


def _fixed(spec: ModelSpec, arguments: Mapping[str, Any], wishes: Wishes) -> FixedDegrees:
    given = {_DEGREES[name]: value for name, value in arguments.items() if name in _DEGREES}
    if wishes.whole_command:
        given = {"tensor": 1, "pipeline": 1, "data": 1, "decode_context": 1, "expert": False} | given
    if arguments.get("enable_eplb"):
        given["expert"] = _balanced_experts(given.get("expert"))
    layers = _layers_per_stage(wishes.env)
    if layers is not None and "pipeline_parallel_size" not in arguments:
        given["pipeline"] = len(layers)
    return FixedDegrees(
        **given,
        redundant_experts=_redundant_experts(arguments),
        layers_per_stage=layers,
        expert_placement=_expert_placement(spec, arguments),
    )


def _balanced_experts(expert: bool | None) -> bool:
    """vLLM refuses to balance experts that are not placed whole (`ParallelConfig._validate_parallel_config`)."""
    if expert is False:
        raise ConfigError("--enable-eplb needs --enable-expert-parallel, or vLLM refuses it")
    return True


def _expert_placement(spec: ModelSpec, arguments: Mapping[str, Any]) -> ExpertPlacement:
    """Round robin only where vLLM does not fall back to linear (`determine_expert_placement_strategy`)."""
    wanted = arguments.get("expert_placement_strategy", "linear")
    if wanted not in ("linear", "round_robin"):
        raise ConfigError(f"--expert-placement-strategy is {wanted!r}; it must be linear or round_robin")
    grouped = spec.moe is not None and spec.moe.num_groups > 1
    alone = not arguments.get("enable_eplb") and arguments.get("data_parallel_size", 1) == 1
    return "round_robin" if wanted == "round_robin" and grouped and alone else "linear"


def _redundant_experts(arguments: Mapping[str, Any]) -> int | None:
    config = arguments.get("eplb_config", {})
    if not isinstance(config, Mapping):
        raise ConfigError(f"--eplb-config is {config!r}; it must be a JSON object")
    redundant = config.get("num_redundant_experts", 0)
    if not isinstance(redundant, int) or isinstance(redundant, bool) or redundant < 0:
        raise ConfigError(f"num_redundant_experts is {redundant!r}; it must be a whole number of at least 0")
    if redundant and not arguments.get("enable_eplb"):
        raise ConfigError(f"num_redundant_experts {redundant} needs --enable-eplb, or vLLM refuses it")
    return redundant or None


def _layers_per_stage(env: Mapping[str, str]) -> tuple[int, ...] | None:
    text = env.get("VLLM_PP_LAYER_PARTITION")
    if text is None:
        return None
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise ConfigError(f"VLLM_PP_LAYER_PARTITION is {text!r}; it must be numbers such as 31,30") from None
