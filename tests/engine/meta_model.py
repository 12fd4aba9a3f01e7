"""vLLM's own model classes on the meta device, for any rank, without GPUs or process groups.

The groups that a worker would make are replaced by stand-ins that know only sizes and ranks, and a few
calls that need tensors with data, or a kernel for this machine, are made inert: none of them has a
part in the shape of a parameter.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import EngineArgs as VllmEngineArgs
from vllm.model_executor.layers.fused_moe import expert_map_manager, unquantized_fused_moe_method
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models.registry import ModelRegistry
from vllm.platforms.cpu import CpuPlatform
from vllm.utils.torch_utils import set_default_torch_dtype

from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.layout import Layout

# Registered as classes, so that vLLM need not look into each in a process of its own.
MODEL_CLASSES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "MixtralForCausalLM": "mixtral",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v2",
    "DeepseekV32ForCausalLM": "deepseek_v2:DeepseekV3ForCausalLM",
    "GlmMoeDsaForCausalLM": "deepseek_v2",
    "Phi3ForCausalLM": "phi3",
    "Glm4MoeLiteForCausalLM": "glm4_moe_lite",
    "GraniteMoeForCausalLM": "granitemoe",
    "OlmoeForCausalLM": "olmoe",
    "KimiK25ForConditionalGeneration": "kimi_k25",
    "Glm4MoeForCausalLM": "glm4_moe",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "GptOssForCausalLM": "gpt_oss",
    "Llama4ForCausalLM": "llama4",
}


@dataclass(frozen=True)
class Rank:
    stage: int = 0
    tensor_rank: int = 0
    data_rank: int = 0


class StandInGroup:
    """A process group of which only sizes and ranks are ever asked."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = self.rank_in_group = self.local_rank = rank
        self.world_size = size
        self.ranks = list(range(size))
        self.is_first_rank, self.is_last_rank = rank == 0, rank == size - 1
        self.device_group = self.cpu_group = SimpleNamespace(size=lambda: size, rank=lambda: rank)
        self.device = torch.device("cpu")
        self.device_communicator = None


def parameters(config: Mapping[str, Any], layout: Layout, rank: Rank, folder: Path) -> int:
    """Parameters that vLLM's class for this config builds on one rank, unquantised."""
    model = build(config, layout, rank, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def build(config: Mapping[str, Any], layout: Layout, rank: Rank, folder: Path) -> torch.nn.Module:
    return build_with_config(config, layout, rank, folder, EngineArgs(max_model_len=256))[0]


def build_with_config(
    config: Mapping[str, Any], layout: Layout, rank: Rank, folder: Path, engine: EngineArgs
) -> tuple[torch.nn.Module, Any]:
    """The model of one rank, and the engine's own configuration that it was built by."""
    (folder / "config.json").write_text(json.dumps(config))
    register(config["architectures"][0])
    vllm_config = vllm_args(folder, layout, engine).create_engine_config()
    if layout.redundant_experts:
        # Set behind the platform's check: load balancing runs on GPUs only, its shapes are the same here.
        vllm_config.parallel_config.enable_eplb = True
        vllm_config.parallel_config.eplb_config.num_redundant_experts = layout.redundant_experts
    with (
        stand_ins(layout, rank),
        set_current_vllm_config(vllm_config),
        torch.device("meta"),
        set_default_torch_dtype(torch.bfloat16),
    ):
        model = initialize_model(vllm_config=vllm_config, model_config=vllm_config.model_config)
    return model, vllm_config


def register(architecture: str) -> None:
    module, _, name = MODEL_CLASSES[architecture].partition(":")
    source = importlib.import_module(f"vllm.model_executor.models.{module}")
    ModelRegistry.register_model(architecture, getattr(source, name or architecture))


def vllm_args(folder: Path, layout: Layout, engine: EngineArgs) -> VllmEngineArgs:
    return VllmEngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype="bfloat16",
        max_model_len=engine.max_model_len,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        tensor_parallel_size=layout.tensor,
        pipeline_parallel_size=layout.pipeline,
        data_parallel_size=layout.data,
        enable_expert_parallel=layout.expert,
        expert_placement_strategy=layout.expert_placement,
        distributed_executor_backend="mp",
    )


@contextmanager
def stand_ins(layout: Layout, rank: Rank) -> Iterator[None]:
    """Groups as the ranks of `layout` would see them."""
    expert_rank = rank.data_rank * layout.tensor + rank.tensor_rank
    world_rank = (rank.data_rank * layout.pipeline + rank.stage) * layout.tensor + rank.tensor_rank
    experts = StandInGroup(expert_rank, layout.tensor * layout.data)
    groups = {
        "_WORLD": StandInGroup(world_rank, layout.world_size),
        "_TP": StandInGroup(rank.tensor_rank, layout.tensor),
        "_PP": StandInGroup(rank.stage, layout.pipeline),
        "_DP": StandInGroup(rank.data_rank, layout.data),
        "_DCP": StandInGroup(0, 1),
        "_PCP": StandInGroup(0, 1),
        "_EP": experts,
        "_EPLB": experts,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, group in groups.items():
            patch.setattr(parallel_state, name, group)
        make_inert(patch)
        yield


choose_backend = CpuPlatform.get_attn_backend_cls.__func__


def dense_backend(cls: Any, selected_backend: Any, attn_selector_config: Any, num_heads: Any = None) -> str:
    """Sparse attention has no kernel on the CPU; the dense one's module has the same parameters."""
    dense = attn_selector_config._replace(use_sparse=False)
    return choose_backend(cls, selected_backend, dense, num_heads)


def make_inert(patch: pytest.MonkeyPatch) -> None:
    """Things that need data or a kernel, and have no part in shapes."""
    manager = expert_map_manager.ExpertMapManager
    patch.setattr(manager, "get_compressed_map_string", lambda _self: "")
    patch.setattr(torch.nn.Module, "to", lambda self, *_args, **_kwargs: self)
    patch.setattr(CpuPlatform, "get_attn_backend_cls", classmethod(dense_backend))
    backend = unquantized_fused_moe_method.UnquantizedMoeBackend.CPU
    patch.setattr(unquantized_fused_moe_method, "select_unquantized_moe_backend", lambda **_kwargs: (backend, None))
