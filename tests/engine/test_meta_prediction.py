"""Multi-token-prediction layers held to vLLM's own classes: parameters of a rank, exactly."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

import torch
from vllm.config import set_current_vllm_config
from vllm.utils.torch_utils import set_default_torch_dtype

from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import cut_of, prediction_totals
from tests.engine.meta_model import Rank, register, stand_ins, vllm_args
from tests.engine.test_meta_parameters import unquantised

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CLASSES = {
    "deepseek-ai--DeepSeek-V3": "deepseek_mtp:DeepSeekMTP",
    "deepseek-ai--DeepSeek-V3.2": "deepseek_mtp:DeepSeekMTP",
    "zai-org--GLM-4.5": "glm4_moe_mtp:Glm4MoeMTP",
}
LAYOUTS = (
    (Layout(), Rank()),
    (Layout(tensor=8), Rank()),
    (Layout(tensor=4, expert=True), Rank(tensor_rank=1)),
    (Layout(tensor=2, data=2, expert=True), Rank(tensor_rank=1, data_rank=1)),
)
# Shared with the model: the engine drops the layer's own once it is loaded.
SHARED = ("embed_tokens", "shared_head.head")


def parameters(name: str, config: dict[str, Any], layout: Layout, rank: Rank, folder: Path) -> int:
    (folder / "config.json").write_text(json.dumps(config))
    register(config["architectures"][0])
    vllm_config = vllm_args(folder, layout, EngineArgs(max_model_len=256)).create_engine_config()
    vllm_config.speculative_config = SimpleNamespace(
        draft_model_config=vllm_config.model_config,
        enable_adaptive_verification=False,
        num_speculative_tokens=1,
        method="mtp",
    )
    module, _, class_name = CLASSES[name].partition(":")
    predictor = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), class_name)
    with (
        stand_ins(layout, rank),
        set_current_vllm_config(vllm_config),
        torch.device("meta"),
        set_default_torch_dtype(torch.bfloat16),
    ):
        model = predictor(vllm_config=vllm_config)
    named = model.named_parameters()
    return sum(parameter.numel() for key, parameter in named if not any(part in key for part in SHARED))


@pytest.mark.parametrize("name", CLASSES)
def test_prediction_layers_hold_what_vllm_builds(name: str, tmp_path: Path) -> None:
    """Norms, projection and decoder layer, cut like the model's own layers."""
    config = unquantised(name)
    spec = ModelSpec.from_hf(config, name="test", source="test")
    for layout, rank in LAYOUTS:
        cut = cut_of(spec, layout, rank.tensor_rank, rank.data_rank)
        ours = prediction_totals(spec, None, spec.dtype, cut).parameters
        assert ours == parameters(name, config, layout, rank, tmp_path), (layout, rank)
