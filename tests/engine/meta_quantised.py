"""vLLM's quantised layers on the meta device.

The CPU platform refuses most schemes, so a model is configured unquantised and its scheme put in behind the
platform's check; choosing a kernel is made inert, since it has no part in what a layer stores.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend
from vllm.model_executor.layers.quantization import fp8, get_quantization_config, mxfp4
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_wna16 as wna16,
)
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.utils.torch_utils import set_default_torch_dtype

from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.layout import Layout
from tests.engine.meta_model import Rank, register, stand_ins, vllm_args

# Scales of activations and of the cache, and what only loading needs: emptied once the weights are in.
_NO_WEIGHTS = (
    "input_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "prob_scale",
    "weight_shape",
    "g_idx",
    "g_idx_sort_indices",
)


def stored_bytes(
    config: Mapping[str, Any], layout: Layout, rank: Rank, folder: Path, mxfp4_backend: str = "MARLIN"
) -> int:
    """Bytes of the weights that vLLM's class makes on one rank, before kernels repack them."""
    model = _build(config, layout, rank, folder, mxfp4_backend)
    return sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in model.named_parameters()
        if not name.endswith(_NO_WEIGHTS)
    )


def _build(config: Mapping[str, Any], layout: Layout, rank: Rank, folder: Path, mxfp4_backend: str) -> torch.nn.Module:
    plain = copy.deepcopy(dict(config))
    scheme = plain.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(plain))
    register(plain["architectures"][0])
    vllm_config = vllm_args(folder, layout, EngineArgs(max_model_len=256)).create_engine_config()
    method = "gpt_oss_mxfp4" if scheme["quant_method"] == "mxfp4" else scheme["quant_method"]
    vllm_config.quant_config = get_quantization_config(method).from_config(scheme)
    with (
        stand_ins(layout, rank),
        pytest.MonkeyPatch.context() as patch,
        set_current_vllm_config(vllm_config),
        torch.device("meta"),
        set_default_torch_dtype(torch.bfloat16),
    ):
        _choose_no_kernels(patch, mxfp4_backend)
        return initialize_model(vllm_config=vllm_config, model_config=vllm_config.model_config)


def _choose_no_kernels(patch: pytest.MonkeyPatch, mxfp4_backend: str) -> None:
    marlin = wna16.WNA16MoEBackend.MARLIN
    padding = Mxfp4MoeBackend[mxfp4_backend]
    patch.setattr(fp8, "init_fp8_linear_kernel", lambda **_kwargs: SimpleNamespace())
    patch.setattr(fp8, "select_fp8_moe_backend", lambda **_kwargs: (None, None))
    patch.setattr(mxfp4, "select_mxfp4_moe_backend", lambda _moe: (padding, None))
    patch.setattr(wna16, "select_wna16_moe_backend", lambda *_args, **_kwargs: (marlin, None))
