"""The demo models there are."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.demo import kimi_k2_mini, smol_moe
from orchestrator.demo.gguf_model import GgufModel
from orchestrator.demo.options import DemoOptions, KimiK2MiniOptions, SmolMoeOptions, parse_options
from orchestrator.demo.staging import Progress
from orchestrator.errors import UnknownModel


@dataclass(frozen=True)
class DemoModel:
    """One demo model: what it is, what can be chosen about it, and how it is built.

    `build` writes a checkpoint into an empty folder; `size_bytes` tells the size of its weights beforehand.
    """

    name: str
    summary: str
    architecture: str
    options_type: type[DemoOptions]
    size_bytes: Callable[[Any], int]
    build: Callable[[Path, GgufModel, Any, Progress], None]

    def options(self, values: Mapping[str, object]) -> DemoOptions:
        """Checked options, the rest by default. Raises `ConfigError`."""
        return parse_options(self.options_type, values, model=self.name)

    def folder_name(self, options: DemoOptions) -> str:
        """`smol-moe-4x2-bf16-seed0`: other options, other folder."""
        return f"{self.name}-{options.slug}"


_MODELS = (
    DemoModel(
        name="smol-moe",
        summary="SmolLM2-135M-Instruct as a Mixtral of 4 equal experts: small, and it answers sensibly",
        architecture="MixtralForCausalLM",
        options_type=SmolMoeOptions,
        size_bytes=smol_moe.size_bytes,
        build=smol_moe.build,
    ),
    DemoModel(
        name="kimi-k2-mini",
        summary="Kimi K2's architecture in small, with random weights: it rehearses layouts, not answers",
        architecture="DeepseekV3ForCausalLM",
        options_type=KimiK2MiniOptions,
        size_bytes=kimi_k2_mini.size_bytes,
        build=kimi_k2_mini.build,
    ),
)
DEMO_MODELS: Mapping[str, DemoModel] = MappingProxyType({model.name: model for model in _MODELS})


def find_model(name: str) -> DemoModel:
    """Raises `UnknownModel`, with the nearest names."""
    if name in DEMO_MODELS:
        return DEMO_MODELS[name]
    near = difflib.get_close_matches(name, DEMO_MODELS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {' and '.join(DEMO_MODELS)}"
    raise UnknownModel(f"no demo model is called {name!r}; {hint}")


def stand_in_for(architecture: str) -> str:
    """The demo model that stands in for real ones of an architecture in rehearsals. Raises `UnknownModel`."""
    for model in _MODELS:
        if model.architecture == architecture:
            return model.name
    known = " and ".join(sorted(model.architecture for model in _MODELS))
    raise UnknownModel(f"no small model stands in for {architecture} yet, so it cannot be rehearsed; {known} can")
