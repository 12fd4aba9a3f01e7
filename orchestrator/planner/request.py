"""What a plan is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.catalog.engine_rules import EngineRule
from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.quantization import Quantization
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.memory.engine_args import EngineArgs, effective_quantization
from orchestrator.memory.layout import ExpertPlacement
from orchestrator.plan import Constraints, Objective

DEFAULT_OBJECTIVE: Objective = "throughput"
ENGINE = "vllm"
ENGINE_VERSION = "0.29.0"
# What vLLM itself takes on GPUs below 70 GiB (`EngineArgs.get_batch_defaults`).
SMALL_GPU_SEQUENCES = 256
SMALL_GPU_BATCHED_TOKENS = 2048


@dataclass(frozen=True)
class FixedDegrees:
    """Degrees that the user has decided; None leaves one to the planner."""

    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    decode_context: int | None = None
    expert: bool | None = None
    redundant_experts: int | None = None
    layers_per_stage: tuple[int, ...] | None = None
    expert_placement: ExpertPlacement = "linear"


@dataclass(frozen=True)
class PlanRequest:
    """A model, a cluster, and what is wanted of them.

    `engine` holds the arguments as they will be used; `max_model_len_given` tells whether somebody chose
    the maximum length or it is only a default.
    """

    spec: ModelSpec
    checkpoint: str
    cluster: ClusterSnapshot
    engine: EngineArgs
    objective: Objective = DEFAULT_OBJECTIVE
    constraints: Constraints = field(default_factory=Constraints)
    fixed: FixedDegrees = field(default_factory=FixedDegrees)
    engine_version: str = ENGINE_VERSION
    max_model_len_given: bool = True
    # `max_model_len auto`: the longest context that fits, `engine.max_model_len` at most.
    longest_context: bool = False
    # A command line is answered as it stands: nothing in it may be lowered to make it fit.
    exact_args: bool = False
    enable_prefix_caching: bool = True
    trust_remote_code: bool = False
    # Arguments that go to the engine as they were given, since no figure of the plan is made from them alone.
    verbatim: Mapping[str, Any] = field(default_factory=dict)
    env: tuple[tuple[str, str], ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    # A user's own engine rules, beside the built-in ones.
    rules: tuple[EngineRule, ...] = ()
    # (code, sentence) of what was noticed while the request was read; they become warnings.
    remarks: tuple[tuple[str, str], ...] = ()

    @property
    def engines(self) -> tuple[EngineArgs, ...]:
        """The arguments as asked for; then, where the batch limits are left open, with lower ones."""
        sequences, tokens = self.engine.max_num_seqs, self.engine.max_num_batched_tokens
        lower = replace(
            self.engine,
            max_num_seqs=sequences or min(SMALL_GPU_SEQUENCES, tokens or SMALL_GPU_SEQUENCES),
            max_num_batched_tokens=tokens or max(SMALL_GPU_BATCHED_TOKENS, sequences or 0),
        )
        return (self.engine,) if self.exact_args or lower == self.engine else (self.engine, lower)

    @property
    def quantization(self) -> Quantization | None:
        """How the weights will lie in memory."""
        return effective_quantization(self.engine, self.spec)

    def gpus_at_most(self, available: int) -> int:
        return min(available, self.constraints.gpus or available)

    @property
    def replicas(self) -> int:
        return self.constraints.replicas or 1
